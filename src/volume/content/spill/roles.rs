//! What is known of a group besides its page: the roles of its two copies, and its last number.

use crate::envelope::SpillPage;
use crate::envelope::layout::Copy2;
use crate::volume::content::durability::Durability;

/// What each copy of a group's page is for, and the number of the newest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::volume::content) struct Roles {
    /// The last number that was given to a page of the group: used once, whatever became of it (R6).
    sequence: u64,
    copies: Durability,
}

/// Which copy of a group's page counts.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::volume::content) enum Choice {
    /// This one, in these roles.
    Page(SpillPage, Roles),
    /// Nothing of the group was ever durable.
    None(Roles),
    /// What was durable cannot be read.
    Lost,
}

impl Roles {
    /// Both copies were cut off: the group begins anew behind everything that was written to it.
    pub(super) fn cut_off(self, generation: u64) -> Self {
        Self { sequence: self.sequence, copies: Durability::cut_off(generation) }
    }

    /// Which copy is durable, and which was written.
    pub(in crate::volume::content) fn copies(&self) -> &Durability {
        &self.copies
    }

    /// The same, to note what became of a write or a sync.
    pub(in crate::volume::content) fn copies_mut(&mut self) -> &mut Durability {
        &mut self.copies
    }

    /// True if neither copy is in the file.
    pub(in crate::volume::content) fn is_absent(&self) -> bool {
        self.copies.current().is_none()
    }

    /// True if the disk says all that is known of the group. One whose pages were cut off is
    /// remembered for its number.
    pub(in crate::volume::content) fn is_forgettable(&self) -> bool {
        self.copies.is_on_disk()
            || (self.sequence == 0 && !self.copies.is_owed() && !self.copies.is_written())
    }

    /// The number for the next page.
    pub(super) fn next_number(&self) -> u64 {
        self.sequence + 1
    }

    /// Counts a number that was given to a page.
    pub(super) fn number_given(&mut self, sequence: u64) {
        self.sequence = self.sequence.max(sequence);
    }

    /// Chooses between the copies that could be read, the first one first.
    ///
    /// What is known of their roles decides, and not their numbers: a page whose write failed may have
    /// arrived all the same. If nothing is known, nothing is in flight: the newest copy is the durable
    /// one (R2d).
    pub(in crate::volume::content) fn choose(
        [first, second]: [Option<SpillPage>; 2],
        known: Option<Self>,
    ) -> Choice {
        let (mut first, mut second) = (first, second);
        let mut take = |copy| match copy {
            Copy2::First => first.take().map(|page| (copy, page)),
            Copy2::Second => second.take().map(|page| (copy, page)),
        };
        let Some(mut roles) = known else {
            let pages = [Copy2::First, Copy2::Second].map(&mut take).into_iter().flatten();
            return match pages.max_by_key(|(_, page)| page.sequence()) {
                None => Choice::None(Self::default()),
                Some((copy, page)) => {
                    let (sequence, copies) = (page.sequence(), Durability::found(copy));
                    Choice::Page(page, Self { sequence, copies })
                }
            };
        };
        match roles.copies.in_order().find_map(take) {
            Some((copy, page)) => {
                roles.copies.fall_back_to(copy);
                roles.number_given(page.sequence());
                Choice::Page(page, roles)
            }
            None if roles.copies.is_durable() => Choice::Lost,
            None => {
                roles.copies.sync_failed();
                Choice::None(roles)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::layout::Group;

    fn page(sequence: u64) -> Option<SpillPage> {
        let mut page = SpillPage::empty(Group(1));
        page.set_sequence(sequence);
        Some(page)
    }

    /// The number of the page that counts, and where the next one goes.
    fn chosen(copies: [Option<SpillPage>; 2], known: Option<Roles>) -> Option<(u64, Copy2, u64)> {
        match Roles::choose(copies, known) {
            Choice::Page(page, roles) => {
                Some((page.sequence(), roles.copies.target(), roles.next_number()))
            }
            Choice::None(_) | Choice::Lost => None,
        }
    }

    #[test]
    fn after_a_crash_the_newest_good_copy_counts_and_the_other_one_is_the_target() {
        assert_eq!(chosen([page(3), page(4)], None), Some((4, Copy2::First, 5)));
        assert_eq!(chosen([page(9), page(4)], None), Some((9, Copy2::Second, 10)));
        assert_eq!(chosen([None, page(4)], None), Some((4, Copy2::First, 5)));
        assert_eq!(Roles::choose([None, None], None), Choice::None(Roles::default()));
    }

    #[test]
    fn what_is_known_decides_and_not_the_number() {
        let mut known = Roles { sequence: 8, copies: Durability::found(Copy2::First) };
        // A page whose write failed has arrived all the same.
        assert_eq!(chosen([page(3), page(8)], Some(known)), Some((3, Copy2::Second, 9)));
        known.copies.wrote(5);
        assert_eq!(chosen([page(3), page(8)], Some(known)), Some((8, Copy2::Second, 9)));
        assert_eq!(chosen([page(3), None], Some(known)), Some((3, Copy2::Second, 9)));
        assert_eq!(Roles::choose([None, None], Some(known)), Choice::Lost);
    }

    #[test]
    fn a_first_page_that_cannot_be_read_is_owed() {
        let mut known = Roles::default();
        known.copies.wrote(5);
        let Choice::None(roles) = Roles::choose([None, None], Some(known)) else { panic!() };
        assert!(roles.copies.is_owed());
    }

    #[test]
    fn a_group_that_was_cut_off_is_remembered_for_its_number() {
        let known = Roles { sequence: 8, copies: Durability::found(Copy2::First) };
        assert!(known.is_forgettable() && Roles::default().is_forgettable());
        let cut = known.cut_off(7);
        assert!(!cut.is_forgettable() && cut.is_absent() && cut.next_number() == 9);
    }
}

//! Which copy of a pair a crash leaves: the rule of spill pages (R2) and of header slots (R3).

use crate::envelope::layout::Copy2;

/// What is known of the two copies of something that is never written over in place.
///
/// | step | a crash leaves |
/// |---|---|
/// | 1. an update goes to [`Self::target`], and is noted when it arrived ([`Self::wrote`]) | the durable copy as it was; the other one old, new, or not authentic |
/// | 2. further updates until the next sync go to the same copy | the same |
/// | 3. a sync that began after the last update succeeds ([`Self::synced`]) | the new copy, which is the durable one from now on |
/// | 4. the next update goes to the copy that is not | as in 1 |
///
/// So of the copies on the disk the newest good one is always right, and after a crash the newest
/// good one is the durable one ([`Self::found`]): the first sync of a session comes before its first
/// write (R2d). A sync that fails says nothing of what reached the disk, and the kernel may have
/// dropped it: no roles change, and the copy is owed ([`Self::sync_failed`]). What is owed is written
/// once more from memory, to the same target, before a sync counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::volume::content) struct Durability {
    /// The copy that the last sync made durable: never written before another one is.
    durable: Option<Copy2>,
    /// The copy written since.
    written: Option<Copy2>,
    /// The generation of the last update.
    updated: u64,
    /// The disk may have something else than memory.
    owed: bool,
}

impl Durability {
    /// Nothing is in flight, and `copy` is the newest good one on the disk.
    pub(in crate::volume::content) fn found(copy: Copy2) -> Self {
        Self { durable: Some(copy), ..Self::default() }
    }

    /// Neither copy is on the disk since this generation: they were cut off.
    pub(in crate::volume::content) fn cut_off(generation: u64) -> Self {
        Self { updated: generation, ..Self::default() }
    }

    /// Where an update goes: where the last one since the sync went, else not to the durable copy.
    pub(in crate::volume::content) fn target(&self) -> Copy2 {
        match (self.written, self.durable) {
            (Some(copy), _) => copy,
            (None, Some(durable)) => durable.other(),
            (None, None) => Copy2::First,
        }
    }

    /// The copy that counts while memory knows which was written; `None` if neither is there.
    pub(in crate::volume::content) fn current(&self) -> Option<Copy2> {
        self.written.or(self.durable)
    }

    /// The copies in the order in which they count, if some cannot be read.
    pub(in crate::volume::content) fn in_order(&self) -> impl Iterator<Item = Copy2> + use<> {
        let other = self.durable.map(Copy2::other);
        [self.written, self.durable, other].into_iter().flatten()
    }

    /// True if some copy is durable.
    pub(in crate::volume::content) fn is_durable(&self) -> bool {
        self.durable.is_some()
    }

    /// True if a copy was written since the last sync.
    pub(in crate::volume::content) fn is_written(&self) -> bool {
        self.written.is_some()
    }

    /// True if a copy is to be written before a sync counts.
    pub(in crate::volume::content) fn is_owed(&self) -> bool {
        self.owed
    }

    /// True if the disk says all that is known, and some copy of it is there.
    pub(in crate::volume::content) fn is_on_disk(&self) -> bool {
        !self.owed && self.written.is_none() && self.durable.is_some()
    }

    /// True if an update arrived after `generation`.
    pub(in crate::volume::content) fn is_newer_than(&self, generation: u64) -> bool {
        self.updated > generation
    }

    /// The update arrived whole at its target.
    pub(in crate::volume::content) fn wrote(&mut self, generation: u64) {
        self.wrote_over(self.target(), generation);
    }

    /// A copy that could not be read is written anew, whatever its role was.
    pub(in crate::volume::content) fn wrote_over(&mut self, copy: Copy2, generation: u64) {
        (self.written, self.updated, self.owed) = (Some(copy), generation, false);
    }

    /// The disk may have something else than memory.
    pub(in crate::volume::content) fn owe(&mut self) {
        self.owed = true;
    }

    /// Nothing is owed where nothing may be written.
    pub(in crate::volume::content) fn forgive(&mut self) {
        self.owed = false;
    }

    /// The copy that should count cannot be read, and `copy` can: it is the one to keep. What was
    /// written since the sync is owed, and goes over the one that cannot be read.
    pub(in crate::volume::content) fn fall_back_to(&mut self, copy: Copy2) {
        if self.current() != Some(copy) {
            self.owed |= self.written.is_some();
            self.durable = Some(copy);
        }
    }

    /// A sync succeeded that began when `generation` was the newest: what was updated until then, and
    /// is not owed, is durable. True if the roles changed.
    pub(in crate::volume::content) fn synced(&mut self, generation: u64) -> bool {
        if self.is_newer_than(generation) || self.owed {
            return false;
        }
        let Some(copy) = self.written.take() else { return false };
        self.durable = Some(copy);
        true
    }

    /// A sync failed: what was written since the last one is written again.
    pub(in crate::volume::content) fn sync_failed(&mut self) {
        self.owed |= self.written.is_some();
    }
}

#[cfg(test)]
mod tests {
    use super::Copy2::{First, Second};
    use super::*;

    /// A pair whose first copy is durable.
    fn first_durable() -> Durability {
        let mut pair = Durability::default();
        pair.wrote(1);
        assert!(pair.synced(1) && pair.is_on_disk());
        pair
    }

    #[test]
    fn the_durable_copy_is_never_the_target() {
        let mut pair = Durability::default();
        assert_eq!((pair.target(), pair.current()), (First, None));
        let mut durable = None;
        for generation in (1..20).step_by(3) {
            pair.wrote(generation);
            let target = pair.target();
            assert_ne!(Some(target), durable, "the other copy is what a crash leaves");
            pair.wrote(generation + 1);
            assert_eq!(pair.target(), target, "all updates until the sync go there");
            assert!(pair.synced(generation + 1));
            durable = Some(target);
            assert_eq!((pair.current(), pair.target()), (durable, target.other()));
        }
    }

    #[test]
    fn only_a_sync_that_began_after_the_update_counts() {
        let mut pair = first_durable();
        pair.wrote(5);
        assert!(!pair.synced(4) && pair.target() == Second && !pair.is_on_disk());
        assert!(pair.synced(5) && pair.target() == First);
        assert!(!pair.synced(9), "once");
    }

    #[test]
    fn a_sync_that_fails_changes_no_roles_until_the_copy_is_written_again() {
        let mut pair = first_durable();
        pair.wrote(5);
        pair.sync_failed();
        assert!(pair.is_owed() && pair.target() == Second);
        assert!(!pair.synced(9), "the kernel may have dropped the page, and says so once");
        pair.wrote(10);
        assert!(!pair.is_owed() && pair.synced(10) && pair.current() == Some(Second));
        let mut idle = first_durable();
        idle.sync_failed();
        assert!(!idle.is_owed(), "nothing was written");
    }

    #[test]
    fn a_write_that_may_have_arrived_stays_owed() {
        let mut pair = first_durable();
        pair.owe();
        assert!(!pair.synced(9) && pair.target() == Second && pair.current() == Some(First));
        pair.wrote(10);
        assert!(pair.synced(10) && pair.is_on_disk());
    }

    #[test]
    fn a_copy_that_cannot_be_read_is_the_next_target() {
        let mut pair = Durability::found(First);
        assert_eq!(pair.in_order().collect::<Vec<_>>(), [First, Second]);
        pair.fall_back_to(Second);
        assert_eq!((pair.target(), pair.is_owed()), (First, false));
        let mut pair = first_durable();
        pair.wrote(5);
        assert_eq!(pair.in_order().next(), Some(Second));
        pair.fall_back_to(First);
        assert_eq!((pair.target(), pair.is_owed()), (Second, true), "written again");
    }
}

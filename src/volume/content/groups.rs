//! Spill pages: read, cached, and written in pairs (R2; FORMAT sections 6 and 11.3).

use rustix::io::Errno;

use super::cache::{Cached, GroupState, Groups, Roles};
use super::pages::{Arrival, Call};
use super::{Access, Content, State};
use crate::envelope::layout::{Block, Copy2, Group, PAGE_LEN, Page, last_block};
use crate::envelope::{EntryState, EnvelopeError, Nonces, Opened, SpillPage, UnitPlace};
use crate::volume::model::error::{Result, VolumeError};

const WHAT: &str = "spill page";

impl Content {
    /// Runs `use_page` on a group's spill page and on whether the group has none.
    ///
    /// # Errors
    /// `Tampered` when copies exist and none can be read; `Io`.
    pub(super) fn with_spill<T>(
        &self,
        state: &State,
        group: Group,
        use_page: impl FnOnce(&SpillPage, bool) -> T,
    ) -> Result<T> {
        let mut groups = state.spills.lock();
        let spill = self.loaded(state, &mut groups, group)?;
        let page = &spill.page.as_ref().ok_or(VolumeError::Lost(WHAT))?.page;
        Ok(use_page(page, spill.roles.is_absent()))
    }

    /// A group whose page is in memory. If the page cannot be read, what is known of the group
    /// stays as it is: without it the next write might go over the durable copy.
    fn loaded<'a>(
        &self,
        state: &State,
        groups: &'a mut Groups,
        group: Group,
    ) -> Result<&'a mut GroupState> {
        if groups.get(&group).is_none_or(|spill| spill.page.is_none()) {
            let known = groups.get(&group).map(|spill| spill.roles);
            let (page, roles) = self.read_group(state, group, known)?;
            let seat = self.shared.cache.seat(group, &state.spills, groups);
            let page = Some(Cached { page, seat });
            groups.insert(group, GroupState { page, roles, used: true, changing: false });
        }
        let spill = groups.get_mut(&group).ok_or(VolumeError::Lost(WHAT))?;
        spill.used = true;
        Ok(spill)
    }

    /// Changes a group's page and writes it; a page that cannot be written stays as it was.
    pub(super) fn update_spill(
        &self,
        state: &mut State,
        group: Group,
        change: impl FnOnce(&mut SpillPage),
    ) -> Result<()> {
        let before = self.change_spill(state, group, change)?;
        let written = self.write_spill(state, group);
        if written.is_err() {
            self.restore_spill(state, group, before);
        }
        written
    }

    /// Gives a group's page to `change` and returns the page as it was. Until the page was written
    /// or restored it stays in memory.
    pub(super) fn change_spill(
        &self,
        state: &State,
        group: Group,
        change: impl FnOnce(&mut SpillPage),
    ) -> Result<SpillPage> {
        self.change_spill_from(state, group, state.size, change)
    }

    /// The same for a change that has made the file longer: `size` is what it had before. What a group
    /// without a page says of its blocks, that they are holes, ends there.
    pub(super) fn change_spill_from(
        &self,
        state: &State,
        group: Group,
        size: u64,
        change: impl FnOnce(&mut SpillPage),
    ) -> Result<SpillPage> {
        let mut groups = state.spills.lock();
        let spill = self.loaded(state, &mut groups, group)?;
        let absent = spill.roles.is_absent();
        spill.changing = true;
        let page = &mut spill.page.as_mut().ok_or(VolumeError::Lost(WHAT))?.page;
        if absent && state.sparse() {
            mark_holes(page, group, size);
        }
        let before = page.clone();
        change(page);
        Ok(before)
    }

    /// Puts a group's page back to what it was, after its write failed.
    pub(super) fn restore_spill(&self, state: &State, group: Group, before: SpillPage) {
        if let Some(spill) = state.spills.lock().get_mut(&group) {
            spill.changing = false;
            if let Some(cached) = &mut spill.page {
                cached.page = before;
            }
        }
    }

    /// True if a copy of the group's page is in the file.
    pub(super) fn has_spill_page(&self, state: &State, group: Group) -> bool {
        state.spills.lock().get(&group).is_some_and(|spill| !spill.roles.is_absent())
    }

    /// The copy of a group's page that the next update goes to.
    pub(super) fn spill_target(&self, state: &State, group: Group) -> Copy2 {
        state.spills.lock().get(&group).map_or(Copy2::First, |spill| spill.roles.target())
    }

    /// Seals a group's page, one number on, for the copy that may be overwritten.
    pub(super) fn seal_spill(
        &self,
        state: &State,
        group: Group,
        nonces: &mut Nonces,
        out: &mut Page,
    ) -> Result<()> {
        let ready = state.ready()?;
        let mut groups = state.spills.lock();
        let GroupState { page: Some(cached), roles, .. } =
            groups.get_mut(&group).ok_or(VolumeError::Lost(WHAT))?
        else {
            return Err(VolumeError::Lost(WHAT));
        };
        let place = UnitPlace::spill(group.spill_page(roles.target()));
        let sequence = roles.sequence + 1;
        cached.page.set_sequence(sequence);
        ready.cipher.seal(place, nonces, cached.page.as_bytes(), out)?;
        // Counted even if the write fails: a number is never used for two contents (R6).
        roles.sequence = sequence;
        Ok(())
    }

    fn spill_is_out(&self, state: &mut State, group: Group) {
        let updated = state.marks.touch();
        state.marks.groups.remove(&group);
        if let Some(spill) = state.spills.lock().get_mut(&group) {
            let roles = &mut spill.roles;
            roles.written = Some(roles.target());
            roles.updated = updated;
            roles.owed = false;
            spill.changing = false;
        }
    }

    /// Notes what the write of the sealed page to its target has left there.
    pub(super) fn spill_arrived(&self, state: &mut State, group: Group, arrival: Arrival) {
        match arrival {
            Arrival::Whole => self.spill_is_out(state, group),
            Arrival::Nothing => {}
            Arrival::Unknown => self.spill_is_owed(state, group),
        }
    }

    /// Notes that the disk may have a page which memory has not: the next sync writes it first.
    pub(super) fn spill_is_owed(&self, state: &mut State, group: Group) {
        if let Some(spill) = state.spills.lock().get_mut(&group) {
            spill.roles.owed = true;
            spill.changing = false;
        }
        state.marks.touch();
    }

    /// True if the group's page in memory is to replace what the disk has.
    pub(super) fn owes_spill(&self, state: &State, group: Group) -> Result<bool> {
        Ok(self.loaded(state, &mut state.spills.lock(), group)?.roles.owed)
    }

    /// Writes a group's page by itself.
    pub(super) fn write_spill(&self, state: &mut State, group: Group) -> Result<()> {
        let mut page = [0; PAGE_LEN];
        let place = group.spill_page(self.spill_target(state, group));
        self.seal_spill(state, group, &mut Nonces::draw(1)?, &mut page)?;
        let call = Call::of_spill(place, &page);
        let went = self.backing.write_at(call.bytes, call.offset);
        let landed = call.landed(went);
        landed.spill.into_iter().for_each(|arrival| self.spill_arrived(state, group, arrival));
        went?;
        if landed.whole { Ok(()) } else { Err(VolumeError::Io(Errno::NOSPC)) }
    }

    /// The groups of which one copy of the spill page is not authentic; true for those where it was
    /// written anew, which a volume that may be changed does. What a crash explains is none of them.
    ///
    /// # Errors
    /// As a read.
    pub(in crate::volume) fn damaged_spills(&self) -> Result<Vec<(u64, bool)>> {
        let _gate = self.enter();
        let mut state = self.write_state();
        self.load(&mut state)?;
        let (mut found, size) = (Vec::new(), state.size);
        let Some((last, _)) = last_block(size).filter(|_| state.ready.is_some()) else {
            return Ok(found);
        };
        // Groups without a page have no copies, and there may be as many as somebody likes.
        let mut next = self.next_group(Block(0))?;
        while let Some(group) = next.filter(|group| *group <= last.group()) {
            next = self.next_group(group.end_block())?;
            let excused = self.crash_may_explain(&state, group.first_block());
            let (copies, bad) = self.read_copies(&state, group)?;
            // Without a good one the contents cannot be read, and say so themselves.
            if bad == 0 || copies.iter().all(Option::is_none) || excused {
                continue;
            }
            let changes = self.access == Access::ReadWrite;
            let mended = changes
                && self.announce(&mut state, size).is_ok()
                && self.update_spill(&mut state, group, |_| {}).is_ok()
                && self.read_copies(&state, group)?.1 == 0;
            found.push((group.0, mended));
        }
        Ok(found)
    }

    fn read_group(
        &self,
        state: &State,
        group: Group,
        known: Option<Roles>,
    ) -> Result<(SpillPage, Roles)> {
        let known = known.or_else(|| state.marks.groups.get(&group).copied());
        let (copies, bad) = match known.is_some() || group.first_block().start() < state.untouched {
            true => self.read_copies(state, group)?,
            false => ([None, None], 0),
        };
        if bad > 0 {
            let file = state.ready()?.header.file;
            log::warn!("file {file}: {bad} of 2 spill copies of group {} are unreadable", group.0);
        }
        let first = group.first_block();
        let had_tails = state.ready()?.header.seal.size > first.start() + first.payload() as u64;
        let (page, mut roles) = match choose(copies, known) {
            // A crash tore the other copy when it was written: recovery writes it anew.
            Choice::Page(page, roles) if bad > 0 && self.crash_may_explain(state, first) => {
                (page, Roles { owed: true, ..roles })
            }
            Choice::Page(page, roles) => (page, roles),
            Choice::None(roles) if bad == 0 || known.is_some() => (SpillPage::empty(group), roles),
            // Its first version was torn. No tail of the group was ever durable, and the data
            // pages hold what was (R1). A pair with durable tails is never lost whole (R2).
            Choice::None(roles) if !had_tails && self.crash_may_explain(state, first) => {
                (SpillPage::empty(group), Roles { owed: true, ..roles })
            }
            Choice::None(_) | Choice::Lost => return Err(VolumeError::Tampered(WHAT)),
        };
        roles.owed &= self.access == Access::ReadWrite;
        Ok((page, roles))
    }

    /// Both copies of a group's page, as far as they are there and authentic, and how many are not
    /// authentic.
    fn read_copies(&self, state: &State, group: Group) -> Result<([Option<SpillPage>; 2], usize)> {
        let ready = state.ready()?;
        let (first, second) = (group.spill_page(Copy2::First), group.spill_page(Copy2::Second));
        let mut pair = [[0; PAGE_LEN]; 2];
        self.read_pages(first.min(second), &mut pair)?;
        let [low, high] = &pair;
        let pages = if first < second { [low, high] } else { [high, low] };
        let (mut copies, mut bad) = ([None, None], 0);
        for (copy, page) in [Copy2::First, Copy2::Second].into_iter().zip(pages) {
            let mut plain = zeroize::Zeroizing::new([0; PAGE_LEN]);
            let place = UnitPlace::spill(group.spill_page(copy));
            match ready.cipher.open(place, page, &mut plain) {
                Ok(Opened::Absent) => {}
                Ok(Opened::Present { .. }) => {
                    let plain = plain.first_chunk().expect("a payload is shorter than its page");
                    copies[copy as usize] = Some(SpillPage::from_plain(group, plain));
                }
                Err(EnvelopeError::NotAuthentic(_) | EnvelopeError::Malformed(_)) => bad += 1,
                Err(error) => return Err(error.into()),
            }
        }
        Ok((copies, bad))
    }
}

/// Which copy of a group's page counts.
enum Choice {
    Page(SpillPage, Roles),
    /// Nothing of the group was ever durable.
    None(Roles),
    /// What was durable cannot be read.
    Lost,
}

/// Chooses between the copies that could be read. What is known of their roles decides, and not
/// their numbers: a page whose write failed may have arrived all the same.
fn choose(mut copies: [Option<SpillPage>; 2], known: Option<Roles>) -> Choice {
    let mut take = |copy: Copy2| copies[copy as usize].take().map(|page| (copy, page));
    let Some(mut roles) = known else {
        // Nothing is in flight: the newest copy is the durable one (R2d).
        let pages = [Copy2::First, Copy2::Second].map(&mut take).into_iter().flatten();
        return match pages.max_by_key(|(_, page)| page.sequence()) {
            None => Choice::None(Roles::default()),
            Some((copy, page)) => {
                let sequence = page.sequence();
                Choice::Page(page, Roles { sequence, durable: Some(copy), ..Roles::default() })
            }
        };
    };
    let Some((copy, page)) = [roles.written, roles.durable, roles.durable.map(Copy2::other)]
        .into_iter()
        .flatten()
        .find_map(take)
    else {
        roles.owed |= roles.written.is_some();
        return if roles.durable.is_some() { Choice::Lost } else { Choice::None(roles) };
    };
    if roles.current() != Some(copy) {
        // What should be current cannot be read: it is what the next update goes over.
        roles.owed |= roles.written.is_some();
        roles.durable = Some(copy);
    }
    roles.sequence = roles.sequence.max(page.sequence());
    Choice::Page(page, roles)
}

/// In a sparse file a group without a spill page is all holes, but for a last block that fits its
/// data page. Once the group gets a page, that has to be said there; of a page that waits to be written
/// to the disk, what it says already stays.
fn mark_holes(page: &mut SpillPage, group: Group, size: u64) {
    let Some((last, length)) = last_block(size) else { return };
    let small_last = length <= last.payload();
    let end = group.end_block().0.min(last.0 + 1);
    for number in group.first_block().0..end {
        let block = Block(number);
        let unsaid = page.entry(block.index()).state == EntryState::Absent;
        if unsaid && (block != last || !small_last) {
            page.set(block.index(), EntryState::Hole, [0; 8], &[]);
        }
    }
}

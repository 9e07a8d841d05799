//! Spill pages: read, cached, and written in pairs (R2; FORMAT sections 6 and 11.3).

use std::sync::atomic::Ordering;

use super::{Content, GroupMark, GroupState, State};
use crate::envelope::layout::{Block, Copy2, DATA_PAYLOAD, Group, PAGE_LEN, last_block};
use crate::envelope::{EntryState, EnvelopeError, Opened, SpillPage, UnitPlace};
use crate::volume::error::{Result, VolumeError};

const WHAT: &str = "spill page";
/// Decrypted spill pages kept in memory over all files: 4 KiB each.
const CACHED_SPILLS: usize = 4096;

impl Content {
    /// Runs `use_page` on a group's spill page and on whether the group has none.
    ///
    /// # Errors
    /// `Tampered` when copies exist and none can be read.
    pub(super) fn with_spill<T>(
        &self,
        state: &State,
        group: Group,
        use_page: impl FnOnce(&SpillPage, bool) -> T,
    ) -> Result<T> {
        let mut spills = state.spills();
        if let Some(spill @ GroupState { page: Some(page), lost: false, .. }) = spills.get(&group) {
            return Ok(use_page(page, spill.is_absent()));
        }
        let known = spills.remove(&group).inspect(|spill| self.forget_cached(spill));
        let loaded = self.read_group(state, group, known)?;
        self.make_room(&mut spills);
        self.shared.cached.fetch_add(1, Ordering::Relaxed);
        let spill = spills.entry(group).insert_entry(loaded).into_mut();
        match (&spill.page, spill.lost) {
            (Some(page), false) => Ok(use_page(page, spill.is_absent())),
            _ => Err(VolumeError::Tampered(WHAT)),
        }
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

    /// Gives a group's page to `change` and returns the page as it was.
    pub(super) fn change_spill(
        &self,
        state: &State,
        group: Group,
        change: impl FnOnce(&mut SpillPage),
    ) -> Result<SpillPage> {
        let absent = self.with_spill(state, group, |_, absent| absent)?;
        let mut spills = state.spills();
        let spill = spills.get_mut(&group).ok_or(VolumeError::Lost(WHAT))?;
        let page = spill.page.as_mut().ok_or(VolumeError::Lost(WHAT))?;
        if absent && state.sparse() {
            mark_holes(page, group, state.size);
        }
        let before = page.clone();
        change(page);
        Ok(before)
    }

    /// Puts a group's page back to what it was, after its write failed.
    pub(super) fn restore_spill(&self, state: &State, group: Group, before: SpillPage) {
        if let Some(spill) = state.spills().get_mut(&group)
            && let Some(page) = spill.page.as_mut()
        {
            *page = before;
        }
    }

    /// True if a copy of the group's page is in the file.
    pub(super) fn has_spill_page(&self, state: &State, group: Group) -> bool {
        state.spills().get(&group).is_some_and(|spill| !spill.is_absent())
    }

    /// The copy of a group's page that the next update goes to.
    pub(super) fn spill_target(&self, state: &State, group: Group) -> Copy2 {
        state.spills().get(&group).map_or(Copy2::First, GroupState::target)
    }

    /// Seals a group's page, one number on, for the copy that may be overwritten.
    pub(super) fn seal_spill(
        &self,
        state: &State,
        group: Group,
        nonce: &[u8; 12],
        out: &mut [u8],
    ) -> Result<()> {
        let ready = state.ready()?;
        let mut spills = state.spills();
        let spill = spills.get_mut(&group).ok_or(VolumeError::Lost(WHAT))?;
        let place = UnitPlace::spill(group.spill_page(spill.target()));
        let sequence = spill.sequence + 1;
        let page = spill.page.as_mut().ok_or(VolumeError::Lost(WHAT))?;
        page.set_sequence(sequence);
        ready.cipher.seal(place, nonce, page.as_bytes(), out)?;
        // Counted even if the write fails: a number is never used for two contents (R6).
        spill.sequence = sequence;
        Ok(())
    }

    /// Notes that the sealed page was written to its target.
    pub(super) fn spill_is_out(&self, state: &mut State, group: Group) {
        let updated = state.marks.touch();
        state.marks.groups.remove(&group);
        if let Some(spill) = state.spills().get_mut(&group) {
            spill.written = Some(spill.target());
            spill.updated = updated;
            spill.owed = false;
        }
    }

    /// Notes that the disk has a page which memory has taken back: the next sync writes it first.
    pub(super) fn spill_is_owed(&self, state: &State, group: Group) {
        if let Some(spill) = state.spills().get_mut(&group) {
            spill.owed = true;
        }
    }

    /// Before pages are forgotten: what the disk should have is written, or the file stays unsealed.
    pub(super) fn leave_nothing_owed(&self, state: &mut State) {
        if let Err(error) = self.write_owed(state) {
            log::warn!("a spill page could not be written and is as a crash leaves it: {error}");
            state.marks.sync_failed = true;
            self.shared.doubt();
        }
    }

    /// True if the group's page in memory is to replace what the disk has.
    pub(super) fn owes_spill(&self, state: &State, group: Group) -> Result<bool> {
        self.with_spill(state, group, |_, _| ())?;
        Ok(state.spills().get(&group).is_some_and(|spill| spill.owed))
    }

    /// Writes the pages that could not be written when they should have been.
    pub(super) fn write_owed(&self, state: &mut State) -> Result<()> {
        let owed: Vec<Group> = {
            let spills = state.spills();
            spills.iter().filter(|(_, spill)| spill.owed).map(|(group, _)| *group).collect()
        };
        owed.into_iter().try_for_each(|group| self.update_spill(state, group, |_| {}))
    }

    /// Writes a group's page by itself.
    pub(super) fn write_spill(&self, state: &mut State, group: Group) -> Result<()> {
        let mut nonce = [0; 12];
        crate::crypto::random::fill_nonces(&mut nonce)?;
        let mut out = vec![0; PAGE_LEN];
        let page = group.spill_page(self.spill_target(state, group));
        self.seal_spill(state, group, &nonce, &mut out)?;
        self.write_all(&out, page.offset())?;
        self.spill_is_out(state, group);
        Ok(())
    }

    fn read_group(
        &self,
        state: &State,
        group: Group,
        known: Option<GroupState>,
    ) -> Result<GroupState> {
        let ready = state.ready()?;
        let (first, second) = (group.spill_page(Copy2::First), group.spill_page(Copy2::Second));
        let mut pair = [0; 2 * PAGE_LEN];
        if known.is_some() || group.first_block().start() < state.untouched {
            self.backing.read_at(&mut pair, first.min(second).offset())?;
        }
        let (low, high) = pair.split_at(PAGE_LEN);
        let copies = if first < second { [low, high] } else { [high, low] };
        let mut best: Option<(Copy2, SpillPage)> = None;
        let mut bad = 0;
        for (copy, unit) in [Copy2::First, Copy2::Second].into_iter().zip(copies) {
            let mut plain = zeroize::Zeroizing::new([0; DATA_PAYLOAD]);
            let place = UnitPlace::spill(group.spill_page(copy));
            match ready.cipher.open(place, unit, &mut plain[..]) {
                Ok(Opened::Absent) => {}
                Ok(Opened::Present { .. }) => {
                    let page = SpillPage::from_plain(group, &plain[..]);
                    if best.as_ref().is_none_or(|(_, b)| page.sequence() > b.sequence()) {
                        best = Some((copy, page));
                    }
                }
                Err(EnvelopeError::NotAuthentic(_) | EnvelopeError::Malformed(_)) => bad += 1,
                Err(error) => return Err(error.into()),
            }
        }
        if bad > 0 {
            let file = ready.header.file;
            log::warn!("file {file}: {bad} of 2 spill copies of group {} are unreadable", group.0);
        }
        let mark = known.map(GroupMark::from).or_else(|| state.marks.groups.get(&group).copied());
        let mut spill = GroupState::new(group, best, bad, mark);
        let first = group.first_block();
        let had_tails = ready.header.seal.size > first.start() + first.payload() as u64;
        if spill.lost && !had_tails && self.crash_may_explain(state, first) {
            // Its first version was torn. No tail of the group was ever durable, and the data
            // pages hold what was (R1). A pair with durable tails is never lost whole (R2).
            spill.lost = false;
            spill.owed = true;
        }
        Ok(spill)
    }

    /// Keeps the number of decrypted pages over all files bounded.
    fn make_room(&self, spills: &mut std::collections::HashMap<Group, GroupState>) {
        while self.shared.cached.load(Ordering::Relaxed) >= CACHED_SPILLS {
            let mut evictable = spills.iter().filter(|(_, spill)| spill.page.is_some());
            let Some((&group, _)) = evictable.find(|(_, spill)| !spill.owed) else { return };
            if let Some(spill) = spills.get_mut(&group) {
                spill.page = None;
                self.shared.cached.fetch_sub(1, Ordering::Relaxed);
                if spill.is_forgettable() {
                    spills.remove(&group);
                }
            }
        }
    }
}

impl GroupState {
    fn new(
        group: Group,
        best: Option<(Copy2, SpillPage)>,
        bad: u32,
        mark: Option<GroupMark>,
    ) -> Self {
        let lost = best.is_none() && bad > 0;
        let newest = best.as_ref().map(|(copy, _)| *copy);
        let page = best.map_or_else(|| SpillPage::empty(group), |(_, page)| page);
        let sequence = page.sequence().max(mark.map_or(0, |mark| mark.sequence));
        let (durable, written, updated) = match mark {
            Some(mark) => (mark.durable, mark.written, mark.updated),
            // Nothing is in flight: the newest copy is the durable one (R2d).
            None => (newest, None, 0),
        };
        Self { page: Some(page), sequence, durable, written, updated, lost, owed: false }
    }

    /// True if the disk says all that is known of the group. A group whose pages were cut off is
    /// remembered for its number.
    pub(super) fn is_forgettable(&self) -> bool {
        self.written.is_none() && (self.durable.is_some() || self.sequence == 0)
    }

    /// True if neither copy is in the file.
    fn is_absent(&self) -> bool {
        self.durable.is_none() && self.written.is_none()
    }

    /// Where an update goes: where the last one since the sync went, else not to the durable copy.
    fn target(&self) -> Copy2 {
        self.written.or(self.durable.map(Copy2::other)).unwrap_or(Copy2::First)
    }
}

impl From<GroupState> for GroupMark {
    fn from(spill: GroupState) -> Self {
        Self {
            sequence: spill.sequence,
            durable: spill.durable,
            written: spill.written,
            updated: spill.updated,
        }
    }
}

/// In a sparse file a group without a spill page is all holes, but for a last block that fits its
/// data page. Once the group gets a page, that has to be said there.
fn mark_holes(page: &mut SpillPage, group: Group, size: u64) {
    let Some((last, length)) = last_block(size) else { return };
    let small_last = length <= last.payload();
    let end = group.end_block().0.min(last.0 + 1);
    for number in group.first_block().0..end {
        let block = Block(number);
        if block != last || !small_last {
            page.set(block.index(), EntryState::Hole, [0; 8], &[]);
        }
    }
}

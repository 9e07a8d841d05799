//! Holes and zeros: gaps, punching, zeroing, reserving (R13).

use rustix::io::Errno;

use super::{Content, State};
use crate::envelope::EntryState;
use crate::envelope::layout::{
    Block, Copy2, Group, MAX_SIZE, PAGE, PAGE_LEN, PageNo, in_memory, last_block,
};
use crate::volume::model::error::{Result, VolumeError};

/// Gaps up to this length are filled with encrypted zeros; longer ones make the file sparse.
const FILLED_GAP: u64 = 64 * 1024;
/// Bytes of a file that are punched while others wait.
const PUNCHED_AT_ONCE: u64 = 1 << 30;
/// Bytes of a file that are turned into zeros while others wait.
const ZEROED_AT_ONCE: u64 = 1 << 26;
/// Zeros written at a time.
const ZEROS: u64 = 64 * PAGE;

/// What [`Content::reserve`] does to the size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserve {
    /// The file grows to cover the range.
    Grow,
    /// The size stays.
    KeepSize,
}

impl Content {
    /// Turns a range into zeros, giving back the space of whole blocks.
    ///
    /// # Errors
    /// As a write.
    pub fn punch(&self, offset: u64, length: u64) -> Result<()> {
        let mut at = offset;
        let end = offset.saturating_add(length);
        while at < end {
            // Others get their turn in a long file.
            let stop =
                (at.saturating_add(PUNCHED_AT_ONCE) / PUNCHED_AT_ONCE * PUNCHED_AT_ONCE).min(end);
            if !self.with_journal_room(|| self.punch_some(at, stop))? {
                break;
            }
            at = stop;
        }
        Ok(())
    }

    /// Returns false if the file ends there.
    fn punch_some(&self, offset: u64, end: u64) -> Result<bool> {
        let mut state = self.change();
        let end = end.min(state.size);
        if offset >= end {
            return self.must_be_writable().map(|()| false);
        }
        self.ensure_header(&mut state)?;
        self.announce(&mut state, end)?;
        // The last block stays a page of its own: its unit vouches for the size.
        let keep = last_block(state.size).map_or(0, |(block, _)| block.start());
        let (first, last) = (offset.next_multiple_of(PAGE), (end / PAGE * PAGE).min(keep));
        if first >= last {
            self.zero_part(&mut state, offset, end)?;
            return Ok(true);
        }
        self.zero_part(&mut state, offset, first)?;
        self.zero_part(&mut state, last, end)?;
        self.punch_blocks(&mut state, Block::of_offset(first), Block::of_offset(last))?;
        Ok(true)
    }

    /// Turns a range into zeros, growing the file if asked to. They are encrypted, but for the groups
    /// of a sparse file that have no page yet: those get space only.
    ///
    /// # Errors
    /// As a write.
    pub fn zero(&self, offset: u64, length: u64, size: Reserve) -> Result<()> {
        let end = offset.checked_add(length).filter(|end| *end <= MAX_SIZE);
        let end = end.ok_or(VolumeError::TooLarge)?;
        let mut at = offset;
        while let Some(reached) = self.with_journal_room(|| self.zero_until(at, end, size))? {
            at = reached;
        }
        Ok(())
    }

    /// Returns how far it came, or `None` at the end.
    fn zero_until(&self, offset: u64, end: u64, size: Reserve) -> Result<Option<u64>> {
        let mut state = self.change();
        let inside = end.min(state.size);
        if offset >= inside && (size == Reserve::KeepSize || end <= state.size) {
            return self.must_be_writable().map(|()| None);
        }
        self.ensure_header(&mut state)?;
        self.announce(&mut state, inside)?;
        let reached = self.zero_some(&mut state, offset, inside)?;
        if reached < inside {
            return Ok(Some(reached));
        }
        self.grow_to(&mut state, end, size).map(|()| None)
    }

    /// Overwrites the pages in `offset..end`, which lies within the file, and returns early so that other
    /// requests get a turn. What has no page stays a hole, with space reserved for it.
    fn zero_some(&self, state: &mut State, offset: u64, end: u64) -> Result<u64> {
        let (mut at, mut left) = (offset, ZEROED_AT_ONCE);
        while at < end && left > 0 {
            let (begins, stop) = match state.sparse() {
                true => match self.next_present(state, Block::of_offset(at), end)? {
                    Some(block) => {
                        (block.start().max(at), block.group().end_block().start().min(end))
                    }
                    None => (end, end),
                },
                false => (at, end.min(at + left)),
            };
            if begins > at {
                self.reserve_hole(at, begins)?;
            }
            self.zero_part(state, begins, stop)?;
            left = left.saturating_sub(stop - begins);
            at = stop;
        }
        Ok(at)
    }

    /// Reserves space for a range that stays a hole, where the backing filesystem can.
    fn reserve_hole(&self, offset: u64, end: u64) -> Result<()> {
        match self.reserve_pages(offset, end) {
            Err(VolumeError::Io(Errno::OPNOTSUPP)) => Ok(()),
            other => other,
        }
    }

    /// The first block from `from` on whose group has anything, in the file or in memory, if it begins
    /// before the offset `end`. What lies before it is a hole (FORMAT section 5).
    fn next_present(&self, state: &State, from: Block, end: u64) -> Result<Option<Block>> {
        // A page that only the memory has.
        let next = match state.spills.owes_anything() {
            true => Some(from),
            false => self.next_group(from)?.map(|group| group.first_block().max(from)),
        };
        Ok(next.filter(|block| block.start() < end))
    }

    /// Runs under the same lock as the change before it: otherwise, whoever made the file longer in
    /// between would find it cut.
    fn grow_to(&self, state: &mut State, end: u64, size: Reserve) -> Result<()> {
        if size == Reserve::KeepSize || end <= state.size {
            return Ok(());
        }
        self.announce(state, end)?;
        self.grow(state, end)
    }

    /// Overwrites `offset..end`, which lies within the file, with zeros.
    fn zero_part(&self, state: &mut State, mut offset: u64, end: u64) -> Result<()> {
        let zeros = vec![0; in_memory(ZEROS)];
        while offset < end {
            let part = in_memory((end - offset).min(ZEROS));
            self.sync_for_journal(state);
            offset += self.write_range(state, offset, &zeros[..part])? as u64;
        }
        Ok(())
    }

    /// R13: the entries that say "hole" are durable before the pages go.
    fn punch_blocks(&self, state: &mut State, first: Block, end: Block) -> Result<()> {
        self.write_fresh_header(state)?;
        self.make_sparse(state)?;
        if state.marks.changes.has_contents() {
            // A block that is said to be a hole is inside the file, whatever a crash leaves.
            self.sync_locked(state)?;
        }
        let mut at = first;
        let made = self.make_holes(state, &mut at, first, end);
        if made.is_err() && at > first {
            // Entries say "hole", and pages are there.
            state.marks.doubt.add(first, at);
        }
        made
    }

    /// `marked`: the block up to which entries say "hole".
    fn make_holes(
        &self,
        state: &mut State,
        marked: &mut Block,
        first: Block,
        end: Block,
    ) -> Result<()> {
        let mut found = false;
        while let Some(present) = self.next_present(state, *marked, end.start())? {
            let group = present.group();
            let stop = end.min(group.end_block());
            if !self.are_holes(state, present, stop)? {
                self.mark(state, group, present, stop, EntryState::Hole)?;
            }
            (*marked, found) = (stop, true);
        }
        if !found {
            return Ok(());
        }
        self.sync_locked(state)?;
        if first.0 == 0 {
            self.journal_old_pages(state, Block(0), Block(1))?;
        }
        let mut from = first;
        while let Some(at) = self.next_present(state, from, end.start())? {
            let stop = end.min(at.group().end_block());
            if let Err(error) = self.punch_run(at, stop) {
                // The entries say "hole": pages that stay would be odd, so they become zeros.
                log::warn!("holes could not be made, zeros are written instead: {error}");
                self.zero_part(state, at.start(), stop.start())?;
            }
            from = stop;
        }
        if first.0 == 0 {
            state.marks.pages.add(PageNo(0), PageNo(0));
        }
        state.marks.touch_contents();
        Ok(())
    }

    /// True if the group's page says already that these blocks are holes, or the group has no page.
    fn are_holes(&self, state: &State, first: Block, end: Block) -> Result<bool> {
        self.with_spill(state, first.group(), |page, absent| {
            let hole = |block: u64| page.entry(Block(block).index()).state == EntryState::Hole;
            absent || (first.0..end.0).all(hole)
        })
    }

    fn punch_run(&self, first: Block, end: Block) -> Result<()> {
        let mut first = first;
        if first.0 == 0 {
            // Only the unit goes: the header slots share its page.
            let start = first.data_page().unit_start();
            self.write_all(&vec![0; PAGE_LEN - start], start as u64)?;
            first = Block(1);
        }
        if first < end {
            let length = (end.0 - first.0) * PAGE;
            self.backing.punch(first.data_page().offset(), length)?;
        }
        Ok(())
    }

    /// Reserves backing space for a range, both spill copies of its groups included.
    ///
    /// # Errors
    /// `Io` (no space, or a backing filesystem that cannot reserve).
    pub fn reserve(&self, offset: u64, length: u64, size: Reserve) -> Result<()> {
        let end = offset.checked_add(length).filter(|end| *end <= MAX_SIZE && length > 0);
        let end = end.ok_or(VolumeError::TooLarge)?;
        let mut state = self.change();
        self.ensure_header(&mut state)?;
        self.write_fresh_header(&mut state)?;
        self.reserve_pages(offset, end)?;
        self.grow_to(&mut state, end, size)
    }

    /// Reserves the pages of `offset..end`, which is not empty.
    fn reserve_pages(&self, offset: u64, end: u64) -> Result<()> {
        let first = Block::of_offset(offset).group();
        let from = first.spill_page(Copy2::First).min(first.spill_page(Copy2::Second));
        let from = if first.0 == 0 { 0 } else { from.offset() };
        let to = Block::of_offset(end - 1).data_page().offset() + PAGE;
        Ok(self.backing.reserve(from, to - from)?)
    }

    /// Closes the gap between the end of the file and `offset`, up to the block of `offset`, and
    /// returns the size of the file without the hole that may now be its end.
    pub(super) fn fill_gap(&self, state: &mut State, offset: u64) -> Result<u64> {
        let target = Block::of_offset(offset).start();
        let rest = state.size.next_multiple_of(PAGE).min(target).saturating_sub(state.size);
        self.write_zeros(state, rest)?;
        let gap = target.saturating_sub(state.size);
        if gap <= FILLED_GAP && !state.sparse() {
            self.write_zeros(state, gap)?;
        }
        if target <= state.size {
            return Ok(state.size);
        }
        self.make_sparse(state)?;
        self.mark_gap(state, Block::of_offset(target))?;
        if let Some(ready) = &state.ready
            && ready.fresh
        {
            self.write_fresh_header(state)?;
        }
        // The length on the disk follows with the block that ends the gap.
        Ok(std::mem::replace(&mut state.size, target))
    }

    /// Appends zeros.
    fn write_zeros(&self, state: &mut State, mut count: u64) -> Result<()> {
        let zeros = vec![0; in_memory(ZEROS)];
        while count > 0 {
            let part = in_memory(count.min(ZEROS));
            let at = state.size;
            count -= self.write_range(state, at, &zeros[..part])? as u64;
        }
        Ok(())
    }

    /// Makes the blocks from the end of the file up to `end` holes, in the spill page of the group that
    /// has one already. A group without one is all holes by itself.
    fn mark_gap(&self, state: &mut State, end: Block) -> Result<()> {
        let first = Block::of_offset(state.size.next_multiple_of(PAGE));
        let group = first.group();
        let end = end.min(group.end_block());
        let has_page = self.with_spill(state, group, |_, absent| !absent)?;
        if !has_page || first >= end {
            return Ok(());
        }
        self.mark(state, group, first, end, EntryState::Hole)
    }

    pub(super) fn mark(
        &self,
        state: &mut State,
        group: Group,
        first: Block,
        end: Block,
        entry: EntryState,
    ) -> Result<()> {
        self.update_spill(state, group, |page| {
            for block in (first.0..end.0).map(Block) {
                page.set(block.index(), entry, [0; 8], &[]);
            }
        })
    }

    /// Notes durably that the file may have holes, before the first one is made.
    fn make_sparse(&self, state: &mut State) -> Result<()> {
        if state.sparse() {
            return Ok(());
        }
        self.update_header(state, |header| header.flags.sparse = true)?;
        if state.ready()?.fresh { Ok(()) } else { self.sync_locked(state) }
    }
}

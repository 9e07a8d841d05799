//! Size changes and holes: truncate, gaps, punching, reserving (R5, R6, R13, R14).

use super::read::Soundness;
use super::{Content, State};
use crate::envelope::EntryState;
use crate::envelope::layout::{
    Block, Copy2, Group, MAX_SIZE, PAGE, PAGE_LEN, PageNo, backing_len, in_memory, last_block,
    pages_of,
};
use crate::volume::model::error::{Result, VolumeError};

/// Gaps up to this length are filled with encrypted zeros; longer ones make the file sparse.
const FILLED_GAP: u64 = 64 * 1024;
/// Bytes of a file that are punched while others wait.
const PUNCHED_AT_ONCE: u64 = 1 << 30;
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
    /// Sets the size; what is past the old end reads as zeros.
    ///
    /// # Errors
    /// As a write; `TooLarge`.
    pub fn truncate(&self, size: u64) -> Result<()> {
        if size > MAX_SIZE {
            return Err(VolumeError::TooLarge);
        }
        let mut state = self.change();
        self.must_be_writable()?;
        if size == 0 && self.forget_file(&mut state)? {
            return Ok(());
        }
        if size == state.size {
            return Ok(());
        }
        self.ensure_header(&mut state)?;
        self.announce(&mut state, size)?;
        if size < state.size { self.shrink(&mut state, size) } else { self.grow(&mut state, size) }
    }

    /// Cuts a file to nothing without asking for its key: what an `O_TRUNC` may do to a damaged one.
    ///
    /// Returns false if the file has attributes under its key and must keep its header.
    fn forget_file(&self, state: &mut State) -> Result<bool> {
        if !state.has_header {
            return Ok(true);
        }
        let keeps_key = match self.load(state) {
            Ok(()) => state.ready.as_ref().is_some_and(|ready| ready.header.flags.xattrs),
            Err(VolumeError::Tampered(_) | VolumeError::Lost(_)) => false,
            Err(error) => return Err(error),
        };
        if keeps_key {
            return Ok(false);
        }
        self.set_length(0)?;
        state.begin_anew(None);
        self.keys.forget();
        Ok(true)
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

    /// The blocks from the end of the file up to `end` become holes: said in the spill page of the
    /// group that already has one; a group without one is all holes by itself.
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

    fn mark(
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

    /// Durably says that the file may have holes, before the first one is made.
    fn make_sparse(&self, state: &mut State) -> Result<()> {
        if state.sparse() {
            return Ok(());
        }
        self.update_header(state, |header| header.flags.sparse = true)?;
        if state.ready()?.fresh { Ok(()) } else { self.sync_locked(state) }
    }

    /// The last block of a file is always a page of its own, so that its length is authentic.
    fn grow(&self, state: &mut State, size: u64) -> Result<()> {
        let Some((last, length)) = last_block(size) else { return Ok(()) };
        self.growing(state, |state, solid| {
            if last.start() > state.size {
                *solid = Some(self.fill_gap(state, last.start())?);
            }
            let from = state.size.max(last.start());
            let zeros = vec![0; in_memory(last.start() + length as u64 - from)];
            self.write_range(state, from, &zeros).map(|_| ())
        })
    }

    pub(super) fn shrink(&self, state: &mut State, size: u64) -> Result<()> {
        // A seal whose write failed may be on the disk all the same.
        if state.ready()?.header.seal.size > size || state.marks.header.is_unsure() {
            self.update_header(state, |header| header.seal.size = header.seal.size.min(size))?;
            self.sync_locked(state)?;
        }
        if let Some((block, length)) = last_block(size) {
            self.make_an_end(state, block, length)?;
        }
        let cut = last_block(size).filter(|(_, length)| *length < PAGE_LEN);
        let mut kept = zeroize::Zeroizing::new([0; PAGE_LEN]);
        if let Some((block, _)) = cut {
            self.read_block(state, block, &mut kept)?;
            self.settle_if_durable(state, block);
        }
        // Two steps: a single cut to the final length would leave old ciphertext in its hint (R6).
        self.set_length(pages_of(size) * PAGE)?;
        Self::end_at(state, size);
        let ended = self.forget_tails(state, size).and_then(|()| match cut {
            Some((block, length)) => {
                self.write_range(state, block.start(), &kept[..length]).map(|_| ())
            }
            None if size == 0 => self.write_empty_first(state),
            None => Ok(()),
        });
        if let Err(error) = ended.and_then(|()| self.set_length(backing_len(size))) {
            // The bytes are cut off, and an error would say that they are not: the kernel would go
            // on by the old size, and the next append put zeros in their place.
            log::warn!("a file is shorter, and its new end waits for the next sync: {error}");
            self.owe_end(state);
        }
        Ok(())
    }

    /// Ends the file at `size`, for whoever asks from now on.
    fn end_at(state: &mut State, size: u64) {
        state.size = size;
        state.marks.durable_size = state.marks.durable_size.min(size);
        state.marks.proven_size = state.marks.proven_size.min(size);
        state.marks.touch();
        state.marks.contents_dirty = true;
        state.marks.unsealed = true;
    }

    fn owe_end(&self, state: &mut State) {
        state.marks.end_owed = true;
        self.tell_length(state);
    }

    /// After a change that failed and made the file longer, on a disk that may take nothing more: it
    /// ends where it did before. What cannot be taken back now is done before a sync counts; until
    /// then a crash leaves the file as one in the middle of the change does.
    pub(super) fn take_growth_back(&self, state: &mut State, before: u64) {
        if let Err(error) = self.shrink(state, before) {
            log::warn!("the end of a file waits for the next sync: {error}");
            Self::end_at(state, before);
            self.owe_end(state);
        }
    }

    /// After a failure: the last page says how long the file is, and nothing lies behind it.
    pub(super) fn write_owed_end(&self, state: &mut State) -> Result<()> {
        if !state.marks.end_owed || state.ready.as_ref().is_none_or(|ready| ready.fresh) {
            return Ok(());
        }
        self.forget_tails(state, state.size)?;
        match last_block(state.size) {
            None => self.write_empty_first(state)?,
            Some((block, length)) => {
                let mut bytes = zeroize::Zeroizing::new([0; PAGE_LEN]);
                self.read_block(state, block, &mut bytes)?;
                self.write_range(state, block.start(), &bytes[..length])?;
            }
        }
        state.marks.end_owed = false;
        Ok(())
    }

    /// The last block of a file is a page of its own and as long as the file says: a hole there, or
    /// what a crash left short, is written whole and durably before the cut.
    fn make_an_end(&self, state: &mut State, block: Block, length: usize) -> Result<()> {
        let mut bytes = zeroize::Zeroizing::new([0; PAGE_LEN]);
        let residue = match self.read_block(state, block, &mut bytes) {
            Ok(found) => found == Soundness::Residue,
            // A block that is kept whole is not asked for what it holds.
            Err(VolumeError::Lost(_) | VolumeError::Tampered(_)) if length == PAGE_LEN => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        // After a failed sync nobody knows whether the page is there.
        let residue = residue || state.marks.sync_failed;
        if residue || (state.sparse() && self.last_length(state, block)?.is_none()) {
            self.write_range(state, block.start(), &bytes[..block.before(state.size)])?;
        }
        if (residue || state.sparse()) && state.marks.contents_dirty {
            self.sync_locked(state)?;
        }
        Ok(())
    }

    /// Page 0 of a file that keeps its header but has no contents: the unit is erased.
    pub(super) fn write_empty_first(&self, state: &mut State) -> Result<()> {
        let start = Block(0).data_page().unit_start();
        self.keep_old(state, Block(0), Block(1))?;
        state.marks.written.add(PageNo(0), PageNo(0));
        self.write_all(&vec![0; PAGE_LEN - start], start as u64)?;
        state.marks.touch();
        Ok(())
    }

    /// Clears the spill entries of blocks that have no tail any more, in the one group that keeps
    /// its page. Left there, one would come back as the end of a longer block after a crash.
    fn forget_tails(&self, state: &mut State, size: u64) -> Result<()> {
        let first = match last_block(size) {
            Some((block, length)) if length <= block.payload() => block,
            _ => Block::of_offset(size.next_multiple_of(PAGE)),
        };
        let group = last_block(size).map_or(Group(0), |(block, _)| block.group());
        self.forget_groups(state, size);
        if pages_of(size) == 1 {
            return Ok(());
        }
        let has_page = self.with_spill(state, group, |_, absent| !absent)?;
        if !has_page || first >= group.end_block() {
            return Ok(());
        }
        self.mark(state, group, first, group.end_block(), EntryState::Absent)
    }

    /// Forgets the groups whose pages a cut to `size` takes away.
    pub(super) fn forget_groups(&self, state: &mut State, size: u64) {
        let group = last_block(size).map_or(Group(0), |(block, _)| block.group());
        let one_page = pages_of(size) == 1;
        let gone = |at| at > group || (one_page && at == group);
        // The pages are cut off, and a number is not used twice for a file id (R6): the group
        // starts again behind everything that was ever written to it.
        let State { spills, marks, .. } = state;
        spills.cut_off(gone, || marks.touch());
    }

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
            if !self.punch_some(at, stop)? {
                break;
            }
            at = stop;
        }
        Ok(())
    }

    /// False if the file ends there.
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

    /// Turns a range into encrypted zeros, growing the file if asked to.
    ///
    /// # Errors
    /// As a write.
    pub fn zero(&self, offset: u64, length: u64, size: Reserve) -> Result<()> {
        let end = offset.checked_add(length).filter(|end| *end <= MAX_SIZE);
        let end = end.ok_or(VolumeError::TooLarge)?;
        let mut state = self.change();
        let inside = end.min(state.size);
        if offset >= inside && (size == Reserve::KeepSize || end <= state.size) {
            return self.must_be_writable();
        }
        self.ensure_header(&mut state)?;
        self.announce(&mut state, inside)?;
        self.zero_part(&mut state, offset, inside)?;
        self.grow_to(&mut state, end, size)
    }

    /// Under the same lock as the change before it: whoever made the file longer in between would
    /// otherwise find it cut.
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
            offset += self.write_range(state, offset, &zeros[..part])? as u64;
        }
        Ok(())
    }

    /// R13: the entries that say "hole" are durable before the pages go.
    fn punch_blocks(&self, state: &mut State, first: Block, end: Block) -> Result<()> {
        self.write_fresh_header(state)?;
        self.make_sparse(state)?;
        if state.marks.contents_dirty {
            // A block that is said to be a hole is inside the file, whatever a crash leaves.
            self.sync_locked(state)?;
        }
        let mut at = first;
        let made = self.make_holes(state, &mut at, first, end);
        if made.is_err() && at > first {
            // Entries say "hole", and pages are there.
            state.marks.doubt(first, at);
        }
        made
    }

    /// `marked`: up to there entries say "hole".
    fn make_holes(
        &self,
        state: &mut State,
        marked: &mut Block,
        first: Block,
        end: Block,
    ) -> Result<()> {
        while *marked < end {
            let group = marked.group();
            let stop = end.min(group.end_block());
            if !self.are_holes(state, *marked, stop)? {
                self.mark(state, group, *marked, stop, EntryState::Hole)?;
            }
            *marked = stop;
        }
        self.sync_locked(state)?;
        if first.0 == 0 {
            self.keep_old(state, Block(0), Block(1))?;
        }
        let mut at = first;
        while at < end {
            let stop = end.min(at.group().end_block());
            if let Err(error) = self.punch_run(at, stop) {
                // The entries say "hole": pages that stay would be odd, so they become zeros.
                log::warn!("holes could not be made, zeros are written instead: {error}");
                self.zero_part(state, at.start(), stop.start())?;
            }
            at = stop;
        }
        if first.0 == 0 {
            state.marks.written.add(PageNo(0), PageNo(0));
        }
        state.marks.touch();
        state.marks.contents_dirty = true;
        state.marks.unsealed = true;
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
        let first = Block::of_offset(offset).group();
        let from = first.spill_page(Copy2::First).min(first.spill_page(Copy2::Second));
        let from = if first.0 == 0 { 0 } else { from.offset() };
        let to = Block::of_offset(end - 1).data_page().offset() + PAGE;
        self.backing.reserve(from, to - from)?;
        self.grow_to(&mut state, end, size)
    }
}

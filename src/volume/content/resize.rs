//! Size changes: growing, cutting, and the end of the file (R5, R6, R14).

use super::read::Soundness;
use super::{Content, State};
use crate::crypto::Wiped;
use crate::envelope::EntryState;
use crate::envelope::layout::{
    Block, Group, MAX_SIZE, PAGE, PAGE_LEN, PageNo, backing_len, in_memory, last_block, pages_of,
};
use crate::volume::model::error::{Result, VolumeError};

impl Content {
    /// Sets the size; what is past the old end reads as zeros.
    ///
    /// # Errors
    /// As a write; `TooLarge`.
    pub fn truncate(&self, size: u64) -> Result<()> {
        if size > MAX_SIZE {
            return Err(VolumeError::TooLarge);
        }
        self.with_journal_room(|| self.set_size(size))
    }

    fn set_size(&self, size: u64) -> Result<()> {
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

    /// Grows the file. Its last block is always a page of its own, so that its length is authentic.
    pub(super) fn grow(&self, state: &mut State, size: u64) -> Result<()> {
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
        let mut kept = Wiped::new([0; PAGE_LEN]);
        if let Some((block, _)) = cut {
            self.read_block(state, block, &mut kept)?;
            self.wait_before_rewrite(state, block);
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
        state.marks.extent.cut(size);
        state.marks.touch_contents();
    }

    fn owe_end(&self, state: &mut State) {
        state.marks.end_owed = true;
        self.correct_length(state);
    }

    /// Ends the file where it ended before a change that failed, on a disk that may take nothing more.
    /// What cannot be taken back now is taken back before a sync counts; until then, a crash leaves the
    /// file as one in the middle of the change does.
    pub(super) fn take_growth_back(&self, state: &mut State, before: u64) {
        if let Err(error) = self.shrink(state, before) {
            log::warn!("the end of a file waits for the next sync: {error}");
            Self::end_at(state, before);
            self.owe_end(state);
        }
    }

    /// After a failure, makes the last page say how long the file is, with nothing behind it.
    pub(super) fn write_owed_end(&self, state: &mut State) -> Result<()> {
        if !state.marks.end_owed || state.ready.as_ref().is_none_or(|ready| ready.fresh) {
            return Ok(());
        }
        self.forget_tails(state, state.size)?;
        match last_block(state.size) {
            None => self.write_empty_first(state)?,
            Some((block, length)) => {
                let mut bytes = Wiped::new([0; PAGE_LEN]);
                self.read_block(state, block, &mut bytes)?;
                self.write_range(state, block.start(), &bytes[..length])?;
            }
        }
        state.marks.end_owed = false;
        Ok(())
    }

    /// Before a cut, writes the new last block whole and durably if it is a hole, or if a crash left it
    /// short: it must be a page of its own, as long as the file says.
    fn make_an_end(&self, state: &mut State, block: Block, length: usize) -> Result<()> {
        let mut bytes = Wiped::new([0; PAGE_LEN]);
        let residue = match self.read_block(state, block, &mut bytes) {
            Ok(found) => found == Soundness::Residue,
            // A block that is kept whole need not be readable.
            Err(VolumeError::Lost(_) | VolumeError::Tampered(_)) if length == PAGE_LEN => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        // After a failed sync nobody knows whether the page is there.
        let residue = residue || state.marks.doubt.has_failed_sync();
        if residue || (state.sparse() && self.last_length(state, block)?.is_none()) {
            self.write_range(state, block.start(), &bytes[..block.before(state.size)])?;
        }
        if (residue || state.sparse()) && state.marks.changes.has_contents() {
            self.sync_locked(state)?;
        }
        Ok(())
    }

    /// Erases the unit in page 0 of a file that keeps its header but has no contents.
    pub(super) fn write_empty_first(&self, state: &mut State) -> Result<()> {
        let start = Block(0).data_page().unit_start();
        self.journal_old_pages(state, Block(0), Block(1))?;
        state.marks.pages.add(PageNo(0), PageNo(0));
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
}

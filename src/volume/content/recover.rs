//! After a crash: the length in the last page wins over the hint in the file's length (R1, R5).

use super::block::{Facts, Verdict, judge};
use super::read::with_scratch;
use super::{Access, Content, State};
use crate::envelope::layout::{
    Block, PAGE, PAGE_LEN, PageNo, PageRole, backing_len, last_block, pages_of,
};
use crate::envelope::{Opened, claimed_length};
use crate::volume::error::{Result, VolumeError};

impl Content {
    /// Holds the size that the length of the backing file tells against what the file says itself.
    ///
    /// # Errors
    /// `Tampered` when pages below the seal are cut off: no crash does that, since a seal is
    /// lowered durably before a cut (R7).
    pub(super) fn check_size(&self, state: &mut State) -> Result<()> {
        let Some(ready) = &state.ready else { return Ok(()) };
        if state.marks.untold.is_some() {
            // The size is known; it is the length that could not be given.
            return Ok(());
        }
        let sealed = ready.header.seal.size;
        let length = self.backing.length()?;
        if length / PAGE < pages_of(sealed) {
            return Err(self.cut_below_seal(state));
        }
        // What `stat` showed was this length, unless a crash makes it suspect: where it does not, a
        // length that the page does not confirm is not put right in silence.
        let one_page = length / PAGE == 1
            && self.shared.has_crashed()
            && self.shared.is_suspect(self.backing.ctime()?);
        let crashed = self.is_excused(state) && !state.marks.is_dirty();
        if crashed || one_page || length != backing_len(state.size) {
            self.recover_size(state, length)?;
        } else if state.sparse() && state.size > sealed && !self.ends_in_a_page(state)? {
            // Made longer by whoever writes to the vault, with holes that nobody made.
            log::error!(
                "file {}: the page of its end is not there: tampering",
                state.ready()?.header.file
            );
            return Err(VolumeError::Tampered("file length"));
        }
        if state.size < sealed { Err(self.cut_below_seal(state)) } else { Ok(()) }
    }

    /// True if the last block has the page that says how long the file is. One that cannot be read
    /// counts: its reads fail.
    fn ends_in_a_page(&self, state: &State) -> Result<bool> {
        let Some((block, length)) = last_block(state.size) else { return Ok(true) };
        let unsure = state.marks.end_owed || state.marks.is_unsure();
        Ok(unsure || self.last_length(state, block)? == Some(length))
    }

    fn cut_below_seal(&self, state: &State) -> VolumeError {
        if let Some(ready) = &state.ready {
            log::error!("file {}: cut below its sealed size: tampering", ready.header.file);
        }
        VolumeError::Tampered("file length")
    }

    /// Finds the last page that is there and takes the size from it.
    fn recover_size(&self, state: &mut State, length: u64) -> Result<()> {
        let sealed = state.ready()?.header.seal.size;
        let told = state.size;
        if length / PAGE == 1 {
            // A page is the old one or the new one, and knows its length: the hint may be of
            // another moment, even where nothing else in the file can be.
            let first = self.last_length(state, Block(0))?;
            state.size = first.map_or(0, |length| length as u64);
        }
        // Blocks below the seal were durable: where one of them is missing, reading it says so.
        while let Some((block, _)) = last_block(state.size) {
            let length = self.last_length(state, block)?;
            if let Some(length) = length {
                state.size = block.start() + length as u64;
                break;
            }
            if block.start() < sealed {
                state.size = state.size.max(sealed).min(told.max(sealed));
                break;
            }
            state.size = self.end_before(block, sealed)?;
        }
        let length = backing_len(state.size);
        if self.backing.length()? != length {
            let file = state.ready()?.header.file;
            log::warn!(
                "file {file}: size {told} was a hint from before a crash; it is {}",
                state.size
            );
            if self.access == Access::ReadWrite {
                let pages = length / PAGE * PAGE;
                self.backing.keep_times(&mut || {
                    self.backing.set_length(pages)?;
                    self.backing.set_length(length)
                })?;
                state.marks.touch();
            }
        }
        Ok(())
    }

    /// How long the block is that is last on the disk; `None` if its page is not there.
    pub(super) fn last_length(&self, state: &State, block: Block) -> Result<Option<usize>> {
        let mut plain = zeroize::Zeroizing::new([0; PAGE_LEN]);
        let (unit, claimed) = with_scratch(PAGE_LEN, |page| {
            let got = self.backing.read_at(page, block.data_page().offset())?;
            page.get_mut(got..).unwrap_or_default().fill(0);
            let unit = self.open_unit(state, block.data_page(), page, &mut plain[..]);
            Ok::<_, VolumeError>((unit, claimed_length(block.data_page(), page)))
        })?;
        let unit = match unit {
            // A torn page hurts its own block, whose reads fail: the rest of the file is good.
            Err(VolumeError::Tampered(_)) => {
                let hint = last_block(state.size).filter(|(last, _)| *last == block);
                let hint = hint.map_or(PAGE_LEN, |(_, length)| length);
                let torn = if claimed < block.payload() { claimed } else { hint };
                return Ok(Some(torn.max(1)));
            }
            unit => unit?,
        };
        let Opened::Present { length, .. } = unit else { return Ok(None) };
        if length < block.payload() {
            return Ok(Some(length));
        }
        self.with_spill(state, block.group(), |spill, group_absent| {
            let entry = spill.entry(block.index());
            let expected = length + entry.tail.len();
            let facts = Facts {
                expected,
                payload: block.payload(),
                last: true,
                sparse: state.sparse(),
                group_absent,
            };
            match judge(facts, unit, entry) {
                Verdict::Bytes { .. } => Some(expected),
                _ => Some(length),
            }
        })
    }

    /// The end of the block before `block` that has a page, skipping what was never written.
    fn end_before(&self, block: Block, sealed: u64) -> Result<u64> {
        let stop = block.data_page().offset();
        let mut at = Block::of_offset(sealed).data_page().offset();
        let mut end = sealed;
        while at < stop {
            let Some(data) = self.backing.next_data(at)?.filter(|data| *data < stop) else { break };
            at = self.backing.next_hole(data)?.min(stop).max(data + 1);
            let mut page = PageNo((at - 1) / PAGE);
            while page.offset() >= data {
                if let PageRole::Data(found) = page.role() {
                    end = end.max(found.start() + PAGE);
                    break;
                }
                let Some(before) = page.0.checked_sub(1) else { break };
                page = PageNo(before);
            }
        }
        Ok(end.min(block.start()))
    }
}

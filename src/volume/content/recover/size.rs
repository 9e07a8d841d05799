//! The length in the last page wins over the hint in the file's length: after a crash (R1, R5), and
//! at all times in a file of one page.

use crate::crypto::Wiped;
use crate::envelope::layout::{
    Block, PAGE, PAGE_LEN, PageNo, PageRole, backing_len, last_block, pages_of,
};
use crate::envelope::{Opened, claimed_length};
use crate::volume::content::pages::{BlockContents, BlockFacts, judge, with_pages};
use crate::volume::content::{Content, State};
use crate::volume::model::error::{Result, VolumeError};

impl Content {
    /// Checks the size that the backing length tells against what the file itself says.
    ///
    /// # Errors
    /// `Tampered` when pages below the seal are cut off: no crash does that, since a seal is
    /// lowered durably before a cut (R7).
    pub(in crate::volume::content) fn check_size(&self, state: &mut State) -> Result<()> {
        let Some(ready) = &state.ready else { return Ok(()) };
        if state.marks.owed_length.is_some() {
            // The size is known; only the length could not be set.
            return Ok(());
        }
        let sealed = ready.header.seal.size;
        // What this session made durable is there while the session lives, sealed or not.
        let least = sealed.max(state.marks.extent.proven());
        let length = self.backing.length()?;
        if length / PAGE < pages_of(least) {
            return Err(self.cut_below_seal(state));
        }
        let crashed = self.is_excused(state) && !state.marks.is_dirty();
        if length / PAGE == 1 {
            self.believe_only_page(state, length)?;
        } else if crashed || length != backing_len(state.size) {
            self.recover_size(state, length)?;
        } else if state.size > sealed && !self.ends_in_a_page(state)? {
            self.is_stretched(state)?;
        }
        if state.size < least { Err(self.cut_below_seal(state)) } else { Ok(()) }
    }

    /// A file of one page is as long as that page says, whatever its time of change and whether or not
    /// a crash is known: the page is the old one or the new one, and its length is authentic. The
    /// length of the backing file may be of another moment. Whoever changes that length gains nothing,
    /// and whoever puts an old page back gets no more than before.
    ///
    /// A page without a unit vouches for nothing: the file is empty only after a crash, as an
    /// interrupted cut to nothing leaves it.
    fn believe_only_page(&self, state: &mut State, length: u64) -> Result<()> {
        if state.marks.end_owed || state.marks.is_unsure() {
            // Memory knows better than a page that could not be written.
            return Ok(());
        }
        let told = state.size;
        match self.only_length(state) {
            Ok(Some(held)) => state.size = held as u64,
            Ok(None) if self.shared.has_crashed() => state.size = 0,
            Ok(None) => {}
            Err(VolumeError::Tampered(_)) => {
                // What cannot be read is not sealed at a length that nobody vouches for.
                state.spoiled = true;
                if !self.shared.has_crashed() || state.marks.is_dirty() {
                    return Ok(());
                }
                // A crash tore the page, maybe between the two steps of a cut; files of one page
                // announce no changes. The length that the page claims counts: its bytes cannot be read
                // anyway.
                state.size = self.last_length(state, Block(0))?.map_or(0, |torn| torn as u64);
            }
            Err(error) => return Err(error),
        }
        if length == backing_len(state.size) {
            return Ok(());
        }
        self.put_length_right(state, told)
    }

    /// The length of block 0 as its data page says it; `None` if there is no unit.
    fn only_length(&self, state: &State) -> Result<Option<usize>> {
        let (mut page, mut plain) = ([0; PAGE_LEN], Wiped::new([0; PAGE_LEN]));
        self.backing.read_at(&mut page, 0)?;
        Ok(match self.open_unit(state, PageNo(0), &page, &mut plain)? {
            Opened::Absent => None,
            Opened::Present { length, .. } => Some(length),
        })
    }

    /// Whoever writes to the vault made the file longer. A sparse file is refused: it would have holes
    /// that nobody made. In a dense file reads find out which pages are missing, and the others are as
    /// good as ever; but an append would turn the gap into contents, and a seal would vouch for it.
    ///
    /// # Errors
    /// `Tampered` for a sparse file.
    fn is_stretched(&self, state: &mut State) -> Result<()> {
        let file = state.ready()?.header.file;
        log::error!("file {file}: the page of its end is not there: tampering");
        if state.sparse() {
            return Err(VolumeError::Tampered("file length"));
        }
        (state.stretched, state.spoiled) = (true, true);
        Ok(())
    }

    /// True if the last block has the page that says how long the file is. One that cannot be read
    /// counts: its reads fail.
    fn ends_in_a_page(&self, state: &State) -> Result<bool> {
        let Some((block, length)) = last_block(state.size) else { return Ok(true) };
        if state.marks.end_owed || state.marks.is_unsure() {
            return Ok(true);
        }
        match self.last_length(state, block) {
            Ok(held) => Ok(held == Some(length)),
            Err(VolumeError::Tampered(_)) if !state.sparse() => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn cut_below_seal(&self, state: &State) -> VolumeError {
        if let Some(ready) = &state.ready {
            log::error!("file {}: cut below what is durable of it: tampering", ready.header.file);
        }
        VolumeError::Tampered("file length")
    }

    /// Finds the last page that is there and takes the size from it.
    fn recover_size(&self, state: &mut State, length: u64) -> Result<()> {
        let sealed = state.ready()?.header.seal.size;
        let told = state.size;
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
        if length == backing_len(state.size) { Ok(()) } else { self.put_length_right(state, told) }
    }

    /// Sets the backing length to what was found, if the file may be changed.
    fn put_length_right(&self, state: &mut State, told: u64) -> Result<()> {
        let (file, length) = (state.ready()?.header.file, backing_len(state.size));
        log::warn!("file {file}: size {told} was of another moment; it is {}", state.size);
        if !self.is_read_only() {
            // In two steps: one would leave ciphertext in the hint (R6).
            self.backing.keep_times(&mut || {
                self.backing.set_length(length / PAGE * PAGE)?;
                self.backing.set_length(length)
            })?;
            state.marks.touch();
        }
        Ok(())
    }

    /// Length of the given last block as found on the disk; `None` if its page is missing.
    pub(in crate::volume::content) fn last_length(
        &self,
        state: &State,
        block: Block,
    ) -> Result<Option<usize>> {
        let mut plain = Wiped::new([0; PAGE_LEN]);
        let (unit, claimed) = with_pages(1, |pages| {
            self.read_pages(block.data_page(), pages)?;
            let unit = self.open_unit(state, block.data_page(), &pages[0], &mut plain);
            Ok::<_, VolumeError>((unit, claimed_length(block.data_page(), &pages[0])))
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
            let facts = BlockFacts {
                expected,
                payload: block.payload(),
                last: true,
                sparse: state.sparse(),
                group_absent,
            };
            match judge(facts, unit, entry) {
                BlockContents::Bytes { .. } => Some(expected),
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

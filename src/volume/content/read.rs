//! Reading: pages in, authenticated plaintext out.

use std::cell::RefCell;

use super::block::{Facts, Verdict, judge};
use super::{Content, State};
use crate::envelope::layout::{Block, DATA_PAYLOAD, Group, PAGE, PAGE_LEN, PageNo, last_block};
use crate::envelope::{EntryState, Opened, UnitPlace};
use crate::volume::model::error::{Result, VolumeError};

thread_local! {
    /// Ciphertext on its way in or out: plaintext is encrypted on its way into it, or at once in it,
    /// so it is never wiped.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// How a block was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Soundness {
    /// As it was written.
    Sound,
    /// As a crash left it: served, but it must not be sealed like this.
    Residue,
}

/// Runs `work` on a ciphertext buffer of `length` bytes with arbitrary contents.
pub(super) fn with_scratch<T>(length: usize, work: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| {
        if scratch.len() < length {
            scratch.resize(length, 0);
        }
        work(scratch.get_mut(..length).unwrap_or(&mut []))
    })
}

impl Content {
    /// Reads from `offset` into `buf` and returns how many bytes there were before the end.
    ///
    /// # Errors
    /// `Tampered` or `Lost` when a byte of the range is not authentic; `buf` holds nothing that
    /// counts then. `KeyUnusable` when the keys were wiped and may not be had again.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let state = self.ready_state()?;
        self.read_from(&state, offset, buf)
    }

    pub(super) fn read_from(&self, state: &State, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let left = usize::try_from(state.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = buf.len().min(left);
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..length).filter(|rest| !rest.is_empty()) {
            done += self.read_run(state, offset + done as u64, rest)?;
        }
        Ok(length)
    }

    /// Reads up to the end of the run of pages that `offset` lies in: block 0, or a group's rest.
    fn read_run(&self, state: &State, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let first = Block::of_offset(offset);
        let group = first.group();
        let end = if first.0 == 0 { PAGE } else { group.end_block().start() };
        let length = buf.len().min(usize::try_from(end - offset).unwrap_or(usize::MAX));
        let buf = buf.get_mut(..length).unwrap_or_default();
        let last = Block::of_offset(offset + length as u64 - 1);
        let pages = usize::try_from(last.0 - first.0 + 1).unwrap_or(0);
        with_scratch(pages * PAGE_LEN, |units| {
            let got = self.backing.read_at(units, first.data_page().offset())?;
            units.get_mut(got..).unwrap_or_default().fill(0);
            let mut at = 0;
            for (number, page) in units.chunks_exact(PAGE_LEN).enumerate() {
                let block = Block(first.0 + number as u64);
                let skip = usize::try_from((offset + at as u64) - block.start()).unwrap_or(0);
                let take = (PAGE_LEN - skip).min(length - at);
                let part = buf.get_mut(at..at + take).unwrap_or_default();
                if take == PAGE_LEN {
                    self.open_block(state, block, group, page, part)?;
                } else {
                    let mut whole = zeroize::Zeroizing::new([0; PAGE_LEN]);
                    self.open_block(state, block, group, page, &mut whole[..])?;
                    part.copy_from_slice(whole.get(skip..skip + take).unwrap_or_default());
                }
                at += take;
            }
            Ok(length)
        })
    }

    /// Reads one whole block; bytes past the end of the file are zeros.
    pub(super) fn read_block(
        &self,
        state: &State,
        block: Block,
        out: &mut [u8],
    ) -> Result<Soundness> {
        with_scratch(PAGE_LEN, |page| {
            let got = self.backing.read_at(page, block.data_page().offset())?;
            page.get_mut(got..).unwrap_or_default().fill(0);
            self.open_block(state, block, block.group(), page, out)
        })
    }

    /// Opens one block into `out` (4096 bytes), judging what it finds.
    fn open_block(
        &self,
        state: &State,
        block: Block,
        group: Group,
        page: &[u8],
        out: &mut [u8],
    ) -> Result<Soundness> {
        let Some((last, last_length)) = last_block(state.size) else {
            out.fill(0);
            return Ok(Soundness::Sound);
        };
        let (unit, torn) = self.open_unit_or_torn(state, block.data_page(), page, out)?;
        // What was torn is written anew, also where nothing, or an old version, is right.
        let sound = if torn { Soundness::Residue } else { Soundness::Sound };
        let mut facts = Facts {
            expected: if block == last { last_length } else { PAGE_LEN },
            payload: block.payload(),
            last: block == last,
            sparse: state.sparse(),
            group_absent: false,
        };
        if let Opened::Present { length, .. } = unit
            && facts.expected <= length
        {
            out.get_mut(facts.expected..).unwrap_or_default().fill(0);
            return Ok(sound);
        }
        let mut punched = false;
        let verdict = self.with_spill(state, group, |spill, absent| {
            facts.group_absent = absent;
            let entry = spill.entry(block.index());
            punched = entry.state == EntryState::Hole;
            let verdict = judge(facts, unit, entry);
            if let (Verdict::Bytes { held, .. }, Opened::Present { length, .. }) = (verdict, unit) {
                let (_, rest) = out.split_at_mut(length);
                let (to, zeros) = rest.split_at_mut((held - length).min(rest.len()));
                to.copy_from_slice(entry.tail.get(..to.len()).unwrap_or_default());
                zeros.fill(0);
            }
            verdict
        })?;
        match verdict {
            Verdict::Bytes { odd, held } => {
                // A tail of another write may be longer than the file.
                out.get_mut(facts.expected..).unwrap_or_default().fill(0);
                let Some(what) = odd else { return Ok(sound) };
                // The tail of a block that was about to become a hole is authentic zeros.
                let made_up =
                    (held < facts.expected && !punched).then_some(block.start() + held as u64);
                self.residue(state, block, what, made_up, out)
            }
            Verdict::Hole => {
                out.fill(0);
                Ok(sound)
            }
            Verdict::OddHole { what, was_hole } => {
                out.fill(0);
                let made_up = (!was_hole).then_some(block.start());
                self.residue(state, block, what, made_up, out)
            }
            Verdict::Missing(what) if self.may_be_zeros(state, block, unit) => {
                out.fill(0);
                self.residue(state, block, what, Some(block.start()), out)
            }
            Verdict::Missing(what) => {
                out.fill(0);
                Err(self.missing(state, block, what))
            }
        }
    }

    pub(super) fn open_unit(
        &self,
        state: &State,
        page: PageNo,
        bytes: &[u8],
        out: &mut [u8],
    ) -> Result<Opened> {
        self.open_unit_or_torn(state, page, bytes, out).map(|(unit, _)| unit)
    }

    /// The same; true with what stands for a page that a crash tore.
    fn open_unit_or_torn(
        &self,
        state: &State,
        page: PageNo,
        bytes: &[u8],
        out: &mut [u8],
    ) -> Result<(Opened, bool)> {
        let unit = bytes.get(page.unit_start()..).unwrap_or_default();
        let room = out.get_mut(..DATA_PAYLOAD).unwrap_or_default();
        let ready = state.ready()?;
        let error = match ready.cipher.open(UnitPlace::data(page), unit, room) {
            Ok(opened) => return Ok((opened, false)),
            Err(error) => error,
        };
        if let Some(opened) = self.open_torn(state, page, room) {
            return Ok((opened, true));
        }
        log::error!("file {}: page {} is not authentic", ready.header.file, page.0);
        Err(error.into())
    }

    /// Something odd that a crash may have left is reported and served; the same thing where no
    /// crash can have been is tampering.
    ///
    /// `made_up`: from here on the block is zeros that nobody wrote. Below the seal no crash leaves
    /// a block so short (R7).
    fn residue(
        &self,
        state: &State,
        block: Block,
        what: &'static str,
        made_up: Option<u64>,
        out: &mut [u8],
    ) -> Result<Soundness> {
        let sealed = state.ready()?.header.seal.size;
        let durable = made_up.is_some_and(|from| from < sealed);
        if durable || !self.crash_may_explain(state, block) {
            out.fill(0);
            return Err(self.tampered(state, block, what));
        }
        let file = state.ready()?.header.file;
        log::warn!("file {file}: block {}: {what}: crash residue of unsynced writes", block.0);
        Ok(Soundness::Residue)
    }

    /// True for an inner page that never reached the disk before a crash which is not mended yet: the
    /// block reads as zeros, as it would on the backing filesystem. A database that looks through
    /// its journal after a crash knows what to do with zeros, and nothing with an error. The last page
    /// is not made up: there the file ends earlier.
    fn may_be_zeros(&self, state: &State, block: Block, unit: Opened) -> bool {
        let is_last = last_block(state.size).is_some_and(|(last, _)| last == block);
        matches!(unit, Opened::Absent)
            && !is_last
            && block.start() >= state.mended
            && self.is_excused(state)
            && !state.marks.synced.contains(block.data_page())
            && state.ready().is_ok_and(|ready| block.start() >= ready.header.seal.size)
            && (self.is_blank(block) || self.was_never_there(state, block.data_page()))
    }

    /// True if the page of a block was never written. One without a unit may be torn.
    fn is_blank(&self, block: Block) -> bool {
        let (page, mut bytes) = (block.data_page(), vec![0; PAGE_LEN]);
        let unit = bytes.get_mut(page.unit_start()..).unwrap_or_default();
        let read = self.backing.read_at(unit, page.offset() + page.unit_start() as u64);
        read.is_ok() && unit.iter().all(|byte| *byte == 0)
    }

    /// A page that is not there: lost in a crash if nothing says that it was durable.
    fn missing(&self, state: &State, block: Block, what: &'static str) -> VolumeError {
        let Some(ready) = &state.ready else { return VolumeError::Lost(what) };
        let seal = ready.header.seal;
        // A file that is longer than what an earlier session sealed of it is one whose recovery
        // found a page lost.
        let unsealed =
            seal.session != self.shared.session() || self.shared.is_spoiled(ready.header.file);
        let lost = self.crash_may_explain(state, block) || unsealed;
        let durable = block.start() < seal.size || state.marks.synced.contains(block.data_page());
        match lost && !durable {
            true => VolumeError::Lost(what),
            false => self.tampered(state, block, what),
        }
    }

    fn tampered(&self, state: &State, block: Block, what: &'static str) -> VolumeError {
        if let Some(ready) = &state.ready {
            log::error!("file {}: block {}: {what}: tampering", ready.header.file, block.0);
        }
        VolumeError::Tampered(what)
    }
}

//! Reading: pages in, authenticated plaintext out.

use super::pages::{BlockContents, BlockFacts, judge, with_pages};
use super::{Content, State};
use crate::crypto::Wiped;
use crate::envelope::layout::{Block, Copy2, PAGE, PAGE_LEN, Page, PageNo};
use crate::envelope::layout::{in_memory, last_block, pages_of};
use crate::envelope::{EntryState, Opened, UnitPlace};
use crate::volume::model::error::{Result, VolumeError};

/// So many pages are read without the others of their group.
const FEW: u64 = 8;

/// How a block was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Soundness {
    /// As it was written.
    Sound,
    /// As a crash left it: served, but it must not be sealed like this.
    Residue,
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
        let left = state.size.saturating_sub(offset);
        let length = in_memory(left.min(buf.len() as u64));
        let mut done = 0;
        while done < length {
            done += self.read_run(state, offset + done as u64, &mut buf[done..length])?;
        }
        Ok(length)
    }

    /// Reads up to the end of the run of pages that `offset` lies in: block 0, or a group's rest.
    fn read_run(&self, state: &State, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let first = Block::of_offset(offset);
        let end = if first.0 == 0 { PAGE } else { first.group().end_block().start() };
        let length = in_memory((end - offset).min(buf.len() as u64));
        let last = Block::of_offset(offset + length as u64 - 1);
        with_pages(in_memory(last.0 - first.0 + 1), |pages| {
            self.expect_tails(state, first, last);
            self.read_pages(first.data_page(), pages)?;
            let mut rest = &mut buf[..length];
            for (block, page) in (first.0..).map(Block).zip(&*pages) {
                let skip = block.before(offset);
                let take = (PAGE_LEN - skip).min(rest.len());
                let (part, after) = rest.split_at_mut(take);
                if let Some(whole) = part.first_chunk_mut() {
                    self.open_block(state, block, page, whole)?;
                } else {
                    let mut whole = Wiped::new([0; PAGE_LEN]);
                    self.open_block(state, block, page, &mut whole)?;
                    part.copy_from_slice(&whole[skip..skip + take]);
                }
                rest = after;
            }
            Ok(length)
        })
    }

    /// Has the disk read the spill page while it reads a few data pages of the group. A long run of
    /// them brings its own reading ahead.
    fn expect_tails(&self, state: &State, first: Block, last: Block) {
        let group = first.group();
        if last.0 - first.0 < FEW && pages_of(state.size) > 1 && !state.spills.has_page(group) {
            let pair = group.spill_page(Copy2::First).min(group.spill_page(Copy2::Second));
            self.backing.will_read(pair.offset(), 2 * PAGE_LEN as u64);
        }
    }

    /// Reads backing pages that lie side by side; behind the end of the backing file they are zeros.
    pub(super) fn read_pages(&self, first: PageNo, pages: &mut [Page]) -> Result<()> {
        let bytes = pages.as_flattened_mut();
        let got = self.backing.read_at(bytes, first.offset())?;
        bytes[got..].fill(0);
        Ok(())
    }

    /// Reads one whole block; bytes past the end of the file are zeros.
    pub(super) fn read_block(
        &self,
        state: &State,
        block: Block,
        out: &mut Page,
    ) -> Result<Soundness> {
        with_pages(1, |pages| {
            self.read_pages(block.data_page(), pages)?;
            self.open_block(state, block, &pages[0], out)
        })
    }

    /// Opens one block into `out`, judging what it finds.
    fn open_block(
        &self,
        state: &State,
        block: Block,
        page: &Page,
        out: &mut Page,
    ) -> Result<Soundness> {
        let Some((last, last_length)) = last_block(state.size) else {
            out.fill(0);
            return Ok(Soundness::Sound);
        };
        let (unit, torn) = self.open_unit_or_torn(state, block.data_page(), page, out)?;
        let facts = BlockFacts {
            expected: if block == last { last_length } else { PAGE_LEN },
            payload: block.payload(),
            last: block == last,
            sparse: state.sparse(),
            group_absent: false,
        };
        let found = match unit {
            Opened::Present { length, .. } if facts.expected <= length => {
                out[facts.expected..].fill(0);
                Soundness::Sound
            }
            _ => self.join_tail(state, block, facts, unit, out)?,
        };
        // A torn page is written anew even if nothing, or an old version, is right.
        Ok(if torn { Soundness::Residue } else { found })
    }

    /// Joins a block's tail with the bytes of its data unit, and judges the result.
    fn join_tail(
        &self,
        state: &State,
        block: Block,
        facts: BlockFacts,
        unit: Opened,
        out: &mut Page,
    ) -> Result<Soundness> {
        let (contents, punched) =
            self.with_spill(state, block.group(), |spill, group_absent| {
                let entry = spill.entry(block.index());
                let contents = judge(BlockFacts { group_absent, ..facts }, unit, entry);
                if let (BlockContents::Bytes { held, .. }, Opened::Present { length, .. }) =
                    (contents, unit)
                {
                    // A tail of a longer block 0 is cut off at the end of the block.
                    let tail = (held - length).min(PAGE_LEN - length);
                    out[length..length + tail].copy_from_slice(&entry.tail[..tail]);
                    out[length + tail..].fill(0);
                }
                (contents, entry.state == EntryState::Hole)
            })?;
        let start = block.start();
        let (what, made_up) = match contents {
            BlockContents::Bytes { odd, held } => {
                // A tail of another write may be longer than the file.
                out[facts.expected..].fill(0);
                let Some(what) = odd else { return Ok(Soundness::Sound) };
                // The tail of a block that was about to become a hole is authentic zeros.
                (what, (held < facts.expected && !punched).then_some(start + held as u64))
            }
            BlockContents::Hole => {
                out.fill(0);
                return Ok(Soundness::Sound);
            }
            BlockContents::OddHole { what, was_hole } => {
                out.fill(0);
                (what, (!was_hole).then_some(start))
            }
            BlockContents::Missing(what) => {
                out.fill(0);
                if !self.may_be_zeros(state, block, unit) {
                    return Err(self.missing(state, block, what));
                }
                (what, Some(start))
            }
        };
        self.residue(state, block, what, made_up, out)
    }

    pub(super) fn open_unit(
        &self,
        state: &State,
        page: PageNo,
        bytes: &Page,
        out: &mut Page,
    ) -> Result<Opened> {
        self.open_unit_or_torn(state, page, bytes, out).map(|(unit, _)| unit)
    }

    /// The same; true if a crash tore the page, and something else stands for it.
    fn open_unit_or_torn(
        &self,
        state: &State,
        page: PageNo,
        bytes: &Page,
        out: &mut Page,
    ) -> Result<(Opened, bool)> {
        let ready = state.ready()?;
        let error = match ready.cipher.open(UnitPlace::data(page), bytes, out) {
            Ok(opened) => return Ok((opened, false)),
            Err(error) => error,
        };
        if let Some(opened) = self.open_torn(state, page, out) {
            return Ok((opened, true));
        }
        log::error!("file {}: page {} is not authentic", ready.header.file, page.0);
        Err(error.into())
    }

    /// Reports and serves something odd that a crash may have left. Where no crash can have left it, it
    /// is tampering.
    ///
    /// `made_up`: from here on the block is zeros that nobody wrote. Below the seal no crash leaves
    /// a block so short (R7).
    fn residue(
        &self,
        state: &State,
        block: Block,
        what: &'static str,
        made_up: Option<u64>,
        out: &mut Page,
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
    /// block reads as zeros, as it would on the backing filesystem. A database that looks through its
    /// journal after a crash can use zeros, but not an error. The last page is not made up: the file
    /// ends before it.
    fn may_be_zeros(&self, state: &State, block: Block, unit: Opened) -> bool {
        let is_last = last_block(state.size).is_some_and(|(last, _)| last == block);
        matches!(unit, Opened::Absent)
            && !is_last
            && block.start() >= state.mended
            && self.is_excused(state)
            && !state.marks.pages.is_durable(block.data_page())
            && state.ready().is_ok_and(|ready| block.start() >= ready.header.seal.size)
            && (self.is_blank(block) || self.was_never_there(state, block.data_page()))
    }

    /// True if the page of a block was never written. One without a unit may be torn.
    fn is_blank(&self, block: Block) -> bool {
        let (page, mut bytes) = (block.data_page(), [[0; PAGE_LEN]]);
        let read = self.read_pages(page, &mut bytes);
        read.is_ok() && page.unit(&bytes[0]).iter().all(|byte| *byte == 0)
    }

    /// The error for a missing page: it was lost in a crash, unless something says that it was durable.
    fn missing(&self, state: &State, block: Block, what: &'static str) -> VolumeError {
        let Some(ready) = &state.ready else { return VolumeError::Lost(what) };
        let seal = ready.header.seal;
        // If a file is longer than an earlier session sealed it, recovery has found a page lost.
        let unsealed =
            seal.session != self.shared.session() || self.shared.is_spoiled(ready.header.file);
        let lost = self.crash_may_explain(state, block) || unsealed;
        let durable = block.start() < seal.size || state.marks.pages.is_durable(block.data_page());
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

//! The spill pages of an open file: found on the disk, changed, and written.

use rustix::io::Errno;

use super::roles::{Choice, Roles};
use crate::crypto::Wiped;
use crate::envelope::layout::{Block, Copy2, Group, PAGE_LEN, Page, last_block};
use crate::envelope::{EntryState, EnvelopeError, Nonces, Opened, SpillPage, UnitPlace};
use crate::volume::content::pages::{Arrival, Call};
use crate::volume::content::{Content, State};
use crate::volume::model::error::{Result, VolumeError};

const WHAT: &str = "spill page";

impl Content {
    /// Runs `work` on a group's spill page and on whether the group has none.
    ///
    /// # Errors
    /// `Tampered` when copies exist and none can be read; `Io`.
    pub(in crate::volume::content) fn with_spill<T>(
        &self,
        state: &State,
        group: Group,
        work: impl FnOnce(&SpillPage, bool) -> T,
    ) -> Result<T> {
        let load = |known| self.read_group(state, group, known);
        state.spills.with(group, load, |page, roles| work(page, roles.is_absent()))
    }

    /// True if the group's page in memory is to replace what the disk has.
    pub(in crate::volume::content) fn owes_spill(
        &self,
        state: &State,
        group: Group,
    ) -> Result<bool> {
        let load = |known| self.read_group(state, group, known);
        state.spills.with(group, load, |_, roles| roles.copies().is_owed())
    }

    /// Changes a group's page and writes it; a page that cannot be written stays as it was.
    pub(in crate::volume::content) fn update_spill(
        &self,
        state: &mut State,
        group: Group,
        change: impl FnOnce(&mut SpillPage),
    ) -> Result<()> {
        let before = self.change_spill(state, group, state.size, change)?;
        let written = self.write_spill(state, group);
        if written.is_err() {
            state.spills.restore(group, before);
        }
        written
    }

    /// Gives a group's page to `change` and returns the page as it was. Until the page was written
    /// or restored it stays in memory.
    ///
    /// `size` is that of the file before the change, which may have made it longer: the holes of a
    /// group without a page end there.
    pub(in crate::volume::content) fn change_spill(
        &self,
        state: &State,
        group: Group,
        size: u64,
        change: impl FnOnce(&mut SpillPage),
    ) -> Result<SpillPage> {
        let load = |known| self.read_group(state, group, known);
        let prepare = |page: &mut SpillPage, roles: &Roles| {
            if roles.is_absent() && state.sparse() {
                mark_holes(page, group, size);
            }
        };
        state.spills.change(group, load, prepare, change)
    }

    /// Seals a group's changed page for the copy that may be overwritten.
    pub(in crate::volume::content) fn seal_spill(
        &self,
        state: &State,
        group: Group,
        nonces: &mut Nonces,
        out: &mut Page,
    ) -> Result<()> {
        let cipher = &state.ready()?.cipher;
        state.spills.seal(group, |copy, page| {
            let place = UnitPlace::spill(group.spill_page(copy));
            cipher.seal(place, nonces, page.as_bytes(), out)?;
            Ok(())
        })
    }

    /// Notes what the write of the sealed page to its target has left there.
    pub(in crate::volume::content) fn spill_arrived(
        &self,
        state: &mut State,
        group: Group,
        arrival: Arrival,
    ) {
        if arrival != Arrival::Nothing {
            state.spills.arrived(group, arrival, state.marks.touch());
        }
    }

    /// Writes a group's changed page by itself.
    pub(in crate::volume::content) fn write_spill(
        &self,
        state: &mut State,
        group: Group,
    ) -> Result<()> {
        let mut page = [0; PAGE_LEN];
        let place = group.spill_page(state.spills.target(group));
        self.seal_spill(state, group, &mut Nonces::draw(1)?, &mut page)?;
        let call = Call::of_spill(place, &page);
        let went = self.backing.write_at(call.bytes, call.offset);
        let landed = call.landed(went);
        landed.spill.into_iter().for_each(|arrival| self.spill_arrived(state, group, arrival));
        went?;
        if landed.whole { Ok(()) } else { Err(VolumeError::Io(Errno::NOSPC)) }
    }

    /// The groups with a copy of the spill page that is not authentic; true for those where it was
    /// written anew, as in a volume that may be changed. What a crash explains does not count.
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
        // Groups without a page have no copies, and whoever writes to the vault decides how many there
        // are.
        let mut next = self.next_group(Block(0))?;
        while let Some(group) = next.filter(|group| *group <= last.group()) {
            next = self.next_group(group.end_block())?;
            let excused = self.crash_may_explain(&state, group.first_block());
            let (copies, bad) = self.read_copies(&state, group)?;
            // Without a good copy, reads of the contents say so.
            if bad == 0 || copies.iter().all(Option::is_none) || excused {
                continue;
            }
            let changes = !self.is_read_only();
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
        let (page, mut roles) = match Roles::choose(copies, known) {
            Choice::Page(page, mut roles) => {
                if bad > 0 && self.crash_may_explain(state, first) {
                    // A crash tore the other copy when it was written: recovery writes it anew.
                    roles.copies_mut().owe();
                }
                (page, roles)
            }
            Choice::None(roles) if bad == 0 || known.is_some() => (SpillPage::empty(group), roles),
            // Its first version was torn. No tail of the group was ever durable, and the data
            // pages hold what was (R1). A pair with durable tails is never lost whole (R2).
            Choice::None(mut roles) if !had_tails && self.crash_may_explain(state, first) => {
                roles.copies_mut().owe();
                (SpillPage::empty(group), roles)
            }
            Choice::None(_) | Choice::Lost => return Err(VolumeError::Tampered(WHAT)),
        };
        if self.is_read_only() {
            roles.copies_mut().forgive();
        }
        Ok((page, roles))
    }

    /// Both copies of a group's page, as far as they are there and authentic, and how many are not
    /// authentic.
    pub(in crate::volume::content) fn read_copies(
        &self,
        state: &State,
        group: Group,
    ) -> Result<([Option<SpillPage>; 2], usize)> {
        let ready = state.ready()?;
        let (first, second) = (group.spill_page(Copy2::First), group.spill_page(Copy2::Second));
        let mut pair = [[0; PAGE_LEN]; 2];
        self.read_pages(first.min(second), &mut pair)?;
        let [low, high] = &pair;
        let pages = if first < second { [low, high] } else { [high, low] };
        let (mut copies, mut bad) = ([None, None], 0);
        for (copy, page) in [Copy2::First, Copy2::Second].into_iter().zip(pages) {
            let mut plain = Wiped::new([0; PAGE_LEN]);
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

/// Marks the holes of a group in its new spill page: in a sparse file, a group without one is all
/// holes, except for a last block that fits its data page. What a page that waits to be written says
/// already stays.
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

//! Pages that a crash tore: the old one comes back from the page journal of the crashed session (see
//! [`crate::volume::journal`]).

use crate::crypto::Wiped;
use crate::envelope::layout::{PAGE_LEN, Page, PageNo, PageRole};
use crate::envelope::{FileHeader, Opened, UnitPlace};
use crate::volume::content::{Content, State};
use crate::volume::model::error::Result;

impl Content {
    /// Opens a page that is not authentic in its place from the journals of crashed sessions: the
    /// newest version that is authentic. A page without one was being written for the first time, and
    /// counts as absent.
    ///
    /// Whoever writes to the vault gains nothing: he could put the same bytes, or zeros, in place.
    pub(in crate::volume::content) fn open_torn(
        &self,
        state: &State,
        page: PageNo,
        out: &mut Page,
    ) -> Option<Opened> {
        self.shared.crashed_journals()?;
        if let Some(opened) = self.open_version(state, page, out) {
            return Some(opened);
        }
        self.was_never_there(state, page).then_some(Opened::Absent)
    }

    /// `None` if this session has made the page durable: no crash left what is there now.
    fn open_version(&self, state: &State, page: PageNo, out: &mut Page) -> Option<Opened> {
        let (journals, ready) = (self.shared.crashed_journals()?, state.ready.as_ref()?);
        if state.marks.pages.is_durable(page) {
            return None;
        }
        let place = UnitPlace::data(page);
        journals
            .versions((ready.header.file, self.backing.number()), page)
            .find_map(|old| ready.cipher.open(place, old.first_chunk()?, out).ok())
    }

    /// True for a page that a crash tore when it was written for the first time: its session wrote
    /// down every page that was durable before, and not this one. (A later session, which wrote over
    /// what was torn, has written that down.)
    pub(in crate::volume::content) fn was_never_there(&self, state: &State, page: PageNo) -> bool {
        let PageRole::Data(block) = page.role() else { return false };
        let (Some(journals), Ok(ready)) = (self.shared.crashed_journals(), state.ready()) else {
            return false;
        };
        let mut plain = Wiped::new([0; PAGE_LEN]);
        block.start() >= ready.header.seal.size
            && block.start() >= state.mended
            && self.is_excused(state)
            && state.excuses.iter().any(|word| journals.covers(*word))
            && !state.marks.pages.is_durable(page)
            && self.open_version(state, page, &mut plain).is_none()
    }

    /// Puts pages that a crash tore back into their places. The next sync makes that durable. Until
    /// then, and as long as the journal is there, a crash leaves them as they are now.
    pub(in crate::volume::content) fn put_torn_back(&self, state: &mut State) -> Result<()> {
        let Some(journals) = self.shared.crashed_journals().filter(|_| !self.is_read_only()) else {
            return Ok(());
        };
        let Ok(ready) = state.ready() else { return Ok(()) };
        let (file, inode) = (ready.header.file, self.backing.number());
        let mut outcome = Ok(());
        for page in journals.pages_of(file, inode) {
            let (mut bytes, mut plain) = ([0; PAGE_LEN], Wiped::new([0; PAGE_LEN]));
            let whole = self.backing.read_at(&mut bytes, page.offset()) == Ok(PAGE_LEN);
            let opens = |state: &State, bytes: &Page, plain: &mut Page| {
                let cipher = state.ready().map(|ready| &ready.cipher);
                cipher.is_ok_and(|cipher| cipher.open(UnitPlace::data(page), bytes, plain).is_ok())
            };
            let is_data = matches!(page.role(), PageRole::Data(_));
            if !whole || !is_data || opens(state, &bytes, &mut plain) {
                continue;
            }
            let versions = journals.versions((file, inode), page);
            let mut whole = versions.filter_map(|old| old.first_chunk::<PAGE_LEN>().copied());
            let Some(old) = whole.find(|old| opens(state, old, &mut plain)) else {
                continue;
            };
            log::warn!("file {file}: page {} was torn by a crash and is put back", page.0);
            let (old, offset) = (page.unit(&old), page.offset() + page.unit_start() as u64);
            // Until it is durable in its place, nothing else may stand for it.
            let generation = state.marks.generation();
            state.marks.pages.journaled_mut().note_put_back(page, generation);
            let put = self.backing.keep_times(&mut || match self.backing.write_at(old, offset)? {
                taken if taken == old.len() => Ok(()),
                _ => Err(rustix::io::Errno::IO),
            });
            outcome = outcome.and(put);
            state.marks.pages.add(page, page);
            state.marks.changes.touch_contents();
        }
        outcome?;
        self.erase_torn_first(state)
    }

    /// Erases the torn first page of a file of which only the header arrived: that file is empty. In a
    /// longer one, recovery writes anew what is torn.
    fn erase_torn_first(&self, state: &mut State) -> Result<()> {
        let (mut bytes, mut plain) = ([0; PAGE_LEN], Wiped::new([0; PAGE_LEN]));
        if state.size > 0 || state.ready()?.fresh || !self.was_never_there(state, PageNo(0)) {
            return Ok(());
        }
        self.backing.read_at(&mut bytes, 0)?;
        if state.ready()?.cipher.open(UnitPlace::data(PageNo(0)), &bytes, &mut plain).is_err() {
            self.write_empty_first(state)?;
            state.marks.changes.touch_contents();
        }
        Ok(())
    }

    /// True if only one slot of the header arrived, in a file that a session with a page journal was
    /// making: both were written in one page, which tore.
    ///
    /// Whoever makes zeros of a slot gains nothing: every header of such a file says, in both slots,
    /// that the session made it, until recovery or a seal writes both.
    pub(in crate::volume::content) fn is_half_a_header(
        &self,
        header: &FileHeader,
        other: &[u8],
    ) -> bool {
        header.flags.open
            && other.iter().all(|byte| *byte == 0)
            && self
                .shared
                .crashed_journals()
                .is_some_and(|journals| journals.covers(header.seal.session))
    }

    /// Pages that are in the journal of a crashed session alone.
    ///
    /// # Errors
    /// As a read.
    pub(in crate::volume) fn torn_pages(&self) -> Result<u64> {
        let state = self.ready_state()?;
        let (Some(journals), Some(ready)) = (self.shared.crashed_journals(), &state.ready) else {
            return Ok(0);
        };
        let (mut bytes, mut plain) = ([0; PAGE_LEN], Wiped::new([0; PAGE_LEN]));
        let mut torn = 0;
        for page in journals.pages_of(ready.header.file, self.backing.number()) {
            let whole = self.backing.read_at(&mut bytes, page.offset()) == Ok(PAGE_LEN);
            let place = UnitPlace::data(page);
            if whole && ready.cipher.open(place, &bytes, &mut plain).is_err() {
                torn += u64::from(self.open_torn(&state, page, &mut plain).is_some());
            }
        }
        Ok(torn)
    }
}

//! The header of a file that gets its first contents: it is made in memory, and written with page 0.

use crate::envelope::layout::{HEADER_AREA, PAGE_LEN, backing_len};
use crate::envelope::{FileHeader, FileKeys, HeaderFlags, RECORD_LEN, Seal};
use crate::volume::content::change::Change;
use crate::volume::content::{Access, Content, Ready, State};
use crate::volume::model::error::{Result, VolumeError};

impl Content {
    /// Refuses what would change a file that is open for reading only.
    pub(in crate::volume::content) fn must_be_writable(&self) -> Result<()> {
        if self.access == Access::ReadOnly { Err(VolumeError::ReadOnly) } else { Ok(()) }
    }

    /// Makes keys and a header for a file that has none. Nothing reaches the disk yet.
    pub(in crate::volume::content) fn ensure_header(&self, state: &mut Change<'_>) -> Result<()> {
        self.must_be_writable()?;
        self.load(state)?;
        // Pages behind the end that could not be cut off must not come back as contents.
        self.write_owed_length(state)?;
        if state.stretched {
            return Err(VolumeError::Tampered("file length"));
        }
        if state.ready.is_some() {
            return self.write_owed_header(state);
        }
        let (file, dek, recipient) = self.keys.create()?;
        let keys = FileKeys::new(file, dek);
        let cipher = keys.unit_cipher();
        let header = FileHeader {
            file,
            sequence: 1,
            // Until it is sealed, a crash of this session, and of no other, explains what is odd.
            flags: HeaderFlags { open: true, ..HeaderFlags::default() },
            seal: Seal { size: 0, session: self.shared.session(), mtime: i64::MIN },
            recipients: recipient.into(),
        };
        state.ready = Some(Ready { header, keys, cipher, fresh: true });
        state.has_header = true;
        state.marks.extent.empty();
        Ok(())
    }

    /// Writes page 0 of a file that has a header but no contents yet.
    pub(in crate::volume::content) fn write_fresh_header(&self, state: &mut State) -> Result<()> {
        if !state.ready()?.fresh {
            return Ok(());
        }
        let mut page = [0; PAGE_LEN];
        self.fresh_slots(state, page.first_chunk_mut().expect("page 0 begins with the slots"))?;
        self.set_length(backing_len(state.size))?;
        if let Err(error) = self.write_all(&page, 0) {
            self.correct_length(state);
            return Err(error);
        }
        self.header_is_out(state);
        Ok(())
    }

    /// Puts both slots of a fresh header into the page that is about to go out.
    pub(in crate::volume::content) fn fresh_slots(
        &self,
        state: &State,
        area: &mut [u8; HEADER_AREA],
    ) -> Result<()> {
        let ready = state.ready()?;
        let bytes = ready.header.encode(&ready.keys);
        area.chunks_exact_mut(RECORD_LEN).for_each(|slot| slot.copy_from_slice(&bytes));
        Ok(())
    }

    /// Notes that the page of a fresh header was written.
    pub(in crate::volume::content) fn header_is_out(&self, state: &mut State) {
        if let Some(ready) = &mut state.ready {
            ready.fresh = false;
        }
        let generation = state.marks.touch();
        state.marks.header.born(generation);
    }
}

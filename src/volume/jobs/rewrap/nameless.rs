//! Files that have no name any more and are still open: no walk finds them, and their keys are needed
//! until the last close.

use std::path::PathBuf;

use super::Run;
use crate::envelope::Recipient;
use crate::id::KeyId;
use crate::volume::files::file::File;
use crate::volume::files::unopened::read_slots;
use crate::volume::model::error::Result;

impl Run<'_> {
    /// Re-wraps the files without a name. *Crash*: none of them outlives it.
    pub(in crate::volume) fn nameless(&mut self) -> Result<()> {
        let mut moved = Vec::new();
        for file in self.volume.files.nameless() {
            match self.nameless_file(&file) {
                Ok(true) => moved.push(file),
                Ok(false) => {}
                Err(error) => self.failed(name_of(&file), &error),
            }
        }
        if moved.is_empty() {
            return Ok(());
        }
        // Nobody ever sees these, but the old header goes only behind a time that moved.
        let times: Vec<_> = moved.iter().map(|file| file.content().move_time()).collect();
        self.make_durable()?;
        for (file, time) in moved.into_iter().zip(times) {
            match time.and_then(|()| file.content().scrub()) {
                Ok(_) => self.report.rewrapped += 1,
                Err(error) => self.failed(name_of(&file), &error),
            }
        }
        Ok(())
    }

    fn nameless_file(&self, file: &File) -> Result<bool> {
        let slots = read_slots(file.backing_fd())?;
        let mut named = slots.iter().flat_map(|slot| slot.recipients.iter());
        if !named.any(|old| self.newer(old).is_ok_and(|to| to.is_some())) {
            return Ok(false);
        }
        file.must_be_writable()?;
        if let Some(to) = self.job.to {
            file.accept(to);
        }
        self.rewrap_by(file, |old| self.newer(old))?;
        Ok(true)
    }

    /// The key to wrap for instead: no directory decides any more.
    fn newer(&self, old: &Recipient) -> Result<Option<KeyId>> {
        if !self.applies(old.key) {
            return Ok(None);
        }
        let to = self.target(old.key);
        let current = old.key == to && old.material == self.volume.keyring.current_material(to)?;
        Ok((!current).then_some(to))
    }
}

fn name_of(file: &File) -> PathBuf {
    PathBuf::from(format!("(an open file without a name, inode {})", file.ino()))
}

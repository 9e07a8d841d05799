//! Keys that follow a file or a directory: renames and links across policies, and policy changes.
//!
//! A header must always name a key that its directory accepts (R9), also when a crash comes between
//! the rename and the header. So the file key is first wrapped for both keys and that is made
//! durable; then the entry moves; then the old wrap goes, from both slots.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::path::PathBuf;

use rustix::fs::fstat;

use super::Volume;
use super::dir::{Dir, write_descriptor};
use super::error::{Result, VolumeError};
use super::gate::About;
use super::keyring::Purpose;
use super::open_file::FilePolicy;
use super::tree::Caller;
use super::walk::Walk;
use crate::envelope::{CrossMode, DirDescriptor, Recipients};
use crate::id::KeyId;
use crate::keystore::Action;

/// Keys that a directory accepts beside its own.
const MAX_PREVIOUS: usize = 3;

impl Volume {
    /// Before `ino` gets a name in a directory of key `to`: its file key is wrapped for both. Users
    /// of the new key can read the file then, so the caller needs the permissions of ReEncrypt.
    pub(super) fn share_key(&self, ino: u64, to: KeyId, caller: Caller) -> Result<()> {
        let opened = self.open_briefly(ino)?;
        if let Some(subject) = opened.file().subject().filter(|subject| subject.key != to) {
            self.gate.allow(caller, Action::ReEncryptFrom, subject.into())?;
            self.gate.allow(caller, Action::ReEncryptTo, About { key: to, ..subject.into() })?;
        }
        let keyring = &self.keyring;
        let shared = opened.file().content().rewrap(|header| {
            if header.recipients.iter().any(|recipient| recipient.key == to) {
                return Ok(None);
            }
            let Some(old) = header.recipients.first() else { return Ok(None) };
            let new = keyring.rewrap(old, to, Purpose::File(header.file))?;
            // What does not fit cannot follow, and tools copy.
            let both = Recipients::new(vec![new, old.clone()]);
            both.map(Some).map_err(|_| VolumeError::CrossPolicy)
        })?;
        let mut accepted = self.file_policy(ino)?.accepted;
        accepted.push(to);
        opened.file().set_policy(FilePolicy { create: to, accepted });
        if shared { opened.file().sync() } else { Ok(()) }
    }

    /// After the move: only the directory's key opens the file.
    pub(super) fn settle_key(&self, ino: u64, to: KeyId) -> Result<()> {
        let opened = self.open_briefly(ino)?;
        let file = opened.file();
        let settled = file.content().rewrap(|header| {
            let kept: Vec<_> =
                header.recipients.iter().filter(|recipient| recipient.key == to).cloned().collect();
            let settles = !kept.is_empty() && kept.len() < header.recipients.len();
            Ok(if settles { Some(Recipients::new(kept)?) } else { None })
        })?;
        file.set_policy(FilePolicy { create: to, accepted: vec![to] });
        if settled {
            if let Some(header) = file.content().header()
                && let Some(recipient) = header.recipients.first()
            {
                file.set_recipient(recipient);
            }
            file.sync()?;
            file.content().scrub()?;
        }
        Ok(())
    }

    /// What the directory `ino` says of keys.
    ///
    /// # Errors
    /// `KeyUnusable`, `Tampered`, `Stale`.
    pub fn policy(&self, ino: u64) -> Result<DirDescriptor> {
        self.dir(ino)?.descriptor().cloned()
    }

    /// Gives a directory, and those below that inherit from it, the key `key` for new files.
    ///
    /// Files keep the key that they have, which stays accepted, until a re-wrap moves them. Returns
    /// how many directories changed.
    ///
    /// # Errors
    /// `KeyUnusable`; `CrossPolicy` when files of too many former keys still wait for a re-wrap.
    pub fn set_policy(&self, ino: u64, key: KeyId, cross: Option<CrossMode>) -> Result<u64> {
        self.tree.writable()?;
        let top = self.dir(ino)?;
        let mut changed = HashSet::new();
        let fd = rustix::io::fcntl_dupfd_cloexec(top.as_fd(), 0)?;
        let mut walk = Walk::new(&fd)?;
        while let Some(visit) = walk.step()? {
            let first = visit.path == PathBuf::new();
            if !first && !visit.path.parent().is_some_and(|above| changed.contains(above)) {
                continue;
            }
            let ino = self.tree.inodes.shown(fstat(&visit.fd)?.st_ino);
            let fd = rustix::io::fcntl_dupfd_cloexec(&visit.fd, 0)?;
            let dir = Dir::open(ino, fd, &self.keyring)?;
            let old = dir.descriptor()?;
            if !first && !old.inherited {
                continue;
            }
            let mut new = self.under(old, key)?;
            new.inherited = !first;
            new.cross = cross.unwrap_or(old.cross);
            self.replace_descriptor(&dir, new)?;
            changed.insert(visit.path);
        }
        self.flush(std::time::Duration::ZERO)?;
        Ok(changed.len() as u64)
    }

    /// Lets a file that keeps its key into a directory of another one (`CrossMode::Keep`).
    pub(super) fn accept_key(&self, dir: &Dir, key: KeyId) -> Result<()> {
        let descriptor = dir.descriptor()?;
        if descriptor.accepts(key) {
            return Ok(());
        }
        let mut new = descriptor.clone();
        new.previous.push(key);
        if new.previous.len() > MAX_PREVIOUS {
            return Err(VolumeError::CrossPolicy);
        }
        self.replace_descriptor(dir, new)?;
        self.flush(std::time::Duration::ZERO)
    }

    fn under(&self, old: &DirDescriptor, key: KeyId) -> Result<DirDescriptor> {
        let mut new = old.clone();
        if old.policy != key {
            new.policy = key;
            new.previous.retain(|known| *known != key);
            new.previous.insert(0, old.policy);
            if new.previous.len() > MAX_PREVIOUS {
                return Err(VolumeError::CrossPolicy);
            }
        }
        if old.recipient.key != key {
            new.recipient =
                self.keyring.rewrap(&old.recipient, key, Purpose::Directory(old.dir))?;
        }
        Ok(new)
    }

    /// Writes a directory's descriptor again; for the user the directory has not changed.
    pub(super) fn replace_descriptor(&self, dir: &Dir, mut new: DirDescriptor) -> Result<()> {
        new.sequence += 1;
        let bytes = new.encode(dir.keys()?);
        let mut outcome = Ok(());
        self.times.keep(dir.as_fd(), dir.ino(), || {
            outcome = write_descriptor(dir.as_fd(), &bytes);
            Ok(())
        })?;
        self.tree.dirs.remove(dir.ino());
        outcome
    }
}

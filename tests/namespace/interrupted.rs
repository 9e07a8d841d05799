//! A KMS during whose answers something else happens: what two threads do at one moment, step by step.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use kmsfs::crypto::secret::Secret;
use kmsfs::envelope::Recipient;
use kmsfs::id::{KeyId, MaterialId};
use kmsfs::keystore::{EncryptionContext, Keystore};
use kmsfs::volume::{KeyHealth, KeyService, Options, Result, Volume};

use crate::fixture::Fixture;

/// What happens while the KMS answers, once.
type Meanwhile = Box<dyn FnOnce(&Volume) + Send>;
/// The same while the volume is being opened.
type Before = Box<dyn FnOnce() + Send>;

/// What the KMS is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    Unwrap,
    /// The key is unwrapped, and the answer on its way.
    Unwrapped,
    Material,
    /// The key is made, and the answer on its way.
    Generate,
}

/// A KMS during whose answers something else happens.
pub(crate) struct Interrupted {
    keystore: Arc<Keystore>,
    volume: OnceLock<Weak<Volume>>,
    next: Mutex<Option<(Question, KeyId, Meanwhile)>>,
    opening: Mutex<Option<Before>>,
    /// It says that it is on another machine.
    elsewhere: AtomicBool,
}

impl Interrupted {
    /// The volume with its keys by way of such a KMS.
    pub(crate) fn under(fixture: &mut Fixture) -> Arc<Self> {
        Self::open(fixture, false, None)
    }

    /// The same by way of one that is on another machine, so that keys are made ahead.
    pub(crate) fn elsewhere(fixture: &mut Fixture) -> Arc<Self> {
        Self::open(fixture, true, None)
    }

    /// Opens the volume; `act` comes when the KMS is first asked.
    pub(crate) fn while_opening(fixture: &mut Fixture, act: impl FnOnce() + Send + 'static) {
        Self::open(fixture, false, Some(Box::new(act)));
    }

    fn open(fixture: &mut Fixture, elsewhere: bool, opening: Option<Before>) -> Arc<Self> {
        let keystore = fixture.keystore.clone();
        let (volume, next, opening) = (OnceLock::new(), Mutex::default(), Mutex::new(opening));
        let elsewhere = AtomicBool::new(elsewhere);
        let service = Arc::new(Self { keystore, volume, next, opening, elsewhere });
        let anchors = Some(fixture.anchors());
        fixture.reopen_over(service.clone(), Options { anchors, ..Options::default() });
        service.volume.set(Arc::downgrade(&fixture.shared())).unwrap();
        service
    }

    /// When it is next asked this about this key, `act` comes before its answer.
    pub(crate) fn during_next(
        &self,
        asked: Question,
        key: KeyId,
        act: impl FnOnce(&Volume) + Send + 'static,
    ) {
        *self.next.lock().unwrap() = Some((asked, key, Box::new(act)));
    }

    /// From here on, what is remembered of the volume goes to a file, as if the keystore took nothing; or
    /// to the keystore again.
    pub(crate) fn be_elsewhere(&self, elsewhere: bool) {
        self.elsewhere.store(elsewhere, Ordering::Relaxed);
    }

    pub(crate) fn is_due(&self) -> bool {
        self.next.lock().unwrap().is_some()
    }

    fn asked(&self, asked: Question, key: KeyId) {
        let act = self.opening.lock().unwrap().take();
        if let Some(act) = act {
            act();
        }
        let act = self.next.lock().unwrap().take_if(|next| (next.0, next.1) == (asked, key));
        if let Some((.., act)) = act {
            act(&self.volume.get().unwrap().upgrade().unwrap());
        }
    }
}

impl KeyService for Interrupted {
    fn generate(&self, key: KeyId, context: &EncryptionContext) -> Result<(Secret<32>, Recipient)> {
        let made = self.keystore.generate(key, context);
        self.asked(Question::Generate, key);
        made
    }

    fn unwrap(&self, wrapped: &Recipient, context: &EncryptionContext) -> Result<Secret<32>> {
        self.asked(Question::Unwrap, wrapped.key);
        let key = self.keystore.unwrap(wrapped, context);
        self.asked(Question::Unwrapped, wrapped.key);
        key
    }

    fn rewrap(&self, old: &Recipient, to: KeyId, context: &EncryptionContext) -> Result<Recipient> {
        self.keystore.rewrap(old, to, context)
    }

    fn current_material(&self, key: KeyId) -> Result<MaterialId> {
        self.asked(Question::Material, key);
        KeyService::current_material(&*self.keystore, key)
    }

    fn find_key(&self, name: &str) -> Result<KeyId> {
        self.keystore.find_key(name)
    }

    fn refresh(&self) -> Result<()> {
        self.keystore.refresh()
    }

    fn keystore(&self) -> Option<&Keystore> {
        (!self.elsewhere.load(Ordering::Relaxed)).then_some(&*self.keystore)
    }

    fn health(&self, keys: &[KeyId]) -> Vec<(KeyId, KeyHealth)> {
        self.keystore.health(keys)
    }
}

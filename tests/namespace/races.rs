//! What changes the keys of directories and of files at the same moment: the one acts while the other
//! waits for an answer of the KMS.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::SystemTime;

use kmsfs::crypto::secret::Secret;
use kmsfs::envelope::{CrossMode, Recipient};
use kmsfs::id::{KeyId, MaterialId};
use kmsfs::keystore::{EncryptionContext, KeyRef, Keystore};
use kmsfs::volume::content::Access;
use kmsfs::volume::{KeyHealth, KeyService, Options, Result, RewrapJob, Volume};

use crate::fixture::{Fixture, REPLACE, ROOT};

/// What happens while the KMS answers, once.
type Meanwhile = Box<dyn FnOnce(&Volume) + Send>;

/// What the KMS is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    Unwrap,
    Material,
}

/// A KMS during whose answers something else happens.
struct Interrupted {
    keystore: Arc<Keystore>,
    volume: OnceLock<Weak<Volume>>,
    next: Mutex<Option<(Question, KeyId, Meanwhile)>>,
}

impl Interrupted {
    /// The volume with its keys by way of such a KMS.
    fn under(fixture: &mut Fixture) -> Arc<Self> {
        let keystore = fixture.keystore.clone();
        let service = Self { keystore, volume: OnceLock::new(), next: Mutex::default() };
        let service = Arc::new(service);
        fixture.reopen_over(service.clone(), Options::default());
        service.volume.set(Arc::downgrade(&fixture.shared())).unwrap();
        service
    }

    /// When it is next asked this about this key, `act` comes before its answer.
    fn during_next(&self, asked: Question, key: KeyId, act: impl FnOnce(&Volume) + Send + 'static) {
        *self.next.lock().unwrap() = Some((asked, key, Box::new(act)));
    }

    fn is_due(&self) -> bool {
        self.next.lock().unwrap().is_some()
    }

    fn asked(&self, asked: Question, key: KeyId) {
        let act = self.next.lock().unwrap().take_if(|next| (next.0, next.1) == (asked, key));
        if let Some((.., act)) = act {
            act(&self.volume.get().unwrap().upgrade().unwrap());
        }
    }
}

impl KeyService for Interrupted {
    fn generate(&self, key: KeyId, context: &EncryptionContext) -> Result<(Secret<32>, Recipient)> {
        self.keystore.generate(key, context)
    }

    fn unwrap(&self, wrapped: &Recipient, context: &EncryptionContext) -> Result<Secret<32>> {
        self.asked(Question::Unwrap, wrapped.key);
        self.keystore.unwrap(wrapped, context)
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
        Some(&self.keystore)
    }

    fn health(&self, keys: &[KeyId]) -> Vec<(KeyId, KeyHealth)> {
        self.keystore.health(keys)
    }
}

/// The re-wrap had come to the file in the directory that it left, and wrapped it for that one's key
/// after the move had brought it under the key of the other.
#[test]
fn regression_a_rewrap_wraps_nothing_for_a_directory_that_it_has_left() {
    let mut fixture = Fixture::new();
    let keys = [fixture.new_key(), fixture.new_key()];
    for (name, key) in ["a", "b"].into_iter().zip(keys) {
        let dir = fixture.mkdir(ROOT, name).unwrap().ino;
        fixture.volume().set_dir_policy(dir, key, Some(CrossMode::Rewrap)).unwrap();
    }
    let files = ["one", "two"];
    for name in files {
        fixture.file(fixture.find("a").unwrap(), name, name).unwrap();
    }
    let service = Interrupted::under(&mut fixture);
    let (a, b) = (fixture.find("a").unwrap(), fixture.find("b").unwrap());
    for key in keys {
        fixture.keystore.rotate_key_on_demand(&KeyRef::Id(key), SystemTime::now()).unwrap();
    }
    let opened = files.map(|name| {
        let ino = fixture.find(&format!("a/{name}")).unwrap();
        fixture.contents(ino);
        fixture.volume().open_handle(ino, Access::ReadOnly).unwrap().handle
    });
    let caller = crate::fixture::caller();
    let stopped = fixture.volume().rewrap(
        RewrapJob::default(),
        &mut |report| {
            if report.scanned == 2 {
                return ControlFlow::Break(());
            }
            // Both go when it looks at the second one.
            service.during_next(Question::Material, keys[0], move |volume| {
                for name in files.map(str::as_bytes) {
                    volume.rename((a, name), (b, name), REPLACE, caller).unwrap();
                }
            });
            ControlFlow::Continue(())
        },
        &mut |_| {},
    );
    let stopped = stopped.unwrap();
    assert!(!service.is_due() && stopped.failed.is_empty(), "{stopped:?}");
    for handle in opened {
        fixture.volume().close(handle);
    }
    fixture.reopen();
    for name in files {
        assert_eq!(fixture.contents(fixture.find(&format!("b/{name}")).unwrap()), name);
    }
    let go_on = &mut |_: &_| ControlFlow::Continue(());
    let report = fixture.volume().rewrap(RewrapJob::default(), go_on, &mut |_| {}).unwrap();
    assert!(report.complete, "{report:?}");
}

/// The descriptor that was read before the change was compared with what was remembered after it, and
/// the directory was out of its place until the volume was closed.
#[test]
fn regression_a_policy_that_changes_while_its_directory_is_opened_is_no_tampering() {
    let mut fixture = Fixture::new();
    let keys = [fixture.new_key(), fixture.new_key()];
    let dir = fixture.mkdir(ROOT, "dir").unwrap().ino;
    fixture.volume().set_dir_policy(dir, keys[0], None).unwrap();
    fixture.file(dir, "file", "contents").unwrap();
    let service = Interrupted::under(&mut fixture);
    let set = move |volume: &Volume| {
        let dir = volume.lookup(ROOT, b"dir").unwrap().unwrap().ino;
        volume.set_dir_policy(dir, keys[1], None).unwrap();
    };
    service.during_next(Question::Unwrap, keys[0], set);
    let dir = fixture.find("dir").unwrap();
    let found = fixture.volume().dir_policy(dir);
    assert!(!service.is_due());
    assert_eq!(found.unwrap().policy, keys[1]);
    assert_eq!(fixture.contents(fixture.find("dir/file").unwrap()), "contents");
}

/// It had been through the directory, and gave up the key that its files had until a moment ago.
#[test]
fn regression_a_rewrap_gives_up_no_key_that_became_a_former_one_meanwhile() {
    let mut fixture = Fixture::new();
    let keys = [fixture.new_key(), fixture.new_key()];
    let dir = fixture.mkdir(ROOT, "dir").unwrap().ino;
    fixture.volume().set_dir_policy(dir, keys[0], None).unwrap();
    fixture.file(dir, "file", "contents").unwrap();
    let volume = fixture.volume();
    let progress = &mut |_: &_| {
        volume.set_dir_policy(dir, keys[1], None).unwrap();
        ControlFlow::Continue(())
    };
    volume.rewrap(RewrapJob::default(), progress, &mut |_| {}).unwrap();
    fixture.reopen();
    assert_eq!(fixture.contents(fixture.find("dir/file").unwrap()), "contents");
    let go_on = &mut |_: &_| ControlFlow::Continue(());
    let report = fixture.volume().rewrap(RewrapJob::default(), go_on, &mut |_| {}).unwrap();
    let dir = fixture.find("dir").unwrap();
    assert!(report.complete && fixture.volume().dir_policy(dir).unwrap().previous.is_empty());
    fixture.disable(keys[0]);
    fixture.reopen();
    assert_eq!(fixture.contents(fixture.find("dir/file").unwrap()), "contents");
}

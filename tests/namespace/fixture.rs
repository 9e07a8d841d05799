//! A volume over a fresh vault in a directory that goes away with it.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use kmsfs::id::KeyId;
use kmsfs::keystore::{CreateKey, KeyRef, Keystore, Unlock, create_key_file};
use kmsfs::volume::attr::Attr;
use kmsfs::volume::{
    Caller, Detail, KernelCache, KeyService, NewNode, OpenFor, Options, Origin, RenameHow, Result,
    Sink, Volume, VolumeError,
};

pub(crate) const ROOT: u64 = 1;
pub(crate) const REPLACE: RenameHow =
    RenameHow { no_replace: false, exchange: false, whiteout: false };

pub(crate) struct Fixture {
    dir: PathBuf,
    vault: PathBuf,
    pub(crate) keystore: Arc<Keystore>,
    key: KeyId,
    volume: Option<Arc<Volume>>,
}

/// The inodes whose pages the kernel was asked to drop.
#[derive(Default)]
pub(crate) struct Dropped(Mutex<Vec<u64>>);

impl KernelCache for Dropped {
    fn invalidate_inode(&self, ino: u64) {
        self.0.lock().unwrap().push(ino);
    }

    fn invalidate_attributes(&self, ino: u64) {
        self.0.lock().unwrap().push(ino);
    }
}

impl Dropped {
    pub(crate) fn take(&self) -> Vec<u64> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let dir = scratch();
        let vault = dir.join("vault");
        Self::with_vault(dir, vault)
    }

    /// The same with the vault at a place of its own.
    pub(crate) fn at(vault: PathBuf) -> Self {
        Self::with_vault(scratch(), vault)
    }

    fn with_vault(dir: PathBuf, vault: PathBuf) -> Self {
        create_key_file(&dir.join("key")).unwrap();
        let unlock = Unlock::KeyFile(dir.join("key"));
        let now = SystemTime::now();
        let keystore = Arc::new(Keystore::create(&dir.join("store"), &unlock, now).unwrap());
        let key = keystore.create_key(CreateKey::default(), now).unwrap();
        Volume::init_vault(&vault, keystore.clone(), key.key_id).unwrap();
        let mut fixture = Self { dir, vault, keystore, key: key.key_id, volume: None };
        fixture.reopen();
        fixture
    }

    /// Forgets everything in memory, as a new mount does.
    pub(crate) fn reopen(&mut self) {
        self.reopen_with(Options::default());
    }

    pub(crate) fn reopen_with(&mut self, options: Options) {
        self.reopen_over(self.keystore.clone(), options);
    }

    /// As [`Self::reopen_with`], with its keys by way of `service`.
    pub(crate) fn reopen_over(&mut self, service: Arc<dyn KeyService>, options: Options) {
        self.volume = None;
        let opened =
            once_unlocked(|| Volume::open_vault(&self.vault(), service.clone(), options.clone()));
        self.volume = Some(Arc::new(opened.unwrap()));
    }

    /// Lets go of the volume.
    pub(crate) fn close(&mut self) {
        self.volume = None;
    }

    /// Opens the vault once more, if that is possible.
    pub(crate) fn try_open(&self, options: Options) -> Result<Volume> {
        Volume::open_vault(&self.vault(), self.keystore.clone(), options)
    }

    pub(crate) fn shared(&self) -> Arc<Volume> {
        self.volume.clone().unwrap()
    }

    /// Listens to what the volume asks of the kernel.
    pub(crate) fn kernel(&self) -> Arc<Dropped> {
        let dropped = Arc::new(Dropped::default());
        self.volume().attach_kernel(dropped.clone());
        dropped
    }

    pub(crate) fn disable(&self, key: KeyId) {
        self.keystore.disable_key(&KeyRef::Id(key)).unwrap();
    }

    pub(crate) fn enable(&self, key: KeyId) {
        self.keystore.enable_key(&KeyRef::Id(key)).unwrap();
    }

    /// The key of the root directory.
    pub(crate) fn key(&self) -> KeyId {
        self.key
    }

    pub(crate) fn new_key(&self) -> KeyId {
        self.keystore.create_key(CreateKey::default(), SystemTime::now()).unwrap().key_id
    }

    pub(crate) fn volume(&self) -> &Volume {
        self.volume.as_ref().unwrap()
    }

    pub(crate) fn vault(&self) -> PathBuf {
        self.vault.clone()
    }

    /// Where this machine remembers volumes beside the keystore.
    pub(crate) fn anchors(&self) -> PathBuf {
        self.dir.join("anchors")
    }

    pub(crate) fn mkdir(&self, parent: u64, name: &str) -> Result<Attr> {
        self.volume().mkdir(parent, name.as_bytes(), new_node(0o755))
    }

    /// Makes a file with these contents.
    pub(crate) fn file(&self, parent: u64, name: &str, contents: &str) -> Result<Attr> {
        let (attr, handle) =
            self.volume().create_file(parent, name.as_bytes(), &new_node(0o644), OpenFor::Both)?;
        if !contents.is_empty() {
            handle.file.write(0, contents.as_bytes(), Origin::Caller)?;
        }
        self.volume().close(handle);
        Ok(attr)
    }

    pub(crate) fn contents(&self, ino: u64) -> String {
        let access = kmsfs::volume::content::Access::ReadOnly;
        let opened = self.volume().open_handle(ino, access).unwrap();
        let mut buffer = vec![0; 4096];
        let length = opened.handle.file.read(0, &mut buffer).unwrap();
        self.volume().close(opened.handle);
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    /// The inode that a path leads to, looked up step by step.
    pub(crate) fn find(&self, path: &str) -> Result<u64> {
        let mut ino = ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let found = self.volume().lookup(ino, name.as_bytes())?;
            ino = found.ok_or(VolumeError::NotFound)?.ino;
        }
        Ok(ino)
    }

    pub(crate) fn rename(&self, from: (u64, &str), to: (u64, &str), how: RenameHow) -> Result<()> {
        self.volume().rename((from.0, from.1.as_bytes()), (to.0, to.1.as_bytes()), how, caller())
    }

    /// The names in a directory without the dots, sorted.
    pub(crate) fn list(&self, ino: u64) -> Vec<String> {
        let stream = self.volume().open_dir_stream(ino).unwrap();
        let mut names = Vec::new();
        let taken = self.volume().read_dir(&stream, 0, Detail::Names, |entry| {
            names.push(String::from_utf8(entry.name.clone()).unwrap());
            Sink::Taken
        });
        taken.unwrap();
        names.retain(|name| name != "." && name != "..");
        names.sort();
        names
    }

    /// Waits until files that were closed are idle no more.
    pub(crate) fn wait_for_idle_files(&self) {
        let vault = self.vault().canonicalize().unwrap();
        let is_held = || {
            let all = fs::read_dir("/proc/self/fd").unwrap();
            let mut held = all.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
            held.any(|held| {
                let name = held.strip_prefix(&vault).ok().filter(|_| held.is_file());
                name.is_some_and(|name| !name.to_string_lossy().contains(".kmsfs"))
            })
        };
        while is_held() {
            std::thread::sleep(Duration::from_millis(100));
            self.volume().flush(Duration::MAX).unwrap();
        }
    }

    /// The backing path of a directory of the vault that holds one entry of this kind.
    pub(crate) fn backing(&self, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
        let mut found = Vec::new();
        collect(&self.vault(), &wanted, &mut found);
        found
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.volume = None;
        fs::remove_dir_all(&self.dir).ok();
    }
}

/// Does what takes the lock of a vault that nobody has: a program that another test is starting has a
/// copy of the lock until it runs.
pub(crate) fn once_unlocked<T>(mut act: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 0..1000 {
        match act() {
            Err(VolumeError::InUse) => std::thread::sleep(Duration::from_millis(1)),
            done => return done,
        }
    }
    act()
}

/// A new directory.
pub(crate) fn scratch() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("kmsfs-namespace-{}-{count}", std::process::id());
    let dir = std::env::temp_dir().join(name);
    fs::create_dir(&dir).unwrap();
    dir
}

fn collect(dir: &std::path::Path, wanted: &impl Fn(&str) -> bool, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if wanted(entry.file_name().to_str().unwrap()) {
            found.push(entry.path());
        }
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), wanted, found);
        }
    }
}

pub(crate) fn caller() -> Caller {
    Caller {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        pid: std::process::id(),
    }
}

pub(crate) fn new_node(mode: u32) -> NewNode {
    NewNode { mode, umask: 0o022, caller: caller() }
}

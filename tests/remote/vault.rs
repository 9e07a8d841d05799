//! A vault over an endpoint, used without a kernel.

use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use kmsfs::endpoint::{Credentials, Endpoint, Options as Patience};
use kmsfs::id::KeyId;
use kmsfs::volume::attr::AttrChange;
use kmsfs::volume::remote::RemoteKeys;
use kmsfs::volume::{
    Caller, FileHandle, NewNode, OpenFor, Options, Origin, ROOT, RenameHow, Result, RewrapReport,
    Volume, VolumeError,
};

use super::foreign::ForeignKms;

/// Longer than the endpoint's keys stay unasked about.
const PATIENCE: Duration = Duration::from_secs(15);

pub(crate) struct Remote {
    dir: PathBuf,
    url: String,
    grace: Duration,
    volume: Option<Volume>,
}

impl Remote {
    /// A new vault under `key`.
    pub(crate) fn new(kms: &ForeignKms, key: KeyId) -> Self {
        Self::with_grace(kms, key, Duration::from_secs(60))
    }

    pub(crate) fn with_grace(kms: &ForeignKms, key: KeyId, grace: Duration) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("kmsfs-remote-{}-{count}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let remote = Self { dir, url: kms.url(), grace, volume: None };
        Volume::init_vault(&remote.path(), Arc::new(remote.keys()), key).unwrap();
        remote.reopen()
    }

    /// Forgets everything in memory, as a new mount does.
    pub(crate) fn reopen(mut self) -> Self {
        self.volume = None;
        let options = Options { anchors: Some(self.anchors()), ..Options::default() };
        self.volume = Some(self.open_vault(options).unwrap());
        self
    }

    /// Another view of the vault, once nobody has it.
    pub(crate) fn open_vault(&self, options: Options) -> Result<Volume> {
        Volume::open_vault(&self.path(), Arc::new(self.keys()), options)
    }

    /// Ends the session and lets go of the vault.
    pub(crate) fn end(&mut self) {
        let volume = self.volume.take().unwrap();
        volume.end().unwrap();
    }

    /// Where this machine remembers volumes whose keys are elsewhere.
    pub(crate) fn anchors(&self) -> PathBuf {
        self.dir.join("anchors")
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.join("vault")
    }

    pub(crate) fn volume(&self) -> &Volume {
        self.volume.as_ref().unwrap()
    }

    pub(crate) fn write(&self, name: &str, contents: &str) {
        let made = self
            .volume()
            .create_file(ROOT, name.as_bytes(), &new_node(0o644), OpenFor::Both)
            .unwrap();
        if !contents.is_empty() {
            made.1.file.write(0, contents.as_bytes(), Origin::Caller).unwrap();
        }
        self.volume().close(made.1);
    }

    /// Makes a file and leaves it open.
    pub(crate) fn create(&self, name: &str) -> Result<FileHandle> {
        let made =
            self.volume().create_file(ROOT, name.as_bytes(), &new_node(0o644), OpenFor::Both);
        Ok(made?.1)
    }

    pub(crate) fn open(&self, name: &str) -> Result<FileHandle> {
        Ok(self.volume().open_as(self.find(name)?, OpenFor::Reading, caller())?.handle)
    }

    pub(crate) fn open_for_writing(&self, name: &str) -> Result<FileHandle> {
        Ok(self.volume().open_as(self.find(name)?, OpenFor::Writing, caller())?.handle)
    }

    /// Cuts a file to nothing by its path.
    pub(crate) fn cut(&self, name: &str) -> Result<()> {
        let change = AttrChange { size: Some(0), ..AttrChange::default() };
        self.volume().set_attr(self.find(name)?, &change, caller()).map(|_| ())
    }

    fn find(&self, name: &str) -> Result<u64> {
        let found = self.volume().lookup(ROOT, name.as_bytes())?;
        Ok(found.ok_or(VolumeError::NotFound)?.ino)
    }

    pub(crate) fn read(&self, name: &str) -> Result<String> {
        let handle = self.open(name)?;
        let mut buffer = vec![0; 4096];
        let length = handle.file.read(0, &mut buffer)?;
        self.volume().close(handle);
        Ok(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    /// A directory whose new files get `key`.
    pub(crate) fn mkdir_under(&self, name: &str, key: KeyId) {
        let made = self.volume().mkdir(ROOT, name.as_bytes(), new_node(0o755)).unwrap();
        self.volume().set_dir_policy(made.ino, key, None).unwrap();
    }

    /// Moves a file of the root into a directory of the root.
    pub(crate) fn rename(&self, name: &str, dir: &str) -> Result<()> {
        let dir = self.volume().lookup(ROOT, dir.as_bytes())?.ok_or(VolumeError::NotFound)?.ino;
        let name = name.as_bytes();
        self.volume().rename((ROOT, name), (dir, name), RenameHow::default(), caller())
    }

    /// Does what the volume's background thread does until `wanted` comes.
    pub(crate) fn eventually<T>(&self, wanted: impl Fn() -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            self.volume().watch_keys();
            if let Some(found) = wanted() {
                return found;
            }
            assert!(Instant::now() < end, "it never came");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn keys(&self) -> RemoteKeys {
        let credentials = Credentials::new("AKIDEXAMPLE", "secret", None);
        let second = Duration::from_secs(1);
        let patience = Patience { attempt: second, patience: second };
        let address = self.url.parse().unwrap();
        let endpoint = Endpoint::new(address, Some("eu-west-1"), credentials, None, patience);
        RemoteKeys::new(endpoint.unwrap(), self.grace).unwrap()
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.volume = None;
        fs::remove_dir_all(&self.dir).ok();
    }
}

/// Lets a re-wrap go on.
pub(crate) fn no_news(_report: &RewrapReport) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn caller() -> Caller {
    let uid = rustix::process::geteuid().as_raw();
    Caller { uid, gid: rustix::process::getegid().as_raw(), pid: std::process::id() }
}

fn new_node(mode: u32) -> NewNode {
    NewNode { mode, umask: 0o022, caller: caller() }
}

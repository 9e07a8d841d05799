//! A volume on a disk that can fail, and what a user sees in it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use kmsfs::keystore::{CreateKey, Keystore, Unlock, create_key_file};
use kmsfs::volume::attr::{Attr, FileKind};
use kmsfs::volume::content::Access;
use kmsfs::volume::{
    Caller, Detail, FileHandle, NewNode, OpenFor, Options, Origin, Result, Sink, Volume,
    VolumeError,
};

use rustix::io::Errno;

use super::process::Disk;

pub(crate) const ROOT: u64 = 1;

/// What a machine has beside the disk: its keystore, and what opens it.
pub(crate) struct Off {
    store: Vec<u8>,
    key: Vec<u8>,
}

/// A volume in use.
pub(crate) struct World<'d> {
    volume: Option<Arc<Volume>>,
    keystore: Option<Arc<Keystore>>,
    pub(crate) disk: &'d Disk,
    scratch: Scratch,
}

/// Everything that a user sees, by path.
pub(crate) type View = BTreeMap<String, Entry>;

/// What is seen of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    kind: FileKind,
    perm: u16,
    owner: (u32, u32),
    links: u32,
    pub(crate) bytes: Vec<u8>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A directory that goes away with it.
struct Scratch(PathBuf);

impl<'d> World<'d> {
    /// A machine with an empty volume.
    pub(crate) fn install(disk: &'d Disk) -> Self {
        let scratch = Scratch::new();
        create_key_file(&scratch.0.join("key")).unwrap();
        let now = SystemTime::now();
        let keystore = Keystore::create(&scratch.store(), &scratch.unlock(), now).unwrap();
        let keystore = Arc::new(keystore);
        let key = keystore.create_key(CreateKey::default(), now).unwrap().key_id;
        disk.mount(&scratch.mountpoint());
        Volume::init_vault(&scratch.vault(), keystore.clone(), key).unwrap();
        let mut world = Self { volume: None, keystore: Some(keystore), disk, scratch };
        world.open().unwrap();
        world
    }

    /// Switches a machine on; the volume is not open yet.
    pub(crate) fn start(disk: &'d Disk, off: &Off) -> Self {
        let scratch = Scratch::new();
        fs::write(scratch.0.join("key"), &off.key).unwrap();
        fs::write(scratch.store(), &off.store).unwrap();
        fs::set_permissions(scratch.0.join("key"), fs::Permissions::from_mode(0o600)).unwrap();
        let keystore = Keystore::open(&scratch.store(), &scratch.unlock()).unwrap();
        disk.mount(&scratch.mountpoint());
        Self { volume: None, keystore: Some(Arc::new(keystore)), disk, scratch }
    }

    /// Ends in good order, and keeps what is on the disk.
    pub(crate) fn shut_down(mut self) -> Off {
        self.volume().end().unwrap();
        self.kill();
        self.keystore = None;
        self.disk.keep();
        let store = fs::read(self.scratch.store()).unwrap();
        Off { store, key: fs::read(self.scratch.0.join("key")).unwrap() }
    }

    /// Opens the volume, with nothing in memory, as a mount does.
    pub(crate) fn open(&mut self) -> Result<()> {
        let keystore = self.keystore.clone().expect("only shutting down takes it");
        let opened = Volume::open_vault(&self.scratch.vault(), keystore, Options::default())?;
        self.volume = Some(Arc::new(opened));
        Ok(())
    }

    /// Everything in memory is gone, and nothing was brought to an end.
    pub(crate) fn kill(&mut self) {
        self.volume = None;
    }

    pub(crate) fn is_open(&self) -> bool {
        self.volume.is_some()
    }

    pub(crate) fn volume(&self) -> &Volume {
        self.volume.as_ref().expect("it is open")
    }

    /// The inode that a path leads to.
    pub(crate) fn find(&self, path: &str) -> Result<u64> {
        path.split('/').filter(|name| !name.is_empty()).try_fold(ROOT, |ino, name| {
            let found = self.volume().lookup(ino, name.as_bytes())?;
            Ok(found.ok_or(VolumeError::NotFound)?.ino)
        })
    }

    /// Opens a file for the length of `run`.
    pub(crate) fn with<T>(
        &self,
        path: &str,
        access: Access,
        run: impl FnOnce(&FileHandle) -> Result<T>,
    ) -> Result<T> {
        let handle = self.volume().open_handle(self.find(path)?, access)?.handle;
        let done = run(&handle);
        self.volume().close(handle);
        done
    }

    /// Makes a file with these contents, as programs do, or writes to the one that is there.
    pub(crate) fn make(&self, dir: u64, name: &str, bytes: &[u8]) -> Result<()> {
        let name = name.as_bytes();
        let made = match self.volume().create_file(dir, name, &new(0o644), OpenFor::Both) {
            Err(VolumeError::Io(Errno::EXIST)) => {
                self.volume().open_existing(dir, name, OpenFor::Both, caller())
            }
            made => made,
        };
        let (_, handle) = made?;
        let written = write_all(&handle, 0, bytes);
        self.volume().close(handle);
        written
    }

    pub(crate) fn names(&self, dir: u64) -> Result<Vec<String>> {
        let stream = self.volume().open_dir_stream(dir)?;
        let mut names = Vec::new();
        self.volume().read_dir(&stream, 0, Detail::Names, |entry| {
            names.push(String::from_utf8(entry.name.clone()).unwrap());
            Sink::Taken
        })?;
        names.retain(|name| name != "." && name != "..");
        Ok(names)
    }

    /// Everything there is, read to the last byte.
    pub(crate) fn view(&self) -> Result<View> {
        let mut view = View::new();
        self.look(ROOT, "", &mut view)?;
        Ok(view)
    }

    fn look(&self, dir: u64, above: &str, view: &mut View) -> Result<()> {
        for name in self.names(dir)? {
            let path = format!("{above}/{name}");
            let attr = self.volume().lookup(dir, name.as_bytes())?.ok_or(VolumeError::NotFound)?;
            if attr.kind == FileKind::Directory {
                self.look(attr.ino, &path, view)?;
            }
            view.insert(path, self.entry(&attr)?);
        }
        Ok(())
    }

    fn entry(&self, attr: &Attr) -> Result<Entry> {
        let bytes = match attr.kind {
            FileKind::Regular => self.bytes(attr)?,
            FileKind::Symlink => self.volume().read_link(attr.ino)?,
            _ => Vec::new(),
        };
        let names = self.volume().xattr_names(attr.ino, caller())?;
        let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        let xattrs = names
            .map(|name| Ok((name.to_vec(), self.volume().xattr(attr.ino, name, caller())?)))
            .collect::<Result<_>>()?;
        let owner = (attr.uid, attr.gid);
        let links = if attr.kind == FileKind::Directory { 0 } else { attr.nlink };
        Ok(Entry { kind: attr.kind, perm: attr.perm, owner, links, bytes, xattrs })
    }

    fn bytes(&self, attr: &Attr) -> Result<Vec<u8>> {
        let handle = self.volume().open_handle(attr.ino, Access::ReadOnly)?.handle;
        // A byte more than there is: the size that is shown is the one that is read.
        let mut bytes = vec![0; usize::try_from(attr.size).unwrap() + 1];
        let read = handle.file.read(0, &mut bytes);
        self.volume().close(handle);
        bytes.truncate(read?);
        Ok(bytes)
    }
}

impl Drop for World<'_> {
    fn drop(&mut self) {
        self.kill();
        self.disk.unmount();
    }
}

impl Entry {
    /// As long as one of the two or between, and each byte from one of them, or zero.
    pub(crate) fn lies_between(&self, old: Option<&Self>, new: &Self) -> bool {
        let before: &[u8] = old.map_or(&[], |old| &old.bytes);
        let mut bytes = self.bytes.iter().enumerate();
        let known = |at: usize, byte: u8| {
            byte == 0 || [before, &new.bytes].iter().any(|bytes| bytes.get(at) == Some(&byte))
        };
        let of_one = |same: fn(&Self, &Self) -> bool| {
            same(self, new) || old.is_some_and(|old| same(self, old))
        };
        self.bytes.len() <= before.len().max(new.bytes.len())
            && bytes.all(|(at, byte)| known(at, *byte))
            && of_one(|one, other| one.kind == other.kind && one.xattrs == other.xattrs)
            && of_one(|one, other| one.perm == other.perm)
            && of_one(|one, other| one.owner == other.owner)
    }

    /// In a few words, what is not as it should be.
    pub(crate) fn differs(&self, wanted: &Self) -> String {
        let of = |what: &str, one: String, other: String| format!("has {what} {one}, not {other}");
        if self.bytes.len() != wanted.bytes.len() {
            let (one, other) = (self.bytes.len(), wanted.bytes.len());
            return of("length", one.to_string(), other.to_string());
        }
        if self.bytes != wanted.bytes {
            return "has other bytes".to_owned();
        }
        of("attributes", format!("{:?}", self.attributes()), format!("{:?}", wanted.attributes()))
    }

    fn attributes(&self) -> (FileKind, u16, (u32, u32), u32, usize) {
        (self.kind, self.perm, self.owner, self.links, self.xattrs.len())
    }
}

impl Scratch {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("kmsfs-faults-{}-{count}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        fs::create_dir(&dir).unwrap();
        fs::create_dir(dir.join("disk")).unwrap();
        Self(dir)
    }

    fn store(&self) -> PathBuf {
        self.0.join("store")
    }

    fn unlock(&self) -> Unlock {
        Unlock::KeyFile(self.0.join("key"))
    }

    fn mountpoint(&self) -> PathBuf {
        self.0.join("disk")
    }

    fn vault(&self) -> PathBuf {
        self.mountpoint().join("vault")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// Writes on until everything is taken, or says what stopped it.
pub(crate) fn write_all(handle: &FileHandle, offset: u64, bytes: &[u8]) -> Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        done += handle.file.write(offset + done as u64, &bytes[done..], Origin::Caller)?;
    }
    Ok(())
}

pub(crate) fn caller() -> Caller {
    Caller {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        pid: std::process::id(),
    }
}

pub(crate) fn new(mode: u32) -> NewNode {
    NewNode { mode, umask: 0o022, caller: caller() }
}

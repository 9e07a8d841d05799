//! Making a vault and opening one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{Mode, StatVfsMountFlags, fstatvfs, fsync};
use rustix::io::Errno;

use super::Volume;
use super::begin::open_session;
use super::saved_times::load_times;
use super::volume_descriptor::{
    DESCRIPTOR, SPARE, damaged_copies, read_descriptors, verify, write_descriptor,
};
use crate::crypto::random;
use crate::envelope::{VolumeDescriptor, VolumeFeatures, VolumeKeys};
use crate::id::{KeyId, VolumeId};
use crate::volume::access::authorizer::Authorizer;
use crate::volume::access::exposure::{self, exposure_of};
use crate::volume::backing::beneath::{self, BackingName, Name};
use crate::volume::backing::listing::raw_names;
use crate::volume::backing::root::{make_root, open_root};
use crate::volume::backing::small_blocks::small_blocks_of;
use crate::volume::backing::{lender, own_file};
use crate::volume::content::Access;
use crate::volume::files::open_files::OpenFiles;
use crate::volume::keys::keyring::{Keyring, Purpose};
use crate::volume::keys::service::KeyService;
use crate::volume::model::clock;
use crate::volume::model::error::{Result, VolumeError};
use crate::volume::model::options::{AccessTimes, Options};
use crate::volume::namespace::descriptor::{self, Copies};
use crate::volume::namespace::dir::{Dir, Opener};
use crate::volume::namespace::dir_locks::DirLocks;
use crate::volume::namespace::dir_rules::{DirAnchor, Expected};
use crate::volume::namespace::inode::ROOT;
use crate::volume::namespace::tree::Tree;
use crate::volume::session::anchor::AnchorStore;
use crate::volume::session::journaling;
use crate::volume::session::ledger::Ledger;
use crate::volume::session::lock::{self, Session};

const PRIVATE: Mode = Mode::RWXU;

impl Volume {
    /// Makes a vault in `path`, which must be missing or empty, with `key` for its root directory.
    ///
    /// The volume descriptor is written last: a crash before leaves a directory that is not a vault
    /// and that a second attempt completes.
    ///
    /// # Errors
    /// `NotEmpty`; `KeyUnusable`; those of the backing filesystem.
    pub fn init_vault(path: &Path, service: Arc<dyn KeyService>, key: KeyId) -> Result<VolumeId> {
        make_root(path)?;
        let root = open_root(path)?;
        refuse_contents(&root)?;
        exposure::close(&root)?;
        match beneath::make_dir(&root, lock::META, PRIVATE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let meta = lock::open_meta(&root)?;
        let volume = VolumeId::from_bytes(random::id16()?);
        let keyring = Keyring::new(service, volume);
        let (root_dir, dir_keys) = keyring.new_root(key)?;
        let bytes = root_dir.encode(&dir_keys);
        own_file::replace(&root, descriptor::FILE, &bytes)?;
        // A second copy where the backing filesystem can keep one.
        descriptor::write_attribute(root.as_fd(), &bytes)?;
        let (volume_key, recipient) = keyring.generate(key, Purpose::Volume)?;
        let keys = VolumeKeys::new(volume, &volume_key);
        let created = clock::now_nanos();
        let descriptor = VolumeDescriptor {
            volume,
            sequence: 1,
            features: VolumeFeatures::ALL,
            created,
            recipient,
        };
        let bytes = descriptor.encode(&keys);
        let anchor_store = AnchorStore::new(volume, path, keyring.service().clone(), None);
        Ledger::found(&meta, &keys, &anchor_store)?;
        own_file::replace(&meta, SPARE, &bytes)?;
        own_file::replace(&meta, DESCRIPTOR, &bytes)?;
        fsync(&root)?;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fsync(open_root(parent)?)?;
        }
        Ok(volume)
    }

    /// Opens the vault in `path` and takes hold of it.
    ///
    /// # Errors
    /// `NotAVolume`, `Newer`, `InUse`, `KeyUnusable`, `Tampered`; `OpenVault` for one that other users
    /// may enter; those of the backing filesystem.
    pub fn open_vault(path: &Path, service: Arc<dyn KeyService>, options: Options) -> Result<Self> {
        if options.read_only {
            lender::refuse();
        }
        let root = open_root(path).map_err(|error| match error {
            VolumeError::Io(Errno::NOENT | Errno::NOTDIR) => VolumeError::NotAVolume(path.into()),
            other => other,
        })?;
        let options =
            Options { access_times: noted(root.as_fd(), options.access_times), ..options };
        // Asked of what is open, whatever the path led to before.
        let exposed = if options.open_vault { None } else { exposure_of(root.as_fd())? };
        let claims = read_descriptors(&open_meta(&root, path)?, path)?;
        if let Some(exposed) = exposed {
            return Err(VolumeError::OpenVault(exposed));
        }
        let volume = claims.first().map(|copy| copy.claims().volume);
        let volume = volume.ok_or_else(|| VolumeError::NotAVolume(path.into()))?;
        let keyring = Arc::new(Keyring::new(service, volume));
        let (mut descriptor, mut keys) = verify(&keyring, &claims)?;
        let mut session = Session::begin(&root, !options.read_only)?;
        // The previous holder may have re-wrapped the volume key before this process took the lock: the
        // copies read before it must not be written back.
        let held = read_descriptors(session.meta(), path)?;
        if held != claims {
            (descriptor, keys) = verify(&keyring, &held)?;
        }
        let anchor_store =
            AnchorStore::new(volume, path, keyring.service().clone(), options.anchors.clone());
        // Loaded once the vault is held: another session may have changed it until then.
        let known = anchor_store.load(&keys)?;
        let anchor = DirAnchor::of(known.as_ref(), descriptor.features, options.restored);
        refuse_other_root(&root, volume, &keyring, &anchor)?;
        let mut found = damaged_copies(session.meta(), &keys)?;
        if !found.is_empty() && !options.read_only {
            log::warn!("one copy of the volume descriptor is damaged: repaired from the other");
            write_descriptor(session.meta(), &descriptor, &keys)?;
        }
        let small = small_blocks_of(&root)?;
        let times_key = keys.times_key().clone();
        let (shared, record) =
            open_session(&mut session, &mut descriptor, keys, anchor_store, &options, &anchor)?;
        let how = (small.is_some(), record.is_some());
        let (shared, strays) = journaling::begin(session.meta(), shared, &options, how)?;
        let journals = shared.journal().is_some();
        if journals {
            session.set_journal(shared.session());
        }
        if let Some(small) = small.filter(|_| !options.read_only) {
            log::warn!("{}", if journals { small.with_journal() } else { small.without_journal() });
        }
        found.extend(record);
        let access = if options.read_only { Access::ReadOnly } else { Access::ReadWrite };
        let times = Arc::new(load_times(session.meta(), times_key, &options));
        // A KMS elsewhere decides about each open, and writes it down.
        let idle = keyring.service().keystore().is_some() && !options.shared;
        let room = if idle { OpenFiles::idle_room() } else { 0 };
        let meta = rustix::io::fcntl_dupfd_cloexec(session.meta(), 0)?;
        let root_again = rustix::io::fcntl_dupfd_cloexec(&root, 0)?;
        let tree = Tree::new(root_again, meta, options.clone(), anchor)?;
        let (shared, inodes) = (Arc::new(shared), tree.inodes.clone());
        let files = OpenFiles::new(keyring.clone(), shared, times.clone(), inodes, (access, room));
        Ok(Self {
            root,
            tree,
            descriptor,
            options,
            authorizer: Authorizer::new(keyring.clone()),
            keyring,
            files: Arc::new(files),
            times,
            session: Mutex::new(session),
            kernel: Mutex::new(None),
            rewraps: Mutex::default(),
            found,
            strays,
        })
    }

    /// The id of the vault in `path`, as it claims it, without any key.
    ///
    /// # Errors
    /// `NotAVolume`, `Newer`; those of the backing filesystem.
    pub fn peek(path: &Path) -> Result<VolumeDescriptor> {
        let root = open_root(path).map_err(|error| match error {
            VolumeError::NoProc => error,
            _ => VolumeError::NotAVolume(path.into()),
        })?;
        Self::peek_into(&root, path)
    }

    /// The same of the vault that is open as `root` and was found at `path`.
    ///
    /// # Errors
    /// As [`Self::peek`].
    pub(in crate::volume) fn peek_into(root: &OwnedFd, path: &Path) -> Result<VolumeDescriptor> {
        let newest = Self::peek_at_copies(root, path)?.into_iter().next();
        newest.ok_or_else(|| VolumeError::NotAVolume(path.into()))
    }

    /// Both copies, the newest first.
    ///
    /// # Errors
    /// As [`Self::peek_into`].
    pub(in crate::volume) fn peek_at_copies(
        root: &OwnedFd,
        path: &Path,
    ) -> Result<Vec<VolumeDescriptor>> {
        let copies = read_descriptors(&open_meta(root, path)?, path)?;
        Ok(copies.into_iter().map(|copy| copy.claims().clone()).collect())
    }
}

/// Which accesses are noted: of its own accord the backing filesystem may note none.
fn noted(root: BorrowedFd<'_>, asked: AccessTimes) -> AccessTimes {
    let flags = fstatvfs(root).map(|filesystem| filesystem.f_flag);
    let never = flags.is_ok_and(|flags| flags.contains(StatVfsMountFlags::NOATIME));
    if never && asked == AccessTimes::Relative { AccessTimes::Never } else { asked }
}

/// Any directory of a volume could stand as its root, with the vault's own directory put into it.
fn refuse_other_root(
    root: &OwnedFd,
    volume: VolumeId,
    keyring: &Keyring,
    anchor: &DirAnchor,
) -> Result<()> {
    let fd = rustix::io::fcntl_dupfd_cloexec(root, 0)?;
    let copies = Copies::read(root);
    let opener = Opener { keyring, anchor, locks: &DirLocks::new(), read_only: true };
    let dir = Dir::open(ROOT, fd, copies, Expected::root(volume), opener)?;
    dir.misplaced().map_or(Ok(()), |why| Err(VolumeError::Misplaced(why)))
}

fn open_meta(root: &OwnedFd, path: &Path) -> Result<OwnedFd> {
    lock::open_meta(root).map_err(|error| match error {
        VolumeError::Io(Errno::NOENT | Errno::NOTDIR) => VolumeError::NotAVolume(path.into()),
        other => other,
    })
}

/// A new vault goes into an empty directory, or into what an interrupted attempt left.
fn refuse_contents(root: &OwnedFd) -> Result<()> {
    let ours = |name: &BackingName| {
        let name = Name::from(name);
        name == lock::META
            || name == descriptor::FILE
            || descriptor::FILE.with(".new").is_some_and(|new| name == Name::from(&new))
    };
    if raw_names(beneath::reopen_dir(root)?)?.iter().any(|name| !ours(name)) {
        return Err(VolumeError::NotEmpty);
    }
    let meta = match lock::open_meta(root) {
        Err(VolumeError::Io(Errno::NOENT | Errno::NOTDIR)) => return Ok(()),
        other => other?,
    };
    match beneath::stat(meta, DESCRIPTOR) {
        Ok(_) => Err(VolumeError::NotEmpty),
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

//! Making a vault and opening one.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustix::fs::{Mode, fdatasync, fsync, syncfs};
use rustix::io::Errno;

use super::Volume;
use crate::crypto::random;
use crate::envelope::{
    RECORD_LEN, ShownTime, TimesKey, UnverifiedVolume, VolumeDescriptor, VolumeFeatures, VolumeKeys,
};
use crate::id::{KeyId, VolumeId};
use crate::volume::access::authorizer::Authorizer;
use crate::volume::access::exposure::{self, exposure_of};
use crate::volume::backing::beneath::{self, BackingName, Name};
use crate::volume::backing::listing::raw_names;
use crate::volume::backing::root::{make_root, open_root};
use crate::volume::backing::small_blocks::small_blocks_of;
use crate::volume::backing::{lender, own_file};
use crate::volume::content::{Access, Shared};
use crate::volume::files::open_files::OpenFiles;
use crate::volume::keys::keyring::{Keyring, Purpose};
use crate::volume::keys::service::KeyService;
use crate::volume::model::clock;
use crate::volume::model::error::{Result, VolumeError};
use crate::volume::model::options::Options;
use crate::volume::namespace::descriptor::{self, Copies};
use crate::volume::namespace::dir::{Dir, Opener};
use crate::volume::namespace::dir_rules::{DirAnchor, Expected};
use crate::volume::namespace::inode::ROOT;
use crate::volume::namespace::tree::Tree;
use crate::volume::session::anchor::AnchorStore;
use crate::volume::session::journaling;
use crate::volume::session::ledger::{Found, Ledger};
use crate::volume::session::lock::{self, Session};
use crate::volume::session::times::ShownTimes;
use crate::volume::session::verdict::{Begin, Verdict};

const DESCRIPTOR: Name<'static> = Name::literal("volume");
const SPARE: Name<'static> = Name::literal("volume.bak");
const TIMES: Name<'static> = Name::literal("times");
const PRIVATE: Mode = Mode::RWXU;
/// Bytes that the list of shown times may have: two million files, each of them twice.
const TIMES_MAX: usize = 256 << 20;
/// Bytes that the list of shown times may have beyond twice its use.
const TIMES_SLACK: usize = 64 * 1024;

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
        // What is open, whatever the path led to before.
        let exposed = if options.open_vault { None } else { exposure_of(root.as_fd())? };
        let claims = read_descriptors(&open_meta(&root, path)?, path)?;
        if let Some(exposed) = exposed {
            return Err(VolumeError::OpenVault(exposed));
        }
        let volume = claims.first().map(|copy| copy.claims().volume);
        let volume = volume.ok_or_else(|| VolumeError::NotAVolume(path.into()))?;
        let keyring = Arc::new(Keyring::new(service, volume));
        let (mut descriptor, keys) = verify(&keyring, &claims)?;
        let mut session = Session::begin(&root, !options.read_only)?;
        let anchor_store =
            AnchorStore::new(volume, path, keyring.service().clone(), options.anchors.clone());
        // Once the vault is held: another session may have changed it until then.
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
        let files = OpenFiles::new(keyring.clone(), Arc::new(shared), times.clone(), access);
        let meta = rustix::io::fcntl_dupfd_cloexec(session.meta(), 0)?;
        let root_again = rustix::io::fcntl_dupfd_cloexec(&root, 0)?;
        let tree = Tree::new(root_again, meta, options.clone(), anchor)?;
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
        let copies = read_descriptors(&open_meta(&root, path)?, path)?;
        let newest = copies.first().ok_or_else(|| VolumeError::NotAVolume(path.into()))?;
        Ok(newest.claims().clone())
    }

    /// The volume descriptor as it is now.
    pub(in crate::volume) fn newest_descriptor(&self) -> Result<VolumeDescriptor> {
        let copies = read_descriptors(self.session().meta(), Path::new("."))?;
        let newest = copies.first().ok_or(VolumeError::Tampered("volume descriptor"))?;
        Ok(newest.claims().clone())
    }

    /// Wraps the volume key again, under the key that `choose` has for the present one.
    pub(in crate::volume) fn rewrap_descriptor(
        &self,
        choose: impl Fn(KeyId) -> Option<KeyId>,
    ) -> Result<()> {
        let session = self.session();
        let copies = read_descriptors(session.meta(), Path::new("."))?;
        let (mut descriptor, keys) = verify(&self.keyring, &copies)?;
        let old = &descriptor.recipient;
        let Some(to) = choose(old.key) else { return Ok(()) };
        if old.key == to && old.material == self.keyring.current_material(to)? {
            return Ok(());
        }
        descriptor.recipient = self.keyring.rewrap(old, to, Purpose::Volume)?;
        descriptor.sequence += 1;
        write_descriptor(session.meta(), &descriptor, &keys)
    }

    /// The volume has these features from here on, for good: the descriptor says so first, then what
    /// is remembered of it outside of the vault.
    ///
    /// # Errors
    /// Those of the backing filesystem and of the keystore; it can be repeated.
    pub(in crate::volume) fn add_features(&self, features: VolumeFeatures) -> Result<()> {
        let session = self.session();
        let Some(ledger) = session.ledger().cloned() else { return Ok(()) };
        let copies = read_descriptors(session.meta(), Path::new("."))?;
        let (mut descriptor, keys) = verify(&self.keyring, &copies)?;
        if !descriptor.features.has(features) {
            descriptor.features = descriptor.features.with(features);
            descriptor.sequence += 1;
            write_descriptor(session.meta(), &descriptor, &keys)?;
        }
        drop(session);
        ledger.add_features(features)
    }

    /// Appends to the saved list of shown times what came since the last call.
    ///
    /// *Crash*: an inode of which the record did not reach the disk is shown as it is there; a record
    /// of an inode that did not is about other times than it has. So it is a hint, and nothing fails
    /// because it cannot be written.
    pub(in crate::volume) fn save_times(&self) {
        if let Err(error) = self.append_times() {
            log::warn!("the list of shown times is not saved: {error}");
        }
    }

    /// The same, durably.
    pub(in crate::volume) fn sync_times(&self) -> Result<()> {
        let Some(list) = self.append_times()? else { return Ok(()) };
        Ok(fdatasync(list)?)
    }

    /// Returns the list, if it is still to be synced.
    fn append_times(&self) -> Result<Option<OwnedFd>> {
        let unsaved = self.times.take_unsaved();
        if self.options.read_only || unsaved.is_empty() {
            return Ok(None);
        }
        let meta = self.tree.meta();
        let Some(list) = own_file::to_write(meta, TIMES)? else {
            // There was none, or one that is not to be written to.
            own_file::replace(meta, TIMES, &self.times.all())?;
            return Ok(None);
        };
        // Over the rest of a record that a full disk cut short, so that records stay in step.
        let length = u64::try_from(rustix::fs::fstat(&list)?.st_size).unwrap_or(0);
        let end = length - length % ShownTime::LEN as u64;
        if is_overgrown(end, self.times.saved_len()) {
            own_file::replace(meta, TIMES, &self.times.all())?;
            return Ok(None);
        }
        rustix::io::pwrite(&list, &unsaved, end)?;
        Ok(Some(list))
    }
}

/// Begins the session: looks at what the vault and the anchor say, and, if the vault may change,
/// writes down that a session is open, after one sync of the filesystem: from here on the newest
/// copies of everything are the durable ones (R2d).
///
/// A volume from before the state record gets one. Every step can be repeated: record, anchor,
/// descriptor (which builds from before then refuse), and at last the old file goes.
fn open_session(
    session: &mut Session,
    descriptor: &mut VolumeDescriptor,
    keys: VolumeKeys,
    anchor_store: AnchorStore,
    options: &Options,
    directories: &DirAnchor,
) -> Result<(Shared, Option<(&'static str, &'static str)>)> {
    let upgrade = !descriptor.features.has(VolumeFeatures::STATE_RECORD);
    let mut random = [0; 4];
    random::fill(&mut random)?;
    let begin = Begin {
        now: clock::now_nanos(),
        random: u32::from_le_bytes(random),
        consent: options.restored,
        all_excused: options.accept_residue,
    };
    if !options.read_only {
        syncfs(session.meta())?;
    }
    let counted = if upgrade { session.counted()? } else { None };
    let mut found = Found::look(session.meta(), &keys, &anchor_store, counted, begin)?;
    if found.verdict == Verdict::Newer {
        // What was moved there, and to where, is not known here: it is learnt anew.
        directories.occupants.forget();
        found.anchor.iter_mut().for_each(|anchor| anchor.places.clear());
    }
    session.set_notice(found.notice());
    tell(descriptor.volume, &found);
    let is_lost = !upgrade && found.verdict == Verdict::Lost;
    let lost = is_lost.then_some(("state", "the record of sessions is missing or not authentic"));
    let shared = Shared::in_session(found.record.word, found.record.unrecovered.clone());
    shared.set_crashes(found.record.unrecovered.clone(), found.record.cursor);
    if options.read_only {
        return Ok((shared, lost));
    }
    let again = if upgrade {
        let changed = VolumeDescriptor {
            sequence: descriptor.sequence + 1,
            features: descriptor.features.with(VolumeFeatures::STATE_RECORD),
            ..descriptor.clone()
        };
        Some((changed.encode(&keys), changed))
    } else {
        None
    };
    let ledger =
        Arc::new(Ledger::begin(session.meta(), keys, anchor_store, found, options.unanchored)?);
    session.write_down(ledger.clone());
    if let Some((bytes, changed)) = again {
        own_file::replace(session.meta(), SPARE, &bytes)?;
        own_file::replace(session.meta(), DESCRIPTOR, &bytes)?;
        *descriptor = changed;
        log::info!("volume {} was brought up to date", descriptor.volume);
    }
    // Also if an upgrade was interrupted just before this.
    session.forget_counted()?;
    Ok((shared.announcing(ledger), lost))
}

/// Says what a person should know of what was found.
fn tell(volume: VolumeId, found: &Found) {
    if let Some(message) = found.notice() {
        log::warn!("volume {volume}: {message}");
    }
    let withheld = found.record.unrecovered.iter().filter(|crash| crash.withheld).count();
    let crashes = found.record.unrecovered.len() - withheld;
    if crashes > 0 {
        log::warn!(
            "volume {volume}: {crashes} of its sessions did not end cleanly: what was being changed is \
             looked through and mended"
        );
    }
    if withheld > 0 {
        log::warn!(
            "volume {volume}: what {withheld} of its crashed sessions left half written is refused, \
             not believed: if the vault was restored on purpose, mount it once with --restored"
        );
    }
}

/// The saved list, made shorter when most of it has been overtaken.
fn load_times(meta: &OwnedFd, key: Arc<TimesKey>, options: &Options) -> ShownTimes {
    let saved = match own_file::read(meta, TIMES, (TIMES_MAX, "list of shown times")) {
        Err(error @ VolumeError::Tampered(_)) => {
            log::warn!("{error}: it is made anew");
            None
        }
        Err(error) => {
            log::warn!("the list of shown times cannot be read: {error}");
            None
        }
        Ok(saved) => saved,
    };
    let saved = saved.unwrap_or_default();
    let times = ShownTimes::parse(&saved, key);
    let all = times.all();
    if !options.read_only
        && is_overgrown(saved.len() as u64, all.len())
        && let Err(error) = own_file::replace(meta, TIMES, &all)
    {
        log::warn!("the list of shown times is not made shorter: {error}");
    }
    times
}

/// True for a list of this length most of which has been overtaken.
fn is_overgrown(length: u64, in_use: usize) -> bool {
    length > (2 * in_use + TIMES_SLACK) as u64
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
    let opener = Opener { keyring, anchor, read_only: true };
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

/// The readable copies of the volume descriptor, newest first.
fn read_descriptors(meta: &OwnedFd, path: &Path) -> Result<Vec<UnverifiedVolume>> {
    let mut copies = Vec::new();
    let mut failure = VolumeError::NotAVolume(path.into());
    for name in [DESCRIPTOR, SPARE] {
        match own_file::read(meta, name, (RECORD_LEN, "volume descriptor")) {
            Ok(Some(bytes)) => match UnverifiedVolume::parse(&bytes) {
                Ok(copy) => copies.push(copy),
                Err(error) => failure = error.into(),
            },
            Ok(None) => {}
            // The other copy may be good.
            Err(error @ VolumeError::Tampered(_)) => failure = error,
            Err(error) => return Err(error),
        }
    }
    if copies.is_empty() {
        return Err(failure);
    }
    copies.sort_by_key(|copy| std::cmp::Reverse(copy.claims().sequence));
    Ok(copies)
}

/// Which copies of the volume descriptor are missing or not authentic. An older one is neither.
fn damaged_copies(meta: &OwnedFd, keys: &VolumeKeys) -> Result<Vec<(&'static str, &'static str)>> {
    let mut found = Vec::new();
    for (name, text) in [(DESCRIPTOR, "volume"), (SPARE, "volume.bak")] {
        let good = match own_file::read(meta, name, (RECORD_LEN, "volume descriptor")) {
            Ok(Some(bytes)) => {
                UnverifiedVolume::parse(&bytes).is_ok_and(|copy| copy.verify(keys).is_ok())
            }
            Ok(None) | Err(VolumeError::Tampered(_)) => false,
            Err(error) => return Err(error),
        };
        if !good {
            found.push((text, "a copy of the volume descriptor is missing or damaged"));
        }
    }
    Ok(found)
}

fn verify(
    keyring: &Keyring,
    copies: &[UnverifiedVolume],
) -> Result<(VolumeDescriptor, VolumeKeys)> {
    let mut failure = VolumeError::Tampered("volume descriptor");
    for copy in copies {
        match keyring.open_volume(copy.claims()) {
            Ok(keys) => match copy.verify(&keys) {
                Ok(descriptor) => return Ok((descriptor, keys)),
                Err(error) => failure = error.into(),
            },
            Err(error @ VolumeError::Tampered(_)) => failure = error,
            Err(error) => return Err(error),
        }
    }
    Err(failure)
}

fn write_descriptor(
    meta: &OwnedFd,
    descriptor: &VolumeDescriptor,
    keys: &VolumeKeys,
) -> Result<()> {
    let bytes = descriptor.encode(keys);
    own_file::replace(meta, SPARE, &bytes)?;
    Ok(own_file::replace(meta, DESCRIPTOR, &bytes)?)
}

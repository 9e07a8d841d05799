//! The keystore as a file: made whole or not at all, private, and never over another file.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with, statfs};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::crypto::random;
use crate::keystore::error::KeystoreError;
use crate::keystore::storage::companions::{check_none_left, set_aside};
use crate::keystore::storage::database::Sharing;
use crate::keystore::storage::directory::{parent, sync_parent};

/// A new file that is not yet visible under its name. Vanishes unless it is published.
pub(in crate::keystore) struct Draft {
    temporary: PathBuf,
    target: PathBuf,
    /// The file that was made: whoever may write to the directory may give its name to another.
    file: File,
    /// No other process makes the same file before this one is published.
    _alone: Option<File>,
}

impl Draft {
    /// As [`Draft::beside`]; missing directories are made with mode 0700.
    /// Errors: as there.
    pub(in crate::keystore) fn begin(target: &Path) -> Result<Self, KeystoreError> {
        if fs::symlink_metadata(target).is_ok() {
            return Err(KeystoreError::Exists(target.to_owned()));
        }
        let dir = parent(target);
        make_dirs(dir).map_err(|error| io_error(dir, "create the directory", error))?;
        Self::beside(target)
    }

    /// As [`Draft::begin`], for a keystore. What another one has left beside the name is no part of
    /// the new one, and may be the newest there is of the other.
    /// Errors: as there; `Leftover`.
    pub(in crate::keystore) fn keystore(target: &Path) -> Result<Self, KeystoreError> {
        check_none_left(target)?;
        Self::begin(target)
    }

    /// As [`Draft::beside`], for an audit log, which goes on whatever happened to the one before it.
    /// It belongs to whom the keystore belongs, also if root is the first to need it.
    /// Errors: as there.
    pub(in crate::keystore) fn audit_log(target: &Path) -> Result<Self, KeystoreError> {
        // Its name is the keystore's, with `.audit` added.
        let mut draft = Self::make(target, Some(&target.with_extension("")))?;
        // What lies beside the name may be another process's, which has just made the file.
        draft._alone = alone_in(parent(target));
        set_aside(target, &mark()?)?;
        Ok(draft)
    }

    /// An empty file of mode 0600 in the directory of `target`.
    /// Errors: `Exists` if `target` does; `Io`.
    pub(in crate::keystore) fn beside(target: &Path) -> Result<Self, KeystoreError> {
        Self::make(target, None)
    }

    fn make(target: &Path, owned_like: Option<&Path>) -> Result<Self, KeystoreError> {
        if fs::symlink_metadata(target).is_ok() {
            return Err(KeystoreError::Exists(target.to_owned()));
        }
        let dir = parent(target);
        let temporary = dir.join(format!(".kmsfs.tmp.{}", mark()?));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(|error| io_error(target, "create", error))?;
        if let Some(model) = owned_like {
            give(&file, model);
        }
        Ok(Self { temporary, target: target.to_owned(), file, _alone: None })
    }

    /// Writes into the file that was made.
    /// Errors: those of `write(2)`.
    pub(in crate::keystore) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    /// Where SQLite writes, which takes names only.
    pub(in crate::keystore) fn path(&self) -> &Path {
        &self.temporary
    }

    /// A failure at the file without a name, told about the one that it was to become.
    pub(in crate::keystore) fn about_target(&self, error: KeystoreError) -> KeystoreError {
        let path = self.target.clone();
        match error {
            KeystoreError::Database { detail, .. } => KeystoreError::Database { path, detail },
            KeystoreError::NoRoom { detail, .. } => KeystoreError::NoRoom { path, detail },
            KeystoreError::Io { doing, source, .. } => KeystoreError::Io { path, doing, source },
            other => other,
        }
    }

    /// Makes the file durable, then gives it its name, then makes the name durable.
    /// Errors: `Exists` if somebody took the name meanwhile; `Io`, which says so if the file is there, or if
    /// another one is.
    pub(in crate::keystore) fn publish(self) -> Result<(), KeystoreError> {
        let failed = |error| io_error(&self.target, "create", error);
        self.file.sync_all().map_err(failed)?;
        match self.rename() {
            Err(Errno::EXIST) => return Err(KeystoreError::Exists(self.target.clone())),
            renamed => renamed.map_err(|errno| failed(errno.into()))?,
        }
        self.check_published().map_err(failed)?;
        sync_parent(&self.target).map_err(|error| {
            // It stays: somebody else may have taken it for good already.
            io_error(&self.target, "finish", not_durable(&error))
        })
    }

    /// Errors: if the name leads to another file than the one that was made.
    fn check_published(&self) -> io::Result<()> {
        let (there, made) = (fs::symlink_metadata(&self.target)?, self.file.metadata()?);
        match (there.dev(), there.ino()) == (made.dev(), made.ino()) {
            true => Ok(()),
            false => Err(io::Error::other("somebody else has put another file in its place")),
        }
    }

    fn rename(&self) -> Result<(), Errno> {
        let flags = RenameFlags::NOREPLACE;
        match renameat_with(CWD, &self.temporary, CWD, &self.target, flags) {
            // Some filesystems cannot: a hard link does not replace either. The drop removes
            // the other name.
            Err(Errno::INVAL | Errno::NOSYS) => rustix::fs::link(&self.temporary, &self.target),
            done => done,
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let mut name = self.temporary.clone().into_os_string();
            name.push(suffix);
            // Whatever cannot be removed, or was renamed, is not there or is garbage.
            fs::remove_file(name).ok();
        }
    }
}

/// Why a file that has its name is not finished.
fn not_durable(error: &io::Error) -> io::Error {
    io::Error::other(format!(
        "it is made, but its directory cannot be synced, and a power cut may take it away: {error}"
    ))
}

/// Locks a directory for as long as the file is open. Somebody who has it locked for long has other
/// reasons, and is not waited for.
fn alone_in(dir: &Path) -> Option<File> {
    let dir = File::open(dir).ok()?;
    for _ in 0..LOCK_TRIES {
        if flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return Some(dir);
        }
        thread::sleep(LOCK_PAUSE);
    }
    None
}

/// Gives a file that root has made to the owner of `model`. By its descriptor: who owns the directory
/// may have put another under its name.
fn give(file: &File, model: &Path) {
    let Ok(owner) = fs::metadata(model) else { return };
    if !geteuid().is_root() || owner.uid() == 0 {
        return;
    }
    if let Err(error) = fchown(file, Some(owner.uid()), Some(owner.gid())) {
        log::warn!("a file beside '{}' stays root's: {error}", model.display());
    }
}

/// Tells root of an audit log that shuts out the owner of its keystore. To give it away by its name would
/// be to trust the owner of the directory with what has that name.
pub(in crate::keystore) fn warn_if_roots(log: &Path) {
    let owner = |path: &Path| fs::metadata(path).map(|there| there.uid());
    let keystore = log.with_extension("");
    if let (true, Ok(0), Ok(user @ 1..)) = (geteuid().is_root(), owner(log), owner(&keystore)) {
        let (log, keystore) = (log.display(), keystore.display());
        log::warn!(
            "the audit log '{log}' is root's, and user {user}, whose keystore it is, cannot write it: \
             chown --reference='{keystore}' '{log}'"
        );
    }
}

/// A name that nobody has.
fn mark() -> Result<String, KeystoreError> {
    Ok(base16ct::lower::encode_string(&random::id16()?))
}

/// Makes a directory and those above it that are missing, each durable before something is put
/// into it: a keystore must not vanish in a power cut that its files survive.
fn make_dirs(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    make_dirs(parent(dir))?;
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
        made => made?,
    }
    sync_parent(dir)
}

/// The file that a name leads to through symbolic links. The name itself if there is none: whoever
/// looks for it says so.
pub(in crate::keystore) fn real(name: &Path) -> PathBuf {
    name.canonicalize().unwrap_or_else(|_| name.to_owned())
}

/// Checks that there is a file, without opening it: closing it would drop the locks that SQLite
/// holds for another handle of this process (POSIX locks belong to the process).
/// Errors: `Missing`, `NotAKeystore`, `Io`.
pub(in crate::keystore) fn inspect(path: &Path) -> Result<(), KeystoreError> {
    if look(path)?.is_file() { Ok(()) } else { Err(KeystoreError::NotAKeystore(path.to_owned())) }
}

/// One file of this machine, whatever its name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::keystore) struct Identity {
    device: u64,
    inode: u64,
}

/// The file that has this name now.
/// Errors: `Missing`, `Io`.
pub(in crate::keystore) fn identity(path: &Path) -> Result<Identity, KeystoreError> {
    let metadata = look(path)?;
    Ok(Identity { device: metadata.dev(), inode: metadata.ino() })
}

fn look(path: &Path) -> Result<fs::Metadata, KeystoreError> {
    fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => KeystoreError::Missing(path.to_owned()),
        _ => io_error(path, "examine", error),
    })
}

/// Takes a keystore back from other users. Only for a file that this process has open, and that is
/// known to be one: who owns the directory may have put another under its name since.
/// Errors: `Io`.
pub(in crate::keystore) fn make_private(path: &Path) -> Result<(), KeystoreError> {
    let failed = |error| io_error(path, "make private (mode 0600)", error);
    let found = look(path)?;
    if found.mode() & 0o077 == 0 {
        return Ok(());
    }
    let is_it = |open: &PathBuf| {
        let same = |open: fs::Metadata| (open.dev(), open.ino()) == (found.dev(), found.ino());
        fs::metadata(open).is_ok_and(same)
    };
    let mut open = fs::read_dir("/proc/self/fd").map_err(failed)?.flatten().map(|fd| fd.path());
    // Such a path leads to what is open. To open it anew, and close it, would end the locks of SQLite.
    let open = open.find(is_it).ok_or_else(|| {
        failed(io::Error::other("another file has its name than the one that was opened"))
    })?;
    fs::set_permissions(open, Permissions::from_mode(0o600)).map_err(failed)?;
    log::warn!("the keystore was open to other users: its mode is now 0600");
    Ok(())
}

/// Who may have the file open with us. On a network filesystem the shared memory of SQLite's WAL
/// cannot keep two machines apart, a lock on the file can.
/// Errors: `Io`.
pub(in crate::keystore) fn sharing(path: &Path) -> Result<Sharing, KeystoreError> {
    let filesystem = statfs(path);
    let kind = filesystem.map_err(|errno| io_error(path, "examine", errno.into()))?.f_type;
    Ok(if is_network(kind) { Sharing::Alone } else { Sharing::Processes })
}

pub(in crate::keystore) fn io_error(
    path: &Path,
    doing: &'static str,
    source: io::Error,
) -> KeystoreError {
    KeystoreError::Io { path: path.to_owned(), doing, source }
}

/// Filesystem magic numbers of `statfs(2)`: NFS, SMB, SMB2, CIFS, Ceph, AFS, 9P, Lustre, GFS2,
/// OCFS2.
fn is_network(kind: rustix::fs::FsWord) -> bool {
    const NETWORK: [u64; 10] = [
        0x6969,
        0x517b,
        0xfe53_4d42,
        0xff53_4d42,
        0x00c3_6400,
        0x5346_414f,
        0x0102_1997,
        0x0bd0_0bd0,
        0x0116_1970,
        0x7461_636f,
    ];
    // The word is signed on some machines; the numbers have 32 bits.
    u64::try_from(kind & 0xffff_ffff).is_ok_and(|kind| NETWORK.contains(&kind))
}

/// A log is made in milliseconds.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    /// It was changed by its name: what its directory's owner had put there since lost its mode.
    #[test]
    fn regression_only_the_file_that_is_open_is_made_private() {
        let dir = std::env::temp_dir().join(format!("kmsfs-private-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let (name, victim) = (dir.join("keystore.db"), dir.join("victim"));
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        for path in [&name, &victim] {
            fs::write(path, "").unwrap();
            fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
        }
        let open = File::open(&name).unwrap();
        fs::rename(&name, dir.join("aside")).unwrap();
        std::os::unix::fs::symlink(&victim, &name).unwrap();
        make_private(&name).unwrap_err();
        assert_eq!((mode(&victim), mode(&dir.join("aside"))), (0o644, 0o644));
        fs::rename(dir.join("aside"), &name).unwrap();
        make_private(&name).unwrap();
        assert_eq!((mode(&name), open.metadata().unwrap().mode() & 0o777), (0o600, 0o600));
        fs::remove_dir_all(dir).unwrap();
    }

    /// What was written went into whatever had the name by then, and was published: a key file that
    /// somebody else owns, and reads.
    #[test]
    fn regression_a_file_in_the_place_of_a_draft_gets_nothing_and_is_not_taken_for_it() {
        let dir = std::env::temp_dir().join(format!("kmsfs-draft-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let target = dir.join("key");
        let mut draft = Draft::beside(&target).unwrap();
        let place = draft.path().to_owned();
        fs::rename(&place, dir.join("aside")).unwrap();
        fs::write(&place, "theirs").unwrap();
        draft.write(b"secret").unwrap();
        let refused = draft.publish().unwrap_err().to_string();
        assert!(refused.contains("somebody else has put another file"), "{refused}");
        assert_eq!(fs::read(&target).unwrap(), b"theirs");
        assert_eq!(fs::read(dir.join("aside")).unwrap(), b"secret");
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn network_filesystems_are_told_from_local_ones() {
        assert!(is_network(0x6969));
        assert!(!is_network(0xef53), "ext4");
        assert!(!is_network(0x5846_5342), "xfs");
        assert!(!is_network(0x0102_1994), "tmpfs");
    }
}

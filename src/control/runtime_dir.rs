//! The directory of the sockets of daemons.
//!
//! Its path follows from what the kernel says: the user, and the device and inode of the vault's
//! directory. Nothing in the vault is asked, so whoever writes to the vault leads nobody elsewhere.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::process::{Uid, geteuid};

use crate::id::VolumeId;

/// The directory of a vault, as the kernel knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VaultDir {
    device: u64,
    inode: u64,
    owner: Uid,
}

impl VaultDir {
    /// The vault that is open as `root`.
    ///
    /// # Errors
    /// Those of `fstat(2)`.
    pub fn of(root: impl AsFd) -> io::Result<Self> {
        let stat = rustix::fs::fstat(root)?;
        let owner = Uid::from_raw(stat.st_uid);
        Ok(Self { device: stat.st_dev, inode: stat.st_ino, owner })
    }

    /// The device and the number of the directory.
    pub fn numbers(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// The user whom the directory belongs to.
    pub fn owner(&self) -> u32 {
        self.owner.as_raw()
    }

    /// Whose daemons this process asks about the vault: its own user's, and, as root, those of the
    /// user whom the vault belongs to.
    pub(super) fn users(&self) -> Vec<Uid> {
        let own = geteuid();
        if own.is_root() && !self.owner.is_root() { vec![own, self.owner] } else { vec![own] }
    }

    /// The name of the socket.
    pub(super) fn socket(&self) -> String {
        format!("{self}.sock")
    }
}

impl fmt::Display for VaultDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.device, self.inode)
    }
}

/// The directory for the sockets and logs of this user's daemons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeDir(PathBuf);

impl RuntimeDir {
    /// Finds the directory and makes it if needed, mode 0700.
    ///
    /// Errors: permission denied when somebody else owns it or could write into it.
    pub fn open() -> io::Result<Self> {
        let user = geteuid();
        let mut failure = None;
        for path in candidates(user) {
            match prepare(&path, user) {
                Ok(()) => return Ok(Self(path)),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The socket of the daemon of a vault.
    pub fn socket(&self, vault: VaultDir) -> PathBuf {
        self.0.join(vault.socket())
    }

    /// The log of a daemon that finds no syslog.
    pub fn log_path(&self, volume: VolumeId) -> PathBuf {
        self.0.join(format!("{volume}.log"))
    }
}

/// The directories where the daemons of a user may have their sockets, the usual one first. A command
/// and a daemon with other variables have most of them in common.
pub(super) fn candidates(user: Uid) -> Vec<PathBuf> {
    let of = |name| std::env::var_os(name).map(PathBuf::from);
    if user != geteuid() {
        return choose(user, None, home_of(user).map(|home| home.join(STATE)));
    }
    let home = of("HOME").or_else(|| home_of(user)).map(|home| home.join(STATE));
    choose(user, of("XDG_RUNTIME_DIR"), of("XDG_STATE_HOME").into_iter().chain(home))
}

/// The home of a user of this machine.
fn home_of(user: Uid) -> Option<PathBuf> {
    let users = std::fs::read("/etc/passwd").ok()?;
    users.split(|byte| *byte == b'\n').find_map(|line| home_in(line, user))
}

/// Source: passwd(5).
fn home_in(line: &[u8], user: Uid) -> Option<PathBuf> {
    let mut fields = line.split(|byte| *byte == b':');
    let number = std::str::from_utf8(fields.nth(2)?).ok()?;
    let home = fields.nth(2).filter(|home| !home.is_empty())?;
    let is_it = number.parse() == Ok(user.as_raw());
    is_it.then(|| PathBuf::from(OsStr::from_bytes(home)))
}

fn choose(
    user: Uid,
    runtime: Option<PathBuf>,
    state: impl IntoIterator<Item = PathBuf>,
) -> Vec<PathBuf> {
    if user.is_root() {
        return vec!["/run/kmsfs".into()];
    }
    let usual = PathBuf::from(format!("/run/user/{}", user.as_raw()));
    let fits = |path: &PathBuf| path.is_absolute() && path.as_os_str().len() <= LONGEST;
    let mut found: Vec<PathBuf> = [runtime, Some(usual)]
        .into_iter()
        .flatten()
        // Before what everybody can take: somebody else's directory in /tmp would silence the mount.
        .chain(state)
        .filter(fits)
        .map(|p| p.join("kmsfs"))
        .collect();
    found.push(format!("/tmp/kmsfs-{}", user.as_raw()).into());
    found.dedup();
    found
}

fn prepare(path: &Path, user: Uid) -> io::Result<()> {
    // Above the other candidates nothing is made.
    let of_state = path.parent().is_some_and(|above| above.ends_with(STATE));
    let made = std::fs::DirBuilder::new().mode(0o700).recursive(of_state).create(path);
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made?,
    }
    let meta = std::fs::symlink_metadata(path)?;
    check(path, meta.is_dir(), (meta.uid(), meta.mode()), user)
}

/// `/tmp` is everybody's: a directory prepared by somebody else would own our socket.
///
/// # Errors
/// Permission denied.
pub(super) fn check(
    path: &Path,
    is_dir: bool,
    (owner, mode): (u32, u32),
    user: Uid,
) -> io::Result<()> {
    if is_dir && owner == user.as_raw() && mode & 0o022 == 0 {
        return Ok(());
    }
    let user = user.as_raw();
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("{} is not a directory of user {user} alone: remove it", path.display()),
    ))
}

/// A socket address holds 108 bytes; "/kmsfs/", two numbers and ".sock" need 46 of them.
const LONGEST: usize = 59;

/// The state of a user's programs, in the home directory.
const STATE: &str = ".local/state";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_has_its_own_directory_whatever_the_environment_says() {
        let candidates =
            choose(Uid::ROOT, Some("/home/x".into()), [PathBuf::from("/root/.local/state")]);
        assert_eq!(candidates, [Path::new("/run/kmsfs")]);
    }

    #[test]
    fn a_runtime_directory_that_is_relative_or_too_long_is_not_used() {
        let usual = [Path::new("/run/user/7/kmsfs"), Path::new("/tmp/kmsfs-7")];
        let user = Uid::from_raw(7);
        let choose = |runtime| choose(user, runtime, None);
        assert_eq!(choose(None), usual);
        assert_eq!(choose(Some("x".into())), usual);
        assert_eq!(choose(Some(format!("/{}", "x".repeat(60)).into())), usual);
        assert_eq!(choose(Some("/run/user/7".into())), usual);
        assert_eq!(choose(Some("/run/x".into()))[0], Path::new("/run/x/kmsfs"));
    }

    /// Without a runtime directory the first candidate was in /tmp, which another user could take:
    /// no control socket then, and no log.
    #[test]
    fn regression_a_directory_of_ones_own_comes_before_one_that_anybody_can_take() {
        let (user, run) = (Uid::from_raw(7), Path::new("/run/user/7/kmsfs"));
        let with = |state: &[&str]| choose(user, None, state.iter().map(PathBuf::from));
        let (given, usual) = ("/s", "/home/u/.local/state");
        let tmp = Path::new("/tmp/kmsfs-7");
        let (own, home) = (Path::new("/s/kmsfs"), Path::new("/home/u/.local/state/kmsfs"));
        assert_eq!(with(&[given, usual]), [run, own, home, tmp]);
        assert_eq!(with(&[usual]), [run, home, tmp]);
        assert_eq!(with(&[&format!("/{}", "x".repeat(60)), "relative"]), [run, tmp]);
    }

    #[test]
    fn the_home_of_another_user_is_in_the_list_of_users() {
        let line = b"anna:x:1000:100:Anna,,,:/home/anna:/bin/sh";
        assert_eq!(home_in(line, Uid::from_raw(1000)), Some("/home/anna".into()));
        for other in [&b"anna:x:1001:100::/home/anna:/bin/sh"[..], b"anna:x:1000", b""] {
            assert_eq!(home_in(other, Uid::from_raw(1000)), None);
        }
        assert_eq!(home_of(Uid::ROOT), Some("/root".into()));
    }

    #[test]
    fn a_directory_among_the_users_state_is_made_with_what_is_missing_above_it() {
        let home = std::env::temp_dir().join(format!("kmsfs-{}-home", std::process::id()));
        std::fs::create_dir(&home).unwrap();
        let path = home.join(STATE).join("kmsfs");
        prepare(&path, geteuid()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        assert!(prepare(&home.join("run/kmsfs"), geteuid()).is_err());
        std::fs::remove_dir_all(&home).unwrap();
    }

    #[test]
    fn a_directory_that_others_may_write_or_own_is_refused() {
        let path = Path::new("/tmp/x");
        let user = Uid::from_raw(7);
        assert!(check(path, true, (7, 0o40700), user).is_ok());
        assert!(check(path, true, (7, 0o40770), user).is_err());
        assert!(check(path, true, (8, 0o40700), user).is_err());
        assert!(check(path, false, (7, 0o100700), user).is_err());
        assert!(prepare(Path::new("/tmp"), geteuid()).is_err());
    }
}

//! Where the sockets of daemons are.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::id::VolumeId;

/// The directory for the sockets and logs of this user's daemons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeDir(PathBuf);

impl RuntimeDir {
    /// Finds the directory and makes it if needed, mode 0700.
    ///
    /// Errors: permission denied when somebody else owns it or could write into it.
    pub fn open() -> io::Result<Self> {
        let uid = rustix::process::geteuid().as_raw();
        let path = choose(uid, std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from));
        match std::fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
        check(&path, uid)?;
        Ok(Self(path))
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The log of a daemon that finds no syslog.
    pub fn log_path(&self, volume: VolumeId) -> PathBuf {
        self.0.join(format!("{volume}.log"))
    }
}

/// The socket of the daemon of a volume.
pub fn socket_path(dir: &RuntimeDir, volume: VolumeId) -> PathBuf {
    dir.0.join(format!("{volume}.sock"))
}

fn choose(uid: u32, runtime: Option<PathBuf>) -> PathBuf {
    let fallback = || PathBuf::from(format!("/tmp/kmsfs-{uid}"));
    match runtime {
        _ if uid == 0 => PathBuf::from("/run/kmsfs"),
        Some(path) if path.is_absolute() && path.as_os_str().len() <= LONGEST && path.is_dir() => {
            path.join("kmsfs")
        }
        _ => fallback(),
    }
}

/// /tmp is everybody's: a directory prepared by somebody else would own our socket.
fn check(path: &Path, uid: u32) -> io::Result<()> {
    let meta = std::fs::symlink_metadata(path)?;
    if meta.is_dir() && meta.uid() == uid && meta.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        "not a directory of this user alone: remove it",
    ))
}

/// A socket address holds 108 bytes; "/kmsfs/", the id and ".sock" need 48 of them.
const LONGEST: usize = 59;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_has_its_own_place_whatever_the_environment_says() {
        assert_eq!(choose(0, Some("/home/x".into())), Path::new("/run/kmsfs"));
    }

    #[test]
    fn a_runtime_directory_that_is_missing_or_too_long_is_not_used() {
        assert_eq!(choose(7, None), Path::new("/tmp/kmsfs-7"));
        assert_eq!(choose(7, Some("/nowhere/at/all".into())), Path::new("/tmp/kmsfs-7"));
        assert_eq!(choose(7, Some("/tmp".into())), Path::new("/tmp/kmsfs"));
    }

    #[test]
    fn a_directory_that_others_may_write_is_refused() {
        let uid = rustix::process::geteuid().as_raw();
        assert!(check(Path::new("/tmp"), uid).is_err());
    }
}

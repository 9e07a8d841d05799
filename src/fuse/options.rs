//! What a mount can be asked for, and how fuser is told.

use std::path::Path;
use std::time::Duration;

use fuser::{Config, MountOption, SessionACL};

/// How long the kernel may keep names and attributes: this process is the only one that changes
/// them, and tells the kernel when it does so by itself.
const LONG: Duration = Duration::from_secs(3600);
/// What the mount table shows after `fuse.`.
const SUBTYPE: &str = "subtype=kmsfs";
const THREADS: usize = 4;

/// How to mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOptions {
    /// Nothing may be changed.
    pub read_only: bool,
    /// Other users may enter.
    pub allow_other: bool,
    /// Set-user-id programs and file capabilities are honoured.
    pub suid: bool,
    /// Device nodes work.
    pub dev: bool,
    /// Programs may be run.
    pub exec: bool,
    /// Access times are kept.
    pub atime: bool,
    /// Every change is written at once.
    pub sync: bool,
    /// Every change of a directory is written at once.
    pub dirsync: bool,
    /// Someone else may change the vault while it is mounted: the kernel keeps nothing.
    pub shared: bool,
    /// Requests worked on at the same time.
    pub threads: usize,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            read_only: false,
            allow_other: false,
            suid: false,
            dev: false,
            exec: true,
            atime: true,
            sync: false,
            dirsync: false,
            shared: false,
            threads: THREADS,
        }
    }
}

impl MountOptions {
    /// How long the kernel may keep what it was told.
    pub(super) fn time_to_live(&self) -> Duration {
        if self.shared { Duration::ZERO } else { LONG }
    }

    /// fuser's configuration for the vault `source`.
    pub(super) fn config(&self, source: &Path) -> Config {
        let pick = |on: bool, yes: MountOption, no: MountOption| if on { yes } else { no };
        let mut options = vec![
            MountOption::FSName(fs_name(source)),
            MountOption::CUSTOM(SUBTYPE.to_owned()),
            MountOption::DefaultPermissions,
            pick(self.read_only, MountOption::RO, MountOption::RW),
            pick(self.suid, MountOption::Suid, MountOption::NoSuid),
            pick(self.dev, MountOption::Dev, MountOption::NoDev),
            pick(self.exec, MountOption::Exec, MountOption::NoExec),
            pick(self.atime, MountOption::Atime, MountOption::NoAtime),
        ];
        if self.sync {
            options.push(MountOption::Sync);
        }
        if self.dirsync {
            options.push(MountOption::DirSync);
        }
        let mut config = Config::default();
        config.mount_options = options;
        config.acl = if self.allow_other { SessionACL::All } else { SessionACL::Owner };
        config.n_threads = Some(self.threads.max(1));
        config.clone_fd = true;
        config
    }
}

/// The source that the mount table shows. Where it goes through the mount helper, a comma in it
/// would start another option.
fn fs_name(source: &Path) -> String {
    let name = source.to_string_lossy();
    if rustix::process::geteuid().is_root() {
        name.into_owned()
    } else {
        name.replace('\\', "\\\\").replace(',', "\\,")
    }
}

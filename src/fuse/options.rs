//! What a mount can be asked for, and how fuser is told.

use std::time::Duration;

use fuser::{Config, InitFlags, SessionACL};

use super::request::Permissions;

/// How long the kernel may keep names and attributes: this process is the only one that changes
/// them, and tells the kernel when it does so by itself.
const LONG: Duration = Duration::from_secs(3600);
/// The same in a vault that others may enter: what they do there behind our back is seen soon.
const SHORT: Duration = Duration::from_secs(1);
const THREADS: usize = 4;

/// How to mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOptions {
    /// Nothing may be changed.
    pub read_only: bool,
    /// Other users may enter.
    pub allow_other: bool,
    /// The kernel checks owners, modes and ACLs. If not, whoever may enter may do what root may.
    pub default_permissions: bool,
    /// There are extended attributes. If not, the kernel stops asking for them.
    pub xattrs: bool,
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
    /// Symbolic links are not followed.
    pub nosymfollow: bool,
    /// Someone else may change the vault while it is mounted: the kernel keeps nothing.
    pub shared: bool,
    /// Other users may enter the vault's own directory.
    pub open_vault: bool,
    /// File handles are given out, and lead to inodes that the kernel has forgotten.
    pub export: bool,
    /// Requests worked on at the same time.
    pub threads: usize,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            read_only: false,
            allow_other: false,
            default_permissions: true,
            xattrs: true,
            suid: false,
            dev: false,
            exec: true,
            atime: true,
            sync: false,
            dirsync: false,
            nosymfollow: false,
            shared: false,
            open_vault: false,
            export: false,
            threads: THREADS,
        }
    }
}

impl MountOptions {
    /// How long the kernel may keep what it was told.
    pub(super) fn time_to_live(&self) -> Duration {
        match self {
            Self { shared: true, .. } => Duration::ZERO,
            Self { open_vault: true, .. } => SHORT,
            _ => LONG,
        }
    }

    /// True if the kernel may keep what directories list.
    pub(super) fn keeps_listings(&self) -> bool {
        self.time_to_live() == LONG
    }

    /// Whether the kernel may give out file handles.
    pub(super) fn handles(&self) -> InitFlags {
        match self.export {
            true => InitFlags::FUSE_EXPORT_SUPPORT,
            false => InitFlags::FUSE_NO_EXPORT_SUPPORT,
        }
    }

    /// Who checks owners, modes and ACLs.
    pub(super) fn permissions(&self) -> Permissions {
        if self.default_permissions { Permissions::Kernel } else { Permissions::Nobody }
    }

    /// fuser's configuration for a connection that is there.
    pub(super) fn config(&self) -> Config {
        let mut config = Config::default();
        config.acl = self.acl();
        config.n_threads = Some(self.threads.max(1));
        config.clone_fd = true;
        config
    }

    /// Whose requests are answered.
    pub(super) fn acl(&self) -> SessionACL {
        if self.allow_other { SessionACL::All } else { SessionACL::Owner }
    }
}

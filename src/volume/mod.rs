//! Rank 2: a mounted tree without a kernel.
//!
//! [`Volume`] is the one thing that the layers above call. Its parts: the namespace (inodes,
//! directories, names, attributes), the open files with their contents, the keyring, and the
//! session that holds the vault. Background threads sync what stays dirty, seal what is closed, and
//! watch the keystore (`upkeep`, `revoke`).

mod adopt;
mod answers;
pub mod attr;
pub mod backing;
mod beneath;
mod blocks;
mod check;
mod check_copies;
mod clock;
pub mod content;
mod create;
mod cross;
mod descent;
mod dir;
mod dir_cache;
mod dir_locks;
mod dir_rules;
mod embedded;
mod error;
mod errseq;
mod exposure;
mod file_key;
mod gate;
mod handle;
mod identity;
mod inode;
mod io;
pub mod journal;
mod journaling;
mod key_service;
mod keyring;
mod ledger;
mod lender;
mod links;
mod lookup;
mod moves;
mod names;
mod occupants;
mod open;
mod open_file;
mod own_file;
mod place;
mod placing;
mod policy;
mod privilege;
mod readdir;
mod recovery;
mod references;
pub mod remote;
mod remove;
mod rename;
mod renames;
mod revoke;
mod rewrap;
mod session;
mod setattr;
mod setup;
mod sidecars;
mod sync;
mod times;
mod told_size;
mod tree;
mod twins;
mod unsynced;
mod upkeep;
mod user;
mod walk;
mod xattr;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use adopt::Adoption;
pub use blocks::{SmallBlocks, small_blocks};
pub use check::{CheckReport, Problem, Repair};
pub use clock::ctime;
pub use create::NewNode;
pub use dir_rules::Misplaced;
pub use embedded::LocalKeys;
pub use error::{Result, VolumeError};
pub use errseq::{Heard, WriteErrors};
pub use exposure::{Exposure, exposure};
pub use file_key::FilePolicy;
pub use inode::ROOT;
pub use io::Allocate;
pub use journaling::PageJournaling;
pub use key_service::{KeyHealth, KeyService};
pub use keyring::Keyring;
pub use open::{FileHandle, OpenFor, Opened};
pub use open_file::{File, OpenFiles, Origin};
pub use privilege::Privileges;
pub use readdir::{Detail, DirEntry, DirStream, Sink};
pub use recovery::RecoveryReport;
pub use references::{Needed, References};
pub use rename::RenameHow;
pub use rewrap::{RewrapJob, RewrapReport, Strangers};
pub use session::{Session, is_free};
pub use setup::{Options, open_root};
pub use tree::{Caller, Space};
pub use upkeep::{Ended, Upkeep};
pub use xattr::SetMode;

use crate::envelope::VolumeDescriptor;
use crate::id::VolumeId;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use times::ShownTimes;
use tree::Tree;

/// What the kernel keeps of a volume, as far as the volume must be able to take it back (R12).
///
/// Called from threads of the volume's own, never from within a request.
pub trait KernelCache: Send + Sync {
    /// Writes the inode's dirty pages back to us and drops all its pages and attributes.
    fn invalidate_inode(&self, ino: u64);

    /// Drops the inode's attributes alone.
    fn invalidate_attributes(&self, ino: u64);
}

/// A vault that is open: everything that a mount does, without a kernel.
pub struct Volume {
    root: OwnedFd,
    tree: Tree,
    descriptor: VolumeDescriptor,
    options: Options,
    keyring: Arc<Keyring>,
    gate: Arc<gate::Gate>,
    files: Arc<OpenFiles>,
    times: Arc<ShownTimes>,
    session: Mutex<Session>,
    kernel: Mutex<Option<Arc<dyn KernelCache>>>,
    /// What was wrong with the vault's own files when it was opened: their names, and what.
    found: Vec<(&'static str, &'static str)>,
    /// Page journals that nobody needed.
    strays: Vec<beneath::BackingName>,
}

impl std::fmt::Debug for Volume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Volume").field("id", &self.descriptor.volume).finish_non_exhaustive()
    }
}

impl Volume {
    /// The volume's id.
    pub fn id(&self) -> VolumeId {
        self.descriptor.volume
    }

    /// The keys of the volume.
    pub fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    /// The open files.
    pub fn files(&self) -> &Arc<OpenFiles> {
        &self.files
    }

    /// Tells the volume whom to ask when cached pages must go.
    pub fn attach_kernel(&self, kernel: Arc<dyn KernelCache>) {
        *self.kernel.lock().unwrap_or_else(PoisonError::into_inner) = Some(kernel);
    }

    /// True if a crash may have left a wrong size for a file with this backing ctime: the size to
    /// show is the one that opening the file finds (R5).
    pub fn size_is_suspect(&self, backing_ctime: i64) -> bool {
        self.files.shared().is_suspect(backing_ctime)
    }

    /// The directory of the vault.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! The struct that owns the state of an open vault.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::envelope::VolumeDescriptor;
use crate::id::VolumeId;
use crate::volume::access::authorizer::Authorizer;
use crate::volume::backing::beneath::BackingName;
use crate::volume::files::open_files::OpenFiles;
use crate::volume::keys::keyring::Keyring;
use crate::volume::model::error::Result;
use crate::volume::model::options::Options;
use crate::volume::namespace::tree::{Space, Tree};
use crate::volume::session::lock::Session;
use crate::volume::session::times::ShownTimes;

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
    pub(in crate::volume) root: OwnedFd,
    pub(in crate::volume) tree: Tree,
    pub(in crate::volume) descriptor: VolumeDescriptor,
    pub(in crate::volume) options: Options,
    pub(in crate::volume) keyring: Arc<Keyring>,
    pub(in crate::volume) authorizer: Arc<Authorizer>,
    pub(in crate::volume) files: Arc<OpenFiles>,
    pub(in crate::volume) times: Arc<ShownTimes>,
    pub(in crate::volume) session: Mutex<Session>,
    pub(in crate::volume) kernel: Mutex<Option<Arc<dyn KernelCache>>>,
    /// Held for a batch of a re-wrap, from its first header to its last scrubbed slot. Whoever else wrote
    /// headers by itself meanwhile would move times of which no plan is durable. Before all other locks.
    pub(in crate::volume) rewraps: Mutex<()>,
    /// What was wrong with the vault's own files when it was opened: their names, and what.
    pub(in crate::volume) found: Vec<(&'static str, &'static str)>,
    /// Page journals that nobody needed.
    pub(in crate::volume) strays: Vec<BackingName>,
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
        *self.kernel.lock() = Some(kernel);
    }

    /// Makes the kernel drop what it keeps of some inodes. Locks: none may be held.
    pub(in crate::volume) fn invalidate(&self, inodes: impl IntoIterator<Item = u64>) {
        let Some(kernel) = self.kernel() else { return };
        for ino in inodes {
            kernel.invalidate_inode(ino);
        }
    }

    pub(in crate::volume) fn kernel(&self) -> Option<Arc<dyn KernelCache>> {
        self.kernel.lock().clone()
    }

    /// True if a crash may have left a wrong size for a file with this backing ctime: the size to
    /// show is the one that opening the file finds (R5).
    pub fn size_is_suspect(&self, backing_ctime: i64) -> bool {
        self.files.shared().is_suspect(backing_ctime)
    }

    /// Space and inodes of the backing filesystem.
    ///
    /// # Errors
    /// Those of the backing filesystem.
    pub fn space(&self) -> Result<Space> {
        self.tree.space()
    }

    /// The directory of the vault.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    pub(in crate::volume) fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock()
    }
}

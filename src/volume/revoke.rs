//! A key is disabled, or comes back, while its files are open (R12).
//!
//! 1. From one instant every request under the key fails, but for pages that were written through a
//!    mapping before. 2. Requests in flight end: wiping waits for the file's lock. 3. The kernel is
//!    asked to give dirty pages back and to drop the rest. 4. The keys and every decrypted byte are
//!    wiped. 5. The kernel is asked once more, for pages that it read in between. No lock is held
//!    while the kernel is asked, and no request waits for this thread.

use std::sync::{Arc, PoisonError};

use super::key_service::KeyHealth;
use super::{KernelCache, Volume};
use crate::id::KeyId;

impl Volume {
    /// Asks the KMS what became of the keys in use, and acts on it.
    pub fn watch_keys(&self) {
        let changes = self.keyring.poll();
        for (key, health) in changes.lost {
            let why = match health {
                KeyHealth::Unreachable => "its KMS has not answered for too long",
                KeyHealth::Usable | KeyHealth::Unusable => "it can no longer be used",
            };
            log::warn!("KMS key {key}: {why}: closing its files");
            self.revoke(key);
        }
        for key in changes.back {
            log::warn!("KMS key {key} can be used again");
            self.keyring.set_revoked(key, false);
            self.forget_names();
        }
        self.review_users();
    }

    /// Handles of users who lost a permission are refused by now; what the kernel has cached must
    /// not answer them either.
    fn review_users(&self) {
        for ino in self.gate.review() {
            if let Some(kernel) = self.kernel() {
                kernel.invalidate_inode(ino);
            }
        }
    }

    fn revoke(&self, key: KeyId) {
        self.keyring.set_revoked(key, true);
        let kernel = self.kernel();
        let inodes = self.files.cached_under(key);
        for ino in &inodes {
            if let Some(kernel) = &kernel {
                kernel.invalidate_inode(*ino);
            }
        }
        for file in self.files.all() {
            if file.key() == Some(key) {
                file.content().wipe();
            }
        }
        for ino in inodes {
            if let Some(kernel) = &kernel {
                kernel.invalidate_inode(ino);
            }
        }
        self.forget_names();
        self.files.sweep();
    }

    /// Directories show encrypted names while their key is gone, and plain ones when it is back.
    fn forget_names(&self) {
        let dirs = self.tree.dirs.clear();
        if let Some(kernel) = self.kernel() {
            for ino in dirs {
                kernel.invalidate_inode(ino);
            }
        }
    }

    fn kernel(&self) -> Option<Arc<dyn KernelCache>> {
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

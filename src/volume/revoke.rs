//! A key is disabled, or comes back, while its files are open (R12).
//!
//! 1. From one instant every request under the key fails, but for pages that were written through a
//!    mapping before. 2. Requests in flight end: wiping waits for the file's lock. 3. The kernel is
//!    asked to give dirty pages back and to drop the rest. 4. The keys and every decrypted byte are
//!    wiped. 5. The kernel is asked once more, for pages that it read in between. No lock is held
//!    while the kernel is asked, and no request waits for this thread.

use std::sync::{Arc, PoisonError};

use super::dir::Dir;
use super::names::shown_name;
use super::{KernelCache, Volume};
use crate::id::KeyId;

impl Volume {
    /// Asks the keystore what became of the keys in use, and acts on it.
    pub fn watch_keys(&self) {
        let (lost, back) = self.keyring.poll();
        for key in lost {
            self.revoke(key);
        }
        for key in back {
            log::warn!("KMS key {key} can be used again");
            self.keyring.set_revoked(key, false);
            self.forget_names();
        }
    }

    fn revoke(&self, key: KeyId) {
        log::warn!("KMS key {key} can no longer be used: closing its files");
        self.keyring.set_revoked(key, true);
        let kernel = self.kernel();
        let names = self.known_names(key);
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
        for (parent, name) in names {
            if let Some(kernel) = &kernel {
                kernel.invalidate_entry(parent, &name);
            }
        }
        self.files.sweep();
    }

    /// The names that the kernel may know in directories under `key`, as far as they are open here:
    /// asked for while their keys are still in memory.
    fn known_names(&self, key: KeyId) -> Vec<(u64, Vec<u8>)> {
        let mut names = Vec::new();
        // Directories keep theirs: someone may be working in them until the key comes back.
        let inodes = self.tree.inodes.all();
        for ino in inodes.into_iter().filter(|ino| self.tree.dirs.find(*ino).is_none()) {
            for link in self.tree.inodes.links(ino) {
                let dir = self.tree.dirs.find(link.parent);
                if let Some(dir) = dir.filter(|dir| is_under(dir, key)) {
                    names.push((link.parent, shown_name(&dir, &link.name)));
                }
            }
        }
        names
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

fn is_under(dir: &Dir, key: KeyId) -> bool {
    dir.descriptor().is_ok_and(|descriptor| descriptor.recipient.key == key)
}

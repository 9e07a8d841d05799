//! A key is disabled, or comes back, while its files are open (R12).
//!
//! 1. From one instant every request under the key fails, except for pages that were written through a
//!    mapping before; open directories and remembered decisions are dropped.
//! 2. The kernel is asked to give dirty pages back and to drop the rest.
//! 3. Requests in flight end, since wiping waits for the file's lock, and the keys are wiped, and the
//!    cached ends of blocks: the only contents that outlive their request here, for `fuse` wipes the
//!    buffers of a request with its answer.
//! 4. The kernel is asked once more, for pages that it read in between.
//!
//! No lock is held while the kernel is asked, and no request waits for this thread. The kernel may
//! take its time over dirty pages, so everything that makes requests fail is done before the first
//! time that it is asked.

use crate::id::KeyId;
use crate::volume::engine::Volume;
use crate::volume::keys::service::KeyHealth;

impl Volume {
    /// Asks the KMS what became of the keys in use, and acts on it.
    pub fn watch_keys(&self) {
        let changes = self.keyring.poll();
        for (key, health) in &changes.lost {
            let why = match health {
                KeyHealth::Unreachable => "its KMS has not answered for too long",
                KeyHealth::Usable | KeyHealth::Unusable => "it can no longer be used",
            };
            log::warn!("KMS key {key}: {why}: closing its files");
            self.keyring.set_revoked(*key, true);
        }
        for key in &changes.back {
            log::warn!("KMS key {key} can be used again");
            self.keyring.set_revoked(*key, false);
        }
        // Directories show encrypted names while their key is gone, and plain ones when it is back.
        let mut dirs = self.tree.listings.take_again();
        if !(changes.lost.is_empty() && changes.back.is_empty()) {
            dirs.extend(self.tree.dirs.clear());
            dirs.extend(self.tree.listings.drop_all());
        }
        // Handles of users who lost a permission are refused from here on.
        let refused = self.authorizer.review();
        // No dirty page has to be waited for.
        self.invalidate(dirs);
        let lost: Vec<KeyId> = changes.lost.iter().map(|(key, _)| *key).collect();
        self.revoke(&lost);
        // What the kernel has cached must not answer them either.
        self.invalidate(refused);
    }

    /// Makes the kernel ask again for the size of files that turned out to have another one. Whoever
    /// opens such a file by a request hears of it at once; this is for everybody else.
    pub fn tell_sizes(&self) {
        let resized = self.files.take_resized();
        let Some(kernel) = self.kernel().filter(|_| !resized.is_empty()) else { return };
        for ino in resized {
            kernel.invalidate_attributes(ino);
        }
    }

    /// Makes the kernel drop the pages of files that a failed request has changed.
    pub fn drop_outdated_pages(&self) {
        self.invalidate(self.files.take_outdated());
    }

    /// The second round is for what was in flight in the first: a write that made the first key of
    /// its file, a file that came under the key, pages that were read again.
    fn revoke(&self, keys: &[KeyId]) {
        if keys.is_empty() {
            return;
        }
        for _round in 0..2 {
            self.invalidate(self.files.cached_under(keys));
            for file in self.files.all() {
                file.source().set_prepared(None);
                if file.key().is_some_and(|key| keys.contains(&key)) {
                    file.content().wipe();
                }
            }
        }
    }
}

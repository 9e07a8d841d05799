//! What is known of inodes that the kernel has forgotten, for file handles (name_to_handle_at(2)).
//!
//! A handle names an inode by its number. The kernel may have forgotten the inode, and may hold one
//! whose directories it has forgotten. So directories stay known once they were (about 200 bytes each),
//! and of files it is remembered where the latest were.

use std::collections::{HashMap, HashSet, VecDeque};

/// How many files are remembered.
const FILES: usize = 64 * 1024;

/// Inodes that can be found although the kernel knows nothing of them.
#[derive(Debug, Default)]
pub(in crate::volume) struct Exported {
    dirs: HashSet<u64>,
    parents: HashMap<u64, u64>,
    oldest: VecDeque<u64>,
}

impl Exported {
    /// This is a directory.
    pub(in crate::volume) fn keep_dir(&mut self, ino: u64) {
        self.dirs.insert(ino);
    }

    /// True for a directory that was kept, and is no more what it was.
    pub(in crate::volume) fn drop_dir(&mut self, ino: u64) -> bool {
        self.dirs.remove(&ino)
    }

    /// True for a directory.
    pub(in crate::volume) fn keeps(&self, ino: u64) -> bool {
        self.dirs.contains(&ino)
    }

    /// A file was in this directory when the kernel forgot it.
    pub(in crate::volume) fn note_file(&mut self, ino: u64, parent: u64) {
        if self.parents.insert(ino, parent).is_none() {
            self.oldest.push_back(ino);
        }
        if self.oldest.len() > FILES
            && let Some(oldest) = self.oldest.pop_front()
        {
            self.parents.remove(&oldest);
        }
    }

    /// Where a file was last, if that is remembered.
    pub(in crate::volume) fn parent(&self, ino: u64) -> Option<u64> {
        self.parents.get(&ino).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_files_are_remembered() {
        let mut exported = Exported::default();
        for ino in 0..=FILES as u64 {
            exported.note_file(ino, ino + 1);
            exported.note_file(1, 7);
        }
        assert_eq!((exported.parent(0), exported.parent(1)), (None, Some(7)));
        assert_eq!(exported.oldest.len(), FILES);
        exported.keep_dir(3);
        assert!(exported.keeps(3) && exported.drop_dir(3) && !exported.keeps(3));
    }
}

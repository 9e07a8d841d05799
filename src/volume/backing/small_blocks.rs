//! Whether the backing filesystem writes a page whole.
//!
//! A page of 4096 bytes that is overwritten is the old one or the new one after a power cut: the format
//! builds on that (FORMAT section 11.1). A filesystem with smaller blocks writes a page in pieces, and a
//! cut between two of them leaves neither: there pages are journaled (section 11.5).

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{fstatfs, fstatvfs};

use super::root::open_root;
use crate::envelope::layout::PAGE;
use crate::volume::model::error::Result;

/// A backing filesystem whose blocks are smaller than a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SmallBlocks {
    /// Bytes of a block.
    pub size: u64,
}

impl SmallBlocks {
    /// What can be done about it.
    pub const ADVICE: &'static str = "a filesystem with blocks of 4096 bytes ('mkfs.ext4 -b 4096') needs no journal; \
                                      the mount option page-journal=off does without, at a risk";

    /// What it means where pages are journaled.
    pub fn with_journal(&self) -> String {
        format!(
            "the filesystem of the vault has blocks of {} bytes: pages go to a journal before they are \
             written over",
            self.size
        )
    }

    /// What it means where they are not.
    pub fn without_journal(&self) -> String {
        format!(
            "the filesystem of the vault has blocks of {} bytes, and pages are not journaled: a power cut \
             while a file is overwritten can take bytes along that were synced before",
            self.size
        )
    }
}

/// Whether the filesystem of the vault in `path` has blocks smaller than a page.
///
/// # Errors
/// Those of the backing filesystem.
pub fn small_blocks(path: &Path) -> Result<Option<SmallBlocks>> {
    small_blocks_of(open_root(path)?)
}

/// The same of the open directory.
pub(in crate::volume) fn small_blocks_of(root: impl AsFd) -> Result<Option<SmallBlocks>> {
    let kind = u64::try_from(fstatfs(&root)?.f_type).unwrap_or(0);
    let size = fstatvfs(&root)?.f_frsize;
    let whole = size >= PAGE || WRITTEN_ANEW.contains(&kind);
    Ok((!whole).then_some(SmallBlocks { size }))
}

/// ZFS and bcachefs: they write what changes to another place, whatever unit they count in.
const WRITTEN_ANEW: [u64; 2] = [0x2fc1_2fc1, 0xca45_1a4e];

//! A directory that a program lists.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use parking_lot::Mutex;

use crate::volume::backing::listing::RawEntry;
use crate::volume::model::errseq::Heard;

/// An open directory stream. It has no keys: these go when they are revoked, however long the stream
/// stays open.
#[derive(Debug)]
pub struct DirStream {
    pub(in crate::volume) ino: u64,
    pub(in crate::volume) fd: OwnedFd,
    pub(in crate::volume) position: Mutex<Position>,
    /// The kernel may keep what it is told of names.
    pub(in crate::volume) kept: bool,
    /// What it was told of failed syncs.
    pub(in crate::volume) heard: Heard,
}

/// How far a stream has been read.
#[derive(Debug, Default)]
pub(in crate::volume) struct Position {
    /// Entries that were read and not yet handed out.
    pub(in crate::volume) ahead: VecDeque<RawEntry>,
    /// Offset at which the first of them, or the descriptor, stands.
    pub(in crate::volume) offset: u64,
}

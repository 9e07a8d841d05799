//! How much of a file is durable.

use std::time::Instant;

use crate::envelope::layout::{Block, PAGE};

/// How far a file may be durable, and how far it is known to be.
#[derive(Debug, Clone, Default)]
pub(in crate::volume::content) struct Extent {
    /// Bytes below this may have been durable at the last sync.
    durable: u64,
    /// Bytes below this were made durable in this session, and nobody here has cut them off since.
    proven: u64,
    /// Since when some of them are above the seal.
    above_seal_since: Option<Instant>,
}

impl Extent {
    /// A file that was found with `size` bytes: all of it may be durable, nothing is proven.
    pub(in crate::volume::content) fn found(size: u64) -> Self {
        Self { durable: size, ..Self::default() }
    }

    /// The file turned out to be empty.
    pub(in crate::volume::content) fn empty(&mut self) {
        self.durable = 0;
    }

    /// Everything up to `size`, the end of the file, is durable; `sealed` of it are.
    pub(in crate::volume::content) fn prove(&mut self, size: u64, sealed: Option<u64>) {
        (self.durable, self.proven) = (size, size);
        if sealed.is_some_and(|sealed| size > sealed) {
            self.above_seal_since.get_or_insert_with(Instant::now);
        }
    }

    /// The same of a file that nobody has open.
    pub(in crate::volume::content) fn prove_closed(&mut self, size: u64) {
        self.proven = size;
    }

    /// A sync has begun that nobody waits for, and the file has `size` bytes.
    pub(in crate::volume::content) fn sync_begins(&mut self, size: u64) {
        self.durable = self.durable.max(size);
    }

    /// The file is cut to `size` bytes.
    pub(in crate::volume::content) fn cut(&mut self, size: u64) {
        (self.durable, self.proven) = (self.durable.min(size), self.proven.min(size));
    }

    /// True if the block may have durable bytes.
    pub(in crate::volume::content) fn reaches(&self, block: Block) -> bool {
        block.start() < self.durable
    }

    /// The first block that has none.
    pub(in crate::volume::content) fn end(&self) -> Block {
        Block(self.durable.div_ceil(PAGE))
    }

    /// Bytes that this session made durable.
    pub(in crate::volume::content) fn proven(&self) -> u64 {
        self.proven
    }

    /// Since when something durable stands above the seal.
    pub(in crate::volume::content) fn above_seal_since(&self) -> Option<Instant> {
        self.above_seal_since
    }

    /// Notes since when.
    pub(in crate::volume::content) fn set_above_seal_since(&mut self, since: Option<Instant>) {
        self.above_seal_since = since;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_may_be_durable_and_only_a_sync_proves_it() {
        let mut extent = Extent::found(5000);
        assert!(extent.reaches(Block(1)) && !extent.reaches(Block(2)) && extent.proven() == 0);
        extent.prove(9000, Some(9000));
        assert!(extent.reaches(Block(2)) && extent.proven() == 9000);
        assert!(extent.above_seal_since().is_none());
        extent.prove(9001, Some(9000));
        let since = extent.above_seal_since();
        extent.prove(9002, Some(9000));
        assert!(since.is_some() && extent.above_seal_since() == since, "since the first");
        extent.cut(4096);
        assert!(!extent.reaches(Block(1)) && extent.proven() == 4096);
        extent.cut(6000);
        assert_eq!(extent.proven(), 4096, "a cut makes nothing durable");
        extent.sync_begins(9000);
        assert!(extent.end() == Block(3) && extent.proven() == 4096, "it may, and may not");
    }

    #[test]
    fn without_a_header_there_is_no_seal_to_stand_above() {
        let mut extent = Extent::default();
        extent.prove(10, None);
        assert!(extent.above_seal_since().is_none());
    }
}

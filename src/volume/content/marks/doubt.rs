//! What nobody knows of a file, because a call or a sync failed.

use crate::envelope::layout::Block;

/// Blocks that may be odd without a crash. Nothing excuses a block outside of them, whatever failed:
/// least of all a call that met tampering.
#[derive(Debug, Clone, Default)]
pub(in crate::volume::content) struct Doubt {
    /// What a change of ours that failed half way may have left odd: from the first up to the second.
    blocks: Option<(Block, Block)>,
    /// A sync failed: nobody knows what is on the disk, so nothing of it is sealed.
    sync_failed: bool,
}

impl Doubt {
    /// Nobody knows what a failed change has left of the blocks from `first` up to `end`.
    pub(in crate::volume::content) fn add(&mut self, first: Block, end: Block) {
        let (known, known_end) = self.blocks.unwrap_or((first, end));
        self.blocks = Some((known.min(first), known_end.max(end)));
    }

    /// The blocks, from the first up to the second.
    pub(in crate::volume::content) fn blocks(&self) -> Option<(Block, Block)> {
        self.blocks
    }

    /// The blocks up to `stop` were looked at; those behind `end` are not of the file. What a change
    /// that failed meanwhile has added stays.
    pub(in crate::volume::content) fn looked_at(&mut self, stop: Block, end: Block) {
        let left = self.blocks.filter(|(_, last)| *last > stop && stop < end);
        self.blocks = left.map(|(_, last)| (stop, last));
    }

    /// A sync failed.
    pub(in crate::volume::content) fn sync_failed(&mut self) {
        self.sync_failed = true;
    }

    /// True if a sync failed.
    pub(in crate::volume::content) fn has_failed_sync(&self) -> bool {
        self.sync_failed
    }

    /// True if this block may be odd.
    pub(in crate::volume::content) fn covers(&self, block: Block) -> bool {
        self.sync_failed || self.blocks.is_some_and(|(first, end)| (first..end).contains(&block))
    }

    /// True if any block may be odd.
    pub(in crate::volume::content) fn is_any(&self) -> bool {
        self.sync_failed || self.blocks.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_failed_is_doubtful_until_it_was_looked_at() {
        let mut doubt = Doubt::default();
        doubt.add(Block(5), Block(7));
        doubt.add(Block(3), Block(4));
        let doubtful =
            |doubt: &Doubt| (0..9).filter(|n| doubt.covers(Block(*n))).collect::<Vec<_>>();
        assert_eq!(doubtful(&doubt), [3, 4, 5, 6]);
        doubt.looked_at(Block(5), Block(7));
        assert_eq!((doubtful(&doubt), doubt.is_any()), (vec![5, 6], true));
        doubt.add(Block(5), Block(9));
        doubt.looked_at(Block(7), Block(8));
        assert_eq!(doubt.blocks(), Some((Block(7), Block(9))), "it grew meanwhile");
        doubt.looked_at(Block(8), Block(8));
        assert!(!doubt.is_any(), "behind the end there is nothing");
    }

    #[test]
    fn after_a_failed_sync_everything_is() {
        let mut doubt = Doubt::default();
        doubt.sync_failed();
        assert!(doubt.covers(Block(1 << 40)) && doubt.is_any() && doubt.blocks().is_none());
    }
}

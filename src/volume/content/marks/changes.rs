//! What of a file has changed since its last sync, and since its last seal.

use std::time::Instant;

/// A count of changes, and which of them are not durable or not sealed.
///
/// A sync covers what was changed before it began: who syncs notes [`Self::generation`] first, and
/// everything that was updated until then is durable if the sync succeeds.
#[derive(Debug, Clone, Default)]
pub(in crate::volume::content) struct Changes {
    generation: u64,
    dirty_since: Option<Instant>,
    /// Contents or size changed since the last sync.
    contents: bool,
    /// Contents or size changed since the last seal, by this daemon.
    unsealed: bool,
}

impl Changes {
    /// The count goes on after the file was cut to nothing.
    pub(in crate::volume::content) fn begun_anew(&self) -> Self {
        Self { generation: self.generation, ..Self::default() }
    }

    /// Counts a change of anything, and returns its generation.
    pub(in crate::volume::content) fn touch(&mut self) -> u64 {
        self.generation += 1;
        self.dirty_since.get_or_insert_with(Instant::now);
        self.generation
    }

    /// Counts a change of contents or size that the seal, or what comes after it, allows for.
    pub(in crate::volume::content) fn touch_contents(&mut self) {
        self.touch();
        self.contents = true;
    }

    /// The generation of the last change.
    pub(in crate::volume::content) fn generation(&self) -> u64 {
        self.generation
    }

    /// True if anything was changed since the last sync.
    pub(in crate::volume::content) fn is_dirty(&self) -> bool {
        self.dirty_since.is_some()
    }

    /// When the first of these changes was made.
    pub(in crate::volume::content) fn dirty_since(&self) -> Option<Instant> {
        self.dirty_since
    }

    /// True if contents or size changed since the last sync.
    pub(in crate::volume::content) fn has_contents(&self) -> bool {
        self.contents
    }

    /// True if the file waits for a seal.
    pub(in crate::volume::content) fn is_unsealed(&self) -> bool {
        self.unsealed
    }

    /// Notes whether the file waits for a seal.
    pub(in crate::volume::content) fn set_unsealed(&mut self, unsealed: bool) {
        self.unsealed = unsealed;
    }

    /// Everything is durable.
    pub(in crate::volume::content) fn synced(&mut self) {
        (self.contents, self.dirty_since) = (false, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_ends_what_is_dirty_and_not_what_waits_for_a_seal() {
        let mut changes = Changes::default();
        assert!(!changes.is_dirty());
        changes.touch_contents();
        changes.set_unsealed(true);
        let first = changes.dirty_since();
        assert!(changes.has_contents() && changes.generation() == 1);
        assert_eq!((changes.touch(), changes.dirty_since()), (2, first), "of the first change");
        changes.synced();
        assert!(!changes.is_dirty() && !changes.has_contents() && changes.is_unsealed());
        assert_eq!(changes.begun_anew().touch(), 3, "no generation comes twice");
    }
}

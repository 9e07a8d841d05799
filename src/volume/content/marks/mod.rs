//! What is known of a file besides its bytes: what of them is durable, and what nobody knows.

mod changes;
mod doubt;
mod extent;
mod pages;

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use rustix::io::Errno;

use super::header::HeaderSlots;
use super::spill::Roles;
use crate::envelope::layout::{Group, plain_size};
use crate::id::FileId;
use crate::volume::backing::contents::Durability;
use changes::Changes;
use doubt::Doubt;
use extent::Extent;
use pages::PageMarks;

/// What is written but not durable. Outlives the last close, until a sync.
///
/// *Order of a sync*: (1) what is owed is written; (2) the generation is noted; (3) the disk syncs;
/// (4) if that succeeded, what was updated until (2) and is not owed is durable ([`Self::flip`]);
/// if it failed, everything written since the last one is owed ([`Self::sync_failed`]), and no roles
/// change. *Crash*: what was durable before (1) is until (4), and from then on what was written.
#[derive(Debug, Clone, Default)]
pub(in crate::volume) struct Marks {
    /// Which header slot is durable.
    pub(in crate::volume::content) header: HeaderSlots,
    /// What is known of groups of a file that is not open; while it is, its `Spills` have that.
    pub(in crate::volume::content) groups: HashMap<Group, Roles>,
    /// What was changed.
    pub(in crate::volume::content) changes: Changes,
    /// Which pages of contents were written.
    pub(in crate::volume::content) pages: PageMarks,
    /// How much is durable.
    pub(in crate::volume::content) extent: Extent,
    /// What nobody knows.
    pub(in crate::volume::content) doubt: Doubt,
    /// Groups whose spill page on the disk says of blocks that they were holes a moment ago.
    pub(in crate::volume::content) filled: BTreeSet<Group>,
    /// The last page may say another length than the file has.
    pub(in crate::volume::content) end_owed: bool,
    /// The backing length that could not be set yet.
    pub(in crate::volume::content) owed_length: Option<u64>,
    /// How many failed syncs of the whole filesystem were followed by a sync of this file alone.
    pub(in crate::volume::content) failures: u64,
    /// A write-back that failed, of which no handle was told.
    unreported: Option<Errno>,
    /// When the last handle was closed.
    parked_since: Option<Instant>,
    /// The size then.
    parked_size: u64,
    /// The file that all this is about: another one may have got its inode number.
    file: Option<FileId>,
}

impl Marks {
    /// For a file that was found with `size` bytes, and of which nothing was written: `failures` of the
    /// filesystem do not concern it.
    pub(in crate::volume::content) fn found(size: u64, failures: u64) -> Self {
        Self { extent: Extent::found(size), failures, ..Self::default() }
    }

    /// The file is cut to nothing. `owed_length`: the backing length that could not be set.
    pub(in crate::volume::content) fn begun_anew(&self, owed_length: Option<u64>) -> Self {
        let (changes, failures) = (self.changes.begun_anew(), self.failures);
        Self { changes, failures, owed_length, ..Self::default() }
    }

    /// Counts a change of anything, and returns its generation.
    pub(in crate::volume::content) fn touch(&mut self) -> u64 {
        self.changes.touch()
    }

    /// Counts a change of contents or size, which waits for a seal.
    pub(in crate::volume::content) fn touch_contents(&mut self) {
        self.changes.touch_contents();
        self.changes.set_unsealed(true);
    }

    /// The last handle of a file of `size` bytes is closed.
    pub(in crate::volume::content) fn park(&mut self, size: u64, unreported: Option<Errno>) {
        self.parked_since = Some(Instant::now());
        (self.parked_size, self.unreported) = (size, unreported);
    }

    /// A write-back that failed, of which no handle was told.
    pub(in crate::volume::content) fn unreported(&self) -> Option<Errno> {
        self.unreported
    }

    /// Notes which file this is about, before its keys go.
    pub(in crate::volume::content) fn note_file(&mut self, file: FileId) {
        self.file = Some(file);
    }

    /// True if this is about another file than the one that was found, which may have no header.
    pub(in crate::volume::content) fn are_of_another(&self, found: Option<FileId>) -> bool {
        match (self.file, found) {
            (None, Some(_)) => self.owed_length.is_some(),
            (None, None) => false,
            (known, found) => known != found,
        }
    }

    pub(in crate::volume) fn is_dirty(&self) -> bool {
        self.changes.is_dirty()
    }

    /// Since when the file waits for a sync, or at least for a seal.
    pub(in crate::volume) fn waiting_since(&self) -> Option<Instant> {
        self.changes.dirty_since().or(self.parked_since)
    }

    /// The size that the backing length does not tell yet.
    pub(in crate::volume) fn owed_size(&self) -> Option<u64> {
        self.owed_length.map(|length| plain_size(length).0)
    }

    /// True if a call failed, and only a look at the blocks tells what they hold.
    pub(in crate::volume) fn is_unsure(&self) -> bool {
        self.doubt.is_any()
    }

    /// True if a later open needs none of this.
    pub(in crate::volume) fn is_forgettable(&self) -> bool {
        !self.is_dirty()
            && !self.is_unsure()
            && !self.changes.is_unsealed()
            && self.filled.is_empty()
            && self.owed_length.is_none()
            && self.unreported.is_none()
    }

    /// True if something is to be written before a sync counts.
    pub(in crate::volume::content) fn owes_anything(&self) -> bool {
        self.header.is_owed()
            || self.end_owed
            || self.pages.is_owed()
            || self.owed_length.is_some()
            || self.groups.values().any(|roles| roles.copies().is_owed())
    }

    /// What a sync must make durable if `what` is asked for.
    pub(in crate::volume::content) fn to_sync(&self, what: Durability) -> Durability {
        if self.header.moves_time() { Durability::Everything } else { what }
    }

    /// A sync that began at `generation` succeeded. `owed`: the open file owes a spill page.
    pub(in crate::volume) fn flip(&mut self, generation: u64, owed: bool) {
        for roles in self.groups.values_mut() {
            roles.copies_mut().synced(generation);
        }
        // A retired group is remembered for its number; everything else is on the disk.
        self.groups.retain(|_, roles| !roles.is_forgettable());
        self.header.synced(generation);
        self.pages.covered(generation, self.generation() <= generation);
        if self.generation() <= generation && !owed && !self.owes_anything() {
            self.pages.synced(!self.is_unsure());
            self.changes.synced();
        }
    }

    /// A sync failed: everything written since the last one is written again before one counts.
    pub(in crate::volume) fn sync_failed(&mut self) {
        self.doubt.sync_failed();
        self.pages.sync_failed();
        self.header.sync_failed();
        for roles in self.groups.values_mut() {
            roles.copies_mut().sync_failed();
        }
    }

    /// A sync of the whole filesystem begins, and nobody waits for it: when it ends, what was durable
    /// before may be long gone. Returns the generation that it covers.
    pub(in crate::volume::content) fn begin_whole_sync(&mut self, size: u64) -> u64 {
        let generation = self.generation();
        self.extent.sync_begins(size);
        self.pages.journaled_mut().turn(generation);
        generation
    }

    /// The same for a file that is closed.
    pub(in crate::volume) fn begin_parked_sync(&mut self) -> u64 {
        self.begin_whole_sync(self.parked_size)
    }

    /// True if a sync of the whole filesystem has failed since the file was last synced by itself.
    pub(in crate::volume) fn were_passed_over(&self, failures: u64) -> bool {
        self.failures != failures
    }

    /// A sync covered the file after its last close.
    pub(in crate::volume) fn prove_parked(&mut self) {
        self.extent.prove_closed(self.parked_size);
    }

    pub(in crate::volume) fn generation(&self) -> u64 {
        self.changes.generation()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::layout::PageNo;

    /// A page of contents was written, and a header.
    fn changed() -> Marks {
        let mut marks = Marks::found(0, 0);
        marks.pages.add(PageNo(3), PageNo(3));
        marks.touch_contents();
        let generation = marks.touch();
        marks.header.born(generation);
        marks
    }

    #[test]
    fn a_sync_covers_what_was_written_before_it_began() {
        let mut marks = changed();
        marks.flip(marks.generation() - 1, false);
        assert!(marks.is_dirty() && !marks.header.is_durable());
        marks.flip(marks.generation(), true);
        assert!(marks.is_dirty() && marks.header.is_durable(), "a spill page is owed");
        marks.flip(marks.generation(), false);
        assert!(!marks.is_dirty() && marks.pages.is_durable(PageNo(3)));
        assert!(!marks.is_forgettable(), "it waits for its seal");
        marks.changes.set_unsealed(false);
        assert!(marks.is_forgettable());
    }

    #[test]
    fn after_a_failed_sync_none_counts_until_everything_is_written_again() {
        let mut marks = changed();
        marks.sync_failed();
        assert!(marks.owes_anything() && marks.is_unsure());
        marks.flip(marks.generation(), false);
        assert!(marks.is_dirty() && !marks.header.is_durable());
        marks.pages.written_again();
        let generation = marks.touch();
        marks.header.wrote(generation);
        marks.flip(generation, false);
        assert!(!marks.is_dirty() && marks.header.is_durable());
        assert!(!marks.pages.is_durable(PageNo(3)), "nobody knows until it was looked at");
        assert!(!marks.is_forgettable());
    }

    #[test]
    fn what_is_known_of_one_file_is_not_for_another() {
        let (one, other) = (FileId::from_bytes([1; 16]), FileId::from_bytes([2; 16]));
        let mut marks = changed();
        assert!(!marks.are_of_another(Some(one)), "nobody said whose they are");
        marks.note_file(one);
        assert!(!marks.are_of_another(Some(one)));
        assert!(marks.are_of_another(Some(other)) && marks.are_of_another(None));
        let anew = marks.begun_anew(Some(0));
        assert!(anew.generation() == marks.generation() && anew.are_of_another(Some(other)));
    }
}

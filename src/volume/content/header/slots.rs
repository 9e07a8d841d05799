//! Which header slot a crash leaves, and which one the next header goes to (R3).

use crate::envelope::layout::{Copy2, HEADER_AREA};
use crate::envelope::{EnvelopeError, FileKeys, RECORD_LEN, UnverifiedHeader};
use crate::volume::content::durability::Durability;
use crate::volume::model::error::VolumeError;

/// The two header slots of a file.
///
/// *Order of a change*: (1) the new header goes to the slot that is not durable, and so does every
/// later one until the next sync; (2) a sync; (3) the next one goes to the other slot. *Crash*: before
/// (2) the durable slot is as it was, and the other one has the old header, the new one, or is not
/// authentic: the newest good one counts, and the file is right under each. After (2) the same with the
/// roles exchanged. If a header goes to both slots at once, a crash leaves each slot old or new: a slot
/// is one sector.
///
/// A re-wrap also moves the backing mtime ([`Self::owed_move`]), and the old slot, which opens with the
/// old key, is written over only after a sync that took times along ([`Self::moves_time`]).
#[derive(Debug, Clone, Default)]
pub(in crate::volume::content) struct HeaderSlots {
    copies: Durability,
    /// A write failed: until a sync, the disk may have a header that memory never had, with a higher
    /// seal, for one.
    unsure: bool,
    /// The backing mtime, from the write of a re-wrapped header until it moves.
    move_owed: Option<i64>,
    /// The generation in which the backing mtime was moved for a re-wrap.
    time_moved: Option<u64>,
}

impl HeaderSlots {
    /// The header was read from this slot, and nothing else is known.
    pub(in crate::volume::content) fn found(&mut self, slot: Copy2) {
        if self.copies.current().is_none() {
            self.copies = Durability::found(slot);
        }
    }

    /// Page 0 of a new file is written, with the same header in both slots.
    pub(in crate::volume::content) fn born(&mut self, generation: u64) {
        self.copies = Durability::default();
        self.copies.wrote(generation);
    }

    /// The slot that the next header goes to.
    pub(in crate::volume::content) fn target(&self) -> Copy2 {
        self.copies.target()
    }

    /// The header is written to its target.
    pub(in crate::volume::content) fn wrote(&mut self, generation: u64) {
        self.copies.wrote(generation);
    }

    /// A slot that could not be read is written anew: until a sync it is the target. What is owed
    /// stays owed.
    pub(in crate::volume::content) fn replaced(&mut self, slot: Copy2, generation: u64) {
        let owed = self.copies.is_owed();
        self.copies.wrote_over(slot, generation);
        if owed {
            self.copies.owe();
        }
    }

    /// A re-wrapped header was written, and left the backing mtime as it was.
    pub(in crate::volume::content) fn owe_move(&mut self, mtime: i64) {
        self.move_owed = Some(mtime);
    }

    /// The backing mtime that a re-wrap is still to move.
    pub(in crate::volume::content) fn owed_move(&self) -> Option<i64> {
        self.move_owed
    }

    /// The backing mtime was moved for a re-wrap.
    pub(in crate::volume::content) fn moved_time(&mut self, generation: u64) {
        self.move_owed = None;
        self.time_moved = Some(generation);
    }

    /// The write of a header failed, and may have arrived all the same.
    pub(in crate::volume::content) fn in_doubt(&mut self, generation: u64) {
        self.copies.wrote(generation);
        self.copies.owe();
        self.unsure = true;
    }

    /// True if a header is to be written before a sync counts.
    pub(in crate::volume::content) fn is_owed(&self) -> bool {
        self.copies.is_owed()
    }

    /// True if the disk may have a header that memory never had.
    pub(in crate::volume::content) fn is_unsure(&self) -> bool {
        self.unsure
    }

    /// True if a header was written since the last sync.
    pub(in crate::volume::content) fn is_written(&self) -> bool {
        self.copies.is_written()
    }

    /// True if some header is durable.
    pub(in crate::volume::content) fn is_durable(&self) -> bool {
        self.copies.is_durable()
    }

    /// True if the next sync has to take times along.
    pub(in crate::volume::content) fn moves_time(&self) -> bool {
        self.time_moved.is_some()
    }

    /// A sync succeeded that began when `generation` was the newest.
    pub(in crate::volume::content) fn synced(&mut self, generation: u64) {
        self.time_moved = self.time_moved.filter(|moved| *moved > generation);
        if self.copies.synced(generation) {
            self.unsure = false;
        }
    }

    /// A sync failed.
    pub(in crate::volume::content) fn sync_failed(&mut self) {
        self.copies.sync_failed();
    }
}

/// The bytes of a slot in the header area.
pub(super) fn bytes_of(area: &[u8; HEADER_AREA], slot: Copy2) -> &[u8; RECORD_LEN] {
    let (first, second) = area.split_first_chunk().expect("the area has two slots");
    match slot {
        Copy2::First => first,
        Copy2::Second => second.first_chunk().expect("the area has two slots"),
    }
}

/// Where a slot begins in the file.
pub(super) fn offset_of(slot: Copy2) -> u64 {
    match slot {
        Copy2::First => 0,
        Copy2::Second => RECORD_LEN as u64,
    }
}

/// What both slots claim, read without any key.
pub(super) struct Claims([Result<UnverifiedHeader, EnvelopeError>; 2]);

impl Claims {
    pub(super) fn read(area: &[u8; HEADER_AREA]) -> Self {
        Self(SLOTS.map(|slot| UnverifiedHeader::parse(bytes_of(area, slot))))
    }

    /// The slots that can be read, the one that claims to be the newest first.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = (Copy2, &UnverifiedHeader)> {
        let [first, second] = &self.0;
        let [first, second] = [first.as_ref().ok(), second.as_ref().ok()];
        let sequence = |slot: Option<&UnverifiedHeader>| slot.map(|slot| slot.claims().sequence);
        let is_turned = sequence(second) > sequence(first);
        let first = first.map(|slot| (Copy2::First, slot));
        let second = second.map(|slot| (Copy2::Second, slot));
        if is_turned { [second, first] } else { [first, second] }.into_iter().flatten()
    }

    /// Why no slot opens the file: none can be read, or no key vouches for those that can.
    pub(super) fn failure(&self) -> VolumeError {
        let newer = self.0.iter().find_map(|slot| match slot {
            Err(error @ EnvelopeError::Newer(_)) => Some(*error),
            _ => None,
        });
        match newer {
            Some(error) if self.0.iter().all(Result::is_err) => error.into(),
            _ => VolumeError::Tampered("file header"),
        }
    }

    /// True if these keys made the slot.
    pub(super) fn are_vouched_for(&self, slot: Copy2, keys: &FileKeys) -> bool {
        let [first, second] = &self.0;
        let claims = if slot == Copy2::First { first } else { second };
        claims.as_ref().is_ok_and(|claims| claims.verify(keys).is_ok())
    }
}

const SLOTS: [Copy2; 2] = [Copy2::First, Copy2::Second];

#[cfg(test)]
mod tests {
    use super::Copy2::{First, Second};
    use super::*;
    use crate::crypto::secret::Secret;
    use crate::envelope::{FileHeader, HeaderFlags, Recipient, Seal, Wrapped};
    use crate::id::{FileId, KeyId, MaterialId};

    /// The slots of a file whose first one is durable.
    fn first_durable() -> HeaderSlots {
        let mut slots = HeaderSlots::default();
        slots.born(1);
        slots.synced(1);
        assert!(slots.is_durable() && !slots.is_written());
        slots
    }

    #[test]
    fn slots_take_turns_with_syncs_and_only_with_them() {
        let mut slots = first_durable();
        for (generation, target) in (2..).zip([Second, First, Second]) {
            assert_eq!(slots.target(), target);
            slots.wrote(2 * generation);
            slots.wrote(2 * generation + 1);
            assert_eq!(slots.target(), target, "a re-wrap and a seal before one sync");
            slots.synced(2 * generation);
            assert_eq!(slots.target(), target, "that sync began too early");
            slots.synced(2 * generation + 1);
        }
    }

    #[test]
    fn a_header_that_was_read_counts_only_if_nothing_better_is_known() {
        let mut slots = HeaderSlots::default();
        slots.found(Second);
        assert_eq!(slots.target(), First);
        slots.found(First);
        assert_eq!(slots.target(), First);
        let mut slots = HeaderSlots::default();
        slots.found(First);
        slots.replaced(Second, 3);
        assert_eq!(slots.target(), Second);
    }

    #[test]
    fn a_failed_write_is_owed_until_one_arrives_and_is_synced() {
        let mut slots = first_durable();
        slots.in_doubt(5);
        slots.synced(6);
        assert!(slots.is_owed() && slots.is_unsure() && slots.target() == Second);
        slots.wrote(7);
        assert!(!slots.is_owed() && slots.is_unsure(), "the disk may have either");
        slots.synced(7);
        assert!(!slots.is_unsure() && slots.target() == First);
    }

    #[test]
    fn a_failed_sync_lets_the_same_slot_be_written_again() {
        let mut slots = first_durable();
        slots.wrote(5);
        slots.sync_failed();
        slots.synced(9);
        assert!(slots.is_owed() && slots.target() == Second);
        slots.wrote(10);
        slots.synced(10);
        assert!(!slots.is_owed() && slots.target() == First);
    }

    #[test]
    fn the_time_of_a_rewrap_waits_for_a_sync_that_began_after_it() {
        let mut slots = first_durable();
        slots.wrote(5);
        slots.owe_move(70);
        slots.synced(5);
        assert!(slots.owed_move() == Some(70) && !slots.moves_time());
        slots.moved_time(6);
        slots.synced(5);
        assert!(slots.owed_move().is_none() && slots.moves_time());
        slots.synced(6);
        assert!(!slots.moves_time());
    }

    #[test]
    fn both_slots_fill_the_area() {
        let area = std::array::from_fn(|at| u8::from(at >= RECORD_LEN));
        assert_eq!(bytes_of(&area, First), &[0; RECORD_LEN]);
        assert_eq!(bytes_of(&area, Second), &[1; RECORD_LEN]);
        assert_eq!([offset_of(First), offset_of(Second)], [0, 512]);
    }

    fn keys(byte: u8) -> FileKeys {
        FileKeys::new(FileId::from_bytes([7; 16]), Secret::filled(|key| key.fill(byte)))
    }

    fn slot(sequence: u64) -> [u8; RECORD_LEN] {
        let recipient = Recipient {
            key: KeyId::from_bytes([1; 16]),
            material: MaterialId::from_bytes([2; 16]),
            wrapped: Wrapped::Kms([3; 72]),
        };
        let header = FileHeader {
            file: FileId::from_bytes([7; 16]),
            sequence,
            flags: HeaderFlags::default(),
            seal: Seal::default(),
            recipients: recipient.into(),
        };
        header.encode(&keys(5))
    }

    fn claims(slots: [[u8; RECORD_LEN]; 2]) -> Claims {
        Claims::read(slots.concat().first_chunk().unwrap())
    }

    #[test]
    fn the_newest_claim_comes_first_and_nobody_has_vouched_for_it() {
        let order = |slots| claims(slots).newest_first().map(|(slot, _)| slot).collect::<Vec<_>>();
        assert_eq!(order([slot(4), slot(9)]), [Second, First]);
        assert_eq!(order([slot(9), slot(4)]), [First, Second]);
        assert_eq!(order([slot(4), slot(4)]), [First, Second]);
        assert_eq!(order([[0; RECORD_LEN], slot(4)]), [Second]);
        assert_eq!(order([[0; RECORD_LEN], [7; RECORD_LEN]]), []);
        let both = claims([slot(4), [0; RECORD_LEN]]);
        assert!(both.are_vouched_for(First, &keys(5)) && !both.are_vouched_for(First, &keys(6)));
        assert!(!both.are_vouched_for(Second, &keys(5)));
        assert!(matches!(both.failure(), VolumeError::Tampered(_)));
    }
}

//! Places that the log must have: what this process and the keystore's own file remember of it.

use crate::keystore::model::audit::{AuditNote, Position};

/// What this process knows.
#[derive(Debug, Clone, Default)]
pub(super) struct KnownPositions {
    /// What the keystore's file has noted.
    noted: Option<Position>,
    /// The newest record that this process wrote, or signed.
    left: Option<Position>,
    /// What was noted when `left` was written. The log had it, or it is among the lost.
    compared: Option<Position>,
    /// The newest position that was signed.
    signed: Option<Position>,
    lost: Vec<Position>,
    /// The keystore's file does not have all of `lost`.
    unsaved: bool,
}

impl KnownPositions {
    /// Learns what the keystore's file says.
    pub(super) fn learn(&mut self, note: &AuditNote) {
        self.noted = note.noted.or(self.noted);
        let known = |position: &Position| note.lost.contains(position);
        self.unsaved = note.lost.len() < MOST_LOST && !self.lost.iter().all(known);
        for position in &note.lost {
            self.lose(*position);
        }
    }

    /// Brings up to date what the keystore's file says. What it has noted gives way to a newer position
    /// only once the log was found to have it, or when it is kept as lost: it may be the only
    /// evidence that records were cut off.
    pub(super) fn note(&self, note: &mut AuditNote) {
        for position in &self.lost {
            if note.lost.len() < MOST_LOST && !note.lost.contains(position) {
                note.lost.push(*position);
            }
        }
        let Some(left) = self.left else { return };
        let follows =
            |noted: Position| noted.seq < left.seq && self.compared.is_some_and(|it| it == noted);
        if note.noted.is_none_or(follows) {
            note.noted = Some(left);
        }
    }

    /// The positions that the log must have, the newest that this process wrote first.
    pub(super) fn positions(&self) -> impl Iterator<Item = Position> {
        let noted = self.noted.filter(|noted| self.left != Some(*noted));
        let positions = [self.left, noted].into_iter().flatten();
        positions.filter(|position| !self.lost.contains(position))
    }

    /// The newest position that the log must have.
    pub(super) fn newest(&self) -> Option<Position> {
        self.positions().max_by_key(|position| position.seq)
    }

    /// The positions that the log is known not to have any more.
    pub(super) fn lost(&self) -> &[Position] {
        &self.lost
    }

    /// Takes in that the log was found without `lost`, and ends at `head` now. `asked` is what was
    /// known when it was looked for.
    pub(super) fn found(&mut self, asked: &Self, lost: &[Position], head: Position) {
        for position in lost {
            self.unsaved |= self.lose(*position);
        }
        self.left = Some(head);
        self.compared = asked.noted;
    }

    /// Takes in that a position was signed.
    pub(super) fn signed(&mut self, position: Position) {
        self.signed = Some(position);
    }

    /// The newest signed position, or the newest at all if the keystore's file should learn that positions
    /// were lost.
    pub(super) fn worth_noting(&self) -> Option<Position> {
        if self.unsaved { self.left } else { self.signed }
    }

    /// True if the keystore's file, as it was learned, says all that it should say about `position`.
    pub(super) fn is_saved(&self, position: Position) -> bool {
        !self.unsaved && self.noted.is_some_and(|noted| noted.seq >= position.seq)
    }

    fn lose(&mut self, position: Position) -> bool {
        let new = !self.lost.contains(&position);
        if new {
            self.lost.push(position);
        }
        new
    }
}

/// So many lost positions the keystore's file keeps, the first ones: somebody who cuts the log over and
/// over does not fill it. The log tells of each.
const MOST_LOST: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seq: u64) -> Position {
        Position { seq, hash: [1; 32] }
    }

    fn noted(seq: u64) -> AuditNote {
        AuditNote { noted: Some(at(seq)), ..AuditNote::default() }
    }

    /// Another process may have noted a position since, which the log does not have any more.
    #[test]
    fn what_is_noted_gives_way_only_to_what_was_found_to_follow_it() {
        let mut known = KnownPositions::default();
        let mut note = AuditNote::default();
        known.note(&mut note);
        assert_eq!(note, AuditNote::default());
        known.found(&known.clone(), &[], at(5));
        known.note(&mut note);
        assert_eq!(note, noted(5));
        let mut by_another = noted(4);
        known.note(&mut by_another);
        assert_eq!(by_another, noted(4));
        known.learn(&by_another);
        known.note(&mut by_another);
        assert_eq!(by_another, noted(4));
        known.found(&known.clone(), &[], at(6));
        known.note(&mut by_another);
        assert_eq!(by_another, noted(6));
    }

    #[test]
    fn what_was_lost_is_kept_and_not_looked_for_again() {
        let mut known = KnownPositions::default();
        known.learn(&noted(9));
        known.found(&known.clone(), &[at(9)], at(10));
        assert_eq!(known.positions().collect::<Vec<_>>(), [at(10)]);
        assert_eq!(known.worth_noting(), Some(at(10)));
        let mut note = noted(9);
        known.note(&mut note);
        assert_eq!(note, AuditNote { lost: vec![at(9)], ..noted(10) });
        known.learn(&note);
        assert!(known.is_saved(at(10)) && known.worth_noting().is_none());
        for seq in 100..200 {
            known.found(&known.clone(), &[at(seq)], at(300));
        }
        known.note(&mut note);
        assert_eq!((note.lost.len(), note.lost[0]), (MOST_LOST, at(9)));
        known.learn(&note);
        assert!(known.is_saved(at(10)), "there is no room for more");
    }
}

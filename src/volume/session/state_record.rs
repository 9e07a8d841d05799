//! The record of sessions in a vault: how fresh it is by the anchor, and what each session makes of it.
//!
//! Pure decisions, so that their tables can be read and tested (FORMAT section 12.2).

use crate::envelope::{
    Intents, SessionWord, StateRecord, UNRECOVERED, Unrecovered, VolumeFeatures, WORDS,
};
use crate::keystore::VolumeAnchor;

/// How fresh the record in a vault is, by what the anchor remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::volume) enum Freshness {
    /// It is the one that was left.
    Same,
    /// It went on since, on another machine or beside an older copy of the keystore.
    Newer,
    /// Nothing is remembered of this volume: the record is believed once.
    FirstUse,
    /// It is missing or not authentic: nothing in it is believed.
    Lost,
    /// It is from before what the anchor remembers: restored from a backup, or put back.
    Older,
    /// It went another way than the anchor: a copy of the vault was used in its place.
    Forked,
}

impl Freshness {
    /// True if what the record excuses must not be believed unless somebody says so.
    pub(in crate::volume) fn needs_consent(self) -> bool {
        matches!(self, Self::Older | Self::Forked)
    }

    /// The message for a person, if there is one.
    pub(in crate::volume) fn message(self) -> Option<&'static str> {
        match self {
            Self::Same => None,
            Self::Newer => Some("the vault was used elsewhere since it was last mounted here"),
            Self::FirstUse => {
                Some("the vault is mounted here for the first time: its own records are believed")
            }
            Self::Lost => Some(
                "the vault's record of its sessions is missing or not authentic: \
                 nothing in the vault is excused by a crash",
            ),
            Self::Older => Some(
                "the vault is older than when it was last mounted here: it was restored from a \
                 backup, or somebody put it back",
            ),
            Self::Forked => {
                Some("the vault is a copy that went its own way since it was last mounted here")
            }
        }
    }
}

/// Compares the record of a vault with the anchor.
pub(in crate::volume) fn compare(
    record: Option<&StateRecord>,
    anchor: Option<&VolumeAnchor>,
) -> Freshness {
    let Some(record) = record else { return Freshness::Lost };
    let Some(anchor) = anchor else { return Freshness::FirstUse };
    let known = SessionWord::from_bits(anchor.word);
    // Within a session, too, a record from before a recovery would bring back what that has ended.
    let earlier = record.sequence < anchor.sequence;
    if record.word == known {
        let reopened = record.open && anchor.closed;
        return if reopened || earlier { Freshness::Older } else { Freshness::Same };
    }
    match record.word.number().cmp(&known.number()) {
        std::cmp::Ordering::Less => Freshness::Older,
        std::cmp::Ordering::Greater if record.words.contains(&known) && !earlier => {
            Freshness::Newer
        }
        _ => Freshness::Forked,
    }
}

/// The session has ended cleanly.
pub(in crate::volume) fn close(record: &mut StateRecord) {
    record.open = false;
    record.current = Intents::default();
    record.previous = Intents::default();
}

/// The record that closed a session, derived from the one before it because its own copy is damaged.
/// `None` unless the anchor knows of exactly that step.
///
/// Otherwise the session would look like one that was put back, and its files would wait for a consent
/// that nobody has a reason to give. This excuses nothing new: what earlier crashes left is withheld,
/// since nobody knows whether the damaged copy still had them.
pub(in crate::volume) fn closing(
    record: &StateRecord,
    anchor: Option<&VolumeAnchor>,
) -> Option<StateRecord> {
    let anchor = anchor.filter(|anchor| {
        let of_session = record.open && record.word == SessionWord::from_bits(anchor.word);
        of_session && anchor.closed && record.sequence.checked_add(1) == Some(anchor.sequence)
    })?;
    log::error!("one copy of the record of sessions is damaged: the last session ended cleanly");
    let mut closing = StateRecord { sequence: anchor.sequence, ..record.clone() };
    close(&mut closing);
    closing.cursor = None;
    closing.unrecovered.iter_mut().for_each(|crash| crash.withheld = true);
    Some(closing)
}

/// How far the times of files lag behind the clock, in nanoseconds: the first change of a session may
/// seem to be older than the session.
const TICK: i64 = 20_000_000;

/// What a new session is begun with.
#[derive(Debug, Clone, Copy)]
pub(in crate::volume) struct Begin {
    /// Now, in nanoseconds since 1970.
    pub(in crate::volume) now: i64,
    /// Random bits for the session's word.
    pub(in crate::volume) random: u32,
    /// Somebody said that the vault was restored on purpose: what its record excuses is believed.
    pub(in crate::volume) consent: bool,
    /// Somebody said that the record was lost in a crash: everything may be its trace.
    pub(in crate::volume) all_excused: bool,
}

/// The record of the session that follows.
pub(in crate::volume) fn next(
    record: Option<StateRecord>,
    anchor: Option<&VolumeAnchor>,
    begin: Begin,
) -> StateRecord {
    let freshness = compare(record.as_ref(), anchor);
    let known = anchor.map_or(SessionWord::NONE, |anchor| SessionWord::from_bits(anchor.word));
    let first = if record.is_none() { first_number(begin.now) } else { 0 };
    let record = record.unwrap_or_default();
    let mut cursor = record.valid_cursor();
    let number = (record.word.number().max(known.number()) + 1).max(first);
    // A volume would have to be mounted every second for 136 years to get here.
    let word = SessionWord::new(u32::try_from(number).unwrap_or(u32::MAX), begin.random);
    let mut words = record.words;
    words.push(word);
    words.drain(..words.len().saturating_sub(WORDS));
    let mut unrecovered = record.unrecovered;
    if record.open {
        let mut intents = record.current;
        intents.merge(&record.previous);
        // Whoever copies a vault that is mounted reads most files after the record: what was announced
        // in between is in none of the copy.
        if freshness.needs_consent() || begin.consent {
            intents = Intents::all();
        }
        unrecovered.push(Unrecovered {
            word: record.word,
            counted: false,
            withheld: false,
            span: (record.since.saturating_sub(TICK), begin.now),
            intents,
            listed: false,
            waiting: None,
        });
    }
    let believed_now = begin.consent && unrecovered.iter().any(|crash| crash.withheld);
    if freshness.needs_consent() || believed_now || begin.all_excused {
        // It may be of another history, or of a recovery that did not believe all of these.
        cursor = None;
    }
    for crash in &mut unrecovered {
        crash.withheld = !begin.consent && (crash.withheld || freshness.needs_consent());
    }
    if begin.all_excused {
        unrecovered.push(Unrecovered {
            word: SessionWord::from_bits(word.bits() - 1),
            // It concerns whatever was sealed before this session.
            counted: true,
            withheld: false,
            span: (i64::MIN, begin.now),
            intents: Intents::all(),
            listed: false,
            waiting: None,
        });
    }
    while unrecovered.len() > UNRECOVERED {
        merge_oldest(&mut unrecovered);
    }
    StateRecord {
        sequence: record.sequence + 1,
        word,
        open: true,
        since: begin.now,
        words,
        current: Intents::default(),
        previous: Intents::default(),
        unrecovered,
        cursor,
    }
}

/// The number of a session when no record tells what came before it, though seals in the vault may:
/// above every count of mounts that began at 1, and above the number from the last time this happened,
/// if the clock is right. If it is not, each session brings the files that it changes up to date.
fn first_number(now: i64) -> i64 {
    const QUARTER: i64 = 4_000_000_000;
    FIRST_UNKNOWN + (now / QUARTER).clamp(0, FIRST_UNKNOWN / 2)
}

/// Makes room by merging the two oldest crashes into one that may have changed every file.
fn merge_oldest(crashes: &mut Vec<Unrecovered>) {
    if crashes.len() < 2 {
        return;
    }
    let oldest = crashes.remove(0);
    if let Some(next) = crashes.first_mut() {
        next.intents = Intents::all();
        next.listed = false;
        next.withheld |= oldest.withheld;
        next.counted &= oldest.counted;
        next.span.0 = next.span.0.min(oldest.span.0);
        next.waiting = None;
    }
}

/// What the anchor remembers of a session from its begin on.
pub(in crate::volume) fn anchored(
    record: &StateRecord,
    before: Option<&VolumeAnchor>,
    freshness: Freshness,
) -> VolumeAnchor {
    // Without its record nobody can tell whether the vault is the one that was left.
    let lost = freshness == Freshness::Lost && before.is_some();
    let before = before.cloned().unwrap_or_default();
    VolumeAnchor {
        word: record.word.bits(),
        sequence: record.sequence,
        closed: !record.open,
        features: VolumeFeatures::from_bits(before.features)
            .with(VolumeFeatures::STATE_RECORD)
            .bits(),
        rollbacks: before.rollbacks + u64::from(freshness.needs_consent() || lost),
        ..before
    }
}

/// Numbers from here on are of volumes that lost their record.
const FIRST_UNKNOWN: i64 = 1 << 31;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Counted;
    use crate::id::FileId;

    const NOW: Begin = Begin { now: 100, random: 3, consent: false, all_excused: false };
    const CONSENT: Begin = Begin { consent: true, ..NOW };

    fn word(number: u32) -> SessionWord {
        SessionWord::new(number, number * 7)
    }

    fn record(number: u32, open: bool) -> StateRecord {
        let mut current = Intents::default();
        current.add(FileId::from_bytes([1; 16]));
        StateRecord {
            word: word(number),
            open,
            words: (1..=number).map(word).collect(),
            current,
            ..StateRecord::default()
        }
    }

    fn anchor(number: u32, closed: bool) -> VolumeAnchor {
        VolumeAnchor { word: word(number).bits(), closed, ..VolumeAnchor::default() }
    }

    #[test]
    fn the_table_of_records_and_anchors() {
        use Freshness::{FirstUse, Forked, Lost, Newer, Older, Same};
        let open = record(5, true);
        let closed = record(5, false);
        for (record, anchor, expected) in [
            (None, Some(anchor(5, true)), Lost),
            (None, None, Lost),
            (Some(&open), None, FirstUse),
            (Some(&open), Some(anchor(5, false)), Same),
            (Some(&closed), Some(anchor(5, false)), Same),
            (Some(&closed), Some(anchor(5, true)), Same),
            (Some(&open), Some(anchor(5, true)), Older),
            (Some(&open), Some(anchor(6, true)), Older),
            (Some(&closed), Some(anchor(6, false)), Older),
            (Some(&open), Some(anchor(4, true)), Newer),
            (Some(&closed), Some(anchor(1, false)), Newer),
        ] {
            assert_eq!(compare(record, anchor.as_ref()), expected, "{record:?} {anchor:?}");
        }
        let mended = VolumeAnchor { sequence: 1, ..anchor(5, false) };
        assert_eq!(compare(Some(&open), Some(&mended)), Older, "from before a recovery ended");
        let same = StateRecord { sequence: 1, ..open.clone() };
        assert_eq!(compare(Some(&same), Some(&mended)), Same);
        let later = StateRecord { sequence: 2, ..open.clone() };
        assert_eq!(compare(Some(&later), Some(&mended)), Same, "killed before the anchor was told");
        let before = VolumeAnchor { sequence: 1, ..anchor(4, false) };
        assert_eq!(compare(Some(&open), Some(&before)), Forked, "went on from before it");
        let fork = VolumeAnchor { word: SessionWord::new(5, 1).bits(), ..anchor(5, true) };
        assert_eq!(compare(Some(&open), Some(&fork)), Forked, "one number, two words");
        let fork = VolumeAnchor { word: SessionWord::new(4, 1).bits(), ..anchor(4, true) };
        assert_eq!(compare(Some(&open), Some(&fork)), Forked, "the anchor's session is not in it");
    }

    #[test]
    fn a_damaged_copy_of_the_record_that_closed_a_session_is_told_from_the_other() {
        let crashed = next(Some(record(4, true)), Some(&anchor(4, false)), NOW);
        let open = StateRecord { sequence: 8, ..crashed };
        let known = anchored(&open, None, Freshness::Same);
        let known = VolumeAnchor { closed: true, sequence: 9, ..known };
        let told = closing(&open, Some(&known)).unwrap();
        assert_eq!(compare(Some(&told), Some(&known)), Freshness::Same);
        let following = next(Some(told), Some(&known), NOW);
        let [crash] = &following.unrecovered[..] else { panic!("{following:?}") };
        assert!(crash.word == word(4) && crash.withheld, "the session itself ended");
        for other in [
            VolumeAnchor { closed: false, ..known.clone() },
            VolumeAnchor { sequence: 8, ..known.clone() },
            VolumeAnchor { sequence: 10, ..known.clone() },
            anchor(4, true),
        ] {
            assert!(closing(&open, Some(&other)).is_none(), "{other:?}");
        }
        assert!(closing(&open, None).is_none());
        assert!(closing(&StateRecord { open: false, ..open }, Some(&known)).is_none());
    }

    #[test]
    fn a_crash_is_excused_once_and_a_replayed_one_is_not() {
        let excused = |next: &StateRecord| {
            let open = next.unrecovered.iter().filter(|crash| !crash.withheld);
            open.map(|crash| crash.word).collect::<Vec<_>>()
        };
        let crashed = next(Some(record(5, true)), Some(&anchor(5, false)), NOW);
        assert_eq!(excused(&crashed), [word(5)]);
        assert!(crashed.word.number() == 6 && crashed.open && crashed.current.is_empty());
        let clean = next(Some(record(5, false)), Some(&anchor(5, false)), NOW);
        assert!(clean.unrecovered.is_empty());
        let replayed = next(Some(record(5, true)), Some(&anchor(5, true)), NOW);
        assert!(excused(&replayed).is_empty());
        let kept =
            next(Some(replayed.clone()), Some(&anchored(&replayed, None, Freshness::Same)), NOW);
        assert_eq!(excused(&kept), [replayed.word], "withheld is withheld at the next mount too");
        let agreed = next(Some(replayed), None, CONSENT);
        assert_eq!(agreed.unrecovered.len(), 2);
        assert_eq!(excused(&agreed)[0], word(5), "by consent");
        let lost = next(None, Some(&anchor(9, false)), NOW);
        assert!(lost.unrecovered.is_empty() && lost.word.number() >= FIRST_UNKNOWN);
    }

    #[test]
    fn without_a_record_sessions_are_counted_from_above_all_that_came_before() {
        let at = |now: i64, record: Option<StateRecord>| {
            next(record, None, Begin { now, ..NOW }).word.number()
        };
        let day = 86_400_000_000_000;
        let lost = at(20_000 * day, None);
        assert!(lost > i64::from(u32::MAX / 2), "above every count from 1");
        assert!(at(20_001 * day, None) > lost + 10_000, "above what followed the last loss");
        let (wrong, far) = (at(-day, None), at(i64::MAX, None));
        assert!(
            wrong >= FIRST_UNKNOWN && far < i64::from(u32::MAX / 16 * 15),
            "whatever the clock"
        );
        assert_eq!(at(0, Some(record(5, false))), 6, "a record tells");
        let ahead = VolumeAnchor { word: SessionWord::new(3 << 30, 1).bits(), ..anchor(1, true) };
        let lost = next(None, Some(&ahead), NOW);
        assert_eq!(lost.word.number(), (3 << 30) + 1, "and so does the keystore");
    }

    #[test]
    fn a_record_has_room_for_a_crash_at_every_mount() {
        let mut record = record(1, true);
        for number in 0..50 {
            record = next(Some(record), None, Begin { random: number, ..NOW });
            assert!(record.unrecovered.len() <= UNRECOVERED && record.words.len() <= WORDS);
        }
        assert!(record.unrecovered[0].intents.is_all());
    }

    #[test]
    fn counts_of_old_volumes_go_on_as_words() {
        let counted = Counted { number: 1_800_000_000_000_000_000, crashed: 12, span: (1, 2) };
        let next = next(Some(counted.record()), None, NOW);
        assert!(next.word.bits() > counted.number, "later than every seal");
        assert!(
            next.unrecovered[0].announced(FileId::from_bytes([9; 16]), SessionWord::from_bits(12))
        );
        assert!(
            !next.unrecovered[0].announced(FileId::from_bytes([9; 16]), SessionWord::from_bits(13))
        );
    }
}

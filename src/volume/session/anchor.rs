//! Where the anchor of a volume is kept: in the keystore, or in a file of this machine when the keys
//! come from elsewhere or the keystore cannot be written.

use std::collections::HashMap;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::crypto::hash::{hmac_sha256, hmac_verify};
use crate::envelope::{SessionWord, VolumeKeys};
use crate::id::{DirId, VolumeId};
use crate::keystore::{AnchoredDirPolicy, VolumeAnchor};
use crate::volume::backing::beneath::BackingName;
use crate::volume::backing::own_file;
use crate::volume::keys::service::KeyService;
use crate::volume::model::error::{Result, VolumeError};

const MAC_LEN: usize = 32;
/// Bytes of a file at most: an anchor names every directory with a policy of its own.
const ANCHOR_MAX: usize = 16 << 20;

/// The stores that remember a volume, out of reach of whoever writes to the vault.
pub(in crate::volume) struct AnchorStore {
    volume: VolumeId,
    vault: PathBuf,
    service: Arc<dyn KeyService>,
    /// A directory of this machine's, for a file beside or instead of the keystore.
    directory: Option<PathBuf>,
    /// The number of the last write, also of one that failed: it may have arrived all the same.
    written: Mutex<u64>,
}

impl AnchorStore {
    /// The stores for the volume in the directory `vault`.
    pub(in crate::volume) fn new(
        volume: VolumeId,
        vault: &Path,
        service: Arc<dyn KeyService>,
        directory: Option<PathBuf>,
    ) -> Self {
        let written = Mutex::default();
        Self { volume, vault: vault.to_owned(), service, directory, written }
    }

    /// What is remembered of the volume by both stores together.
    ///
    /// # Errors
    /// `Keystore` when it cannot be read. A file that is not authentic is as good as none.
    pub(in crate::volume) fn load(&self, keys: &VolumeKeys) -> Result<Option<VolumeAnchor>> {
        let kept = match self.service.keystore() {
            Some(keystore) => keystore.volume_anchor(self.volume),
            None => Ok(None),
        };
        let kept = kept.map_err(|error| VolumeError::Keystore(Box::new(error)))?;
        let filed = self.read_file(keys)?;
        Ok(match (kept, filed) {
            (Some(kept), Some(filed)) => Some(later(kept, filed)),
            (one, other) => one.or(other),
        })
    }

    /// Remembers this, durably, together with what another copy of the vault has brought there
    /// since. Returns what is remembered, as far as it is this session's.
    ///
    /// One store takes all of it. What the other one has is older then, and says so by its number: the
    /// file stays, for whoever mounts the volume with keys of an endpoint.
    ///
    /// # Errors
    /// `Unanchored` when no store takes it.
    pub(in crate::volume) fn store(
        &self,
        anchor: &VolumeAnchor,
        keys: &VolumeKeys,
        standing: Standing<'_>,
    ) -> Result<VolumeAnchor> {
        let mut ours = anchor.clone();
        let mut join = |stored: Option<VolumeAnchor>| {
            let both = joined(stored, &mut ours, standing);
            ours.writes = self.next_write(ours.writes);
            VolumeAnchor { writes: ours.writes, ..both }
        };
        let refused = match self.service.keystore() {
            Some(keystore) => {
                match keystore.change_volume_anchor(self.volume, &self.vault, &mut join) {
                    Ok(()) => return Ok(ours),
                    Err(error) => error.to_string(),
                }
            }
            None => "the keys are from another machine".to_owned(),
        };
        let Some(directory) = &self.directory else {
            return Err(VolumeError::Unanchored(refused));
        };
        if self.service.keystore().is_some() {
            log::warn!("the keystore does not remember this session, a file does: {refused}");
        }
        let mut bytes = vec![0; MAC_LEN];
        let both = join(self.read_file(keys)?);
        bytes.extend(serde_json::to_vec(&both).unwrap_or_default());
        let (mac, text) = bytes.split_at_mut(MAC_LEN);
        mac.copy_from_slice(&hmac_sha256(keys.anchor_mac(), &[text]));
        let written = open_or_make(directory)
            .and_then(|directory| Ok(own_file::replace(&directory, &self.file_name()?, &bytes)?));
        written.map(|()| ours).map_err(|error| {
            VolumeError::Unanchored(format!("{refused}; {}: {error}", directory.display()))
        })
    }

    /// The number of a write after one with the number `known`.
    fn next_write(&self, known: u64) -> u64 {
        let mut last = self.written.lock();
        *last = known.max(*last).saturating_add(1);
        *last
    }

    fn read_file(&self, keys: &VolumeKeys) -> Result<Option<VolumeAnchor>> {
        let Some(directory) = &self.directory else { return Ok(None) };
        let directory = match File::open(directory) {
            Err(error) if is_missing(&error) => return Ok(None),
            other => other?,
        };
        let bytes = own_file::read(&directory, &self.file_name()?, (ANCHOR_MAX, "anchor"))?;
        let Some(bytes) = bytes else { return Ok(None) };
        let anchor = bytes.split_first_chunk::<MAC_LEN>().and_then(|(mac, text)| {
            hmac_verify(keys.anchor_mac(), &[text], mac).ok()?;
            serde_json::from_slice(text).ok()
        });
        if anchor.is_none() {
            log::error!("the file that remembers volume {} is not authentic", self.volume);
        }
        Ok(anchor)
    }

    fn file_name(&self) -> Result<BackingName> {
        BackingName::new(format!("{}.anchor", self.volume).into_bytes()).ok_or(VolumeError::Stale)
    }
}

/// How a session stands to what is remembered.
#[derive(Debug, Clone, Copy)]
pub(in crate::volume) enum Standing<'a> {
    /// The session begins: from here on its word is the last one.
    Begins,
    /// The session has begun, after those with these words.
    Follows(&'a [SessionWord]),
}

/// What is remembered once `ours` is added to what is `stored`; `ours` learns what it did not know.
///
/// The newest of each stays: a session of another copy may have begun since, and its word, and what
/// it told of policies, must not go back to what this one knew. A store that took nothing since long
/// before this session is no such copy.
fn joined(
    stored: Option<VolumeAnchor>,
    ours: &mut VolumeAnchor,
    standing: Standing<'_>,
) -> VolumeAnchor {
    let Some(stored) = stored else { return ours.clone() };
    add_policies(&mut ours.policies, stored.policies, Order::Known);
    ours.features |= stored.features;
    ours.rollbacks = ours.rollbacks.max(stored.rollbacks);
    ours.writes = ours.writes.max(stored.writes);
    let word = SessionWord::from_bits(stored.word);
    let is_no_earlier = word.number() >= SessionWord::from_bits(ours.word).number();
    match standing {
        Standing::Follows(words)
            if stored.word != ours.word && is_no_earlier && !words.contains(&word) =>
        {
            log::warn!("another copy of the vault was used since: its session is remembered");
            let (word, sequence, closed) = (stored.word, stored.sequence, stored.closed);
            VolumeAnchor { word, sequence, closed, ..ours.clone() }
        }
        _ => ours.clone(),
    }
}

/// Whether it is known which of two anchors was written later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Known,
    Unknown,
}

/// What is remembered by two stores together. Either may have missed something, because its disk was
/// full for a while, and in that time two copies of the vault may have been used, one with each.
///
/// The session is the later one. Of the two, the anchor that was written last knows which directory is
/// at a place: in the other, a place may be missing, or be one that was given up. If that cannot be
/// told, only what both say of places counts, so that no directory is refused which the mount moved.
/// What only grows is taken from both.
fn later(one: VolumeAnchor, other: VolumeAnchor) -> VolumeAnchor {
    let number = |anchor: &VolumeAnchor| SessionWord::from_bits(anchor.word).number();
    let written = |anchor: &VolumeAnchor| (number(anchor), anchor.writes);
    let is_counted = one.writes > 0 && other.writes > 0;
    let same_number = number(&one) == number(&other);
    let order = match same_number && (!is_counted || one.writes == other.writes) {
        true => Order::Unknown,
        false => Order::Known,
    };
    let (mut newer, older) =
        if written(&other) > written(&one) { (other, one) } else { (one, other) };
    if newer.word == older.word {
        // A session is closed after it was open, and its record only goes on.
        newer.closed |= older.closed;
        newer.sequence = newer.sequence.max(older.sequence);
    }
    if order == Order::Unknown {
        newer.places.retain(|place| older.places.contains(place));
    }
    newer.features |= older.features;
    newer.rollbacks = newer.rollbacks.max(older.rollbacks);
    newer.writes = newer.writes.max(older.writes);
    add_policies(&mut newer.policies, older.policies, order);
    newer
}

/// Adds what another anchor tells of directories. The sequence of a descriptor goes up, whoever tells
/// of it. Of two with the same, the newer anchor knows whether the directory was removed, or was found
/// again after that; if nobody knows which that is, it counts as removed.
fn add_policies(newer: &mut Vec<AnchoredDirPolicy>, others: Vec<AnchoredDirPolicy>, order: Order) {
    let position = |(at, policy): (usize, &AnchoredDirPolicy)| (policy.directory, at);
    let known: HashMap<DirId, usize> = newer.iter().enumerate().map(position).collect();
    for policy in others {
        let known = known.get(&policy.directory).and_then(|at| newer.get_mut(*at));
        match known {
            Some(known) if policy.sequence > known.sequence => *known = policy,
            Some(known) if policy.sequence == known.sequence && order == Order::Unknown => {
                known.removed = known.removed.max(policy.removed);
            }
            Some(_) => {}
            None => newer.push(policy),
        }
    }
    AnchoredDirPolicy::forget_long_removed(newer);
}

fn is_missing(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::PermissionDenied
    )
}

fn open_or_make(directory: &Path) -> Result<File> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    Ok(File::open(directory)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{DirId, DirPlace};
    use crate::keystore::AnchoredPlace;

    fn policy(directory: u8, sequence: u64) -> AnchoredDirPolicy {
        AnchoredDirPolicy { directory: DirId::from_bytes([directory; 16]), sequence, removed: 0 }
    }

    fn anchor(number: u32, policies: Vec<AnchoredDirPolicy>) -> VolumeAnchor {
        let word = SessionWord::new(number, 7).bits();
        VolumeAnchor { word, sequence: 20, policies, ..VolumeAnchor::default() }
    }

    /// The keystore's disk was full when a policy was set: only the file had it, and the older directory
    /// came back unnoticed.
    #[test]
    fn regression_what_one_store_missed_within_a_session_is_taken_from_the_other() {
        let stale = anchor(5, vec![policy(1, 3), policy(2, 8)]);
        let mut whole = anchor(5, vec![policy(2, 8), policy(1, 4), policy(3, 1)]);
        whole.rollbacks = 2;
        for (one, other) in [(stale.clone(), whole.clone()), (whole, stale)] {
            let mut merged = later(one, other);
            merged.policies.sort_by_key(|policy| *policy.directory.as_bytes());
            assert_eq!(merged.policies, [policy(1, 4), policy(2, 8), policy(3, 1)]);
            assert_eq!(merged.rollbacks, 2);
        }
        // A directory that is gone stays gone.
        let gone = AnchoredDirPolicy { removed: 1, ..policy(1, 3) };
        let merged = later(anchor(5, vec![policy(1, 3)]), anchor(5, vec![gone]));
        assert_eq!(merged.policies, [gone]);
    }

    #[test]
    fn what_another_copy_has_told_since_does_not_go_back() {
        let mut ours = anchor(5, vec![policy(1, 3), policy(2, 8)]);
        ours.closed = true;
        let theirs = anchor(6, vec![policy(1, 4), policy(2, 6), policy(3, 1)]);
        let words = [SessionWord::new(4, 7), SessionWord::new(5, 7)];
        let both = joined(Some(theirs.clone()), &mut ours, Standing::Follows(&words));
        let newest = vec![policy(1, 4), policy(2, 8), policy(3, 1)];
        assert_eq!((both.word, both.closed, &both.policies), (theirs.word, false, &newest));
        assert_eq!(ours.policies, newest, "and is known here from now on");
        assert_eq!(ours.word, SessionWord::new(5, 7).bits());
    }

    fn at(place: u8, directory: u8) -> AnchoredPlace {
        let (place, directory) =
            (DirPlace::from_bytes([place; 16]), DirId::from_bytes([directory; 16]));
        AnchoredPlace { place, directory }
    }

    /// Whatever only one store had heard of in a session was dropped, and an older directory came to
    /// the place of one with its own key.
    #[test]
    fn regression_of_two_stores_of_one_session_the_one_that_was_written_last_knows_the_places() {
        let stale = VolumeAnchor {
            places: vec![at(1, 1), at(2, 2)],
            policies: vec![AnchoredDirPolicy { removed: 7, ..policy(1, 3) }, policy(9, 2)],
            closed: true,
            writes: 40,
            ..anchor(5, Vec::new())
        };
        let newest = VolumeAnchor {
            places: vec![at(2, 4), at(3, 3)],
            policies: vec![policy(1, 3)],
            writes: 41,
            ..anchor(5, Vec::new())
        };
        for merged in [later(stale.clone(), newest.clone()), later(newest.clone(), stale)] {
            assert_eq!(merged.places, newest.places);
            assert_eq!(merged.policies, [policy(1, 3), policy(9, 2)], "it was found again");
            assert!(merged.closed && merged.writes == 41);
        }
    }

    /// The keystore's disk was full when a session began in a copy of the vault, and what the other
    /// session had told the file of policies was dropped with its word.
    #[test]
    fn regression_what_an_earlier_session_told_of_policies_stays() {
        let earlier = VolumeAnchor {
            places: vec![at(1, 1)],
            policies: vec![
                policy(1, 9),
                policy(2, 1),
                AnchoredDirPolicy { removed: 3, ..policy(3, 2) },
            ],
            features: 6,
            rollbacks: 3,
            closed: true,
            writes: 50,
            ..anchor(5, Vec::new())
        };
        let later_session = VolumeAnchor {
            places: vec![at(4, 4)],
            policies: vec![policy(1, 4), policy(3, 2)],
            features: 1,
            rollbacks: 1,
            writes: 48,
            ..anchor(6, Vec::new())
        };
        let both = VolumeAnchor {
            policies: vec![policy(1, 9), policy(3, 2), policy(2, 1)],
            features: 7,
            rollbacks: 3,
            writes: 50,
            ..later_session.clone()
        };
        assert_eq!(later(earlier.clone(), later_session.clone()), both);
        assert_eq!(later(later_session, earlier), both);
    }

    /// A file from long ago was taken for a copy of the vault, and what was written to it counted as
    /// older than the keystore.
    #[test]
    fn regression_a_store_that_missed_many_sessions_is_no_copy_of_the_vault() {
        let words: Vec<_> = (15..=30).map(|number| SessionWord::new(number, 7)).collect();
        let mut ours = VolumeAnchor { writes: 90, ..anchor(30, Vec::new()) };
        let stale = VolumeAnchor { writes: 12, closed: true, ..anchor(3, vec![policy(1, 3)]) };
        let both = joined(Some(stale), &mut ours, Standing::Follows(&words));
        assert_eq!(both, VolumeAnchor { writes: 90, ..anchor(30, vec![policy(1, 3)]) });
    }

    /// An earlier build does not count, and leaves the number out.
    #[test]
    fn of_two_stores_of_one_session_that_nobody_can_order_only_what_both_say_of_places_counts() {
        for (one, other) in [(0, 0), (0, 7), (7, 7)] {
            let kept = VolumeAnchor {
                places: vec![at(1, 1), at(2, 2)],
                writes: one,
                ..anchor(5, Vec::new())
            };
            let filed = VolumeAnchor {
                places: vec![at(2, 2), at(3, 3)],
                writes: other,
                ..anchor(5, Vec::new())
            };
            assert_eq!(later(kept.clone(), filed.clone()).places, [at(2, 2)]);
            assert_eq!(later(filed, kept).places, [at(2, 2)]);
        }
        // Of two sessions the later one knows.
        let before = VolumeAnchor { places: vec![at(1, 1)], writes: 7, ..anchor(5, Vec::new()) };
        let after = VolumeAnchor { places: vec![at(2, 2)], ..anchor(6, Vec::new()) };
        assert_eq!(later(before, after).places, [at(2, 2)]);
    }

    #[test]
    fn an_earlier_session_is_followed_and_none_stands_in_the_way_of_a_new_one() {
        let words = [SessionWord::new(4, 7), SessionWord::new(5, 7)];
        for (stored, standing) in [
            (None, Standing::Follows(&words)),
            (Some(anchor(5, Vec::new())), Standing::Follows(&words)),
            (Some(anchor(4, Vec::new())), Standing::Follows(&words)),
            (Some(anchor(9, Vec::new())), Standing::Begins),
        ] {
            let mut ours = VolumeAnchor { closed: true, ..anchor(5, Vec::new()) };
            let expected = ours.clone();
            assert_eq!(joined(stored, &mut ours, standing), expected);
        }
    }
}

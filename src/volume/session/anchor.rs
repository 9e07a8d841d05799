//! Where the anchor of a volume is kept: in the keystore, or in a file of this machine when the keys
//! come from elsewhere or the keystore cannot be written.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::crypto::hash::{hmac_sha256, hmac_verify};
use crate::envelope::{SessionWord, VolumeKeys};
use crate::id::VolumeId;
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
}

impl AnchorStore {
    /// The stores for the volume in the directory `vault`.
    pub(in crate::volume) fn new(
        volume: VolumeId,
        vault: &Path,
        service: Arc<dyn KeyService>,
        directory: Option<PathBuf>,
    ) -> Self {
        Self { volume, vault: vault.to_owned(), service, directory }
    }

    /// What is remembered of the volume: of two stores, what was written later.
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
    /// # Errors
    /// `Unanchored` when no store takes it.
    pub(in crate::volume) fn store(
        &self,
        anchor: &VolumeAnchor,
        keys: &VolumeKeys,
        standing: Standing<'_>,
    ) -> Result<VolumeAnchor> {
        let mut ours = anchor.clone();
        let mut join = |stored: Option<VolumeAnchor>| joined(stored, &mut ours, standing);
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
/// it told of policies, must not go back to what this one knew.
fn joined(
    stored: Option<VolumeAnchor>,
    ours: &mut VolumeAnchor,
    standing: Standing<'_>,
) -> VolumeAnchor {
    let Some(stored) = stored else { return ours.clone() };
    for policy in stored.policies {
        match ours.policies.iter_mut().find(|own| own.directory == policy.directory) {
            Some(own) => own.sequence = own.sequence.max(policy.sequence),
            None => ours.policies.push(policy),
        }
    }
    AnchoredDirPolicy::forget_long_removed(&mut ours.policies);
    ours.features |= stored.features;
    ours.rollbacks = ours.rollbacks.max(stored.rollbacks);
    let word = SessionWord::from_bits(stored.word);
    match standing {
        Standing::Follows(words) if stored.word != ours.word && !words.contains(&word) => {
            log::warn!("another copy of the vault was used since: its session is remembered");
            let (word, sequence, closed) = (stored.word, stored.sequence, stored.closed);
            VolumeAnchor { word, sequence, closed, ..ours.clone() }
        }
        _ => ours.clone(),
    }
}

/// What was written later, of what two stores remember. Within a session either may have missed
/// something, because its disk was full for a while.
fn later(mut one: VolumeAnchor, other: VolumeAnchor) -> VolumeAnchor {
    let number = |anchor: &VolumeAnchor| anchor.word >> 31;
    if one.word == other.word {
        // A session is closed after it was open.
        let closed = one.closed || other.closed;
        let sequence = one.sequence.max(other.sequence);
        let features = one.features | other.features;
        // One may have missed that a place was given up.
        let places =
            one.places.iter().filter(|place| other.places.contains(place)).copied().collect();
        let rollbacks = one.rollbacks.max(other.rollbacks);
        let policies = later_policies(std::mem::take(&mut one.policies), other.policies);
        return VolumeAnchor { closed, sequence, features, places, policies, rollbacks, ..one };
    }
    if number(&other) > number(&one) { other } else { one }
}

/// Of each directory what was told last: the sequence of its descriptor goes up, and a removal comes
/// after it.
fn later_policies(
    mut one: Vec<AnchoredDirPolicy>,
    other: Vec<AnchoredDirPolicy>,
) -> Vec<AnchoredDirPolicy> {
    for policy in other {
        match one.iter_mut().find(|known| known.directory == policy.directory) {
            Some(known) => {
                let last = |policy: &AnchoredDirPolicy| (policy.sequence, policy.removed);
                if last(&policy) > last(known) {
                    *known = policy;
                }
            }
            None => one.push(policy),
        }
    }
    AnchoredDirPolicy::forget_long_removed(&mut one);
    one
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

    #[test]
    fn of_two_places_that_remember_one_session_only_what_both_say_of_directories_counts() {
        let at = |number: u8| AnchoredPlace {
            place: DirPlace::from_bytes([number; 16]),
            directory: DirId::from_bytes([number; 16]),
        };
        let kept = VolumeAnchor { places: vec![at(1), at(2)], ..anchor(5, Vec::new()) };
        let filed = VolumeAnchor { places: vec![at(2), at(3)], ..anchor(5, Vec::new()) };
        assert_eq!(later(kept, filed).places, [at(2)]);
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

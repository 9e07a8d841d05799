//! What a directory must say of itself in the place where it is found (FORMAT section 7.1).
//!
//! Whoever can write to the vault can exchange directories, put old ones back and copy them. So a
//! descriptor names the places that it is good for, what it inherits has to be what the directory
//! above has, and the newest policies are remembered outside of the vault.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::occupants::Occupants;
use crate::envelope::{CrossMode, DirDescriptor, DirPlace, VolumeFeatures};
use crate::id::{DirId, VolumeId};
use crate::keystore::{AnchoredDirPolicy, VolumeAnchor};
use crate::volume::model::dir_policy::{DirPolicy, inheriting, kept_keys};
use crate::volume::model::misplaced::Misplaced;

/// What is known of directories from outside of the vault.
#[derive(Debug, Default)]
pub(in crate::volume) struct DirAnchor {
    all_placed: AtomicBool,
    policies: Mutex<DirPolicies>,
    pub(in crate::volume) occupants: Occupants,
}

#[derive(Debug, Default)]
struct DirPolicies {
    newest: HashMap<DirId, Newest>,
    /// The turn of the last directory that was removed.
    last_removed: u64,
    unsaved: bool,
}

/// The newest policy of a directory, and its turn among the removed ones if it was removed.
#[derive(Debug, Clone, Copy, Default)]
struct Newest {
    sequence: u32,
    removed: u64,
}

impl DirAnchor {
    /// True once every directory of the volume must say where it belongs.
    pub(in crate::volume) fn all_placed(&self) -> bool {
        self.all_placed.load(Ordering::Acquire)
    }

    /// What is remembered of a volume, whose own descriptor has `features`.
    ///
    /// A volume that was put back on purpose may be from before its directories had places.
    pub(in crate::volume) fn of(
        anchor: Option<&VolumeAnchor>,
        features: VolumeFeatures,
        restored: bool,
    ) -> Self {
        let known = Self::default();
        let remembered = anchor.map_or(0, |anchor| if restored { 0 } else { anchor.features });
        if features.with(VolumeFeatures::from_bits(remembered)).has(VolumeFeatures::PLACED) {
            known.set_all_placed();
        }
        let policies = anchor.map_or(&[][..], |anchor| &anchor.policies);
        let newest = policies.iter().map(|policy| {
            let sequence = u32::try_from(policy.sequence).unwrap_or(u32::MAX);
            (policy.directory, Newest { sequence, removed: policy.removed })
        });
        let last_removed = policies.iter().map(|policy| policy.removed).max().unwrap_or(0);
        known.policies().newest.extend(newest);
        known.policies().last_removed = last_removed;
        known.occupants.remember(anchor.map_or(&[][..], |anchor| &anchor.places));
        known
    }

    /// From here on directories that do not say where they belong are refused.
    pub(in crate::volume) fn set_all_placed(&self) {
        self.all_placed.store(true, Ordering::Release);
    }

    /// Notes what an authentic descriptor says, if an older descriptor of its directory would make
    /// files of other keys acceptable again: it has a policy of its own, or keeps keys that the
    /// directory above does not have, or it once did.
    pub(in crate::volume) fn note(&self, stored: &DirDescriptor) {
        let own = !stored.inherited || !kept_keys(stored).is_empty();
        if own || self.newest(stored.dir) > 0 {
            self.raise(stored.dir, stored.policy_sequence);
        }
    }

    /// Notes the newest policy of a directory.
    fn raise(&self, dir: DirId, sequence: u32) {
        let mut policies = self.policies();
        let known = policies.newest.get(&dir).copied().unwrap_or_default();
        // A directory that is there was not removed, or its removal did not reach the disk.
        if known.sequence < sequence || known.removed > 0 {
            let sequence = known.sequence.max(sequence);
            policies.newest.insert(dir, Newest { sequence, removed: 0 });
            policies.unsaved = true;
        }
    }

    /// Notes that a directory was removed: in time, other directories take its room in the keystore,
    /// which does not grow for ever.
    pub(in crate::volume) fn removed(&self, dir: DirId) {
        let mut policies = self.policies();
        let turn = policies.last_removed.saturating_add(1);
        if let Some(newest) = policies.newest.get_mut(&dir) {
            newest.removed = turn;
            policies.last_removed = turn;
            policies.unsaved = true;
        }
    }

    /// True if nothing is remembered of any directory.
    pub(in crate::volume) fn is_empty(&self) -> bool {
        self.policies().newest.is_empty()
    }

    /// The newest policy that was noted of a directory; 0 if none was.
    pub(in crate::volume) fn newest(&self, dir: DirId) -> u32 {
        self.policies().newest.get(&dir).map_or(0, |newest| newest.sequence)
    }

    /// All newest policies, if any has come since the last call.
    pub(in crate::volume) fn take_unsaved(&self) -> Option<Vec<AnchoredDirPolicy>> {
        let mut policies = self.policies();
        if !std::mem::take(&mut policies.unsaved) {
            return None;
        }
        let policy = |(dir, newest): (&DirId, &Newest)| AnchoredDirPolicy {
            directory: *dir,
            sequence: u64::from(newest.sequence),
            removed: newest.removed,
        };
        let mut all: Vec<_> = policies.newest.iter().map(policy).collect();
        AnchoredDirPolicy::forget_long_removed(&mut all);
        if all.len() < policies.newest.len() {
            let kept: HashSet<_> = all.iter().map(|policy| policy.directory).collect();
            policies.newest.retain(|dir, _| kept.contains(dir));
        }
        all.sort_by_key(|policy| policy.directory);
        Some(all)
    }

    /// What was taken could not be saved.
    pub(in crate::volume) fn give_back(&self) {
        self.policies().unsaved = true;
    }

    fn policies(&self) -> MutexGuard<'_, DirPolicies> {
        self.policies.lock()
    }
}

/// What a directory must say of itself where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::volume) enum Expected {
    /// Below a directory that can be used, or the root.
    At(DirPlace, Above),
    /// Below one that cannot: nothing belongs there.
    Nothing,
    /// It was removed, and is only still open.
    Removed,
}

/// What is above a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::volume) enum Above {
    /// Nothing: it is the root.
    Volume,
    /// A directory with these keys.
    Keys(DirPolicy),
    /// A directory whose own key cannot be used now: nobody vouches for what it says of keys.
    Locked,
}

impl Expected {
    /// What the root of a volume must say.
    pub(in crate::volume) fn root(volume: VolumeId) -> Self {
        Self::At(DirPlace::root(volume), Above::Volume)
    }

    /// True if a descriptor was made for this place, by its claims.
    pub(in crate::volume) fn suits(&self, claims: &DirDescriptor) -> bool {
        match self {
            Self::At(place, _) => claims.belongs_at(*place),
            Self::Nothing | Self::Removed => true,
        }
    }

    /// The descriptor as it counts in this place.
    ///
    /// # Errors
    /// Why it does not count here.
    pub(in crate::volume) fn admit(
        &self,
        stored: &DirDescriptor,
        anchor: &DirAnchor,
    ) -> Result<DirDescriptor, Misplaced> {
        let (place, above) = match self {
            Self::At(place, above) => (*place, above),
            Self::Nothing => return Err(Misplaced::Above),
            Self::Removed => return Ok(stored.clone()),
        };
        if stored.places.is_none() && anchor.all_placed() {
            return Err(Misplaced::Unplaced);
        }
        if !stored.belongs_at(place) {
            return Err(Misplaced::Elsewhere);
        }
        if stored.policy_sequence < anchor.newest(stored.dir) {
            return Err(Misplaced::Older);
        }
        if anchor.occupants.is_anothers(place, stored.dir) {
            return Err(Misplaced::Taken);
        }
        if !stored.inherited {
            return Ok(stored.clone());
        }
        match above {
            Above::Volume => Err(Misplaced::Keys),
            Above::Locked => Err(Misplaced::Above),
            // Before places, a directory that moved took its keys with it and was still said to
            // inherit them.
            Above::Keys(keys) if stored.places.is_none() => {
                Ok(DirDescriptor { inherited: keys.suits(stored, stored), ..stored.clone() })
            }
            Above::Keys(keys) => keys.inherited_by(stored).ok_or(Misplaced::Keys),
        }
    }
}

impl Expected {
    /// The descriptor to write when a directory changes from `now` to `new`.
    pub(in crate::volume) fn written(
        &self,
        new: DirDescriptor,
        now: [&DirDescriptor; 2],
    ) -> DirDescriptor {
        let Self::At(_, Above::Keys(above)) = self else { return new };
        if !new.inherited {
            return new;
        }
        let mut kept = Vec::new();
        if now.iter().any(|now| now.cross == CrossMode::Keep) {
            kept.extend(new.previous.iter().filter(|key| !above.accepts(**key)));
        }
        inheriting(new, kept)
    }
}

/// What a directory can say of those below it.
#[derive(Debug, Clone)]
pub(in crate::volume) enum Authority {
    /// It was verified.
    Verified(DirId, DirPolicy),
    /// Its key cannot be used: this is what it claims to be. Whoever forges that gains a directory in
    /// which nothing has a name and nothing can be made.
    Locked(DirId),
    /// None: it is damaged, or not in its own place.
    None,
}

impl Authority {
    /// What a directory found under the backing name `entry` must say.
    pub(in crate::volume) fn expects(&self, entry: &[u8]) -> Expected {
        match self {
            Self::Verified(dir, keys) => {
                Expected::At(DirPlace::below(*dir, entry), Above::Keys(keys.clone()))
            }
            Self::Locked(dir) => Expected::At(DirPlace::below(*dir, entry), Above::Locked),
            Self::None => Expected::Nothing,
        }
    }
}

/// What an open directory says of those below it, kept up to date by whoever changes its descriptor.
#[derive(Debug)]
pub(in crate::volume) struct LiveAuthority(Mutex<Authority>);

impl LiveAuthority {
    pub(in crate::volume) fn new(authority: Authority) -> Self {
        Self(Mutex::new(authority))
    }

    pub(in crate::volume) fn now(&self) -> Authority {
        self.0.lock().clone()
    }

    /// Updates it to this descriptor.
    pub(in crate::volume) fn become_of(&self, descriptor: &DirDescriptor) {
        let now = Authority::Verified(descriptor.dir, DirPolicy::of(descriptor));
        *self.0.lock() = now;
    }
}

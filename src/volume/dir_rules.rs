//! What a directory must say of itself in the place where it is found (FORMAT section 7.1).
//!
//! Whoever can write to the vault can exchange directories, put old ones back and copy them. So a
//! descriptor names the places that it is good for, what it inherits has to be what the directory
//! above has, and the newest policies are remembered outside of the vault.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::envelope::{CrossMode, DirDescriptor, DirPlace, VolumeFeatures};
use crate::id::{DirId, KeyId, VolumeId};
use crate::keystore::{AnchoredPolicy, VolumeAnchor};

/// Why an authentic directory cannot be used where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misplaced {
    /// Its descriptor was made for another place.
    Elsewhere,
    /// It has the keys of the directory above, and that one has others.
    Keys,
    /// Its key policy has been changed since it was made.
    Older,
    /// It is from before directories said where they belong, and all others of the volume do.
    Unplaced,
    /// The directory above cannot be used, so nobody can say what belongs below it.
    Above,
}

impl fmt::Display for Misplaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Elsewhere => "it was made for another place: exchanged, moved or copied outside",
            Self::Keys => "it inherits keys that the directory above does not have",
            Self::Older => "its key policy has been changed since: an older one was put back",
            Self::Unplaced => "it does not say where it belongs: an older one was put back",
            Self::Above => "the directory above it cannot be used",
        })
    }
}

/// What is known of directories from outside of the vault.
#[derive(Debug, Default)]
pub(super) struct DirAnchor {
    all_placed: AtomicBool,
    policies: Mutex<Policies>,
}

#[derive(Debug, Default)]
struct Policies {
    newest: HashMap<DirId, u32>,
    unsaved: bool,
}

impl DirAnchor {
    /// True once every directory of the volume says where it belongs.
    pub(super) fn all_placed(&self) -> bool {
        self.all_placed.load(Ordering::Acquire)
    }

    /// What is remembered of a volume, whose own descriptor has `features`.
    ///
    /// A volume that was put back on purpose may be from before its directories had places.
    pub(super) fn of(
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
        let newest = policies
            .iter()
            .map(|policy| (policy.directory, u32::try_from(policy.sequence).unwrap_or(u32::MAX)));
        known.policies().newest.extend(newest);
        known
    }

    /// From here on directories that do not say where they belong are refused.
    pub(super) fn set_all_placed(&self) {
        self.all_placed.store(true, Ordering::Release);
    }

    /// Notes what an authentic descriptor with a policy of its own says.
    pub(super) fn raise(&self, dir: DirId, sequence: u32) {
        let mut policies = self.policies();
        if policies.newest.get(&dir).copied().unwrap_or(0) < sequence {
            policies.newest.insert(dir, sequence);
            policies.unsaved = true;
        }
    }

    /// The newest policy of a directory that had one of its own; 0 for others.
    pub(super) fn newest(&self, dir: DirId) -> u32 {
        self.policies().newest.get(&dir).copied().unwrap_or(0)
    }

    /// All newest policies, if any has come since the last call.
    pub(super) fn take_unsaved(&self) -> Option<Vec<AnchoredPolicy>> {
        let mut policies = self.policies();
        if !std::mem::take(&mut policies.unsaved) {
            return None;
        }
        let policy = |(dir, sequence): (&DirId, &u32)| AnchoredPolicy {
            directory: *dir,
            sequence: u64::from(*sequence),
        };
        let mut all: Vec<_> = policies.newest.iter().map(policy).collect();
        all.sort_by_key(|policy| policy.directory);
        Some(all)
    }

    /// What was taken could not be saved.
    pub(super) fn give_back(&self) {
        self.policies().unsaved = true;
    }

    fn policies(&self) -> MutexGuard<'_, Policies> {
        self.policies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The keys that a directory has for its files, and so for the directories that inherit from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyRules {
    policy: KeyId,
    previous: Vec<KeyId>,
}

impl KeyRules {
    pub(super) fn of(descriptor: &DirDescriptor) -> Self {
        Self { policy: descriptor.policy, previous: descriptor.previous.clone() }
    }

    fn accept(&self, key: KeyId) -> bool {
        self.policy == key || self.previous.contains(&key)
    }

    /// True if a directory may inherit from one with these keys, and loses none of its own by that.
    pub(super) fn suit(&self, descriptor: &DirDescriptor) -> bool {
        let keeps = descriptor.cross == CrossMode::Keep;
        self.policy == descriptor.policy
            && (keeps || descriptor.previous.iter().all(|key| self.accept(*key)))
    }

    /// What an inheriting directory has: the policy of the one above, and those former keys that
    /// both accept. So a change of policy that was interrupted half way down the tree counts
    /// everywhere, and a directory from before the end of a re-wrap brings no former key back.
    /// `None` if it has a policy that the one above never had.
    fn inherited_by(&self, stored: &DirDescriptor) -> Option<DirDescriptor> {
        if !self.accept(stored.policy) {
            return None;
        }
        // It took in files with keys of their own.
        let keeps = stored.cross == CrossMode::Keep;
        let mut previous = vec![stored.policy];
        previous.extend(&stored.previous);
        previous.retain(|key| *key != self.policy && (keeps || self.accept(*key)));
        Some(DirDescriptor { policy: self.policy, previous, ..stored.clone() })
    }
}

/// What a directory must say of itself where it was found.
#[derive(Debug, Clone)]
pub(super) enum Expected {
    /// Below a directory that can be used, or the root.
    At(DirPlace, Above),
    /// Below one that cannot: nothing belongs there.
    Nothing,
    /// It was removed, and is only still open.
    Removed,
}

/// What is above a directory.
#[derive(Debug, Clone)]
pub(super) enum Above {
    /// Nothing: it is the root.
    Volume,
    /// A directory with these keys.
    Keys(KeyRules),
    /// A directory whose own key cannot be used now: nobody vouches for what it says of keys.
    Locked,
}

impl Expected {
    /// What the root of a volume must say.
    pub(super) fn root(volume: VolumeId) -> Self {
        Self::At(DirPlace::root(volume), Above::Volume)
    }

    /// True if a descriptor was made for this place, by its claims.
    pub(super) fn suits(&self, claims: &DirDescriptor) -> bool {
        match self {
            Self::At(place, _) => claims.belongs_at(*place),
            Self::Nothing | Self::Removed => true,
        }
    }

    /// What an authentic descriptor comes to in this place.
    ///
    /// # Errors
    /// Why it does not count here.
    pub(super) fn admit(
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
        if !stored.inherited {
            return Ok(stored.clone());
        }
        match above {
            Above::Volume => Err(Misplaced::Keys),
            Above::Locked => Err(Misplaced::Above),
            // Before places, a directory that moved took its keys with it and was still said to
            // inherit them.
            Above::Keys(keys) if stored.places.is_none() => {
                Ok(DirDescriptor { inherited: keys.suit(stored), ..stored.clone() })
            }
            Above::Keys(keys) => keys.inherited_by(stored).ok_or(Misplaced::Keys),
        }
    }
}

/// What a directory can say of those below it.
#[derive(Debug, Clone)]
pub(super) enum Authority {
    /// It was verified.
    Verified(DirId, KeyRules),
    /// Its key cannot be used: this is what it claims to be. Who forges that gains a directory in
    /// which nothing has a name and nothing can be made.
    Locked(DirId),
    /// None: it is damaged, or not in its own place.
    None,
}

impl Authority {
    /// What the directory must say that is found under the backing name `entry`.
    pub(super) fn expects(&self, entry: &[u8]) -> Expected {
        match self {
            Self::Verified(dir, keys) => {
                Expected::At(DirPlace::below(*dir, entry), Above::Keys(keys.clone()))
            }
            Self::Locked(dir) => Expected::At(DirPlace::below(*dir, entry), Above::Locked),
            Self::None => Expected::Nothing,
        }
    }
}

//! The policy of a directory: which KMS keys it has for its files, and what the directories below it
//! make of that.

use crate::envelope::{CrossMode, DirDescriptor};
use crate::id::KeyId;

/// The keys that a directory has for its files, and so for the directories that inherit from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::volume) struct DirPolicy {
    key: KeyId,
    previous: Vec<KeyId>,
    cross: CrossMode,
}

impl DirPolicy {
    pub(in crate::volume) fn of(descriptor: &DirDescriptor) -> Self {
        let DirDescriptor { policy: key, previous, cross, .. } = descriptor.clone();
        Self { key, previous, cross }
    }

    pub(in crate::volume) fn accepts(&self, key: KeyId) -> bool {
        self.key == key || self.previous.contains(&key)
    }

    /// True if a directory may inherit from one with these keys, and loses none of its own by that:
    /// what it says, and what that has come to where it was.
    pub(in crate::volume) fn suits(
        &self,
        stored: &DirDescriptor,
        effective: &DirDescriptor,
    ) -> bool {
        let kept = kept_keys(stored);
        self.key == effective.policy
            && effective.previous.iter().all(|key| self.accepts(*key) || kept.contains(key))
    }

    /// What an inheriting directory has: the policy, the former keys and the mode of the one above,
    /// and the keys that it keeps itself. So a change of policy that was interrupted half way down
    /// the tree counts everywhere, and a directory from before the end of a re-wrap brings no former
    /// key back. `None` if it has a policy that the one above never had.
    pub(in crate::volume) fn inherited_by(&self, stored: &DirDescriptor) -> Option<DirDescriptor> {
        if !self.accepts(stored.policy) {
            return None;
        }
        let mut previous = self.previous.clone();
        previous.extend(kept_keys(stored).iter().filter(|key| !self.accepts(**key)));
        Some(DirDescriptor { policy: self.key, previous, cross: self.cross, ..stored.clone() })
    }
}

/// The keys that an inheriting directory accepts for files that came with them. Former keys of the
/// directory above, which others list too, are none of these: they end there.
pub(in crate::volume) fn kept_keys(stored: &DirDescriptor) -> &[KeyId] {
    match stored.cross {
        CrossMode::Keep if stored.inherited => &stored.previous,
        _ => &[],
    }
}

/// What a directory that inherits says of its keys: what it keeps itself, and otherwise a copy of
/// what is above it.
pub(in crate::volume) fn inheriting(effective: DirDescriptor, kept: Vec<KeyId>) -> DirDescriptor {
    match effective.cross {
        _ if !kept.is_empty() => {
            DirDescriptor { cross: CrossMode::Keep, previous: kept, ..effective }
        }
        CrossMode::Keep => DirDescriptor { previous: kept, ..effective },
        CrossMode::Rewrap | CrossMode::Exdev => effective,
    }
}

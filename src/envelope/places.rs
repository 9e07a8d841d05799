//! Where a directory belongs (FORMAT section 7.1).

use crate::crypto::hash::sha256;
pub use crate::id::DirPlace;
use crate::id::{DirId, VolumeId};

/// Bytes of a place in a descriptor.
const PLACE_LEN: usize = 16;
const BELOW: &[u8] = b"kmsfs/1/dir/place";
const ROOT: &[u8] = b"kmsfs/1/dir/root";

/// The places that a descriptor is good for: two while its directory is renamed, otherwise one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    /// Where the directory is.
    pub from: DirPlace,
    /// Where it goes; the same when it stays.
    pub to: DirPlace,
}

/// A place is a hash without a key: what makes it binding is the MAC of the descriptor that names it.
impl DirPlace {
    /// The root of a volume.
    pub fn root(volume: VolumeId) -> Self {
        Self::cut(sha256(&[ROOT, volume.as_bytes()]))
    }

    /// The entry of the directory `parent` whose name in the backing filesystem is `entry`.
    pub fn below(parent: DirId, entry: &[u8]) -> Self {
        Self::cut(sha256(&[BELOW, parent.as_bytes(), entry]))
    }

    fn cut(hash: [u8; 32]) -> Self {
        let mut place = [0; PLACE_LEN];
        place.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        Self::from_bytes(place)
    }
}

impl Places {
    /// One place.
    pub const fn at(place: DirPlace) -> Self {
        Self { from: place, to: place }
    }

    /// True if `place` is one of them.
    pub fn include(&self, place: DirPlace) -> bool {
        self.from == place || self.to == place
    }

    /// True for one place: no rename was under way.
    pub fn are_one(&self) -> bool {
        self.from == self.to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_depends_on_the_directory_above_and_on_the_name() {
        let (one, two) = (DirId::from_bytes([1; 16]), DirId::from_bytes([2; 16]));
        let here = DirPlace::below(one, b"name");
        assert_eq!(here, DirPlace::below(one, b"name"));
        assert_ne!(here, DirPlace::below(two, b"name"));
        assert_ne!(here, DirPlace::below(one, b"other"));
        assert_ne!(DirPlace::root(VolumeId::from_bytes([1; 16])), DirPlace::below(one, b""));
    }
}

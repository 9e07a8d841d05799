//! What a keystore remembers of volumes against whoever writes to the vault.

use std::path::Path;

use kmsfs::id::{DirId, DirPlace, VolumeId};
use kmsfs::keystore::{AnchoredDirPolicy, AnchoredPlace, VolumeAnchor};

use crate::fixture::Fixture;

#[test]
fn an_anchor_is_kept_and_leaves_the_rest_of_the_volume_alone() {
    let f = Fixture::new();
    let volume = VolumeId::from_bytes([7; 16]);
    assert_eq!(f.keystore.volume_anchor(volume).unwrap(), None);
    f.keystore.register_volume(volume, Path::new("/srv/vault")).unwrap();
    assert_eq!(f.keystore.volume_anchor(volume).unwrap(), None, "registered, but never opened");
    let anchor = VolumeAnchor {
        word: 5,
        sequence: 12,
        closed: true,
        features: 3,
        policies: vec![AnchoredDirPolicy {
            directory: DirId::from_bytes([1; 16]),
            sequence: 9,
            removed: 0,
        }],
        places: vec![AnchoredPlace {
            place: DirPlace::from_bytes([2; 16]),
            directory: DirId::from_bytes([1; 16]),
        }],
        rollbacks: 1,
        writes: 4,
    };
    f.keystore.set_volume_anchor(volume, Path::new("/elsewhere"), &anchor).unwrap();
    f.keystore.set_rewrap_after_rotate(volume, true).unwrap();
    let reopened = f.reopen();
    assert_eq!(reopened.volume_anchor(volume).unwrap(), Some(anchor));
    let known = reopened.known_volumes().unwrap();
    assert_eq!(known[0].path, Path::new("/srv/vault"), "an anchor is no news of the place");
    assert!(known[0].rewrap_after_rotate);
}

#[test]
fn an_anchor_registers_a_volume_that_is_not_known() {
    let f = Fixture::new();
    let volume = VolumeId::from_bytes([8; 16]);
    f.keystore.set_volume_anchor(volume, Path::new("/v"), &VolumeAnchor::default()).unwrap();
    assert_eq!(f.keystore.known_volumes().unwrap()[0].path, Path::new("/v"));
    f.keystore.forget_volume(volume).unwrap();
    assert_eq!(f.keystore.volume_anchor(volume).unwrap(), None);
}

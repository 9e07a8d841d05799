//! Volumes and where they are expected.

use std::path::Path;

use kmsfs::id::VolumeId;

use crate::fixture::Fixture;

/// Two vaults of one keystore were exchanged, and each was mounted for the other.
#[test]
fn a_volume_in_the_place_of_another_is_told_from_one_that_moved() {
    let fixture = Fixture::new();
    let keystore = &fixture.keystore;
    let [one, two, new] = [1, 2, 3].map(|byte| VolumeId::from_bytes([byte; 16]));
    let [first, second, third] = ["/srv/one", "/srv/two", "/srv/three"].map(Path::new);
    keystore.register_volume(one, first).unwrap();
    keystore.register_volume(two, second).unwrap();
    assert_eq!(keystore.expected_volume(one, first).unwrap(), None);
    assert_eq!(keystore.expected_volume(two, first).unwrap(), Some(one));
    assert_eq!(keystore.expected_volume(one, second).unwrap(), Some(two));
    // Moved to a path of its own, and one that was not seen before.
    assert_eq!(keystore.expected_volume(one, third).unwrap(), None);
    assert_eq!(keystore.expected_volume(new, first).unwrap(), None);
    // Somebody said that it is meant; the one that was there before is not put back unnoticed.
    keystore.register_volume(two, first).unwrap();
    assert_eq!(keystore.expected_volume(two, first).unwrap(), None);
    assert_eq!(keystore.expected_volume(one, first).unwrap(), Some(two));
    keystore.register_volume(one, second).unwrap();
    assert_eq!(keystore.expected_volume(one, second).unwrap(), None);
    assert_eq!(keystore.expected_volume(two, first).unwrap(), None);
}

#[test]
fn every_place_of_a_volume_is_remembered() {
    let fixture = Fixture::new();
    let keystore = &fixture.keystore;
    let volume = VolumeId::from_bytes([1; 16]);
    let known = || keystore.known_volumes().unwrap().remove(0);
    keystore.register_volume(volume, Path::new("/srv/vault")).unwrap();
    keystore.note_volume_path(volume, Path::new("/backup/vault")).unwrap();
    keystore.note_volume_path(volume, Path::new("/srv/vault")).unwrap();
    assert_eq!(known().path, Path::new("/srv/vault"), "what is only read is a copy");
    assert_eq!(known().also, [Path::new("/backup/vault")]);
    keystore.register_volume(volume, Path::new("/backup/vault")).unwrap();
    assert_eq!(
        (known().path.as_path(), &*known().also),
        (Path::new("/backup/vault"), &[Path::new("/srv/vault").to_owned()][..],)
    );
    for number in 1..128 {
        keystore.note_volume_path(volume, &Path::new("/many").join(number.to_string())).unwrap();
    }
    assert_eq!(known().also.len(), 128);
    assert_eq!(known().also.first().unwrap(), Path::new("/srv/vault"));
    assert!(!keystore.may_have_lost_volumes().unwrap());
}

/// The oldest paths were forgotten without a word, and `key retire` destroyed what a copy there needed.
#[test]
fn regression_no_path_of_a_volume_is_forgotten_silently() {
    let fixture = Fixture::new();
    let keystore = &fixture.keystore;
    let [one, two] = [1, 2].map(|byte| VolumeId::from_bytes([byte; 16]));
    let known = |volume| {
        keystore.known_volumes().unwrap().into_iter().find(|known| known.id == volume).unwrap()
    };
    let fill = |volume| {
        keystore.register_volume(volume, Path::new("/srv/vault")).unwrap();
        for number in 0..128 {
            keystore
                .note_volume_path(volume, &Path::new("/many").join(number.to_string()))
                .unwrap();
        }
        assert!(!keystore.may_have_lost_volumes().unwrap());
    };
    fill(one);
    keystore.note_volume_path(one, Path::new("/many/0")).unwrap();
    assert!(!keystore.may_have_lost_volumes().unwrap(), "known already");
    keystore.note_volume_path(one, Path::new("/many/more")).unwrap();
    assert!(keystore.may_have_lost_volumes().unwrap());
    assert_eq!(known(one).also.len(), 128);
    assert_eq!(known(one).also.last().unwrap(), Path::new("/many/more"));
    keystore.confirm_volumes().unwrap();
    // A vault that moved leaves its path behind as well.
    fill(two);
    keystore.register_volume(two, Path::new("/srv/moved")).unwrap();
    assert!(keystore.may_have_lost_volumes().unwrap());
    let confirmed = |keystore: &kmsfs::keystore::Keystore| {
        keystore.confirm_volumes().unwrap();
        keystore.may_have_lost_volumes().unwrap()
    };
    assert!(!confirmed(keystore));
}

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
    for number in 0..40 {
        keystore.note_volume_path(volume, &Path::new("/many").join(number.to_string())).unwrap();
    }
    assert_eq!(known().also.len(), 16);
    assert_eq!(known().also.last().unwrap(), Path::new("/many/39"));
}

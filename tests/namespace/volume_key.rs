//! The key of a volume, in two copies of its descriptor: neither is left under material that goes.

use std::fs;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::SystemTime;

use kmsfs::id::MaterialId;
use kmsfs::keystore::{KeyRef, Keystore};
use kmsfs::volume::{Options, References, RewrapJob, Volume};

use crate::fixture::{Fixture, ROOT, once_unlocked};
use crate::interrupted::Interrupted;

const COPIES: [&str; 2] = ["volume", "volume.bak"];

fn rewrap(volume: &Volume) {
    let go_on = &mut |_: &_| ControlFlow::Continue(());
    assert!(volume.rewrap(RewrapJob::default(), go_on, &mut |_| {}).unwrap().complete);
}

/// Rotates the key of the root directory, and returns the material that it had.
fn rotate(keystore: &Keystore, key: kmsfs::id::KeyId) -> MaterialId {
    let old = keystore.current_material(key).unwrap();
    keystore.rotate_key_on_demand(&KeyRef::Id(key), SystemTime::now()).unwrap();
    old
}

/// How many directories, the volume among them, need the material: with a daemon, and without.
fn needed(fixture: &Fixture, material: MaterialId) -> [u64; 2] {
    let mounted = fixture.volume().references(&mut |_| ControlFlow::Continue(())).unwrap();
    let (_, scanned) = References::scan(&fixture.vault()).unwrap();
    [mounted, scanned].map(|found| found.of_material(material).directories)
}

/// A crash between its two copies left one under the old material, which no re-wrap looked at and no
/// count told of. With the material, the spare copy was gone.
#[test]
fn regression_both_copies_of_the_volume_descriptor_are_counted_and_rewrapped() {
    for (stale, fresh) in [(0, 1), (1, 0)].map(|(one, other)| (COPIES[one], COPIES[other])) {
        let mut fixture = Fixture::new();
        fixture.file(ROOT, "file", "contents").unwrap();
        let own = fixture.vault().join(".kmsfs");
        let before = fs::read(own.join(stale)).unwrap();
        let old = rotate(&fixture.keystore, fixture.key());
        rewrap(fixture.volume());
        assert_eq!(needed(&fixture, old), [0, 0]);
        fs::write(own.join(stale), before).unwrap();
        fixture.reopen();
        assert_eq!(needed(&fixture, old), [1, 1], "{stale}");
        rewrap(fixture.volume());
        assert_eq!(needed(&fixture, old), [0, 0], "{stale}");
        fixture.close();
        fs::remove_file(own.join(fresh)).unwrap();
        fixture.reopen();
        assert_eq!(fixture.contents(fixture.find("file").unwrap()), "contents");
    }
}

/// It was read before the vault was locked, and written again, to mend the other copy, after somebody
/// else had re-wrapped it.
#[test]
fn regression_a_volume_is_opened_by_the_descriptor_that_it_has_once_it_is_locked() {
    let mut fixture = Fixture::new();
    fixture.file(ROOT, "file", "contents").unwrap();
    fixture.close();
    let (keystore, key, vault) = (fixture.keystore.clone(), fixture.key(), fixture.vault());
    let old = keystore.current_material(key).unwrap();
    Interrupted::while_opening(&mut fixture, move || {
        let service: Arc<Keystore> = keystore.clone();
        let open = || Volume::open_vault(&vault, service.clone(), Options::default());
        let other = once_unlocked(open).unwrap();
        rotate(&keystore, key);
        rewrap(&other);
        other.end().unwrap();
        drop(other);
        fs::remove_file(vault.join(".kmsfs/volume.bak")).unwrap();
    });
    assert_eq!(needed(&fixture, old), [0, 0]);
}

//! The role of the primary key between three keystores, which files go back and forth between.

use std::fs;

use kmsfs::id::KeyId;
use kmsfs::keystore::{
    Caller, CreateKey, Keystore, KeystoreError, ReplicaProperties, Transfer, TransferKey, Trust,
    Unlock, create_key_file,
};

use crate::fixture::{TempDir, by_id, day};

const SUPERSEDED: &str = "KMSInvalidStateException";
const NOT_PRIMARY: &str = "AccessDeniedException";
const IS_REPLICA: &str = "UnsupportedOperationException";

/// The keystores of the Regions a, b and c; the key was made in a and replicated to the others.
struct Trio {
    a: Keystore,
    b: Keystore,
    c: Keystore,
    key: KeyId,
    dir: TempDir,
}

impl Trio {
    fn new() -> Self {
        let dir = TempDir::new();
        create_key_file(&dir.join("key")).unwrap();
        let [a, b, c] = ["a", "b", "c"].map(|region| keystore(&dir, region, region));
        let request = CreateKey { multi_region: true, ..CreateKey::default() };
        let key = a.create_key(request, day(0)).unwrap().key_id;
        for replica in [&b, &c] {
            a.replicate_key_into(key, replica, ReplicaProperties::default(), day(0)).unwrap();
        }
        Self { a, b, c, key, dir }
    }

    /// A file with the role, sealed by `from` for `to`.
    fn hand_over(&self, from: &Keystore, to: &Keystore) -> Result<Transfer, KeystoreError> {
        from.update_primary_region(self.key, &transfer_key(to))
    }

    /// A file with the material, sealed by `from` for `to`.
    fn sync(&self, from: &Keystore, to: &Keystore) -> Result<Transfer, KeystoreError> {
        from.sync_replica(self.key, &transfer_key(to))
    }

    /// The keystore of Region a, from a copy of its files as they are now.
    fn old_copy_of_a(&self) -> Keystore {
        for end in ["", "-wal"] {
            let (from, to) = (format!("a{end}"), format!("old{end}"));
            fs::copy(self.dir.join(&from), self.dir.join(&to)).ok();
        }
        Keystore::open(&self.dir.join("old"), &Unlock::KeyFile(self.dir.join("key"))).unwrap()
    }

    #[track_caller]
    fn primary_is(&self, region: &str, keystores: &[&Keystore]) {
        for keystore in keystores {
            let shown = keystore.describe_key(&by_id(self.key)).unwrap();
            let shown = shown.multi_region_configuration.unwrap();
            assert_eq!(shown.primary_key.region, region);
            let role = if keystore.region().unwrap() == region { "PRIMARY" } else { "REPLICA" };
            assert_eq!(shown.multi_region_key_type, role);
            assert_eq!(shown.replica_keys.len(), 2);
        }
    }

    fn rotate(&self, primary: &Keystore) {
        primary.rotate_key_on_demand(&by_id(self.key), day(1)).unwrap();
    }
}

fn keystore(dir: &TempDir, file: &str, region: &str) -> Keystore {
    let unlock = Unlock::KeyFile(dir.join("key"));
    Keystore::create_in(Some(region), &dir.join(file), &unlock, day(0)).unwrap()
}

fn transfer_key(to: &Keystore) -> TransferKey {
    to.create_transfer_key(day(1)).unwrap()
}

fn receive(at: &Keystore, transfer: &Transfer) -> Result<(), KeystoreError> {
    at.receive_key(transfer, &Trust::Known, day(1)).map(drop)
}

#[track_caller]
fn fails<T>(result: Result<T, KeystoreError>, name: &str) {
    let error = result.map(drop).unwrap_err();
    assert_eq!(error.aws_name(), name, "{error}");
}

/// A replica's keystore could seal its own state of the key as a hand-over to the real primary,
/// which then took the replica's material, rotation and Regions for its own.
#[test]
fn regression_who_never_had_the_role_hands_nothing_over() {
    let trio = Trio::new();
    trio.rotate(&trio.a);
    let material = trio.a.current_material(trio.key).unwrap();
    for to in [&trio.a, &trio.b, &trio.c] {
        fails(trio.hand_over(&trio.b, to), IS_REPLICA);
        fails(trio.sync(&trio.b, to), IS_REPLICA);
    }
    assert_eq!(trio.a.current_material(trio.key).unwrap(), material);
    trio.primary_is("a", &[&trio.a, &trio.c]);
}

/// The role could be handed to two keystores within the day that transfers live, and both took it.
#[test]
fn regression_the_role_is_handed_to_one_keystore_only() {
    let trio = Trio::new();
    let lost = trio.hand_over(&trio.a, &trio.b).unwrap();
    fails(trio.hand_over(&trio.a, &trio.c), IS_REPLICA);
    let namesake = keystore(&trio.dir, "namesake", "b");
    fails(trio.hand_over(&trio.a, &namesake), IS_REPLICA);
    let again = trio.hand_over(&trio.a, &trio.b).unwrap();
    receive(&trio.b, &again).unwrap();
    trio.primary_is("b", &[&trio.a, &trio.b]);

    // The former primary key has not heard of it and repeats what it did.
    trio.rotate(&trio.b);
    let material = trio.b.current_material(trio.key).unwrap();
    fails(receive(&trio.b, &trio.hand_over(&trio.a, &trio.b).unwrap()), SUPERSEDED);
    fails(receive(&trio.b, &lost), SUPERSEDED);
    assert_eq!(trio.b.current_material(trio.key).unwrap(), material);
}

/// The role went to another Region and back; a file of the first time, kept until then, would have
/// moved it again.
#[test]
fn regression_a_hand_over_of_an_earlier_term_is_refused() {
    let trio = Trio::new();
    let kept = trio.hand_over(&trio.a, &trio.b).unwrap();
    receive(&trio.b, &trio.hand_over(&trio.a, &trio.b).unwrap()).unwrap();
    receive(&trio.a, &trio.hand_over(&trio.b, &trio.a).unwrap()).unwrap();
    trio.rotate(&trio.a);
    fails(receive(&trio.b, &kept), SUPERSEDED);
    fails(trio.hand_over(&trio.c, &trio.b), IS_REPLICA);
    trio.primary_is("a", &[&trio.a, &trio.b]);
    receive(&trio.b, &trio.sync(&trio.a, &trio.b).unwrap()).unwrap();
    trio.primary_is("a", &[&trio.a, &trio.b]);
}

/// Which keystore had the role was what the last transfer said: a keystore that was put back from
/// an old copy went on as a primary key.
#[test]
fn regression_a_former_primary_key_syncs_nobody_who_knows_better() {
    let trio = Trio::new();
    let old = trio.old_copy_of_a();
    trio.a.update_primary_region_in(trio.key, &trio.b).unwrap();
    trio.rotate(&trio.b);
    receive(&trio.c, &trio.sync(&trio.b, &trio.c).unwrap()).unwrap();
    trio.rotate(&old);
    for knows in [&trio.b, &trio.c] {
        fails(receive(knows, &trio.sync(&old, knows).unwrap()), SUPERSEDED);
    }
    // Nor can it give the role, which it does not have any more, to somebody else.
    fails(receive(&trio.c, &trio.hand_over(&old, &trio.c).unwrap()), SUPERSEDED);
    fails(receive(&old, &trio.sync(&trio.b, &old).unwrap()), NOT_PRIMARY);
}

/// One key whose role had moved on kept a keystore from syncing all those after it.
#[test]
fn regression_a_former_primary_key_does_not_stop_the_sync_of_others() {
    let trio = Trio::new();
    let old = trio.old_copy_of_a();
    trio.a.update_primary_region_in(trio.key, &trio.b).unwrap();
    trio.rotate(&trio.b);
    let b = [trio.b.acting_for(Caller::owner())];
    assert_eq!(old.sync_replicas(&b, day(1)).unwrap(), 0);
    let old = [old];
    assert_eq!(trio.b.sync_replicas(&old, day(1)).unwrap(), 1);
    trio.primary_is("b", &[&old[0], &trio.b]);
}

#[test]
fn a_keystore_that_was_put_back_learns_from_its_own_signature_that_it_gave_the_role_away() {
    let trio = Trio::new();
    let old = trio.old_copy_of_a();
    trio.a.update_primary_region_in(trio.key, &trio.b).unwrap();
    trio.rotate(&trio.b);
    trio.primary_is("a", &[&old]);
    receive(&old, &trio.sync(&trio.b, &old).unwrap()).unwrap();
    trio.primary_is("b", &[&old, &trio.a, &trio.b]);
    let material = trio.b.current_material(trio.key).unwrap();
    assert_eq!(old.current_material(trio.key).unwrap(), material);
}

#[test]
fn a_replica_follows_the_role_over_keystores_that_it_never_met() {
    let trio = Trio::new();
    receive(&trio.b, &trio.hand_over(&trio.a, &trio.b).unwrap()).unwrap();
    receive(&trio.a, &trio.hand_over(&trio.b, &trio.a).unwrap()).unwrap();
    receive(&trio.b, &trio.hand_over(&trio.a, &trio.b).unwrap()).unwrap();
    trio.rotate(&trio.b);
    trio.primary_is("a", &[&trio.c]);
    receive(&trio.c, &trio.sync(&trio.b, &trio.c).unwrap()).unwrap();
    trio.primary_is("b", &[&trio.b, &trio.c]);
    receive(&trio.c, &trio.hand_over(&trio.b, &trio.c).unwrap()).unwrap();
    receive(&trio.a, &trio.sync(&trio.c, &trio.a).unwrap()).unwrap();
    trio.primary_is("c", &[&trio.a, &trio.b, &trio.c]);
}

#[test]
fn a_replica_that_is_pending_deletion_takes_the_role_when_that_is_cancelled() {
    let trio = Trio::new();
    trio.b.schedule_key_deletion(trio.key, Some(7), day(0)).unwrap();
    let sealed = trio.hand_over(&trio.a, &trio.b).unwrap();
    fails(receive(&trio.b, &sealed), "KMSInvalidStateException");
    trio.b.cancel_key_deletion(&by_id(trio.key)).unwrap();
    receive(&trio.b, &sealed).unwrap();
    trio.primary_is("b", &[&trio.a, &trio.b]);
}

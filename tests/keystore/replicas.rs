//! Multi-Region keys between two keystores.

use std::time::{Duration, SystemTime};

use kmsfs::id::{KeyId, MaterialId};
use kmsfs::keystore::{
    Caller, ClockTrust, CreateKey, EncryptionContext, ExpirationModel, ImportType, KeySpec,
    KeyState, KeyUsage, Keystore, KeystoreError, MessageType, Origin, ReferenceReport,
    ReplicaProperties, SigningAlgorithm, Transfer, TransferKey, Trust, Unlock, create_key_file,
};

use super::fixture::{Fixture, TempDir, by_id, day};
use super::import;

/// Two keystores, each a Region of its own.
pub(crate) struct Pair {
    pub(crate) here: Keystore,
    pub(crate) there: Keystore,
    _dir: TempDir,
}

impl Pair {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new();
        create_key_file(&dir.join("key")).unwrap();
        let unlock = Unlock::KeyFile(dir.join("key"));
        let open = |region: &str| {
            Keystore::create_in(Some(region), &dir.join(region), &unlock, day(0)).unwrap()
        };
        Self { here: open("eu-west-1"), there: open("us-east-1"), _dir: dir }
    }

    pub(crate) fn key(&self) -> KeyId {
        self.here.create_key(multi_region(), day(0)).unwrap().key_id
    }

    fn replicated(&self) -> KeyId {
        let key = self.key();
        let none = ReplicaProperties::default();
        self.here.replicate_key_into(key, &self.there, none, day(0)).unwrap();
        key
    }
}

pub(crate) fn multi_region() -> CreateKey {
    CreateKey { multi_region: true, description: "books".to_owned(), ..CreateKey::default() }
}

pub(crate) fn kind(keystore: &Keystore, key: KeyId) -> (&'static str, String, Vec<String>) {
    let shown = keystore.describe_key(&by_id(key)).unwrap().multi_region_configuration.unwrap();
    let replicas = shown.replica_keys.into_iter().map(|replica| replica.region).collect();
    (shown.multi_region_key_type, shown.primary_key.region, replicas)
}

#[track_caller]
pub(crate) fn fails<T>(result: Result<T, KeystoreError>, name: &str) {
    let error = result.map(drop).unwrap_err();
    assert_eq!(error.aws_name(), name, "{error}");
}

#[test]
fn related_keys_open_each_others_ciphertexts() {
    let pair = Pair::new();
    let key = pair.replicated();
    assert!(key.to_string().starts_with("mrk-") && key.to_string().len() == 36);
    let context = EncryptionContext::new().with("purpose", "test");
    let made = pair.here.generate_data_key(&by_id(key), &context).unwrap();
    assert_eq!(pair.there.decrypt_data_key(&made.ciphertext, &context).unwrap(), made.plaintext);
    let back = pair.there.encrypt(&by_id(key), b"secret", &context).unwrap();
    assert_eq!(pair.here.decrypt(&back, &context, None).unwrap().plaintext.expose(), b"secret");

    let regions = ("eu-west-1".to_owned(), vec!["us-east-1".to_owned()]);
    assert_eq!(kind(&pair.here, key), ("PRIMARY", regions.0.clone(), regions.1.clone()));
    assert_eq!(kind(&pair.there, key), ("REPLICA", regions.0, regions.1));
    assert_eq!(pair.there.describe_key(&by_id(key)).unwrap().description, "books");
    assert!(pair.there.verify().unwrap().is_clean());
}

#[test]
fn keys_of_every_kind_are_replicated() {
    let pair = Pair::new();
    let request = CreateKey {
        spec: Some(KeySpec::EccNistP256),
        usage: Some(KeyUsage::SignVerify),
        ..multi_region()
    };
    let key = pair.here.create_key(request, day(0)).unwrap().key_id;
    let none = ReplicaProperties::default();
    pair.here.replicate_key_into(key, &pair.there, none, day(0)).unwrap();
    let (algorithm, raw) = (SigningAlgorithm::EcdsaSha256, MessageType::Raw);
    let signed = pair.there.sign(&by_id(key), algorithm, raw, b"message").unwrap();
    pair.here.verify_signature(&by_id(key), algorithm, raw, b"message", &signed.signature).unwrap();
}

#[test]
fn a_transfer_is_received_once_where_it_was_meant_to_go_within_a_day() {
    let pair = Pair::new();
    let key = pair.key();
    let transfer = |to: &TransferKey| {
        let text = pair.here.replicate_key(key, to, ReplicaProperties::default()).unwrap();
        text.to_string().parse::<Transfer>().unwrap()
    };
    let trust = Trust::Identity(pair.here.identity());
    let to = pair.there.create_transfer_key(day(0)).unwrap();
    let sealed = transfer(&to.to_string().parse().unwrap());
    fails(pair.here.receive_key(&sealed, &trust, day(0)), "ValidationException");
    let stranger = Trust::Identity(pair.there.identity());
    fails(pair.there.receive_key(&sealed, &stranger, day(0)), "AccessDeniedException");
    fails(pair.there.receive_key(&sealed, &Trust::Known, day(0)), "AccessDeniedException");
    let late = day(1) + Duration::from_secs(1);
    fails(pair.there.receive_key(&sealed, &trust, late), "ValidationException");
    pair.there.receive_key(&sealed, &trust, day(1)).unwrap();
    fails(pair.there.receive_key(&sealed, &trust, day(1)), "ValidationException");

    // The key is here already, and a transfer that says so uses its transfer key up as well.
    let again = transfer(&pair.there.create_transfer_key(day(1)).unwrap());
    fails(pair.there.receive_key(&again, &trust, day(1)), "AlreadyExistsException");
    let text = sealed.to_string();
    assert!(text.replace("us-east-1", "ap-east-1").parse::<Transfer>().is_ok());
    assert!("{}".parse::<Transfer>().is_err() && "nonsense".parse::<TransferKey>().is_err());
}

#[test]
fn only_primary_keys_of_several_regions_are_replicated() {
    let pair = Pair::new();
    let none = ReplicaProperties::default;
    let single = pair.here.create_key(CreateKey::default(), day(0)).unwrap().key_id;
    let unsupported = "UnsupportedOperationException";
    fails(pair.here.replicate_key_into(single, &pair.there, none(), day(0)), unsupported);
    let key = pair.replicated();
    let exists = "AlreadyExistsException";
    fails(pair.here.replicate_key_into(key, &pair.there, none(), day(0)), exists);
    fails(pair.here.replicate_key_into(key, &pair.here, none(), day(0)), exists);
    let third = pair.there.create_transfer_key(day(0)).unwrap();
    fails(pair.there.replicate_key(key, &third, none()), unsupported);
    pair.here.disable_key(&by_id(key)).unwrap();
    let disabled = pair.here.replicate_key(key, &third, none());
    fails(disabled, "DisabledException");
}

#[test]
fn only_the_primary_rotates_and_brings_its_material_to_the_replicas() {
    let pair = Pair::new();
    let key = pair.replicated();
    let unsupported = "UnsupportedOperationException";
    fails(pair.there.rotate_key_on_demand(&by_id(key), day(1)), unsupported);
    fails(pair.there.enable_key_rotation(&by_id(key), None, day(1)), unsupported);
    pair.here.enable_key_rotation(&by_id(key), Some(90), day(1)).unwrap();
    let material = pair.here.rotate_key_on_demand(&by_id(key), day(1)).unwrap();
    let context = EncryptionContext::new();
    let made = pair.here.generate_data_key(&by_id(key), &context).unwrap();
    fails(pair.there.decrypt_data_key(&made.ciphertext, &context), "InvalidCiphertextException");
    let to = pair.there.create_transfer_key(day(1)).unwrap();
    let sealed = pair.here.sync_replica(key, &to).unwrap();
    // Whose it is was settled when the replica was made.
    pair.there.receive_key(&sealed, &Trust::Known, day(1)).unwrap();
    assert_eq!(pair.there.current_material(key).unwrap(), material);
    assert_eq!(pair.there.decrypt_data_key(&made.ciphertext, &context).unwrap(), made.plaintext);
    let status = pair.there.get_key_rotation_status(&by_id(key)).unwrap();
    assert_eq!((status.rotation_period_in_days, status.on_demand_rotations), (Some(90), 1));
    assert!(pair.there.run_due_rotations(day(400)).unwrap().is_empty());
    assert_eq!(pair.here.run_due_rotations(day(400)).unwrap().len(), 1);
}

/// Sync passed over imported materials that the replica knew: it kept an end that had been put
/// off, and the material that it now used stayed one that waits for a rotation.
#[test]
fn regression_what_is_new_about_imported_material_reaches_the_replica() {
    let pair = Pair::new();
    let request = CreateKey { origin: Some(Origin::External), ..multi_region() };
    let key = pair.here.create_key(request, day(0)).unwrap().key_id;
    let named = by_id(key);
    let until = |material: u8, end: u64, import_type: Option<ImportType>| {
        let imported = import::import_as(&pair.here, &named, &[material; 32], |request| {
            request.model = ExpirationModel::KeyMaterialExpires;
            request.valid_to = Some(day(end));
            request.import_type = import_type;
        });
        imported.unwrap().material.unwrap()
    };
    until(1, 10, None);
    let none = ReplicaProperties::default();
    pair.here.replicate_key_into(key, &pair.there, none, day(0)).unwrap();
    let sync = || pair.here.sync_replica_in(key, &pair.there).unwrap();
    let end = |keystore: &Keystore| keystore.describe_key(&named).unwrap().valid_to;
    assert_eq!(end(&pair.there), Some(day(10).into()));
    until(1, 20, None);
    let next = until(2, 30, Some(ImportType::NewKeyMaterial));
    sync();
    assert_eq!(end(&pair.there), Some(day(20).into()));

    pair.here.rotate_key_on_demand(&named, day(2)).unwrap();
    sync();
    assert_eq!(pair.there.current_material(key).unwrap(), next);
    let rotations = |keystore: &Keystore| keystore.list_key_rotations(&named).unwrap();
    assert_eq!(rotations(&pair.there), rotations(&pair.here));
    for today in 1..20 {
        pair.there.delete_expired(day(today), ClockTrust::Steps).unwrap();
    }
    assert!(pair.there.expire_imported(day(19)).unwrap().is_empty());
    assert_eq!(pair.there.expire_imported(day(20)).unwrap().len(), 1);
    let state = || pair.there.key_state(key).unwrap();
    assert_eq!(state(), KeyState::PendingImport);

    // What was deleted in one Region is deleted there: another does not bring it back.
    sync();
    assert_eq!(state(), KeyState::PendingImport);
    assert!(pair.there.verify().unwrap().is_clean());
}

#[test]
fn the_primary_key_moves() {
    let pair = Pair::new();
    let key = pair.replicated();
    pair.here.update_primary_region_in(key, &pair.there).unwrap();
    let regions = ("us-east-1".to_owned(), vec!["eu-west-1".to_owned()]);
    assert_eq!(kind(&pair.there, key), ("PRIMARY", regions.0.clone(), regions.1.clone()));
    assert_eq!(kind(&pair.here, key), ("REPLICA", regions.0, regions.1));
    fails(pair.here.rotate_key_on_demand(&by_id(key), day(1)), "UnsupportedOperationException");
    pair.there.rotate_key_on_demand(&by_id(key), day(1)).unwrap();
    pair.there.sync_replica_in(key, &pair.here).unwrap();
    let moved = pair.here.current_material(key).unwrap();
    assert_eq!(moved, pair.there.current_material(key).unwrap());
    pair.there.update_primary_region_in(key, &pair.here).unwrap();
    assert_eq!(kind(&pair.here, key).0, "PRIMARY");

    // A transfer that was lost is made again.
    let lost = pair.there.create_transfer_key(day(2)).unwrap();
    pair.here.update_primary_region(key, &lost).unwrap();
    let to = pair.there.create_transfer_key(day(2)).unwrap();
    let again = pair.here.update_primary_region(key, &to).unwrap();
    pair.there.receive_key(&again, &Trust::Known, day(2)).unwrap();
    assert_eq!(kind(&pair.there, key).0, "PRIMARY");
    let single = pair.key();
    let nowhere = pair.here.update_primary_region_in(single, &pair.there);
    fails(nowhere, "NotFoundException");
}

#[test]
fn a_primary_key_waits_for_its_replicas_before_it_is_deleted() {
    let pair = Pair::new();
    let key = pair.replicated();
    let state = || pair.here.key_state(key).unwrap();
    let scheduled = pair.here.schedule_key_deletion(key, Some(7), day(0)).unwrap();
    assert_eq!(scheduled.key_state, KeyState::PendingReplicaDeletion);
    assert_eq!(scheduled.deletion_date, None);
    assert!(pair.here.verify().unwrap().is_clean());
    pair.here.cancel_key_deletion(&by_id(key)).unwrap();
    assert_eq!(state(), KeyState::Disabled);
    pair.here.schedule_key_deletion(key, Some(7), day(0)).unwrap();
    assert!(delete(&pair.here, day(30)).is_empty());

    pair.there.schedule_key_deletion(key, Some(7), day(30)).unwrap();
    assert_eq!(delete(&pair.there, day(37)), [key]);
    pair.here.forget_replica(key, "us-east-1", day(37)).unwrap();
    assert_eq!(state(), KeyState::PendingDeletion);
    assert!(delete(&pair.here, day(43)).is_empty());
    assert_eq!(delete(&pair.here, day(44)), [key]);
}

#[test]
fn keystores_that_are_open_together_keep_their_keys_in_step() {
    let pair = Pair::new();
    let key = pair.replicated();
    let others = [pair.here.acting_for(Caller::owner()), pair.there.acting_for(Caller::owner())];
    let sync = |now| pair.here.sync_replicas(&others, now).unwrap();
    assert_eq!(sync(day(0)), 0);
    let material = pair.here.rotate_key_on_demand(&by_id(key), day(1)).unwrap();
    assert_eq!((sync(day(1)), sync(day(1))), (1, 0));
    assert_eq!(pair.there.current_material(key).unwrap(), material);
    pair.there.schedule_key_deletion(key, Some(7), day(1)).unwrap();
    delete(&pair.there, day(8));
    assert_eq!(sync(day(8)), 1);
    assert!(kind(&pair.here, key).2.is_empty());
}

fn delete(keystore: &Keystore, now: SystemTime) -> Vec<KeyId> {
    keystore.delete_expired(now, ClockTrust::Confirmed).unwrap().deleted
}

#[test]
fn a_keystore_is_one_region_for_good() {
    let fixture = Fixture::new();
    assert_eq!(fixture.keystore.region().unwrap(), "local");
    fails(fixture.keystore.adopt_region("EU west"), "ValidationException");
    fixture.keystore.adopt_region("eu-west-1").unwrap();
    fixture.keystore.adopt_region("eu-west-1").unwrap();
    fails(fixture.keystore.adopt_region("eu-west-2"), "ValidationException");
    assert_eq!(fixture.reopen().region().unwrap(), "eu-west-1");
    assert_eq!(fixture.reopen().identity(), fixture.keystore.identity());
}

fn retire(keystore: &Keystore, key: KeyId, material: MaterialId) -> Result<(), KeystoreError> {
    keystore.retire_material(&by_id(key), material, &ReferenceReport::default())
}

/// A replica that became the primary key did not know that the material had encrypted for programs
/// elsewhere, and retired it unasked: nobody could decrypt that any more.
#[test]
fn regression_what_another_region_encrypted_is_not_forgotten() {
    let pair = Pair::new();
    let (key, context) = (pair.replicated(), EncryptionContext::new());
    let made = pair.here.encrypt(&by_id(key), b"secret", &context).unwrap();
    let new = pair.here.rotate_key_on_demand(&by_id(key), day(1)).unwrap();
    pair.here.update_primary_region_in(key, &pair.there).unwrap();
    let old = made.material_id();
    assert_eq!(pair.there.materials_of_programs(key, &[old, new]).unwrap(), [old]);
    let error = retire(&pair.there, key, old).unwrap_err();
    assert!(error.to_string().contains("other hosts"), "{error}");
    let hosts = ReferenceReport { other_hosts_checked: true, ..ReferenceReport::default() };
    let error = pair.there.retire_material(&by_id(key), old, &hosts).unwrap_err();
    assert!(error.to_string().contains("programs"), "{error}");
    let all = ReferenceReport { ciphertexts_checked: true, ..hosts };
    pair.there.retire_material(&by_id(key), old, &all).unwrap();
}

/// The same of what a replica had encrypted that is gone by now: no note of it ever came here.
#[test]
fn regression_what_a_replica_encrypted_that_is_gone_is_not_forgotten() {
    let pair = Pair::new();
    let key = pair.replicated();
    let context = EncryptionContext::new();
    let made = pair.there.encrypt(&by_id(key), b"secret", &context).unwrap();
    pair.there.schedule_key_deletion(key, Some(7), day(1)).unwrap();
    pair.there.delete_expired(day(8), ClockTrust::Confirmed).unwrap();
    pair.here.forget_replica(key, "us-east-1", day(8)).unwrap();
    let new = pair.here.rotate_key_on_demand(&by_id(key), day(9)).unwrap();
    assert_eq!(pair.here.shared_materials(key).unwrap(), [made.material_id()]);
    assert!(retire(&pair.here, key, made.material_id()).is_err());
    // What no other keystore ever had is nobody else's business.
    pair.here.rotate_key_on_demand(&by_id(key), day(9)).unwrap();
    retire(&pair.here, key, new).unwrap();
}

//! New material for new ciphertexts, old material for old ones.

use kmsfs::keystore::{
    CiphertextBlob, ClockTrust, EncryptionContext, KeySpec, MaterialOrigin, MaterialState,
    ReferenceReport,
};

use crate::fixture::{Fixture, by_id, day};

#[test]
fn old_ciphertexts_open_after_a_rotation_and_new_ones_use_the_new_material() {
    let f = Fixture::new();
    let key = by_id(f.key());
    let context = EncryptionContext::new();
    let old = f.keystore.encrypt(&key, b"old", &context).unwrap();
    let material = f.keystore.rotate_key_on_demand(&key, day(1)).unwrap();
    let new = f.keystore.encrypt(&key, b"new", &context).unwrap();
    assert_ne!(old.material_id(), material);
    assert_eq!(new.material_id(), material);
    let again = f.reopen();
    assert_eq!(again.decrypt(&old, &context, None).unwrap().plaintext.expose(), b"old");
    let moved = again.re_encrypt(&old, &context, &key, &context).unwrap();
    assert_eq!(moved.material_id(), material);
}

#[test]
fn automatic_rotation_comes_with_its_period_and_once_after_a_long_sleep() {
    let f = Fixture::new();
    let key = by_id(f.key());
    f.keystore.enable_key_rotation(&key, Some(90), day(0)).unwrap();
    assert!(f.keystore.run_due_rotations(day(89)).unwrap().is_empty());
    assert_eq!(f.keystore.run_due_rotations(day(90)).unwrap().len(), 1);
    assert!(f.keystore.run_due_rotations(day(90)).unwrap().is_empty());
    assert_eq!(f.keystore.run_due_rotations(day(1000)).unwrap().len(), 1);
    let status = f.keystore.get_key_rotation_status(&key).unwrap();
    assert_eq!(status.next_rotation_date, Some(day(1090).into()));
    assert_eq!((status.rotation_period_in_days, status.key_rotation_enabled), (Some(90), true));
}

#[test]
fn a_disabled_key_rotates_when_it_is_enabled_again() {
    let f = Fixture::new();
    let key = by_id(f.key());
    f.keystore.enable_key_rotation(&key, Some(90), day(0)).unwrap();
    f.keystore.disable_key(&key).unwrap();
    assert!(f.keystore.run_due_rotations(day(100)).unwrap().is_empty());
    f.keystore.enable_key(&key).unwrap();
    assert_eq!(f.keystore.run_due_rotations(day(100)).unwrap().len(), 1);
}

#[test]
fn the_period_has_bounds_and_a_default_and_naming_it_again_changes_nothing() {
    let f = Fixture::new();
    let key = by_id(f.key());
    for period in [89, 2561] {
        let error = f.keystore.enable_key_rotation(&key, Some(period), day(0)).unwrap_err();
        assert_eq!(error.aws_name(), "ValidationException");
    }
    f.keystore.enable_key_rotation(&key, None, day(0)).unwrap();
    f.keystore.enable_key_rotation(&key, None, day(5)).unwrap();
    let status = f.keystore.get_key_rotation_status(&key).unwrap();
    assert_eq!(status.next_rotation_date, Some(day(365).into()));
    f.keystore.disable_key_rotation(&key).unwrap();
    assert!(!f.keystore.get_key_rotation_status(&key).unwrap().key_rotation_enabled);
    assert!(f.keystore.run_due_rotations(day(4000)).unwrap().is_empty());
}

#[test]
fn on_demand_rotation_leaves_the_schedule_and_ends_after_25() {
    let f = Fixture::new();
    let key = by_id(f.key());
    f.keystore.enable_key_rotation(&key, None, day(0)).unwrap();
    for n in 0..25 {
        f.keystore.rotate_key_on_demand(&key, day(n)).unwrap();
    }
    let error = f.keystore.rotate_key_on_demand(&key, day(25)).unwrap_err();
    assert_eq!(error.aws_name(), "LimitExceededException");
    let status = f.keystore.get_key_rotation_status(&key).unwrap();
    assert_eq!(status.next_rotation_date, Some(day(365).into()));
    assert_eq!(status.on_demand_rotations, 25);
}

#[test]
fn rotations_are_listed_in_order_with_one_current() {
    let f = Fixture::new();
    let key = by_id(f.key());
    f.keystore.enable_key_rotation(&key, Some(90), day(0)).unwrap();
    f.keystore.run_due_rotations(day(90)).unwrap();
    let last = f.keystore.rotate_key_on_demand(&key, day(91)).unwrap();
    let listed = f.keystore.list_key_rotations(&key).unwrap();
    let origins: Vec<_> = listed.iter().map(|rotation| rotation.rotation_type).collect();
    assert_eq!(
        origins,
        [MaterialOrigin::Created, MaterialOrigin::Automatic, MaterialOrigin::OnDemand]
    );
    let current: Vec<_> = listed
        .iter()
        .filter(|rotation| rotation.key_material_state == MaterialState::Current)
        .map(|rotation| rotation.key_material_id)
        .collect();
    assert_eq!(current, [last]);
}

/// A clock that was a year ahead for a moment put the next rotation off by a year.
#[test]
fn regression_a_clock_that_leapt_puts_no_rotation_off() {
    let f = Fixture::new();
    let key = by_id(f.key());
    f.keystore.enable_key_rotation(&key, Some(90), day(0)).unwrap();
    assert_eq!(f.keystore.run_due_rotations(day(400)).unwrap().len(), 1);
    let next = || f.keystore.get_key_rotation_status(&key).unwrap().next_rotation_date;
    assert_eq!(next(), Some(day(490).into()));
    f.keystore.delete_expired(day(400), ClockTrust::Steps).unwrap();
    for today in [1, 2] {
        assert!(f.keystore.run_due_rotations(day(today)).unwrap().is_empty());
        f.keystore.delete_expired(day(today), ClockTrust::Steps).unwrap();
    }
    assert!(f.keystore.run_due_rotations(day(2)).unwrap().is_empty());
    assert_eq!(next(), Some(day(92).into()));
}

/// A process wrapped under material that another process had rotated and retired since it last
/// looked: nobody could unwrap that any more.
#[test]
fn regression_nothing_is_wrapped_under_material_that_another_process_retired() {
    let f = Fixture::new();
    let (id, other) = (f.key(), f.reopen());
    let (key, context) = (by_id(id), EncryptionContext::new());
    let (elsewhere, volume) = (by_id(f.key()), f.volume());
    let file = EncryptionContext::new().with("kmsfs:file", "x");
    let from = f.keystore.encrypt(&elsewhere, b"x", &context).unwrap();
    let spec = KeySpec::EccNistP256;
    let make: [&dyn Fn() -> CiphertextBlob; 6] = [
        &|| f.keystore.encrypt(&key, b"x", &context).unwrap(),
        &|| f.keystore.re_encrypt(&from, &context, &key, &context).unwrap(),
        &|| f.keystore.generate_data_key_without_plaintext(&key, 16, &context).unwrap(),
        &|| f.keystore.generate_data_key_pair_without_plaintext(&key, spec, &context).unwrap().0,
        &|| volume.generate_data_key(&key, &file).unwrap().ciphertext,
        &|| {
            let made = volume.generate_data_key(&elsewhere, &file).unwrap().ciphertext;
            volume.re_encrypt(&made, &file, &key, &file).unwrap()
        },
    ];
    for (number, make) in make.iter().enumerate() {
        let old = f.keystore.current_material(id).unwrap();
        other.rotate_key_on_demand(&key, day(1)).unwrap();
        let checked = ReferenceReport { ciphertexts_checked: true, ..ReferenceReport::default() };
        other.retire_material(&key, old, &checked).unwrap();
        let made = make();
        assert_ne!(made.material_id(), old, "call {number}");
        let context = if number < 4 { &context } else { &file };
        volume.decrypt(&made, context, None).unwrap();
        let noted = other.materials_of_programs(id, &[made.material_id()]).unwrap();
        assert_eq!(noted.len(), usize::from(number < 4), "call {number}");
    }
}

/// The command asked whether a material had encrypted for programs, and retired it however it was by
/// then.
#[test]
fn regression_what_encrypted_meanwhile_is_not_retired() {
    let f = Fixture::new();
    let (key, context) = (by_id(f.key()), EncryptionContext::new());
    let made = f.reopen().encrypt(&key, b"x", &context).unwrap();
    f.keystore.rotate_key_on_demand(&key, day(1)).unwrap();
    let unasked = ReferenceReport::default();
    let refused = f.keystore.retire_material(&key, made.material_id(), &unasked).unwrap_err();
    assert!(refused.to_string().contains("programs"), "{refused}");
    f.keystore.decrypt(&made, &context, None).unwrap();
}

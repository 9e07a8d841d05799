//! A keystore edited with the sqlite3 shell.

use kmsfs::id::VolumeId;
use kmsfs::keystore::{
    AliasName, Caller, CreateAccessKey, CreateGrant, EncryptionContext, GrantOperation, Keystore,
    KeystoreError, Principal, Source, Unlock, create_key_file,
};

use crate::fixture::{Fixture, by_id, day};

/// A keystore with two of everything.
fn populated() -> Fixture {
    let f = Fixture::new();
    for name in ["one", "two"] {
        let key = f.key();
        let alias: AliasName = format!("alias/{name}").parse().unwrap();
        f.keystore.create_alias(&alias, key, day(0)).unwrap();
        f.keystore.rotate_key_on_demand(&by_id(key), day(0)).unwrap();
        let volume = VolumeId::from_bytes([name.as_bytes()[0]; 16]);
        f.keystore.register_volume(volume, f.dir.path()).unwrap();
        let user = format!("arn:aws:iam::000000000000:user/{name}");
        f.keystore.put_principal_policy(&user, "p", POLICY).unwrap();
        let operations = vec![GrantOperation::Decrypt];
        let grant = CreateGrant { grantee: user, operations, ..CreateGrant::default() };
        f.keystore.create_grant(&by_id(key), &grant, day(0)).unwrap();
        f.keystore.create_access_key(&CreateAccessKey::default(), day(0)).unwrap();
    }
    create_key_file(&f.dir.join("second")).unwrap();
    f.keystore.add_slot(&Unlock::KeyFile(f.dir.join("second")), day(0)).unwrap();
    f
}

const POLICY: &str = r#"{"Statement":{"Effect":"Deny","Action":"kms:*","Resource":"*"}}"#;

const TABLES: [&str; 8] = [
    "kms_key",
    "wrapping_key",
    "key_material",
    "alias",
    "volume",
    "key_grant",
    "principal",
    "access_key",
];

#[test]
fn every_edit_of_any_table_is_noticed_at_open_and_by_verify() {
    let mut edits = Vec::new();
    for table in TABLES {
        let first = format!("WHERE id = (SELECT min(id) FROM {table})");
        edits.push(format!("UPDATE {table} SET sealed = substr(sealed, 1, 40) || x'00' {first}"));
        edits.push(format!("UPDATE {table} SET sealed = randomblob(length(sealed)) {first}"));
        edits.push(format!(
            "UPDATE {table} SET sealed = (SELECT sealed FROM {table} WHERE id = \
             (SELECT max(id) FROM {table})) {first}"
        ));
        edits.push(format!("UPDATE {table} SET id = randomblob(length(id)) {first}"));
        edits.push(format!("DELETE FROM {table} {first}"));
        if ["alias", "key_material", "key_grant"].contains(&table) {
            edits.push(format!(
                "UPDATE {table} SET key_id = (SELECT key_id FROM {table} \
                 ORDER BY id DESC LIMIT 1), id = x'{}'",
                "00".repeat(32)
            ));
        }
    }
    edits.push("DELETE FROM slot WHERE id = 2".to_owned());
    edits.push("UPDATE slot SET kind = 'passphrase' WHERE id = 2".to_owned());
    edits.push("UPDATE slot SET memory_kib = 1 WHERE id = 2".to_owned());
    edits.push("UPDATE keystore SET sealed = randomblob(length(sealed))".to_owned());
    let f = populated();
    let (pristine, path) = (std::fs::read(f.checkpointed()).unwrap(), f.dir.join("edited.db"));
    for edit in edits {
        std::fs::write(&path, &pristine).unwrap();
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
        if connection.execute(&edit, []).is_err() {
            continue; // a constraint of the schema was in the way
        }
        drop(connection);
        let error = Keystore::open(&path, &f.unlock()).unwrap_err();
        let noticed =
            matches!(error, KeystoreError::RowSetTampered | KeystoreError::Tampered { .. });
        assert!(noticed, "{edit}: {error}");
        let damaged = Keystore::open_damaged(&path, &f.unlock()).unwrap();
        assert!(!damaged.verify().unwrap().is_clean(), "{edit}");
    }
}

#[test]
fn a_process_that_runs_uses_no_key_once_a_row_was_edited() {
    let f = Fixture::new();
    let (edited, intact) = (f.key(), f.key());
    f.keystore.key_state(intact).unwrap();
    let id = base16ct::lower::encode_string(edited.as_bytes());
    f.sql(&format!("UPDATE kms_key SET sealed = randomblob(200) WHERE id = x'{id}'"));
    assert!(f.keystore.poll_changes().unwrap());
    let error = f.keystore.key_state(edited).unwrap_err();
    assert!(matches!(error, KeystoreError::Tampered { table: "kms_key", .. }), "{error}");
    assert!(error.to_string().contains(&id), "{error}");
    let error = f.keystore.key_state(intact).unwrap_err();
    assert!(matches!(error, KeystoreError::RowSetTampered), "{error}");
    let at_open = Keystore::open(&f.path(), &f.unlock()).unwrap_err();
    assert!(at_open.to_string().contains(&id), "{at_open}");
}

#[test]
fn a_key_that_was_disabled_is_not_brought_back_by_its_old_row_in_a_process_that_runs() {
    let f = Fixture::new();
    let key = f.key();
    f.sql("CREATE TABLE copy AS SELECT * FROM kms_key");
    f.keystore.poll_changes().unwrap();
    f.keystore.disable_key(&by_id(key)).unwrap();
    f.sql("UPDATE kms_key SET sealed = (SELECT sealed FROM copy); DROP TABLE copy");
    assert!(f.keystore.poll_changes().unwrap());
    let made = f.keystore.generate_data_key(&by_id(key), &EncryptionContext::new());
    assert!(matches!(made, Err(KeystoreError::RowSetTampered)), "{made:?}");
}

#[test]
fn a_damaged_keystore_is_examined_repaired_and_used_again() {
    let f = populated();
    f.sql(
        "UPDATE alias SET sealed = randomblob(90) WHERE id = (SELECT min(id) FROM alias);
         DELETE FROM volume WHERE id = (SELECT min(id) FROM volume);
         UPDATE key_grant SET sealed = randomblob(90) WHERE id = (SELECT min(id) FROM key_grant);
         UPDATE principal SET sealed = randomblob(90);
         UPDATE access_key SET sealed = randomblob(90);
         UPDATE slot SET kind = 'passphrase' WHERE id = 2",
    );
    assert!(Keystore::open(&f.checkpointed(), &f.unlock()).is_err());
    let damaged = Keystore::open_damaged(&f.path(), &f.unlock()).unwrap();
    assert_eq!(damaged.verify().unwrap().problems.len(), 8);
    let repaired = damaged.repair().unwrap();
    let report = repaired.left;
    assert!(report.is_clean(), "{report:?}");
    let removed: Vec<_> = repaired.removed.iter().map(String::as_str).collect();
    assert_eq!(
        removed,
        [
            "1 of 2 aliases",
            "1 of 2 grants",
            "2 of 2 principals' policies, and these principals are refused everything",
            "2 of 2 access keys",
            "1 of 2 unlock slots",
        ]
    );
    let counts = (report.keys, report.materials, report.aliases, report.volumes, report.slots);
    assert_eq!(counts, (2, 4, 1, 1, 1));
    let again = f.reopen();
    assert_eq!(again.list_keys().unwrap().len(), 2);
    assert_eq!(again.list_principals().unwrap().len(), 2);
    assert_eq!(again.list_access_keys().unwrap().len(), 0);
}

/// A Deny went with the damaged row in which it stood, and what it had forbidden was allowed.
#[test]
fn regression_a_principal_whose_policies_were_damaged_is_refused_until_they_are_there_again() {
    const ALLOW: &str = r#"{"Statement":{"Effect":"Allow","Action":"kms:*","Resource":"*"}}"#;
    const DENY: &str = r#"{"Statement":{"Effect":"Deny","Action":"kms:Encrypt","Resource":"*"}}"#;
    let f = Fixture::new();
    let key = f.key();
    let arn = |name: &str| format!("arn:aws:iam::000000000000:{name}");
    let (one, two, group) = (arn("user/unix/1000"), arn("user/unix/1001"), arn("group/unix/27"));
    for who in [&one, &two] {
        f.keystore.put_principal_policy(who, "use", ALLOW).unwrap();
    }
    f.keystore.put_principal_policy(&group, "not", DENY).unwrap();
    f.sql("UPDATE principal SET sealed = randomblob(90)");
    f.checkpointed();
    Keystore::open_damaged(&f.path(), &f.unlock()).unwrap().repair().unwrap();
    let again = f.reopen();
    assert!(again.verify().unwrap().is_clean());
    let listed = again.list_principals().unwrap();
    assert_eq!(listed.len(), 3);
    for entry in &listed {
        assert_eq!(
            (&*entry.arn, &*entry.policy_names),
            ("unknown", &["lost-in-a-repair".to_owned()][..])
        );
    }
    let encrypt = |keystore: &Keystore, uid, groups: &[u32]| {
        let caller = Caller {
            groups: groups.into(),
            ..Caller::new(Principal::Unix { uid }, Source::Socket)
        };
        keystore.acting_for(caller).encrypt(&by_id(key), b"x", &EncryptionContext::new()).is_ok()
    };
    assert!(!encrypt(&again, 1000, &[]));
    // What is put again counts once somebody has taken away what stands for the lost ones.
    again.put_principal_policy(&one, "use", ALLOW).unwrap();
    assert!(!encrypt(&again, 1000, &[]));
    again.delete_principal_policy(&one, "lost-in-a-repair").unwrap();
    assert!(encrypt(&again, 1000, &[]));
    assert!(!encrypt(&again, 1001, &[]));
    // The group's Deny is not known any more, and nobody passes it.
    assert!(again.has_evadable_rules().unwrap());
    assert!(!encrypt(&again, 1000, &[27]));
    again.delete_principal_policy(&group, "lost-in-a-repair").unwrap();
    assert!(encrypt(&again, 1000, &[27]));
    let names: Vec<_> = again.list_principals().unwrap().into_iter().map(|one| one.arn).collect();
    assert_eq!(names, [one, "unknown".to_owned()]);
}

/// After a repair, what was gone had never been: material that it protected was retired without a word.
#[test]
fn regression_what_a_repair_removes_is_not_taken_for_what_never_was() {
    for damage in [
        "UPDATE volume SET sealed = randomblob(90)",
        "DELETE FROM volume",
        "UPDATE access_key SET sealed = randomblob(90)",
        "DELETE FROM access_key",
    ] {
        let f = populated();
        let key = f.keystore.list_keys().unwrap()[0].key_id;
        let old = f.keystore.current_material(key).unwrap();
        f.keystore.rotate_key_on_demand(&by_id(key), day(1)).unwrap();
        f.sql(damage);
        f.checkpointed();
        Keystore::open_damaged(&f.path(), &f.unlock()).unwrap().repair().unwrap();
        let again = f.reopen();
        assert!(again.may_have_lost_volumes().unwrap(), "{damage}");
        assert!(again.has_served_hosts().unwrap(), "{damage}");
        assert_eq!(again.materials_of_programs(key, &[old]).unwrap(), [old], "{damage}");
        // Also in a copy of it, and not of what is made from now on.
        again.export(&f.dir.join("copy"), b"words").unwrap();
        let copy = f.dir.join("copy.db");
        let copy = Keystore::import(&f.dir.join("copy"), b"words", &copy, &f.unlock(), day(2));
        assert!(copy.unwrap().may_have_lost_volumes().unwrap());
        again.rotate_key_on_demand(&by_id(key), day(3)).unwrap();
        let new = again.current_material(key).unwrap();
        assert!(again.materials_of_programs(key, &[new]).unwrap().is_empty());
    }
    let f = populated();
    f.sql("CREATE TABLE spy (x)");
    Keystore::open_damaged(&f.path(), &f.unlock()).unwrap().repair().unwrap();
    assert!(!f.reopen().may_have_lost_volumes().unwrap(), "no row was touched");
}

/// Each row authenticates by itself, so only the digest of all rows shows this one.
#[test]
fn a_row_put_back_from_an_older_copy_is_noticed() {
    let f = Fixture::new();
    let key = f.key();
    f.sql("CREATE TABLE copy AS SELECT * FROM kms_key");
    f.keystore.disable_key(&by_id(key)).unwrap();
    f.sql("UPDATE kms_key SET sealed = (SELECT sealed FROM copy); DROP TABLE copy");
    let error = Keystore::open(&f.checkpointed(), &f.unlock()).unwrap_err();
    assert!(matches!(error, KeystoreError::RowSetTampered), "{error}");
}

#[test]
fn tables_and_triggers_that_somebody_added_do_not_run_and_are_reported() {
    let f = Fixture::new();
    let key = f.key();
    f.sql(
        "CREATE TABLE spy (x);
         CREATE TRIGGER t AFTER UPDATE ON kms_key BEGIN INSERT INTO spy VALUES (new.sealed); END",
    );
    let again = f.reopen();
    again.disable_key(&by_id(key)).unwrap();
    let connection = rusqlite::Connection::open(f.path()).unwrap();
    let spied: i64 =
        connection.query_row("SELECT count(*) FROM spy", [], |row| row.get(0)).unwrap();
    assert_eq!(spied, 0);
    let report = again.verify().unwrap();
    assert!(report.problems.iter().any(|problem| problem.contains("triggers")), "{report:?}");
}

#[test]
fn a_row_of_another_keystore_does_not_open() {
    let (f, other) = (Fixture::new(), Fixture::new());
    let key = other.key();
    let blob = other.keystore.encrypt(&by_id(key), b"x", &EncryptionContext::new()).unwrap();
    drop(other.keystore);
    f.sql(&format!(
        "ATTACH '{}' AS other; INSERT INTO kms_key SELECT * FROM other.kms_key;
         INSERT INTO wrapping_key SELECT * FROM other.wrapping_key;
         INSERT INTO key_material SELECT * FROM other.key_material",
        other.dir.join("store.db").display()
    ));
    let error = f.keystore.decrypt(&blob, &EncryptionContext::new(), None).unwrap_err();
    assert!(matches!(error, KeystoreError::Tampered { .. }), "{error}");
}

/// Seeded damage of the raw file: an error or the right plaintext, never a panic, never another
/// plaintext.
#[test]
fn random_damage_of_the_file_never_gives_wrong_bytes() {
    let f = populated();
    let key = by_id(f.key());
    let context = EncryptionContext::new();
    let blob = f.keystore.encrypt(&key, b"plaintext", &context).unwrap();
    let (pristine, path) = (std::fs::read(f.checkpointed()).unwrap(), f.dir.join("damaged.db"));
    let mut state = 0x6b6d_7366_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(state >> 33).unwrap() % below
    };
    let (mut opened, mut refused) = (0, 0);
    for _ in 0..200 {
        let mut bytes = pristine.clone();
        for _ in 0..=random(3) {
            let at = random(bytes.len());
            bytes[at] ^= u8::try_from(1 + random(255)).unwrap();
        }
        std::fs::write(&path, &bytes).unwrap();
        match Keystore::open_damaged(&path, &f.unlock()) {
            Ok(damaged) => {
                opened += 1;
                if let Ok(decrypted) = damaged.decrypt(&blob, &context, None) {
                    assert_eq!(decrypted.plaintext.expose(), b"plaintext");
                }
                damaged.verify().ok();
            }
            Err(_) => refused += 1,
        }
        for suffix in ["-wal", "-shm"] {
            std::fs::remove_file(f.dir.join(&format!("damaged.db{suffix}"))).ok();
        }
    }
    assert!(opened > 50 && refused > 5, "{opened} opened, {refused} refused");
}

#[test]
fn a_good_keystore_verifies_and_is_counted() {
    let report = populated().keystore.verify().unwrap();
    assert!(report.is_clean(), "{report:?}");
    let counts = (report.keys, report.materials, report.aliases, report.volumes, report.slots);
    assert_eq!(counts, (2, 4, 2, 2, 2));
}

//! Bad input, and everything else that needs no kernel.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::machine::{Machine, keyed, mode, texts};

#[test]
fn help_has_examples_and_every_command_has_help() {
    let machine = Machine::new();
    assert!(machine.ok(&["--help"]).contains("Examples:"));
    for command in [
        "init",
        "mount",
        "umount",
        "status",
        "key",
        "alias",
        "keystore",
        "rewrap",
        "policy",
        "fsck",
        "cat",
        "grant",
        "principal",
        "access-key",
    ] {
        assert!(machine.ok(&[command, "--help"]).contains("Usage: kmsfs"), "{command}");
    }
    assert!(machine.ok(&["--version"]).starts_with("kmsfs "));
}

#[test]
fn a_wrong_command_line_is_code_2() {
    let machine = Machine::new();
    for words in [
        &["nonsense"][..],
        &["mount", "only-one"],
        &["key", "rotate"],
        &["--passphrase-fd", "x", "status"],
        &["--key-file", "a", "--passphrase-fd", "3", "status"],
    ] {
        machine.fails(words, 2, "");
    }
}

#[test]
fn without_secret_and_terminal_it_says_what_to_do() {
    let machine = Machine::new();
    machine.fails(&["mount", "--create", "vault", "private"], 4, "--key-file FILE");
    machine.fails(&["key", "list"], 4, "--passphrase-fd N");
    assert!(!machine.path("vault").exists(), "a refused command makes nothing");
    assert!(!machine.path("private").exists(), "a refused command makes nothing");
}

#[test]
fn a_missing_keystore_is_named() {
    let machine = Machine::new();
    fs::write(machine.path("key"), [7; 64]).unwrap();
    fs::set_permissions(machine.path("key"), PermissionsExt::from_mode(0o600)).unwrap();
    machine.fails(&keyed(&["key", "list"]), 5, "data/kmsfs/keystore.db");
    machine.fails(&["--key-file", "absent", "key", "list"], 4, "absent");
}

#[test]
fn the_key_file_and_the_keystore_are_for_their_owner_only() {
    let machine = Machine::with_vault();
    assert_eq!(mode(&machine.path("key")), 0o600);
    assert_eq!(mode(&machine.path("data/kmsfs/keystore.db")), 0o600);
    assert_eq!(mode(&machine.path("data/kmsfs")), 0o700);
}

/// In a rescue shell without `/proc` a vault "is not a kmsfs vault: make one".
#[test]
fn regression_a_vault_is_not_taken_for_none_where_proc_is_missing() {
    let machine = Machine::with_vault();
    let program = Path::new("/usr/bin/unshare");
    let script = format!(
        "mount -t tmpfs none /proc && exec {} --key-file key cat vault file",
        env!("CARGO_BIN_EXE_kmsfs")
    );
    let output = machine.command_of(program, &["-Urm", "sh", "-c", &script]).output().unwrap();
    let (_, stderr) = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("/proc is not mounted"), "{stderr}");
}

#[test]
fn a_key_file_that_exists_is_not_made_again() {
    let machine = Machine::with_vault();
    let before = fs::read(machine.path("key")).unwrap();
    let words = keyed(&["keystore", "init", "--create-key-file"]);
    machine.fails(&words, 1, "exists already");
    assert_eq!(fs::read(machine.path("key")).unwrap(), before);
}

#[test]
fn a_wrong_key_file_is_code_3() {
    let machine = Machine::with_vault();
    fs::write(machine.path("other"), [9; 64]).unwrap();
    fs::set_permissions(machine.path("other"), PermissionsExt::from_mode(0o600)).unwrap();
    machine.fails(&["--key-file", "other", "key", "list"], 3, "does not open the keystore");
    fs::set_permissions(machine.path("other"), PermissionsExt::from_mode(0o644)).unwrap();
    machine.fails(&["--key-file", "other", "key", "list"], 3, "chmod 600");
}

#[test]
fn a_passphrase_comes_from_a_descriptor() {
    let machine = Machine::new();
    assert_eq!(machine.feed(&["--passphrase-fd", "0", "keystore", "init"], "open sesame\n"), 0);
    assert_eq!(machine.feed(&["--passphrase-fd", "0", "key", "list"], "open sesame"), 0);
    assert_eq!(machine.feed(&["--passphrase-fd", "0", "key", "list"], "open barley\n"), 3);
    machine.fails(&["--passphrase-fd", "97", "key", "list"], 1, "file descriptor 97");
}

#[test]
fn the_variable_names_a_key_file_and_credentials_are_found() {
    let machine = Machine::with_vault();
    let by_variable = machine.command(&["key", "list"]).env("KMSFS_KEY_FILE", "key").output();
    assert!(by_variable.unwrap().status.success());
    let credentials = machine.path("credentials");
    fs::create_dir(&credentials).unwrap();
    fs::copy(machine.path("key"), credentials.join("kmsfs.key")).unwrap();
    let mut command = machine.command(&["key", "list"]);
    let output = command.env("CREDENTIALS_DIRECTORY", &credentials).output().unwrap();
    assert!(output.status.success(), "{}", texts(&output).1);
}

#[test]
fn what_is_no_keystore_is_code_6() {
    let machine = Machine::with_vault();
    let keystore = machine.path("data/kmsfs/keystore.db");
    fs::write(&keystore, "not a database, but long enough to be looked at as one").unwrap();
    machine.fails(&keyed(&["key", "list"]), 6, "keystore.db");
}

#[test]
fn a_keystore_of_a_newer_schema_is_code_6() {
    let machine = Machine::with_vault();
    machine.sql("PRAGMA user_version = 99");
    machine.fails(&keyed(&["key", "list"]), 6, "upgrade kmsfs");
}

#[test]
fn a_keystore_edited_by_hand_is_code_6() {
    let machine = Machine::with_vault();
    machine.sql("UPDATE kms_key SET sealed = zeroblob(length(sealed))");
    machine.fails(&keyed(&["key", "list"]), 6, "changed by something else than kmsfs");
    let machine = Machine::with_vault();
    machine.sql("DELETE FROM alias");
    machine.fails(&keyed(&["key", "list"]), 6, "something else than kmsfs");
}

#[test]
fn a_vault_of_a_newer_format_is_code_8() {
    let machine = Machine::with_vault();
    for name in ["volume", "volume.bak"] {
        let path = machine.path("vault/.kmsfs").join(name);
        let mut bytes = fs::read(&path).unwrap();
        // The format number, behind the magic; the CRC ends the record.
        bytes[8] = 2;
        let end = bytes.len() - 4;
        let crc = crc32fast::hash(&bytes[..end]).to_le_bytes();
        bytes[end..].copy_from_slice(&crc);
        fs::write(&path, bytes).unwrap();
    }
    machine.fails(&keyed(&["fsck", "vault"]), 8, "newer format");
}

#[test]
fn a_vault_of_another_keystore_is_not_opened() {
    let machine = Machine::with_vault();
    fs::remove_dir_all(machine.path("data/kmsfs")).unwrap();
    machine.ok(&keyed(&["keystore", "init"]));
    machine.fails(&keyed(&["fsck", "vault"]), 12, "name the keystore that has it");
    machine.fails(&keyed(&["cat", "vault", "file"]), 12, "is not in this keystore");
    machine.fails(&keyed(&["rewrap", "vault"]), 12, "is not in this keystore");
}

#[test]
fn an_unknown_key_is_code_12_and_a_disabled_one_13() {
    let machine = Machine::with_vault();
    machine.fails(&keyed(&["key", "describe", "alias/none"]), 12, "alias/none");
    machine.fails(&keyed(&["key", "describe", "no key at all"]), 2, "no key at all");
    machine.fails(&keyed(&["init", "v2", "--key", "alias/none"]), 12, "alias/none");
    machine.ok(&keyed(&["key", "disable", "alias/kmsfs/default"]));
    machine.fails(&keyed(&["key", "rotate", "alias/kmsfs/default"]), 13, "disabled");
    machine.fails(&keyed(&["init", "v2"]), 13, "disabled");
}

#[test]
fn a_key_lives_through_its_states() {
    let machine = Machine::with_vault();
    let words =
        ["key", "create", "--alias", "alias/a", "--description", "first", "--tag", "team=x"];
    let made = machine.json(&keyed(&words));
    let id = made["KeyId"].as_str().unwrap();
    let shown = machine.json(&keyed(&["key", "describe", id]));
    assert_eq!(
        (shown["KeyState"].as_str(), &shown["Description"]),
        (Some("Enabled"), &made["Description"])
    );
    machine.ok(&keyed(&["alias", "create", "alias/b", id]));
    machine.fails(&keyed(&["alias", "create", "alias/b", id]), 1, "already exists");
    machine.ok(&keyed(&["key", "rotate", "alias/b"]));
    machine.ok(&keyed(&["key", "rotation", "alias/b", "--every", "90"]));
    let rotation = machine.json(&keyed(&["key", "rotation", "alias/b"]));
    assert_eq!(rotation["RotationPeriodInDays"], 90);
    machine.fails(&keyed(&["key", "rotation", "alias/b", "--every", "5"]), 2, "90");
    machine.fails(&keyed(&["key", "schedule-deletion", "alias/b"]), 14, "--yes");
    machine.ok(&keyed(&["key", "schedule-deletion", "alias/b", "--days", "7", "--yes"]));
    machine.fails(&keyed(&["key", "enable", "alias/b"]), 13, "pending deletion");
    machine.ok(&keyed(&["key", "cancel-deletion", "alias/b"]));
    machine.ok(&keyed(&["key", "enable", "alias/b"]));
    machine.ok(&keyed(&["alias", "delete", "alias/b"]));
    machine.fails(&keyed(&["alias", "delete", "alias/b"]), 12, "alias/b");
}

#[test]
fn the_last_slot_stays_and_a_changed_secret_replaces_the_old_one() {
    let machine = Machine::with_vault();
    let slots = machine.json(&keyed(&["keystore", "slots", "list"]));
    let slot = slots["slots"][0]["id"].to_string();
    let slot = slot.as_str();
    machine.fails(&keyed(&["keystore", "slots", "remove", slot, "--yes"]), 14, "last");
    machine.ok(&keyed(&["keystore", "slots", "change", slot, "--new-key-file", "key2"]));
    machine.fails(&keyed(&["key", "list"]), 3, "does not open");
    machine.ok(&["--key-file", "key2", "key", "list"]);
}

#[test]
fn a_keystore_edited_by_hand_is_refused_examined_and_repaired() {
    let machine = Machine::with_vault();
    let database = rusqlite::Connection::open(machine.path("data/kmsfs/keystore.db")).unwrap();
    database.execute("UPDATE alias SET sealed = randomblob(90)", []).unwrap();
    drop(database);
    machine.fails(&keyed(&["key", "list"]), 6, "of table alias was changed");
    let verify = machine.run(&keyed(&["keystore", "verify"]));
    assert_eq!(verify.status.code(), Some(15));
    machine.fails(&keyed(&["keystore", "repair"]), 14, "--yes");
    machine.ok(&keyed(&["keystore", "repair", "--yes"]));
    machine.ok(&keyed(&["keystore", "verify"]));
    assert!(machine.json(&keyed(&["alias", "list"])).to_string().find("alias/").is_none());
}

/// A vault that could not be read counted as one without files, also later, when it was away.
#[test]
fn regression_a_vault_that_cannot_be_looked_into_is_not_said_to_lose_nothing() {
    let machine = Machine::with_vault();
    let deletion = keyed(&["key", "schedule-deletion", "alias/kmsfs/default"]);
    let warns = |parts: &[&str]| parts.iter().for_each(|part| machine.fails(&deletion, 14, part));
    warns(&["vault: 0 files and 2 directories would be lost"]);
    for copy in ["volume", "volume.bak"] {
        fs::write(machine.path("vault/.kmsfs").join(copy), vec![0; 512]).unwrap();
    }
    let known = "it had 0 files and 2 directories of this key";
    warns(&["vault: cannot be looked into (", known]);
    let said = machine.json(&[&deletion[..], &["--yes"]].concat());
    let vault = &said["Vaults"][0];
    assert!(vault["Files"].is_null() && vault["Why"].is_string(), "{said}");
    assert_eq!(vault["Remembered"]["Directories"], 2, "{said}");
    let key = said["KeyId"].as_str().unwrap();
    machine.ok(&keyed(&["key", "cancel-deletion", key]));
    machine.fails(
        &keyed(&["key", "retire", "alias/kmsfs/default", "--yes"]),
        14,
        "cannot be looked",
    );
    fs::rename(machine.path("vault"), machine.path("away")).unwrap();
    warns(&["vault: not there now; on ", known]);
}

/// A damaged row of the vault was removed without a word, and `key retire` destroyed what the vault needed.
#[test]
fn regression_nothing_is_retired_that_a_vault_may_need_which_a_repair_forgot() {
    let machine = Machine::with_vault();
    machine.ok(&keyed(&["key", "rotate", "alias/kmsfs/default"]));
    let database = rusqlite::Connection::open(machine.path("data/kmsfs/keystore.db")).unwrap();
    database.execute("UPDATE volume SET sealed = randomblob(90)", []).unwrap();
    drop(database);
    let told = machine.ok(&keyed(&["keystore", "repair", "--yes"]));
    assert!(told.contains("removed 1 of 1 known vaults"), "{told}");
    assert!(told.contains("may have forgotten vaults"), "{told}");
    let mut retire = keyed(&["key", "retire", "alias/kmsfs/default", "--yes"]);
    for flag in ["--lost-vaults-checked", "--other-hosts-checked", "--ciphertexts-checked"] {
        machine.fails(&retire, 14, flag);
        retire.push(flag);
    }
    let named: Vec<&str> = [&retire[..], &["--vault", "vault"]].concat();
    machine.fails(&named, 14, "still refer to material");
    let deletion = ["key", "schedule-deletion", "alias/kmsfs/default"];
    machine.fails(&keyed(&deletion), 14, "may have forgotten vaults");
    machine.ok(&keyed(&["rewrap", "vault"]));
    machine.ok(&named);
    machine.ok(&keyed(&["fsck", "vault"]));
}

/// After a repair `key retire` took a flag for ever: nothing ended that.
#[test]
fn regression_vaults_that_are_known_again_can_be_confirmed() {
    let machine = Machine::with_vault();
    let database = rusqlite::Connection::open(machine.path("data/kmsfs/keystore.db")).unwrap();
    database.execute("UPDATE volume SET sealed = randomblob(90)", []).unwrap();
    drop(database);
    machine.ok(&keyed(&["keystore", "repair", "--yes"]));
    let status = || machine.json(&keyed(&["keystore", "status"]));
    assert_eq!(status()["may_have_forgotten_vaults"], true);
    assert!(machine.ok(&keyed(&["keystore", "status"])).contains("confirm-vaults"));
    // What has a mount is known from then on.
    machine.ok(&keyed(&["mount", "--create", "vault", "m"]));
    machine.ok(&["umount", "m"]);
    let confirm = keyed(&["keystore", "confirm-vaults", "--yes"]);
    fs::rename(machine.path("vault"), machine.path("away")).unwrap();
    machine.fails(&confirm, 14, "may need the material");
    fs::rename(machine.path("away"), machine.path("vault")).unwrap();
    machine.fails(
        &keyed(&["keystore", "confirm-vaults"]),
        14,
        machine.path("vault").to_str().unwrap(),
    );
    assert_eq!(status()["may_have_forgotten_vaults"], true);
    machine.ok(&confirm);
    assert_eq!(status()["may_have_forgotten_vaults"], false);
    assert!(machine.ok(&confirm).contains("nothing was forgotten"));
    let audited = machine.ok(&keyed(&["audit", "list"]));
    assert!(audited.contains("kmsfs:ConfirmVolumes"), "{audited}");
    machine.ok(&keyed(&["key", "rotate", "alias/kmsfs/default"]));
    machine.ok(&keyed(&["rewrap", "vault"]));
    let retire = ["key", "retire", "alias/kmsfs/default", "--yes", "--other-hosts-checked"];
    machine.ok(&keyed(&[&retire[..], &["--ciphertexts-checked"]].concat()));
}

#[test]
fn destruction_by_date_is_asked_for_by_hand_too() {
    let machine = Machine::with_vault();
    let nothing = machine.json(&keyed(&["key", "delete-expired", "--confirm-clock"]));
    assert_eq!(nothing, serde_json::json!({ "deleted": [], "held": [] }));
}

#[test]
fn an_exported_keystore_is_imported_elsewhere() {
    let machine = Machine::with_vault();
    let before = machine.json(&keyed(&["key", "list"]));
    machine.ok(&keyed(&["keystore", "verify"]));
    let copy = |verb: &str, passphrase: &str| {
        let words = ["keystore", verb, "copy", "--export-passphrase-fd", "0"];
        machine.feed(&keyed(&words), passphrase)
    };
    assert_eq!(copy("export", "\n"), 4, "an empty passphrase");
    assert_eq!(copy("export", "of the copy\n"), 0);
    assert_eq!(mode(&machine.path("copy")), 0o600);
    assert_eq!(copy("export", "of the copy\n"), 1, "it is not overwritten");
    assert_eq!(copy("import", "of the copy\n"), 1, "nor is the keystore");
    fs::rename(machine.path("data/kmsfs"), machine.path("data/lost")).unwrap();
    assert_eq!(copy("import", "of another copy\n"), 3);
    assert_eq!(copy("import", "of the copy\n"), 0);
    assert_eq!(machine.json(&keyed(&["key", "list"])), before);
}

#[test]
fn a_directory_with_files_is_not_made_into_a_vault() {
    let machine = Machine::with_vault();
    fs::create_dir(machine.path("full")).unwrap();
    fs::write(machine.path("full/file"), "mine").unwrap();
    machine.fails(&keyed(&["init", "full"]), 7, "not empty");
    machine.fails(&keyed(&["fsck", "full"]), 7, "full");
    machine.fails(&keyed(&["cat", "full", "file"]), 7, "full");
    machine.fails(&keyed(&["mount", "full", "m"]), 10, "does not exist");
    machine.fails(&["status", "full"], 7, "full");
    assert_eq!(fs::read(machine.path("full/file")).unwrap(), b"mine");
}

#[test]
fn a_vault_is_not_made_twice() {
    let machine = Machine::with_vault();
    machine.fails(&keyed(&["init", "vault"]), 14, "vault");
}

#[test]
fn unmounting_what_is_not_mounted_is_code_18() {
    let machine = Machine::new();
    machine.fails(&["umount", "."], 18, "no vault is mounted");
    machine.ok(&["umount", "--if-mounted", "."]);
}

#[test]
fn errors_are_json_when_asked_for() {
    let machine = Machine::new();
    let output = machine.run(&["--json", "umount", "."]);
    let error: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(error["error"]["code"], 18);
    assert!(output.stdout.is_empty());
}

/// A program that reads JSON got the text of the argument parser.
#[test]
fn regression_a_wrong_command_line_is_json_when_asked_for() {
    let machine = Machine::new();
    for words in [&["--json", "mount", "only-one"][..], &["key", "rotate", "--json"], &["--json"]] {
        let output = machine.run(words);
        let error: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!((output.status.code(), &error["error"]["code"]), (Some(2), &2.into()));
        assert!(!error["error"]["message"].as_str().unwrap().contains('\n'), "{error}");
    }
}

/// It failed at the rotations, which only symmetric keys have.
#[test]
fn regression_every_kind_of_key_is_described() {
    let machine = Machine::with_vault();
    for (spec, usage) in [("HMAC_256", "GENERATE_VERIFY_MAC"), ("ECC_NIST_P256", "SIGN_VERIFY")] {
        let words = ["kms", "create-key", "--key-spec", spec, "--key-usage", usage];
        let made = machine.json(&keyed(&words));
        let id = made["KeyMetadata"]["KeyId"].as_str().unwrap();
        let text = machine.ok(&keyed(&["key", "describe", id]));
        assert!(text.contains(spec) && text.contains(usage), "{text}");
        assert_eq!(machine.json(&keyed(&["key", "describe", id]))["KeySpec"], spec);
    }
}

#[test]
fn a_multi_region_key_is_shown_with_its_role() {
    let machine = Machine::with_vault();
    let words = ["key", "create", "--multi-region", "--alias", "alias/many"];
    machine.ok(&keyed(&words));
    assert!(machine.ok(&keyed(&["key", "list"])).contains("primary"));
    let text = machine.ok(&keyed(&["key", "describe", "alias/many"]));
    assert!(text.contains("primary; primary in local, replicas in none"), "{text}");
}

#[test]
fn unknown_mount_options_are_refused_by_name() {
    let machine = Machine::with_vault();
    fs::create_dir(machine.path("m")).unwrap();
    machine.fails(&keyed(&["mount", "-o", "ro,turbo", "vault", "m"]), 2, "turbo");
}

#[test]
fn an_empty_vault_is_whole_and_has_a_status() {
    let machine = Machine::with_vault();
    machine.ok(&keyed(&["fsck", "vault"]));
    let status = machine.json(&["status", "vault"]);
    assert_eq!(status["mounted"], false);
    machine.fails(&keyed(&["cat", "vault", "nothing"]), 1, "nothing");
    let rewrapped = machine.json(&keyed(&["rewrap", "vault"]));
    assert_eq!(rewrapped["complete"], true);
}

#[test]
fn a_vault_out_of_sight_holds_back_retirement_until_it_is_forgotten() {
    let machine = Machine::with_vault();
    machine.ok(&keyed(&["key", "rotate", "alias/kmsfs/default"]));
    fs::rename(machine.path("vault"), machine.path("moved")).unwrap();
    let retire = keyed(&["key", "retire", "alias/kmsfs/default", "--yes"]);
    machine.fails(&retire, 14, "is not there");
    let at_its_new_place: Vec<&str> = retire.iter().copied().chain(["--vault", "moved"]).collect();
    machine.fails(&at_its_new_place, 14, "re-wrap");
    let status = machine.json(&keyed(&["keystore", "status"]));
    let id = status["vaults"][0]["volume"].as_str().unwrap();
    machine.fails(&keyed(&["keystore", "forget", id]), 14, "--yes");
    fs::rename(machine.path("moved"), machine.path("vault")).unwrap();
    machine.fails(&keyed(&["keystore", "forget", id]), 14, "now: without its keys");
    fs::rename(machine.path("vault"), machine.path("moved")).unwrap();
    machine.ok(&keyed(&["keystore", "forget", id, "--yes"]));
    machine.ok(&retire);
}

/// It was passed over without a word, like one that is not there.
#[test]
fn regression_a_damaged_vault_is_told_of_before_it_is_forgotten() {
    let machine = Machine::with_vault();
    let status = machine.json(&keyed(&["keystore", "status"]));
    let id = status["vaults"][0]["volume"].as_str().unwrap();
    for copy in ["volume", "volume.bak"] {
        fs::write(machine.path("vault/.kmsfs").join(copy), "damaged").unwrap();
    }
    machine.fails(&keyed(&["keystore", "forget", id]), 14, "cannot be looked into, and may be it");
}

#[test]
fn the_keystore_knows_its_vaults() {
    let machine = Machine::with_vault();
    let status = machine.json(&keyed(&["keystore", "status"]));
    let vault = machine.path("vault").canonicalize().unwrap();
    assert_eq!(status["vaults"][0]["path"].as_str().map(Path::new), Some(vault.as_path()));
    assert_eq!(status["vaults"][0]["other_paths"], serde_json::json!([]));
    // One that moved may have left a copy.
    fs::rename(&vault, machine.path("moved")).unwrap();
    machine.ok(&keyed(&["mount", "--create", "moved", "m"]));
    machine.ok(&["umount", "m"]);
    let status = machine.json(&keyed(&["keystore", "status"]));
    assert_eq!(
        status["vaults"][0]["other_paths"][0].as_str().map(Path::new),
        Some(vault.as_path())
    );
    assert!(machine.ok(&keyed(&["keystore", "status"])).contains("1 other path"));
}

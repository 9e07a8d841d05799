//! Commands that fail leave nothing behind that was not there before.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::machine::{Machine, keyed, texts};

/// Moves the keystore of the machine away.
fn hide_keystore(machine: &Machine) {
    fs::rename(machine.path("data/kmsfs"), machine.path("data/hidden")).unwrap();
}

/// A mistyped --keystore gave a second keystore and a second key file, and then an error.
#[test]
fn regression_nothing_is_made_for_a_vault_that_is_there() {
    let machine = Machine::with_vault();
    hide_keystore(&machine);
    let words = ["--key-file", "new-key", "mount", "--create", "vault", "m"];
    machine.fails(&words, 5, "data/kmsfs/keystore.db");
    machine.fails(&words, 5, "nothing was made");
    assert!(!machine.path("new-key").exists());
    assert!(!machine.path("data/kmsfs").exists());
}

/// A key file went with the keystore that could not be made, and so it did when another process had
/// made the keystore under it, or when the keystore was there and only what follows had failed.
#[test]
fn regression_a_key_file_that_was_made_stays_and_is_taken_by_the_next_try() {
    let machine = Machine::new();
    fs::write(machine.path("file"), "").unwrap();
    let below = machine.path("file/keystore.db");
    let below = below.to_str().unwrap();
    let make = ["--key-file", "key", "--keystore", below];
    let init: Vec<&str> = [&make[..], &["keystore", "init", "--create-key-file"]].concat();
    machine.fails(&init, 1, "made the key file key: it stays");
    let made = fs::read(machine.path("key")).unwrap();
    fs::write(machine.path("copy"), "no export").unwrap();
    let import = ["keystore", "import", "copy", "--export-passphrase-fd", "0"];
    assert_eq!(machine.feed(&keyed(&import), "sesame\n"), 6);
    machine.ok(&keyed(&["keystore", "init", "--create-key-file"]));
    assert_eq!(fs::read(machine.path("key")).unwrap(), made);
}

#[test]
fn a_key_file_for_a_slot_that_failed_stays_and_is_taken_by_the_next_try() {
    let machine = Machine::with_vault();
    let change = |slot| ["keystore", "slots", "change", slot, "--new-key-file", "key2"];
    machine.fails(&keyed(&change("99")), 12, "99");
    machine.ok(&keyed(&change("1")));
    machine.ok(&["--key-file", "key2", "key", "list"]);
}

/// Of two first commands at once, the one that was late took the key file of the other away.
#[test]
fn regression_first_commands_at_once_end_with_one_keystore_that_opens() {
    for _ in 0..5 {
        let machine = Machine::new();
        let started: Vec<_> = (0..4)
            .map(|_| {
                let words = keyed(&["keystore", "init", "--create-key-file"]);
                machine.command(&words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
            })
            .collect();
        let codes = started.into_iter().map(|mut child| child.wait().unwrap().code().unwrap());
        let made = codes.filter(|code| *code == 0).count();
        assert_eq!(made, 1);
        machine.ok(&keyed(&["key", "list"]));
    }
}

/// One of two who made a vault in the same place at the same time took away what the other had made.
#[test]
fn regression_a_vault_is_made_once_by_those_who_make_it_at_once() {
    let machine = Machine::new();
    machine.ok(&keyed(&["keystore", "init", "--create-key-file"]));
    for vault in ["v1", "v2", "v3", "v4"] {
        let started: Vec<_> = (0..4)
            .map(|_| {
                let words = keyed(&["init", vault]);
                machine.command(&words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
            })
            .collect();
        let codes = started.into_iter().map(|mut child| child.wait().unwrap().code().unwrap());
        let mut codes: Vec<_> = codes.collect();
        codes.sort_unstable();
        assert_eq!(codes, [0, 14, 14, 14]);
        assert!(machine.path(vault).join(".kmsfs.dir").exists());
        machine.ok(&keyed(&["fsck", vault]));
    }
}

#[test]
fn a_key_file_that_was_there_stays_when_its_command_fails() {
    let machine = Machine::with_vault();
    let before = fs::read(machine.path("key")).unwrap();
    fs::write(machine.path("file"), "").unwrap();
    let below = machine.path("file/keystore.db");
    let below = below.to_str().unwrap();
    machine.fails(&keyed(&["--keystore", below, "keystore", "init"]), 1, "file");
    assert_eq!(fs::read(machine.path("key")).unwrap(), before);
}

/// A rotation period that is out of bounds was refused after the key had been made.
#[test]
fn regression_a_key_is_not_made_when_its_options_are_refused() {
    let machine = Machine::with_vault();
    let count = || machine.json(&keyed(&["key", "list"]))["Keys"].as_array().unwrap().len();
    let before = count();
    let create = ["key", "create", "--alias"];
    let with = |rest: &[&'static str]| keyed(&[&create[..], rest].concat());
    machine.fails(&with(&["alias/kmsfs/default"]), 1, "exists already");
    machine.fails(&with(&["alias/new", "--rotate-every", "5"]), 2, "90 to 2560");
    machine.ok(&keyed(&["key", "disable", "alias/kmsfs/default"]));
    machine.fails(&with(&["alias/kmsfs/default"]), 1, "exists already");
    assert_eq!(count(), before);
}

/// A vault for which the KMS made no key stayed behind as an empty directory; and the refusal did not
/// say how to get in.
#[test]
fn regression_a_vault_that_failed_is_not_left_as_a_directory() {
    let machine = Machine::with_vault();
    let server = Server::start(&machine, "kms.sock");
    let url = format!("unix:{}", machine.path("kms.sock").display());
    machine.fails(&["init", "v2", "--kms", &url], 13, "--for-volumes");
    assert!(!machine.path("v2").exists());
    drop(server);
}

/// Without an access key nobody was asked, although this server takes requests without a signature.
#[test]
fn regression_a_server_that_needs_no_signature_is_asked_without_one() {
    let machine = Machine::with_vault();
    let unsigned = Server::start(&machine, "kms.sock");
    let url = format!("unix:{}", machine.path("kms.sock").display());
    let keys = machine.json(&["kms", "list-keys", "--kms", &url]);
    assert_eq!(keys["Keys"].as_array().unwrap().len(), 1);
    drop(unsigned);
}

/// A server that takes requests without a signature, until it is dropped.
struct Server(std::process::Child);

impl Server {
    fn start(machine: &Machine, socket: &str) -> Self {
        let listen = format!("unix:{}", machine.path(socket).display());
        let words = keyed(&["serve", "--listen", &listen, "--allow-unsigned"]);
        let server = Self(machine.command(&words).stderr(Stdio::null()).spawn().unwrap());
        let end = Instant::now() + Duration::from_secs(20);
        while !machine.path(socket).exists() {
            assert!(Instant::now() < end, "the server does not listen");
            sleep(Duration::from_millis(20));
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A second name gave the keystore a second WAL, and a WAL that was left was written into the next
/// keystore of the name: both lost keys.
#[test]
fn regression_names_and_files_that_endanger_a_keystore_are_refused_with_advice() {
    let machine = Machine::with_vault();
    let path = machine.path("data/kmsfs/keystore.db");
    fs::hard_link(&path, machine.path("data/snapshot.db")).unwrap();
    machine.fails(&keyed(&["key", "list"]), 14, "cp -a FILE FILE.own");
    fs::remove_file(machine.path("data/snapshot.db")).unwrap();
    machine.ok(&keyed(&["key", "list"]));
    fs::rename(&path, machine.path("data/kmsfs/aside.db")).unwrap();
    fs::write(machine.path("data/kmsfs/keystore.db-wal"), "left").unwrap();
    machine.fails(&keyed(&["keystore", "init"]), 14, "keystore.db-wal' was left");
    assert!(!path.exists());
}

/// "Cannot create" was said of a keystore, and of an export, that was there, whole, and only not known to
/// survive a power cut: whoever believed it had keys in a file that they did not know of. The directory
/// can be written to, but not be opened, and so not be synced.
#[test]
fn regression_a_file_that_is_there_and_may_not_be_durable_is_told_of_so() {
    const NOBODY: u32 = 65534;
    let machine = Machine::new();
    fs::create_dir(machine.path("blind")).unwrap();
    // Root could open it.
    if rustix::process::geteuid().is_root() {
        for dir in ["", "home", "data", "run", "blind"] {
            chown(machine.path(dir), Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }
    let command = |words: &[&str]| {
        let mut command = machine.command(words);
        if rustix::process::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    };
    let close = |mode| fs::set_permissions(machine.path("blind"), PermissionsExt::from_mode(mode));
    let told = |words: &[&str]| {
        fs::write(machine.path("passphrase"), "of the copy\n").unwrap();
        let passphrase = fs::File::open(machine.path("passphrase")).unwrap();
        let output = command(words).stdin(passphrase).output().unwrap();
        let (_, told) = texts(&output);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains("it is made, but its directory cannot be synced"), "{told}");
    };
    let ok = |words: &[&str]| {
        let output = command(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", texts(&output).1);
    };
    ok(&["--key-file", "key", "keystore", "init", "--create-key-file"]);
    let blind = ["--key-file", "key", "--keystore", "blind/keystore.db", "keystore"];
    close(0o300).unwrap();
    told(&["--key-file", "key", "keystore", "export", "blind/copy", "--export-passphrase-fd", "0"]);
    told(&[&blind[..], &["init"]].concat());
    close(0o700).unwrap();
    ok(&[&blind[..], &["verify"]].concat());
    let mut names: Vec<_> = fs::read_dir(machine.path("blind")).unwrap().flatten().collect();
    names.retain(|entry| !entry.file_name().to_string_lossy().starts_with("keystore.db"));
    assert_eq!(names.len(), 1, "{names:?}");
    let import =
        ["--key-file", "key", "--keystore", "again.db", "keystore", "import", "blind/copy"];
    let passphrase = fs::File::open(machine.path("passphrase")).unwrap();
    let mut import = command(&[&import[..], &["--export-passphrase-fd", "0"]].concat());
    assert!(import.stdin(passphrase).status().unwrap().success());
}

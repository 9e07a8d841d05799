//! Commands that fail leave nothing behind that was not there before.

use std::fs;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::machine::{Machine, keyed};

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

/// The key file of a keystore that could not be made stayed behind, and looked like a good one.
#[test]
fn regression_a_key_file_goes_with_the_keystore_that_failed() {
    let machine = Machine::new();
    fs::write(machine.path("file"), "").unwrap();
    let below = machine.path("file/keystore.db");
    let below = below.to_str().unwrap();
    let make = ["--key-file", "key", "--keystore", below];
    let init: Vec<&str> = [&make[..], &["keystore", "init", "--create-key-file"]].concat();
    machine.fails(&init, 1, "file");
    assert!(!machine.path("key").exists());
    fs::write(machine.path("copy"), "no export").unwrap();
    let import = ["keystore", "import", "copy", "--export-passphrase-fd", "0"];
    assert_eq!(machine.feed(&keyed(&import), "sesame\n"), 6);
    assert!(!machine.path("key").exists());
}

#[test]
fn regression_a_key_file_goes_with_the_slot_that_failed() {
    let machine = Machine::with_vault();
    let words = ["keystore", "slots", "change", "99", "--new-key-file", "key2"];
    machine.fails(&keyed(&words), 12, "99");
    assert!(!machine.path("key2").exists());
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

//! A key on a PKCS#11 token as an unlock slot.

use std::process::{Command, Output, Stdio};

use super::machine::{Machine, texts};
use super::softhsm::{MODULE, PIN, SoftHsm};

/// How a token is named on the command line.
const TOKEN: [&str; 6] = ["--pkcs11-module", MODULE, "--token", "safe", "--pin-fd", "0"];

struct Bench {
    machine: Machine,
    hsm: SoftHsm,
}

impl Bench {
    fn new() -> Self {
        let machine = Machine::new();
        let hsm = SoftHsm::new(&machine.path("hsm"), "safe");
        Self { machine, hsm }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.machine.command(words);
        command.env("SOFTHSM2_CONF", self.hsm.conf());
        command
    }

    /// Runs with a PIN on stdin.
    fn with_pin(&self, pin: &str, words: &[&str]) -> Output {
        let mut command = self.command(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, format!("{pin}\n").as_bytes()).ok();
        drop(stdin);
        child.wait_with_output().unwrap()
    }

    fn on_the_token(&self, words: &[&str]) -> Output {
        self.with_pin(PIN, &[&TOKEN[..], words].concat())
    }

    fn ok(&self, words: &[&str]) -> String {
        let output = self.on_the_token(words);
        let (stdout, stderr) = texts(&output);
        assert!(output.status.success(), "{words:?}: {stderr}");
        stdout
    }
}

#[test]
fn a_keystore_lives_on_a_token_alone() {
    let bench = Bench::new();
    bench.ok(&["keystore", "init"]);
    bench.ok(&["key", "create", "--alias", "alias/one"]);
    let slots = bench.ok(&["keystore", "slots", "list"]);
    assert!(slots.contains("token") && slots.contains("safe"), "{slots}");
    let wrong = bench.with_pin("0000", &[&TOKEN[..], &["key", "list"]].concat());
    assert_eq!(wrong.status.code(), Some(3), "{:?}", texts(&wrong));
    assert!(!texts(&wrong).1.contains("0000"));

    bench.hsm.pull_out();
    let gone = bench.on_the_token(&["key", "list"]);
    assert_eq!(gone.status.code(), Some(13), "{:?}", texts(&gone));
    bench.hsm.put_in();
    assert!(bench.ok(&["key", "list"]).contains("alias/one"));
}

#[test]
fn a_token_is_a_slot_beside_a_key_file_and_can_be_removed() {
    let bench = Bench::new();
    let key_file = ["--key-file", "key"];
    bench.machine.ok(&["--key-file", "key", "keystore", "init", "--create-key-file"]);
    let refused = bench.on_the_token(&["key", "list"]);
    assert_eq!(refused.status.code(), Some(3), "{:?}", texts(&refused));

    let add = ["keystore", "slots", "add", "--new-pkcs11-module", MODULE, "--new-token", "safe"];
    let added = bench.with_pin(PIN, &[&key_file[..], &add, &["--new-pin-fd", "0"]].concat());
    assert!(added.status.success(), "{:?}", texts(&added));
    bench.ok(&["key", "list"]);
    let objects = bench.objects();
    assert!(objects.contains("kmsfs keystore") && objects.contains("never extractable"));

    // The other slot knows the same root key, and takes the token's slot away.
    let removed =
        bench.machine.run(&["--key-file", "key", "keystore", "slots", "remove", "2", "-y"]);
    let (_, note) = texts(&removed);
    assert!(removed.status.success() && note.contains("--delete-object"), "{note}");
    assert_eq!(bench.on_the_token(&["key", "list"]).status.code(), Some(3));
}

#[test]
fn a_wrong_pin_leaves_neither_a_slot_nor_a_key() {
    let bench = Bench::new();
    bench.machine.ok(&["--key-file", "key", "keystore", "init", "--create-key-file"]);
    let add = ["keystore", "slots", "add", "--new-pkcs11-module", MODULE, "--new-token", "safe"];
    let add = [&["--key-file", "key"], &add[..], &["--new-pin-fd", "0"]].concat();
    assert_eq!(bench.with_pin("0000", &add).status.code(), Some(3));
    assert_eq!(bench.objects().matches("Secret Key Object").count(), 0);
    let slots = bench.machine.ok(&["--key-file", "key", "keystore", "slots", "list"]);
    assert!(!slots.contains("token"), "{slots}");
}

/// The advice named an option of another command, after a wrong PIN there was none, and a key on a
/// token could not be described.
#[test]
fn regression_a_key_store_says_how_it_gets_its_pin() {
    let bench = Bench::new();
    let run = |pin: &str, words: &[&str]| {
        let output = bench.with_pin(pin, &[&["--key-file", "key"], words].concat());
        (output.status.code(), texts(&output).1)
    };
    let done = (Some(0), String::new());
    bench.machine.ok(&["--key-file", "key", "keystore", "init", "--create-key-file"]);
    let module = ["--store-module", MODULE, "--store-token", "safe"];
    let create = [&["key-store", "create", "safe"][..], &module].concat();
    let (code, said) = run("", &create);
    assert!(code == Some(4) && said.contains("--store-pin-fd"), "{said}");
    let pin = ["--store-pin-fd", "0"];
    assert_eq!(run("0000", &[&create[..], &pin].concat()), done);
    let (code, said) = run("", &["key-store", "connect", "safe"]);
    assert!(code == Some(3) && said.contains("key-store update safe --store-pin-fd"), "{said}");
    assert_eq!(run("", &["key-store", "disconnect", "safe"]), done);
    assert_eq!(run(PIN, &[&["key-store", "update", "safe"][..], &pin].concat()), done);
    assert_eq!(run("", &["key-store", "connect", "safe"]), done);
    let made = ["key", "create", "--key-store", "safe", "--alias", "alias/there"];
    assert_eq!(run("", &made), done);
    assert_eq!(run("", &["key", "describe", "alias/there"]), done);
}

impl Bench {
    /// What the token holds, as OpenSC sees it.
    fn objects(&self) -> String {
        let listed = Command::new("pkcs11-tool")
            .args(["--module", MODULE, "--token-label", "safe", "--login", "--pin", PIN, "-O"])
            .env("SOFTHSM2_CONF", self.hsm.conf())
            .output()
            .expect("pkcs11-tool is there: tests/install-tools.sh installs it");
        String::from_utf8_lossy(&listed.stdout).into_owned()
    }
}

//! A vault under a key that is on a PKCS#11 token, which is pulled out and put back.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::Vault;
use crate::softhsm::{MODULE, PIN, SoftHsm};

/// Two seconds are promised; the margin is for a loaded machine.
const FELT: Duration = Duration::from_secs(10);

#[test]
fn files_go_with_the_token_and_come_back_with_it() {
    let vault = Vault::new("token");
    let hsm = SoftHsm::new(&vault.outside_dir("hsm"), "safe");
    let conf = format!("SOFTHSM2_CONF={}", hsm.conf().display());
    let vault = vault.within(vec!["env".to_owned(), conf]);
    key_on_token(&vault);
    let mount = vault.mount();
    let (small, large) = (mount.path("small"), mount.path("large"));
    fs::write(&small, "on the token").unwrap();
    fs::write(&large, vec![7; 300_000]).unwrap();
    let handle = File::options().read(true).write(true).open(&large).unwrap();
    handle.write_at(b"late", 100).unwrap();

    hsm.pull_out();
    wait_until("new opens fail", || File::open(&small).is_err());
    wait_until("the open handle fails", || handle.read_at(&mut [0; 4], 0).is_err());
    assert!(fs::write(mount.path("new"), "x").is_err(), "a new file could be written");
    assert_eq!(fs::metadata(&large).unwrap().len(), 300_000, "attributes need no key");

    hsm.put_in();
    wait_until("opens work again", || {
        fs::read_to_string(&small).is_ok_and(|text| text == "on the token")
    });
    let mut seen = [0; 4];
    wait_until("the handle works again", || handle.read_at(&mut seen, 100).is_ok());
    assert_eq!(&seen, b"late", "unwritten data was lost");
    drop(handle);
    fs::write(mount.path("new"), "x").unwrap();
    mount.unmount();
    let mount = vault.mount();
    assert_eq!(fs::read_to_string(mount.path("small")).unwrap(), "on the token");
    vault.kmsfs(["key-store", "disconnect", "safe"]);
    wait_until("files go with the connection", || File::open(mount.path("small")).is_err());
    vault.kmsfs(["key-store", "connect", "safe"]);
    wait_until("and come back", || fs::read(mount.path("small")).is_ok());
    mount.unmount();
}

/// Makes the default key of the vault on the token.
fn key_on_token(vault: &Vault) {
    vault.kmsfs(["keystore", "init", "--create-key-file"]);
    let pin = vault.outside("pin");
    fs::write(&pin, format!("{PIN}\n")).unwrap();
    let create = ["key-store", "create", "safe", "--store-module", MODULE, "--store-token", "safe"];
    let mut command = vault.command();
    command.args(create).args(["--store-pin-fd", "0"]).stdin(File::open(pin).unwrap());
    let made = command.output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    vault.kmsfs(["key-store", "connect", "safe"]);
    vault.kmsfs(["key", "create", "--key-store", "safe", "--alias", "alias/kmsfs/default"]);
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < FELT, "not within {FELT:?}: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

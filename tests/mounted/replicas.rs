//! A vault that moves to another machine, whose keystore has a replica of its key.

use std::fs;
use std::process::Command;

use crate::harness::Vault;

#[test]
fn a_vault_that_was_copied_to_a_second_host_opens_there_with_a_replica() {
    let (first, second) = (Vault::new("first-host"), Vault::new("second-host"));
    first.kmsfs(["keystore", "init", "--create-key-file", "--region", "first"]);
    second.kmsfs(["keystore", "init", "--create-key-file", "--region", "second"]);
    first.kmsfs(["key", "create", "--multi-region", "--alias", "alias/kmsfs/default"]);
    let mount = first.mount();
    fs::create_dir(mount.path("notes")).unwrap();
    fs::write(mount.path("notes/plan"), "travels").unwrap();
    mount.unmount();

    let copied = Command::new("cp").arg("-a").arg(first.store()).arg(second.store()).status();
    assert!(copied.unwrap().success());
    let refused = second.command().arg("cat").arg(second.store()).arg("notes/plan").output();
    assert!(!refused.unwrap().status.success(), "without the key it opens nothing");

    let (to, sealed) = (second.outside("to"), second.outside("sealed"));
    let (to, sealed) = (to.to_str().unwrap(), sealed.to_str().unwrap());
    second.kmsfs(["keystore", "transfer-key", to]);
    let fingerprint = |vault: &Vault| {
        let shown: serde_json::Value =
            serde_json::from_str(&vault.kmsfs(["keystore", "identity", "--json"])).unwrap();
        shown["fingerprint"].as_str().unwrap().to_owned()
    };
    let (there, here) = (fingerprint(&second), fingerprint(&first));
    let replicate = ["key", "replicate", "alias/kmsfs/default", "--to", to, "--output", sealed];
    let refused = first.command().args(replicate).args(["--fingerprint", &here]).output();
    assert_eq!(refused.unwrap().status.code(), Some(14), "another identity is refused");
    let done = first.command().args(replicate).args(["--fingerprint", &there]).status();
    assert!(done.unwrap().success());
    second.kmsfs(["key", "receive", sealed, "--fingerprint", &here]);

    let mount = second.mount();
    assert_eq!(fs::read_to_string(mount.path("notes/plan")).unwrap(), "travels");
    fs::write(mount.path("notes/reply"), "from there").unwrap();
    mount.unmount();
    let shown = second.kmsfs(["key", "list", "--json"]);
    assert!(shown.contains("\"REPLICA\"") && shown.contains("mrk-"), "{shown}");
}

//! Policies, grants, principals and access keys on the command line.

use std::fs;
use std::process::Stdio;

use crate::machine::{Machine, keyed, mode};

const KEY: &str = "alias/app";

fn machine() -> Machine {
    let machine = Machine::with_vault();
    machine.ok(&keyed(&["key", "create", "--alias", KEY]));
    machine
}

fn json(machine: &Machine, words: &[&str]) -> serde_json::Value {
    let text = machine.ok(&keyed(&[words, &["--json"]].concat()));
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_policy_is_shown_changed_and_set_back() {
    let machine = machine();
    let shown = machine.ok(&keyed(&["key", "policy", "show", KEY]));
    fs::write(machine.path("policy.json"), shown.replace("key-default-1", "mine")).unwrap();
    machine.ok(&keyed(&["key", "policy", "set", KEY, "policy.json"]));
    assert_eq!(json(&machine, &["key", "policy", "show", KEY])["Policy"]["Id"], "mine");
    machine.ok(&keyed(&["key", "policy", "set", KEY, "--default"]));
    assert_eq!(machine.ok(&keyed(&["key", "policy", "show", KEY])), shown);
}

#[test]
fn a_policy_that_is_wrong_is_refused_with_its_place() {
    let machine = machine();
    let policy = r#"{"Statement":{"Sid":"S","Effect":"Allow","Principal":"*","Action":"kms:Dekrypt",
        "Resource":"*"}}"#;
    fs::write(machine.path("p.json"), policy).unwrap();
    let set = keyed(&["key", "policy", "set", KEY, "p.json"]);
    machine.fails(&set, 2, "policy statement 1 ('S'), Action: 'kms:Dekrypt' is not a permission");
    machine.fails(&keyed(&["key", "policy", "set", KEY, "absent.json"]), 1, "absent.json");
    machine.fails(&keyed(&["key", "policy", "set", KEY]), 2, "");
}

#[test]
fn grants_are_made_listed_revoked_and_retired() {
    let machine = machine();
    let create = |more: &[&str]| {
        let words = ["grant", "create", KEY, "--to", "root", "--operations", "read,Encrypt"];
        json(&machine, &[&words, more].concat())
    };
    let made = create(&["--context", "app=web", "--expires", "8h", "--name", "n"]);
    let listed = json(&machine, &["grant", "list", KEY]);
    let grant = &listed["Grants"][0];
    assert_eq!(grant["GrantId"], made["GrantId"]);
    assert_eq!(grant["GranteePrincipal"], "arn:aws:iam::000000000000:root");
    assert_eq!(grant["Operations"], serde_json::json!(["Decrypt", "Encrypt", "DescribeKey"]));
    assert_eq!(grant["Constraints"]["EncryptionContextSubset"]["app"], "web");
    let id = made["GrantId"].as_str().unwrap();
    let text = machine.ok(&keyed(&["grant", "list", KEY, "--to", "root"]));
    assert!(text.contains(id) && text.contains("app=web"), "{text}");
    machine.ok(&keyed(&["grant", "revoke", KEY, id]));
    machine.fails(&keyed(&["grant", "revoke", KEY, id]), 12, "kmsfs grant list");
    let second = create(&["--retiring", "user:ci"]);
    let retirable = json(&machine, &["grant", "list", "--retirable-by", "user:ci"]);
    assert_eq!(retirable["Grants"][0]["GrantId"], second["GrantId"]);
    let token = second["GrantToken"].as_str().unwrap();
    machine.ok(&keyed(&["grant", "retire", "--token", token]));
    machine.fails(&keyed(&["grant", "retire", "--token", token]), 2, "grant token");
}

#[test]
fn grants_that_make_no_sense_say_why() {
    let machine = machine();
    let create = |to: &str, operations: &str, more: &[&str]| {
        let words = ["grant", "create", KEY, "--to", to, "--operations", operations];
        let words: Vec<String> =
            [&words, more].concat().iter().map(|word| (*word).to_owned()).collect();
        words
    };
    for (words, code, says) in [
        (create("nobody-has-this-name", "read", &[]), 2, "this machine has no user"),
        (create("role:x", "read", &[]), 2, "is no principal"),
        (create("root", "Decode", &[]), 2, "use read, write, or some of"),
        (create("root", "Sign", &[]), 2, "Sign is not supported"),
        (create("root", "read", &["--expires", "soon"]), 2, "write 30d"),
        (create("root", "read", &["--expires", "2001-01-01"]), 2, "does not end before it begins"),
        (create("root", "read", &["--context", "x"]), 2, "write --context KEY=VALUE"),
    ] {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        machine.fails(&keyed(&words), code, says);
    }
}

#[test]
fn policies_of_principals_are_put_shown_and_deleted() {
    let machine = machine();
    let policy = r#"{"Statement":{"Effect":"Allow","Action":"kms:ListKeys","Resource":"*"}}"#;
    fs::write(machine.path("p.json"), policy).unwrap();
    machine.ok(&keyed(&["principal", "policy", "put", "uid:1000", "list", "p.json"]));
    let listed = json(&machine, &["principal", "list"]);
    assert_eq!(listed["Principals"][0]["Arn"], "arn:aws:iam::000000000000:user/unix/1000");
    assert_eq!(machine.ok(&keyed(&["principal", "policy", "list", "uid:1000"])).trim(), "list");
    assert_eq!(
        machine.ok(&keyed(&["principal", "policy", "get", "uid:1000", "list"])).trim(),
        policy
    );
    let delete = ["principal", "policy", "delete", "uid:1000", "list"];
    machine.fails(&keyed(&delete), 14, "--yes");
    machine.ok(&keyed(&[&delete[..], &["--yes"]].concat()));
    machine.fails(&keyed(&[&delete[..], &["--yes"]].concat()), 12, "kmsfs principal list");
}

#[test]
fn an_access_key_is_shown_once_or_written_for_its_owner_only() {
    let machine = machine();
    let made = json(&machine, &["access-key", "create", "--user", "ci"]);
    let (id, secret) = (&made["AccessKey"]["AccessKeyId"], &made["AccessKey"]["SecretAccessKey"]);
    assert_eq!(secret.as_str().unwrap().len(), 40);
    let listed = machine.ok(&keyed(&["access-key", "list"]));
    assert!(listed.contains(id.as_str().unwrap()) && listed.contains("user:ci"), "{listed}");
    assert!(!listed.contains(secret.as_str().unwrap()));
    let write = ["access-key", "create", "--root", "--credentials-file", "ci.aws"];
    let said = machine.ok(&keyed(&write));
    let file = fs::read_to_string(machine.path("ci.aws")).unwrap();
    assert_eq!(mode(&machine.path("ci.aws")), 0o600);
    let secret =
        file.lines().find_map(|line| line.strip_prefix("aws_secret_access_key = ")).unwrap();
    assert!(file.starts_with("[default]\naws_access_key_id = AKIA") && !said.contains(secret));
    machine.fails(&keyed(&write), 1, "ci.aws");
    assert_eq!(json(&machine, &["access-key", "list"])["AccessKeys"].as_array().unwrap().len(), 2);
}

#[test]
fn an_access_key_is_switched_off_and_deleted() {
    let machine = machine();
    let made = json(&machine, &["access-key", "create", "--user", "ci", "--expires", "90d"]);
    let id = made["AccessKey"]["AccessKeyId"].as_str().unwrap();
    let status = || json(&machine, &["access-key", "list"])["AccessKeys"][0]["Status"].clone();
    machine.ok(&keyed(&["access-key", "disable", id]));
    assert_eq!(status(), "Inactive");
    machine.ok(&keyed(&["access-key", "enable", id]));
    assert_eq!(status(), "Active");
    machine.fails(&keyed(&["access-key", "delete", id]), 14, "--yes");
    machine.ok(&keyed(&["access-key", "delete", id, "--yes"]));
    machine.fails(&keyed(&["access-key", "delete", id, "--yes"]), 12, "kmsfs access-key list");
    machine.fails(&keyed(&["access-key", "create"]), 2, "--user");
    machine.fails(&keyed(&["access-key", "create", "--user", "a/b"]), 2, "a user name has");
}

/// A remark that could not be written was a panic, and secrets that are shown once were lost.
#[test]
fn regression_a_command_goes_on_where_nobody_can_read_its_remarks() {
    let machine = Machine::with_vault();
    let full = || Stdio::from(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let output = |words: &[&str]| {
        machine.command(&keyed(words)).stderr(full()).stdout(Stdio::piped()).output().unwrap()
    };
    let made = output(&["access-key", "create", "--root"]);
    assert!(made.status.success(), "{made:?}");
    let keys = machine.json(&keyed(&["access-key", "list"]));
    let id = keys["AccessKeys"][0]["AccessKeyId"].as_str().unwrap();
    assert!(String::from_utf8_lossy(&made.stdout).contains(id));
    assert_eq!(output(&["key", "describe", "alias/none"]).status.code(), Some(12));
    assert_eq!(output(&["no", "command"]).status.code(), Some(2));
    let added = output(&["keystore", "slots", "add", "--new-key-file", "key2"]);
    assert!(added.status.success(), "{added:?}");
    machine.ok(&["--key-file", "key2", "key", "list"]);
}

/// A result that could not be written was a success, and the only copy of a secret was lost.
#[test]
fn regression_a_result_that_cannot_be_written_is_a_failure() {
    let machine = Machine::with_vault();
    let into = |words: &[&str], out: Stdio| {
        let mut command = machine.command(&keyed(words));
        command.stdout(out).stderr(Stdio::piped()).output().unwrap()
    };
    let full = || Stdio::from(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    for words in [&["key", "list"][..], &["key", "list", "--json"]] {
        let output = into(words, full());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(16), "{said}");
        assert!(said.contains("cannot write the result"), "{said}");
    }
    let output = into(&["access-key", "create", "--root"], full());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(16), "{said}");
    let keys = machine.json(&keyed(&["access-key", "list"]));
    let id = keys["AccessKeys"][0]["AccessKeyId"].as_str().unwrap_or_default();
    assert!(!id.is_empty() && said.contains(&format!("access-key delete {id}")), "{said}");
    // Whoever has seen enough has had a result.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert!(into(&["key", "list"], writer.into()).status.success());
}

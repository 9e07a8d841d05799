//! The audit log, metrics, maintenance and the doctor on the command line.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use kmsfs::keystore::{Keystore, Unlock};

use crate::machine::{Machine, keyed, texts};

#[test]
fn the_log_tells_what_was_done_and_filters_pick_from_it() {
    let machine = Machine::with_vault();
    machine.ok(&keyed(&["key", "create", "--alias", "alias/finance"]));
    machine.fails(&keyed(&["key", "describe", "alias/nothing"]), 12, "alias/nothing");
    let all = machine.json(&keyed(&["audit", "list"]));
    let all = all.as_array().unwrap();
    let numbers: Vec<u64> = all.iter().map(|record| record["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    let made = machine.json(&keyed(&["audit", "list", "--operation", "CreateAlias"]));
    let event = &made[0]["event"];
    assert_eq!(event["principal"], "arn:aws:iam::000000000000:root");
    assert_eq!(
        (event["source"].as_str(), event["result"].as_str()),
        (Some("cli"), Some("Success"))
    );
    let key = event["key"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    let text = machine.ok(&keyed(&["audit", "list", "--key", &key, "--last", "1"]));
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.contains("CreateAlias") && text.contains(&key), "{text}");
    let refused = machine.json(&keyed(&["audit", "list", "--result", "NotFoundException"]));
    assert_eq!(refused[0]["event"]["operation"], "DescribeKey");
    assert_eq!(machine.ok(&keyed(&["audit", "list", "--until", "1d"])).trim(), "no such records");
    machine.fails(&keyed(&["audit", "list", "--since", "yesterday"]), 2, "7d, 12h, 30m");
}

#[test]
fn an_export_is_verified_elsewhere_and_a_forgery_is_named() {
    let machine = Machine::with_vault();
    let export = machine.ok(&keyed(&["audit", "export"]));
    fs::write(machine.path("log"), &export).unwrap();
    fs::write(machine.path("pem"), machine.ok(&keyed(&["audit", "key"]))).unwrap();
    let offline = ["audit", "verify", "--file", "log", "--public-key", "pem"];
    assert!(machine.ok(&offline).starts_with("intact"), "no secret is needed");
    machine.fails(&["audit", "verify", "--file", "log"], 2, "--public-key");
    fs::write(machine.path("log"), export.replacen("CreateKey", "ListKeys_", 1)).unwrap();
    let output = machine.run(&offline);
    assert_eq!(output.status.code(), Some(15));
    assert!(texts(&output).0.contains("record 1 does not follow"), "{:?}", texts(&output));
    fs::write(machine.path("pem"), "nonsense").unwrap();
    machine.fails(&offline, 2, "kmsfs audit key");
}

/// What the page on the audit log says about checking an export without kmsfs.
#[test]
fn an_export_is_verified_by_a_few_lines_of_python() {
    let machine = Machine::with_vault();
    fs::write(machine.path("log"), machine.ok(&keyed(&["audit", "export"]))).unwrap();
    let page = include_str!("../../docs/AUDIT.md");
    let (_, program) = page.split_once("```python\n").unwrap();
    let (program, _) = program.split_once("```").unwrap();
    let check = || {
        let python = std::process::Command::new("python3")
            .args(["-c", program, "log"])
            .current_dir(machine.path(""))
            .output()
            .unwrap();
        (python.status.success(), texts(&python))
    };
    let (good, said) = check();
    assert!(good, "{said:?}");
    let forged = fs::read_to_string(machine.path("log")).unwrap().replacen("Success", "Failure", 1);
    fs::write(machine.path("log"), forged).unwrap();
    assert!(!check().0);
}

#[test]
fn a_record_that_was_edited_is_found_by_verify_and_by_the_doctor() {
    let machine = Machine::with_vault();
    assert!(machine.ok(&keyed(&["audit", "verify"])).starts_with("intact"));
    let log = machine.path("data/kmsfs/keystore.db.audit");
    let log = rusqlite::Connection::open(log).unwrap();
    log.execute("UPDATE record SET sealed = randomblob(100) WHERE seq = 1", []).unwrap();
    let output = machine.run(&keyed(&["audit", "verify"]));
    assert_eq!(output.status.code(), Some(15));
    assert!(texts(&output).0.contains("record 1 was changed"), "{:?}", texts(&output));
    let output = machine.run(&keyed(&["doctor"]));
    assert_eq!(output.status.code(), Some(15));
    assert!(texts(&output).0.contains("from record 1 on"), "{:?}", texts(&output));
}

/// A process that lives on, as a daemon does: what it wrote is cut off, and it goes on writing.
#[test]
fn records_cut_off_under_a_live_process_are_found_by_verify_and_by_the_doctor() {
    let machine = Machine::with_vault();
    let place = machine.path("data/kmsfs/keystore.db");
    let live = Keystore::open(&place, &Unlock::KeyFile(machine.path("key"))).unwrap();
    let work = || {
        for _ in 0..5 {
            live.list_keys().unwrap();
        }
        live.flush_audit().unwrap();
    };
    work();
    let log = rusqlite::Connection::open(machine.path("data/kmsfs/keystore.db.audit")).unwrap();
    log.execute("DELETE FROM record WHERE seq > 3", []).unwrap();
    work();
    let output = machine.run(&keyed(&["audit", "verify"]));
    assert_eq!(output.status.code(), Some(15));
    let said = texts(&output).0;
    assert!(said.contains("records 4 to ") && said.contains(" are missing, as record"), "{said}");
    let output = machine.run(&keyed(&["doctor"]));
    assert_eq!(output.status.code(), Some(15));
    assert!(texts(&output).0.contains("from record 4 on"), "{:?}", texts(&output));
    let refused = ["audit", "prune", "--before", "2100-01-01", "--yes"];
    machine.fails(&keyed(&refused), 15, "nothing was removed");
}

#[test]
fn a_log_that_is_required_and_cannot_be_written_refuses() {
    let machine = Machine::with_vault();
    machine.ok(&keyed(&["audit", "require", "on"]));
    let log = machine.path("data/kmsfs/keystore.db.audit");
    let aside = machine.path("aside");
    fs::rename(&log, &aside).unwrap();
    fs::create_dir(&log).unwrap();
    let denied = "the audit log cannot be written";
    machine.fails(&keyed(&["key", "create", "--alias", "alias/x"]), 6, denied);
    machine.fails(&keyed(&["audit", "require", "off"]), 6, denied);
    fs::remove_dir(&log).unwrap();
    fs::rename(&aside, &log).unwrap();
    machine.fails(&keyed(&["key", "describe", "alias/x"]), 12, "alias/x");
    machine.ok(&keyed(&["audit", "require", "off"]));
}

#[test]
fn old_records_go_when_somebody_says_yes() {
    let machine = Machine::with_vault();
    let tomorrow = "2100-01-01";
    machine.fails(&keyed(&["audit", "prune", "--before", tomorrow]), 14, "--yes");
    let pruned = machine.json(&keyed(&["audit", "prune", "--before", tomorrow, "--yes"]));
    assert!(pruned["removed"].as_u64().unwrap() > 0, "{pruned}");
    assert!(machine.ok(&keyed(&["audit", "verify"])).starts_with("intact"));
    let left = machine.json(&keyed(&["audit", "list"]));
    assert_eq!(left[0]["event"]["operation"], "kmsfs:PruneAudit");
}

/// A sample is a name, perhaps labels, and a number; each metric says its type first.
fn check_prometheus(text: &str) {
    let mut declared = std::collections::BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(declared.insert(name), "{name} is declared twice");
            continue;
        }
        if line.starts_with("# HELP ") {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        value.parse::<f64>().unwrap();
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').unwrap()),
            None => (series, ""),
        };
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (key, value) = label.split_once('=').unwrap();
            assert!(
                key.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_'),
                "{line}"
            );
            assert!(value.len() >= 2 && value.starts_with('"') && value.ends_with('"'), "{line}");
        }
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        assert!(
            declared.contains(name) || base.is_some_and(|base| declared.contains(base)),
            "{line}"
        );
    }
}

#[test]
fn metrics_are_prometheus_text_and_know_the_files_of_each_key() {
    let machine = Machine::with_vault();
    machine.ok(&keyed(&["keystore", "maintain"]));
    let text = machine.ok(&keyed(&["metrics"]));
    check_prometheus(&text);
    for line in
        ["kmsfs_keys{state=\"Enabled\"} 1", "kmsfs_rotations_overdue 0", "kmsfs_audit_lost_total 0"]
    {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(text.contains("kmsfs_volume_files{volume="), "{text}");
    machine.fails(&keyed(&["metrics", "vault"]), 18, "not mounted");
}

#[test]
fn maintenance_says_what_it_did_and_remembers_what_vaults_need() {
    let machine = Machine::with_vault();
    let done = machine.json(&keyed(&["keystore", "maintain"]));
    assert_eq!(done["scanned"].as_array().unwrap().len(), 1, "{done}");
    assert!(done["audit_signed"].as_u64().unwrap() > 0, "{done}");
    assert!(done["failed"].as_array().unwrap().is_empty(), "{done}");
    fs::rename(machine.path("vault"), machine.path("elsewhere")).unwrap();
    let done = machine.json(&keyed(&["keystore", "maintain"]));
    assert_eq!(done["absent"].as_array().unwrap().len(), 1, "{done}");
    // The vault is away, and what it needed is told all the same.
    let asked = machine.run(&keyed(&["key", "schedule-deletion", "alias/kmsfs/default"]));
    assert_eq!(asked.status.code(), Some(14));
    let said = texts(&asked).1;
    assert!(said.contains("not there now; on ") && said.contains("directories"), "{said}");
    assert!(said.contains("it was last used on"), "{said}");
}

#[test]
fn a_vault_follows_the_rotations_of_its_key_if_it_is_set_to() {
    let machine = Machine::with_vault();
    machine.ok(&keyed(&["keystore", "rewrap-after-rotate", "vault", "on"]));
    machine.ok(&keyed(&["key", "rotate", "alias/kmsfs/default"]));
    let done = machine.json(&keyed(&["keystore", "maintain"]));
    assert_eq!(done["rewrapped"].as_array().unwrap().len(), 1, "{done}");
    machine.ok(&keyed(&["key", "retire", "alias/kmsfs/default", "--yes"]));
    let done = machine.json(&keyed(&["keystore", "maintain"]));
    assert!(done["rewrapped"].as_array().unwrap().is_empty(), "{done}");
    machine.ok(&keyed(&["keystore", "rewrap-after-rotate", "vault", "off"]));
    machine.ok(&keyed(&["key", "rotate", "alias/kmsfs/default"]));
    let done = machine.json(&keyed(&["keystore", "maintain"]));
    assert!(done["rewrapped"].as_array().unwrap().is_empty(), "{done}");
}

fn checks(machine: &Machine) -> (Option<i32>, Vec<(String, String)>) {
    let output = machine.run(&keyed(&["doctor", "--json"]));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let pairs = found["findings"].as_array().unwrap().iter().map(|finding| {
        assert!(!finding["advice"].as_str().unwrap().is_empty(), "{finding}");
        let text = |name: &str| finding[name].as_str().unwrap().to_owned();
        (text("severity"), text("check"))
    });
    (output.status.code(), pairs.collect())
}

/// Whatever machine this is.
#[test]
fn the_doctor_says_what_mounts_do_about_processors_that_sleep() {
    let machine = Machine::with_vault();
    let said = &machine.json(&keyed(&["doctor"]))["processors"];
    let closed = fs::File::options().write(true).open("/dev/cpu_dma_latency").err();
    assert_eq!(said["latency_device"].as_str(), closed.map(|error| error.to_string()).as_deref());
    let state = said["keeps_processors_awake"].as_str().unwrap();
    let none = said["cpuidle_driver"].is_null();
    assert_eq!(state.starts_with("no: no cpuidle driver"), none, "{said}");
    for name in ["guest_halt_poll_ns", "virtual_machine"] {
        assert!(said.get(name).is_some(), "{said}");
    }
}

#[test]
fn the_doctor_finds_what_is_wrong_and_says_what_to_do() {
    let machine = Machine::with_vault();
    let (code, found) = checks(&machine);
    assert_eq!(code, Some(0), "{found:?}");
    let has = |found: &[(String, String)], severity: &str, check: &str| {
        found.iter().any(|(s, c)| (s.as_str(), c.as_str()) == (severity, check))
    };
    assert!(has(&found, "warning", "recovery"), "one slot, and no export: {found:?}");
    assert!(has(&found, "note", "audit"), "{found:?}");
    machine.ok(&keyed(&["keystore", "slots", "add", "--new-key-file", "second"]));
    let mut child = machine
        .command(&keyed(&["keystore", "export", "copy", "--export-passphrase-fd", "0"]))
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"a passphrase\n").unwrap();
    assert!(child.wait().unwrap().success());
    machine.ok(&keyed(&["audit", "require", "on"]));
    let (_, found) = checks(&machine);
    assert!(!found.iter().any(|(_, check)| check == "recovery" || check == "audit"), "{found:?}");
    fs::set_permissions(machine.path("key"), PermissionsExt::from_mode(0o644)).unwrap();
    machine.ok(&["--key-file", "second", "keystore", "maintain"]);
    let second = ["--key-file", "second"];
    machine
        .ok(&[&second[..], &["key", "schedule-deletion", "alias/kmsfs/default", "--yes"]].concat());
    fs::set_permissions(machine.path("key"), PermissionsExt::from_mode(0o600)).unwrap();
    fs::set_permissions(machine.path("data/kmsfs"), PermissionsExt::from_mode(0o777)).unwrap();
    let (code, found) = checks(&machine);
    assert_eq!(code, Some(15), "{found:?}");
    assert!(has(&found, "error", "deletion") && has(&found, "error", "files"), "{found:?}");
}

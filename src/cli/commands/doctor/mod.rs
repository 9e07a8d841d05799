//! `kmsfs doctor`: what endangers keys and files. Changes nothing.

mod access;
mod findings;
mod machine;
mod processors;

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde_json::json;

use super::doctor::findings::{Findings, Severity};
use super::doctor::processors::Processors;
use crate::cli::args::Global;
use crate::cli::env::{failure, keystore, unlock};
use crate::cli::report::exit::{CliError, Exit};
use crate::cli::report::output::{Output, count, to_value};
use crate::id::KeyId;
use crate::keystore::audit::AuditMode;
use crate::keystore::{
    KeyMetadata, KeySpec, KeyState, Keystore, KnownVolume, MaterialState, Origin, UnixTime,
};
use crate::volume::{SmallBlocks, Volume, exposure, small_blocks};

/// Makes all checks and shows what they found, the worst first.
pub(in crate::cli) fn run(global: &Global, output: Output) -> Result<Exit, CliError> {
    let keystore = keystore::open(global)?;
    let mut findings = Findings::default();
    for (name, check) in CHECKS {
        if let Err(error) = check(&keystore, &mut findings) {
            findings.failed(name, &error);
        }
    }
    let key_file = match unlock::Source::choose(global) {
        Ok(unlock::Source::KeyFile(path)) => Some(path),
        _ => None,
    };
    machine::check(&keystore, key_file.as_deref(), &mut findings);
    let processors = Processors::of_this_machine();
    processors.check(&mut findings);
    let found = json!({
        "findings": to_value(&findings.worst_first())?,
        "processors": to_value(&processors)?,
    });
    output.result(&found, || findings.in_words());
    Ok(if findings.has_errors() { Exit::Damage } else { Exit::Ok })
}

type Check = fn(&Keystore, &mut Findings) -> Result<(), CliError>;

const CHECKS: [(&str, Check); 8] = [
    ("keystore", rows),
    ("rotation", rotation),
    ("deletion", deletion),
    ("policies", access::policies),
    ("access-keys", access::access_keys),
    ("recovery", recovery),
    ("audit", audit),
    ("vaults", vaults),
];

fn rows(keystore: &Keystore, findings: &mut Findings) -> Result<(), CliError> {
    for problem in keystore.verify()?.problems {
        findings.add(Severity::Error, "keystore", problem, "restore the keystore from a backup");
    }
    Ok(())
}

fn keys(keystore: &Keystore) -> Result<Vec<KeyMetadata>, CliError> {
    let listed = keystore.list_keys()?;
    Ok(listed
        .iter()
        .map(|key| keystore.describe_key(&key.key_id.into()))
        .collect::<Result<_, _>>()?)
}

fn rotation(keystore: &Keystore, findings: &mut Findings) -> Result<(), CliError> {
    let now = UnixTime::from(SystemTime::now());
    for key in keys(keystore)? {
        let rotates = key.key_spec == KeySpec::SymmetricDefault && key.origin == Origin::AwsKms;
        if key.key_state != KeyState::Enabled || !rotates {
            continue;
        }
        let id = key.key_id;
        let status = keystore.get_key_rotation_status(&id.into())?;
        if let Some(next) = status.next_rotation_date.filter(|next| *next < now) {
            findings.add(
                Severity::Warning,
                "rotation",
                format!("key {id} should have been rotated on {next}"),
                "'kmsfs keystore maintain' does it: let a timer run it",
            );
        } else if !status.key_rotation_enabled && age_of_material(keystore, id, now)? > YEAR {
            findings.add(
                Severity::Warning,
                "rotation",
                format!("key {id} has had the same material for more than a year"),
                format!("'kmsfs key rotation {id} --every 365' rotates it by date"),
            );
        }
    }
    Ok(())
}

/// Seconds since the current material was made.
fn age_of_material(keystore: &Keystore, key: KeyId, now: UnixTime) -> Result<i64, CliError> {
    let all = keystore.list_key_rotations(&key.into())?;
    let current = all.iter().find(|material| material.key_material_state == MaterialState::Current);
    Ok(current.map_or(0, |material| now.seconds() - material.rotation_date.seconds()))
}

fn deletion(keystore: &Keystore, findings: &mut Findings) -> Result<(), CliError> {
    let volumes = keystore.known_volumes()?;
    for key in keys(keystore)? {
        if key.key_state != KeyState::PendingDeletion {
            continue;
        }
        let id = key.key_id;
        let (files, directories) = needed(&volumes, id);
        let date = key.deletion_date.map_or_else(String::new, |date| format!(" on {date}"));
        if files + directories > 0 {
            findings.add(
                Severity::Error,
                "deletion",
                format!("key {id} will be destroyed{date}, and {} need it", count(files, "file")),
                format!("'kmsfs key cancel-deletion {id}' keeps it"),
            );
        } else if volumes.iter().any(|volume| volume.scan.is_none()) {
            findings.add(
                Severity::Warning,
                "deletion",
                format!("key {id} will be destroyed{date}, and not every vault was looked into"),
                "'kmsfs keystore maintain' looks into those that are there",
            );
        }
    }
    Ok(())
}

/// Files and directories that needed a key when the vaults were last looked into.
fn needed(volumes: &[KnownVolume], key: KeyId) -> (u64, u64) {
    let scans = volumes.iter().filter_map(|volume| volume.scan.as_ref());
    scans.map(|scan| scan.of_key(key)).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

fn recovery(keystore: &Keystore, findings: &mut Findings) -> Result<(), CliError> {
    if keystore.list_slots()?.len() < 2 {
        findings.add(
            Severity::Warning,
            "recovery",
            "the keystore has one unlock slot: whoever loses its secret loses the files",
            "'kmsfs keystore slots add' makes a second, to be kept in a safe",
        );
    }
    let newest = keys(keystore)?.iter().map(|key| key.creation_date).max();
    let now = UnixTime::from(SystemTime::now());
    let what = match (keystore.last_export()?, newest) {
        (_, None) => return Ok(()),
        (None, _) => "the keystore was never exported".to_owned(),
        (Some(at), Some(newest)) if at < newest => {
            format!("the keystore was last exported on {at}, and has newer keys")
        }
        (Some(at), _) if now.seconds() - at.seconds() > QUARTER => {
            format!("the keystore was last exported on {at}")
        }
        _ => return Ok(()),
    };
    let advice = "'kmsfs keystore export FILE' writes a copy under a passphrase: keep it elsewhere";
    findings.add(Severity::Warning, "recovery", what, advice);
    Ok(())
}

fn audit(keystore: &Keystore, findings: &mut Findings) -> Result<(), CliError> {
    let report = keystore.verify_audit()?;
    if let Some(first) = report.first_bad {
        findings.add(
            Severity::Error,
            "audit",
            format!("the audit log is not as it was written, from record {first} on"),
            "'kmsfs audit verify' shows all; compare with the checkpoints in the system log",
        );
    }
    if report.lost > 0 {
        findings.add(
            Severity::Warning,
            "audit",
            format!("{} could not be written to the audit log", count(report.lost, "event")),
            "'kmsfs audit list --operation kmsfs:AuditGap' shows when",
        );
    }
    if keystore.audit_mode() == AuditMode::BestEffort {
        findings.add(
            Severity::Note,
            "audit",
            "operations that cannot be written to the audit log are done all the same",
            "'kmsfs audit require on' refuses them",
        );
    }
    Ok(())
}

fn vaults(keystore: &Keystore, findings: &mut Findings) -> Result<(), CliError> {
    let mut places = BTreeMap::new();
    for known in keystore.known_volumes()? {
        let there = Volume::peek(&known.path).is_ok_and(|at| at.volume == known.id);
        if !there {
            findings.add(
                Severity::Note,
                "vaults",
                format!("volume {} is not at {}", known.id, known.path.display()),
                "mount it where it is now, or 'kmsfs keystore forget' it if it is gone for good",
            );
        }
        if there && let Ok(Some(exposed)) = exposure(&known.path) {
            findings.add(
                Severity::Warning,
                "vaults",
                format!("other users may enter the vault {}: {exposed}", known.path.display()),
                failure::closing(&known.path, exposed),
            );
        }
        if there && let Ok(Some(small)) = small_blocks(&known.path) {
            let what = format!("{}: {}", known.path.display(), small.with_journal());
            findings.add(Severity::Note, "vaults", what, SmallBlocks::ADVICE);
        }
        if let Some(other) = places.insert(known.path.clone(), known.id) {
            log::debug!("volumes {other} and {} were both seen at one place", known.id);
        }
    }
    Ok(())
}

const DAY: i64 = 86_400;
const QUARTER: i64 = 90 * DAY;
const YEAR: i64 = 365 * DAY;

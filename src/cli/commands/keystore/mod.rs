//! `kmsfs keystore`: the keystore as a whole.

pub(in crate::cli) mod audit;
mod maintain;
pub(in crate::cli) mod metrics;
mod slots;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::key::replica;
use crate::cli::args::Global;
use crate::cli::args::keys::KeystoreCommand;
use crate::cli::env::keystore::{open, open_damaged};
use crate::cli::env::mounts::inside;
use crate::cli::env::mounts::mountinfo::text;
use crate::cli::env::unlock::{self, MissingKeyFile, Source};
use crate::cli::env::{paths, prompt};
use crate::cli::jobs::survey::{self, Survey};
use crate::cli::report::exit::{CliError, Exit};
use crate::cli::report::output::{Output, count, table, to_value};
use crate::cli::report::printable::printable;
use crate::id::VolumeId;
use crate::keystore::{Keystore, VerifyReport};
use crate::volume::Volume;

/// Runs one of the commands.
pub(in crate::cli) fn run(
    command: &KeystoreCommand,
    global: &Global,
    output: Output,
) -> Result<Exit, CliError> {
    match command {
        KeystoreCommand::Init { create_key_file, region } => {
            init(global, *create_key_file, region.as_deref(), output)?;
        }
        KeystoreCommand::Identity => replica::identity(&open(global)?, output)?,
        KeystoreCommand::TransferKey { file } => {
            replica::transfer_key(&open(global)?, file, output)?;
        }
        KeystoreCommand::Status => status(global, output)?,
        KeystoreCommand::Slots(command) => slots::run(command, global, output)?,
        KeystoreCommand::Export { file, export_passphrase_fd } => {
            export(file, *export_passphrase_fd, global, output)?;
        }
        KeystoreCommand::Import { file, export_passphrase_fd } => {
            import(file, *export_passphrase_fd, global, output)?;
        }
        KeystoreCommand::Forget { volume, yes } => forget(volume, *yes, global, output)?,
        KeystoreCommand::ConfirmVaults { yes } => confirm_vaults(*yes, global, output)?,
        KeystoreCommand::Maintain(args) => return maintain::run(args, global, output),
        KeystoreCommand::RewrapAfterRotate { vault, mode } => {
            maintain::set_rewrap(vault, *mode, global, output)?;
        }
        KeystoreCommand::Verify => return verify(open_damaged(global)?.verify()?, output),
        KeystoreCommand::Repair { yes } => return repair(global, *yes, output),
    }
    Ok(Exit::Ok)
}

fn init(
    global: &Global,
    create_key_file: bool,
    region: Option<&str>,
    output: Output,
) -> Result<(), CliError> {
    let path = paths::keystore(global)?;
    if path.symlink_metadata().is_ok() {
        return Err(CliError::new(
            Exit::General,
            format!("the keystore {} exists already", path.display()),
        )
        .advise("it is never overwritten: name another with --keystore FILE"));
    }
    let missing = if create_key_file { MissingKeyFile::Make } else { MissingKeyFile::Refuse };
    let source = Source::choose(global)?;
    inside::refuse_new(&path, &source)?;
    source.with_new(missing, "the keystore", output, |unlock| {
        Ok(Keystore::create_in(region, &path, unlock, SystemTime::now())?)
    })?;
    output.result(&json!({ "keystore": text(&path) }), || {
        format!(
            "made the keystore {}: without it the files are lost, so back it up",
            path.display()
        )
    });
    Ok(())
}

fn status(global: &Global, output: Output) -> Result<(), CliError> {
    let path = paths::keystore(global)?;
    let keystore = open(global)?;
    let keys = keystore.list_keys()?.len();
    let slots = keystore.list_slots()?;
    let may_have_lost = keystore.may_have_lost_volumes()?;
    let vaults: Vec<Value> = keystore
        .known_volumes()?
        .iter()
        .map(|known| {
            json!({
                "volume": known.id.to_string(),
                "path": text(&known.path),
                "there": known.path.join(".kmsfs").is_dir(),
                "other_paths": known.also.iter().map(|path| text(path)).collect::<Vec<_>>(),
            })
        })
        .collect();
    let value = json!({
        "keystore": text(&path),
        "keys": keys,
        "slots": slots.len(),
        "vaults": vaults,
        "may_have_forgotten_vaults": may_have_lost,
    });
    output.result(&value, || {
        let rows: Vec<Vec<String>> = vaults
            .iter()
            .map(|vault| {
                let there = if vault["there"] == true { "" } else { "(not there now)" };
                let others = match vault["other_paths"].as_array().map_or(0, Vec::len) {
                    0 => String::new(),
                    others => count(others as u64, "other path"),
                };
                vec![string(&vault["volume"]), string(&vault["path"]), there.into(), others]
            })
            .collect();
        format!(
            "keystore {}\n{}, {}, {}\n{}{}",
            path.display(),
            count(keys as u64, "key"),
            count(slots.len() as u64, "slot"),
            count(rows.len() as u64, "known vault"),
            if may_have_lost { LOST } else { "" },
            if rows.is_empty() {
                String::new()
            } else {
                table(&["VOLUME", "VAULT", "", ""], &rows)
            },
        )
    });
    Ok(())
}

fn export(
    file: &Path,
    descriptor: Option<u32>,
    global: &Global,
    output: Output,
) -> Result<(), CliError> {
    let keystore = open(global)?;
    inside::refuse(&keystore, file, "the copy")?;
    let passphrase = match descriptor {
        Some(descriptor) => unlock::read_descriptor(descriptor)?,
        None => {
            must_ask("the exported copy")?;
            prompt::new_passphrase("the exported copy")?
        }
    };
    if passphrase.is_empty() {
        return Err(CliError::new(Exit::NoSecret, "an empty passphrase protects nothing"));
    }
    keystore.export(file, &passphrase)?;
    output.result(&json!({ "file": text(file) }), || {
        format!(
            "wrote {}: it knows the keys of today, so do it again after changes",
            file.display()
        )
    });
    Ok(())
}

fn import(
    file: &Path,
    descriptor: Option<u32>,
    global: &Global,
    output: Output,
) -> Result<(), CliError> {
    let path = paths::keystore(global)?;
    let source = Source::choose(global)?;
    inside::refuse_restored(&path, &source)?;
    let passphrase = match descriptor {
        Some(descriptor) => unlock::read_descriptor(descriptor)?,
        None => {
            must_ask("the exported copy")?;
            prompt::passphrase(&format!("passphrase of {}", file.display()))?
        }
    };
    source.with_new(MissingKeyFile::Make, "the keystore", output, |unlock| {
        Ok(Keystore::import(file, &passphrase, &path, unlock, SystemTime::now())?)
    })?;
    output.result(&json!({ "keystore": text(&path) }), || {
        format!("made the keystore {} from {}", path.display(), file.display())
    });
    Ok(())
}

fn forget(named: &str, yes: bool, global: &Global, output: Output) -> Result<(), CliError> {
    let volume: VolumeId = named.parse().map_err(|error| {
        CliError::new(Exit::Usage, format!("'{named}' is no volume: {error}"))
            .advise("'kmsfs keystore status' shows the volumes")
    })?;
    let keystore = open(global)?;
    let known = what_is_known(&keystore, volume)?;
    let warning =
        format!("volume {volume} will not be looked into before keys are destroyed{known}");
    prompt::confirm(&warning, yes)?;
    keystore.forget_volume(volume)?;
    output.result(&json!({ "volume": named }), || format!("forgot volume {volume}"));
    Ok(())
}

/// Lists every vault that the keystore knows, and has the user confirm that there is no other.
fn confirm_vaults(yes: bool, global: &Global, output: Output) -> Result<(), CliError> {
    let keystore = open(global)?;
    if !keystore.may_have_lost_volumes()? {
        output.result(&json!({ "confirmed": false }), || "nothing was forgotten".to_owned());
        return Ok(());
    }
    let survey = Survey::of(&keystore, &[])?;
    survey.must_be_complete()?;
    let vaults: Vec<_> = survey.scans.iter().map(|scan| scan.vault.display().to_string()).collect();
    let warning = format!(
        "any other vault, and any other copy of one, may be lost: from now on, material may be destroyed \
         that none of these needs\n  {}",
        vaults.join("\n  ")
    );
    prompt::confirm(&warning, yes)?;
    keystore.confirm_volumes()?;
    let value = json!({ "confirmed": true, "vaults": vaults });
    output.result(&value, || format!("the keystore knows {}", count(vaults.len() as u64, "vault")));
    Ok(())
}

/// Where a volume is now, and what it needed when it was last looked into, in words.
fn what_is_known(keystore: &Keystore, volume: VolumeId) -> Result<String, CliError> {
    let known = keystore.known_volumes()?.into_iter().find(|known| known.id == volume);
    let Some(known) = known else { return Ok(String::new()) };
    let mut words = String::new();
    for path in std::iter::once(&known.path).chain(&known.also) {
        let shown = text(path);
        let shown = printable(&shown);
        match Volume::peek(path) {
            Ok(found) if found.volume == volume => {
                words += &format!("\nit is at {shown} now: without its keys, its files are lost");
            }
            Err(error) if !survey::is_gone(path) => {
                words += &format!("\n{shown} cannot be looked into, and may be it: {error}");
            }
            _ => {}
        }
    }
    if let Some(scan) = known.scan {
        let files: u64 = scan.needs.iter().map(|need| need.files).sum();
        let keys: BTreeSet<_> = scan.needs.iter().map(|need| need.key).collect();
        let (files, keys) = (count(files, "file"), count(keys.len() as u64, "key"));
        words += &format!("\non {} it had {files} under {keys}", scan.at);
    }
    Ok(words)
}

fn must_ask(what: &str) -> Result<(), CliError> {
    if prompt::has_terminal() {
        return Ok(());
    }
    Err(CliError::new(Exit::NoSecret, format!("no passphrase for {what}, and no terminal"))
        .advise("add --export-passphrase-fd N"))
}

fn repair(global: &Global, yes: bool, output: Output) -> Result<Exit, CliError> {
    let keystore = open_damaged(global)?;
    let found = keystore.verify()?;
    if found.is_clean() {
        return verify(found, output);
    }
    let warning = format!(
        "a backup is better: what is not authentic is removed, and what is gone is not missed, such as a \
         policy with a Deny; keys that were put back from an older copy are accepted\n{}",
        found.problems.join("\n")
    );
    prompt::confirm(&warning, yes)?;
    let mut repaired = keystore.repair()?;
    without_advice(&mut repaired.left);
    let may_have_lost = keystore.may_have_lost_volumes()?;
    output.result(&to_value(&repaired)?, || {
        let mut lines: Vec<_> =
            repaired.removed.iter().map(|removed| format!("removed {removed}")).collect();
        if may_have_lost {
            lines.push(FORGOTTEN.to_owned());
        }
        lines.push(in_words(&repaired.left));
        lines.join("\n")
    });
    Ok(exit_of(&repaired.left))
}

fn verify(mut report: VerifyReport, output: Output) -> Result<Exit, CliError> {
    without_advice(&mut report);
    output.result(&to_value(&report)?, || in_words(&report));
    Ok(exit_of(&report))
}

/// Elsewhere these messages send the reader to this command.
fn without_advice(report: &mut VerifyReport) {
    for problem in &mut report.problems {
        let end = problem.find(SEE_VERIFY).unwrap_or(problem.len());
        problem.truncate(end);
    }
}

fn in_words(report: &VerifyReport) -> String {
    if report.is_clean() {
        return format!(
            "intact: {}, {}, {}",
            count(report.keys as u64, "key"),
            count(report.materials as u64, "material"),
            count(report.slots as u64, "slot")
        );
    }
    format!(
        "damaged: restore it from a backup; without one 'kmsfs keystore repair' takes it as it is\n{}",
        report.problems.join("\n")
    )
}

fn exit_of(report: &VerifyReport) -> Exit {
    if report.is_clean() { Exit::Ok } else { Exit::Damage }
}

/// The text of a JSON string.
pub(in crate::cli) fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

const FORGOTTEN: &str = "the keystore may have forgotten vaults, other hosts, and what programs have \
                         encrypted: 'kmsfs key retire' refuses until these were looked after";
const LOST: &str = "it may have forgotten vaults, or copies of them: when all are known again, 'kmsfs keystore \
                    confirm-vaults' ends that\n";
const SEE_VERIFY: &str = "; 'kmsfs keystore verify'";

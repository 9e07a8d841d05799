//! `kmsfs keystore maintain`: what is due by date, for a timer; and the re-wrap after a rotation,
//! which the daemons of mounts do as well.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use crate::cli::args::Global;
use crate::cli::args::audit::{MaintainArgs, Switch};
use crate::cli::env::keys_from::KeysFrom;
use crate::cli::env::mounts::daemon_client::Target;
use crate::cli::env::{failure, interrupt, keystore, trust, vault};
use crate::cli::jobs::follow::is_behind;
use crate::cli::jobs::maintenance::NOT_SEEN_TO_PASS;
use crate::cli::jobs::rewrap::{self, What};
use crate::cli::jobs::survey::Scan;
use crate::cli::report::exit::{CliError, Exit};
use crate::cli::report::output::{Output, count, to_value};
use crate::control::Request;
use crate::id::KeyId;
use crate::keystore::{ClockTrust, Keystore, KnownVolume};
use crate::volume::Volume;

/// What was done.
#[derive(Debug, Default, Serialize)]
struct Summary {
    rotated: Vec<String>,
    /// Keys with imported material that was deleted on its date.
    expired: Vec<String>,
    destroyed: Vec<String>,
    /// Grants that had ended.
    grants: usize,
    /// Keys whose destruction, or that of whose imported material, waits until somebody confirms the
    /// time.
    held: Vec<String>,
    scanned: Vec<String>,
    absent: Vec<String>,
    rewrapped: Vec<String>,
    /// The last record of the audit log, which is signed.
    audit_signed: Option<u64>,
    /// What did not work, a sentence each.
    failed: Vec<String>,
}

/// Does everything that is due, and goes on when a part of it fails.
pub(in crate::cli) fn run(
    args: &MaintainArgs,
    global: &Global,
    output: Output,
) -> Result<Exit, CliError> {
    let keystore = Arc::new(keystore::open(global)?);
    let mut done = Summary::default();
    by_date(&keystore, &mut done);
    if !args.no_scan {
        for known in keystore.known_volumes()? {
            look_after(&keystore, &known, &mut done);
        }
    }
    match keystore.audit_checkpoint(SystemTime::now()) {
        Ok(signed) => done.audit_signed = signed.map(|signed| signed.position.seq),
        Err(error) => done.failed.push(error.to_string()),
    }
    output.result(&to_value(&done)?, || done.in_words());
    Ok(if done.failed.is_empty() { Exit::Ok } else { Exit::General })
}

fn by_date(keystore: &Keystore, done: &mut Summary) {
    let now = SystemTime::now();
    match keystore.run_due_rotations(now) {
        Ok(rotated) => done.rotated = rotated.iter().map(|(key, _)| key.to_string()).collect(),
        Err(error) => done.failed.push(format!("rotation by date: {error}")),
    }
    match keystore.expire_imported(now) {
        Ok(expired) => done.expired = expired.iter().map(|(key, _)| key.to_string()).collect(),
        Err(error) => done.failed.push(format!("expiry of imported key material: {error}")),
    }
    match keystore.held_imports(now) {
        Ok(held) => done.held = held.iter().map(KeyId::to_string).collect(),
        Err(error) => done.failed.push(format!("expiry of imported key material: {error}")),
    }
    match keystore.drop_expired_grants(now) {
        Ok(ended) => done.grants = ended,
        Err(error) => done.failed.push(format!("grants that ended: {error}")),
    }
    match keystore.delete_expired(now, ClockTrust::Steps) {
        Ok(expired) => {
            done.destroyed = expired.deleted.iter().map(KeyId::to_string).collect();
            done.held.extend(expired.held.iter().map(KeyId::to_string));
        }
        Err(error) => done.failed.push(format!("deletion by date: {error}")),
    }
}

/// Counts what a vault needs, and re-wraps it if that is wanted and due.
fn look_after(keystore: &Arc<Keystore>, known: &KnownVolume, done: &mut Summary) {
    let vault = known.path.display().to_string();
    let Some(scan) = Scan::of(keystore, known) else {
        done.absent.push(vault);
        return;
    };
    done.scanned.push(vault.clone());
    if !known.rewrap_after_rotate || !is_behind(keystore, &scan.found) {
        return;
    }
    match rewrap_vault(keystore, &known.path) {
        Ok(()) => {
            done.rewrapped.push(vault);
            Scan::of(keystore, known);
        }
        Err(error) => done.failed.push(format!("{vault}: {}", error.what)),
    }
}

/// Through the daemon if the vault is mounted, else by itself.
fn rewrap_vault(keystore: &Arc<Keystore>, vault: &Path) -> Result<(), CliError> {
    let (key, to) = (None, None);
    let request = Request::Rewrap { key, to, list: false, take_in: false, confirm: false };
    let report = match Target::find(vault)?.call(&request, |_| true) {
        Some(answer) => answer?,
        None => {
            let keys = KeysFrom::Keystore(Arc::clone(keystore));
            let volume = vault::open(&keys, vault, trust::options())?;
            let stop = interrupt::watch()?;
            let report =
                rewrap::carry_out(&volume, vault, &What::default(), &mut |_| !stop.is_set());
            volume.end().map_err(|error| failure::volume(vault, &error))?;
            report?
        }
    };
    if report["complete"] == true {
        return Ok(());
    }
    Err(CliError::new(Exit::General, "some files could not be re-wrapped"))
}

/// Turns the re-wrap after rotations on or off for a vault.
pub(in crate::cli) fn set_rewrap(
    named: &Path,
    mode: Switch,
    global: &Global,
    output: Output,
) -> Result<(), CliError> {
    let vault = Target::find(named)?.vault;
    let descriptor = Volume::peek(&vault).map_err(|error| failure::volume(&vault, &error))?;
    let keystore = keystore::open(global)?;
    keystore.set_rewrap_after_rotate(descriptor.volume, mode == Switch::On)?;
    let value = serde_json::json!({ "Vault": vault, "RewrapAfterRotate": mode == Switch::On });
    output.result(&value, || match mode {
        Switch::On => format!("{} follows the rotations of its keys", vault.display()),
        Switch::Off => {
            format!("{} stays under old material until it is re-wrapped", vault.display())
        }
    });
    Ok(())
}

impl Summary {
    fn in_words(&self) -> String {
        let mut lines = vec![format!(
            "{} rotated, {} expired, {} destroyed, {} ended, {} looked into, {} re-wrapped",
            count(self.rotated.len() as u64, "key"),
            count(self.expired.len() as u64, "import"),
            count(self.destroyed.len() as u64, "key"),
            count(self.grants as u64, "grant"),
            count(self.scanned.len() as u64, "vault"),
            self.rewrapped.len(),
        )];
        let held = format!(
            "waits: {NOT_SEEN_TO_PASS}; 'kmsfs key delete-expired --confirm-clock' says that the \
             clock is right"
        );
        let expired = "waits for its imported material, which has expired and is deleted";
        lines.extend(self.expired.iter().map(|key| format!("key {key} {expired}")));
        lines.extend(self.held.iter().map(|key| format!("key {key} {held}")));
        lines.extend(self.absent.iter().map(|vault| format!("{vault} is not there")));
        lines.extend(self.failed.iter().map(|what| format!("failed: {what}")));
        lines.join("\n")
    }
}

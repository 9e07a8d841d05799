//! `kmsfs key schedule-deletion` and `kmsfs key retire`: the commands that destroy.
//!
//! Both look into every vault the keystore knows before they do anything, and say what they found.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::args_keys::{DeletionArgs, RetireArgs};
use super::exit::{CliError, Exit};
use super::mountinfo::text;
use super::output::{Output, count};
use super::{failure, key, paths, prompt};
use crate::id::{KeyId, MaterialId, VolumeId};
use crate::keystore::{ClockTrust, Keystore, MaterialState, ReferenceReport};
use crate::volume::{Needed, References};

/// Starts the waiting period of a key, after telling what would be lost.
pub(super) fn schedule(
    keystore: &Keystore,
    args: &DeletionArgs,
    output: Output,
) -> Result<(), CliError> {
    let key = key::id(keystore, &args.key)?;
    let days = u16::try_from(args.days).ok();
    let days = days.filter(|days| (7..=30).contains(days)).ok_or_else(|| {
        CliError::new(Exit::Usage, format!("the waiting period is 7 to 30 days, not {}", args.days))
    })?;
    let survey = Survey::of(keystore, &args.vaults)?;
    let warning = format!(
        "key {key} will be destroyed after {days} days, and nothing brings it back then\n{}",
        survey.losses(key)
    );
    prompt::confirm(&warning, args.yes)?;
    let scheduled = keystore.schedule_key_deletion(key, Some(days), SystemTime::now())?;
    let mut value = key::value(&scheduled)?;
    value["Vaults"] = survey.value(key);
    output.result(&value, || {
        format!(
            "{}\nkey {key} will be destroyed on {}; 'kmsfs key cancel-deletion {key}' stops it",
            survey.losses(key),
            scheduled.deletion_date
        )
    });
    Ok(())
}

/// Destroys the keys whose waiting period is over.
pub(super) fn expired(
    keystore: &Keystore,
    trust: ClockTrust,
    output: Output,
) -> Result<(), CliError> {
    let expired = keystore.delete_expired(SystemTime::now(), trust)?;
    output.result(&key::value(&expired)?, || {
        let mut lines: Vec<_> =
            expired.deleted.iter().map(|key| format!("key {key} is destroyed")).collect();
        lines.extend(expired.held.iter().map(|key| {
            format!("key {key} waits: the clock leapt; --confirm-clock says that it is right")
        }));
        if lines.is_empty() {
            lines.push("no waiting period is over".to_owned());
        }
        lines.join("\n")
    });
    Ok(())
}

/// Destroys old material that nothing refers to.
pub(super) fn retire(
    keystore: &Keystore,
    args: &RetireArgs,
    output: Output,
) -> Result<(), CliError> {
    let key = key::id(keystore, &args.key)?;
    let materials = chosen(keystore, key, args.material.as_deref())?;
    let survey = Survey::of(keystore, &args.vaults)?;
    survey.must_be_complete()?;
    for material in &materials {
        survey.must_be_free(*material)?;
    }
    if !materials.is_empty() {
        let warning = format!(
            "{} of key {key} will be destroyed; copies of files from before their rewrap cannot \
             be read any more",
            count(materials.len() as u64, "material")
        );
        prompt::confirm(&warning, args.yes)?;
    }
    for material in &materials {
        keystore.retire_material(&key.into(), *material, &survey.report(*material))?;
    }
    let retired: Vec<String> = materials.iter().map(MaterialId::to_string).collect();
    output.result(&json!({ "KeyId": key.to_string(), "Retired": retired }), || {
        if retired.is_empty() {
            return format!("key {key} has no old material");
        }
        format!("destroyed {}", retired.join(", "))
    });
    Ok(())
}

/// The material that was named, or all but the current.
fn chosen(
    keystore: &Keystore,
    key: KeyId,
    named: Option<&str>,
) -> Result<Vec<MaterialId>, CliError> {
    if let Some(named) = named {
        let material = named.parse().map_err(|error| {
            CliError::new(Exit::Usage, format!("'{named}' is no material: {error}"))
        })?;
        return Ok(vec![material]);
    }
    let old = keystore
        .list_key_rotations(&key.into())?
        .into_iter()
        .filter(|material| material.key_material_state == MaterialState::NonCurrent)
        .map(|material| material.key_material_id);
    Ok(old.collect())
}

/// What the headers of one vault refer to.
struct Scan {
    vault: PathBuf,
    volume: VolumeId,
    found: References,
}

/// What the headers of all known vaults refer to.
pub(super) struct Survey {
    scans: Vec<Scan>,
    absent: Vec<(VolumeId, PathBuf)>,
}

impl Survey {
    pub(super) fn of(keystore: &Keystore, named: &[PathBuf]) -> Result<Self, CliError> {
        let mut survey = Self { scans: Vec::new(), absent: Vec::new() };
        for vault in named {
            let vault = paths::real(vault)?;
            let (volume, found) =
                References::scan(&vault).map_err(|error| failure::volume(&vault, &error))?;
            survey.scans.push(Scan { vault, volume, found });
        }
        let mut seen: BTreeSet<VolumeId> = survey.scans.iter().map(|scan| scan.volume).collect();
        for known in keystore.known_volumes()? {
            if !seen.insert(known.id) {
                continue;
            }
            // Another volume may stand at that path now.
            match References::scan(&known.path).ok().filter(|(volume, _)| *volume == known.id) {
                Some((volume, found)) => {
                    survey.scans.push(Scan { vault: known.path, volume, found });
                }
                None => survey.absent.push((known.id, known.path)),
            }
        }
        Ok(survey)
    }

    /// What goes with the key, vault by vault.
    pub(super) fn losses(&self, key: KeyId) -> String {
        let mut lines: Vec<String> = self
            .scans
            .iter()
            .map(|Scan { vault, found, .. }| {
                let unread = match found.unreadable {
                    0 => String::new(),
                    unread => format!(", and {} could not be looked into", count(unread, "file")),
                };
                let lost = number(found.of_key(key));
                format!("  {}: {lost} would be lost{unread}", vault.display())
            })
            .collect();
        lines.extend(self.absent.iter().map(|(volume, vault)| {
            format!("  {}: volume {volume} is not there, nobody knows", vault.display())
        }));
        if lines.is_empty() {
            lines.push("  no vault is known to this keystore".into());
        }
        lines.join("\n")
    }

    fn value(&self, key: KeyId) -> Value {
        let scanned = self.scans.iter().map(|Scan { vault, found, .. }| {
            let lost = found.of_key(key);
            json!({
                "Vault": text(vault),
                "Files": lost.files,
                "Directories": lost.directories,
                "Unreadable": found.unreadable,
            })
        });
        let absent =
            self.absent.iter().map(|(_, vault)| json!({ "Vault": text(vault), "Files": null }));
        scanned.chain(absent).collect()
    }

    fn must_be_complete(&self) -> Result<(), CliError> {
        let Some((volume, vault)) = self.absent.first() else { return Ok(()) };
        Err(CliError::new(
            Exit::Refused,
            format!("volume {volume} was last seen at {} and is not there", vault.display()),
        )
        .advise(
            "its files may need the material: attach it, name its place with --vault, or \
             'kmsfs keystore forget' it",
        ))
    }

    fn must_be_free(&self, material: MaterialId) -> Result<(), CliError> {
        for Scan { vault, found, .. } in &self.scans {
            let (needed, unread) = (found.of_material(material), found.unreadable);
            if total(needed) > 0 {
                let what = format!(
                    "{} of {} still refer to material {material}",
                    number(needed),
                    vault.display()
                );
                return Err(CliError::new(Exit::Refused, what)
                    .advise(format!("re-wrap them first: kmsfs rewrap {}", vault.display())));
            }
            if unread > 0 {
                let what = format!(
                    "{} of {} could not be looked into",
                    count(unread, "file"),
                    vault.display()
                );
                return Err(CliError::new(Exit::Refused, what)
                    .advise(format!("'kmsfs fsck {}' shows them", vault.display())));
            }
        }
        Ok(())
    }

    fn report(&self, material: MaterialId) -> ReferenceReport {
        ReferenceReport {
            scanned: self.scans.iter().map(|scan| scan.volume).collect(),
            references: self.scans.iter().map(|scan| total(scan.found.of_material(material))).sum(),
            unreadable: self.scans.iter().map(|scan| scan.found.unreadable).sum(),
        }
    }
}

fn total(needed: Needed) -> u64 {
    needed.files + needed.directories
}

/// "3 files and 1 directory".
fn number(needed: Needed) -> String {
    let files = count(needed.files, "file");
    match needed.directories {
        0 => files,
        1 => format!("{files} and 1 directory"),
        many => format!("{files} and {many} directories"),
    }
}

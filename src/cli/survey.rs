//! Which files of which vaults need a key: looked up before anything is destroyed.
//!
//! Every vault that the keystore knows is looked into, header by header. What is found is
//! remembered in the keystore, so that for a vault which is not there now its last known state can
//! be told.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Value, json};

use super::exit::{CliError, Exit};
use super::mountinfo::text;
use super::output::count;
use super::{failure, paths};
use crate::id::{KeyId, MaterialId, VolumeId};
use crate::keystore::{Keystore, KnownVolume, ReferenceReport, VolumeNeed, VolumeScan};
use crate::volume::{Needed, References};

/// What the headers of one vault refer to.
pub(super) struct Scan {
    pub(super) vault: PathBuf,
    pub(super) volume: VolumeId,
    pub(super) found: References,
}

/// What the headers of all known vaults refer to.
pub(super) struct Survey {
    pub(super) scans: Vec<Scan>,
    /// Vaults that could not be looked into.
    pub(super) absent: Vec<KnownVolume>,
}

impl Scan {
    /// Looks into a known vault, and remembers what it needs. `None` if it is not there, or another
    /// volume is.
    pub(super) fn of(keystore: &Keystore, known: &KnownVolume) -> Option<Self> {
        let (volume, found) = References::scan(&known.path).ok()?;
        if volume != known.id {
            return None;
        }
        let scan = Self { vault: known.path.clone(), volume, found };
        scan.remember(keystore);
        Some(scan)
    }

    /// Looks into a vault that somebody named.
    fn of_vault(keystore: &Keystore, vault: &Path) -> Result<Self, CliError> {
        let vault = paths::real(vault)?;
        let (volume, found) =
            References::scan(&vault).map_err(|error| failure::volume(&vault, &error))?;
        let scan = Self { vault, volume, found };
        scan.remember(keystore);
        Ok(scan)
    }

    /// A vault that was never registered is not remembered, and nothing depends on it.
    fn remember(&self, keystore: &Keystore) {
        let ids: BTreeSet<_> =
            self.found.files.keys().chain(self.found.directories.keys()).copied().collect();
        let needs = ids.into_iter().map(|(key, material)| VolumeNeed {
            key,
            material,
            files: self.found.files.get(&(key, material)).copied().unwrap_or(0),
            directories: self.found.directories.get(&(key, material)).copied().unwrap_or(0),
        });
        let scan = VolumeScan {
            at: SystemTime::now().into(),
            unreadable: self.found.unreadable,
            needs: needs.collect(),
        };
        if let Err(error) = keystore.remember_scan(self.volume, &scan) {
            log::debug!("what volume {} needs is not remembered: {error}", self.volume);
        }
    }
}

impl Survey {
    /// Looks into all vaults: those that are named, and those that the keystore knows.
    /// Errors: if a vault that is named cannot be looked into.
    pub(super) fn of(keystore: &Keystore, named: &[PathBuf]) -> Result<Self, CliError> {
        let mut survey = Self { scans: Vec::new(), absent: Vec::new() };
        for vault in named {
            survey.scans.push(Scan::of_vault(keystore, vault)?);
        }
        let mut seen: BTreeSet<VolumeId> = survey.scans.iter().map(|scan| scan.volume).collect();
        for known in keystore.known_volumes()? {
            if !seen.insert(known.id) {
                continue;
            }
            match Scan::of(keystore, &known) {
                Some(scan) => survey.scans.push(scan),
                None => survey.absent.push(known),
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
        lines.extend(self.absent.iter().map(|known| {
            let place = known.path.display();
            match &known.scan {
                Some(scan) => {
                    let (files, directories) = scan.of_key(key);
                    let needed = number(Needed { files, directories });
                    format!("  {place}: not there now; on {} it had {needed} of this key", scan.at)
                }
                None => format!("  {place}: volume {} is not there, nobody knows", known.id),
            }
        }));
        if lines.is_empty() {
            lines.push("  no vault is known to this keystore".into());
        }
        lines.join("\n")
    }

    /// The same for programs.
    pub(super) fn value(&self, key: KeyId) -> Value {
        let scanned = self.scans.iter().map(|Scan { vault, found, .. }| {
            let lost = found.of_key(key);
            json!({
                "Vault": text(vault),
                "Files": lost.files,
                "Directories": lost.directories,
                "Unreadable": found.unreadable,
            })
        });
        let absent = self.absent.iter().map(|known| {
            let remembered = known.scan.as_ref().map(|scan| {
                let (files, directories) = scan.of_key(key);
                json!({ "Date": scan.at.to_string(), "Files": files, "Directories": directories })
            });
            json!({ "Vault": text(&known.path), "Files": null, "Remembered": remembered })
        });
        scanned.chain(absent).collect()
    }

    /// Errors: `Refused` if a vault could not be looked into.
    pub(super) fn must_be_complete(&self) -> Result<(), CliError> {
        let Some(known) = self.absent.first() else { return Ok(()) };
        let place = known.path.display();
        Err(CliError::new(
            Exit::Refused,
            format!("volume {} was last seen at {place} and is not there", known.id),
        )
        .advise(
            "its files may need the material: attach it, name its place with --vault, or \
             'kmsfs keystore forget' it",
        ))
    }

    /// Errors: `Refused` if something needs the material, or may need it.
    pub(super) fn must_be_free(&self, material: MaterialId) -> Result<(), CliError> {
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

    /// What the keystore wants to know before it retires a material.
    pub(super) fn report(&self, material: MaterialId) -> ReferenceReport {
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

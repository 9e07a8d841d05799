//! Which files of which vaults need a key: looked up before anything is destroyed.
//!
//! Every vault that the keystore knows is looked into, header by header. What is found is
//! remembered in the keystore, so that for a vault which is not there now its last known state can
//! be told.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::cli::env::mounts::daemon_client::Target;
use crate::cli::env::mounts::mountinfo::{self, text};
use crate::cli::env::{failure, paths};
use crate::cli::report::exit::{CliError, Exit};
use crate::cli::report::output::count;
use crate::control::{Request, VaultDir};
use crate::id::{KeyId, MaterialId, VolumeId};
use crate::keystore::{Keystore, KnownVolume, LeasedDir, ReferenceReport, VolumeNeed, VolumeScan};
use crate::volume::{self, Needed, References, Volume, VolumeError};

/// What the headers of one vault refer to.
pub(in crate::cli) struct Scan {
    pub(in crate::cli) vault: PathBuf,
    pub(in crate::cli) volume: VolumeId,
    pub(in crate::cli) found: References,
    /// Why something may have been missed that was renamed meanwhile.
    pub(in crate::cli) uncertain: Option<String>,
    /// The directory that was looked into.
    dir: Option<VaultDir>,
}

/// What the headers of all known vaults refer to.
pub(in crate::cli) struct Survey {
    pub(in crate::cli) scans: Vec<Scan>,
    /// Vaults that are not there.
    pub(in crate::cli) absent: Vec<KnownVolume>,
    /// Vaults that are there, or may be, and of which nothing was seen.
    unseen: Vec<Unseen>,
    /// Vaults that somebody works with by this keystore, and that were not found: they were moved, or
    /// are in another mount namespace.
    hidden: usize,
}

/// A vault of a known volume that could not be looked into: it may need anything.
struct Unseen {
    vault: PathBuf,
    volume: VolumeId,
    why: String,
    /// What it had when it was last looked into.
    last: Option<VolumeScan>,
}

/// What is at a path of a volume.
enum Look {
    /// Nothing, or another volume.
    NotHere,
    Failed(String),
    Done(Scan),
}

/// What the scan of a vault found, and whether it may have missed anything.
struct ScanResult {
    volume: VolumeId,
    found: References,
    uncertain: Option<String>,
    dir: Option<VaultDir>,
}

impl Scan {
    /// Looks into a known vault in passing, and remembers what it needs. `None` if it is not there, or
    /// another volume is.
    pub(in crate::cli) fn of(keystore: &Keystore, known: &KnownVolume) -> Option<Self> {
        let (volume, found) = References::scan(&known.path).ok()?;
        let uncertain = Some("it was looked into in passing".to_owned());
        Self::of_known(keystore, known, ScanResult { volume, found, uncertain, dir: None })
    }

    /// Looks into one of the paths of a volume, without missing what is renamed meanwhile.
    fn whole(keystore: &Keystore, volume: VolumeId, path: &Path) -> Look {
        match Volume::peek(path) {
            Ok(found) if found.volume != volume => return Look::NotHere,
            Err(_) if is_gone(path) => return Look::NotHere,
            Err(error) => return Look::Failed(error.to_string()),
            Ok(_) => {}
        }
        match ScanResult::at(path) {
            Ok(result) if result.volume != volume => Look::NotHere,
            Ok(result) => Look::Done(Self::new(keystore, path.to_owned(), result)),
            Err(error) => Look::Failed(error.what),
        }
    }

    fn of_known(keystore: &Keystore, known: &KnownVolume, result: ScanResult) -> Option<Self> {
        (result.volume == known.id).then(|| Self::new(keystore, known.path.clone(), result))
    }

    /// Looks into a vault that somebody named.
    fn of_vault(keystore: &Keystore, vault: &Path) -> Result<Self, CliError> {
        let vault = paths::real(vault)?;
        let result = ScanResult::at(&vault)?;
        Ok(Self::new(keystore, vault, result))
    }

    fn new(keystore: &Keystore, vault: PathBuf, result: ScanResult) -> Self {
        let ScanResult { volume, found, uncertain, dir } = result;
        let scan = Self { vault, volume, found, uncertain, dir };
        scan.remember(keystore);
        scan
    }

    /// How many files may refer to anything; an uncertain scan counts as one.
    fn unseen(&self) -> u64 {
        self.found.unreadable + u64::from(self.uncertain.is_some())
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

impl ScanResult {
    /// Lets the daemon look into a vault that has one: it knows what is renamed meanwhile. In a vault
    /// without one nothing may change meanwhile. What another user's daemon says destroys nothing: who
    /// owns the root of a mount could answer for it.
    fn at(vault: &Path) -> Result<Self, CliError> {
        let failed = |error| failure::volume(vault, &error);
        let target = Target::find(vault)?;
        if let Some(answer) = target.call_own(&Request::References) {
            match answer.map(|value| from_value(&value)) {
                Ok(Some((volume, found))) => {
                    return Ok(Self { volume, found, uncertain: None, dir: target.dir() });
                }
                Ok(None) => return Self::roughly(vault, "its daemon gave no answer".to_owned()),
                Err(error) => return Self::roughly(vault, error.what),
            }
        }
        let root = volume::open_root(vault).map_err(failed)?;
        match References::scan_still(&root, vault) {
            Ok((volume, found)) => {
                Ok(Self { volume, found, uncertain: None, dir: VaultDir::of(&root).ok() })
            }
            Err(error @ VolumeError::InUse) => Self::roughly(vault, error.to_string()),
            Err(error) => Err(failed(error)),
        }
    }

    fn roughly(vault: &Path, why: String) -> Result<Self, CliError> {
        let (volume, found) =
            References::scan(vault).map_err(|error| failure::volume(vault, &error))?;
        Ok(Self { volume, found, uncertain: Some(why), dir: None })
    }
}

impl Survey {
    /// Looks into all vaults: those that are named, and those that the keystore knows.
    /// Errors: if a vault that is named cannot be looked into.
    pub(in crate::cli) fn of(keystore: &Keystore, named: &[PathBuf]) -> Result<Self, CliError> {
        let mut survey =
            Self { scans: Vec::new(), absent: Vec::new(), unseen: Vec::new(), hidden: 0 };
        for vault in named {
            survey.scans.push(Scan::of_vault(keystore, vault)?);
        }
        // One that cannot be read is not this keystore's, or is already known to it. Another user's says
        // whatever that user likes, and would stand for a vault that is not there.
        let mounted: Vec<PathBuf> = mountinfo::all()?
            .into_iter()
            .filter(|mount| mount.is_trusted() && Volume::peek(&mount.vault).is_ok())
            .map(|mount| mount.vault)
            .collect();
        for known in keystore.known_volumes()? {
            survey.look_into(keystore, known, &mounted);
        }
        // After the looks: who comes later finds what is left.
        let dirs = survey.scans.iter().filter_map(|scan| scan.dir).map(|dir| dir.numbers());
        let seen: BTreeSet<_> = dirs.map(|(dev, ino)| LeasedDir::new(dev, ino)).collect();
        survey.hidden = keystore.leased_vaults()?.difference(&seen).count();
        Ok(survey)
    }

    /// Looks into all paths of a volume: where it is, where it was or a copy of it is, and what is
    /// mounted. Any other path that no longer exists is ignored.
    fn look_into(&mut self, keystore: &Keystore, known: KnownVolume, mounted: &[PathBuf]) {
        let mut is_there = self.scans.iter().any(|scan| scan.volume == known.id);
        let real = |path: &PathBuf| path.canonicalize().unwrap_or_else(|_| path.clone());
        let is_here = real(&known.path);
        for path in std::iter::once(&known.path).chain(&known.also).chain(mounted) {
            let path = real(path);
            if self.was_looked_into(known.id, &path) {
                continue;
            }
            match Scan::whole(keystore, known.id, &path) {
                Look::NotHere => continue,
                Look::Done(scan) => self.scans.push(scan),
                Look::Failed(why) => {
                    let (vault, volume, last) = (path.clone(), known.id, known.scan.clone());
                    self.unseen.push(Unseen { vault, volume, why, last });
                }
            }
            is_there |= path == is_here || mounted.contains(&path);
        }
        if !is_there {
            self.absent.push(known);
        }
    }

    fn was_looked_into(&self, volume: VolumeId, vault: &Path) -> bool {
        self.scans.iter().any(|scan| scan.vault == vault && scan.volume == volume)
            || self.unseen.iter().any(|unseen| unseen.vault == vault && unseen.volume == volume)
    }

    /// What goes with the key, vault by vault.
    pub(in crate::cli) fn losses(&self, key: KeyId) -> String {
        let mut lines: Vec<String> = self
            .scans
            .iter()
            .map(|Scan { vault, found, uncertain, .. }| {
                let unread = match found.unreadable {
                    0 => String::new(),
                    unread => format!(", and {} could not be looked into", count(unread, "file")),
                };
                let lost = number(found.of_key(key));
                let maybe = uncertain.as_ref().map_or_else(String::new, |why| {
                    format!("; perhaps more, since the vault may change meanwhile: {why}")
                });
                format!("  {}: {lost} would be lost{unread}{maybe}", vault.display())
            })
            .collect();
        lines.extend(self.unseen.iter().map(|Unseen { vault, why, last, .. }| {
            let vault = vault.display();
            let known = last_words(last.as_ref(), key);
            format!("  {vault}: cannot be looked into ({why}); {known}")
        }));
        lines.extend(self.absent.iter().map(|known| {
            let (path, id) = (known.path.display(), known.id);
            match &known.scan {
                Some(scan) => format!("  {path}: not there now; {}", last_words(Some(scan), key)),
                None => format!("  {path}: volume {id} is not there; what it needs is unknown"),
            }
        }));
        if self.hidden > 0 {
            let vaults = count(self.hidden as u64, "mounted vault");
            lines.push(format!("  {vaults} not found at any path that is known here"));
        }
        if lines.is_empty() {
            lines.push("  no vault is known to this keystore".into());
        }
        lines.join("\n")
    }

    /// The same for programs.
    pub(in crate::cli) fn value(&self, key: KeyId) -> Value {
        let scanned = self.scans.iter().map(|Scan { vault, found, uncertain, .. }| {
            let lost = found.of_key(key);
            json!({
                "Vault": text(vault),
                "Files": lost.files,
                "Directories": lost.directories,
                "Unreadable": found.unreadable,
                "Uncertain": uncertain,
            })
        });
        let failed = self.unseen.iter().map(|Unseen { vault, why, last, .. }| {
            let remembered = last_value(last.as_ref(), key);
            json!({ "Vault": text(vault), "Files": null, "Why": why, "Remembered": remembered })
        });
        let absent = self.absent.iter().map(|known| {
            let remembered = last_value(known.scan.as_ref(), key);
            json!({ "Vault": text(&known.path), "Files": null, "Remembered": remembered })
        });
        let unseen = json!({ "Vault": null, "Files": null, "Remembered": null });
        let hidden = std::iter::repeat_n(unseen, self.hidden);
        scanned.chain(failed).chain(absent).chain(hidden).collect()
    }

    /// Errors: `Refused` if a vault could not be looked into.
    pub(in crate::cli) fn must_be_complete(&self) -> Result<(), CliError> {
        if self.hidden > 0 {
            let what =
                "a vault is mounted with this keystore that is not found at a path known here";
            return Err(CliError::new(Exit::Refused, what).advise(
                "it may need the material: unmount it first (it was moved, or is in a container)",
            ));
        }
        if let Some(Unseen { vault, why, .. }) = self.unseen.first() {
            let what = format!("{} cannot be looked into: {why}", vault.display());
            return Err(CliError::new(Exit::Refused, what)
                .advise("it may need the material: 'kmsfs fsck' shows what it lacks"));
        }
        let Some(known) = self.absent.first() else { return Ok(()) };
        let path = known.path.display();
        Err(CliError::new(
            Exit::Refused,
            format!("volume {} was last seen at {path} and is not there", known.id),
        )
        .advise(
            "its files may need the material: attach it, name its path with --vault, or \
             'kmsfs keystore forget' it",
        ))
    }

    /// Errors: `Refused` if something needs the material, or may need it.
    pub(in crate::cli) fn must_be_free(&self, material: MaterialId) -> Result<(), CliError> {
        for Scan { vault, found, uncertain, .. } in &self.scans {
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
            if let Some(why) = uncertain {
                let what = format!("{} may change while it is looked into: {why}", vault.display());
                return Err(CliError::new(Exit::Refused, what)
                    .advise("end what uses it, mount it with this version, or try again later"));
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
    pub(in crate::cli) fn report(&self, material: MaterialId) -> ReferenceReport {
        ReferenceReport {
            scanned: self.scans.iter().map(|scan| scan.volume).collect(),
            references: self.scans.iter().map(|scan| total(scan.found.of_material(material))).sum(),
            unreadable: self.scans.iter().map(Scan::unseen).sum::<u64>() + self.unseen.len() as u64,
            ..ReferenceReport::default()
        }
    }
}

/// What a daemon answers.
pub(in crate::cli) fn to_value(volume: VolumeId, found: &References) -> Value {
    let list = |counts: &Counts| -> Value {
        counts.iter().map(|((key, of), n)| json!([key.to_string(), of.to_string(), n])).collect()
    };
    json!({
        "volume": volume.to_string(),
        "files": list(&found.files),
        "directories": list(&found.directories),
        "unreadable": found.unreadable,
    })
}

/// What it meant; `None` for anything else.
fn from_value(value: &Value) -> Option<(VolumeId, References)> {
    let list = |name: &str| -> Option<Counts> {
        let entry = |entry: &Value| {
            let id = (entry[0].as_str()?.parse().ok()?, entry[1].as_str()?.parse().ok()?);
            Some((id, entry[2].as_u64()?))
        };
        value[name].as_array()?.iter().map(entry).collect()
    };
    let found = References {
        files: list("files")?,
        directories: list("directories")?,
        unreadable: value["unreadable"].as_u64()?,
    };
    Some((value["volume"].as_str()?.parse().ok()?, found))
}

/// True if no vault is at a path, as far as that can be told.
pub(in crate::cli) fn is_gone(path: &Path) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    let found = std::fs::symlink_metadata(path.join(".kmsfs"));
    found.is_err_and(|error| matches!(error.kind(), NotFound | NotADirectory))
}

type Counts = HashMap<(KeyId, MaterialId), u64>;

fn total(needed: Needed) -> u64 {
    needed.files + needed.directories
}

/// What a vault had of a key when it was last looked into.
fn last_words(last: Option<&VolumeScan>, key: KeyId) -> String {
    last.map_or_else(
        || "what it has is unknown".to_owned(),
        |scan| {
            let (files, directories) = scan.of_key(key);
            let needed = number(Needed { files, directories });
            format!("on {} it had {needed} of this key", scan.at)
        },
    )
}

/// The same for programs.
fn last_value(last: Option<&VolumeScan>, key: KeyId) -> Value {
    last.map_or(Value::Null, |scan| {
        let (files, directories) = scan.of_key(key);
        json!({ "Date": scan.at.to_string(), "Files": files, "Directories": directories })
    })
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

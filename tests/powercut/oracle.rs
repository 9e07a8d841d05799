//! Power comes back: what is there, and does everything work?

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use crate::backing::Backing;
use crate::claim::{Claim, Side, shown};
use crate::cut::{Kept, Unit, cut};
use crate::device::Event;
use crate::machine::{Keys, Machine, Off};
use crate::random::Random;
use crate::record::{Recording, WORK, root};

/// What was found after one cut.
#[derive(Default)]
pub(crate) struct Found {
    /// What kmsfs lost or broke and the backing filesystem did not.
    pub(crate) losses: Vec<String>,
    /// What the backing filesystem lost itself.
    pub(crate) bare: Vec<String>,
    /// Claims that were checked.
    pub(crate) claims: usize,
    /// Files that open and cannot be read to their end: never synced, nowhere claimed.
    pub(crate) unreadable: usize,
}

/// The claims that stand at event `at`, by side and key.
pub(crate) fn standing(recording: &Recording, at: usize) -> BTreeMap<(Side, &str), &Claim> {
    recording.events[..at]
        .iter()
        .filter_map(|event| match event {
            Event::Mark(number) => Some(&recording.claims[*number]),
            _ => None,
        })
        .map(|claim| ((claim.side, claim.key.as_str()), claim))
        .collect()
}

/// Power comes back and goes again during the recovery: what is on the disk then.
pub(crate) fn interrupted(
    backing: &'static Backing,
    keys: Keys,
    off: &Off,
    random: &mut Random,
) -> Result<Off, String> {
    let mut machine = Machine::plug(backing, keys, off);
    let base = machine.disk().start();
    machine.mount_backing()?;
    machine.mount_vault(&[])?;
    let events = machine.disk().events();
    let at = match keys {
        Keys::SameDisk => random.index(events.len() + 1),
        Keys::Apart => events.len(),
    };
    machine.kill_daemon();
    let image = cut(&base, &events, at, Kept::Some, Unit::Piece, random);
    Ok(Off { image, apart: machine.apart() })
}

/// Starts a machine with what a cut left, and looks at everything. Where pages may be `torn` those
/// that were being written may be unreadable.
pub(crate) fn judge(
    backing: &'static Backing,
    keys: Keys,
    off: &Off,
    standing: &BTreeMap<(Side, &str), &Claim>,
    torn: bool,
) -> Found {
    let mut found = Found { claims: standing.len(), ..Found::default() };
    let mut machine = Machine::plug(backing, keys, off);
    if let Err(error) = look(&mut machine, standing, torn, &mut found) {
        found.losses.push(error);
    }
    found
}

fn look(
    machine: &mut Machine,
    standing: &BTreeMap<(Side, &str), &Claim>,
    torn: bool,
    found: &mut Found,
) -> Result<(), String> {
    machine.mount_backing()?;
    machine.mount_vault(&[])?;
    let mnt = machine.mnt();
    compare(machine, standing, torn, found);
    walk(&mnt, torn, found)?;
    let new = mnt.join("written after the cut");
    let written = fs::write(&new, NEW).and_then(|()| File::open(&new)?.sync_all());
    written.map_err(|error| format!("a new file: {error}"))?;
    machine.unmount_vault()?;
    let vault = machine.vault();
    check(machine, &vault, torn.then_some(found.unreadable))?;
    machine.kmsfs(&["audit", "verify"])?;
    machine.kmsfs(&["keystore", "verify"])?;
    machine.mount_vault(&[])?;
    compare(machine, standing, torn, found);
    let read = fs::read(&new).map_err(|error| format!("the new file after a remount: {error}"))?;
    if read != NEW.as_bytes() {
        return Err("the new file has other contents after a remount".to_owned());
    }
    fs::remove_dir_all(mnt.join(WORK)).map_err(|error| format!("rm -r: {error}"))?;
    let left = fs::read_dir(&mnt).unwrap().count();
    if left != 1 {
        return Err(format!("{left} entries in the root after rm -r"));
    }
    machine.unmount_vault()
}

/// fsck finds nothing, or what a crash explains: half of something that was never finished, which
/// is no problem and which a repair removes, and pages that tore, where they may: those of blocks that
/// were `unreadable`, and those that have another copy.
fn check(machine: &Machine, vault: &Path, unreadable: Option<usize>) -> Result<(), String> {
    let vault = vault.to_str().unwrap();
    let repair = || machine.kmsfs(&["fsck", "--repair", vault]).map(drop);
    let said = match machine.kmsfs(&["fsck", vault]) {
        Ok(said) if said.contains(": left over from something that was never finished") => {
            return repair();
        }
        Ok(_) => return Ok(()),
        Err(said) => said,
    };
    let count = |what: &str| said.matches(what).count();
    let (mut pages, mut copies) = (0, 0);
    if let Some(unreadable) = unreadable {
        copies = count(": a copy of its spill page ");
        if unreadable > 0 {
            pages = count("page is not authentic: changed or cut from outside");
        }
    }
    let all = pages + copies;
    if all == 0 || !said.contains(&format!(", {all} problem")) {
        return Err(said);
    }
    if pages > 0 { Ok(()) } else { repair() }
}

/// Every claim on both sides: what fails on the mount and holds on the backing filesystem is lost.
fn compare(
    machine: &Machine,
    standing: &BTreeMap<(Side, &str), &Claim>,
    torn: bool,
    found: &mut Found,
) {
    let verdict = |side: Side, key: &str| {
        let claim = standing.get(&(side, key))?;
        claim.check(&root(machine, side).join(WORK), torn).err()
    };
    for (side, key) in standing.keys().filter(|(side, _)| *side == Side::Kmsfs) {
        let bare = verdict(Side::Bare, key);
        if let Some(loss) = verdict(*side, key)
            && bare.is_none()
            && !found.losses.contains(&loss)
        {
            found.losses.push(loss);
        }
        found.bare.extend(bare);
    }
}

/// Everything can be listed, looked at and opened. What was never synced may be unreadable, and
/// a block that was torn is told from an authentic one.
fn walk(dir: &Path, torn: bool, found: &mut Found) -> Result<(), String> {
    let wrong = |what: &str, path: &Path, error: std::io::Error| {
        format!("walk: {what} {}: {error}", shown(path))
    };
    for entry in fs::read_dir(dir).map_err(|error| wrong("readdir", dir, error))? {
        let path = entry.map_err(|error| wrong("readdir", dir, error))?.path();
        let meta = fs::symlink_metadata(&path).map_err(|error| wrong("lstat", &path, error))?;
        let mut names = vec![0; 65536];
        rustix::fs::llistxattr(&path, &mut names[..])
            .map_err(|error| wrong("listxattr", &path, error.into()))?;
        if meta.is_dir() {
            walk(&path, torn, found)?;
        } else if meta.is_symlink() {
            fs::read_link(&path).map_err(|error| wrong("readlink", &path, error))?;
        } else {
            let mut file = File::open(&path).map_err(|error| wrong("open", &path, error))?;
            match file.read_to_end(&mut Vec::new()) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::EIO) => found.unreadable += 1,
                Err(error) if torn && error.raw_os_error() == Some(libc::EBADMSG) => {
                    found.unreadable += 1;
                }
                Err(error) => return Err(wrong("read", &path, error)),
            }
        }
    }
    Ok(())
}

const NEW: &str = "new contents";

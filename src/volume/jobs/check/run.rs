//! `fsck`: reads and authenticates everything, and repairs what can be repaired without a loss.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{FileType, OFlags, RenameFlags};
use rustix::io::Errno;
use zeroize::Zeroize;

use super::copies::read_slots;
use super::report::{CheckReport, Repair};
use crate::envelope::layout::{PAGE, PAGE_LEN};
use crate::envelope::{LONG_PREFIX, SIDECAR_SUFFIX};
use crate::volume::backing::beneath::{self, BackingName};
use crate::volume::backing::contents::{BackingFile, is_blank};
use crate::volume::backing::handle::open_noatime;
use crate::volume::backing::own_file::KeptTime;
use crate::volume::content::{Content, SeekTo};
use crate::volume::engine::Volume;
use crate::volume::files::file_key::policy_of;
use crate::volume::jobs::descent::{Descent, Unseen};
use crate::volume::jobs::walk::{Entry, Role, Visit};
use crate::volume::model::error::{Result, VolumeError};
use crate::volume::model::misplaced::Misplaced;
use crate::volume::namespace::dir::Dir;
use crate::volume::namespace::names::read_sidecar;
use crate::volume::ops::reach::leftovers::{holds_more, remove_unfinished_dir};
use crate::volume::ops::reach::link_target::target_file;

impl Volume {
    /// Checks the whole volume.
    ///
    /// # Errors
    /// Those of the backing filesystem; what is wrong with a file is in the report.
    pub fn check(
        &self,
        repair: Repair,
        progress: &mut dyn FnMut(&CheckReport) -> ControlFlow<()>,
    ) -> Result<CheckReport> {
        let mut report = CheckReport::default();
        (report.pending, report.withheld) = self.files.shared().crashes();
        let (mut targets, mut every_link, mut dirs) = (HashSet::new(), true, HashMap::new());
        self.check_own_files(repair, &mut report);
        let mut descent = Descent::new(self)?;
        while let Some((visit, dir)) = descent.step()? {
            report.directories += 1;
            match dir.keys() {
                Err(_) if descent.is_below_unusable() => {}
                // A repair adopts nothing: only a person knows whether it belongs here (`kmsfs adopt`).
                Err(error @ VolumeError::Misplaced(_)) => {
                    report.add(visit.path(), error, false);
                }
                Err(error) => {
                    let what = format!("its names cannot be read: {error}");
                    report.add(visit.path(), what, false);
                }
                Ok(_) => {}
            }
            if let Ok(found) = dir.descriptor()
                && dirs.insert(found.dir, dir.ino()).is_some_and(|other| other != dir.ino())
            {
                report.add(visit.path(), Misplaced::Twin, false);
            }
            self.check_directory(&visit, &dir, repair, &mut report)?;
            self.check_leftovers(&visit, repair, &mut report)?;
            for entry in &visit.entries {
                self.check_entry((&visit, &dir, entry), repair, &mut report)?;
                match long_target(&visit, entry) {
                    Ok(target) => targets.extend(target),
                    // What it needs is not known.
                    Err(_) => every_link = false,
                }
                if progress(&report).is_break() {
                    return Ok(report);
                }
            }
        }
        let missed = descent.missed();
        // The links of what looks left over may be there.
        if missed.is_empty() && every_link {
            self.check_targets(&targets, repair, &mut report)?;
        }
        // The nameless ones are in the report.
        for missed in missed.into_iter().filter(|missed| missed.why != Unseen::Nameless) {
            report.add(missed.path, missed.why, false);
        }
        report.complete = true;
        if repair == Repair::Yes && report.is_clean() {
            self.flush(std::time::Duration::ZERO)?;
        }
        Ok(report)
    }

    fn check_entry(
        &self,
        (visit, dir, entry): (&Visit, &Dir, &Entry),
        repair: Repair,
        report: &mut CheckReport,
    ) -> Result<()> {
        let path = || visit.path_of(entry);
        if matches!(entry.role, Role::Sidecar | Role::Temporary) {
            return Ok(());
        }
        if let Ok(keys) = dir.keys() {
            let long = entry.name.bytes().starts_with(LONG_PREFIX.as_bytes());
            let text = match long {
                true => read_sidecar(&visit.fd, &entry.name),
                false => Some(entry.name.bytes().to_vec()),
            };
            match text {
                Some(text) if keys.decode_name(&text).is_ok() => {}
                Some(_) => {
                    report.add(path(), "its name was not made by this directory", false);
                }
                None => report.add(path(), "its long name cannot be read", false),
            }
        }
        match entry.role {
            Role::File => self.check_file((visit, dir, entry), repair, report),
            Role::Other => {
                if let Ok(text) =
                    beneath::hold(&visit.fd, &entry.name).and_then(|link| link.read_link())
                    && let Err(error) = self.decode_link(text)
                {
                    report.add(path(), error, false);
                }
                Ok(())
            }
            Role::Directory | Role::Sidecar | Role::Temporary => Ok(()),
        }
    }

    fn check_file(
        &self,
        (visit, dir, entry): (&Visit, &Dir, &Entry),
        repair: Repair,
        report: &mut CheckReport,
    ) -> Result<()> {
        let path = visit.path_of(entry);
        let held = match visit.hold(entry) {
            Ok(Some(held)) => held,
            Ok(None) => return Ok(()),
            Err(error) => {
                report.add(path, error, false);
                return Ok(());
            }
        };
        report.files += 1;
        let policy = match policy_of(dir) {
            Ok(policy) => policy,
            // Reported once, for the directory.
            Err(VolumeError::Misplaced(_) | VolumeError::Tampered(_)) => return Ok(()),
            Err(_) => {
                report.add(path, "the key of its directory cannot be used", false);
                return Ok(());
            }
        };
        // The number and the contents are those of one inode, whatever its name leads to meanwhile.
        let ino = self.tree.inodes.shown(held.found().st_ino);
        // Read before the file is opened, which may repair one.
        let slots = read_slots(&held).ok().flatten();
        let open = |flags| open_noatime(flags, |flags| held.open_file(flags));
        let file = match self.files.open(ino, &policy, open) {
            Ok(file) => file,
            Err(error) => {
                let lost = matches!(error, VolumeError::Lost(_)) && repair == Repair::Yes;
                let emptied = lost && self.empty_if_blank(ino, open).unwrap_or(false);
                report.add(path, error, emptied);
                return Ok(());
            }
        };
        if file.content().was_emptied() {
            report.emptied.push(path.clone());
        }
        let (bytes, bad) = read_all(file.content());
        report.bytes += bytes;
        report.journaled += file.content().torn_pages().unwrap_or(0);
        for (block, error) in bad {
            report.add(path.clone(), format!("bytes {} on: {error}", block * PAGE), false);
        }
        if let Err(error) = self.check_parts((&held, &file), slots, &path, report) {
            report.add(path, error, false);
        }
        drop(file);
        self.files.release(ino);
        Ok(())
    }

    /// Files of long link targets whose link is gone.
    fn check_targets(
        &self,
        used: &HashSet<String>,
        repair: Repair,
        report: &mut CheckReport,
    ) -> Result<()> {
        for name in self.unused_targets(used)? {
            let id = String::from_utf8_lossy(name.bytes()).into_owned();
            if repair == Repair::Yes {
                self.remove_long_link(&id);
            }
            report.add_leftover(PathBuf::from(".kmsfs/links").join(id), repair == Repair::Yes);
        }
        Ok(())
    }

    /// Truncates a file that is all zeros, header included; true if it was. Nothing is lost, so no crash
    /// has to excuse it.
    fn empty_if_blank(
        &self,
        ino: u64,
        open: impl Fn(OFlags) -> std::result::Result<OwnedFd, Errno>,
    ) -> Result<bool> {
        if !is_blank(&BackingFile::new(open(OFlags::RDONLY)?))? {
            return Ok(false);
        }
        self.files.erase(ino, open)?;
        Ok(true)
    }

    /// Temporary names, and long names whose entry is gone.
    fn check_leftovers(
        &self,
        visit: &Visit,
        repair: Repair,
        report: &mut CheckReport,
    ) -> Result<()> {
        let names: HashSet<&[u8]> = visit.entries.iter().map(|entry| entry.name.bytes()).collect();
        for entry in &visit.entries {
            let orphan = entry.role == Role::Sidecar
                && entry
                    .name
                    .bytes()
                    .strip_suffix(SIDECAR_SUFFIX.as_bytes())
                    .is_none_or(|owner| !names.contains(owner));
            if !orphan && entry.role != Role::Temporary {
                continue;
            }
            match (remove_if(repair, visit, entry), entry.role) {
                (Err(VolumeError::NotEmpty), Role::Temporary) => {
                    let shown = repair == Repair::Yes && show(visit, entry).is_ok();
                    report.add_unnamed(visit.path_of(entry), shown);
                }
                (removed, _) => {
                    report.add_leftover(visit.path_of(entry), matches!(removed, Ok(true)));
                }
            }
        }
        Ok(())
    }
}

/// The file that holds the target of the link that an entry is, if one does.
///
/// # Errors
/// Those of a link that cannot be read.
fn long_target(visit: &Visit, entry: &Entry) -> Result<Option<String>> {
    if entry.role != Role::Other {
        return Ok(None);
    }
    // The walk knows of what has gone.
    let Some(held) = visit.hold(entry)? else { return Ok(None) };
    if FileType::from_raw_mode(held.found().st_mode) != FileType::Symlink {
        return Ok(None);
    }
    Ok(target_file(&held.read_link()?))
}

/// Removes what is left over, if it is to be repaired; true then.
///
/// # Errors
/// `NotEmpty` for a directory with something in it, also if it is not to be repaired.
fn remove_if(repair: Repair, visit: &Visit, entry: &Entry) -> Result<bool> {
    if repair == Repair::Yes {
        return remove(visit, entry).map(|()| true);
    }
    let dir = beneath::open_dir(&visit.fd, &entry.name);
    if dir.is_ok_and(|dir| holds_more(&dir).unwrap_or(false)) {
        return Err(VolumeError::NotEmpty);
    }
    Ok(false)
}

/// Gives a directory that never got its name one under which a mount shows it.
fn show(visit: &Visit, entry: &Entry) -> Result<()> {
    let shown = entry.name.bytes().strip_prefix(b".").and_then(BackingName::new);
    let shown = shown.ok_or(VolumeError::Stale)?;
    let flags = RenameFlags::NOREPLACE;
    Ok(beneath::rename((&visit.fd, &entry.name), (&visit.fd, &shown), flags)?)
}

/// The directory keeps its time: who repairs a volume has it for himself.
fn remove(visit: &Visit, entry: &Entry) -> Result<()> {
    let kept = KeptTime::new(visit.fd.as_fd(), || true);
    let removed = match beneath::remove(&visit.fd, &entry.name) {
        Err(Errno::ISDIR | Errno::PERM) => remove_unfinished_dir(&visit.fd, &entry.name),
        other => other.map_err(VolumeError::from),
    };
    kept.put_back();
    removed
}

/// Reads every block; returns how many bytes were authentic, and what was not, with its offset.
///
/// Whoever writes to the vault can make a file as long as a filesystem lets them: what has no page is
/// passed over without a look at each block, and only the first thousand errors are reported.
fn read_all(content: &Content) -> (u64, Vec<(u64, String)>) {
    let size = content.size();
    let (mut buf, mut at, mut good, mut bad) = (vec![0; STEP], 0, 0, Vec::new());
    while at < size && bad.len() < MOST_BAD {
        // Skips authentic holes. Where those are unknown, a read says why.
        if let Ok(Some(data)) = content.seek(at, SeekTo::Data) {
            good += data - at;
            at = data;
        }
        if let Ok(got) = content.read(at, &mut buf) {
            good += got as u64;
            at += got as u64;
            continue;
        }
        // Once more, block by block, to say which.
        let end = size.min(at + buf.len() as u64);
        while at < end && bad.len() < MOST_BAD {
            let block = buf.get_mut(..PAGE_LEN).unwrap_or_default();
            let read = content.read(at, block);
            let after = (at / PAGE + 1) * PAGE;
            match read {
                Ok(got) => {
                    good += got as u64;
                    at = after;
                }
                Err(error) => {
                    bad.push((at / PAGE, error.to_string()));
                    at = content.next_page(after).unwrap_or(after).max(after);
                }
            }
        }
    }
    buf.zeroize();
    (good, bad)
}

/// Bytes that are read at once.
const STEP: usize = 64 * PAGE_LEN;
/// The most errors that are reported of one file.
const MOST_BAD: usize = 1000;

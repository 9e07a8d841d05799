//! Files that were closed a moment ago stay open for whoever opens them next. Nobody may be able to tell,
//! but by the time that it takes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kmsfs::volume::attr::AttrChange;
use kmsfs::volume::{OpenFor, Origin, ROOT, VolumeError};

use crate::fixture::{Fixture, caller};

const MOST_IDLE: usize = 256;

fn backing(fixture: &Fixture, ino: u64) -> PathBuf {
    let all = fixture.backing(|_| true);
    all.into_iter().find(|path| path.symlink_metadata().unwrap().ino() == ino).unwrap()
}

fn write(fixture: &Fixture, ino: u64, data: &[u8]) {
    let handle = fixture.volume().open_as(ino, OpenFor::Both, caller()).unwrap().handle;
    handle.write(0, data, Origin::Caller).unwrap();
    fixture.volume().close(handle);
}

fn read(fixture: &Fixture, ino: u64) -> Result<Vec<u8>, VolumeError> {
    let handle = fixture.volume().open_as(ino, OpenFor::Reading, caller())?.handle;
    let mut found = vec![0; 100_000];
    let length = handle.file.read(0, &mut found);
    fixture.volume().close(handle);
    found.truncate(length?);
    Ok(found)
}

/// The descriptors that this process has of files below a directory, as the kernel names them.
fn held(vault: &Path) -> Vec<String> {
    let vault = vault.canonicalize().unwrap();
    let all = fs::read_dir("/proc/self/fd").unwrap();
    let targets = all.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    let ours = targets.filter(|target| target.starts_with(&vault) && !target.is_dir());
    ours.map(|target| target.to_str().unwrap().to_owned()).collect()
}

fn is_deleted_held(fixture: &Fixture) -> bool {
    held(&fixture.vault()).into_iter().any(|held| held.ends_with(" (deleted)"))
}

#[test]
fn a_file_that_was_just_closed_is_still_open_and_the_end_closes_it() {
    let mut fixture = Fixture::new();
    let ino = fixture.file(ROOT, "file", "contents").unwrap().ino;
    let file = backing(&fixture, ino).canonicalize().unwrap().to_str().unwrap().to_owned();
    assert!(held(&fixture.vault()).contains(&file));
    assert_eq!(read(&fixture, ino).unwrap(), b"contents");
    assert_eq!(held(&fixture.vault()).iter().filter(|held| **held == file).count(), 1);
    fixture.volume().end().unwrap();
    assert!(!held(&fixture.vault()).contains(&file));
    fixture.reopen();
    assert_eq!(fixture.contents(fixture.find("file").unwrap()), "contents");
}

#[test]
fn no_file_idles_for_long() {
    let fixture = Fixture::new();
    fixture.file(ROOT, "file", "contents").unwrap();
    fixture.wait_for_idle_files();
    assert_eq!(fixture.contents(fixture.find("file").unwrap()), "contents");
}

#[test]
fn a_removed_file_gives_its_space_back_at_once() {
    let fixture = Fixture::new();
    let ino = fixture.file(ROOT, "file", "contents").unwrap().ino;
    fixture.volume().unlink(ROOT, b"file").unwrap();
    fixture.volume().forget(ino, 1);
    assert!(!is_deleted_held(&fixture));
    let ino = fixture.file(ROOT, "replaced", "contents").unwrap().ino;
    fixture.file(ROOT, "new", "other").unwrap();
    let how = kmsfs::volume::RenameHow::default();
    fixture.rename((ROOT, "new"), (ROOT, "replaced"), how).unwrap();
    fixture.volume().forget(ino, 1);
    assert!(!is_deleted_held(&fixture));
}

#[test]
fn only_so_many_files_stay_open() {
    let fixture = Fixture::new();
    for number in 0..MOST_IDLE + 20 {
        fixture.file(ROOT, &number.to_string(), "contents").unwrap();
    }
    let files = fixture.backing(|_| true).len();
    assert!(files >= MOST_IDLE + 20);
    let held = held(&fixture.vault()).len();
    assert!((MOST_IDLE / 2..MOST_IDLE + 10).contains(&held), "{held}");
}

#[test]
fn what_somebody_put_in_its_place_meanwhile_is_what_is_read() {
    let fixture = Fixture::new();
    let ino = fixture.file(ROOT, "file", "").unwrap().ino;
    write(&fixture, ino, b"the first contents");
    let old = fs::read(backing(&fixture, ino)).unwrap();
    write(&fixture, ino, b"and those of later");
    fs::write(backing(&fixture, ino), &old).unwrap();
    assert_eq!(read(&fixture, ino).unwrap(), b"the first contents");
    let mut bad = old;
    bad[64..4096].iter_mut().for_each(|byte| *byte ^= 1);
    fs::write(backing(&fixture, ino), &bad).unwrap();
    assert!(matches!(read(&fixture, ino), Err(VolumeError::Tampered(_))));
}

#[test]
fn what_is_shown_of_an_idle_file_is_what_the_vault_has() {
    let fixture = Fixture::new();
    let ino = fixture.file(ROOT, "file", "").unwrap().ino;
    write(&fixture, ino, &[1; 9000]);
    let old = fs::read(backing(&fixture, ino)).unwrap();
    write(&fixture, ino, &vec![2; 30_000]);
    fs::write(backing(&fixture, ino), &old).unwrap();
    assert_eq!(fixture.volume().lookup(ROOT, b"file").unwrap().unwrap().size, 9000);
    assert_eq!(read(&fixture, ino).unwrap(), [1; 9000]);
}

#[test]
fn a_file_that_lost_its_place_is_not_opened_by_its_number() {
    let fixture = Fixture::new();
    let ino = fixture.file(ROOT, "file", "contents").unwrap().ino;
    let aside = fixture.vault().join("aside");
    fs::rename(backing(&fixture, ino), &aside).unwrap();
    assert!(matches!(read(&fixture, ino), Err(VolumeError::Stale | VolumeError::Io(_))));
}

/// A sync held an idle file, a chmod made it seem another one, and it was opened a second time: the first
/// one's seal then went over the header of the second.
#[test]
fn regression_no_inode_is_open_twice_while_somebody_looks_at_it() {
    let fixture = Fixture::new();
    let (volume, file) = (fixture.volume(), fixture.file(ROOT, "file", "contents").unwrap());
    let open = || volume.open_as(file.ino, OpenFor::Both, caller()).unwrap().handle;
    let handle = open();
    let held = handle.file.clone();
    volume.close(handle);
    let change = AttrChange { mode: Some(0o600), ..Default::default() };
    volume.set_attr(file.ino, &change, caller()).unwrap();
    let again = open();
    assert!(Arc::ptr_eq(&again.file, &held));
    volume.close(again);
    volume.set_attr(file.ino, &change, caller()).unwrap();
    volume.unlink(ROOT, b"file").unwrap();
    let nameless = open();
    assert!(Arc::ptr_eq(&nameless.file, &held), "through a descriptor without a name as well");
    volume.close(nameless);
    drop(held);
    volume.forget(file.ino, 1);
    volume.flush(Duration::MAX).unwrap();
    assert!(!is_deleted_held(&fixture));
}

#[test]
fn the_key_of_an_idle_file_goes_with_its_kms_key() {
    let fixture = Fixture::new();
    let ino = fixture.file(ROOT, "file", "contents").unwrap().ino;
    fixture.disable(fixture.key());
    fixture.volume().watch_keys();
    assert!(matches!(read(&fixture, ino), Err(VolumeError::KeyUnusable(_))));
    fixture.enable(fixture.key());
    fixture.volume().watch_keys();
    assert_eq!(read(&fixture, ino).unwrap(), b"contents");
}

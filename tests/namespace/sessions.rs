//! Sessions, crashes and what they excuse: whoever writes to the vault decides none of it.
//!
//! Dropping a volume without ending it is what a killed daemon leaves.

use std::fs::{self, File, OpenOptions};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use kmsfs::volume::content::Access;
use kmsfs::volume::{CheckReport, Options, Origin, RecoveryReport, Repair, Result, VolumeError};

use crate::fixture::{Fixture, REPLACE, ROOT};

pub(crate) const PAGE: usize = 4096;
/// Blocks of the file under attack: all tails in one spill page.
pub(crate) const BLOCKS: usize = 30;

pub(crate) fn pattern(length: usize, salt: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((at * 7 + at / 251 + salt * 13) % 255 + 1).unwrap()).collect()
}

/// A file of many blocks, sealed by a session that ended cleanly.
pub(crate) fn sealed() -> (Fixture, Vec<u8>) {
    let fixture = Fixture::new();
    let contents = pattern(BLOCKS * PAGE, 1);
    fixture.file(ROOT, "file", "").unwrap();
    write(&fixture, "file", 0, &contents).unwrap();
    fixture.volume().end().unwrap();
    (fixture, contents)
}

pub(crate) fn write(fixture: &Fixture, name: &str, offset: u64, bytes: &[u8]) -> Result<()> {
    let ino = fixture.find(name)?;
    let handle = fixture.volume().open_handle(ino, Access::ReadWrite)?.handle;
    let written = handle.file.write(offset, bytes, Origin::Caller);
    fixture.volume().close(handle);
    assert_eq!(written?, bytes.len());
    Ok(())
}

pub(crate) fn read(fixture: &Fixture, name: &str) -> Result<Vec<u8>> {
    let ino = fixture.find(name)?;
    let handle = fixture.volume().open_handle(ino, Access::ReadOnly)?.handle;
    let mut bytes = vec![0xee; usize::try_from(handle.file.size()).unwrap()];
    let got = handle.file.read(0, &mut bytes);
    fixture.volume().close(handle);
    bytes.truncate(got?);
    Ok(bytes)
}

pub(crate) fn state(fixture: &Fixture) -> PathBuf {
    fixture.vault().join(".kmsfs/state")
}

/// The ciphertext of the only large file.
pub(crate) fn ciphertext(fixture: &Fixture) -> PathBuf {
    let files = fixture.backing(|name| !name.starts_with(".kmsfs"));
    files.into_iter().max_by_key(|file| fs::metadata(file).unwrap().len()).unwrap()
}

pub(crate) fn page(file: &Path, number: u64) -> Vec<u8> {
    let mut page = vec![0; PAGE];
    File::open(file).unwrap().read_exact_at(&mut page, number * PAGE as u64).unwrap();
    page
}

pub(crate) fn put_page(file: &Path, number: u64, page: &[u8]) {
    let file = OpenOptions::new().write(true).open(file).unwrap();
    file.write_all_at(page, number * PAGE as u64).unwrap();
}

/// Spoils both copies of the spill page: every tail of the file is gone.
fn spoil_tails(file: &Path) {
    for number in [1, 2] {
        let mut bytes = page(file, number);
        bytes[100] ^= 1;
        put_page(file, number, &bytes);
    }
}

pub(crate) fn recover(fixture: &Fixture) -> RecoveryReport {
    fixture.volume().recover(&mut |_| ControlFlow::Continue(())).unwrap()
}

pub(crate) fn check(fixture: &Fixture) -> CheckReport {
    fixture.volume().check(Repair::No, &mut |_| ControlFlow::Continue(())).unwrap()
}

pub(crate) fn is_tampered<T: std::fmt::Debug>(outcome: Result<T>) {
    assert!(matches!(outcome, Err(VolumeError::Tampered(_))), "{outcome:?}");
}

fn consent() -> Options {
    Options { restored: true, ..Options::default() }
}

#[test]
fn no_record_excuses_nothing() {
    type Spoil = fn(&Path);
    let spoilers: [(&str, Spoil); 5] = [
        ("deleted", |state| fs::remove_file(state).unwrap()),
        ("emptied", |state| fs::write(state, "").unwrap()),
        ("zeroed", |state| fs::write(state, vec![0; 65536]).unwrap()),
        ("changed", |state| {
            let mut bytes = fs::read(state).unwrap();
            bytes.iter_mut().for_each(|byte| *byte ^= 1);
            fs::write(state, bytes).unwrap();
        }),
        ("a directory", |state| {
            fs::remove_file(state).unwrap();
            fs::create_dir(state).unwrap();
        }),
    ];
    for (what, spoil) in spoilers {
        let (mut fixture, _) = sealed();
        spoil_tails(&ciphertext(&fixture));
        spoil(&state(&fixture));
        if what == "a directory" {
            fs::remove_dir(state(&fixture)).unwrap();
        }
        fixture.reopen();
        is_tampered(read(&fixture, "file"));
        assert!(!check(&fixture).is_clean(), "{what}: fsck says that all is well");
        // Writing to it does not make it right either.
        let _ = write(&fixture, "file", (BLOCKS * PAGE) as u64, b"x");
        is_tampered(read(&fixture, "file"));
        fixture.volume().end().unwrap();
        fixture.reopen();
        is_tampered(read(&fixture, "file"));
    }
}

#[test]
fn a_json_file_of_old_volumes_excuses_nothing_where_the_keystore_knows_the_volume() {
    let (mut fixture, _) = sealed();
    spoil_tails(&ciphertext(&fixture));
    fs::remove_file(state(&fixture)).unwrap();
    let old = r#"{"number":99,"crashed":99,"open_since":0,"crashes":[]}"#;
    fs::write(fixture.vault().join(".kmsfs/session"), old).unwrap();
    fixture.reopen();
    is_tampered(read(&fixture, "file"));
}

#[test]
fn a_crash_excuses_only_what_its_session_was_changing() {
    let (mut fixture, contents) = sealed();
    let other = fixture.file(ROOT, "other", "").unwrap();
    assert!(other.size == 0);
    fixture.reopen();
    write(&fixture, "other", 0, &pattern(BLOCKS * PAGE + 5, 2)).unwrap();
    // Killed: "other" was being written, "file" was not.
    fixture.reopen();
    let file = ciphertext_of(&fixture, &contents);
    spoil_tails(&file);
    is_tampered(read(&fixture, "file"));
    assert_eq!(read(&fixture, "other").unwrap(), pattern(BLOCKS * PAGE + 5, 2));
}

/// The ciphertext of the file that is exactly [`BLOCKS`] long.
fn ciphertext_of(fixture: &Fixture, contents: &[u8]) -> PathBuf {
    let length = kmsfs::envelope::layout::backing_len(contents.len() as u64);
    let files = fixture.backing(|name| !name.starts_with(".kmsfs"));
    files.into_iter().find(|file| fs::metadata(file).unwrap().len() == length).unwrap()
}

#[test]
fn a_page_put_back_is_refused_again_once_a_crash_was_mended() {
    let (mut fixture, mut contents) = sealed();
    let file = ciphertext(&fixture);
    let (old_data, old_tails) = (page(&file, 7), page(&file, 1));
    fixture.reopen();
    write(&fixture, "file", 5 * PAGE as u64, &pattern(PAGE, 9)).unwrap();
    contents[5 * PAGE..6 * PAGE].copy_from_slice(&pattern(PAGE, 9));
    // Killed. What was written is there, and is mended.
    fixture.reopen();
    assert_eq!(fixture.volume().unrecovered().len(), 1);
    assert_eq!(read(&fixture, "file").unwrap(), contents);
    let report = recover(&fixture);
    assert!(report.complete && report.spoiled.is_empty(), "{report:?}");
    assert_eq!(report.examined, 1);
    assert!(fixture.volume().unrecovered().is_empty());
    fixture.volume().end().unwrap();
    fixture.reopen();
    let new_data = page(&file, 7);
    put_page(&file, 7, &old_data);
    is_tampered(read(&fixture, "file"));
    put_page(&file, 7, &new_data);
    fixture.reopen();
    assert_eq!(read(&fixture, "file").unwrap(), contents);
    let good = page(&file, 1);
    put_page(&file, 1, &old_tails);
    put_page(&file, 2, &old_tails);
    fixture.reopen();
    assert!(read(&fixture, "file").is_err());
    put_page(&file, 1, &good);
}

#[test]
fn below_the_seal_nothing_is_made_up_even_after_a_crash() {
    let (mut fixture, _) = sealed();
    fixture.reopen();
    write(&fixture, "file", 5 * PAGE as u64, &pattern(PAGE, 9)).unwrap();
    // Killed, and then somebody takes all tails away, or cuts the file.
    let file = ciphertext(&fixture);
    let saved = fs::read(&file).unwrap();
    spoil_tails(&file);
    fixture.reopen();
    is_tampered(read(&fixture, "file"));
    fs::write(&file, &saved).unwrap();
    put_page(&file, 9, &[0; PAGE]);
    fixture.reopen();
    is_tampered(read(&fixture, "file"));
    fs::write(&file, &saved[..20 * PAGE]).unwrap();
    fixture.reopen();
    is_tampered(read(&fixture, "file"));
    let report = recover(&fixture);
    assert!(report.complete, "a tampered file does not keep the crash alive");
    assert_eq!(report.spoiled.len(), 1);
    is_tampered(read(&fixture, "file"));
}

#[test]
fn what_is_renamed_under_a_recovery_is_looked_through_as_well() {
    let (mut fixture, contents) = sealed();
    let dir = fixture.mkdir(ROOT, "dir").unwrap().ino;
    fixture.reopen();
    let dir_again = fixture.find("dir").unwrap();
    assert_eq!(dir_again, dir);
    fixture.rename((ROOT, "file"), (dir, "file"), REPLACE).unwrap();
    fixture.file(ROOT, "filler", "small").unwrap();
    fixture.volume().end().unwrap();
    fixture.reopen();
    write(&fixture, "dir/file", 5 * PAGE as u64, &pattern(PAGE, 9)).unwrap();
    // Killed. While the entries of the root are gone through, the file comes there.
    fixture.reopen();
    let dir = fixture.find("dir").unwrap();
    let mut moved = false;
    let report = fixture.volume().recover(&mut |_| {
        if !std::mem::replace(&mut moved, true) {
            fixture.rename((dir, "file"), (ROOT, "file"), REPLACE).unwrap();
        }
        ControlFlow::Continue(())
    });
    let report = report.unwrap();
    assert!(moved && report.complete, "{report:?}");
    assert_eq!(report.examined, 1, "the file was missed");
    assert_eq!(read(&fixture, "file").unwrap()[6 * PAGE..], contents[6 * PAGE..]);
}

#[test]
fn an_older_record_excuses_nothing_without_consent() {
    let (mut fixture, mut contents) = sealed();
    fixture.reopen();
    write(&fixture, "file", 5 * PAGE as u64, &pattern(PAGE, 9)).unwrap();
    let open = fs::read(state(&fixture)).unwrap();
    fixture.volume().end().unwrap();
    let file = ciphertext(&fixture);
    let between = page(&file, 7);
    fixture.reopen();
    write(&fixture, "file", 5 * PAGE as u64, &pattern(PAGE, 10)).unwrap();
    contents[5 * PAGE..6 * PAGE].copy_from_slice(&pattern(PAGE, 10));
    fixture.volume().end().unwrap();
    // The record of an open session and a page of that time are put back.
    fs::write(state(&fixture), &open).unwrap();
    let newest = page(&file, 7);
    put_page(&file, 7, &between);
    fixture.reopen();
    is_tampered(read(&fixture, "file"));
    assert_eq!(check(&fixture).withheld, 1);
    fixture.volume().end().unwrap();
    // It is withheld at the next mount as well, until somebody says so.
    fixture.reopen();
    is_tampered(read(&fixture, "file"));
    put_page(&file, 7, &newest);
    fixture.volume().end().unwrap();
    fixture.reopen_with(consent());
    assert!(recover(&fixture).complete);
    assert_eq!(read(&fixture, "file").unwrap(), contents);
}

#[test]
fn a_vault_from_a_backup_is_usable_at_once() {
    let (mut fixture, contents) = sealed();
    let backup = fixture.vault().with_extension("backup");
    copy(&fixture.vault(), &backup);
    fixture.reopen();
    write(&fixture, "file", 0, &pattern(3 * PAGE, 5)).unwrap();
    fixture.volume().end().unwrap();
    fs::remove_dir_all(fixture.vault()).unwrap();
    copy(&backup, &fixture.vault());
    fixture.reopen();
    assert_eq!(read(&fixture, "file").unwrap(), contents);
    write(&fixture, "file", 0, &pattern(PAGE, 6)).unwrap();
    fixture.volume().end().unwrap();
    fixture.reopen();
    assert_eq!(read(&fixture, "file").unwrap()[..PAGE], pattern(PAGE, 6));
    let anchor = fixture.keystore.volume_anchor(fixture.volume().id()).unwrap().unwrap();
    assert_eq!(anchor.rollbacks, 1);
}

#[test]
fn a_record_that_is_ahead_of_its_anchor_is_taken_up() {
    let (mut fixture, contents) = sealed();
    let volume = fixture.volume().id();
    fixture.reopen();
    let before = fixture.keystore.volume_anchor(volume).unwrap().unwrap();
    fixture.volume().end().unwrap();
    fixture.reopen();
    write(&fixture, "file", 0, &pattern(PAGE, 3)).unwrap();
    // As if the daemon had been killed before the anchor was written.
    fixture.keystore.set_volume_anchor(volume, &fixture.vault(), &before).unwrap();
    fixture.reopen();
    let notice = fixture.volume().notice().unwrap();
    assert!(notice.contains("used elsewhere") && notice.contains("not closed"), "{notice}");
    assert_eq!(read(&fixture, "file").unwrap()[PAGE..], contents[PAGE..]);
    assert!(recover(&fixture).complete);
    let anchor = fixture.keystore.volume_anchor(volume).unwrap().unwrap();
    assert_eq!(anchor.rollbacks, 0, "no alarm");
}

#[test]
fn leniency_of_a_crash_ends_for_files_of_every_size() {
    let mut fixture = Fixture::new();
    let contents = vec![7; 70 << 20];
    fixture.file(ROOT, "large", "").unwrap();
    write(&fixture, "large", 0, &contents).unwrap();
    fixture.volume().end().unwrap();
    fixture.reopen();
    write(&fixture, "large", 40 << 20, &pattern(PAGE, 2)).unwrap();
    fixture.reopen();
    // Interrupted again and again, it goes on where it was.
    let mut steps = 0;
    let stopped = fixture.volume().recover(&mut |_| {
        steps += 1;
        if steps > 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(!stopped.unwrap().complete);
    assert!(recover(&fixture).complete);
    fixture.volume().end().unwrap();
    fixture.reopen();
    let file = ciphertext(&fixture);
    let last = fs::metadata(&file).unwrap().len() / PAGE as u64 - 1;
    put_page(&file, last, &[0; PAGE]);
    let ino = fixture.find("large").unwrap();
    let handle = fixture.volume().open_handle(ino, Access::ReadOnly).unwrap().handle;
    is_tampered(handle.file.read((70 << 20) - 10, &mut [0; 10]));
    fixture.volume().close(handle);
}

#[test]
fn a_session_announces_files_of_earlier_sessions_and_no_others() {
    let (mut fixture, _) = sealed();
    fixture.reopen();
    let before = fs::read(state(&fixture)).unwrap();
    for number in 0..20 {
        fixture.file(ROOT, &format!("new {number}"), "small").unwrap();
        write(&fixture, &format!("new {number}"), 0, &pattern(9000, number)).unwrap();
    }
    assert!(fs::read(state(&fixture)).unwrap() == before, "new files need no announcement");
    write(&fixture, "file", 0, b"x").unwrap();
    let announced = fs::read(state(&fixture)).unwrap();
    assert!(announced != before, "a sealed file was changed without a word");
    for offset in 0..50 {
        write(&fixture, "file", offset * 1000, b"y").unwrap();
    }
    assert!(fs::read(state(&fixture)).unwrap() == announced, "once is enough");
}

#[test]
fn a_read_only_volume_judges_the_same_and_writes_nothing() {
    let (mut fixture, _) = sealed();
    fixture.reopen();
    write(&fixture, "file", 5 * PAGE as u64, &pattern(PAGE, 9)).unwrap();
    fixture.reopen_with(Options { read_only: true, ..Options::default() });
    let before = fs::read(state(&fixture)).unwrap();
    assert_eq!(read(&fixture, "file").unwrap()[5 * PAGE..6 * PAGE], pattern(PAGE, 9));
    assert_eq!(recover(&fixture), RecoveryReport::default());
    assert!(fs::read(state(&fixture)).unwrap() == before);
    fs::remove_file(state(&fixture)).unwrap();
    spoil_tails(&ciphertext(&fixture));
    fixture.reopen_with(Options { read_only: true, ..Options::default() });
    is_tampered(read(&fixture, "file"));
}

#[test]
fn a_disabled_key_keeps_a_crash_alive_for_its_own_files_only() {
    let (mut fixture, _) = sealed();
    fixture.mkdir(ROOT, "dir").unwrap();
    fixture.reopen();
    let dir = fixture.find("dir").unwrap();
    let other = fixture.new_key();
    fixture.volume().set_dir_policy(dir, other, None).unwrap();
    fixture.file(dir, "inside", "").unwrap();
    write(&fixture, "dir/inside", 0, &pattern(9 * PAGE, 4)).unwrap();
    write(&fixture, "file", 0, &pattern(PAGE, 5)).unwrap();
    fixture.reopen();
    fixture.disable(other);
    let report = recover(&fixture);
    assert!(report.complete && report.waiting == [other.to_string()], "{report:?}");
    fixture.volume().end().unwrap();
    fixture.enable(other);
    fixture.reopen();
    assert_eq!(fixture.volume().unrecovered().len(), 1);
    assert_eq!(read(&fixture, "dir/inside").unwrap(), pattern(9 * PAGE, 4));
    let report = recover(&fixture);
    assert_eq!((report.complete, report.examined), (true, 1), "{report:?}");
    assert!(fixture.volume().unrecovered().is_empty());
}

fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

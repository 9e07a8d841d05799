//! Page journals in the vault: what recovery does with them, and what is believed of them.
//!
//! Dropping a volume without ending it is what a killed daemon leaves.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use kmsfs::volume::{Options, PageJournaling, VolumeError};

use crate::fixture::{Fixture, ROOT};
use crate::lengths::ciphertext;
use crate::sessions::{check, pattern, read, recover, write};

fn with(page_journal: PageJournaling) -> Options {
    Options { page_journal, ..Options::default() }
}

pub(crate) fn journals(fixture: &Fixture) -> Vec<PathBuf> {
    let names = fs::read_dir(fixture.vault().join(".kmsfs")).unwrap();
    let mut found: Vec<_> = names.map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with("undo-"));
    found.sort();
    found
}

/// A file of one page, durable, which a session with a journal was overwriting when it was killed:
/// with the page torn.
fn torn() -> (Fixture, PathBuf) {
    let mut fixture = Fixture::new();
    fixture.file(ROOT, "file", "").unwrap();
    write(&fixture, "file", 0, &pattern(2000, 1)).unwrap();
    fixture.volume().end().unwrap();
    fixture.reopen_with(with(PageJournaling::On));
    write(&fixture, "file", 0, &pattern(2000, 2)).unwrap();
    fixture.close();
    let path = ciphertext(&fixture);
    spoil(&path);
    (fixture, path)
}

fn spoil(path: &Path) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[0x55; 512], 2048).unwrap();
}

#[test]
fn recovery_puts_back_a_page_that_tore_and_removes_the_journal() {
    let (mut fixture, path) = torn();
    fixture.reopen_with(Options { read_only: true, ..Options::default() });
    assert_eq!(
        read(&fixture, "file").unwrap(),
        pattern(2000, 1),
        "no announcement, and not changed"
    );
    assert_eq!(check(&fixture).journaled, 1);
    for _ in 0..2 {
        fixture.reopen_with(with(PageJournaling::Off));
        assert!(read(&fixture, "file").unwrap() == pattern(2000, 1));
        // Killed again, and the page tears when it is put back.
        fixture.close();
        spoil(&path);
    }
    fixture.reopen_with(with(PageJournaling::Off));
    let report = recover(&fixture);
    assert!(report.complete && report.spoiled.is_empty(), "{report:?}");
    assert_eq!(journals(&fixture).len(), 2, "those of this session alone");
    fixture.volume().end().unwrap();
    assert!(journals(&fixture).is_empty());
    fixture.reopen();
    assert!(journals(&fixture).is_empty());
    assert!(read(&fixture, "file").unwrap() == pattern(2000, 1));
    assert!(check(&fixture).is_clean());
}

/// A session without a journal could make an old record stand for what was synced in it.
#[test]
fn while_a_journal_is_left_every_session_has_one() {
    let (mut fixture, path) = torn();
    fixture.reopen_with(with(PageJournaling::Off));
    assert!(fixture.volume().journals_pages());
    write(&fixture, "file", 0, &pattern(2000, 3)).unwrap();
    fixture.volume().flush(std::time::Duration::ZERO).unwrap();
    write(&fixture, "file", 0, &pattern(2000, 4)).unwrap();
    fixture.close();
    spoil(&path);
    fixture.reopen();
    assert!(read(&fixture, "file").unwrap() == pattern(2000, 3), "not what was there before");
}

#[test]
fn a_journal_of_a_session_that_nobody_knows_is_left_over() {
    let mut fixture = Fixture::new();
    fixture.file(ROOT, "file", "contents").unwrap();
    fixture.volume().end().unwrap();
    let stray = fixture.vault().join(".kmsfs/undo-0000000380000009-0");
    File::create(&stray).unwrap();
    fixture.reopen_with(Options { read_only: true, ..Options::default() });
    let report = check(&fixture);
    assert!(report.is_clean() && report.problems.iter().any(|problem| problem.leftover));
    fixture.reopen();
    assert!(!stray.exists());
    assert!(check(&fixture).problems.iter().all(|problem| !problem.repaired));
}

#[test]
fn a_journal_gives_nobody_what_a_page_in_its_place_would_not() {
    let (mut fixture, path) = torn();
    let first = journals(&fixture).remove(0);
    let good = fs::read(&first).unwrap();
    for changed in [0, 20, 35, 43, 54, 68, 1000] {
        let mut bytes = good.clone();
        bytes[changed] ^= 1;
        fs::write(&first, &bytes).unwrap();
        fixture.reopen_with(Options { read_only: true, ..Options::default() });
        let outcome = read(&fixture, "file");
        assert!(matches!(outcome, Err(VolumeError::Tampered(_))), "{changed}");
    }
    // With the right checksum, of another file, and of a page where no page can be.
    for (at, with) in [(16, &[7; 16][..]), (40, &[0xff; 8]), (40, &[1; 8]), (68, &[9; 8])] {
        let mut bytes = good.clone();
        bytes[at..at + with.len()].copy_from_slice(with);
        let crc = crc32fast::hash(&[&bytes[..52], &bytes[56..]].concat());
        bytes[52..56].copy_from_slice(&crc.to_le_bytes());
        fs::write(&first, &bytes).unwrap();
        fixture.reopen_with(Options { read_only: true, ..Options::default() });
        let outcome = read(&fixture, "file");
        assert!(matches!(outcome, Err(VolumeError::Tampered(_))), "{at}");
    }
    fs::write(&first, &good).unwrap();
    fixture.reopen();
    assert!(read(&fixture, "file").unwrap() == pattern(2000, 1));
    spoil(&path);
}

//! Crashes that nobody has agreed to believe: files that they would excuse are sealed all the same.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use kmsfs::envelope::layout::{Block, backing_len};
use kmsfs::volume::Options;

use crate::fixture::Fixture;
use crate::sessions::{
    BLOCKS, PAGE, ciphertext, is_tampered, pattern, read, recover, sealed, state, write,
};

const SIZE: usize = BLOCKS * PAGE;
/// More than one look at a file goes through.
const LONG: usize = 17 << 20;

/// A session that appends to the file, and ends.
fn append(fixture: &mut Fixture, at: usize, length: usize) {
    write(fixture, "file", at as u64, &pattern(length, 5)).unwrap();
    fixture.volume().flush(Duration::ZERO).unwrap();
    fixture.volume().end().unwrap();
    fixture.reopen();
}

fn cut(fixture: &mut Fixture, size: usize) {
    let file = OpenOptions::new().write(true).open(ciphertext(fixture)).unwrap();
    let length = backing_len(size as u64);
    file.set_len(length / PAGE as u64 * PAGE as u64).unwrap();
    file.set_len(length).unwrap();
    fixture.reopen();
}

/// A volume whose record was put back to the moment of a crash that changed the file.
fn with_a_withheld_crash() -> (Fixture, Vec<u8>) {
    let (mut fixture, mut contents) = sealed();
    fixture.reopen();
    let changed = pattern(PAGE, 9);
    write(&fixture, "file", 5 * PAGE as u64, &changed).unwrap();
    contents[5 * PAGE..6 * PAGE].copy_from_slice(&changed);
    let backup = fs::read(state(&fixture)).unwrap();
    fixture.reopen();
    fixture.volume().end().unwrap();
    fs::write(state(&fixture), backup).unwrap();
    fixture.reopen();
    assert!(fixture.volume().unrecovered().iter().all(|crash| crash.withheld));
    (fixture, contents)
}

/// What was appended for as long as somebody had not said '--restored' could be cut off.
#[test]
fn regression_what_is_appended_while_a_crash_is_withheld_is_sealed() {
    for length in [100_000, LONG] {
        let (mut fixture, contents) = with_a_withheld_crash();
        append(&mut fixture, SIZE, length);
        append(&mut fixture, SIZE + length, 100_000);
        let whole = fs::read(ciphertext(&fixture)).unwrap();
        for size in [SIZE, SIZE + length] {
            cut(&mut fixture, size);
            is_tampered(read(&fixture, "file"));
            fixture.close();
            fs::write(ciphertext(&fixture), &whole).unwrap();
            fixture.reopen();
        }
        fixture.volume().end().unwrap();
        // Consent comes late, and takes nothing away.
        fixture.reopen_with(Options { restored: true, ..Options::default() });
        assert!(fixture.volume().unrecovered().iter().any(|crash| !crash.withheld));
        let expected = [contents, pattern(length, 5), pattern(100_000, 5)].concat();
        assert!(read(&fixture, "file").unwrap() == expected);
        let report = recover(&fixture);
        assert!(report.complete && report.spoiled.is_empty(), "{report:?}");
        assert!(read(&fixture, "file").unwrap() == expected);
    }
}

/// One sector that went bad made the last session look like one that was put back, for ever.
#[test]
fn regression_a_damaged_copy_of_the_record_withholds_nothing() {
    for slot in [0, 1] {
        let (mut fixture, _) = sealed();
        fixture.reopen();
        write(&fixture, "file", 7, b"x").unwrap();
        fixture.volume().end().unwrap();
        let file = OpenOptions::new().write(true).open(state(&fixture)).unwrap();
        let half = file.metadata().unwrap().len() / 2;
        file.write_all_at(&[0; 512], slot * half).unwrap();
        fixture.reopen();
        assert!(fixture.volume().unrecovered().is_empty(), "it ended cleanly");
        assert_eq!(fixture.volume().notice(), None);
        append(&mut fixture, SIZE, 100_000);
        cut(&mut fixture, SIZE);
        is_tampered(read(&fixture, "file"));
    }
}

/// Whoever copies a vault that is mounted reads the record of its sessions first: files that were
/// announced after that are in the copy as they were changed, and nothing in it said that they may be.
#[test]
fn regression_a_copy_of_a_mounted_vault_excuses_what_was_announced_while_it_was_made() {
    let (mut fixture, mut contents) = sealed();
    fixture.reopen();
    let record = fs::read(state(&fixture)).unwrap();
    // A page of an older state beside its tail of a newer one, as a copy catches them.
    let older = fs::read(ciphertext(&fixture)).unwrap();
    let changed = pattern(PAGE, 9);
    write(&fixture, "file", 5 * PAGE as u64, &changed).unwrap();
    contents[5 * PAGE..6 * PAGE].copy_from_slice(&changed);
    let mut torn = fs::read(ciphertext(&fixture)).unwrap();
    let page = usize::try_from(Block(5).data_page().0).unwrap() * PAGE;
    torn[page..page + PAGE].copy_from_slice(&older[page..page + PAGE]);
    fixture.volume().end().unwrap();
    fixture.reopen();
    fixture.volume().end().unwrap();
    fixture.close();
    fs::write(ciphertext(&fixture), &torn).unwrap();
    fs::write(state(&fixture), &record).unwrap();
    fixture.reopen();
    is_tampered(read(&fixture, "file"));
    fixture.volume().end().unwrap();
    fixture.reopen_with(Options { restored: true, ..Options::default() });
    let restored = read(&fixture, "file").unwrap();
    assert!(restored[..5 * PAGE] == contents[..5 * PAGE], "what was not being written");
    assert!(restored[6 * PAGE..] == contents[6 * PAGE..], "what was not being written");
    assert!(recover(&fixture).complete);
    assert_eq!(read(&fixture, "file").unwrap(), restored);
}

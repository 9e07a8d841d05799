//! The size that the kernel goes by, and whoever writes to the vault gives the file another one.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use kmsfs::volume::attr::AttrChange;
use kmsfs::volume::{OpenFor, Origin, ROOT, Result, RewrapJob, VolumeError};

use crate::fixture::{Fixture, caller};

fn backing(fixture: &Fixture, ino: u64) -> PathBuf {
    let all = fixture.backing(|_| true);
    all.into_iter().find(|path| path.symlink_metadata().unwrap().ino() == ino).unwrap()
}

/// Opens a file as the kernel does, and writes.
fn write(fixture: &Fixture, ino: u64, offset: u64, data: &[u8]) -> Result<()> {
    let handle = fixture.volume().open_as(ino, OpenFor::Both, caller())?.handle;
    let written = handle.write(offset, data, Origin::Caller).map(drop);
    fixture.volume().close(handle);
    written
}

fn cut(fixture: &Fixture, ino: u64, size: u64) -> Result<u64> {
    let change = AttrChange { size: Some(size), ..Default::default() };
    fixture.volume().set_attr(ino, &change, caller()).map(|attr| attr.size)
}

/// Nothing of it waits for a sync or a seal any more: what is known of it is forgotten.
fn settle(fixture: &Fixture) {
    for _ in 0..2 {
        fixture.volume().flush(Duration::ZERO).unwrap();
    }
}

/// An append went where the file had ended before, behind zeros that nobody had written.
#[test]
fn regression_nothing_is_added_to_another_state_than_the_kernel_knows() {
    for only_looked_up in [false, true] {
        for (before, after) in [(10_000, 40_000), (3_010_000, 5_000)] {
            let mut fixture = Fixture::new();
            let ino = fixture.file(ROOT, "file", "").unwrap().ino;
            write(&fixture, ino, 0, &vec![1; before]).unwrap();
            settle(&fixture);
            let file = backing(&fixture, ino);
            let old = fs::read(&file).unwrap();
            cut(&fixture, ino, after).unwrap();
            settle(&fixture);
            if only_looked_up {
                fixture.volume().end().unwrap();
                fixture.reopen();
                assert_eq!(fixture.find("file").unwrap(), ino);
            }
            fs::write(&file, &old).unwrap();
            let appended = write(&fixture, ino, after, b"APPENDED");
            assert!(matches!(appended, Err(VolumeError::Stale)), "{appended:?}");
            let extended = cut(&fixture, ino, after + 5000);
            assert!(matches!(extended, Err(VolumeError::Stale)), "{extended:?}");
            // What the kernel does then.
            let found = fixture.volume().lookup(ROOT, b"file").unwrap().unwrap();
            assert_eq!(found.size, before as u64);
            write(&fixture, ino, before as u64, b"APPENDED").unwrap();
            assert_eq!(fixture.volume().attr(ino).unwrap().size, before as u64 + 8);
        }
    }
}

/// What the volume does to a file itself is no surprise to it, whoever else has it open.
#[test]
fn a_size_that_changed_here_is_known() {
    let fixture = Fixture::new();
    let ino = fixture.file(ROOT, "file", "").unwrap().ino;
    for (at, size) in [(0, 100), (90, 5000), (400_000, 70_000)] {
        write(&fixture, ino, at, &vec![1; size]).unwrap();
    }
    for size in [1_000_000, 20_000, 0, 3000] {
        assert_eq!(cut(&fixture, ino, size).unwrap(), size);
        write(&fixture, ino, size, b"more").unwrap();
        settle(&fixture);
        write(&fixture, ino, size + 4, b"more").unwrap();
    }
    let go_on = &mut |_: &_| std::ops::ControlFlow::Continue(());
    fixture.volume().rewrap(RewrapJob::default(), go_on, &mut |_| {}).unwrap();
    write(&fixture, ino, 0, b"more").unwrap();
    std::thread::scope(|scope| {
        for number in 0..4_u64 {
            let fixture = &fixture;
            scope.spawn(move || {
                for round in 0..200 {
                    write(fixture, ino, (round * 4 + number) * 1000, &[7; 1000]).unwrap();
                }
            });
        }
    });
    assert_eq!(fixture.volume().attr(ino).unwrap().size, 800_000);
}

//! The size that the kernel goes by, and whoever writes to the vault gives the file another one.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

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

/// A truncation was noted when its file was closed already, and a look at the file from before that
/// counted after it. The next to open the file was told that somebody had changed the vault.
#[test]
fn regression_what_many_do_to_a_size_at_once_is_nobody_elses_doing() {
    let fixture = Fixture::new();
    let ino = fixture.file(ROOT, "file", "contents").unwrap().ino;
    fixture.find("file").unwrap();
    let volume = fixture.volume();
    // The kernel changes a file in one request at a time, and knows how long it is.
    let (size, stale) = (Mutex::new(8), AtomicUsize::new(0));
    let again = |end: Instant, act: &dyn Fn(u64) -> Result<()>| {
        let mut round = 0;
        while Instant::now() < end {
            round += 1;
            match act(round) {
                Err(VolumeError::Stale) => drop(stale.fetch_add(1, Ordering::Relaxed)),
                done => done.unwrap(),
            }
        }
    };
    let open = |_: u64| {
        volume.close(volume.open_as(ino, OpenFor::Both, caller())?.handle);
        Ok(())
    };
    let append = |round: u64| {
        let handle = volume.open_as(ino, OpenFor::Both, caller())?.handle;
        {
            let mut size = size.lock().unwrap();
            let data = vec![1; 1 + usize::try_from(round % 3000).unwrap()];
            *size += handle.write(*size, &data, Origin::Caller)? as u64;
        }
        volume.close(handle);
        Ok(())
    };
    let cut = |round: u64| {
        let mut size = size.lock().unwrap();
        let to = round * 7919 % 9000;
        *size = cut(&fixture, ino, to)?;
        assert_eq!(*size, to);
        Ok(())
    };
    let look = |_: u64| volume.attr(ino).map(drop);
    let find = |_: u64| fixture.find("file").map(drop);
    let sync = |_: u64| volume.flush(Duration::ZERO);
    let works: [&[&(dyn Fn(u64) -> Result<()> + Sync)]; 5] = [
        &[&cut, &open],
        &[&append, &look],
        &[&append, &find, &sync],
        &[&cut, &append, &look],
        &[&append, &append, &cut, &cut, &look, &find, &open, &sync],
    ];
    for works in works {
        let end = Instant::now() + Duration::from_millis(1500);
        std::thread::scope(|scope| {
            for work in works {
                scope.spawn(move || again(end, &|round| work(round)));
            }
        });
        assert_eq!(volume.attr(ino).unwrap().size, *size.lock().unwrap());
    }
    assert_eq!(stale.load(Ordering::Relaxed), 0);
}

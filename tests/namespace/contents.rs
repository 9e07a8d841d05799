//! What whoever writes to the vault does to the pages of a file, without any crash.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};

use kmsfs::volume::content::{Access, Reserve, SeekTo};
use kmsfs::volume::{Allocate, Options, Origin, Result, VolumeError};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use crate::fixture::{Fixture, ROOT};
use crate::sessions::{
    BLOCKS, PAGE, ciphertext, is_tampered, page, pattern, put_page, read, sealed, write,
};

/// The page of a block of group 0.
fn page_of(block: u64) -> u64 {
    if block == 0 { 0 } else { block + 2 }
}

fn at(block: u64) -> u64 {
    block * PAGE as u64
}

fn read_block(fixture: &Fixture, block: u64) -> Result<usize> {
    let ino = fixture.find("file")?;
    let handle = fixture.volume().open_handle(ino, Access::ReadOnly)?.handle;
    let got = handle.file.read(at(block), &mut [0; PAGE]);
    fixture.volume().close(handle);
    got
}

/// A sealed file of a volume that never crashed, with one page of an earlier version.
fn with_a_page_put_back(block: u64) -> Fixture {
    let (mut fixture, _) = sealed();
    let old = page(&ciphertext(&fixture), page_of(block));
    fixture.reopen();
    write(&fixture, "file", 0, &pattern(BLOCKS * PAGE, 2)).unwrap();
    fixture.volume().end().unwrap();
    put_page(&ciphertext(&fixture), page_of(block), &old);
    fixture.reopen();
    fixture
}

#[test]
fn no_call_that_fails_makes_tampering_an_accident() {
    type Call = fn(&Fixture) -> Result<()>;
    let calls: [(&str, Call); 5] = [
        ("a write that meets the page", |fixture| {
            write(fixture, "file", at(5) + 100, b"ten bytes.")
        }),
        ("a size that no file can have", |fixture| {
            let ino = fixture.find("file")?;
            let handle = fixture.volume().open_handle(ino, Access::ReadWrite)?.handle;
            let cut = handle.file.truncate(u64::MAX / 2);
            fixture.volume().close(handle);
            cut
        }),
        ("a hole that meets the page", |fixture| allocate(fixture, Allocate::Punch, at(5), 100)),
        ("zeros that meet the page", |fixture| {
            allocate(fixture, Allocate::Zero(Reserve::KeepSize), at(5) + 1, 100)
        }),
        ("a cut in the middle of the block", |fixture| {
            let ino = fixture.find("file")?;
            let handle = fixture.volume().open_handle(ino, Access::ReadWrite)?.handle;
            let cut = handle.file.truncate(at(5) + 100);
            fixture.volume().close(handle);
            cut
        }),
    ];
    for (what, call) in calls {
        let mut fixture = with_a_page_put_back(5);
        is_tampered(read_block(&fixture, 5));
        assert!(call(&fixture).is_err(), "{what}");
        is_tampered(read_block(&fixture, 5));
        assert!(read_block(&fixture, 4).is_ok(), "{what}: the other blocks are good");
        fixture.volume().recover(&mut |_| std::ops::ControlFlow::Continue(())).unwrap();
        fixture.volume().end().unwrap();
        fixture.reopen();
        is_tampered(read_block(&fixture, 5));
    }
}

fn allocate(fixture: &Fixture, how: Allocate, offset: u64, length: u64) -> Result<()> {
    let ino = fixture.find("file")?;
    let handle = fixture.volume().open_handle(ino, Access::ReadWrite)?.handle;
    let done = fixture.volume().allocate(&handle, how, offset, length);
    fixture.volume().close(handle);
    done
}

fn seek(fixture: &Fixture, offset: u64, to: SeekTo) -> Result<u64> {
    let ino = fixture.find("file")?;
    let handle = fixture.volume().open_handle(ino, Access::ReadOnly)?.handle;
    let found = fixture.volume().seek(&handle, offset, to);
    fixture.volume().close(handle);
    found
}

/// Programs that copy the data of a sparse file alone would take zeros for it.
#[test]
fn a_page_that_is_cut_out_of_the_vault_is_no_hole() {
    let (mut fixture, _) = sealed();
    fixture.reopen();
    allocate(&fixture, Allocate::Punch, at(10), at(1)).unwrap();
    fixture.volume().end().unwrap();
    let backing = OpenOptions::new().write(true).open(ciphertext(&fixture)).unwrap();
    let cut = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    for block in [11, 20] {
        fallocate(&backing, cut, page_of(block) * PAGE as u64, PAGE as u64).unwrap();
    }
    fixture.reopen();
    assert_eq!(seek(&fixture, 0, SeekTo::Hole).unwrap(), at(10));
    assert_eq!(seek(&fixture, at(10), SeekTo::Data).unwrap(), at(11));
    assert_eq!(seek(&fixture, at(11), SeekTo::Hole).unwrap(), at(BLOCKS as u64));
    assert_eq!(seek(&fixture, at(20), SeekTo::Data).unwrap(), at(20));
    is_tampered(read_block(&fixture, 11));
    is_tampered(read_block(&fixture, 20));
}

/// Holes over many groups are passed over, and what lies between them is found.
#[test]
fn data_between_long_holes_is_found() {
    let mut fixture = Fixture::new();
    fixture.file(ROOT, "file", "").unwrap();
    let far = 40 << 20;
    write(&fixture, "file", 0, &pattern(PAGE, 1)).unwrap();
    write(&fixture, "file", far, &pattern(PAGE, 2)).unwrap();
    write(&fixture, "file", 2 * far, &pattern(PAGE, 3)).unwrap();
    for _ in 0..2 {
        assert_eq!(seek(&fixture, 0, SeekTo::Hole).unwrap(), at(1));
        assert_eq!(seek(&fixture, at(1), SeekTo::Data).unwrap(), far);
        assert_eq!(seek(&fixture, far + 7, SeekTo::Data).unwrap(), far + 7);
        assert_eq!(seek(&fixture, far, SeekTo::Hole).unwrap(), far + at(1));
        assert_eq!(seek(&fixture, far + at(1), SeekTo::Data).unwrap(), 2 * far);
        assert_eq!(seek(&fixture, 2 * far, SeekTo::Hole).unwrap(), 2 * far + at(1));
        let behind = seek(&fixture, 2 * far + at(1), SeekTo::Data);
        assert!(matches!(behind, Err(VolumeError::Io(Errno::NXIO))), "{behind:?}");
        fixture.volume().end().unwrap();
        fixture.reopen();
    }
}

fn read_page(fixture: &Fixture, offset: u64) -> Vec<u8> {
    let ino = fixture.find("file").unwrap();
    let handle = fixture.volume().open_handle(ino, Access::ReadOnly).unwrap().handle;
    let mut bytes = vec![9; PAGE];
    let got = handle.file.read(offset, &mut bytes).unwrap();
    fixture.volume().close(handle);
    bytes.truncate(got);
    bytes
}

/// One call that nobody could interrupt looked at every block of a hole of any length, and four of them
/// kept everybody from the mount for hours.
#[test]
fn regression_a_punch_passes_over_holes_of_any_size() {
    let mut fixture = Fixture::new();
    fixture.file(ROOT, "file", "").unwrap();
    let far = 4 << 40;
    for (count, offset) in [(1, 0), (2, far), (3, 2 * far)] {
        write(&fixture, "file", offset, &pattern(PAGE, count)).unwrap();
    }
    allocate(&fixture, Allocate::Punch, 0, 3 * far).unwrap();
    for _ in 0..2 {
        for offset in [0, far, 2 * far] {
            assert_eq!(read_page(&fixture, offset), vec![0; PAGE], "{offset}");
        }
        assert_eq!(seek(&fixture, 0, SeekTo::Data).unwrap(), 2 * far, "the last block has a page");
        fixture.volume().end().unwrap();
        fixture.reopen();
    }
}

/// Holes get the space that they were asked to have, and stay holes: zeros were written into all of
/// them under one lock.
#[test]
fn regression_zeros_pass_over_holes() {
    let mut fixture = Fixture::new();
    fixture.file(ROOT, "file", "").unwrap();
    let far = 40 << 20;
    write(&fixture, "file", 0, &pattern(PAGE, 1)).unwrap();
    write(&fixture, "file", far, &pattern(3 * PAGE, 2)).unwrap();
    let zero = Allocate::Zero(Reserve::KeepSize);
    allocate(&fixture, zero, 100, far).unwrap();
    for _ in 0..2 {
        let first = read_page(&fixture, 0);
        assert!(
            first.starts_with(&pattern(PAGE, 1)[..100]) && first[100..].iter().all(|b| *b == 0)
        );
        let last = read_page(&fixture, far);
        assert!(last.ends_with(&pattern(PAGE, 2)[100..]) && last[..100].iter().all(|b| *b == 0));
        let backing = File::open(ciphertext(&fixture)).unwrap();
        let mut between = vec![9; 10 * PAGE];
        backing.read_exact_at(&mut between, far / 2).unwrap();
        assert!(between.iter().all(|byte| *byte == 0), "nothing was written there");
        let space = backing.metadata().unwrap().blocks() * 512;
        assert!(space > far, "{space} bytes are reserved");
        fixture.volume().end().unwrap();
        fixture.reopen();
    }
    assert_eq!(read_page(&fixture, far / 2), vec![0; PAGE]);
}

#[test]
fn a_sparse_file_is_not_made_longer_from_outside() {
    let (mut fixture, contents) = sealed();
    fixture.reopen();
    allocate(&fixture, Allocate::Punch, at(10), at(1)).unwrap();
    fixture.volume().end().unwrap();
    let path = ciphertext(&fixture);
    let longer = 2_752_512;
    OpenOptions::new().write(true).open(&path).unwrap().set_len(longer).unwrap();
    for read_only in [true, false] {
        fixture.reopen_with(Options { read_only, ..Options::default() });
        is_tampered(read(&fixture, "file"));
        is_tampered(write_if(&fixture, !read_only));
    }
    let honest = (BLOCKS + 2) * PAGE;
    OpenOptions::new().write(true).open(&path).unwrap().set_len(honest as u64).unwrap();
    fixture.reopen();
    assert_eq!(read(&fixture, "file").unwrap().len(), contents.len());
}

fn write_if(fixture: &Fixture, wanted: bool) -> Result<()> {
    if !wanted {
        return Err(VolumeError::Tampered("not tried"));
    }
    let ino = fixture.find("file")?;
    let handle = fixture.volume().open_handle(ino, Access::ReadWrite)?.handle;
    let written = handle.file.write(0, b"x", Origin::Caller);
    fixture.volume().close(handle);
    written.map(drop)
}

/// The older header of the two would be one with a lower seal, or none.
#[test]
fn a_damaged_header_slot_brings_no_older_seal_back() {
    for slot in 0..2 {
        let (mut fixture, _) = sealed();
        let path = ciphertext(&fixture);
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[0; 512], slot * 512).unwrap();
        file.set_len(12 * PAGE as u64).unwrap();
        fixture.reopen();
        is_tampered(read(&fixture, "file"));
    }
}

/// The spill page says for a while that a block was a hole: a crash may leave it one until the next
/// sync, and not after the seal.
#[test]
fn a_hole_that_was_filled_and_sealed_is_none_after_a_crash() {
    let (mut fixture, _) = sealed();
    fixture.reopen();
    allocate(&fixture, Allocate::Punch, at(10), at(2)).unwrap();
    fixture.volume().end().unwrap();
    fixture.reopen();
    write(&fixture, "file", at(10), &pattern(PAGE, 7)).unwrap();
    fixture.volume().end().unwrap();
    fixture.reopen();
    // Killed while it changes another block.
    write(&fixture, "file", at(20), &pattern(PAGE, 8)).unwrap();
    put_page(&ciphertext(&fixture), page_of(10), &[0; PAGE]);
    fixture.reopen();
    assert!(read_block(&fixture, 11).is_ok(), "that one is a hole still");
    is_tampered(read_block(&fixture, 10));
}

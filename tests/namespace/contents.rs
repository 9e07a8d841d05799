//! What whoever writes to the vault does to the pages of a file, without any crash.

use std::fs::OpenOptions;

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

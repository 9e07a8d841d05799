//! Attributes, times, extended attributes, and a volume that may not change.

use std::ops::ControlFlow;
use std::time::SystemTime;

use kmsfs::keystore::KeyRef;
use kmsfs::volume::attr::{AttrChange, FileKind, NewTime, Timestamp};
use kmsfs::volume::content::Access;
use kmsfs::volume::{OpenFor, Options, Origin, RewrapJob, SetMode, VolumeError};
use rustix::io::Errno;

use crate::fixture::{Fixture, ROOT, caller, new_node};

#[test]
fn sizes_are_those_of_the_plaintext() {
    let mut fixture = Fixture::new();
    for length in [0_usize, 1, 3028, 3029, 4096, 4097] {
        let name = length.to_string();
        let made = fixture.file(ROOT, &name, &"x".repeat(length)).unwrap();
        assert_eq!(fixture.volume().attr(made.ino).unwrap().size, length as u64);
    }
    fixture.reopen();
    for length in [0_u64, 1, 3028, 3029, 4096, 4097] {
        let ino = fixture.find(&length.to_string()).unwrap();
        let attr = fixture.volume().attr(ino).unwrap();
        assert_eq!(attr.size, length);
        assert_eq!(attr.blocks, length.div_ceil(4096) * 8, "blocks of {length}");
    }
}

#[test]
fn regression_a_file_is_made_with_its_sticky_bit() {
    let fixture = Fixture::new();
    for mode in [0o1444, 0o1600, 0o7755] {
        let (name, new) = (mode.to_string(), new_node(mode));
        let made = fixture.volume().create_file(ROOT, name.as_bytes(), &new, OpenFor::Writing);
        let (attr, handle) = made.unwrap();
        fixture.volume().close(handle);
        assert_eq!(u32::from(attr.perm), mode);
        assert_eq!(u32::from(fixture.volume().attr(attr.ino).unwrap().perm), mode);
    }
}

#[test]
fn times_before_1970_are_kept_to_the_nanosecond() {
    let fixture = Fixture::new();
    let ino = fixture.file(ROOT, "f", "").unwrap().ino;
    let (atime, mtime) = (Timestamp { secs: -2, nanos: 1 }, Timestamp { secs: -1, nanos: 999 });
    let change = AttrChange {
        atime: Some(NewTime::At(atime)),
        mtime: Some(NewTime::At(mtime)),
        ..AttrChange::default()
    };
    let attr = fixture.volume().set_attr(ino, &change, caller()).unwrap();
    assert_eq!((attr.atime, attr.mtime), (atime, mtime));
}

#[test]
fn a_truncation_to_the_same_size_is_a_modification() {
    let fixture = Fixture::new();
    let ino = fixture.file(ROOT, "f", "abc").unwrap().ino;
    let old = AttrChange {
        mtime: Some(NewTime::At(Timestamp { secs: 1, nanos: 0 })),
        ..AttrChange::default()
    };
    fixture.volume().set_attr(ino, &old, caller()).unwrap();
    let change = AttrChange { size: Some(3), ..AttrChange::default() };
    let attr = fixture.volume().set_attr(ino, &change, caller()).unwrap();
    assert!(attr.mtime.secs > 1 && attr.size == 3);
}

#[test]
fn fifos_are_made_with_their_mode_less_the_umask() {
    let fixture = Fixture::new();
    let made = fixture.volume().mknod(ROOT, b"p", new_node(0o010_666), 0).unwrap();
    assert_eq!((made.kind, made.perm), (FileKind::Fifo, 0o644));
}

#[test]
fn attributes_of_files_and_directories_are_encrypted_names_and_values() {
    let mut fixture = Fixture::new();
    let file = fixture.file(ROOT, "f", "x").unwrap().ino;
    let dir = fixture.mkdir(ROOT, "d").unwrap().ino;
    for ino in [file, dir] {
        let volume = fixture.volume();
        volume.set_xattr(ino, b"user.colour", b"green", SetMode::Create, caller()).unwrap();
        let again = volume.set_xattr(ino, b"user.colour", b"red", SetMode::Create, caller());
        assert!(matches!(again, Err(VolumeError::Io(Errno::EXIST))));
        let other = volume.set_xattr(ino, b"user.other", b"", SetMode::Replace, caller());
        assert!(matches!(other, Err(VolumeError::Io(Errno::NODATA))));
    }
    fixture.reopen();
    for name in ["f", "d"] {
        let ino = fixture.find(name).unwrap();
        let volume = fixture.volume();
        assert_eq!(volume.xattr(ino, b"user.colour", caller()).unwrap(), b"green");
        assert_eq!(volume.xattr_names(ino, caller()).unwrap(), b"user.colour\0");
        volume.remove_xattr(ino, b"user.colour", caller()).unwrap();
        let gone = volume.xattr(ino, b"user.colour", caller());
        assert!(matches!(gone, Err(VolumeError::Io(Errno::NODATA))));
    }
}

#[test]
fn an_empty_file_can_have_attributes_and_stays_empty() {
    let fixture = Fixture::new();
    let ino = fixture.file(ROOT, "f", "").unwrap().ino;
    let volume = fixture.volume();
    assert!(matches!(volume.xattr(ino, b"user.a", caller()), Err(VolumeError::Io(Errno::NODATA))));
    volume.set_xattr(ino, b"user.a", b"1", SetMode::Any, caller()).unwrap();
    assert_eq!(volume.xattr(ino, b"user.a", caller()).unwrap(), b"1");
    assert_eq!(volume.attr(ino).unwrap().size, 0);
}

/// The header that an empty file gets for its first attribute counted as a change of its contents.
#[test]
fn regression_an_attribute_of_an_empty_file_moves_no_modification_time() {
    let mut fixture = Fixture::new();
    let ino = fixture.file(ROOT, "f", "").unwrap().ino;
    let old = Timestamp { secs: 1_500_000_000, nanos: 123 };
    let change = AttrChange { mtime: Some(NewTime::At(old)), ..AttrChange::default() };
    fixture.volume().set_attr(ino, &change, caller()).unwrap();
    fixture.volume().set_xattr(ino, b"user.note", b"n", SetMode::Any, caller()).unwrap();
    assert_eq!(fixture.volume().attr(ino).unwrap().mtime, old);
    fixture.reopen();
    let ino = fixture.find("f").unwrap();
    assert_eq!(fixture.volume().attr(ino).unwrap().mtime, old);
}

/// The kernel takes capabilities from a file that is written to, and so they went with the next seal or
/// re-wrap.
#[test]
fn regression_capabilities_of_a_file_stay_while_its_header_changes() {
    const NAME: &[u8] = b"security.capability";
    let mut fixture = Fixture::new();
    let options = || Options { suid: true, ..Options::default() };
    fixture.reopen_with(options());
    let new = new_node(0o755);
    let (made, handle) =
        fixture.volume().create_file(ROOT, b"program", &new, OpenFor::Both).unwrap();
    handle.write(0, &vec![7; 20_000], Origin::Caller).unwrap();
    // CAP_NET_RAW, as linux/capability.h has it.
    let capability = [0x0200_0001_u32, 1 << 13, 0, 0, 0].map(u32::to_le_bytes).concat();
    fixture.volume().set_xattr(made.ino, NAME, &capability, SetMode::Any, caller()).unwrap();
    fixture.volume().close(handle);
    let has = |fixture: &Fixture| {
        let ino = fixture.find("program").unwrap();
        fixture.volume().xattr(ino, NAME, caller()).ok()
    };
    fixture.reopen_with(options());
    assert_eq!(has(&fixture).as_ref(), Some(&capability), "after its seal");
    let ino = fixture.find("program").unwrap();
    fixture.volume().set_xattr(ino, b"user.a", b"1", SetMode::Any, caller()).unwrap();
    assert_eq!(has(&fixture).as_ref(), Some(&capability), "after an attribute");
    let key = KeyRef::Id(fixture.key());
    fixture.keystore.rotate_key_on_demand(&key, SystemTime::now()).unwrap();
    let go_on = &mut |_: &_| ControlFlow::Continue(());
    let report = fixture.volume().rewrap(RewrapJob::default(), go_on, &mut |_| {}).unwrap();
    assert!(report.rewrapped > 0 && report.failed.is_empty());
    assert_eq!(has(&fixture).as_ref(), Some(&capability), "after a re-wrap");
    let handle = fixture.volume().open_handle(ino, Access::ReadWrite).unwrap().handle;
    handle.write(0, b"other", Origin::Caller).unwrap();
    fixture.volume().close(handle);
    assert_eq!(has(&fixture), None, "after a change of contents");
}

/// A crash brought the attribute to the disk and not the header with its key: listing it failed.
#[test]
fn regression_an_attribute_without_its_header_is_not_listed() {
    let mut fixture = Fixture::new();
    let ino = fixture.file(ROOT, "f", "").unwrap().ino;
    fixture.volume().set_xattr(ino, b"user.a", b"1", SetMode::Any, caller()).unwrap();
    fixture.close();
    let backing = fixture.backing(|name| !name.starts_with(".kmsfs"));
    let file = backing.iter().find(|path| path.metadata().unwrap().len() == 4096).unwrap();
    std::fs::File::options().write(true).open(file).unwrap().set_len(0).unwrap();
    fixture.reopen();
    let (volume, ino) = (fixture.volume(), fixture.find("f").unwrap());
    assert_eq!(volume.xattr_names(ino, caller()).unwrap(), b"");
    let lost = volume.xattr(ino, b"user.a", caller());
    assert!(matches!(lost, Err(VolumeError::Io(Errno::NODATA))));
    volume.set_xattr(ino, b"user.b", b"2", SetMode::Create, caller()).unwrap();
    assert_eq!(volume.xattr_names(ino, caller()).unwrap(), b"user.b\0");
}

#[test]
fn the_vaults_own_attributes_are_not_shown() {
    let fixture = Fixture::new();
    assert!(fixture.volume().xattr_names(ROOT, caller()).unwrap().is_empty());
    let own = fixture.volume().xattr(ROOT, b"user.kmsfs.dir", caller());
    assert!(matches!(own, Err(VolumeError::Io(Errno::NODATA))));
}

#[test]
fn a_read_only_volume_refuses_every_change() {
    let mut fixture = Fixture::new();
    let dir = fixture.mkdir(ROOT, "d").unwrap().ino;
    fixture.file(dir, "f", "kept").unwrap();
    fixture.reopen_with(Options { read_only: true, ..Options::default() });
    let (volume, ino) = (fixture.volume(), fixture.find("d/f").unwrap());
    let change = AttrChange { mode: Some(0), ..AttrChange::default() };
    let refusals = [
        fixture.mkdir(ROOT, "n").map(drop),
        fixture.file(ROOT, "n", "").map(drop),
        volume.symlink(ROOT, b"n", b"t", caller()).map(drop),
        volume.link(ino, ROOT, b"n").map(drop),
        volume.unlink(dir, b"f"),
        volume.rmdir(ROOT, b"d"),
        volume.set_attr(ino, &change, caller()).map(drop),
        volume.set_xattr(ino, b"user.a", b"", SetMode::Any, caller()),
        volume.open_handle(ino, Access::ReadWrite).map(drop),
    ];
    for (at, refusal) in refusals.iter().enumerate() {
        assert!(matches!(refusal, Err(VolumeError::ReadOnly)), "{at}: {refusal:?}");
    }
    assert_eq!(fixture.contents(ino), "kept");
}

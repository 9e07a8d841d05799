//! Inodes that are asked for by number, as file handles do, after the kernel has forgotten them.

use kmsfs::volume::{Options, RenameHow, VolumeError};

use crate::fixture::{Fixture, ROOT};

const PLAIN: RenameHow = RenameHow { no_replace: false, exchange: false, whiteout: false };

fn exporting() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.reopen_with(Options { export: true, ..Options::default() });
    fixture
}

/// The number of what is found, and its generation.
fn find(fixture: &Fixture, ino: u64) -> Option<(u64, u64)> {
    let found = fixture.volume().find_numbers(&[ino], || true);
    found.get(&ino).map(|attr| (attr.ino, attr.generation))
}

#[test]
fn what_the_kernel_has_forgotten_is_found_by_its_number_and_can_be_used() {
    let mut fixture = exporting();
    let outer = fixture.mkdir(ROOT, "outer").unwrap().ino;
    let inner = fixture.mkdir(outer, "inner").unwrap();
    let file = fixture.file(inner.ino, "file", "contents").unwrap();
    let (volume, known) = (fixture.volume(), (file.ino, file.generation));
    assert_eq!(volume.look_up_number(file.ino).unwrap().map(|attr| attr.ino), Some(file.ino));
    // Its directories are forgotten first, as the kernel may do with what a handle has led to.
    volume.forget(inner.ino, 1);
    volume.forget(outer, 1);
    assert_eq!(fixture.contents(file.ino), "contents");
    assert_eq!(volume.look_up_parent(file.ino).unwrap().ino, inner.ino);
    assert_eq!(volume.look_up_parent(inner.ino).unwrap().ino, outer);
    assert_eq!(volume.look_up_parent(outer).unwrap().ino, ROOT);
    volume.forget(file.ino, 2);
    assert!(volume.look_up_number(file.ino).unwrap().is_none());
    assert_eq!(find(&fixture, file.ino), Some(known));
    assert_eq!(fixture.contents(file.ino), "contents");

    fixture.reopen_with(Options { export: true, ..Options::default() });
    assert_eq!(find(&fixture, file.ino), Some(known), "of another mount");
    assert_eq!(find(&fixture, inner.ino), Some((inner.ino, inner.generation)));
    assert_eq!(fixture.contents(file.ino), "contents");
    let found = fixture.volume().look_up_number(ROOT).unwrap().unwrap();
    assert_eq!((found.ino, found.generation), (ROOT, 0));
    assert_eq!(find(&fixture, 1 << 40), None);
}

#[test]
fn what_was_removed_is_found_no_more_and_nothing_is_kept_of_it() {
    let fixture = exporting();
    let volume = fixture.volume();
    let before = volume.known_inodes();
    let dir = fixture.mkdir(ROOT, "dir").unwrap().ino;
    let moved = fixture.mkdir(ROOT, "moved").unwrap().ino;
    let file = fixture.file(dir, "file", "contents").unwrap();
    volume.forget(moved, 1);
    fixture.rename((ROOT, "moved"), (dir, "moved"), PLAIN).unwrap();
    volume.unlink(dir, b"file").unwrap();
    assert!(matches!(volume.look_up_number(file.ino), Err(VolumeError::Stale)), "it has no name");
    volume.forget(file.ino, 1);
    assert_eq!(find(&fixture, file.ino), None);
    // As the kernel does it: what is removed was looked up.
    volume.lookup(dir, b"moved").unwrap().unwrap();
    volume.rmdir(dir, b"moved").unwrap();
    volume.forget(moved, 1);
    volume.rmdir(ROOT, b"dir").unwrap();
    volume.forget(dir, 1);
    assert_eq!(volume.known_inodes(), before);
}

#[test]
fn the_next_inode_of_a_number_has_another_generation() {
    let fixture = exporting();
    let volume = fixture.volume();
    let old = fixture.file(ROOT, "file", "old").unwrap();
    volume.unlink(ROOT, b"file").unwrap();
    volume.forget(old.ino, 1);
    let new = (0..200).map(|i| fixture.file(ROOT, &format!("new{i}"), "new").unwrap());
    match new.into_iter().find(|new| new.ino == old.ino) {
        Some(new) => assert_ne!(new.generation, old.generation),
        None => println!("this filesystem does not use the number again"),
    }
}

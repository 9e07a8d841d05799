//! Removing and replacing what is in use, and what is not empty.

use kmsfs::volume::attr::AttrChange;
use kmsfs::volume::backing::Durability;
use kmsfs::volume::content::Access;
use kmsfs::volume::{Origin, RenameHow, SetMode, VolumeError};
use rustix::io::Errno;

use crate::fixture::{Fixture, REPLACE, ROOT, caller};

const EXCHANGE: RenameHow = RenameHow { no_replace: false, exchange: true, whiteout: false };
const NO_REPLACE: RenameHow = RenameHow { no_replace: true, exchange: false, whiteout: false };

#[test]
fn an_unlinked_file_that_is_known_can_still_be_used_by_its_inode() {
    let fixture = Fixture::new();
    let volume = fixture.volume();
    let ino = fixture.file(ROOT, "f", "contents").unwrap().ino;
    volume.unlink(ROOT, b"f").unwrap();
    assert_eq!(volume.attr(ino).unwrap().nlink, 0);
    let change = AttrChange { mode: Some(0o600), ..AttrChange::default() };
    assert_eq!(volume.set_attr(ino, &change, caller()).unwrap().perm, 0o600);
    volume.set_xattr(ino, b"user.a", b"value", SetMode::Any, caller()).unwrap();
    assert_eq!(volume.xattr(ino, b"user.a", caller()).unwrap(), b"value");
    assert_eq!(fixture.contents(ino), "contents");
    volume.forget(ino, 1);
    assert!(matches!(volume.attr(ino), Err(VolumeError::Stale)));
}

#[test]
fn a_removed_directory_that_is_known_has_attributes_and_no_entries() {
    let fixture = Fixture::new();
    let ino = fixture.mkdir(ROOT, "d").unwrap().ino;
    fixture.volume().rmdir(ROOT, b"d").unwrap();
    fixture.volume().attr(ino).unwrap();
    fixture.volume().sync_dir(ino, Durability::Everything).unwrap();
    let made = fixture.file(ino, "f", "");
    assert!(made.is_err(), "{made:?}");
}

#[test]
fn an_unlinked_inode_number_is_not_used_again_while_it_is_known() {
    let fixture = Fixture::new();
    let ino = fixture.file(ROOT, "f", "").unwrap().ino;
    fixture.volume().unlink(ROOT, b"f").unwrap();
    for i in 0..50 {
        assert_ne!(fixture.file(ROOT, &i.to_string(), "").unwrap().ino, ino);
    }
}

#[test]
fn only_an_empty_directory_is_removed_and_a_refusal_leaves_it_whole() {
    let fixture = Fixture::new();
    let dir = fixture.mkdir(ROOT, "d").unwrap();
    fixture.file(dir.ino, "f", "").unwrap();
    assert!(matches!(fixture.volume().rmdir(ROOT, b"d"), Err(VolumeError::NotEmpty)));
    assert_eq!(fixture.list(dir.ino), ["f"]);
    fixture.volume().unlink(dir.ino, b"f").unwrap();
    fixture.volume().rmdir(ROOT, b"d").unwrap();
    assert!(fixture.list(ROOT).is_empty());
}

#[test]
fn a_directory_replaces_an_empty_one_and_no_other() {
    let fixture = Fixture::new();
    let full = fixture.mkdir(ROOT, "full").unwrap();
    fixture.file(full.ino, "f", "").unwrap();
    fixture.mkdir(ROOT, "empty").unwrap();
    fixture.rename((ROOT, "full"), (ROOT, "empty"), REPLACE).unwrap();
    assert_eq!(fixture.list(ROOT), ["empty"]);
    assert_eq!(fixture.list(full.ino), ["f"]);

    fixture.mkdir(ROOT, "other").unwrap();
    let refused = fixture.rename((ROOT, "other"), (ROOT, "empty"), REPLACE);
    assert!(matches!(refused, Err(VolumeError::NotEmpty)));
    assert_eq!(fixture.list(full.ino), ["f"]);
}

#[test]
fn the_two_ends_of_an_exchange_are_found_under_each_others_names() {
    let fixture = Fixture::new();
    let dir = fixture.mkdir(ROOT, "d").unwrap();
    let (one, long) = ("1".to_owned(), "2".repeat(200));
    let first = fixture.file(ROOT, &one, "first").unwrap().ino;
    let second = fixture.file(dir.ino, &long, "second").unwrap().ino;
    fixture.rename((ROOT, &one), (dir.ino, &long), EXCHANGE).unwrap();
    assert_eq!(fixture.find(&one).unwrap(), second);
    assert_eq!(fixture.find(&format!("d/{long}")).unwrap(), first);
    assert_eq!(
        (fixture.contents(first), fixture.contents(second)),
        ("first".into(), "second".into())
    );
    let missing = fixture.rename((ROOT, &one), (ROOT, "missing"), EXCHANGE);
    assert!(matches!(missing, Err(VolumeError::NotFound)));
}

#[test]
fn a_taken_name_is_not_replaced_when_that_is_asked() {
    let fixture = Fixture::new();
    fixture.file(ROOT, "a", "a").unwrap();
    let ino = fixture.file(ROOT, "b", "b").unwrap().ino;
    let refused = fixture.rename((ROOT, "a"), (ROOT, "b"), NO_REPLACE);
    assert!(matches!(refused, Err(VolumeError::Io(Errno::EXIST))));
    assert_eq!(fixture.contents(ino), "b");
}

#[test]
fn renaming_one_name_of_a_file_to_its_other_changes_nothing() {
    let fixture = Fixture::new();
    let ino = fixture.file(ROOT, "a", "x").unwrap().ino;
    fixture.volume().link(ino, ROOT, b"b").unwrap();
    fixture.rename((ROOT, "a"), (ROOT, "b"), REPLACE).unwrap();
    assert_eq!(fixture.list(ROOT), ["a", "b"]);
    assert_eq!(fixture.volume().attr(ino).unwrap().nlink, 2);
}

#[test]
fn a_file_that_is_replaced_while_open_keeps_its_contents() {
    let fixture = Fixture::new();
    let volume = fixture.volume();
    let old = fixture.file(ROOT, "old", "old").unwrap().ino;
    fixture.file(ROOT, "new", "new").unwrap();
    let opened = volume.open_handle(old, Access::ReadWrite).unwrap();
    fixture.rename((ROOT, "new"), (ROOT, "old"), REPLACE).unwrap();
    opened.handle.file.write(3, b"er", Origin::Caller).unwrap();
    assert_eq!(fixture.contents(old), "older");
    volume.close(opened.handle);
    assert_eq!(fixture.contents(fixture.find("old").unwrap()), "new");
}

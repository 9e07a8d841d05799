//! What policies and grants of the keystore let users do with files.

use std::time::{Duration, SystemTime};

use kmsfs::id::KeyId;
use kmsfs::keystore::{CreateGrant, GrantOperation, KeyRef, LockoutCheck};
use kmsfs::volume::{Caller, OpenFor, Origin, ROOT, RenameHow, Result, SetMode, VolumeError};

use crate::fixture::{Fixture, caller, new_node};

const ANN: u32 = 61_001;
const BOB: u32 = 61_002;

#[test]
fn who_is_not_named_is_refused_everything_that_needs_a_key() {
    let fixture = Fixture::new();
    let ino = fixture.file(ROOT, "file", "contents").unwrap().ino;
    let empty = fixture.file(ROOT, "empty", "").unwrap().ino;
    allow(&fixture, fixture.key(), &[ANN]);
    let volume = fixture.volume();
    open(&fixture, ino, ANN).unwrap();
    let denied: [(&str, Result<()>); 6] = [
        ("open", open(&fixture, ino, BOB)),
        ("open an empty file", open(&fixture, empty, BOB)),
        ("write an empty file", {
            volume.open_as(empty, OpenFor::Both, user(BOB)).map(|open| volume.close(open.handle))
        }),
        ("create", {
            let new = kmsfs::volume::NewNode { caller: user(BOB), ..new_node(0o644) };
            volume.create_file(ROOT, b"new", &new, OpenFor::Both).map(|made| volume.close(made.1))
        }),
        ("truncate", {
            let change = kmsfs::volume::attr::AttrChange { size: Some(1), ..Default::default() };
            volume.set_attr(ino, &change, user(BOB)).map(drop)
        }),
        ("attribute", volume.set_xattr(ino, b"user.a", b"1", SetMode::Any, user(BOB))),
    ];
    for (what, result) in denied {
        assert!(matches!(result, Err(VolumeError::Denied(_))), "{what}: {result:?}");
    }
    assert_eq!(fixture.contents(ino), "contents", "the owner of the volume is not bound");
    assert!(fixture.list(ROOT).contains(&"file".to_owned()));
    assert!(!fixture.list(ROOT).contains(&"new".to_owned()), "nothing was made");
}

#[test]
fn an_open_handle_lives_as_long_as_its_permission() {
    let fixture = Fixture::new();
    let ino = fixture.file(ROOT, "file", "contents").unwrap().ino;
    allow(&fixture, fixture.key(), &[ANN]);
    let key = KeyRef::Id(fixture.key());
    let made = fixture.keystore.create_grant(&key, &grant(None), SystemTime::now()).unwrap();
    let volume = fixture.volume();
    let ann = volume.open_as(ino, OpenFor::Reading, user(ANN)).unwrap().handle;
    let bob = volume.open_as(ino, OpenFor::Reading, user(BOB)).unwrap().handle;
    volume.watch_keys();
    bob.check().unwrap();
    fixture.keystore.revoke_grant(&key, made.id).unwrap();
    volume.watch_keys();
    assert!(matches!(bob.check(), Err(VolumeError::Denied(_))));
    ann.check().unwrap();
    fixture.keystore.create_grant(&key, &grant(None), SystemTime::now()).unwrap();
    volume.watch_keys();
    bob.check().unwrap();
    volume.close(ann);
    volume.close(bob);
}

#[test]
fn a_grant_ends_on_its_date() {
    let fixture = Fixture::new();
    let ino = fixture.file(ROOT, "file", "contents").unwrap().ino;
    allow(&fixture, fixture.key(), &[ANN]);
    let key = KeyRef::Id(fixture.key());
    let end = SystemTime::now() + Duration::from_secs(2);
    fixture.keystore.create_grant(&key, &grant(Some(end)), SystemTime::now()).unwrap();
    let volume = fixture.volume();
    let bob = volume.open_as(ino, OpenFor::Reading, user(BOB)).unwrap().handle;
    volume.watch_keys();
    bob.check().unwrap();
    std::thread::sleep(Duration::from_secs(3));
    volume.watch_keys();
    assert!(matches!(bob.check(), Err(VolumeError::Denied(_))));
    volume.close(bob);
}

#[test]
fn a_move_to_another_key_takes_the_permissions_of_reencrypt() {
    let fixture = Fixture::new();
    let other = fixture.new_key();
    let dir = fixture.mkdir(ROOT, "dir").unwrap().ino;
    fixture.volume().set_dir_policy(dir, other, None).unwrap();
    let ino = fixture.file(ROOT, "file", "contents").unwrap().ino;
    allow(&fixture, fixture.key(), &[ANN]);
    let volume = fixture.volume();
    let moved =
        |uid| volume.rename((ROOT, b"file"), (dir, b"file"), RenameHow::default(), user(uid));
    assert!(matches!(moved(BOB), Err(VolumeError::Denied(_))));
    moved(ANN).unwrap();
    open(&fixture, ino, BOB).unwrap();
}

/// The first write made a key of the directory that the empty file had come into, for a user who is
/// denied it: he was asked about the key of the one that it was opened in.
#[test]
fn regression_first_contents_take_the_permission_for_the_key_that_they_get() {
    let fixture = Fixture::new();
    let strict = fixture.new_key();
    let dir = fixture.mkdir(ROOT, "dir").unwrap().ino;
    fixture.volume().set_dir_policy(dir, strict, None).unwrap();
    let volume = fixture.volume();
    let made = |uid, name: &str| {
        let new = kmsfs::volume::NewNode { caller: user(uid), ..new_node(0o644) };
        let made = volume.create_file(ROOT, name.as_bytes(), &new, OpenFor::Both).unwrap();
        let ends = ((ROOT, name.as_bytes()), (dir, name.as_bytes()));
        volume.rename(ends.0, ends.1, RenameHow::default(), user(uid)).unwrap();
        made
    };
    let handles = [(made(BOB, "bobs"), false), (made(ANN, "anns"), true)];
    allow(&fixture, strict, &[ANN]);
    for ((attr, handle), may) in handles {
        let written = handle.write(0, b"contents", Origin::Caller);
        assert_eq!(written.is_ok(), may, "{written:?}");
        assert!(may || matches!(written, Err(VolumeError::Denied(key)) if key == strict));
        volume.close(handle);
        assert_eq!(fixture.contents(attr.ino), if may { "contents" } else { "" });
    }
}

/// Moving an empty file took nothing: who is denied a key moved one away from under it that somebody
/// was about to write, or had one open that was moved there, and read what was written.
#[test]
fn regression_an_open_empty_file_moves_to_no_key_behind_its_policy() {
    let fixture = Fixture::new();
    let strict = fixture.new_key();
    let dir = fixture.mkdir(ROOT, "dir").unwrap().ino;
    fixture.volume().set_dir_policy(dir, strict, None).unwrap();
    allow(&fixture, strict, &[ANN]);
    let volume = fixture.volume();
    let move_as = |uid, from: (u64, &[u8]), to: (u64, &[u8])| {
        volume.rename(from, to, RenameHow::default(), user(uid))
    };
    let new = kmsfs::volume::NewNode { caller: user(ANN), ..new_node(0o644) };
    let (_, anns) = volume.create_file(dir, b"anns", &new, OpenFor::Writing).unwrap();
    let moved = move_as(BOB, (dir, b"anns"), (ROOT, b"anns"));
    assert!(matches!(moved, Err(VolumeError::Denied(_))), "{moved:?}");
    move_as(ANN, (dir, b"anns"), (ROOT, b"anns")).unwrap();
    volume.close(anns);

    let ino = fixture.file(ROOT, "empty", "").unwrap().ino;
    let bobs = volume.open_as(ino, OpenFor::Reading, user(BOB)).unwrap().handle;
    let moved = move_as(ANN, (ROOT, b"empty"), (dir, b"empty"));
    assert!(matches!(moved, Err(VolumeError::CrossPolicy)), "{moved:?}");
    volume.close(bobs);
    move_as(ANN, (ROOT, b"empty"), (dir, b"empty")).unwrap();
}

/// A file that had had a key once passed for one with contents, for which the move would be asked
/// about later: who is denied the key of a directory moved his open file there, and read what others
/// wrote into it.
#[test]
fn regression_a_file_that_was_cut_to_nothing_moves_to_no_key_behind_its_policy() {
    let fixture = Fixture::new();
    let strict = fixture.new_key();
    let dir = fixture.mkdir(ROOT, "dir").unwrap().ino;
    fixture.volume().set_dir_policy(dir, strict, None).unwrap();
    allow(&fixture, strict, &[ANN]);
    let volume = fixture.volume();
    let move_as = |uid, name: &str| {
        let name = name.as_bytes();
        volume.rename((ROOT, name), (dir, name), RenameHow::default(), user(uid))
    };
    for (name, cut) in [("cut", true), ("full", false)] {
        let new = kmsfs::volume::NewNode { caller: user(BOB), ..new_node(0o644) };
        let (_, bobs) = volume.create_file(ROOT, name.as_bytes(), &new, OpenFor::Both).unwrap();
        bobs.write(0, b"x", Origin::Caller).unwrap();
        if cut {
            bobs.file.truncate(0).unwrap();
        }
        let moved = move_as(ANN, name);
        assert!(matches!(moved, Err(VolumeError::CrossPolicy)), "{name}: {moved:?}");
        volume.close(bobs);
        let moved = move_as(BOB, name);
        assert!(matches!(moved, Err(VolumeError::Denied(_))), "{name}: {moved:?}");
        move_as(ANN, name).unwrap();
    }
}

/// Who has a file open was asked about the key that it had, and is asked about the one that it gets
/// after a cut to nothing.
#[test]
fn who_had_a_file_open_before_it_got_another_key_is_asked_again() {
    let fixture = Fixture::new();
    let strict = fixture.new_key();
    let dir = fixture.mkdir(ROOT, "dir").unwrap().ino;
    let ino = fixture.file(dir, "file", "contents").unwrap().ino;
    let (volume, kernel) = (fixture.volume(), fixture.kernel());
    let open = |uid, wanted| volume.open_as(ino, wanted, user(uid)).unwrap().handle;
    let (bob, ann) = (open(BOB, OpenFor::Reading), open(ANN, OpenFor::Writing));
    bob.check().unwrap();
    ann.file.truncate(0).unwrap();
    allow(&fixture, strict, &[ANN]);
    volume.set_dir_policy(dir, strict, None).unwrap();
    bob.check().unwrap();
    kernel.take();
    ann.write(0, b"secret", Origin::Caller).unwrap();
    volume.watch_keys();
    assert!(kernel.take().contains(&ino));
    assert!(matches!(bob.check(), Err(VolumeError::Denied(_))));
    volume.close(bob);
    volume.close(ann);
}

/// The handle was asked for GenerateDataKey only, for its whole life, and read what others wrote.
#[test]
fn regression_a_handle_on_an_empty_file_reads_only_with_decrypt() {
    let fixture = Fixture::new();
    let empty = fixture.file(ROOT, "empty", "").unwrap().ino;
    allow(&fixture, fixture.key(), &[ANN]);
    let grant = CreateGrant { operations: vec![GrantOperation::GenerateDataKey], ..grant(None) };
    let key = KeyRef::Id(fixture.key());
    fixture.keystore.create_grant(&key, &grant, SystemTime::now()).unwrap();
    let volume = fixture.volume();
    volume.watch_keys();
    let opened = |wanted| volume.open_as(empty, wanted, user(BOB)).map(|opened| opened.handle);
    assert!(matches!(opened(OpenFor::Both), Err(VolumeError::Denied(_))));
    let handle = opened(OpenFor::Writing).unwrap();
    handle.file.write(0, b"contents", Origin::Caller).unwrap();
    handle.check().unwrap();
    volume.close(handle);
    let new = kmsfs::volume::NewNode { caller: user(BOB), ..new_node(0o644) };
    let made = |name: &[u8], wanted| volume.create_file(ROOT, name, &new, wanted);
    assert!(matches!(made(b"a", OpenFor::Both), Err(VolumeError::Denied(_))));
    volume.close(made(b"b", OpenFor::Writing).unwrap().1);
}

/// Who had lost Decrypt since the open wrote the first contents, through a handle that reads them.
#[test]
fn regression_first_contents_through_a_handle_that_reads_take_decrypt_as_well() {
    let fixture = Fixture::new();
    let empty = fixture.file(ROOT, "empty", "").unwrap().ino;
    allow(&fixture, fixture.key(), &[ANN]);
    let key = KeyRef::Id(fixture.key());
    let make = CreateGrant { operations: vec![GrantOperation::GenerateDataKey], ..grant(None) };
    fixture.keystore.create_grant(&key, &make, SystemTime::now()).unwrap();
    let read = fixture.keystore.create_grant(&key, &grant(None), SystemTime::now()).unwrap();
    let volume = fixture.volume();
    volume.watch_keys();
    let open = |wanted| volume.open_as(empty, wanted, user(BOB)).unwrap().handle;
    let (both, writing) = (open(OpenFor::Both), open(OpenFor::Writing));
    fixture.keystore.revoke_grant(&key, read.id).unwrap();
    volume.watch_keys();
    let refused = both.write(0, b"contents", Origin::Caller);
    assert!(matches!(refused, Err(VolumeError::Denied(_))), "{refused:?}");
    assert_eq!(fixture.contents(empty), "");
    writing.write(0, b"contents", Origin::Caller).unwrap();
    volume.close(both);
    volume.close(writing);
}

/// Nothing was asked for while there was nothing in it, and the kernel's cache then showed the first
/// contents to whoever had it open.
#[test]
fn regression_first_contents_are_kept_from_who_opened_the_file_when_it_was_empty() {
    let fixture = Fixture::new();
    let empty = fixture.file(ROOT, "empty", "").unwrap().ino;
    allow(&fixture, fixture.key(), &[ANN]);
    assert!(matches!(open(&fixture, empty, BOB), Err(VolumeError::Denied(_))));
    let key = KeyRef::Id(fixture.key());
    let made = fixture.keystore.create_grant(&key, &grant(None), SystemTime::now()).unwrap();
    let (volume, kernel) = (fixture.volume(), fixture.kernel());
    volume.watch_keys();
    let bob = volume.open_as(empty, OpenFor::Reading, user(BOB)).unwrap().handle;
    fixture.keystore.revoke_grant(&key, made.id).unwrap();
    volume.watch_keys();
    assert_eq!(kernel.take(), [0_u64; 0], "there is nothing to be kept from anybody");
    let ann = volume.open_as(empty, OpenFor::Writing, user(ANN)).unwrap().handle;
    ann.file.write(0, b"secret", Origin::Caller).unwrap();
    volume.watch_keys();
    assert_eq!(kernel.take(), [empty]);
    assert!(matches!(bob.check(), Err(VolumeError::Denied(_))));
    ann.check().unwrap();
    volume.close(bob);
    volume.close(ann);
}

/// The next contents got a new data key, which nobody had been asked about.
#[test]
fn regression_cutting_a_file_to_nothing_takes_the_permission_for_a_new_key() {
    let fixture = Fixture::new();
    let ino = fixture.file(ROOT, "file", "contents").unwrap().ino;
    let with_note = fixture.file(ROOT, "with a note", "contents").unwrap().ino;
    let volume = fixture.volume();
    volume.set_xattr(with_note, b"user.note", b"1", SetMode::Any, caller()).unwrap();
    allow(&fixture, fixture.key(), &[ANN]);
    let key = KeyRef::Id(fixture.key());
    fixture.keystore.create_grant(&key, &grant(None), SystemTime::now()).unwrap();
    volume.watch_keys();
    let cut = |ino, uid, size| {
        let change = kmsfs::volume::attr::AttrChange { size: Some(size), ..Default::default() };
        volume.set_attr(ino, &change, user(uid)).map(|attr| attr.size)
    };
    assert!(matches!(cut(ino, BOB, 0), Err(VolumeError::Denied(_))));
    assert_eq!(fixture.contents(ino), "contents");
    assert_eq!(cut(ino, BOB, 3).unwrap(), 3);
    assert_eq!(cut(with_note, BOB, 0).unwrap(), 0, "it keeps its key, for its attributes");
    assert_eq!(cut(ino, ANN, 0).unwrap(), 0);
}

fn open(fixture: &Fixture, ino: u64, uid: u32) -> Result<()> {
    let volume = fixture.volume();
    volume.open_as(ino, OpenFor::Reading, user(uid)).map(|open| volume.close(open.handle))
}

fn user(uid: u32) -> Caller {
    Caller { uid, ..caller() }
}

fn arn(uid: u32) -> String {
    format!("arn:aws:iam::000000000000:user/unix/{uid}")
}

/// Lets these users of mounts use a key, and nobody else.
fn allow(fixture: &Fixture, key: KeyId, users: &[u32]) {
    let users: Vec<String> = users.iter().map(|uid| format!("{:?}", arn(*uid))).collect();
    let policy = format!(
        r#"{{"Version":"2012-10-17","Statement":[
            {{"Effect":"Allow","Principal":{{"AWS":"arn:aws:iam::000000000000:root"}},
              "Action":"kms:*","Resource":"*"}},
            {{"Effect":"Allow","Principal":{{"AWS":[{}]}},"Resource":"*",
              "Action":["kms:Decrypt","kms:GenerateDataKey","kms:ReEncrypt*"],
              "Condition":{{"StringEquals":{{"kms:ViaService":"kmsfs"}}}}}}]}}"#,
        users.join(",")
    );
    fixture.keystore.put_key_policy(&KeyRef::Id(key), &policy, LockoutCheck::Enforced).unwrap();
    fixture.volume().watch_keys();
}

/// Lets Bob read.
fn grant(expires: Option<SystemTime>) -> CreateGrant {
    CreateGrant {
        grantee: arn(BOB),
        retiring: None,
        operations: vec![GrantOperation::Decrypt],
        constraints: Default::default(),
        name: None,
        expires,
    }
}

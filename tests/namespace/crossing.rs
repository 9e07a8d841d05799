//! Files that move between directories of different keys: whatever happens, what was written can be
//! read after a remount.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::SystemTime;

use kmsfs::envelope::CrossMode;
use kmsfs::id::KeyId;
use kmsfs::keystore::KeyRef;
use kmsfs::volume::content::Access;
use kmsfs::volume::{OpenFor, Origin, ROOT, RewrapJob, RewrapReport, Strangers, VolumeError};

use crate::fixture::{Fixture, REPLACE, new_node};

/// A directory whose files are under `key`.
fn dir(fixture: &Fixture, name: &str, key: KeyId, cross: CrossMode) -> u64 {
    let ino = fixture.mkdir(ROOT, name).unwrap().ino;
    fixture.volume().set_dir_policy(ino, key, Some(cross)).unwrap();
    ino
}

fn read_again(fixture: &mut Fixture, path: &str) -> String {
    fixture.reopen();
    fixture.contents(fixture.find(path).unwrap())
}

fn run(fixture: &Fixture, job: RewrapJob) -> RewrapReport {
    let go_on = &mut |_: &_| std::ops::ControlFlow::Continue(());
    fixture.volume().rewrap(job, go_on, &mut |_| {}).unwrap()
}

/// The backing path of an inode.
fn by_inode(fixture: &Fixture, ino: u64) -> PathBuf {
    let all = fixture.backing(|_| true);
    all.into_iter().find(|path| path.symlink_metadata().unwrap().ino() == ino).unwrap()
}

fn rewrap(fixture: &Fixture, from: Option<KeyId>, to: Option<KeyId>) {
    let report = run(fixture, RewrapJob { from, to, ..RewrapJob::default() });
    assert!(report.complete && report.failed.is_empty(), "{report:?}");
}

#[test]
fn a_file_moves_between_keys_in_every_mode() {
    let mut fixture = Fixture::new();
    let other = fixture.new_key();
    let rewraps = dir(&fixture, "rewraps", other, CrossMode::Rewrap);
    let keeps = dir(&fixture, "keeps", other, CrossMode::Keep);
    let exdev = dir(&fixture, "exdev", other, CrossMode::Exdev);
    for name in ["a", "b", "c"] {
        fixture.file(ROOT, name, name).unwrap();
    }
    fixture.rename((ROOT, "a"), (rewraps, "a"), REPLACE).unwrap();
    fixture.rename((ROOT, "b"), (keeps, "b"), REPLACE).unwrap();
    let refused = fixture.rename((ROOT, "c"), (exdev, "c"), REPLACE);
    assert!(matches!(refused, Err(VolumeError::CrossPolicy)));
    for (path, contents) in [("rewraps/a", "a"), ("keeps/b", "b"), ("c", "c")] {
        assert_eq!(read_again(&mut fixture, path), contents);
    }
}

/// It was made under the key of the directory that it was opened in, which the one that it had
/// moved to does not accept.
#[test]
fn regression_an_open_empty_file_gets_the_key_of_the_directory_it_moved_to() {
    for cross in [CrossMode::Rewrap, CrossMode::Keep] {
        let mut fixture = Fixture::new();
        let other = fixture.new_key();
        let there = dir(&fixture, "there", other, cross);
        let new = new_node(0o644);
        let made = fixture.volume().create_file(ROOT, b"log", &new, OpenFor::Both).unwrap();
        fixture.rename((ROOT, "log"), (there, "log"), REPLACE).unwrap();
        made.1.file.write(0, b"line", Origin::Caller).unwrap();
        fixture.volume().close(made.1);
        assert_eq!(read_again(&mut fixture, "there/log"), "line");
    }
}

/// A re-wrap reported success, and the first write came under the key that was given up.
#[test]
fn regression_an_open_empty_file_follows_a_rewrap_to_another_key() {
    let mut fixture = Fixture::new();
    let (old, new) = (fixture.new_key(), fixture.new_key());
    let there = dir(&fixture, "there", old, CrossMode::Rewrap);
    let node = new_node(0o644);
    let made = fixture.volume().create_file(there, b"log", &node, OpenFor::Both).unwrap();
    rewrap(&fixture, Some(old), Some(new));
    made.1.file.write(0, b"line", Origin::Caller).unwrap();
    fixture.volume().close(made.1);
    fixture.keystore.disable_key(&KeyRef::Id(old)).unwrap();
    assert_eq!(read_again(&mut fixture, "there/log"), "line");
}

/// The wrap for the other name's directory was taken away, or was not made again when the file was
/// cut to nothing and written anew.
#[test]
fn regression_the_names_of_a_file_are_never_under_different_keys() {
    let mut fixture = Fixture::new();
    let other = fixture.new_key();
    let there = dir(&fixture, "there", other, CrossMode::Rewrap);
    let keeps = dir(&fixture, "keeps", other, CrossMode::Keep);
    let near = fixture.mkdir(ROOT, "near").unwrap().ino;
    for (name, contents) in [("full", "contents"), ("empty", "")] {
        let ino = fixture.file(ROOT, name, contents).unwrap().ino;
        for dir in [there, keeps] {
            let linked = fixture.volume().link(ino, dir, name.as_bytes());
            assert!(matches!(linked, Err(VolumeError::CrossPolicy)), "{name}: {linked:?}");
        }
        fixture.volume().link(ino, near, name.as_bytes()).unwrap();
        for dir in [there, keeps] {
            let moved = fixture.rename((ROOT, name), (dir, name), REPLACE);
            assert!(matches!(moved, Err(VolumeError::CrossPolicy)), "{name}: {moved:?}");
        }
    }
    let parted = fixture.volume().set_dir_policy(near, other, None);
    assert!(matches!(parted, Err(VolumeError::LinkedElsewhere)), "{parted:?}");
    fixture.volume().set_dir_policy(ROOT, other, None).unwrap();
    rewrap(&fixture, None, None);
    fixture.rename((ROOT, "full"), (there, "full"), REPLACE).unwrap();
    for path in ["there/full", "near/full"] {
        assert_eq!(read_again(&mut fixture, path), "contents", "{path}");
    }
}

/// A re-wrap took whatever key a header named: who writes the vault copied a file into a directory of
/// a key that he may use, and waited for the next rotation.
#[test]
fn regression_a_rewrap_takes_no_file_in_that_its_directory_does_not_accept() {
    let mut fixture = Fixture::new();
    let strict = fixture.new_key();
    let there = dir(&fixture, "strict", strict, CrossMode::Rewrap);
    let lax = fixture.mkdir(ROOT, "lax").unwrap().ino;
    let secret = fixture.file(there, "secret", "strict secret").unwrap().ino;
    fixture.reopen();
    fs::copy(by_inode(&fixture, secret), by_inode(&fixture, lax).join("planted")).unwrap();
    let lax = fixture.find("lax").unwrap();
    let open = |fixture: &Fixture| {
        let found = fixture.find("lax/kmsfs.foreign.planted").unwrap();
        let opened = fixture.volume().open_handle(found, Access::ReadOnly)?;
        let mut contents = vec![0; 13];
        opened.handle.file.read(0, &mut contents)?;
        fixture.volume().close(opened.handle);
        kmsfs::volume::Result::Ok(contents)
    };
    let own = fixture.key();
    fixture.volume().set_dir_policy(lax, own, None).unwrap();
    let (none, to) = (RewrapJob::default(), fixture.new_key());
    for job in [
        none,
        RewrapJob { to: Some(to), ..none },
        RewrapJob { from: Some(strict), ..none },
        RewrapJob { from: Some(strict), to: Some(own), ..none },
    ] {
        let report = run(&fixture, job);
        let refused = open(&fixture);
        assert!(matches!(refused, Err(VolumeError::ForeignKey { .. })), "{job:?}: {refused:?}");
        if job.from.is_none() || job.to.is_some() {
            assert!(!report.complete);
            let [(path, why)] = &report.failed[..] else { panic!("{job:?}: {:?}", report.failed) };
            assert!(path.ends_with("planted") && why.contains("--take-in"), "{why}");
        }
        if job.to.is_some() && job.from.is_none() {
            // Nothing else waits: the former keys are given up.
            assert_eq!(fixture.volume().dir_policy(lax).unwrap().previous, []);
        }
        fixture.volume().set_dir_policy(lax, own, None).unwrap();
        fixture.volume().set_dir_policy(fixture.find("strict").unwrap(), strict, None).unwrap();
    }
    let report = run(&fixture, RewrapJob { strangers: Strangers::TakenIn, ..none });
    assert!(report.complete, "{:?}", report.failed);
    assert_eq!(open(&fixture).unwrap(), b"strict secret");
}

/// A re-wrap of the key that its header named opened it, and while it was open it opened for everybody
/// in the directory; then it was under new material of that key.
#[test]
fn regression_a_rewrap_of_one_key_opens_no_file_that_its_directory_does_not_accept() {
    let mut fixture = Fixture::new();
    let (own, strict) = (fixture.key(), fixture.new_key());
    let there = dir(&fixture, "strict", strict, CrossMode::Rewrap);
    let secret = fixture.file(there, "secret", "strict secret").unwrap().ino;
    fixture.mkdir(ROOT, "lax").unwrap();
    fixture.reopen();
    let lax = fixture.find("lax").unwrap();
    let planted = by_inode(&fixture, lax).join("planted");
    fs::copy(by_inode(&fixture, secret), &planted).unwrap();
    let header = |path: &PathBuf| fs::read(path).unwrap()[..1024].to_vec();
    let before = header(&planted);
    fixture.keystore.rotate_key_on_demand(&KeyRef::Id(strict), SystemTime::now()).unwrap();
    let ino = fixture.find("lax/kmsfs.foreign.planted").unwrap();
    let volume = fixture.volume();
    let mut job = RewrapJob { from: Some(strict), ..RewrapJob::default() };
    let (mut opened, mut seen) = (Vec::new(), 0);
    let report = volume.rewrap(
        job,
        &mut |_| {
            seen += 1;
            opened.extend(volume.open_handle(ino, Access::ReadOnly));
            std::ops::ControlFlow::Continue(())
        },
        &mut |_| {},
    );
    let report = report.unwrap();
    assert!(seen > 0 && opened.is_empty(), "somebody opened it");
    let [(path, why)] = &report.failed[..] else { panic!("{:?}", report.failed) };
    assert!(path.ends_with("planted") && why.contains("--take-in"), "{why}");
    assert!(!report.complete && header(&planted) == before);

    // Taken in, it comes under the key of the directory, not under new material of its own.
    job.strangers = Strangers::TakenIn;
    assert!(run(&fixture, job).complete);
    fixture.disable(strict);
    assert_eq!(read_again(&mut fixture, "lax/kmsfs.foreign.planted"), "strict secret");
    let lax = fixture.find("lax").unwrap();
    assert_eq!(fixture.volume().dir_policy(lax).unwrap().policy, own);
}

/// The directory of the name that was looked up first decided about the key of new contents: a link
/// that the vault's writer made elsewhere brought them under a key that others may use.
#[test]
fn regression_a_file_with_names_under_two_keys_gets_neither() {
    let mut fixture = Fixture::new();
    let strict = fixture.new_key();
    let there = dir(&fixture, "strict", strict, CrossMode::Rewrap);
    let lax = fixture.mkdir(ROOT, "lax").unwrap().ino;
    let linked = |name: &str, contents: &str| {
        let ino = fixture.file(there, name, contents).unwrap().ino;
        let link = by_inode(&fixture, lax).join(name);
        fs::hard_link(by_inode(&fixture, ino), link).unwrap();
        ino
    };
    let (full, empty) = (linked("full", "first"), linked("empty", ""));
    fixture.reopen();
    fixture.find("lax/kmsfs.foreign.full").unwrap();
    fixture.find("strict/full").unwrap();
    let volume = fixture.volume();
    let opened = volume.open_handle(full, Access::ReadWrite);
    assert!(matches!(opened, Err(VolumeError::ForeignKey { .. })), "{opened:?}");

    let lax_name = fixture.find("lax/kmsfs.foreign.empty").unwrap();
    assert_eq!(lax_name, empty);
    let waits = volume.open_handle(empty, Access::ReadWrite).unwrap().handle;
    fixture.find("strict/empty").unwrap();
    let opened = volume.open_handle(empty, Access::ReadWrite).unwrap().handle;
    let written = opened.write(0, b"secret", Origin::Caller);
    assert!(matches!(written, Err(VolumeError::LinkedElsewhere)), "{written:?}");
    volume.close(opened);
    volume.close(waits);
}

/// Only the keys for new files were compared, not those that the files really have.
#[test]
fn regression_what_is_still_under_a_former_key_is_rewrapped_when_it_moves() {
    let mut fixture = Fixture::new();
    let (own, other) = (fixture.key(), fixture.new_key());
    let back = dir(&fixture, "back", other, CrossMode::Rewrap);
    fixture.file(back, "a", "a").unwrap();
    let linked = fixture.file(back, "b", "b").unwrap().ino;
    fixture.volume().set_dir_policy(back, own, None).unwrap();
    let refused = fixture.volume().link(linked, ROOT, b"b");
    assert!(matches!(refused, Err(VolumeError::CrossPolicy)), "{refused:?}");
    fixture.rename((back, "a"), (ROOT, "a"), REPLACE).unwrap();
    assert_eq!(read_again(&mut fixture, "a"), "a");

    let keeps = dir(&fixture, "keeps", other, CrossMode::Keep);
    let below = fixture.mkdir(keeps, "below").unwrap().ino;
    fixture.find("a").unwrap();
    fixture.rename((ROOT, "a"), (keeps, "a"), REPLACE).unwrap();
    fixture.rename((keeps, "a"), (below, "a"), REPLACE).unwrap();
    assert_eq!(read_again(&mut fixture, "keeps/below/a"), "a");
}

/// It went through, and the file could not be read when the key was back.
#[test]
fn regression_nothing_leaves_a_directory_whose_key_is_disabled() {
    let mut fixture = Fixture::new();
    let other = fixture.new_key();
    let dark = dir(&fixture, "dark", other, CrossMode::Rewrap);
    fixture.file(dark, "file", "contents").unwrap();
    fixture.keystore.disable_key(&KeyRef::Id(other)).unwrap();
    fixture.reopen();
    let dark = fixture.find("dark").unwrap();
    let shown = fixture.list(dark).remove(0);
    fixture.find(&format!("dark/{shown}")).unwrap();
    let moved = fixture.rename((dark, &shown), (ROOT, "rescued"), REPLACE);
    assert!(matches!(moved, Err(VolumeError::KeyUnusable(_))), "{moved:?}");
    fixture.keystore.enable_key(&KeyRef::Id(other)).unwrap();
    assert_eq!(read_again(&mut fixture, "dark/file"), "contents");
}

/// The oldest of four former keys was dropped without a word.
#[test]
fn regression_a_directory_never_forgets_a_key_that_files_have() {
    let mut fixture = Fixture::new();
    let there = fixture.mkdir(ROOT, "there").unwrap().ino;
    let keys: Vec<KeyId> = (0..4).map(|_| fixture.new_key()).collect();
    for (number, key) in keys.iter().take(3).enumerate() {
        fixture.file(there, &number.to_string(), "contents").unwrap();
        fixture.volume().set_dir_policy(there, *key, None).unwrap();
    }
    fixture.file(there, "3", "contents").unwrap();
    let full = fixture.volume().set_dir_policy(there, keys[3], None);
    assert!(matches!(full, Err(VolumeError::FormerKeys)), "{full:?}");
    let job = RewrapJob { from: Some(keys[2]), to: Some(keys[3]), ..RewrapJob::default() };
    let go_on = &mut |_: &_| std::ops::ControlFlow::Continue(());
    let full = fixture.volume().rewrap(job, go_on, &mut |_| {});
    assert!(matches!(full, Err(VolumeError::FormerKeys)), "{full:?}");
    for number in 0..4 {
        assert_eq!(read_again(&mut fixture, &format!("there/{number}")), "contents");
    }
}

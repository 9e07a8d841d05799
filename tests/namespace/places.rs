//! Directories count only where they belong: what somebody exchanges, copies or puts back in the
//! vault can be listed and removed, and nothing else.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use kmsfs::id::KeyId;
use kmsfs::keystore::KeyRef;
use kmsfs::volume::{Misplaced, Options, Repair, RewrapJob, Volume, VolumeError};

use crate::fixture::{Fixture, REPLACE, ROOT};

/// The backing path of a directory.
fn backing(fixture: &Fixture, path: &str) -> PathBuf {
    let ino = fixture.find(path).unwrap();
    let is_it = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|meta| meta.ino() == ino);
    fixture.backing(|_| true).into_iter().find(is_it).unwrap()
}

fn exchange(one: &Path, other: &Path) {
    let flags = rustix::fs::RenameFlags::EXCHANGE;
    let cwd = rustix::fs::CWD;
    rustix::fs::renameat_with(cwd, one, cwd, other, flags).unwrap();
}

/// A copy with all attributes, as backups make them.
fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg("-T").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

fn why_not<T: std::fmt::Debug>(result: Result<T, VolumeError>) -> Misplaced {
    match result {
        Err(VolumeError::Misplaced(why)) => why,
        other => panic!("it was used: {other:?}"),
    }
}

/// It can be seen and removed, and nothing in it can be used.
fn assert_unusable(fixture: &Fixture, path: &str, wanted: Misplaced) {
    let ino = fixture.find(path).unwrap();
    assert_eq!(why_not(fixture.file(ino, "new", "x")), wanted, "{path}");
    assert_eq!(why_not(fixture.mkdir(ino, "new")), wanted, "{path}");
    for name in fixture.list(ino) {
        assert!(name.starts_with("kmsfs.foreign."), "{path}/{name}");
    }
}

fn remove_all(fixture: &Fixture, parent: u64, name: &str) {
    let ino = fixture.volume().lookup(parent, name.as_bytes()).unwrap().unwrap().ino;
    for entry in fixture.list(ino) {
        if fixture.volume().unlink(ino, entry.as_bytes()).is_err() {
            remove_all(fixture, ino, &entry);
        }
    }
    fixture.volume().rmdir(parent, name.as_bytes()).unwrap();
}

fn rewrap(fixture: &Fixture) {
    let go_on = &mut |_: &_| std::ops::ControlFlow::Continue(());
    let report = fixture.volume().rewrap(RewrapJob::default(), go_on, &mut |_| {}).unwrap();
    assert!(report.complete && report.failed.is_empty(), "{report:?}");
}

/// `/finance` with a key of its own and `/public`, each with a file.
fn two_policies() -> (Fixture, KeyId) {
    let fixture = Fixture::new();
    let key = fixture.new_key();
    let finance = fixture.mkdir(ROOT, "finance").unwrap().ino;
    fixture.volume().set_policy(finance, key, None).unwrap();
    fixture.file(finance, "report", "secret").unwrap();
    let public = fixture.mkdir(ROOT, "public").unwrap().ino;
    fixture.file(public, "page", "known").unwrap();
    (fixture, key)
}

#[test]
fn exchanged_directories_are_not_used_under_each_others_names() {
    for live in [false, true] {
        let (mut fixture, _) = two_policies();
        exchange(&backing(&fixture, "finance"), &backing(&fixture, "public"));
        if !live {
            fixture.reopen();
        }
        assert_unusable(&fixture, "finance", Misplaced::Elsewhere);
        assert_unusable(&fixture, "public", Misplaced::Elsewhere);
        exchange(&backing(&fixture, "finance"), &backing(&fixture, "public"));
        assert_eq!(fixture.contents(fixture.find("finance/report").unwrap()), "secret");
        assert_eq!(fixture.contents(fixture.find("public/page").unwrap()), "known");
    }
}

/// What was exchanged is exchanged back inside the mount.
#[test]
fn a_directory_that_is_renamed_to_its_own_place_counts_again() {
    let (fixture, _) = two_policies();
    exchange(&backing(&fixture, "finance"), &backing(&fixture, "public"));
    for (from, to) in [("finance", "aside"), ("public", "finance"), ("aside", "public")] {
        fixture.find(from).unwrap();
        fixture.rename((ROOT, from), (ROOT, to), REPLACE).unwrap();
    }
    assert_eq!(fixture.contents(fixture.find("finance/report").unwrap()), "secret");
    assert_eq!(fixture.contents(fixture.find("public/page").unwrap()), "known");
}

/// No directory with a policy of its own is out of its place then.
#[test]
fn an_exchanged_ancestor_takes_what_is_below_it_out_of_use() {
    for live in [false, true] {
        let mut fixture = Fixture::new();
        for top in ["a", "b"] {
            let top = fixture.mkdir(ROOT, top).unwrap().ino;
            let below = fixture.mkdir(top, "finance").unwrap().ino;
            fixture.file(below, "report", "secret").unwrap();
        }
        let key = fixture.new_key();
        let finance = fixture.find("a/finance").unwrap();
        fixture.volume().set_policy(finance, key, None).unwrap();
        exchange(&backing(&fixture, "a"), &backing(&fixture, "b"));
        if !live {
            fixture.reopen();
        }
        assert_unusable(&fixture, "a", Misplaced::Elsewhere);
        let below = fixture.list(fixture.find("a").unwrap()).remove(0);
        assert_unusable(&fixture, &format!("a/{below}"), Misplaced::Above);
    }
}

#[test]
fn a_directory_that_inherits_is_not_put_in_the_place_of_one_with_its_own_key() {
    let (mut fixture, _) = two_policies();
    let (finance, public) = (backing(&fixture, "finance"), backing(&fixture, "public"));
    fs::rename(&finance, fixture.vault().join("aside")).unwrap();
    copy(&public, &finance);
    fixture.reopen();
    assert_unusable(&fixture, "finance", Misplaced::Elsewhere);
    assert_eq!(fixture.contents(fixture.find("public/page").unwrap()), "known");
}

#[test]
fn an_older_key_policy_is_not_put_back() {
    let mut fixture = Fixture::new();
    let (old, new) = (fixture.new_key(), fixture.new_key());
    let top = fixture.mkdir(ROOT, "top").unwrap().ino;
    fixture.volume().set_policy(top, old, None).unwrap();
    let below = fixture.mkdir(top, "below").unwrap().ino;
    fixture.file(top, "file", "contents").unwrap();
    fixture.file(below, "file", "contents").unwrap();
    let (top_path, below_path) = (backing(&fixture, "top"), backing(&fixture, "top/below"));
    let saved = fixture.vault().with_file_name("saved");
    copy(&top_path, &saved);
    fixture.volume().set_policy(top, new, None).unwrap();
    rewrap(&fixture);
    // One that inherits: the directory above has left the key for good.
    fs::remove_dir_all(&below_path).unwrap();
    copy(&saved.join(below_path.file_name().unwrap()), &below_path);
    assert_unusable(&fixture, "top/below", Misplaced::Keys);
    // One with a policy of its own, with all that is below it.
    fs::remove_dir_all(&top_path).unwrap();
    copy(&saved, &top_path);
    assert_unusable(&fixture, "top", Misplaced::Older);
    // The next mount knows it from the keystore.
    fixture.reopen();
    assert_unusable(&fixture, "top", Misplaced::Older);
    // A backup that is older on purpose is taken in.
    fixture.volume().adopt(fixture.find("top").unwrap()).unwrap().unwrap();
    fixture.reopen();
    assert_eq!(fixture.contents(fixture.find("top/below/file").unwrap()), "contents");
}

/// A header from before would open the file for users of the key that was given up.
#[test]
fn a_directory_accepts_no_former_key_once_everything_is_rewrapped() {
    let fixture = Fixture::new();
    let key = fixture.new_key();
    let dir = fixture.mkdir(ROOT, "dir").unwrap().ino;
    fixture.mkdir(dir, "below").unwrap();
    fixture.file(dir, "file", "contents").unwrap();
    fixture.volume().set_policy(dir, key, None).unwrap();
    assert_eq!(fixture.volume().policy(dir).unwrap().previous, [fixture.key()]);
    rewrap(&fixture);
    for path in ["dir", "dir/below"] {
        let policy = fixture.volume().policy(fixture.find(path).unwrap()).unwrap();
        assert!(policy.previous.is_empty() && policy.policy == key, "{path}: {policy:?}");
    }
    assert_eq!(fixture.contents(fixture.find("dir/file").unwrap()), "contents");
}

#[test]
fn a_subdirectory_does_not_mount_as_a_volume() {
    let (mut fixture, _) = two_policies();
    let finance = backing(&fixture, "finance");
    fixture.reopen();
    copy(&fixture.vault().join(".kmsfs"), &finance.join(".kmsfs"));
    fs::remove_file(finance.join(".kmsfs/lock")).unwrap();
    let opened = Volume::open_vault(&finance, fixture.keystore.clone(), Options::default());
    assert_eq!(why_not(opened), Misplaced::Elsewhere);
}

#[test]
fn a_copy_under_another_name_is_not_used_and_can_be_removed() {
    let (fixture, _) = two_policies();
    let public = fixture.find("public").unwrap();
    fixture.mkdir(public, "below").unwrap();
    let original = backing(&fixture, "public");
    for name in ["copy", "abcdefghijklmnopqrstuvwxyzabcdefghij"] {
        copy(&original, &fixture.vault().join(name));
        let shown = format!("kmsfs.foreign.{name}");
        assert_unusable(&fixture, &shown, Misplaced::Elsewhere);
        let ino = fixture.find(&shown).unwrap();
        let twin = fixture.volume().adopt(ino);
        assert!(matches!(twin, Err(VolumeError::Twin(_))), "{twin:?}");
        remove_all(&fixture, ROOT, &shown);
    }
    assert_eq!(fixture.list(ROOT), ["finance", "public"]);
    assert_eq!(fixture.contents(fixture.find("public/page").unwrap()), "known");
}

#[test]
fn what_is_restored_to_the_same_place_is_used() {
    let (mut fixture, _) = two_policies();
    let finance = backing(&fixture, "finance");
    let saved = fixture.vault().with_file_name("saved");
    copy(&finance, &saved);
    let ino = fixture.find("finance").unwrap();
    fixture.volume().unlink(ino, b"report").unwrap();
    fs::remove_dir_all(&finance).unwrap();
    copy(&saved, &finance);
    assert_eq!(fixture.contents(fixture.find("finance/report").unwrap()), "secret");
    fixture.reopen();
    assert_eq!(fixture.contents(fixture.find("finance/report").unwrap()), "secret");
    // Without attributes, as many backups are.
    let plain = Command::new("cp").args(["-r", "-T"]).arg(&saved).arg(&finance).status().unwrap();
    assert!(plain.success());
    fixture.reopen();
    assert_eq!(fixture.contents(fixture.find("finance/report").unwrap()), "secret");
}

#[test]
fn an_adopted_directory_counts_where_it_is() {
    let (mut fixture, key) = two_policies();
    let finance = fixture.find("finance").unwrap();
    let below = fixture.mkdir(finance, "below").unwrap().ino;
    fixture.file(below, "more", "deep").unwrap();
    let public = fixture.find("public").unwrap();
    assert_eq!(fixture.volume().adopt(public).unwrap(), None);
    fs::rename(backing(&fixture, "finance"), backing(&fixture, "public").join("moved")).unwrap();
    let shown = "public/kmsfs.foreign.moved";
    assert_unusable(&fixture, shown, Misplaced::Elsewhere);
    let ino = fixture.find(shown).unwrap();
    let adoption = fixture.volume().adoption(ino).unwrap().unwrap();
    assert_eq!((adoption.policy, adoption.inherited), (key, false));
    assert_eq!(fixture.volume().adopt(ino).unwrap(), Some(adoption));
    let public = fixture.find("public").unwrap();
    fixture.rename((public, "kmsfs.foreign.moved"), (ROOT, "money"), REPLACE).unwrap();
    for _ in 0..2 {
        assert_eq!(fixture.contents(fixture.find("money/report").unwrap()), "secret");
        assert_eq!(fixture.contents(fixture.find("money/below/more").unwrap()), "deep");
        fixture.reopen();
    }
}

#[test]
fn a_check_tells_of_a_directory_out_of_its_place_and_takes_none_in() {
    let (mut fixture, _) = two_policies();
    exchange(&backing(&fixture, "finance"), &backing(&fixture, "public"));
    fixture.reopen();
    let checked = &mut |_: &_| std::ops::ControlFlow::Continue(());
    let report = fixture.volume().check(Repair::Yes, checked).unwrap();
    assert_eq!(report.problems.len(), 2, "{report:?}");
    assert!(report.problems.iter().all(|p| !p.repaired && p.what.contains("not in its place")));
    assert_unusable(&fixture, "finance", Misplaced::Elsewhere);
    // Nor does a re-wrap pass over what it could not see into.
    let rewrapped = &mut |_: &_| std::ops::ControlFlow::Continue(());
    let report = fixture.volume().rewrap(RewrapJob::default(), rewrapped, &mut |_| {}).unwrap();
    assert!(!report.complete && report.failed.len() == 2, "{report:?}");
}

#[test]
fn a_directory_that_takes_its_key_along_has_a_policy_of_its_own() {
    let (mut fixture, key) = two_policies();
    let finance = fixture.find("finance").unwrap();
    let public = fixture.find("public").unwrap();
    let below = fixture.mkdir(public, "below").unwrap().ino;
    fixture.file(below, "more", "deep").unwrap();
    fixture.rename((ROOT, "public"), (finance, "public"), REPLACE).unwrap();
    fixture.reopen();
    let moved = fixture.volume().policy(fixture.find("finance/public").unwrap()).unwrap();
    assert!(!moved.inherited && moved.policy == fixture.key(), "{moved:?}");
    assert_eq!(fixture.contents(fixture.find("finance/public/page").unwrap()), "known");
    assert_eq!(fixture.contents(fixture.find("finance/public/below/more").unwrap()), "deep");
    let below = fixture.volume().policy(fixture.find("finance/public/below").unwrap()).unwrap();
    assert!(below.inherited && below.policy != key, "{below:?}");
}

#[test]
fn a_directory_under_a_disabled_key_is_not_renamed() {
    let (mut fixture, key) = two_policies();
    fixture.keystore.disable_key(&KeyRef::Id(key)).unwrap();
    fixture.reopen();
    fixture.find("finance").unwrap();
    let moved = fixture.rename((ROOT, "finance"), (ROOT, "money"), REPLACE);
    assert!(matches!(moved, Err(VolumeError::KeyUnusable(k)) if k == key), "{moved:?}");
    fixture.keystore.enable_key(&KeyRef::Id(key)).unwrap();
    fixture.reopen();
    assert_eq!(fixture.contents(fixture.find("finance/report").unwrap()), "secret");
}

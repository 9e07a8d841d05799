//! Directories count only where they belong: what somebody exchanges, copies or puts back in the
//! vault can be listed and removed, and nothing else.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use kmsfs::envelope::CrossMode;
use kmsfs::id::{DirId, KeyId};
use kmsfs::keystore::{AnchoredDirPolicy, KeyRef};
use kmsfs::volume::content::Access;
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
    fixture.volume().set_dir_policy(finance, key, None).unwrap();
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
        fixture.volume().set_dir_policy(finance, key, None).unwrap();
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
fn an_older_policy_is_not_put_back() {
    let mut fixture = Fixture::new();
    let (old, new) = (fixture.new_key(), fixture.new_key());
    let top = fixture.mkdir(ROOT, "top").unwrap().ino;
    fixture.volume().set_dir_policy(top, old, None).unwrap();
    let below = fixture.mkdir(top, "below").unwrap().ino;
    fixture.file(top, "file", "contents").unwrap();
    fixture.file(below, "file", "contents").unwrap();
    let (top_path, below_path) = (backing(&fixture, "top"), backing(&fixture, "top/below"));
    let saved = fixture.vault().with_file_name("saved");
    copy(&top_path, &saved);
    fixture.volume().set_dir_policy(top, new, None).unwrap();
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

/// Puts the directory `saved` in the place of the one at `path`.
fn put_back(saved: &Path, path: &Path) {
    fs::remove_dir_all(path).unwrap();
    copy(saved, path);
}

/// Directories that keep the keys of files took every former key of the directory above for one of
/// these, so one from before the end of a re-wrap opened files under a key that was given up.
#[test]
fn regression_an_older_inheriting_directory_brings_no_former_key_back() {
    let mut fixture = Fixture::new();
    let (old, new) = (fixture.new_key(), fixture.new_key());
    let top = fixture.mkdir(ROOT, "top").unwrap().ino;
    fixture.volume().set_dir_policy(top, old, Some(CrossMode::Keep)).unwrap();
    let below = fixture.mkdir(top, "below").unwrap().ino;
    fixture.file(below, "file", "contents").unwrap();
    let path = backing(&fixture, "top/below");
    let (before, between) = (path.with_extension("before"), path.with_extension("between"));
    let aside = |path: &Path| fixture.vault().with_file_name(path.file_name().unwrap());
    let (before, between) = (aside(&before), aside(&between));
    copy(&path, &before);
    fixture.volume().set_dir_policy(top, new, None).unwrap();
    copy(&path, &between);
    let accepts = |fixture: &Fixture| {
        let policy = fixture.volume().dir_policy(fixture.find("top/below").unwrap()).unwrap();
        (policy.policy, policy.previous)
    };
    assert_eq!(accepts(&fixture), (new, vec![old, fixture.key()]));
    assert_eq!(fixture.contents(fixture.find("top/below/file").unwrap()), "contents");
    rewrap(&fixture);
    put_back(&between, &path);
    fixture.reopen();
    assert_eq!(accepts(&fixture), (new, Vec::new()));
    let file = fixture.find("top/below/file").unwrap();
    let opened = fixture.volume().open_handle(file, Access::ReadOnly);
    assert!(matches!(opened, Err(VolumeError::ForeignKey { .. })), "{:?}", opened.err());
    put_back(&before, &path);
    fixture.reopen();
    assert_unusable(&fixture, "top/below", Misplaced::Keys);
}

/// The same of a key that came with a file: who gave it up is remembered outside the vault.
#[test]
fn regression_a_directory_that_kept_a_key_is_not_put_back_from_before_it_gave_it_up() {
    let mut fixture = Fixture::new();
    let guest = fixture.new_key();
    fixture.volume().set_dir_policy(ROOT, fixture.key(), Some(CrossMode::Keep)).unwrap();
    let other = fixture.mkdir(ROOT, "other").unwrap().ino;
    fixture.volume().set_dir_policy(other, guest, None).unwrap();
    fixture.file(other, "file", "contents").unwrap();
    let below = fixture.mkdir(ROOT, "below").unwrap().ino;
    fixture.rename((other, "file"), (below, "file"), REPLACE).unwrap();
    let of_below =
        |fixture: &Fixture| fixture.volume().dir_policy(fixture.find("below").unwrap()).unwrap();
    assert_eq!(of_below(&fixture).previous, [guest]);
    fixture.reopen();
    assert_eq!(fixture.contents(fixture.find("below/file").unwrap()), "contents");
    // Another mode above, for files that come from now on, takes it nothing.
    fixture.volume().set_dir_policy(ROOT, fixture.key(), Some(CrossMode::Rewrap)).unwrap();
    fixture.reopen();
    let policy = of_below(&fixture);
    assert!(policy.previous == [guest] && policy.cross == CrossMode::Rewrap, "{policy:?}");
    assert_eq!(fixture.contents(fixture.find("below/file").unwrap()), "contents");
    let path = backing(&fixture, "below");
    let saved = fixture.vault().with_file_name("saved");
    copy(&path, &saved);
    rewrap(&fixture);
    assert_eq!(of_below(&fixture).previous, []);
    assert_eq!(fixture.contents(fixture.find("below/file").unwrap()), "contents");
    put_back(&saved, &path);
    fixture.reopen();
    assert_unusable(&fixture, "below", Misplaced::Older);
}

/// A header from before would open the file for users of the key that was given up.
#[test]
fn a_directory_accepts_no_former_key_once_everything_is_rewrapped() {
    let fixture = Fixture::new();
    let key = fixture.new_key();
    let dir = fixture.mkdir(ROOT, "dir").unwrap().ino;
    fixture.mkdir(dir, "below").unwrap();
    fixture.file(dir, "file", "contents").unwrap();
    fixture.volume().set_dir_policy(dir, key, None).unwrap();
    assert_eq!(fixture.volume().dir_policy(dir).unwrap().previous, [fixture.key()]);
    rewrap(&fixture);
    for path in ["dir", "dir/below"] {
        let policy = fixture.volume().dir_policy(fixture.find(path).unwrap()).unwrap();
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

/// An older copy at a place that the directory has left was used beside it, under its id and keys.
#[test]
fn regression_of_two_directories_with_one_id_the_newer_counts() {
    let mut fixture = Fixture::new();
    let first = fixture.mkdir(ROOT, "first").unwrap().ino;
    fixture.file(first, "file", "old").unwrap();
    let place = backing(&fixture, "first");
    let saved = fixture.vault().with_file_name("saved");
    copy(&place, &saved);
    fixture.rename((ROOT, "first"), (ROOT, "second"), REPLACE).unwrap();
    fixture.file(first, "more", "new").unwrap();
    copy(&saved, &place);
    // Whichever is used first, and also if the copy was used before the other was seen.
    for order in [["second", "first"], ["first", "second"]] {
        fixture.reopen();
        for name in order {
            fixture.list(fixture.find(name).unwrap());
        }
        assert_eq!(fixture.contents(fixture.find("second/more").unwrap()), "new");
        assert_unusable(&fixture, "first", Misplaced::Twin);
        let twin = fixture.volume().adopt(fixture.find("first").unwrap());
        assert!(matches!(twin, Err(VolumeError::Twin(_))), "{twin:?}");
        let go_on = &mut |_: &_| std::ops::ControlFlow::Continue(());
        let report = fixture.volume().check(Repair::Yes, go_on).unwrap();
        assert!(report.problems.iter().any(|p| p.what.contains("same id")), "{report:?}");
    }
    // It is moved as it is, and what it holds counts as soon as the other has gone.
    let second = fixture.find("second").unwrap();
    let kept = fixture.mkdir(ROOT, "kept").unwrap().ino;
    for name in ["file", "more"] {
        fixture.rename((second, name), (kept, name), REPLACE).unwrap();
    }
    assert_unusable(&fixture, "first", Misplaced::Twin);
    fixture.volume().rmdir(ROOT, b"second").unwrap();
    assert_eq!(fixture.contents(fixture.find("first/file").unwrap()), "old");
    fixture.reopen();
    assert_eq!(fixture.contents(fixture.find("first/file").unwrap()), "old");
    assert_eq!(fixture.contents(fixture.find("kept/more").unwrap()), "new");
}

#[test]
fn regression_a_keystore_does_not_remember_removed_directories_for_ever() {
    let mut fixture = Fixture::new();
    let key = fixture.new_key();
    let anchored = |fixture: &Fixture| {
        let anchor = fixture.keystore.volume_anchor(fixture.volume().id()).unwrap().unwrap();
        let removed = anchor.policies.iter().filter(|policy| policy.removed > 0).count();
        (anchor.policies.len() - removed, removed)
    };
    let make = |fixture: &Fixture, name: &str| {
        let dir = fixture.mkdir(ROOT, name).unwrap().ino;
        fixture.volume().set_dir_policy(dir, key, None).unwrap();
    };
    make(&fixture, "stays");
    make(&fixture, "goes");
    let place = backing(&fixture, "goes");
    let saved = fixture.vault().with_file_name("saved");
    copy(&place, &saved);
    fixture.volume().set_dir_policy(fixture.find("goes").unwrap(), fixture.key(), None).unwrap();
    fixture.find("stays").unwrap();
    fixture.volume().rmdir(ROOT, b"goes").unwrap();
    // A copy that is removed is not the directory.
    copy(&backing(&fixture, "stays"), &fixture.vault().join("copy"));
    remove_all(&fixture, ROOT, "kmsfs.foreign.copy");
    make(&fixture, "another");
    assert_eq!(anchored(&fixture), (2, 1), "two stay");
    fixture.reopen();
    // One that comes back is held against what it had.
    copy(&saved, &place);
    assert_unusable(&fixture, "goes", Misplaced::Older);
    // One that is not there at all makes room in time.
    fs::remove_dir_all(&place).unwrap();
    let anchor = fixture.keystore.volume_anchor(fixture.volume().id()).unwrap().unwrap();
    let mut full = anchor;
    full.policies.extend((0..2000_u64).map(|n| AnchoredDirPolicy {
        directory: DirId::from_bytes(u128::from(n + 1).to_le_bytes()),
        sequence: 1,
        removed: n + 2,
    }));
    let (id, vault) = (fixture.volume().id(), fixture.vault());
    fixture.close();
    fixture.keystore.set_volume_anchor(id, &vault, &full).unwrap();
    fixture.reopen();
    assert_eq!(anchored(&fixture), (2, 1000));
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
    let moved = fixture.volume().dir_policy(fixture.find("finance/public").unwrap()).unwrap();
    assert!(!moved.inherited && moved.policy == fixture.key(), "{moved:?}");
    assert_eq!(fixture.contents(fixture.find("finance/public/page").unwrap()), "known");
    assert_eq!(fixture.contents(fixture.find("finance/public/below/more").unwrap()), "deep");
    let below = fixture.volume().dir_policy(fixture.find("finance/public/below").unwrap()).unwrap();
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

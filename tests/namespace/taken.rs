//! A place that belongs to one directory is not taken by an older one that was there before it, whoever
//! puts that back; and whatever the mount does with directories, none of its own is refused for that.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kmsfs::id::{DirId, DirPlace, KeyId};
use kmsfs::keystore::{AnchoredPlace, VolumeAnchor};
use kmsfs::volume::{Misplaced, Options, RenameHow, Repair, VolumeError};

use crate::fixture::{Fixture, REPLACE, ROOT};
use crate::interrupted::Interrupted;

const EXCHANGE: RenameHow = RenameHow { no_replace: false, exchange: true, whiteout: false };

/// The backing path of a directory.
fn backing(fixture: &Fixture, path: &str) -> PathBuf {
    let ino = fixture.find(path).unwrap();
    let is_it = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|meta| meta.ino() == ino);
    fixture.backing(|_| true).into_iter().find(is_it).unwrap()
}

/// A copy with all attributes in the place of what is there.
fn put(from: &Path, to: &Path) {
    if to.exists() {
        fs::remove_dir_all(to).unwrap();
    }
    let done = Command::new("cp").arg("-a").arg("-T").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

fn saved(fixture: &Fixture, name: &str) -> PathBuf {
    fixture.vault().with_file_name(name)
}

fn anchor(fixture: &Fixture) -> VolumeAnchor {
    fixture.keystore.volume_anchor(fixture.volume().id()).unwrap().unwrap()
}

fn make_own(fixture: &Fixture, parent: u64, name: &str, key: KeyId) -> u64 {
    let dir = fixture.mkdir(parent, name).unwrap().ino;
    fixture.volume().set_dir_policy(dir, key, None).unwrap();
    fixture.file(dir, "file", name).unwrap();
    dir
}

fn remove(fixture: &Fixture, parent: u64, name: &str) {
    let ino = fixture.find(name).unwrap();
    for entry in fixture.list(ino) {
        fixture.volume().unlink(ino, entry.as_bytes()).unwrap();
    }
    fixture.volume().rmdir(parent, name.as_bytes()).unwrap();
}

fn assert_taken(fixture: &Fixture, path: &str) {
    let ino = fixture.find(path).unwrap();
    match fixture.file(ino, "new", "x") {
        Err(VolumeError::Misplaced(Misplaced::Taken)) => {}
        other => panic!("{path} was used: {other:?}"),
    }
}

/// How the owner came to make it anew.
#[derive(Debug, Clone, Copy)]
enum Before {
    Removed,
    Renamed,
    Replaced,
    Exchanged,
}

/// `/finance` with a key of its own, and the copy of one of that name from before it, which inherits.
fn made_anew(before: Before) -> (Fixture, KeyId, PathBuf) {
    let fixture = Fixture::new();
    let key = fixture.new_key();
    let old = fixture.mkdir(ROOT, "finance").unwrap().ino;
    fixture.file(old, "file", "old").unwrap();
    let copy = saved(&fixture, "copy");
    put(&backing(&fixture, "finance"), &copy);
    match before {
        Before::Removed => remove(&fixture, ROOT, "finance"),
        Before::Renamed => {
            fixture.rename((ROOT, "finance"), (ROOT, "finance.old"), REPLACE).unwrap();
        }
        Before::Replaced | Before::Exchanged => {
            fixture.volume().unlink(old, b"file").unwrap();
            make_own(&fixture, ROOT, "new", key);
            let how = if matches!(before, Before::Replaced) { REPLACE } else { EXCHANGE };
            fixture.rename((ROOT, "new"), (ROOT, "finance"), how).unwrap();
            return (fixture, key, copy);
        }
    }
    make_own(&fixture, ROOT, "finance", key);
    (fixture, key, copy)
}

/// New files came under the weaker key of the directory above.
#[test]
fn regression_an_older_directory_does_not_take_the_place_of_one_with_its_own_key() {
    for before in [Before::Removed, Before::Renamed, Before::Replaced, Before::Exchanged] {
        for live in [false, true] {
            let (mut fixture, key, copy) = made_anew(before);
            let place = backing(&fixture, "finance");
            fs::rename(&place, saved(&fixture, "taken")).unwrap();
            put(&copy, &place);
            if !live {
                fixture.reopen();
            }
            assert_taken(&fixture, "finance");
            let go_on = &mut |_: &_| std::ops::ControlFlow::Continue(());
            let report = fixture.volume().check(Repair::Yes, go_on).unwrap();
            let told = |p: &kmsfs::volume::Problem| p.what.contains("belongs to another directory");
            assert!(report.problems.iter().any(told), "{before:?}: {report:?}");
            // The one that belongs there counts again, and what is above is as it was.
            fs::rename(&place, saved(&fixture, "aside")).unwrap();
            fs::rename(saved(&fixture, "taken"), &place).unwrap();
            let finance = fixture.find("finance").unwrap();
            assert_eq!(fixture.volume().dir_policy(finance).unwrap().policy, key, "{before:?}");
            fixture.file(finance, "more", "secret").unwrap();
        }
    }
}

/// The keystore's disk was full when the directory was made, or at some time before, and after a crash
/// only the places counted that both the keystore and the file beside it had heard of.
#[test]
fn regression_a_place_that_one_store_alone_has_heard_of_is_not_taken() {
    for full_when_made in [true, false] {
        let mut fixture = Fixture::new();
        let (key, other) = (fixture.new_key(), fixture.new_key());
        let service = Interrupted::under(&mut fixture);
        fixture.mkdir(ROOT, "finance").unwrap();
        let copy = saved(&fixture, "copy");
        put(&backing(&fixture, "finance"), &copy);
        remove(&fixture, ROOT, "finance");
        service.be_elsewhere(!full_when_made);
        make_own(&fixture, ROOT, "other", other);
        service.be_elsewhere(full_when_made);
        make_own(&fixture, ROOT, "finance", key);
        service.be_elsewhere(false);
        let place = backing(&fixture, "finance");
        let options = Options { anchors: Some(fixture.anchors()), ..Options::default() };
        fixture.close();
        fs::rename(&place, saved(&fixture, "taken")).unwrap();
        put(&copy, &place);
        fixture.reopen_with(options);
        assert_taken(&fixture, "finance");
    }
}

/// Somebody who wants it says so, and the place is its own from then on.
#[test]
fn an_older_directory_that_is_adopted_has_the_place() {
    let (mut fixture, _, copy) = made_anew(Before::Removed);
    let place = backing(&fixture, "finance");
    fs::rename(&place, saved(&fixture, "taken")).unwrap();
    put(&copy, &place);
    fixture.reopen();
    let finance = fixture.find("finance").unwrap();
    let adoption = fixture.volume().adopt(finance).unwrap().unwrap();
    assert!(adoption.why == Misplaced::Taken && adoption.inherited, "{adoption:?}");
    for _ in 0..2 {
        assert_eq!(fixture.contents(fixture.find("finance/file").unwrap()), "old");
        fixture.reopen();
    }
    // The other one has no claim to it any more, and takes it by the same step.
    fs::rename(&place, saved(&fixture, "aside")).unwrap();
    fs::rename(saved(&fixture, "taken"), &place).unwrap();
    fixture.reopen();
    assert_eq!(fixture.contents(fixture.find("finance/file").unwrap()), "finance");
}

/// An older directory above it brings an older one along that inherits.
#[test]
fn regression_an_older_directory_above_one_with_its_own_key_does_not_come_back() {
    let mut fixture = Fixture::new();
    let key = fixture.new_key();
    let top = fixture.mkdir(ROOT, "top").unwrap().ino;
    let old = fixture.mkdir(top, "dept").unwrap().ino;
    fixture.mkdir(old, "finance").unwrap();
    let copy = saved(&fixture, "copy");
    put(&backing(&fixture, "top/dept"), &copy);
    fixture.rename((top, "dept"), (top, "dept.old"), REPLACE).unwrap();
    let dept = fixture.mkdir(top, "dept").unwrap().ino;
    make_own(&fixture, dept, "finance", key);
    let place = backing(&fixture, "top/dept");
    fs::rename(&place, saved(&fixture, "taken")).unwrap();
    put(&copy, &place);
    fixture.reopen();
    assert_taken(&fixture, "top/dept");
    // Both are moved by the mount, one into the other: then each is where it was moved to.
    fs::remove_dir_all(&place).unwrap();
    fs::rename(saved(&fixture, "taken"), &place).unwrap();
    fixture.reopen();
    let top = fixture.find("top").unwrap();
    fixture.rename((top, "dept"), (ROOT, "moved"), REPLACE).unwrap();
    fixture.rename((top, "dept.old"), (top, "dept"), REPLACE).unwrap();
    for _ in 0..2 {
        let moved = fixture.find("moved/finance").unwrap();
        assert_eq!(fixture.volume().dir_policy(moved).unwrap().policy, key);
        let old = fixture.find("top/dept/finance").unwrap();
        assert_eq!(fixture.volume().dir_policy(old).unwrap().policy, fixture.key());
        fixture.reopen();
    }
}

/// Nobody else's is restored there, and it needs nothing.
#[test]
fn a_place_that_the_mount_has_emptied_belongs_to_nobody() {
    for removed in [true, false] {
        let (mut fixture, _, copy) = made_anew(Before::Removed);
        let place = backing(&fixture, "finance");
        match removed {
            true => remove(&fixture, ROOT, "finance"),
            false => fixture.rename((ROOT, "finance"), (ROOT, "money"), REPLACE).unwrap(),
        }
        put(&copy, &place);
        for _ in 0..2 {
            assert_eq!(fixture.contents(fixture.find("finance/file").unwrap()), "old");
            fixture.volume().end().unwrap();
            fixture.reopen();
        }
    }
}

/// It mounts, and the older directory is taken in as an older policy is.
#[test]
fn a_vault_from_a_backup_mounts_and_its_directories_are_adopted() {
    for restored in [false, true] {
        let mut fixture = Fixture::new();
        let key = fixture.new_key();
        let old = fixture.mkdir(ROOT, "finance").unwrap().ino;
        fixture.file(old, "file", "old").unwrap();
        fixture.volume().end().unwrap();
        fixture.close();
        let backup = saved(&fixture, "backup");
        put(&fixture.vault(), &backup);
        fixture.reopen();
        remove(&fixture, ROOT, "finance");
        make_own(&fixture, ROOT, "finance", key);
        fixture.volume().end().unwrap();
        fixture.close();
        put(&backup, &fixture.vault());
        fixture.reopen_with(Options { restored, ..Options::default() });
        assert_taken(&fixture, "finance");
        let finance = fixture.find("finance").unwrap();
        fixture.volume().adopt(finance).unwrap().unwrap();
        fixture.reopen();
        assert_eq!(fixture.contents(fixture.find("finance/file").unwrap()), "old");
    }
}

/// What was moved on another host is not known here: it counts.
#[test]
fn directories_that_were_moved_on_another_host_are_used() {
    let mut fixture = Fixture::new();
    let key = fixture.new_key();
    let elsewhere = anchor(&fixture);
    make_own(&fixture, ROOT, "finance", key);
    fixture.mkdir(ROOT, "plain").unwrap();
    fixture.volume().end().unwrap();
    let (id, vault, here) = (fixture.volume().id(), fixture.vault(), anchor(&fixture));
    assert!(!here.places.is_empty());
    fixture.close();
    fixture.keystore.set_volume_anchor(id, &vault, &elsewhere).unwrap();
    fixture.reopen();
    fixture.rename((ROOT, "finance"), (ROOT, "plain"), EXCHANGE).unwrap();
    fixture.volume().end().unwrap();
    fixture.close();
    fixture.keystore.set_volume_anchor(id, &vault, &here).unwrap();
    for _ in 0..2 {
        fixture.reopen();
        let finance = fixture.find("finance").unwrap();
        fixture.file(finance, "new", "x").unwrap();
        fixture.volume().unlink(finance, b"new").unwrap();
        assert_eq!(fixture.contents(fixture.find("plain/file").unwrap()), "finance");
    }
}

/// Rows of earlier builds say nothing of places.
#[test]
fn places_are_learnt_when_directories_are_opened() {
    let (mut fixture, _, copy) = made_anew(Before::Removed);
    let (id, vault) = (fixture.volume().id(), fixture.vault());
    let place = backing(&fixture, "finance");
    fixture.close();
    let known = fixture.keystore.volume_anchor(id).unwrap().unwrap();
    assert_eq!(known.places.len(), 1);
    let before = VolumeAnchor { places: Vec::new(), ..known.clone() };
    fixture.keystore.set_volume_anchor(id, &vault, &before).unwrap();
    fixture.reopen();
    fixture.find("finance/file").unwrap();
    fixture.volume().end().unwrap();
    assert_eq!(anchor(&fixture).places, known.places);
    put(&copy, &place);
    fixture.reopen();
    assert_taken(&fixture, "finance");
}

#[test]
fn a_keystore_remembers_a_bounded_number_of_places() {
    let mut fixture = Fixture::new();
    let (id, vault, key) = (fixture.volume().id(), fixture.vault(), fixture.new_key());
    let mut full = anchor(&fixture);
    full.places.extend((1..=12_000_u128).map(|number| AnchoredPlace {
        place: DirPlace::from_bytes(number.to_le_bytes()),
        directory: DirId::from_bytes(number.to_le_bytes()),
    }));
    fixture.close();
    fixture.keystore.set_volume_anchor(id, &vault, &full).unwrap();
    fixture.reopen();
    make_own(&fixture, ROOT, "finance", key);
    let kept = anchor(&fixture).places;
    assert_eq!(kept.len(), 10_000);
    assert_eq!(kept[0].directory, DirId::from_bytes(2_002_u128.to_le_bytes()), "the last ones");
}

/// What a call does, and whether a crash may leave the anchor of before it with the vault of after it.
type Step = (&'static str, bool, fn(&Fixture));

fn go(fixture: &Fixture, from: &str, to: &str, how: RenameHow) {
    let split = |path: &str| {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        (fixture.find(dir).unwrap(), name.to_owned())
    };
    let ((from, name), (to, new)) = (split(from), split(to));
    fixture.rename((from, &name), (to, &new), how).unwrap();
}

const STEPS: &[&[Step]] = &[
    &[
        ("a directory with its own key moves", true, |f| go(f, "a/own", "b/own", REPLACE)),
        ("one is made where it was", false, |f| {
            f.mkdir(f.find("a").unwrap(), "own").unwrap();
        }),
        ("it gets a key of its own", true, |f| {
            f.volume().set_dir_policy(f.find("a/own").unwrap(), f.key(), None).unwrap();
        }),
        ("both change places", false, |f| go(f, "a/own", "b/own", EXCHANGE)),
    ],
    &[
        ("one above moves", true, |f| go(f, "a", "b/a", REPLACE)),
        ("another comes where it was", false, |f| go(f, "plain", "a", REPLACE)),
        ("and goes back", true, |f| go(f, "a", "plain", REPLACE)),
        ("the first one too", true, |f| go(f, "b/a", "a", REPLACE)),
    ],
    &[
        ("two with keys of their own change places", false, |f| go(f, "a/own", "c/own", EXCHANGE)),
        ("two above them", false, |f| go(f, "a", "c", EXCHANGE)),
        ("one above and a plain one", false, |f| go(f, "a", "plain", EXCHANGE)),
    ],
    &[
        ("one is removed", true, |f| f.volume().rmdir(f.find("a").unwrap(), b"own").unwrap()),
        ("and made anew", false, |f| {
            f.mkdir(f.find("a").unwrap(), "own").unwrap();
        }),
        ("and the one above", true, |f| {
            f.volume().rmdir(f.find("a").unwrap(), b"own").unwrap();
            f.volume().rmdir(ROOT, b"a").unwrap();
        }),
        ("and made anew as well", false, |f| {
            f.mkdir(ROOT, "a").unwrap();
        }),
    ],
    &[
        ("a plain one replaces one", false, |f| go(f, "plain", "a/own", REPLACE)),
        ("one with its own key replaces that", true, |f| go(f, "c/own", "a/own", REPLACE)),
    ],
];

/// *Crash order*: the anchor is told of a place after the vault, and gives one up before.
#[test]
fn a_crash_after_any_step_refuses_no_directory() {
    for steps in STEPS {
        let mut fixture = Fixture::new();
        for (top, key) in [("a", true), ("b", false), ("c", true)] {
            let top = fixture.mkdir(ROOT, top).unwrap().ino;
            if key {
                let own = fixture.mkdir(top, "own").unwrap().ino;
                fixture.volume().set_dir_policy(own, fixture.new_key(), None).unwrap();
            }
        }
        fixture.mkdir(ROOT, "plain").unwrap();
        // What was learnt is saved.
        fixture.volume().end().unwrap();
        fixture.reopen();
        for (what, may_lag, step) in *steps {
            let before = anchor(&fixture);
            step(&fixture);
            let after = anchor(&fixture);
            let both = before.places.iter().filter(|place| after.places.contains(place));
            let both = both.copied().collect();
            let lagging = may_lag.then(|| before.places.clone());
            let now = saved(&fixture, "now");
            fixture.close();
            put(&fixture.vault(), &now);
            for places in [Some(both), lagging, Some(after.places.clone())].into_iter().flatten() {
                fixture.close();
                put(&now, &fixture.vault());
                let crashed = VolumeAnchor { places, ..after.clone() };
                set(&fixture, &crashed);
                fixture.reopen();
                assert_usable(&fixture, ROOT, what);
            }
            fixture.close();
            put(&now, &fixture.vault());
            set(&fixture, &after);
            fixture.reopen();
        }
    }
}

/// The half of the order that no state afterwards tells of: while the keystore cannot be written,
/// nothing comes to a place that it gives to another directory.
#[test]
fn a_place_is_given_up_before_another_directory_comes_there() {
    let fixture = Fixture::new();
    for top in ["a", "b"] {
        let top = fixture.mkdir(ROOT, top).unwrap().ino;
        let own = fixture.mkdir(top, "own").unwrap().ino;
        fixture.volume().set_dir_policy(own, fixture.new_key(), None).unwrap();
    }
    let store = rusqlite::Connection::open(saved(&fixture, "store")).unwrap();
    let (a, b) = (backing(&fixture, "a"), backing(&fixture, "b"));
    let own = fs::symlink_metadata(backing(&fixture, "a/own")).unwrap().ino();
    // Of the one directory in each what a finished one is called, and which it is.
    let inside = |dir: &Path| {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
        let shown =
            entries.filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b".kmsfs"));
        shown.map(|entry| entry.metadata().unwrap().ino()).collect::<Vec<_>>()
    };
    let blocked = |act: &(dyn Fn() + Sync), is_before: &dyn Fn() -> bool| {
        store.execute_batch("BEGIN IMMEDIATE").unwrap();
        std::thread::scope(|scope| {
            let acting = scope.spawn(act);
            std::thread::sleep(Duration::from_millis(500));
            let waits = !acting.is_finished() && is_before();
            store.execute_batch("ROLLBACK").unwrap();
            acting.join().unwrap();
            assert!(waits, "it came there before the anchor was written");
        });
        assert!(!is_before());
    };
    blocked(&|| go(&fixture, "a/own", "b/own", EXCHANGE), &|| inside(&a) == [own]);
    assert_eq!(inside(&b), [own]);
    fixture.volume().rmdir(fixture.find("a").unwrap(), b"own").unwrap();
    let make = || {
        fixture.mkdir(fixture.find("a").unwrap(), "own").unwrap();
    };
    blocked(&make, &|| inside(&a).is_empty());
}

/// Whoever opened one before, and notes it afterwards, notes nothing that is not so any more.
#[test]
fn directories_that_change_places_while_they_are_opened_are_not_refused() {
    let mut fixture = Fixture::new();
    let own = fixture.mkdir(ROOT, "own").unwrap().ino;
    fixture.volume().set_dir_policy(own, fixture.new_key(), None).unwrap();
    fixture.mkdir(ROOT, "plain").unwrap();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    for name in ["own", "plain"] {
                        // To look for anything in it opens it, whichever it is.
                        let _none = fixture.find(&format!("{name}/none"));
                    }
                }
            });
        }
        for _ in 0..200 {
            go(&fixture, "own", "plain", EXCHANGE);
        }
        ended.store(true, Ordering::Relaxed);
    });
    for _ in 0..2 {
        assert_usable(&fixture, ROOT, "after exchanges");
        go(&fixture, "own", "plain", EXCHANGE);
        fixture.reopen();
    }
}

fn set(fixture: &Fixture, anchor: &VolumeAnchor) {
    let volume = fixture.keystore.known_volumes().unwrap()[0].id;
    fixture.keystore.set_volume_anchor(volume, &fixture.vault(), anchor).unwrap();
}

/// It and all that is below it; also if what is below is looked at first.
fn assert_usable(fixture: &Fixture, ino: u64, what: &str) {
    let mut names = fixture.list(ino);
    for _ in 0..2 {
        for name in &names {
            let found = fixture.volume().lookup(ino, name.as_bytes()).unwrap().unwrap();
            assert_usable(fixture, found.ino, what);
        }
        names.reverse();
    }
    fixture.file(ino, "probe", "x").unwrap_or_else(|error| panic!("{what}: {error}"));
    fixture.volume().unlink(ino, b"probe").unwrap();
}

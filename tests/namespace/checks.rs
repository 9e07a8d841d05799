//! What `fsck` tells and repairs.

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use kmsfs::volume::content::Access;
use kmsfs::volume::{CheckReport, Options, Origin, Repair, SetMode};
use rustix::fs::{XattrFlags, getxattr, listxattr, removexattr, setxattr};

use crate::fixture::{Fixture, ROOT, caller};

/// Each of these was "all well": the other copy is read, or nothing read it at all.
#[test]
fn regression_a_check_tells_of_every_damaged_second_copy_and_attribute() {
    let mut fixture = Fixture::new();
    let file = fixture.file(ROOT, "file", &"contents".repeat(5000)).unwrap().ino;
    let dir = fixture.mkdir(ROOT, "dir").unwrap().ino;
    for ino in [file, dir] {
        fixture.volume().set_xattr(ino, b"user.a", b"value", SetMode::Any, caller()).unwrap();
    }
    fixture.volume().end().unwrap();
    fixture.reopen();
    // The second copy of a spill page comes with the second change.
    let found = fixture.find("file").unwrap();
    let opened = fixture.volume().open_handle(found, Access::ReadWrite).unwrap().handle;
    opened.file.write(9, b"changed", Origin::Caller).unwrap();
    opened.file.write(39_000, &[b'x'; 2000], Origin::Caller).unwrap();
    fixture.volume().close(opened);
    fixture.volume().end().unwrap();
    let (file, dir) = (by_inode(&fixture, file), by_inode(&fixture, dir));
    let clean = check(&mut fixture, Repair::No);
    assert!(clean.is_clean() && clean.problems.is_empty(), "{:?}", clean.problems);

    let own = fixture.vault().join(".kmsfs");
    let spill = spill_copy(&file);
    type Damage<'a> = (&'a str, Box<dyn Fn() + 'a>, bool);
    let damages: Vec<Damage<'_>> = vec![
        ("first header", Box::new(|| flip(&file, 100)), true),
        ("second header", Box::new(|| flip(&file, 612)), true),
        ("copy of its spill page 0", Box::new(|| flip(&file, spill + 100)), true),
        ("volume descriptor", Box::new(|| flip(&own.join("volume"), 100)), true),
        ("volume descriptor", Box::new(|| fs::remove_file(own.join("volume.bak")).unwrap()), true),
        ("record of sessions", Box::new(|| fs::remove_file(own.join("state")).unwrap()), true),
        ("descriptor is", Box::new(|| flip(&fixture_root(&own).join(".kmsfs.dir"), 100)), true),
        ("descriptor is", Box::new(|| fs::remove_file(dir.join(".kmsfs.dir")).unwrap()), true),
        ("attribute is damaged", Box::new(|| change(&dir, DIR_MIRROR)), true),
        ("attribute is missing", Box::new(|| removexattr(&dir, DIR_MIRROR).unwrap()), true),
        ("attribute of it", Box::new(|| change(&dir, &encrypted(&dir))), false),
        ("attribute of it", Box::new(|| change(&file, &encrypted(&file))), false),
    ];
    for (what, damage, is_repaired) in damages {
        // Nobody has it open: what is damaged is damaged at rest.
        fixture.close();
        damage();
        let told = check(&mut fixture, Repair::No);
        let [problem] = &told.problems[..] else { panic!("{what}: {:?}", told.problems) };
        assert!(problem.what.contains(what) && !told.is_clean(), "{what}: {problem:?}");
        let told = check(&mut fixture, Repair::Yes);
        assert_eq!(told.is_clean(), is_repaired, "{what}: {:?}", told.problems);
        assert_eq!(told.problems.len(), 1, "{what}: {:?}", told.problems);
        if is_repaired {
            let again = check(&mut fixture, Repair::No);
            assert!(again.problems.is_empty(), "{what}: {:?}", again.problems);
        } else {
            // Flipped once more it is as it was.
            damage();
        }
    }
    let left = check(&mut fixture, Repair::No);
    assert!(left.problems.is_empty(), "{:?}", left.problems);
}

/// A crash between a sidecar and its entry was told as damage.
#[test]
fn regression_the_sidecar_of_a_name_that_never_came_is_no_damage() {
    let mut fixture = Fixture::new();
    let name = "n".repeat(200);
    fixture.file(ROOT, &name, "x").unwrap();
    let [sidecar] = &fixture.backing(|name| name.ends_with(".name"))[..] else { panic!("one") };
    let other = sidecar.with_file_name(format!("kn.{}.name", "A".repeat(43)));
    fs::copy(sidecar, &other).unwrap();
    for (repair, stays) in [(Repair::No, true), (Repair::Yes, false)] {
        let report = check(&mut fixture, repair);
        let [left] = &report.problems[..] else { panic!("{:?}", report.problems) };
        assert!(left.leftover && report.is_clean(), "{left:?}");
        assert_eq!(other.exists(), stays);
    }
    fixture.reopen();
    assert_eq!(fixture.contents(fixture.find(&name).unwrap()), "x");
}

/// Each block that was not there was looked at, told of and kept in memory.
#[test]
fn regression_a_check_of_a_file_that_was_made_very_long_ends() {
    let mut fixture = Fixture::new();
    let ino = fixture.file(ROOT, "file", &"contents".repeat(5000)).unwrap().ino;
    fixture.volume().end().unwrap();
    fixture.close();
    fixture.reopen();
    let file = by_inode(&fixture, ino);
    fixture.close();
    fs::File::options().write(true).open(file).unwrap().set_len(1 << 43).unwrap();
    let report = check(&mut fixture, Repair::No);
    let told = report.problems.len();
    assert!(!report.is_clean() && (1..20).contains(&told), "{told}: {:?}", report.problems.first());
}

fn check(fixture: &mut Fixture, repair: Repair) -> CheckReport {
    fixture.close();
    fixture.reopen_with(Options { read_only: repair == Repair::No, ..Options::default() });
    let report = fixture.volume().check(repair, &mut |_| ControlFlow::Continue(())).unwrap();
    fixture.volume().end().unwrap();
    fixture.close();
    report
}

fn fixture_root(own: &Path) -> PathBuf {
    own.parent().unwrap().to_owned()
}

fn by_inode(fixture: &Fixture, ino: u64) -> PathBuf {
    let all = fixture.backing(|_| true);
    all.into_iter().find(|path| path.symlink_metadata().unwrap().ino() == ino).unwrap()
}

/// Changes some bytes; once more, they are as they were.
fn flip(path: &Path, offset: u64) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut bytes = [0; 20];
    file.read_exact_at(&mut bytes, offset).unwrap();
    bytes.iter_mut().for_each(|byte| *byte ^= 0xff);
    file.write_all_at(&bytes, offset).unwrap();
}

/// The offset of a copy of the first spill page that is there.
fn spill_copy(file: &Path) -> u64 {
    let bytes = fs::read(file).unwrap();
    let page = |number: usize| &bytes[number * 4096..(number + 1) * 4096];
    let there = |number: &usize| page(*number).iter().any(|byte| *byte != 0);
    4096 * [1, 2].into_iter().find(there).unwrap() as u64
}

fn change(path: &Path, name: &str) {
    let mut value = vec![0; 65536];
    let length = getxattr(path, name, &mut value[..]).unwrap();
    value.truncate(length);
    value.iter_mut().skip(40).take(4).for_each(|byte| *byte ^= 0xff);
    setxattr(path, name, &value, XattrFlags::empty()).unwrap();
}

/// The backing name of the encrypted attribute.
fn encrypted(path: &Path) -> String {
    let mut names = vec![0; 65536];
    let length = listxattr(path, &mut names[..]).unwrap();
    let names = String::from_utf8(names[..length].to_vec()).unwrap();
    names.split('\0').find(|name| name.starts_with("user.kmsfs.x.")).unwrap().to_owned()
}

const DIR_MIRROR: &str = kmsfs::envelope::DIR_XATTR;

/// Of files that were never synced, a crash brought the attributes to the disk and not the headers with
/// their keys. These files got new contents, and from then on a check told of tampering.
#[test]
fn regression_attributes_under_a_lost_key_go_with_the_first_header() {
    let mut fixture = Fixture::new();
    for name in ["written", "described"] {
        let ino = fixture.file(ROOT, name, "").unwrap().ino;
        fixture.volume().set_xattr(ino, b"user.a", b"1", SetMode::Any, caller()).unwrap();
    }
    fixture.close();
    let root = fixture.vault();
    for path in fixture.backing(|name| !name.starts_with(".kmsfs")) {
        // Not what is in `.kmsfs`.
        if path.parent() != Some(root.as_path()) {
            continue;
        }
        fs::File::options().write(true).open(path).unwrap().set_len(0).unwrap();
    }
    let left = check(&mut fixture, Repair::No);
    assert!(left.is_clean() && left.problems.is_empty(), "{:?}", left.problems);

    fixture.reopen();
    let written = fixture.find("written").unwrap();
    let opened = fixture.volume().open_handle(written, Access::ReadWrite).unwrap().handle;
    opened.file.write(0, b"new", Origin::Caller).unwrap();
    fixture.volume().close(opened);
    let described = fixture.find("described").unwrap();
    fixture.volume().set_xattr(described, b"user.b", b"2", SetMode::Any, caller()).unwrap();
    fixture.volume().end().unwrap();
    let left = check(&mut fixture, Repair::No);
    assert!(left.is_clean() && left.problems.is_empty(), "{:?}", left.problems);
    fixture.reopen();
    let described = fixture.find("described").unwrap();
    assert_eq!(fixture.volume().xattr_names(described, caller()).unwrap(), b"user.b\0");
    let value = fixture.volume().xattr(described, b"user.b", caller()).unwrap();
    assert_eq!(value, b"2");
}

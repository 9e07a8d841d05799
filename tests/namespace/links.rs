//! Symbolic links of every length, and hard links.

use std::fs;
use std::ops::ControlFlow;

use kmsfs::volume::{Options, Repair, VolumeError};

use crate::fixture::{Fixture, REPLACE, ROOT, caller};

#[test]
fn a_target_of_any_length_reads_back_wherever_the_link_goes() {
    let mut fixture = Fixture::new();
    let dir = fixture.mkdir(ROOT, "d").unwrap().ino;
    for length in [1, 2, 3, 500, 3054, 3055, 3056, 4094, 4095] {
        let (name, target) = (length.to_string(), vec![b'x'; length]);
        let made = fixture.volume().symlink(ROOT, name.as_bytes(), &target, caller()).unwrap();
        assert_eq!(made.size, length as u64);
        fixture.rename((ROOT, &name), (dir, &name), REPLACE).unwrap();
        assert_eq!(fixture.volume().read_link(made.ino).unwrap(), target);
    }
    fixture.reopen();
    let ino = fixture.find("d/4095").unwrap();
    assert_eq!(fixture.volume().attr(ino).unwrap().size, 4095);
    assert_eq!(fixture.volume().read_link(ino).unwrap(), vec![b'x'; 4095]);
}

#[test]
fn a_longer_target_is_refused_and_leaves_nothing() {
    let fixture = Fixture::new();
    let made = fixture.volume().symlink(ROOT, b"l", &[b'x'; 4096], caller());
    assert!(matches!(made, Err(VolumeError::NameTooLong)));
    assert!(fixture.list(ROOT).is_empty());
}

#[test]
fn the_file_of_a_long_target_is_collected_by_a_check_after_the_last_link() {
    let fixture = Fixture::new();
    let volume = fixture.volume();
    let files = || fixture.backing(|name| name.len() == 32).len();
    let ino = volume.symlink(ROOT, b"l", &[b'x'; 4000], caller()).unwrap().ino;
    volume.link(ino, ROOT, b"m").unwrap();
    volume.unlink(ROOT, b"l").unwrap();
    assert_eq!(files(), 1);
    assert_eq!(volume.read_link(ino).unwrap().len(), 4000);
    fixture.file(ROOT, "f", "").unwrap();
    volume.check(Repair::Yes, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(files(), 1);
    fixture.rename((ROOT, "f"), (ROOT, "m"), REPLACE).unwrap();
    volume.check(Repair::Yes, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(files(), 0);
}

/// Where others may enter the vault, whoever unlinked a link of theirs with the text of somebody else's
/// removed the target of that one.
#[test]
fn regression_a_planted_link_takes_nobodys_target_with_it() {
    let mut fixture = Fixture::new();
    for open_vault in [false, true] {
        fixture.reopen_with(Options { open_vault, ..Options::default() });
        let ino = fixture.volume().symlink(ROOT, b"l", &[b'x'; 4000], caller()).unwrap().ino;
        let is_link = |path: &std::path::PathBuf| path.is_symlink();
        let backing = fixture.backing(|_| true).into_iter().find(is_link).unwrap();
        let text = fs::read_link(backing).unwrap();
        for planted in ["one", "two"] {
            std::os::unix::fs::symlink(&text, fixture.vault().join(planted)).unwrap();
        }
        // Removed where it lies, and renamed into the mount and replaced there.
        fixture.volume().unlink(ROOT, b"kmsfs.foreign.one").unwrap();
        fixture.rename((ROOT, "kmsfs.foreign.two"), (ROOT, "taken"), REPLACE).unwrap();
        fixture.file(ROOT, "file", "").unwrap();
        fixture.rename((ROOT, "file"), (ROOT, "taken"), REPLACE).unwrap();
        assert_eq!(fixture.volume().read_link(ino).unwrap().len(), 4000);
        fixture.volume().unlink(ROOT, b"taken").unwrap();
        fixture.volume().unlink(ROOT, b"l").unwrap();
        let files = || fixture.backing(|name| name.len() == 32).len();
        assert_eq!(files(), 1, "another link might name it");
        fixture.volume().check(Repair::Yes, &mut |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(files(), 0);
    }
}

#[test]
fn a_link_that_somebody_else_made_is_not_followed_to_anywhere() {
    let fixture = Fixture::new();
    std::os::unix::fs::symlink("/etc/passwd", fixture.vault().join("evil")).unwrap();
    let ino = fixture.find("kmsfs.foreign.evil").unwrap();
    assert!(matches!(fixture.volume().read_link(ino), Err(VolumeError::Tampered(_))));
}

#[test]
fn a_further_name_counts_and_shares_the_contents() {
    let fixture = Fixture::new();
    let dir = fixture.mkdir(ROOT, "d").unwrap().ino;
    let ino = fixture.file(ROOT, "a", "shared").unwrap().ino;
    let linked = fixture.volume().link(ino, dir, b"b").unwrap();
    assert_eq!((linked.ino, linked.nlink, linked.size), (ino, 2, 6));
    fixture.volume().unlink(ROOT, b"a").unwrap();
    assert_eq!(fixture.contents(ino), "shared");
    assert_eq!(fixture.volume().attr(ino).unwrap().nlink, 1);
}

#[test]
fn regression_a_look_at_a_link_whose_target_is_lost_makes_nothing() {
    let mut fixture = Fixture::new();
    fixture.volume().symlink(ROOT, b"l", &[b'x'; 4000], caller()).unwrap();
    let links = fixture.vault().join(".kmsfs/links");
    fs::remove_dir_all(&links).unwrap();
    for read_only in [true, false] {
        fixture.reopen_with(Options { read_only, ..Options::default() });
        let ino = fixture.find("l").unwrap();
        assert!(fixture.volume().read_link(ino).is_err());
        assert!(!links.exists(), "read only: {read_only}");
    }
    fixture.volume().unlink(ROOT, b"l").unwrap();
    assert!(!links.exists());
}

#[test]
fn regression_the_file_of_a_target_without_a_link_is_found_and_removed_by_a_check() {
    let fixture = Fixture::new();
    fixture.volume().symlink(ROOT, b"kept", &[b'x'; 4000], caller()).unwrap();
    let links = fixture.vault().join(".kmsfs/links");
    fs::write(links.join("0".repeat(32)), "left over").unwrap();
    let check = |repair| {
        let report = fixture.volume().check(repair, &mut |_| ControlFlow::Continue(())).unwrap();
        assert!(report.is_clean() && report.problems.iter().all(|problem| problem.leftover));
        report.problems.iter().map(|problem| problem.repaired).collect::<Vec<_>>()
    };
    assert_eq!(check(Repair::No), [false]);
    assert_eq!(check(Repair::Yes), [true]);
    assert!(check(Repair::No).is_empty());
    assert_eq!(fs::read_dir(&links).unwrap().count(), 1);
}

/// A symbolic link in the place of the directory of long targets ended every `fsck`, and no long
/// target could be made any more.
#[test]
fn regression_a_link_in_the_place_of_the_long_targets_is_replaced() {
    let fixture = Fixture::new();
    let outside = fixture.vault().with_extension("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("victim"), "precious").unwrap();
    std::os::unix::fs::symlink(&outside, fixture.vault().join(".kmsfs/links")).unwrap();
    fixture.volume().check(Repair::Yes, &mut |_| ControlFlow::Continue(())).unwrap();
    let target = vec![b'x'; 4000];
    let made = fixture.volume().symlink(ROOT, b"long", &target, caller()).unwrap();
    assert_eq!(fixture.volume().read_link(made.ino).unwrap(), target);
    let names: Vec<_> = fs::read_dir(&outside).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["victim"]);
    fs::remove_dir_all(outside).unwrap();
}

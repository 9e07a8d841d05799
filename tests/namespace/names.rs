//! Long, foreign, hidden and reserved names.

use std::fs;

use kmsfs::volume::{Options, VolumeError};

use crate::fixture::{Fixture, REPLACE, ROOT, caller};

#[test]
fn no_plaintext_name_reaches_the_vault() {
    let fixture = Fixture::new();
    let dir = fixture.mkdir(ROOT, "salaries").unwrap();
    fixture.file(dir.ino, "bob", "").unwrap();
    assert!(fixture.backing(|name| name.contains("salaries") || name == "bob").is_empty());
}

#[test]
fn names_of_255_bytes_work_and_longer_ones_are_refused() {
    let mut fixture = Fixture::new();
    let (name, longer) = ("n".repeat(255), "n".repeat(256));
    fixture.file(ROOT, &name, "long").unwrap();
    assert!(matches!(fixture.file(ROOT, &longer, ""), Err(VolumeError::NameTooLong)));
    fixture.reopen();
    assert_eq!(fixture.list(ROOT), std::slice::from_ref(&name));
    assert_eq!(fixture.contents(fixture.find(&name).unwrap()), "long");
}

#[test]
fn a_long_name_leaves_nothing_behind() {
    let fixture = Fixture::new();
    let (one, other) = ("1".repeat(200), "2".repeat(200));
    fixture.file(ROOT, &one, "").unwrap();
    fixture.rename((ROOT, &one), (ROOT, &other), REPLACE).unwrap();
    assert_eq!(fixture.backing(|name| name.starts_with("kn.")).len(), 2);
    fixture.volume().unlink(ROOT, other.as_bytes()).unwrap();
    assert!(fixture.backing(|name| name.starts_with("kn.")).is_empty());
}

/// Whoever found the name taken removed the sidecar of the one who had made it meanwhile.
#[test]
fn regression_of_many_who_make_one_long_name_none_takes_it_from_the_other() {
    let fixture = Fixture::new();
    let start = std::sync::Barrier::new(8);
    for round in 0..40 {
        let name = format!("{round:03}").repeat(70);
        std::thread::scope(|scope| {
            let make = |kind: usize| {
                start.wait();
                let made = match kind % 3 {
                    0 => fixture.mkdir(ROOT, &name),
                    1 => fixture.file(ROOT, &name, ""),
                    _ => fixture.volume().symlink(ROOT, name.as_bytes(), b"to", caller()),
                };
                u32::from(made.is_ok())
            };
            let makers: Vec<_> = (0..8).map(|kind| scope.spawn(move || make(kind))).collect();
            let made: u32 = makers.into_iter().map(|maker| maker.join().unwrap()).sum();
            assert_eq!(made, 1);
        });
        assert_eq!(fixture.list(ROOT), [name.as_str()]);
        if fixture.volume().unlink(ROOT, name.as_bytes()).is_err() {
            fixture.volume().rmdir(ROOT, name.as_bytes()).unwrap();
        }
    }
    assert!(fixture.backing(|name| name.starts_with("kn.")).is_empty());
}

#[test]
fn a_sidecar_that_a_crash_left_is_no_obstacle() {
    let fixture = Fixture::new();
    let dir = fixture.mkdir(ROOT, "d").unwrap();
    let name = "n".repeat(200);
    fixture.file(dir.ino, &name, "").unwrap();
    let entry = fixture.backing(|name| name.starts_with("kn.") && !name.ends_with(".name"));
    fs::remove_file(&entry[0]).unwrap();
    assert!(fixture.list(dir.ino).is_empty());
    fixture.volume().rmdir(ROOT, b"d").unwrap();
}

#[test]
fn regression_a_long_name_that_was_lost_is_written_down_again_when_it_is_used() {
    type Spoil = fn(&std::path::Path);
    let spoilers: [Spoil; 4] = [
        |sidecar| fs::write(sidecar, "").unwrap(),
        |sidecar| fs::write(sidecar, "another").unwrap(),
        |sidecar| fs::remove_file(sidecar).unwrap(),
        |sidecar| {
            fs::remove_file(sidecar).unwrap();
            std::os::unix::fs::symlink("/etc/passwd", sidecar).unwrap();
        },
    ];
    let name = "n".repeat(200);
    for spoil in spoilers {
        let mut fixture = Fixture::new();
        fixture.file(ROOT, &name, "x").unwrap();
        spoil(&fixture.backing(|name| name.ends_with(".name"))[0]);
        fixture.reopen_with(Options { read_only: true, ..Options::default() });
        fixture.find(&name).unwrap();
        assert!(fixture.list(ROOT)[0].starts_with("kmsfs.foreign."), "nothing is written");
        fixture.reopen();
        assert!(fixture.list(ROOT)[0].starts_with("kmsfs.foreign."));
        fixture.find(&name).unwrap();
        assert_eq!(fixture.list(ROOT), std::slice::from_ref(&name));
    }
}

#[test]
fn foreign_entries_are_shown_and_can_be_removed() {
    let fixture = Fixture::new();
    fs::write(fixture.vault().join("intruder"), "x").unwrap();
    fs::write(fixture.vault().join("y".repeat(255)), "x").unwrap();
    fs::create_dir(fixture.vault().join("folder")).unwrap();
    let names = fixture.list(ROOT);
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(names.iter().all(|name| name.starts_with("kmsfs.foreign.") && name.len() <= 255));
    fixture.find("kmsfs.foreign.intruder").unwrap();
    fixture.volume().rmdir(ROOT, b"kmsfs.foreign.folder").unwrap();
    for name in names.iter().filter(|name| !name.ends_with("folder")) {
        fixture.volume().unlink(ROOT, name.as_bytes()).unwrap();
    }
    assert!(fixture.list(ROOT).is_empty());
}

#[test]
fn nothing_can_be_made_under_a_foreign_name() {
    let fixture = Fixture::new();
    let made = fixture.file(ROOT, "kmsfs.foreign.x", "");
    assert!(matches!(made, Err(VolumeError::ReservedName)));
    fixture.file(ROOT, "x", "").unwrap();
    let renamed = fixture.rename((ROOT, "x"), (ROOT, "kmsfs.foreign.x"), REPLACE);
    assert!(matches!(renamed, Err(VolumeError::ReservedName)));
}

#[test]
fn what_the_key_reads_has_no_second_foreign_name() {
    let fixture = Fixture::new();
    fixture.file(ROOT, "x", "").unwrap();
    let entry = fixture.backing(|name| !name.starts_with(".kmsfs") && name.len() > 20);
    let raw = entry[0].file_name().unwrap().to_str().unwrap();
    let found = fixture.find(&format!("kmsfs.foreign.{raw}"));
    assert!(matches!(found, Err(VolumeError::NotFound)), "{found:?}");
    assert!(fixture.find("kmsfs.foreign..kmsfs").is_err());
    assert!(fixture.find("kmsfs.foreign..kmsfs.dir").is_err());
}

#[test]
fn the_vaults_own_files_are_hidden() {
    let fixture = Fixture::new();
    assert!(fixture.list(ROOT).is_empty());
    fixture.file(ROOT, ".kmsfs", "mine").unwrap();
    assert_eq!(fixture.list(ROOT), [".kmsfs"], "a plaintext name may be anything");
}

#[test]
fn an_encrypted_name_means_nothing_in_another_directory() {
    let fixture = Fixture::new();
    let (one, _) = (fixture.mkdir(ROOT, "one").unwrap(), fixture.mkdir(ROOT, "two").unwrap());
    fixture.file(one.ino, "secret", "").unwrap();
    let from = fixture.backing(|name| name.len() > 25 && !name.starts_with(".kmsfs"));
    let from = from.iter().find(|path| path.is_file()).unwrap();
    let dirs = fixture.backing(|name| name == ".kmsfs.dir");
    let mut to = dirs.iter().map(|file| file.parent().unwrap());
    let to = to.find(|dir| *dir != from.parent().unwrap() && *dir != fixture.vault());
    fs::rename(from, to.unwrap().join(from.file_name().unwrap())).unwrap();
    let two = fixture.find("two").unwrap();
    let names = fixture.list(two);
    assert!(names[0].starts_with("kmsfs.foreign."), "{names:?}");
}

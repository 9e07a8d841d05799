//! Volumes that earlier versions made stay readable, byte for byte.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kmsfs::keystore::{Keystore, Unlock};
use kmsfs::volume::content::Access;
use kmsfs::volume::{Misplaced, Options, ROOT, Repair, Volume, VolumeError};

const SIZES: [usize; 10] = [0, 1, 3028, 3029, 4052, 4096, 4097, 147_456, 147_457, 200_000];

/// `format-1` is of the time before places, states and anchors; `format-1-anchored` has them.
const SAMPLES: [&str; 2] = ["format-1", "format-1-anchored"];

#[test]
fn samples_read_as_they_were_written() {
    for sample in SAMPLES {
        let volume = open_copy(sample);
        read_all(&volume);
        drop(volume);
        let volume = open_writable(&copy(sample));
        read_all(&volume);
        volume.end().unwrap();
    }
}

fn read_all(volume: &Volume) {
    for size in SIZES {
        assert!(read(volume, ROOT, &format!("size-{size}")) == pattern(size), "size {size}");
    }
    assert!(read(volume, ROOT, "after-rotation") == pattern(4096));
    assert!(read(volume, ROOT, &"long-".repeat(48)) == pattern(10));
    let second = volume.lookup(ROOT, b"second").unwrap().unwrap().ino;
    assert!(read(volume, second, "under-another-key") == pattern(5000));
    let link = volume.lookup(ROOT, b"link").unwrap().unwrap().ino;
    assert_eq!(volume.read_link(link).unwrap(), b"a target that nobody may read");
    let mut sparse = vec![0; 300_003];
    sparse[..5].copy_from_slice(b"start");
    sparse[300_000..].copy_from_slice(b"end");
    assert!(read(volume, ROOT, "sparse") == sparse);
}

#[test]
fn samples_pass_the_check() {
    for sample in SAMPLES {
        let volume = open_copy(sample);
        let report = volume.check(Repair::No, &mut |_| ControlFlow::Continue(())).unwrap();
        assert!(report.is_clean(), "{sample}: {report:?}");
        assert_eq!(report.files, SIZES.len() as u64 + 4);
    }
}

/// A young sample needs no step of the upgrade: its directories know their places, its session was
/// closed, and the keystore has both.
#[test]
fn the_anchored_sample_is_believed_as_it_is() {
    let volume = open_copy("format-1-anchored");
    assert!(volume.unrecovered().is_empty());
    let second = volume.lookup(ROOT, b"second").unwrap().unwrap().ino;
    for dir in [ROOT, second] {
        assert!(volume.dir_policy(dir).unwrap().places.unwrap().are_one());
    }
}

/// The first writable session brings an old volume up to date. It may be killed after each step:
/// record, anchor, descriptor, and at last the removal of the old file.
#[test]
fn an_upgrade_can_be_interrupted_after_every_step() {
    let old = copy("format-1");
    let done = copy("format-1");
    drop(open_writable(&done));
    for (record, anchor, descriptor) in
        [(false, false, false), (true, false, false), (true, true, false), (true, true, true)]
    {
        let here = tempdir();
        copy_tree(&old, &here);
        if record {
            fs::copy(done.join("vault/.kmsfs/state"), here.join("vault/.kmsfs/state")).unwrap();
        }
        if anchor {
            fs::copy(done.join("keystore.db"), here.join("keystore.db")).unwrap();
        }
        if descriptor {
            for name in ["volume", "volume.bak"] {
                let name = format!("vault/.kmsfs/{name}");
                fs::copy(done.join(&name), here.join(&name)).unwrap();
            }
        }
        let volume = open_writable(&here);
        assert!(read(&volume, ROOT, "size-200000") == pattern(200_000));
        let report = volume.check(Repair::No, &mut |_| ControlFlow::Continue(())).unwrap();
        assert!(report.is_clean(), "{report:?}");
        volume.end().unwrap();
        drop(volume);
        assert!(!here.join("vault/.kmsfs/session").exists());
        // What builds from before this take for a later format.
        assert_ne!(fs::read(here.join("vault/.kmsfs/volume")).unwrap()[12..16], [0; 4]);
        let again = open_writable(&here);
        assert_eq!(again.unrecovered().iter().filter(|crash| crash.counted).count(), 0);
    }
}

#[test]
fn a_crash_of_an_old_volume_is_believed_once() {
    let here = copy("format-1");
    let session = here.join("vault/.kmsfs/session");
    let crashed = r#"{"number":7,"crashed":0,"open_since":5,"crashes":[]}"#;
    fs::write(&session, crashed).unwrap();
    let volume = open_writable(&here);
    assert_eq!(volume.unrecovered().len(), 1);
    assert!(volume.recover(&mut |_| ControlFlow::Continue(())).unwrap().complete);
    volume.end().unwrap();
    drop(volume);
    fs::write(&session, crashed).unwrap();
    assert!(open_writable(&here).unrecovered().is_empty(), "the keystore knows the volume now");
}

/// Neither where no keystore knows the volume, nor with the descriptor from before.
#[test]
fn a_volume_that_was_brought_up_to_date_is_not_made_old_again() {
    let (here, old) = (copy("format-1"), copy("format-1"));
    open_writable(&here).end().unwrap();
    open_writable(&here).end().unwrap();
    for name in ["keystore.db", "vault/.kmsfs/volume", "vault/.kmsfs/volume.bak"] {
        fs::copy(old.join(name), here.join(name)).unwrap();
    }
    let crashed = r#"{"number":9,"crashed":9,"crashes":[[0,5]]}"#;
    fs::write(here.join("vault/.kmsfs/session"), crashed).unwrap();
    let volume = open_writable(&here);
    assert!(volume.unrecovered().is_empty(), "an authentic record says that nothing crashed");
    volume.end().unwrap();
}

/// Anybody can write a number there.
#[test]
fn a_huge_count_of_an_old_volume_leaves_numbers_for_its_sessions() {
    let here = copy("format-1");
    let huge = r#"{"number":9223372036854775807,"crashed":9223372036854775807,"crashes":[]}"#;
    fs::write(here.join("vault/.kmsfs/session"), huge).unwrap();
    open_writable(&here).end().unwrap();
    let crashed = open_writable(&here);
    assert!(crashed.unrecovered().is_empty());
    drop(crashed);
    let volume = open_writable(&here);
    let crash = volume.unrecovered()[0].word;
    drop(volume);
    let next = open_writable(&here).unrecovered().last().map(|crash| crash.word);
    assert!(next.is_some_and(|next| crash.is_not_after(next)), "{crash} and {next:?}");
}

#[test]
fn a_read_only_volume_is_not_brought_up_to_date() {
    let here = copy("format-1");
    let before = fs::read(here.join("vault/.kmsfs/session")).unwrap();
    drop(open(&here, Options { read_only: true, ..Options::default() }));
    assert!(fs::read(here.join("vault/.kmsfs/session")).unwrap() == before);
    assert!(!here.join("vault/.kmsfs/state").exists());
}

/// And then an old directory, which anybody could put anywhere, is not taken any more.
#[test]
fn the_directories_of_the_sample_get_places_by_the_first_writable_mount() {
    let here = copy("format-1");
    let volume = open_writable(&here);
    volume.place_directories(&mut || ControlFlow::Continue(())).unwrap();
    let second = volume.lookup(ROOT, b"second").unwrap().unwrap().ino;
    assert!(volume.dir_policy(second).unwrap().places.unwrap().are_one());
    assert!(volume.dir_policy(ROOT).unwrap().places.unwrap().are_one());
    volume.end().unwrap();
    drop(volume);
    let volume = open_writable(&here);
    let second = volume.lookup(ROOT, b"second").unwrap().unwrap().ino;
    assert!(read(&volume, second, "under-another-key") == pattern(5000));
    volume.end().unwrap();
    drop(volume);
    let in_second = |vault: &Path| {
        let mut dirs = fs::read_dir(vault).unwrap().map(|entry| entry.unwrap().path());
        dirs.find(|dir| dir.is_dir() && dir.join(".kmsfs.dir").exists()).unwrap()
    };
    let old = in_second(&copy("format-1").join("vault"));
    let new = in_second(&here.join("vault"));
    fs::remove_dir_all(&new).unwrap();
    fs::create_dir(&new).unwrap();
    copy_tree(&old, &new);
    let volume = open_writable(&here);
    let second = volume.lookup(ROOT, b"second").unwrap().unwrap().ino;
    let refused = volume.dir_policy(second);
    assert!(matches!(refused, Err(VolumeError::Misplaced(Misplaced::Unplaced))), "{refused:?}");
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| u8::try_from((i * 7 + (i >> 8)) & 255).unwrap()).collect()
}

fn read(volume: &Volume, parent: u64, name: &str) -> Vec<u8> {
    let attr = volume.lookup(parent, name.as_bytes()).unwrap().expect(name);
    let handle = volume.open_handle(attr.ino, Access::ReadOnly).unwrap().handle;
    let mut bytes = vec![0xee; usize::try_from(attr.size).unwrap()];
    assert_eq!(handle.file.read(0, &mut bytes).unwrap(), bytes.len());
    volume.close(handle);
    bytes
}

/// A sample is opened as a copy, which has lost its attributes and holes like one that any tool
/// made: nothing depends on them.
fn open_copy(format: &str) -> Volume {
    open(&copy(format), Options { read_only: true, ..Options::default() })
}

fn open_writable(here: &Path) -> Volume {
    open(here, Options::default())
}

fn copy(format: &str) -> PathBuf {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/volumes").join(format);
    let copy = tempdir();
    copy_tree(&sample, &copy);
    fs::set_permissions(copy.join("key"), fs::Permissions::from_mode(0o600)).unwrap();
    copy
}

fn open(here: &Path, options: Options) -> Volume {
    let unlock = Unlock::KeyFile(here.join("key"));
    let keystore = Keystore::open(&here.join("keystore.db"), &unlock).unwrap();
    let options = Options { open_vault: true, ..options };
    Volume::open_vault(&here.join("vault"), Arc::new(keystore), options).unwrap()
}

fn tempdir() -> PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("golden-{}-{number}", std::process::id());
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&path).unwrap();
    path
}

fn copy_tree(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            fs::create_dir_all(&target).unwrap();
            copy_tree(&entry.path(), &target);
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path()).unwrap(), &target).unwrap();
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

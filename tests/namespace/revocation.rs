//! A key is disabled while its files and directories are in use.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kmsfs::keystore::KeyRef;
use kmsfs::volume::content::Access;
use kmsfs::volume::{
    Detail, DirStream, File, KernelCache, LocalKeys, OpenFor, Options, Origin, Result, RewrapJob,
    Sink, Volume, VolumeError,
};

use crate::fixture::{Fixture, ROOT};
use crate::interrupted::{Interrupted, Question};

/// The stream kept the keys of its directory, and went on listing plaintext names.
#[test]
fn regression_an_open_directory_lists_no_names_under_a_disabled_key() {
    let fixture = Fixture::new();
    fixture.file(ROOT, "secret plans", "").unwrap();
    let volume = fixture.volume();
    let stream = volume.open_dir_stream(ROOT).unwrap();
    let is_shown = || names(volume, &stream).contains(&"secret plans".to_owned());
    assert!(is_shown());
    fixture.disable(fixture.key());
    volume.watch_keys();
    assert!(!is_shown(), "{:?}", names(volume, &stream));
    fixture.enable(fixture.key());
    volume.watch_keys();
    assert!(is_shown());
}

/// Linux gives no entries of a removed directory, and an error in place of an empty list.
#[test]
fn an_open_directory_that_was_removed_lists_nothing() {
    let fixture = Fixture::new();
    let dir = fixture.mkdir(ROOT, "dir").unwrap().ino;
    let volume = fixture.volume();
    let stream = volume.open_dir_stream(dir).unwrap();
    volume.rmdir(ROOT, b"dir").unwrap();
    let listed = volume.read_dir(&stream, 0, Detail::Names, |_| Sink::Taken);
    assert!(matches!(listed, Err(VolumeError::Io(rustix::io::Errno::NOENT))), "{listed:?}");
}

/// FORGET can overtake LOOKUP and OPEN: it took an open file off the list of those to be dropped.
#[test]
fn regression_an_open_file_is_dropped_though_the_kernel_forgot_it() {
    let fixture = Fixture::new();
    let ino = fixture.file(ROOT, "file", "contents").unwrap().ino;
    let (volume, kernel) = (fixture.volume(), fixture.kernel());
    let handle = volume.open_handle(ino, Access::ReadOnly).unwrap().handle;
    volume.forget(ino, 1);
    fixture.disable(fixture.key());
    volume.watch_keys();
    assert!(kernel.take().contains(&ino));
    volume.close(handle);
}

/// Every file that a re-wrap had opened stayed on the list of what the kernel may have cached.
#[test]
fn regression_a_rewrap_leaves_nothing_behind_of_files_that_the_kernel_does_not_know() {
    let fixture = Fixture::new();
    let (known, unknown) = (fixture.file(ROOT, "a", "1").unwrap(), fixture.file(ROOT, "b", "2"));
    let (volume, kernel) = (fixture.volume(), fixture.kernel());
    let unknown = unknown.unwrap().ino;
    volume.forget(unknown, 1);
    let key = KeyRef::Id(fixture.key());
    fixture.keystore.rotate_key_on_demand(&key, std::time::SystemTime::now()).unwrap();
    let go_on = &mut |_: &_| std::ops::ControlFlow::Continue(());
    let report = volume.rewrap(RewrapJob::default(), go_on, &mut |_| {}).unwrap();
    assert_eq!(report.rewrapped, 2);
    fixture.disable(fixture.key());
    volume.watch_keys();
    let dropped = kernel.take();
    assert!(dropped.contains(&known.ino) && !dropped.contains(&unknown), "{dropped:?}");
}

/// What cannot be read says nothing of its keys, and cannot be used to say that they are revoked.
#[test]
fn another_file_in_the_place_of_the_keystore_revokes_its_keys_and_they_come_back_with_it() {
    let mut fixture = Fixture::new();
    let ino = fixture.file(ROOT, "file", "contents").unwrap().ino;
    let keys = LocalKeys::new(fixture.keystore.clone(), Duration::ZERO);
    fixture.reopen_over(Arc::new(keys), Options::default());
    let kernel = fixture.kernel();
    assert_eq!(fixture.find("file").unwrap(), ino);
    let volume = fixture.volume();
    let handle = volume.open_handle(ino, Access::ReadOnly).unwrap().handle;
    let reads = || handle.file.read(0, &mut [0; 8]);
    let (store, away) =
        (fixture.keystore.path().to_owned(), fixture.keystore.path().with_extension("x"));
    std::fs::rename(&store, &away).unwrap();
    for other in [false, true] {
        if other {
            std::fs::copy(&away, &store).unwrap();
        }
        volume.watch_keys();
        assert!(matches!(reads(), Err(VolumeError::KeyUnusable(_))), "{other}");
        assert!(other || kernel.take().contains(&ino));
    }
    std::fs::rename(&away, &store).unwrap();
    volume.watch_keys();
    assert_eq!(reads().unwrap(), 8);
    volume.close(handle);
}

/// The second key was usable until the kernel had written the dirty pages of the first.
#[test]
fn regression_all_keys_are_refused_before_the_kernel_is_asked() {
    let fixture = Fixture::new();
    let other = fixture.new_key();
    let dir = fixture.mkdir(ROOT, "dir").unwrap().ino;
    let volume = fixture.volume();
    volume.set_dir_policy(dir, other, None).unwrap();
    let inos = [fixture.file(ROOT, "a", "1"), fixture.file(dir, "b", "2")];
    let open = |ino| volume.open_handle(ino, Access::ReadOnly).unwrap().handle;
    let handles = inos.map(|attr| open(attr.unwrap().ino));
    let files = handles.iter().map(|handle| handle.file.clone()).collect();
    let kernel = Arc::new(Reads { files, read: Mutex::default() });
    volume.attach_kernel(kernel.clone());
    fixture.disable(fixture.key());
    fixture.disable(other);
    volume.watch_keys();
    let read = kernel.read.lock().unwrap();
    assert!(read.len() >= 2 && read.iter().all(|result| *result), "{read:?}");
    handles.into_iter().for_each(|handle| volume.close(handle));
}

/// What was under way when the key went came back with it, and kept it.
#[test]
fn regression_a_key_that_is_revoked_on_its_way_here_stays_with_nobody() {
    for case in ["open", "write", "list"] {
        let mut fixture = Fixture::new();
        let dir = fixture.mkdir(ROOT, "dir").unwrap().ino;
        fixture.file(dir, "file", "contents").unwrap();
        let service = Interrupted::under(&mut fixture);
        let ino = fixture.find("dir/file").unwrap();
        let (volume, key) = (fixture.shared(), fixture.key());
        // The volume notices before it has the answer.
        let revoke_when = |answered| {
            let keystore = fixture.keystore.clone();
            service.during_next(answered, key, move |volume| {
                keystore.disable_key(&KeyRef::Id(key)).unwrap();
                volume.watch_keys();
            });
        };
        let refused = |result: Result<()>| {
            assert!(matches!(result, Err(VolumeError::KeyUnusable(_))), "{case}: {result:?}");
        };
        match case {
            "open" => {
                revoke_when(Question::Unwrapped);
                refused(volume.open_handle(ino, Access::ReadOnly).map(drop));
                assert!(volume.files().find(ino).is_none());
            }
            "write" => {
                let new = crate::fixture::new_node(0o644);
                let (_, made) = volume.create_file(dir, b"new", &new, OpenFor::Both).unwrap();
                revoke_when(Question::Generate);
                refused(made.file.write(0, b"first", Origin::Caller).map(drop));
                volume.close(made);
            }
            _ => {
                let other = fixture.mkdir(dir, "other").unwrap().ino;
                revoke_when(Question::Unwrapped);
                let _ = volume.lookup(other, b"nothing");
                let stream = volume.open_dir_stream(dir).unwrap();
                let shown = names(&volume, &stream);
                assert!(!shown.contains(&"file".to_owned()), "{shown:?}");
                refused(volume.lookup(other, b"nothing").map(drop));
            }
        }
        assert!(!service.is_due(), "{case}");
    }
}

/// Whoever looked at a file during its last close kept it open, for good on a read-only mount.
#[test]
fn regression_what_is_closed_late_is_closed_on_a_read_only_mount_too() {
    let mut fixture = Fixture::new();
    fixture.file(ROOT, "file", "contents").unwrap();
    fixture.reopen_with(Options { read_only: true, ..Options::default() });
    let (ino, volume) = (fixture.find("file").unwrap(), fixture.shared());
    let handle = volume.open_handle(ino, Access::ReadOnly).unwrap().handle;
    let looked_at = volume.files().find(ino).unwrap();
    volume.close(handle);
    drop(looked_at);
    let upkeep = volume.start_upkeep().unwrap();
    let start = Instant::now();
    while volume.files().find(ino).is_some() {
        assert!(start.elapsed() < Duration::from_secs(60), "it stays open");
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(upkeep);
}

/// The names in a directory without the dots.
fn names(volume: &Volume, stream: &DirStream) -> Vec<String> {
    let mut names = Vec::new();
    let listed = volume.read_dir(stream, 0, Detail::Names, |entry| {
        names.push(String::from_utf8(entry.name.clone()).unwrap());
        Sink::Taken
    });
    listed.unwrap();
    names.retain(|name| name != "." && name != "..");
    names
}

/// A kernel that tries to read whenever it is asked to drop something; true for what was refused.
struct Reads {
    files: Vec<Arc<File>>,
    read: Mutex<Vec<bool>>,
}

impl KernelCache for Reads {
    fn invalidate_inode(&self, _ino: u64) {
        let refused =
            |file: &Arc<File>| matches!(file.read(0, &mut [0]), Err(VolumeError::KeyUnusable(_)));
        self.read.lock().unwrap().extend(self.files.iter().map(refused));
    }

    fn invalidate_attributes(&self, ino: u64) {
        self.invalidate_inode(ino);
    }
}

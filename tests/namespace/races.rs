//! What changes the keys of directories and of files at the same moment: the one acts while the other
//! waits for an answer of the KMS.

use std::ops::ControlFlow;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, SystemTime};

use kmsfs::envelope::CrossMode;
use kmsfs::keystore::KeyRef;
use kmsfs::volume::content::Access;
use kmsfs::volume::{Origin, RewrapJob, RewrapReport, Volume};

use crate::fixture::{Fixture, REPLACE, ROOT};
use crate::interrupted::{Interrupted, Question};

/// The re-wrap had come to the file in the directory that it left, and wrapped it for that one's key
/// after the move had brought it under the key of the other.
#[test]
fn regression_a_rewrap_wraps_nothing_for_a_directory_that_it_has_left() {
    let mut fixture = Fixture::new();
    let keys = [fixture.new_key(), fixture.new_key()];
    for (name, key) in ["a", "b"].into_iter().zip(keys) {
        let dir = fixture.mkdir(ROOT, name).unwrap().ino;
        fixture.volume().set_dir_policy(dir, key, Some(CrossMode::Rewrap)).unwrap();
    }
    let files = ["one", "two"];
    for name in files {
        fixture.file(fixture.find("a").unwrap(), name, name).unwrap();
    }
    let service = Interrupted::under(&mut fixture);
    let (a, b) = (fixture.find("a").unwrap(), fixture.find("b").unwrap());
    for key in keys {
        fixture.keystore.rotate_key_on_demand(&KeyRef::Id(key), SystemTime::now()).unwrap();
    }
    let opened = files.map(|name| {
        let ino = fixture.find(&format!("a/{name}")).unwrap();
        fixture.contents(ino);
        fixture.volume().open_handle(ino, Access::ReadOnly).unwrap().handle
    });
    let caller = crate::fixture::caller();
    let stopped = fixture.volume().rewrap(
        RewrapJob::default(),
        &mut |report| {
            if report.scanned == 2 {
                return ControlFlow::Break(());
            }
            // Both go when it looks at the second one.
            service.during_next(Question::Material, keys[0], move |volume| {
                for name in files.map(str::as_bytes) {
                    volume.rename((a, name), (b, name), REPLACE, caller).unwrap();
                }
            });
            ControlFlow::Continue(())
        },
        &mut |_| {},
    );
    let stopped = stopped.unwrap();
    assert!(!service.is_due() && stopped.failed.is_empty(), "{stopped:?}");
    for handle in opened {
        fixture.volume().close(handle);
    }
    fixture.reopen();
    for name in files {
        assert_eq!(fixture.contents(fixture.find(&format!("b/{name}")).unwrap()), name);
    }
    let go_on = &mut |_: &_| ControlFlow::Continue(());
    let report = fixture.volume().rewrap(RewrapJob::default(), go_on, &mut |_| {}).unwrap();
    assert!(report.complete, "{report:?}");
}

/// The descriptor that was read before the change was compared with what was remembered after it, and
/// the directory was out of its place until the volume was closed.
#[test]
fn regression_a_policy_that_changes_while_its_directory_is_opened_is_no_tampering() {
    let mut fixture = Fixture::new();
    let keys = [fixture.new_key(), fixture.new_key()];
    let dir = fixture.mkdir(ROOT, "dir").unwrap().ino;
    fixture.volume().set_dir_policy(dir, keys[0], None).unwrap();
    fixture.file(dir, "file", "contents").unwrap();
    let service = Interrupted::under(&mut fixture);
    let set = move |volume: &Volume| {
        let dir = volume.lookup(ROOT, b"dir").unwrap().unwrap().ino;
        volume.set_dir_policy(dir, keys[1], None).unwrap();
    };
    service.during_next(Question::Unwrap, keys[0], set);
    let dir = fixture.find("dir").unwrap();
    let found = fixture.volume().dir_policy(dir);
    assert!(!service.is_due());
    assert_eq!(found.unwrap().policy, keys[1]);
    assert_eq!(fixture.contents(fixture.find("dir/file").unwrap()), "contents");
}

/// It had been through the directory, and gave up the key that its files had until a moment ago.
#[test]
fn regression_a_rewrap_gives_up_no_key_that_became_a_former_one_meanwhile() {
    let mut fixture = Fixture::new();
    let keys = [fixture.new_key(), fixture.new_key()];
    let dir = fixture.mkdir(ROOT, "dir").unwrap().ino;
    fixture.volume().set_dir_policy(dir, keys[0], None).unwrap();
    fixture.file(dir, "file", "contents").unwrap();
    let volume = fixture.volume();
    let progress = &mut |_: &_| {
        volume.set_dir_policy(dir, keys[1], None).unwrap();
        ControlFlow::Continue(())
    };
    volume.rewrap(RewrapJob::default(), progress, &mut |_| {}).unwrap();
    fixture.reopen();
    assert_eq!(fixture.contents(fixture.find("dir/file").unwrap()), "contents");
    let go_on = &mut |_: &_| ControlFlow::Continue(());
    let report = fixture.volume().rewrap(RewrapJob::default(), go_on, &mut |_| {}).unwrap();
    let dir = fixture.find("dir").unwrap();
    assert!(report.complete && fixture.volume().dir_policy(dir).unwrap().previous.is_empty());
    fixture.disable(keys[0]);
    fixture.reopen();
    assert_eq!(fixture.contents(fixture.find("dir/file").unwrap()), "contents");
}

/// The key of one directory was taken from memory and that of the other from the KMS, and in between a
/// re-wrap moved both: the file, which was not open yet, went on with what the first had said.
#[test]
fn regression_a_file_that_is_opened_during_a_rewrap_hears_which_key_its_directories_have_now() {
    let mut fixture = Fixture::new();
    let keys = [fixture.new_key(), fixture.new_key()];
    for name in ["a", "b"] {
        let dir = fixture.mkdir(ROOT, name).unwrap().ino;
        fixture.volume().set_dir_policy(dir, keys[0], None).unwrap();
    }
    let (a, b) = (fixture.find("a").unwrap(), fixture.find("b").unwrap());
    let file = fixture.file(a, "file", "").unwrap().ino;
    fixture.file(a, "other", "").unwrap();
    fixture.volume().link(file, b, b"file").unwrap();
    let service = Interrupted::under(&mut fixture);
    let file = fixture.find("a/file").unwrap();
    assert_eq!(fixture.find("b/file").unwrap(), file);
    // Nothing is known of the directories any more, except of the one that is looked into again.
    fixture.disable(fixture.key());
    fixture.volume().watch_keys();
    fixture.enable(fixture.key());
    fixture.volume().watch_keys();
    fixture.find("a/other").unwrap();
    let [from, to] = keys;
    service.during_next(Question::Unwrap, from, move |volume: &Volume| {
        let job = RewrapJob { from: Some(from), to: Some(to), ..RewrapJob::default() };
        let go_on = &mut |_: &_| ControlFlow::Continue(());
        assert!(volume.rewrap(job, go_on, &mut |_| {}).unwrap().complete);
    });
    let handle = fixture.volume().open_handle(file, Access::ReadWrite).unwrap().handle;
    assert!(!service.is_due());
    handle.write(0, b"contents", Origin::Caller).unwrap();
    assert_eq!(handle.file.key(), Some(to));
    fixture.volume().close(handle);
}

/// A second re-wrap, or recovery, came to a file between the steps of the first. Then its modification time
/// moved before it was durable what to show instead, and a power cut showed it a second late.
#[test]
fn regression_no_other_rewrap_comes_to_a_file_between_the_steps_of_one() {
    let mut fixture = Fixture::new();
    let key = fixture.new_key();
    let dir = fixture.mkdir(ROOT, "dir").unwrap().ino;
    fixture.volume().set_dir_policy(dir, key, None).unwrap();
    fixture.file(dir, "file", "contents").unwrap();
    fixture.reopen();
    fixture.keystore.rotate_key_on_demand(&KeyRef::Id(key), SystemTime::now()).unwrap();
    let (volume, (came, comes)) = (fixture.volume(), std::sync::mpsc::channel());
    std::thread::scope(|scope| {
        let (mut other, mut came) = (None, Some(came));
        let first = volume.rewrap(
            RewrapJob::default(),
            &mut |report| {
                if report.rewrapped == 1
                    && let Some(came) = came.take()
                {
                    other = Some(scope.spawn(move || {
                        let mut next = |_: &std::path::Path| {
                            came.send(()).unwrap();
                            ControlFlow::Continue(())
                        };
                        let go_on = &mut |_: &RewrapReport| ControlFlow::Continue(());
                        volume.rewrap_announced(RewrapJob::default(), go_on, &mut next).unwrap()
                    }));
                    let waited = comes.recv_timeout(Duration::from_millis(300));
                    assert_eq!(waited, Err(RecvTimeoutError::Timeout), "it came to the file");
                }
                ControlFlow::Continue(())
            },
            &mut |_| {},
        );
        assert_eq!(first.unwrap().rewrapped, 1);
        let second = other.expect("it was started").join().unwrap();
        assert!(second.complete && second.rewrapped == 0, "{second:?}");
    });
}

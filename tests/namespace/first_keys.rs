//! Open files without contents: no key that they were given is in memory alone, and used later.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use kmsfs::id::KeyId;
use kmsfs::keystore::{KeyRef, Keystore, ReferenceReport};
use kmsfs::volume::attr::AttrChange;
use kmsfs::volume::content::{Access, Reserve};
use kmsfs::volume::{
    Allocate, FileHandle, OpenFor, Origin, ROOT, References, Result, RewrapJob, Volume, VolumeError,
};

use crate::disks::Disk;
use crate::fixture::{Fixture, caller, new_node};
use crate::interrupted::{Interrupted, Question};

type Call = fn(&Fixture, &FileHandle) -> Result<()>;
type Opening = fn(&Fixture) -> FileHandle;
type Making = fn(&Fixture);

/// A call that changed nothing of an empty file gave it a key all the same, which nothing on the disk
/// told of: it was retired, and used by the first write.
#[test]
fn regression_a_call_without_effect_leaves_no_key_in_memory() {
    let mut fixture = Fixture::new();
    let calls: [(&str, Call); 4] = [
        ("punch", |fixture, handle| fixture.volume().allocate(handle, Allocate::Punch, 0, 4096)),
        ("zero", |fixture, handle| {
            fixture.volume().allocate(handle, Allocate::Zero(Reserve::KeepSize), 0, 4096)
        }),
        ("truncate", |_, handle| handle.file.truncate(0)),
        ("write", |_, handle| handle.write(0, b"", Origin::Caller).map(drop)),
    ];
    for (name, call) in calls {
        let ino = fixture.file(ROOT, name, "").unwrap().ino;
        let handle = fixture.volume().open_handle(ino, Access::ReadWrite).unwrap().handle;
        call(&fixture, &handle).unwrap();
        retire_old_material(&fixture);
        handle.write(0, b"contents", Origin::Caller).unwrap();
        fixture
            .volume()
            .sync_file(&handle, kmsfs::volume::backing::Durability::Everything)
            .unwrap();
        fixture.volume().close(handle);
        fixture.reopen();
        assert_eq!(fixture.contents(fixture.find(name).unwrap()), "contents", "{name}");
    }
}

/// The same of a first write that found no room and was tried again.
#[test]
fn regression_a_first_write_that_failed_leaves_no_key_in_memory() {
    let Some(mut disk) = Disk::new("ext4") else { return };
    let ino = disk.fixture.file(ROOT, "file", "").unwrap().ino;
    let handle = disk.fixture.volume().open_handle(ino, Access::ReadWrite).unwrap().handle;
    disk.fill();
    let written = handle.write(0, &vec![7; 40_000], Origin::Caller);
    assert!(matches!(written, Err(VolumeError::Io(_))), "{written:?}");
    assert!(handle.file.key().is_none(), "there is nothing that a key could open");
    disk.make_room();
    retire_old_material(&disk.fixture);
    handle.write(0, b"contents", Origin::Caller).unwrap();
    disk.fixture.volume().close(handle);
    disk.fixture.reopen();
    assert_eq!(disk.fixture.contents(disk.fixture.find("file").unwrap()), "contents");
}

/// No walk finds a file that was unlinked while it was open: its material was retired, and once the
/// key had left the memory nothing opened it any more.
#[test]
fn regression_a_file_without_a_name_keeps_its_key_until_it_is_closed() {
    let fixture = Fixture::new();
    let ino = fixture.file(ROOT, "file", "precious").unwrap().ino;
    let handle = fixture.volume().open_handle(ino, Access::ReadWrite).unwrap().handle;
    fixture.volume().unlink(ROOT, b"file").unwrap();
    let key = handle.file.key().unwrap();
    let old = fixture.keystore.current_material(key).unwrap();
    let found = fixture.volume().references(&mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(found.of_material(old).files, 1, "it is counted");
    retire_old_material(&fixture);
    let found = fixture.volume().references(&mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(found.of_material(old).files, 0, "and re-wrapped");
    fixture.keystore.disable_key(&KeyRef::Id(key)).unwrap();
    fixture.volume().watch_keys();
    fixture.keystore.enable_key(&KeyRef::Id(key)).unwrap();
    fixture.volume().watch_keys();
    let mut found = [0; 8];
    handle.file.read(0, &mut found).unwrap();
    assert_eq!(&found, b"precious");
    fixture.volume().close(handle);
}

/// A KMS elsewhere had made a key for a file that was not open yet. A re-wrap found nothing under its
/// material, which was retired, and then the first contents came under it.
#[test]
fn regression_a_key_that_was_made_ahead_is_not_used_after_a_search_that_could_not_see_it() {
    let calls: [(&str, Opening); 3] = [
        ("created", |fixture| {
            let new = new_node(0o644);
            fixture.volume().create_file(ROOT, b"created", &new, OpenFor::Both).unwrap().1
        }),
        ("empty", |fixture| {
            let ino = fixture.find("empty").unwrap();
            fixture.volume().open_as(ino, OpenFor::Both, caller()).unwrap().handle
        }),
        ("full", |fixture| {
            let ino = fixture.find("full").unwrap();
            let opened = fixture.volume().open_handle(ino, Access::ReadWrite).unwrap();
            let nothing = AttrChange { size: Some(0), ..AttrChange::default() };
            fixture.volume().set_attr(ino, &nothing, caller()).unwrap();
            opened.handle
        }),
    ];
    for (name, call) in calls {
        let mut fixture = Fixture::new();
        fixture.file(ROOT, "empty", "").unwrap();
        fixture.file(ROOT, "full", "contents").unwrap();
        let service = Interrupted::elsewhere(&mut fixture);
        let (key, keystore, vault) = (fixture.key(), fixture.keystore.clone(), fixture.vault());
        service.during_next(Question::Generate, key, move |volume| {
            retire_after_rewrap(volume, (&keystore, key), &vault);
        });
        let handle = call(&fixture);
        assert!(!service.is_due(), "{name}");
        handle.write(0, b"new", Origin::Caller).unwrap();
        fixture.volume().close(handle);
        fixture.reopen();
        assert_eq!(fixture.contents(fixture.find(name).unwrap()), "new");
    }
}

/// A first write, or a directory in the making, had a wrap in memory. The material was rotated twice
/// meanwhile, so nothing on the disk was under it: it was retired, and then the wrap was written.
#[test]
fn regression_a_search_for_what_needs_a_material_waits_for_wraps_that_are_on_their_way() {
    let calls: [(&str, Making); 2] = [
        ("file", |fixture| {
            let ino = fixture.find("empty").unwrap();
            let handle = fixture.volume().open_handle(ino, Access::ReadWrite).unwrap().handle;
            handle.write(0, b"contents", Origin::Caller).unwrap();
            fixture.volume().close(handle);
        }),
        ("directory", |fixture| {
            let dir = fixture.mkdir(ROOT, "dir").unwrap().ino;
            fixture.file(dir, "file", "contents").unwrap();
        }),
    ];
    for (name, call) in calls {
        let mut fixture = Fixture::new();
        fixture.file(ROOT, "empty", "").unwrap();
        let (key, keystore) = (fixture.key(), fixture.keystore.clone());
        let rotate = move |keystore: &Keystore| {
            keystore.rotate_key_on_demand(&KeyRef::Id(key), SystemTime::now()).unwrap();
        };
        rotate(&keystore);
        let service = Interrupted::under(&mut fixture);
        let (volume, used) = (fixture.shared(), keystore.current_material(key).unwrap());
        let (searched, found) = mpsc::channel();
        service.during_next(Question::Generate, key, move |_| {
            rotate(&keystore);
            let (done, over) = mpsc::channel::<()>();
            std::thread::spawn(move || {
                let found = volume.references(&mut |_| ControlFlow::Continue(())).unwrap();
                searched.send(found.of_material(used)).unwrap();
                drop(done);
            });
            // A search that waits for nothing is over by then; one that waits goes on afterwards.
            let _ = over.recv_timeout(Duration::from_millis(500));
        });
        call(&fixture);
        assert!(!service.is_due(), "{name}");
        let found = found.recv().unwrap();
        assert_eq!(found.files + found.directories, 1, "{name}");
    }
}

/// What `key rotate`, `rewrap` and `key retire` do one after the other.
fn retire_old_material(fixture: &Fixture) {
    let key = (&*fixture.keystore, fixture.key());
    retire_after_rewrap(fixture.volume(), key, &fixture.vault());
}

fn retire_after_rewrap(volume: &Volume, (keystore, key): (&Keystore, KeyId), vault: &Path) {
    let old = keystore.current_material(key).unwrap();
    keystore.rotate_key_on_demand(&KeyRef::Id(key), SystemTime::now()).unwrap();
    volume.watch_keys();
    let go_on = &mut |_: &_| ControlFlow::Continue(());
    let report = volume.rewrap(RewrapJob::default(), go_on, &mut |_| {}).unwrap();
    assert!(report.complete, "{report:?}");
    let (volume, found) = References::scan(vault).unwrap();
    let needed = found.of_material(old);
    let report = ReferenceReport {
        scanned: [volume].into(),
        references: needed.files + needed.directories,
        unreadable: found.unreadable,
        ..ReferenceReport::default()
    };
    keystore.retire_material(&KeyRef::Id(key), old, &report).unwrap();
}

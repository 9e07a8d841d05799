//! Open files without contents: no key that they were given is in memory alone, and used later.

use std::ops::ControlFlow;
use std::time::SystemTime;

use kmsfs::keystore::{KeyRef, ReferenceReport};
use kmsfs::volume::content::{Access, Reserve};
use kmsfs::volume::{
    Allocate, FileHandle, Origin, ROOT, References, Result, RewrapJob, VolumeError,
};

use crate::disks::Disk;
use crate::fixture::Fixture;

type Call = fn(&Fixture, &FileHandle) -> Result<()>;

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

/// What `key rotate`, `rewrap` and `key retire` do one after the other.
fn retire_old_material(fixture: &Fixture) {
    let (key, keystore) = (fixture.key(), &fixture.keystore);
    let old = keystore.current_material(key).unwrap();
    keystore.rotate_key_on_demand(&KeyRef::Id(key), SystemTime::now()).unwrap();
    fixture.volume().watch_keys();
    let go_on = &mut |_: &_| ControlFlow::Continue(());
    let report = fixture.volume().rewrap(RewrapJob::default(), go_on, &mut |_| {}).unwrap();
    assert!(report.complete, "{report:?}");
    let (volume, found) = References::scan(&fixture.vault()).unwrap();
    let needed = found.of_material(old);
    let report = ReferenceReport {
        scanned: [volume].into(),
        references: needed.files + needed.directories,
        unreadable: found.unreadable,
        ..ReferenceReport::default()
    };
    keystore.retire_material(&KeyRef::Id(key), old, &report).unwrap();
}

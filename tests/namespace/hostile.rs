//! Whoever can write to the vault chooses the names in it and what they lead to, while it is open
//! too: nobody gets out, nothing hangs, and no inode changes but the one that was meant.

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::Duration;

use kmsfs::volume::attr::{AttrChange, NewTime, Timestamp};
use kmsfs::volume::backing::Durability;
use kmsfs::volume::content::Access;
use kmsfs::volume::{
    Caller, CheckReport, NewNode, OpenFor, Options, PageJournaling, References, Repair, RewrapJob,
    SetMode, Volume, VolumeError, is_free,
};
use rustix::fs::{CWD, FileType, Mode, RenameFlags, makedev, mknodat, renameat_with};
use rustix::io::Errno;

use crate::fixture::{Fixture, REPLACE, ROOT, caller, new_node};
use crate::journaled::journals;

/// What follows the prefix was taken for a name as it stood: `..` was the directory above the vault.
/// Every mount, and `fsck --repair`, ended with "is a directory".
#[test]
fn regression_a_directory_in_the_place_of_a_file_of_the_vaults_own_is_set_aside() {
    for name in ["session", "volume", "volume.bak", "state", "state.new", "volume.new"] {
        let mut fixture = Fixture::new();
        fixture.file(ROOT, "file", "contents").unwrap();
        fixture.volume().end().unwrap();
        fixture.close();
        let path = fixture.vault().join(".kmsfs").join(name);
        let _ = fs::remove_file(&path);
        if name == "state.new" {
            fs::remove_file(fixture.vault().join(".kmsfs/state")).unwrap();
        }
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inside"), "somebody's").unwrap();
        fixture.reopen();
        assert_eq!(fixture.contents(fixture.find("file").unwrap()), "contents", "{name}");
        let job = RewrapJob { to: Some(fixture.new_key()), ..Default::default() };
        let go_on = &mut |_: &_| ControlFlow::Continue(());
        assert!(fixture.volume().rewrap(job, go_on, &mut |_| {}).unwrap().complete, "{name}");
        let aside = fixture.vault().join(format!(".kmsfs/{name}.aside0/inside"));
        assert!(fs::read(aside).is_ok_and(|inside| inside == b"somebody's"), "{name}");
    }
}

#[test]
fn a_foreign_name_never_leaves_its_directory() {
    let fixture = Fixture::new();
    let volume = fixture.volume();
    let file = fixture.file(ROOT, "file", "x").unwrap().ino;
    let above = fixture.vault().parent().unwrap().to_owned();
    fs::write(above.join("outside"), "x").unwrap();
    let before = fs::metadata(&above).unwrap();
    for raw in ["..", ".", "", "../outside", "./..", "/", "..\0", "a/../..", "../../../etc"] {
        let name = [b"kmsfs.foreign.", raw.as_bytes()].concat();
        let found = volume.lookup(ROOT, &name);
        assert!(matches!(found, Ok(None)), "{raw:?} leads to {found:?}");
        let refused = [
            volume.unlink(ROOT, &name),
            volume.rmdir(ROOT, &name),
            volume.rename((ROOT, &name), (ROOT, b"taken"), REPLACE, caller()),
            volume.open_existing(ROOT, &name, OpenFor::Reading, caller()).map(drop),
        ];
        for (at, result) in refused.iter().enumerate() {
            assert!(matches!(result, Err(VolumeError::NotFound)), "{at}, {raw:?}: {result:?}");
        }
        let reserved = [
            volume.mkdir(ROOT, &name, new_node(0o755)).map(drop),
            volume.symlink(ROOT, &name, b"x", caller()).map(drop),
            volume.link(file, ROOT, &name).map(drop),
            volume.rename((ROOT, b"file"), (ROOT, &name), REPLACE, caller()),
        ];
        for (at, result) in reserved.iter().enumerate() {
            assert!(matches!(result, Err(VolumeError::ReservedName)), "{at}, {raw:?}: {result:?}");
        }
    }
    for name in ["..", ".", "", "a/b", "a\0b"] {
        let made = volume.mkdir(ROOT, name.as_bytes(), new_node(0o755));
        assert!(matches!(made, Err(VolumeError::Io(Errno::INVAL))), "{name:?}: {made:?}");
    }
    let after = fs::metadata(&above).unwrap();
    let state = |meta: &fs::Metadata| (meta.mode(), meta.uid(), meta.mtime(), meta.mtime_nsec());
    assert_eq!(state(&before), state(&after));
}

/// Each of these acted by name and looked at the inode afterwards: the mode of whatever had been put
/// there was changed, and then an error given.
#[test]
fn no_inode_but_the_one_that_was_meant_is_changed() {
    let fixture = Fixture::new();
    let mine = fixture.file(ROOT, "mine", "mine").unwrap().ino;
    let other = fixture.file(ROOT, "other", "other").unwrap().ino;
    let volume = fixture.volume();
    volume.set_xattr(other, b"trusted.keep", b"1", SetMode::Any, caller()).unwrap_or(());
    exchange(&by_inode(&fixture, mine), &by_inode(&fixture, other));
    let before = fs::metadata(by_inode(&fixture, other)).unwrap();
    let attr = |change: AttrChange| volume.set_attr(mine, &change, caller()).map(drop);
    let time = NewTime::At(Timestamp { secs: 1, nanos: 0 });
    let none = AttrChange::default();
    let acl = acl_for_everybody();
    let attempts: [(&str, kmsfs::volume::Result<()>); 10] = [
        ("chmod", attr(AttrChange { mode: Some(0o666), ..none })),
        ("chown", attr(AttrChange { uid: Some(caller().uid), gid: Some(caller().gid), ..none })),
        ("utimes", attr(AttrChange { atime: Some(time), mtime: Some(time), ..none })),
        ("truncate", attr(AttrChange { size: Some(0), ..none })),
        ("setxattr", volume.set_xattr(mine, b"user.a", b"1", SetMode::Any, caller())),
        (
            "setfacl",
            volume.set_xattr(mine, b"system.posix_acl_access", &acl, SetMode::Any, caller()),
        ),
        ("removexattr", volume.remove_xattr(mine, b"trusted.keep", caller())),
        ("link", volume.link(mine, ROOT, b"second").map(drop)),
        ("open", volume.open_handle(mine, Access::ReadWrite).map(drop)),
        ("stat", volume.attr(mine).map(drop)),
    ];
    for (what, result) in attempts {
        let refused = matches!(result, Err(VolumeError::Stale | VolumeError::Io(Errno::STALE)));
        assert!(refused, "{what}: {result:?}");
    }
    let after = fs::metadata(by_inode(&fixture, other)).unwrap();
    let state = |meta: &fs::Metadata| {
        (meta.mode(), meta.uid(), meta.nlink(), meta.size(), meta.ctime(), meta.ctime_nsec())
    };
    assert_eq!(state(&before), state(&after), "another inode was changed");
    exchange(&by_inode(&fixture, mine), &by_inode(&fixture, other));
    assert_eq!((fixture.contents(mine), fixture.contents(other)), ("mine".into(), "other".into()));
}

/// The kernel lets a user change what it was told is his, for as long as it keeps that. What he has
/// put there in the meantime, and belongs to root, was changed for him.
#[test]
fn regression_what_is_not_its_owners_any_more_is_not_changed() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let fixture = Fixture::new();
    let volume = fixture.volume();
    let bob = Caller { uid: 61_002, gid: 61_002, pid: 0 };
    let new = NewNode { caller: bob, ..new_node(0o644) };
    let (attr, handle) = volume.create_file(ROOT, b"bobs", &new, OpenFor::Both).unwrap();
    handle.file.write(0, b"x", kmsfs::volume::Origin::Caller).unwrap();
    volume.close(handle);
    let ino = attr.ino;
    assert_eq!((attr.uid, volume.attr(ino).unwrap().uid), (bob.uid, bob.uid));
    let entry = by_inode(&fixture, ino);
    std::os::unix::fs::chown(&entry, Some(0), Some(0)).unwrap();
    let before = fs::metadata(&entry).unwrap();
    let attr = |change: AttrChange| volume.set_attr(ino, &change, bob).map(drop);
    let (time, none) = (NewTime::At(Timestamp { secs: 1, nanos: 0 }), AttrChange::default());
    let acl = acl_for_everybody();
    let attempts: [(&str, kmsfs::volume::Result<()>); 9] = [
        ("chmod", attr(AttrChange { mode: Some(0o4777), ..none })),
        ("chown", attr(AttrChange { uid: Some(bob.uid), ..none })),
        ("utimes", attr(AttrChange { mtime: Some(time), ..none })),
        ("truncate", attr(AttrChange { size: Some(0), ..none })),
        ("setxattr", volume.set_xattr(ino, b"user.a", b"1", SetMode::Any, bob)),
        ("setfacl", volume.set_xattr(ino, b"system.posix_acl_access", &acl, SetMode::Any, bob)),
        ("link", volume.link(ino, ROOT, b"second").map(drop)),
        ("open", volume.open_as(ino, OpenFor::Both, bob).map(drop)),
        ("read", volume.open_as(ino, OpenFor::Reading, bob).map(drop)),
    ];
    for (what, result) in attempts {
        let refused = matches!(result, Err(VolumeError::Stale | VolumeError::Io(Errno::STALE)));
        assert!(refused, "{what}: {result:?}");
    }
    let after = fs::metadata(&entry).unwrap();
    let state = |meta: &fs::Metadata| (meta.mode(), meta.nlink(), meta.ctime(), meta.ctime_nsec());
    assert_eq!(state(&before), state(&after));
    // Once the kernel knows whose it is, it is for the kernel to decide.
    assert_eq!(volume.attr(ino).unwrap().uid, 0);
    attr(AttrChange { mode: Some(0o600), ..none }).unwrap();
    attr(AttrChange { uid: Some(bob.uid), gid: Some(bob.gid), ..none }).unwrap();
    attr(AttrChange { mode: Some(0o644), ..none }).unwrap();
}

/// A descriptor was written into whatever regular file lay in its place.
#[test]
fn regression_a_file_of_somebodys_in_the_place_of_a_descriptor_is_not_written_to() {
    let fixture = Fixture::new();
    let dir = fixture.mkdir(ROOT, "dir").unwrap().ino;
    let log = fixture.vault().with_file_name("somebodys.log");
    for contents in [vec![b'x'; 512], b"short".to_vec(), vec![0; 10_000]] {
        fs::write(&log, &contents).unwrap();
        let held = fs::File::open(&log).unwrap();
        fs::rename(&log, by_inode(&fixture, dir).join(".kmsfs.dir")).unwrap();
        fixture.rename((ROOT, "dir"), (ROOT, "other"), REPLACE).unwrap();
        fixture.rename((ROOT, "other"), (ROOT, "dir"), REPLACE).unwrap();
        let mut now = Vec::new();
        std::io::Read::read_to_end(&mut &held, &mut now).unwrap();
        assert!(now == contents, "somebody's file was changed");
        assert_eq!(fs::metadata(by_inode(&fixture, dir).join(".kmsfs.dir")).unwrap().len(), 512);
    }
}

/// The command looked at the path first, and let everything pass that was no vault at that moment:
/// its owner moved `.kmsfs` away and back.
#[test]
fn regression_a_vault_that_others_may_enter_is_refused_where_it_is_opened() {
    let mut fixture = Fixture::new();
    fixture.close();
    let vault = fixture.vault();
    let open = |options| Volume::open_vault(&vault, fixture.keystore.clone(), options).map(drop);
    let read_only = Options { read_only: true, ..Options::default() };
    fs::set_permissions(&vault, fs::Permissions::from_mode(0o710)).unwrap();
    for options in [Options::default(), read_only] {
        let refused = open(options);
        assert!(matches!(refused, Err(VolumeError::OpenVault(_))), "{refused:?}");
    }
    open(Options { open_vault: true, ..Options::default() }).unwrap();
    fs::set_permissions(&vault, fs::Permissions::from_mode(0o700)).unwrap();
    open(Options::default()).unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&vault, Some(61_002), None).unwrap();
        let refused = open(Options::default());
        assert!(matches!(refused, Err(VolumeError::OpenVault(_))), "{refused:?}");
    }
}

#[test]
fn a_link_or_directory_in_the_place_of_a_file_is_not_followed() {
    let fixture = Fixture::new();
    let ino = fixture.file(ROOT, "file", "x").unwrap().ino;
    let outside = fixture.vault().parent().unwrap().join("outside");
    fs::write(&outside, "precious").unwrap();
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o600)).unwrap();
    let entry = by_inode(&fixture, ino);
    let volume = fixture.volume();
    let change = AttrChange { mode: Some(0o777), size: Some(0), ..AttrChange::default() };
    fs::rename(&entry, outside.with_extension("kept")).unwrap();
    symlink(&outside, &entry).unwrap();
    assert!(volume.set_attr(ino, &change, caller()).is_err());
    assert!(volume.open_handle(ino, Access::ReadWrite).is_err());
    assert!(volume.set_xattr(ino, b"user.a", b"1", SetMode::Any, caller()).is_err());
    fs::remove_file(&entry).unwrap();
    fs::create_dir(&entry).unwrap();
    assert!(volume.set_attr(ino, &change, caller()).is_err());
    fs::remove_dir(&entry).unwrap();
    assert_eq!(fs::read(&outside).unwrap(), b"precious");
    assert_eq!(fs::metadata(&outside).unwrap().mode() & 0o7777, 0o600);
}

#[test]
fn another_directory_in_the_place_of_one_is_not_emptied() {
    let fixture = Fixture::new();
    let one = fixture.mkdir(ROOT, "one").unwrap().ino;
    let two = fixture.mkdir(ROOT, "two").unwrap().ino;
    fixture.file(two, "inside", "x").unwrap();
    fs::set_permissions(by_inode(&fixture, two), fs::Permissions::from_mode(0o500)).unwrap();
    exchange(&by_inode(&fixture, one), &by_inode(&fixture, two));
    let refused = fixture.volume().rmdir(ROOT, b"one");
    assert!(matches!(refused, Err(VolumeError::NotEmpty)), "{refused:?}");
    let left = by_inode(&fixture, two);
    assert_eq!(fs::metadata(&left).unwrap().mode() & 0o7777, 0o500);
    assert!(left.join(".kmsfs.dir").exists());
}

type Plant = fn(&Path);

/// What is planted in the place of the vault's own files.
const PLANTED: [(&str, Plant); 6] = [
    ("an endless device", |path| {
        let made = mknodat(CWD, path, FileType::CharacterDevice, Mode::RWXU, makedev(1, 5));
        // Only root can make one; somebody else's is reached by a link.
        made.or_else(|_| rustix::fs::symlinkat("/dev/zero", CWD, path)).unwrap();
    }),
    ("a FIFO", |path| mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap()),
    ("a directory", |path| fs::create_dir(path).unwrap()),
    ("a link to nowhere", |path| symlink("/nowhere", path).unwrap()),
    ("a link to an endless file", |path| symlink("/dev/zero", path).unwrap()),
    ("a huge file", |path| fs::File::create(path).unwrap().set_len(1 << 40).unwrap()),
];

/// A walk held every directory of a path open, and its path for each: a chain that somebody made took
/// all descriptors of the process, and memory by the square of its length.
#[test]
fn regression_a_chain_of_directories_of_any_depth_is_walked() {
    use rustix::fs::{AtFlags, Mode, OFlags, fstat, mkdirat, openat, unlinkat};
    const DEPTH: u64 = 2000;
    let fixture = Fixture::new();
    fixture.file(ROOT, "file", "contents").unwrap();
    let flags = OFlags::DIRECTORY | OFlags::RDONLY;
    let open = |dir: &std::os::fd::OwnedFd, name: &str| openat(dir, name, flags, Mode::empty());
    let mut deepest = rustix::fs::open(fixture.vault(), flags, Mode::empty()).unwrap();
    let vault = fstat(&deepest).unwrap().st_ino;
    for _ in 0..DEPTH {
        mkdirat(&deepest, "d", Mode::RWXU).unwrap();
        // On the way back there is another one, so that each is opened again.
        mkdirat(&deepest, "e", Mode::RWXU).unwrap();
        deepest = open(&deepest, "d").unwrap();
    }
    let held = || fs::read_dir("/proc/self/fd").unwrap().count();
    let (before, mut most) = (held(), 0);
    let mut look = |report: &CheckReport| {
        if report.directories.is_multiple_of(100) {
            most = most.max(held());
        }
        ControlFlow::Continue(())
    };
    let report = fixture.volume().check(Repair::No, &mut look).unwrap();
    assert_eq!(report.directories, 2 * DEPTH + 1);
    assert!(report.complete && most < before + 1000, "{most} after {before}");
    References::scan(&fixture.vault()).unwrap();
    while fstat(&deepest).unwrap().st_ino != vault {
        let above = open(&deepest, "..").unwrap();
        for name in ["d", "e"] {
            unlinkat(&above, name, AtFlags::REMOVEDIR).unwrap();
        }
        deepest = above;
    }
}

/// Opening a FIFO waits for its other end, and an endless file fills the memory.
#[test]
fn nothing_planted_in_the_place_of_the_vaults_own_files_hangs_or_is_followed() {
    for own in [
        ".kmsfs/volume",
        ".kmsfs/volume.bak",
        ".kmsfs/volume.new",
        ".kmsfs/session",
        ".kmsfs/session.new",
        ".kmsfs/state",
        ".kmsfs/state.new",
        ".kmsfs/times",
        ".kmsfs/lock",
        ".kmsfs/links",
        ".kmsfs.dir",
        ".kmsfs.dir.new",
    ] {
        for (what, plant) in PLANTED {
            let mut fixture = Fixture::new();
            let dir = fixture.mkdir(ROOT, "dir").unwrap().ino;
            fixture.file(dir, "file", "contents").unwrap();
            fixture.close();
            let place = fixture.vault().join(own);
            let _ = fs::remove_file(&place);
            plant(&place);
            in_time(&format!("{what} at {own}"), move || {
                let _ = Volume::peek(&fixture.vault());
                let _ = References::scan(&fixture.vault());
                let _ = is_free(fs::File::open(fixture.vault()).unwrap());
                for read_only in [true, false] {
                    let options = Options { read_only, ..Options::default() };
                    let Ok(volume) = fixture.try_open(options) else { continue };
                    use_everything(&volume);
                    let _ = volume.end();
                }
            });
        }
    }
}

#[test]
fn nothing_planted_in_the_place_of_a_page_journal_hangs_or_is_followed() {
    let on = Options { page_journal: PageJournaling::On, ..Options::default() };
    for (what, plant) in PLANTED {
        let mut fixture = Fixture::new();
        fixture.reopen_with(on.clone());
        fixture.file(ROOT, "file", "contents").unwrap();
        fixture.close();
        for place in journals(&fixture) {
            fs::remove_file(&place).unwrap();
            plant(&place);
        }
        let on = on.clone();
        in_time(what, move || {
            for read_only in [true, false] {
                let volume = fixture.try_open(Options { read_only, ..on.clone() }).unwrap();
                use_everything(&volume);
            }
        });
    }
}

#[test]
fn nothing_planted_inside_the_tree_hangs_or_is_followed() {
    for (what, plant) in PLANTED {
        let fixture = Fixture::new();
        let dir = fixture.mkdir(ROOT, "dir").unwrap().ino;
        let long = "n".repeat(200);
        fixture.file(dir, &long, "contents").unwrap();
        fixture.volume().symlink(ROOT, b"link", &[b'x'; 4000], caller()).unwrap();
        let sidecars = fixture.backing(|name| name.ends_with(".name"));
        let links = fs::read_dir(fixture.vault().join(".kmsfs/links")).unwrap();
        let links = links.map(|entry| entry.unwrap().path());
        let descriptor = by_inode(&fixture, dir).join(".kmsfs.dir");
        for place in sidecars.into_iter().chain(links).chain([descriptor]) {
            fs::remove_file(&place).unwrap();
            plant(&place);
        }
        let entry = by_inode(&fixture, fixture.file(ROOT, "file", "x").unwrap().ino);
        fs::remove_file(&entry).unwrap();
        plant(&entry);
        in_time(what, move || {
            let mut fixture = fixture;
            fixture.close();
            let volume = fixture.try_open(Options::default()).unwrap();
            use_everything(&volume);
        });
    }
}

/// A further name of a file of somebody's, in the place of one that the volume writes.
#[test]
fn no_file_with_another_name_is_written_in_the_place_of_the_vaults_own() {
    let mut fixture = Fixture::new();
    let dir = fixture.mkdir(ROOT, "dir").unwrap().ino;
    fixture.file(dir, "file", "contents").unwrap();
    let entry = by_inode(&fixture, dir);
    fixture.close();
    let precious = fixture.vault().parent().unwrap().join("precious");
    fs::write(&precious, "precious").unwrap();
    for own in ["times", "session", "session.new", "state", "state.new", "volume.new"] {
        let own = fixture.vault().join(".kmsfs").join(own);
        let _ = fs::remove_file(&own);
        fs::hard_link(&precious, &own).unwrap();
    }
    fs::remove_file(entry.join(".kmsfs.dir")).unwrap();
    fs::hard_link(&precious, entry.join(".kmsfs.dir")).unwrap();
    let volume = fixture.try_open(Options::default()).unwrap();
    use_everything(&volume);
    let key = fixture.new_key();
    let ino = volume.lookup(ROOT, b"dir").unwrap().unwrap().ino;
    volume.set_dir_policy(ino, key, None).unwrap();
    volume.end().unwrap();
    assert_eq!(fs::read(&precious).unwrap(), b"precious");
    drop(volume);
    fixture.reopen();
    assert_eq!(fixture.contents(fixture.find("dir/file").unwrap()), "contents");
}

/// The volume's own directory is held from the start.
#[test]
fn another_directory_in_the_place_of_the_vaults_own_is_not_used() {
    let fixture = Fixture::new();
    let elsewhere = fixture.vault().parent().unwrap().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let meta = fixture.vault().join(".kmsfs");
    fs::rename(&meta, fixture.vault().join("kept")).unwrap();
    symlink(&elsewhere, &meta).unwrap();
    let volume = fixture.volume();
    volume.symlink(ROOT, b"link", &[b'x'; 4000], caller()).unwrap();
    use_everything(volume);
    volume.end().unwrap();
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    let refused = fixture.try_open(Options::default());
    assert!(matches!(refused, Err(VolumeError::NotAVolume(_))), "{refused:?}");
}

/// It was taken for something unfinished, and lost its descriptor before it was found to be full.
#[test]
fn a_directory_that_was_given_a_temporary_name_keeps_what_it_has() {
    let fixture = Fixture::new();
    let dir = fixture.mkdir(ROOT, "dir").unwrap().ino;
    fixture.file(dir, "file", "contents").unwrap();
    let entry = by_inode(&fixture, dir);
    let hidden = fixture.vault().join(".kmsfs.tmp.1");
    fs::rename(&entry, &hidden).unwrap();
    assert!(fixture.list(ROOT).is_empty());
    assert!(hidden.join(".kmsfs.dir").exists());
    fs::rename(&hidden, &entry).unwrap();
    assert_eq!(fixture.contents(fixture.find("dir/file").unwrap()), "contents");
}

/// Everything that looks at all there is, and that writes what belongs to the vault.
fn use_everything(volume: &Volume) {
    let go_on = &mut |_: &_| ControlFlow::Continue(());
    let stream = volume.open_dir_stream(ROOT).unwrap();
    let mut found = Vec::new();
    let listed = volume.read_dir(&stream, 0, kmsfs::volume::Detail::Attributes, |entry| {
        found.push((entry.ino, entry.kind));
        kmsfs::volume::Sink::Taken
    });
    listed.unwrap();
    for (ino, _) in found {
        let _ = volume.read_link(ino);
        let _ = volume.xattr_names(ino, caller());
        let _ = volume.open_dir_stream(ino);
        let _ = volume.sync_dir(ino, Durability::Everything);
        if let Ok(opened) = volume.open_handle(ino, Access::ReadOnly) {
            volume.close(opened.handle);
        }
    }
    let _ = volume.mkdir(ROOT, b"new", new_node(0o755));
    let _ = volume.symlink(ROOT, b"new link", &[b'y'; 4000], caller());
    let _ = volume.check(Repair::Yes, &mut |_| ControlFlow::Continue(()));
    let _ = volume.rewrap(RewrapJob::default(), go_on, &mut |_| {});
}

/// Fails, rather than waiting for ever, if `work` does not come to an end.
fn in_time(what: &str, work: impl FnOnce() + Send + 'static) {
    let (done, ended) = channel();
    let thread = std::thread::spawn(move || {
        work();
        done.send(()).unwrap();
    });
    match ended.recv_timeout(Duration::from_secs(120)) {
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("{what}: it hangs"),
        _ => thread.join().unwrap(),
    }
}

fn exchange(one: &Path, other: &Path) {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
}

/// Where an inode is in the backing tree.
fn by_inode(fixture: &Fixture, ino: u64) -> PathBuf {
    let all = fixture.backing(|_| true);
    let found = all.into_iter().find(|path| path.symlink_metadata().unwrap().ino() == ino);
    found.unwrap()
}

/// The access ACL with all permissions for everybody, as the kernel passes it.
fn acl_for_everybody() -> Vec<u8> {
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for tag in [1_u16, 4, 0x20] {
        acl.extend(tag.to_le_bytes());
        acl.extend(7_u16.to_le_bytes());
        acl.extend(u32::MAX.to_le_bytes());
    }
    acl
}

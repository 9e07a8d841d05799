//! What programs do to a volume: every operation that the kernel can ask for.

use kmsfs::volume::attr::{AttrChange, NewTime, Timestamp};
use kmsfs::volume::backing::Durability;
use kmsfs::volume::content::{Access, Reserve};
use kmsfs::volume::{Allocate, RenameHow, Result, SetMode};

use super::world::{ROOT, World, caller, new, write_all};

/// One operation, from paths to its end.
#[derive(Clone, Copy)]
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&mut World<'_>) -> Result<()>,
    pub(crate) parts: Parts,
}

/// What may be seen of an operation that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parts {
    /// All of it or nothing.
    Whole,
    /// All of it where it succeeds, and nothing where it fails: it is a size, and by what it is told the
    /// kernel says where the next append goes.
    Told,
    /// The first of its steps, or some of its bytes.
    Some,
    /// The same; and whoever syncs a file first after a write-back has failed is told, once, although
    /// that was before.
    Synced,
}

const fn whole(name: &'static str, run: fn(&mut World<'_>) -> Result<()>) -> Operation {
    Operation { name, run, parts: Parts::Whole }
}

const fn as_told(name: &'static str, run: fn(&mut World<'_>) -> Result<()>) -> Operation {
    Operation { name, run, parts: Parts::Told }
}

const fn in_parts(name: &'static str, run: fn(&mut World<'_>) -> Result<()>) -> Operation {
    Operation { name, run, parts: Parts::Some }
}

const fn with_sync(name: &'static str, run: fn(&mut World<'_>) -> Result<()>) -> Operation {
    Operation { name, run, parts: Parts::Synced }
}

/// Fills an empty volume with what the operations need.
pub(crate) fn furnish(world: &World<'_>) {
    let volume = world.volume();
    for (name, len) in [("small", 100), ("file", 14_000), ("large", 160_000), ("empty", 0)] {
        world.make(ROOT, name, &bytes(len, 1)).unwrap();
    }
    world.make(ROOT, &long('l'), &bytes(5000, 2)).unwrap();
    for dir in ["dir", "hollow", "other", &long('d')] {
        volume.mkdir(ROOT, dir.as_bytes(), new(0o755)).unwrap();
    }
    let dir = world.find("dir").unwrap();
    world.make(dir, "inside", &bytes(300, 3)).unwrap();
    volume.symlink(ROOT, b"link", b"small", caller()).unwrap();
    volume.symlink(ROOT, b"far link", far().as_bytes(), caller()).unwrap();
    for path in ["file", "dir"] {
        let ino = world.find(path).unwrap();
        volume.set_xattr(ino, b"user.kept", b"value", SetMode::Any, caller()).unwrap();
    }
}

/// Operations on names.
pub(crate) const NAMES: &[Operation] = &[
    in_parts("create", |world| world.make(ROOT, "new", &bytes(200, 4))),
    in_parts("create a long name", |world| world.make(ROOT, &long('n'), &bytes(5000, 4))),
    whole("create nothing", |world| world.make(ROOT, "new", &[])),
    whole("mkdir", |world| made(world.volume().mkdir(ROOT, b"new", new(0o750)))),
    whole("mkdir with a long name", |world| {
        made(world.volume().mkdir(ROOT, long('n').as_bytes(), new(0o750)))
    }),
    whole("mknod", |world| made(world.volume().mknod(ROOT, b"new", new(libc::S_IFIFO | 0o600), 0))),
    whole("symlink", |world| made(world.volume().symlink(ROOT, b"new", b"target", caller()))),
    whole("symlink to a long target", |world| {
        made(world.volume().symlink(ROOT, b"new", far().as_bytes(), caller()))
    }),
    whole("symlink with a long name", |world| {
        made(world.volume().symlink(ROOT, long('n').as_bytes(), b"target", caller()))
    }),
    whole("link", |world| made(world.volume().link(world.find("file")?, ROOT, b"new"))),
    whole("link with a long name", |world| {
        made(world.volume().link(world.find("file")?, ROOT, long('n').as_bytes()))
    }),
    whole("rename", |world| rename(world, "file", "new", PLAIN)),
    whole("rename over a file", |world| rename(world, "file", "small", PLAIN)),
    whole("rename to a long name", |world| rename(world, "file", &long('n'), PLAIN)),
    whole("rename from a long name", |world| rename(world, &long('l'), "new", PLAIN)),
    whole("rename a long name", |world| rename(world, &long('l'), &long('n'), PLAIN)),
    whole("rename over a long name", |world| rename(world, "file", &long('l'), PLAIN)),
    whole("rename to another directory", |world| rename(world, "file", "other/new", PLAIN)),
    whole("rename a directory", |world| rename(world, "dir", "other/new", PLAIN)),
    whole("rename a directory over one", |world| rename(world, "dir", "hollow", PLAIN)),
    whole("rename a long directory", |world| rename(world, &long('d'), &long('n'), PLAIN)),
    whole("exchange", |world| rename(world, "file", "small", EXCHANGE)),
    whole("exchange with a long name", |world| rename(world, "file", &long('l'), EXCHANGE)),
    whole("exchange directories", |world| rename(world, "dir", &long('d'), EXCHANGE)),
    whole("unlink", |world| world.volume().unlink(ROOT, b"file")),
    whole("unlink a long name", |world| world.volume().unlink(ROOT, long('l').as_bytes())),
    whole("unlink a link", |world| world.volume().unlink(ROOT, b"far link")),
    whole("rmdir", |world| world.volume().rmdir(ROOT, b"hollow")),
    whole("rmdir a long name", |world| world.volume().rmdir(ROOT, long('d').as_bytes())),
    whole("lookup", |world| made(world.find("dir/inside"))),
    whole("readlink", |world| made(world.volume().read_link(world.find("far link")?))),
    whole("readdir", |world| made(world.names(ROOT))),
    whole("fsync a directory", |world| {
        rename(world, "file", &long('n'), PLAIN)?;
        world.volume().sync_dir(ROOT, Durability::Everything)
    }),
];

/// Operations on attributes and on the volume.
pub(crate) const ATTRIBUTES: &[Operation] = &[
    whole("chmod", |world| change(world, "file", AttrChange { mode: Some(0o600), ..NONE })),
    whole("chown", |world| change(world, "file", AttrChange { uid: OTHER, gid: OTHER, ..NONE })),
    in_parts("chown and chmod", |world| {
        change(world, "dir", AttrChange { uid: OTHER, mode: Some(0o700), ..NONE })
    }),
    whole("utimes", |world| {
        let time = Some(NewTime::At(Timestamp { secs: 7, nanos: 8 }));
        change(world, "file", AttrChange { mtime: time, ..NONE })
    }),
    whole("setxattr", |world| set_xattr(world, "file", b"user.new")),
    whole("setxattr over another", |world| set_xattr(world, "file", b"user.kept")),
    whole("setxattr of an empty file", |world| set_xattr(world, "empty", b"user.new")),
    whole("setxattr of a directory", |world| set_xattr(world, "dir", b"user.new")),
    whole("setxattr with a long name", |world| {
        set_xattr(world, "file", format!("user.{}", "x".repeat(100)).as_bytes())
    }),
    whole("removexattr", |world| {
        world.volume().remove_xattr(world.find("file")?, b"user.kept", caller())
    }),
    whole("getxattr", |world| {
        made(world.volume().xattr(world.find("dir")?, b"user.kept", caller()))
    }),
    whole("listxattr", |world| made(world.volume().xattr_names(world.find("file")?, caller()))),
    whole("sync", |world| world.volume().flush(std::time::Duration::ZERO)),
    whole("unmount and mount", |world| {
        if world.is_open() {
            let ended = world.volume().end();
            world.kill();
            ended?;
        }
        world.open()
    }),
    whole("kill and mount", |world| {
        world.kill();
        world.open()
    }),
];

/// Operations on contents.
pub(crate) const CONTENTS: &[Operation] = &[
    whole("open and read", |world| {
        world.with("large", Access::ReadOnly, |handle| {
            made(handle.file.read(0, &mut vec![0; 170_000]))
        })
    }),
    in_parts("write", |world| write(world, "file", 3000, 50)),
    in_parts("write a block", |world| write(world, "file", 4096, 4096)),
    in_parts("write much", |world| write(world, "large", 100, 159_000)),
    in_parts("write to an empty file", |world| write(world, "empty", 0, 9000)),
    in_parts("append", |world| write(world, "file", 14_000, 5000)),
    in_parts("append to a page", |world| write(world, "small", 100, 700)),
    in_parts("write far behind the end", |world| write(world, "small", 200_000, 100)),
    with_sync("write, and fsync", |world| synced(world, Durability::Everything)),
    with_sync("write, and fdatasync", |world| synced(world, Durability::Contents)),
    in_parts("open with O_TRUNC and write", |world| {
        change(world, "file", AttrChange { size: Some(0), ..NONE })?;
        write(world, "file", 0, 5000)
    }),
    as_told("truncate to nothing", |world| {
        change(world, "file", AttrChange { size: Some(0), ..NONE })
    }),
    as_told("truncate", |world| change(world, "large", AttrChange { size: Some(9000), ..NONE })),
    as_told("truncate a page", |world| {
        change(world, "small", AttrChange { size: Some(9), ..NONE })
    }),
    as_told("truncate to grow", |world| {
        change(world, "small", AttrChange { size: Some(160_000), ..NONE })
    }),
    as_told("reserve", |world| allocate(world, Allocate::Reserve(Reserve::Grow), 12_000, 9000)),
    whole("reserve behind the end", |world| {
        allocate(world, Allocate::Reserve(Reserve::KeepSize), 20_000, 50_000)
    }),
    in_parts("punch", |world| allocate(world, Allocate::Punch, 3000, 9000)),
    in_parts("zero", |world| allocate(world, Allocate::Zero(Reserve::Grow), 3000, 13_000)),
    in_parts("copy", |world| {
        world.with("large", Access::ReadOnly, |from| {
            world.with("file", Access::ReadWrite, |to| {
                let mut done = 0;
                while done < 20_000 {
                    let volume = world.volume();
                    done += volume.copy_range((from, done), (to, done), 20_000 - done)?;
                }
                Ok(())
            })
        })
    }),
];

const NONE: AttrChange =
    AttrChange { mode: None, uid: None, gid: None, size: None, atime: None, mtime: None };
const OTHER: Option<u32> = Some(1001);
const PLAIN: RenameHow = RenameHow { no_replace: false, exchange: false, whiteout: false };
const EXCHANGE: RenameHow = RenameHow { exchange: true, ..PLAIN };

/// A name that does not fit into a backing name.
fn long(letter: char) -> String {
    letter.to_string().repeat(200)
}

/// A target that does not fit into a backing link.
fn far() -> String {
    "/target".repeat(500)
}

fn bytes(len: usize, tag: u8) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at % 31).unwrap() * 8 + tag).collect()
}

fn made<T>(done: Result<T>) -> Result<()> {
    done.map(drop)
}

fn rename(world: &World<'_>, from: &str, to: &str, how: RenameHow) -> Result<()> {
    let (dir, name) = to.rsplit_once('/').unwrap_or(("", to));
    let to = (world.find(dir)?, name.as_bytes());
    world.volume().rename((ROOT, from.as_bytes()), to, how, caller())
}

fn change(world: &World<'_>, path: &str, change: AttrChange) -> Result<()> {
    made(world.volume().set_attr(world.find(path)?, &change, caller()))
}

fn set_xattr(world: &World<'_>, path: &str, name: &[u8]) -> Result<()> {
    world.volume().set_xattr(world.find(path)?, name, b"new value", SetMode::Any, caller())
}

fn write(world: &World<'_>, path: &str, offset: u64, len: usize) -> Result<()> {
    world.with(path, Access::ReadWrite, |handle| write_all(handle, offset, &bytes(len, 5)))
}

fn synced(world: &World<'_>, what: Durability) -> Result<()> {
    world.with("file", Access::ReadWrite, |handle| {
        write_all(handle, 3000, &bytes(6000, 5))?;
        world.volume().sync_file(handle, what)
    })
}

fn allocate(world: &World<'_>, how: Allocate, offset: u64, len: u64) -> Result<()> {
    world
        .with("file", Access::ReadWrite, |handle| world.volume().allocate(handle, how, offset, len))
}

//! What a workload knows to be on the disk, and whether it is there.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rusqlite::Connection;

use crate::tools::{program, run};

/// On which side of a scenario something was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Side {
    /// On the backing filesystem itself.
    Bare,
    /// On the mount of the vault.
    Kmsfs,
}

/// From now on, and until the next claim of the same key, one of `states` is what a cut leaves.
#[derive(Clone)]
pub(crate) struct Claim {
    pub(crate) side: Side,
    /// The same on both sides, so that the two can be compared.
    pub(crate) key: String,
    /// Relative to the root of the side.
    pub(crate) path: PathBuf,
    /// None claims nothing any more.
    pub(crate) states: Vec<State>,
}

/// What may be found.
#[derive(Clone)]
pub(crate) enum State {
    /// Nothing of this name.
    Absent,
    /// A regular file with these bytes at an offset. Where several such states are allowed, each
    /// byte may come from another of them: what is not synced is old or new.
    Bytes { at: u64, bytes: Arc<[u8]> },
    /// A regular file with these contents and no others.
    Exactly(Arc<[u8]>),
    /// The same under another name: a rename was under way.
    ExactlyAt(PathBuf, Arc<[u8]>),
    /// A regular file that is on its way through these contents: as long as one of them or between,
    /// and each byte that of one of them. A block that one of them does not have may be unreadable.
    Between(Vec<Arc<[u8]>>),
    /// A file that opens, whatever it holds.
    Opens,
    /// A directory.
    Dir,
    /// Permission bits.
    Mode(u32),
    /// User and group.
    Owner(u32, u32),
    /// Seconds and nanoseconds of the last change of contents.
    Mtime(i64, i64),
    /// Any such time from this second on.
    MtimeFrom(i64),
    /// The value of an attribute; `None` when there is none.
    Xattr(&'static str, Option<Vec<u8>>),
    /// The target of a symbolic link.
    Target(PathBuf),
    /// The same file as another path.
    SameAs(PathBuf),
    /// A database whose integrity holds, with transactions up to one of these.
    Database { from: u32, to: u32 },
    /// A repository that is in order and has this commit or a later one.
    Repository { commits: u32 },
}

impl Claim {
    /// Whether what is claimed is found below `root`; what is wrong, else.
    pub(crate) fn check(&self, root: &Path, torn: bool) -> Result<(), String> {
        if self.states.is_empty() {
            return Ok(());
        }
        let path = root.join(&self.path);
        let mut wrong = Vec::new();
        for state in &self.states {
            match state.check(root, &path, torn) {
                Ok(()) => return Ok(()),
                Err(found) => wrong.push(found),
            }
        }
        let blends: Vec<_> = self.states.iter().filter_map(State::bytes).collect();
        if blends.len() > 1 && blend(&path, &blends, torn)? {
            return Ok(());
        }
        wrong.dedup();
        Err(format!("{} ({}): {}", self.key, shown(&self.path), wrong.join("; ")))
    }
}

impl State {
    fn bytes(&self) -> Option<(u64, &[u8])> {
        match self {
            Self::Bytes { at, bytes } => Some((*at, bytes)),
            _ => None,
        }
    }

    fn check(&self, root: &Path, path: &Path, torn: bool) -> Result<(), String> {
        match self {
            Self::Absent => match fs::symlink_metadata(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(said("lstat", &error)),
                Ok(_) => Err("it is there".to_owned()),
            },
            Self::Bytes { at, bytes } => {
                let found = read_at(path, *at, bytes.len())?;
                same(&found, bytes, &format!("at {at}"))
            }
            Self::Exactly(bytes) => whole(path, bytes),
            Self::ExactlyAt(other, bytes) => whole(&root.join(other), bytes),
            Self::Between(ways) => between(path, ways, torn),
            Self::Opens => File::open(path).map(drop).map_err(|error| said("open", &error)),
            Self::Dir => fs::read_dir(path)
                .and_then(|mut entries| entries.try_for_each(|entry| entry.map(drop)))
                .map_err(|error| said("readdir", &error)),
            Self::Mode(mode) => equal("mode", stat(path)?.mode() & 0o7777, *mode),
            Self::Owner(user, group) => {
                let meta = stat(path)?;
                equal("owner", (meta.uid(), meta.gid()), (*user, *group))
            }
            Self::Mtime(seconds, nanos) => {
                let meta = stat(path)?;
                equal("mtime", (meta.mtime(), meta.mtime_nsec()), (*seconds, *nanos))
            }
            Self::MtimeFrom(first) => {
                let found = stat(path)?.mtime();
                equal("mtime", found, found.max(*first))
            }
            Self::Xattr(name, value) => equal(name, &xattr(path, name)?, value),
            Self::Target(target) => {
                let found = fs::read_link(path).map_err(|error| said("readlink", &error))?;
                equal("target", shown(&found), shown(target))
            }
            Self::SameAs(other) => {
                let found = stat(path)?.ino();
                let same = stat(&root.join(other));
                equal(
                    "inode",
                    found,
                    same.map_err(|said| format!("{}: {said}", shown(other)))?.ino(),
                )
            }
            Self::Database { from, to } => database(path, *from, *to),
            Self::Repository { commits } => repository(path, *commits),
        }
    }
}

const BLOCK: usize = 4096;

/// The table of the databases: a row for each transaction.
const ROWS: &str = "SELECT count(*), coalesce(max(n), 0), \
                    coalesce(sum(length(v) = 100 + n * 977 % 9000), 0) FROM t";

fn database(path: &Path, from: u32, to: u32) -> Result<(), String> {
    let wrong = |error: rusqlite::Error| format!("sqlite: {error}");
    let db = Connection::open(path).map_err(wrong)?;
    let verdict: String =
        db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).map_err(wrong)?;
    if verdict != "ok" {
        return Err(format!("integrity_check: {verdict}"));
    }
    let (rows, last, right): (u32, u32, u32) =
        db.query_row(ROWS, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).map_err(wrong)?;
    if rows == last && right == rows && (from..=to).contains(&last) {
        return Ok(());
    }
    Err(format!("{rows} rows, last {last}, {right} right; {from} to {to} were expected"))
}

fn repository(path: &Path, commits: u32) -> Result<(), String> {
    let git = |args: &[&str]| {
        let mut git = Command::new(program("git"));
        run(git
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .args(["-c", "safe.directory=*", "-C"])
            .arg(path)
            .args(args))
    };
    git(&["fsck", "--full", "--strict", "--no-dangling"])?;
    let count = git(&["rev-list", "--count", "HEAD"])?;
    match count.trim().parse::<u32>() {
        Ok(count) if count >= commits => Ok(()),
        _ => Err(format!("{} commits, {commits} were made", count.trim())),
    }
}

/// True when each byte is that of one of the states. In a torn image a block that was being
/// written may be unreadable, and no other.
fn blend(path: &Path, states: &[(u64, &[u8])], torn: bool) -> Result<bool, String> {
    let (at, len) = (states[0].0, states[0].1.len());
    if states.iter().any(|state| (state.0, state.1.len()) != (at, len)) {
        return Ok(false);
    }
    for start in (0..len).step_by(BLOCK) {
        let range = start..len.min(start + BLOCK);
        let allowed: Vec<&[u8]> = states.iter().map(|(_, bytes)| &bytes[range.clone()]).collect();
        let being_written = allowed.iter().any(|bytes| *bytes != allowed[0]);
        let found = match read_at(path, at + start as u64, range.len()) {
            Err(error) if torn && being_written && unreadable(&error) => continue,
            found => found?,
        };
        let mut bytes = found.iter().enumerate();
        let known = |(at, byte): (usize, &u8)| allowed.iter().any(|bytes| bytes[at] == *byte);
        if found.len() != range.len() || !bytes.all(known) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Holds a file that is changing its length against what it was and is to be. The block in which it
/// ends, or ended, is being written, so it is one that may be torn.
fn between(path: &Path, ways: &[Arc<[u8]>], torn: bool) -> Result<(), String> {
    let size = usize::try_from(stat(path)?.size()).unwrap();
    let lengths = || ways.iter().map(|bytes| bytes.len());
    let (least, most) = (lengths().min().unwrap(), lengths().max().unwrap());
    if !(least..=most).contains(&size) {
        return Err(format!("size {size}, between {least} and {most} were expected"));
    }
    for start in (0..size).step_by(BLOCK) {
        let end = size.min(start + BLOCK);
        let ends_here = lengths().any(|length| (start..start + BLOCK).contains(&length));
        let excused = end > least || (torn && ends_here);
        let found = match read_at(path, start as u64, end - start) {
            Err(error) if excused && unreadable(&error) => continue,
            found => found?,
        };
        let known = |at: usize, byte: u8| {
            ways.iter().any(|bytes| bytes.get(at).map_or(byte == 0, |known| *known == byte))
        };
        if found.len() != end - start {
            return Err(format!("{} bytes at {start} of {size}", found.len()));
        }
        if let Some(at) = (start..end).find(|at| !known(*at, found[at - start])) {
            return Err(format!("byte {at} of {size} was never there"));
        }
    }
    Ok(())
}

/// EIO, or EBADMSG.
fn unreadable(error: &str) -> bool {
    ["(os error 5)", "(os error 74)"].iter().any(|number| error.contains(number))
}

fn whole(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let found = fs::read(path).map_err(|error| said("read", &error))?;
    same(&found, bytes, "the whole")
}

fn read_at(path: &Path, at: u64, len: usize) -> Result<Vec<u8>, String> {
    let file = File::open(path).map_err(|error| said("open", &error))?;
    let mut found = vec![0; len];
    let mut got = 0;
    while got < len {
        match file.read_at(&mut found[got..], at + got as u64) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) => return Err(said(&format!("read at {at}"), &error)),
        }
    }
    found.truncate(got);
    Ok(found)
}

fn same(found: &[u8], wanted: &[u8], what: &str) -> Result<(), String> {
    if found == wanted {
        return Ok(());
    }
    let place = found.iter().zip(wanted).position(|(one, other)| one != other);
    Err(format!(
        "{what}: {} of {} bytes, first wrong at {:?}",
        found.len(),
        wanted.len(),
        place.unwrap_or_else(|| found.len().min(wanted.len()))
    ))
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, found: T, wanted: T) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("{what} {found:?} in place of {wanted:?}")) }
}

fn stat(path: &Path) -> Result<fs::Metadata, String> {
    fs::symlink_metadata(path).map_err(|error| said("lstat", &error))
}

fn xattr(path: &Path, name: &str) -> Result<Option<Vec<u8>>, String> {
    let mut value = vec![0; 4096];
    match rustix::fs::getxattr(path, name, &mut value[..]) {
        Ok(len) => {
            value.truncate(len);
            Ok(Some(value))
        }
        Err(rustix::io::Errno::NODATA) => Ok(None),
        Err(error) => Err(said("getxattr", &error.into())),
    }
}

fn said(what: &str, error: &io::Error) -> String {
    format!("{what}: {error}")
}

/// A path for people: long names are cut.
pub(crate) fn shown(path: &Path) -> String {
    let text = path.display().to_string();
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}… ({} bytes)", &text[..at], text.len()),
        None => text,
    }
}

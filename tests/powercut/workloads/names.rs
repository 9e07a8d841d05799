//! Names, links and attributes.

use std::fs::{self, File, FileTimes, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{XattrFlags, removexattr, setxattr};

use crate::claim::State;
use crate::record::{At, Workload};

const NOTE: &str = "user.note";
const FILES: usize = 4;

/// Modes, owners, times and attributes of files, each followed by fsync.
pub(crate) struct Metadata {
    /// What is known of each file: mode, owner, time, attribute.
    known: Vec<[Option<State>; 4]>,
}

impl Metadata {
    pub(crate) fn new() -> Self {
        Self { known: (0..FILES).map(|_| [None, None, None, None]).collect() }
    }
}

impl Workload for Metadata {
    fn prepare(&mut self, at: &At) -> io::Result<()> {
        // The first is empty: it has no header in which anything could be kept.
        (0..FILES).try_for_each(|file| fs::write(at.path(name(file)), vec![7; file * 5000]))
    }

    fn step(&mut self, at: &At, _: u32) -> io::Result<()> {
        let mut random = at.random();
        let number = random.index(FILES);
        let path = at.path(name(number));
        let file = File::open(&path)?;
        let mut begun = Vec::new();
        for _ in 0..=random.below(2) {
            let what = random.index(4);
            let new = match what {
                0 => State::Mode([0o600, 0o640, 0o644, 0o755, 0o751][random.index(5)]),
                1 => State::Owner(u32::from(random.one_in(2)) * 1001, 1002),
                2 => State::Mtime(1_500_000_000 + random.index(9999) as i64, 123_456_789),
                _ if random.one_in(4) => State::Xattr(NOTE, None),
                _ => State::Xattr(NOTE, Some(random.bytes(30))),
            };
            // What was there before is not known in full, so nothing is claimed until the sync.
            at.claim(&key(number, what), name(number), vec![]);
            change(&path, &file, &new)?;
            begun.push(what);
            self.known[number][what] = Some(new);
        }
        file.sync_all()?;
        for what in begun {
            let state = self.known[number][what].clone();
            at.claim(&key(number, what), name(number), state.into_iter().collect());
        }
        Ok(())
    }
}

/// Files that nobody changes: whatever is done with their keys, they have their times.
pub(crate) struct Still;

impl Workload for Still {
    fn prepare(&mut self, at: &At) -> io::Result<()> {
        for number in 0..STILL {
            let path = at.path(name(number));
            fs::write(&path, vec![7; 100 + number * 300])?;
            change(&path, &File::open(&path)?, &STILL_SINCE)?;
            at.fsync(name(number))?;
        }
        Ok(())
    }

    fn step(&mut self, at: &At, _: u32) -> io::Result<()> {
        let written = header_written()?;
        for number in 0..STILL {
            at.claim(&name(number), name(number), vec![STILL_SINCE, written.clone()]);
        }
        Ok(())
    }
}

/// The same files, but their times are set in each step, and nobody syncs that.
pub(crate) struct Touched {
    files: Still,
    /// Any of those that a file has had.
    times: Vec<State>,
}

impl Touched {
    pub(crate) fn new() -> Self {
        Self { files: Still, times: vec![STILL_SINCE] }
    }
}

impl Workload for Touched {
    fn prepare(&mut self, at: &At) -> io::Result<()> {
        self.files.prepare(at)
    }

    fn step(&mut self, at: &At, step: u32) -> io::Result<()> {
        let new = State::Mtime(1_400_000_001 + i64::from(step) * 60, 987_654_321);
        if step > 0 {
            self.times.push(new.clone());
        }
        let written = header_written()?;
        for number in 0..STILL {
            let states = self.times.iter().chain([&written]).cloned().collect();
            at.claim(&name(number), name(number), states);
            if step > 0 && number % 3 != 0 {
                let path = at.path(name(number));
                change(&path, &File::open(&path)?, &new)?;
            }
        }
        Ok(())
    }
}

const STILL: usize = 24;
const STILL_SINCE: State = State::Mtime(1_400_000_000, 987_654_321);

/// Between the write of a header and the call that puts the time back, the backing file has the time of
/// the write (FORMAT section 11.4), and once in many cuts somebody's commit takes it along.
fn header_written() -> io::Result<State> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
    Ok(State::MtimeFrom(now.as_secs().cast_signed() - 3600))
}

fn name(file: usize) -> String {
    format!("file {file}")
}

fn key(file: usize, what: usize) -> String {
    format!("file {file} {}", ["mode", "owner", "mtime", "xattr"][what])
}

fn change(path: &Path, file: &File, new: &State) -> io::Result<()> {
    match new {
        State::Mode(mode) => fs::set_permissions(path, Permissions::from_mode(*mode)),
        State::Owner(user, group) => chown(path, Some(*user), Some(*group)),
        State::Mtime(seconds, nanos) => {
            let since = Duration::new(seconds.unsigned_abs(), u32::try_from(*nanos).unwrap());
            file.set_times(FileTimes::new().set_modified(UNIX_EPOCH + since))
        }
        State::Xattr(name, Some(value)) => {
            setxattr(path, *name, value, XattrFlags::empty()).map_err(Into::into)
        }
        State::Xattr(name, None) => match removexattr(path, *name) {
            Ok(()) | Err(rustix::io::Errno::NODATA) => Ok(()),
            Err(error) => Err(error.into()),
        },
        _ => unreachable!("only attributes are changed"),
    }
}

/// Files get second names, lose their first ones, and each change ends with fsync of the directory.
pub(crate) struct HardLinks;

impl Workload for HardLinks {
    fn step(&mut self, at: &At, step: u32) -> io::Result<()> {
        let mut random = at.random();
        let len = random.index(9000);
        let bytes = random.bytes(len);
        let (one, two) = (format!("one {step}"), format!("two {step}"));
        fs::write(at.path(&one), &bytes)?;
        at.fsync(&one)?;
        let whole = || State::Exactly(bytes.as_slice().into());
        at.claim(&two, &two, vec![State::Absent, whole()]);
        fs::hard_link(at.path(&one), at.path(&two))?;
        at.fsync(".")?;
        at.claim(&two, &two, vec![whole()]);
        at.claim(&format!("{step} same"), &two, vec![State::SameAs(one.clone().into())]);
        if random.one_in(2) {
            at.claim(&format!("{step} same"), &two, vec![]);
            fs::remove_file(at.path(&one))?;
            at.fsync(".")?;
            at.claim(&one, &one, vec![State::Absent]);
        }
        Ok(())
    }
}

/// Files get further names, other names, and lose names, and each change ends with fsync of the file,
/// which keeps the names that it has: nobody syncs a directory after it.
pub(crate) struct NamesOfSynced;

impl Workload for NamesOfSynced {
    fn prepare(&mut self, at: &At) -> io::Result<()> {
        ["old", "old/deep"].iter().try_for_each(|dir| fs::create_dir(at.path(dir)))
    }

    fn step(&mut self, at: &At, step: u32) -> io::Result<()> {
        let mut random = at.random();
        let new = format!("new {step}");
        fs::create_dir(at.path(&new))?;
        let [one, two, three] = ["one", "two", "three"].map(|name| {
            let dir = [".", "old", "old/deep", &new][random.index(4)];
            format!("{dir}/{name} {step}")
        });
        let len = random.index(9000);
        let bytes: std::sync::Arc<[u8]> = random.bytes(len).into();
        let whole = || State::Exactly(bytes.clone());
        let mut file = File::create(at.path(&one))?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        at.claim(&one, &one, vec![whole()]);
        if random.one_in(2) {
            // The directory is known to the log of the filesystem, without what comes next.
            at.fsync(Path::new(&two).parent().unwrap())?;
        }
        fs::hard_link(at.path(&one), at.path(&two))?;
        file.sync_all()?;
        at.claim(&two, &two, vec![whole()]);
        at.claim(&format!("{step} same"), &two, vec![State::SameAs(one.clone().into())]);
        if random.one_in(2) {
            at.commit();
        }
        let renamed = if random.one_in(2) { &one } else { &two };
        at.claim(&format!("{step} same"), &two, vec![]);
        at.claim(&one, &one, vec![State::Absent, whole()]);
        at.claim(renamed, renamed, vec![State::Absent, whole()]);
        fs::rename(at.path(renamed), at.path(&three))?;
        if *renamed == two {
            fs::remove_file(at.path(&one))?;
        }
        // By another descriptor than the one that is as old as the file.
        if random.one_in(2) {
            at.fsync(&three)?
        } else {
            file.sync_all()?
        }
        // A name that was removed may come back on btrfs until its directory is synced: the log of a
        // directory that was synced before says nothing of older names.
        at.claim(renamed, renamed, vec![State::Absent]);
        at.claim(&three, &three, vec![whole()]);
        Ok(())
    }
}

/// Symbolic links, short and as long as Linux takes them; some are removed again, unsynced.
pub(crate) struct Symlinks;

impl Workload for Symlinks {
    fn step(&mut self, at: &At, step: u32) -> io::Result<()> {
        const SHORT: [usize; 7] = [12, 300, 900, 1000, 1023, 3000, 3055];
        const LONG: [usize; 4] = [3056, 3500, 4000, 4095];
        let mut random = at.random();
        for (number, lengths) in [&SHORT[..], &LONG[..]].into_iter().enumerate() {
            let len = lengths[random.index(lengths.len())];
            let target: PathBuf = word(&mut random, len).into();
            let path = format!("link {step}.{number}");
            let state = || State::Target(target.clone());
            at.claim(&path, &path, vec![State::Absent, state()]);
            match symlink(&target, at.path(&path)) {
                // XFS takes 1,023 bytes.
                Err(error) if len > 1023 && error.raw_os_error() == Some(libc::ENAMETOOLONG) => {
                    at.claim(&path, &path, vec![]);
                    continue;
                }
                done => done?,
            }
            if random.one_in(2) {
                at.commit();
            }
            at.fsync(".")?;
            at.claim(&path, &path, vec![state()]);
            if step % 3 == 1 {
                at.claim(&path, &path, vec![State::Absent, state()]);
                fs::remove_file(at.path(&path))?;
            }
        }
        Ok(())
    }
}

/// Names that need a sidecar in a vault, made and changed while somebody else commits the journal:
/// nothing was synced, but a file that had been is under its old name or its new one.
pub(crate) struct LongNamesInBetween;

impl Workload for LongNamesInBetween {
    fn step(&mut self, at: &At, step: u32) -> io::Result<()> {
        let mut random = at.random();
        let bytes: std::sync::Arc<[u8]> = random.bytes(3000).into();
        let (first, second) = (format!("short {step}"), word(&mut random, 176));
        let (third, link, dir) =
            (word(&mut random, 255), word(&mut random, 200), word(&mut random, 190));
        fs::write(at.path(&first), &bytes)?;
        at.fsync(&first)?;
        let key = format!("file {step}");
        let at_one_of = |names: &[&String]| {
            names.iter().map(|name| State::ExactlyAt(name.into(), bytes.clone())).collect()
        };
        at.claim(&key, &first, at_one_of(&[&first, &second]));
        fs::rename(at.path(&first), at.path(&second))?;
        at.commit();
        at.claim(&key, &first, at_one_of(&[&first, &second, &third]));
        fs::rename(at.path(&second), at.path(&third))?;
        fs::hard_link(at.path(&third), at.path(&link))?;
        fs::create_dir(at.path(&dir))?;
        at.commit();
        at.claim(&key, &first, at_one_of(&[&first, &second, &third]));
        Ok(())
    }
}

/// Files and directories whose names need a sidecar in a vault.
pub(crate) struct LongNames {
    /// The key of its claim, its name and its contents.
    last: Option<(String, String, Vec<u8>)>,
}

impl LongNames {
    pub(crate) fn new() -> Self {
        Self { last: None }
    }
}

impl Workload for LongNames {
    fn step(&mut self, at: &At, step: u32) -> io::Result<()> {
        let mut random = at.random();
        let bytes = random.bytes(3000);
        let whole = || State::Exactly(bytes.as_slice().into());
        let len = 176 + random.index(80);
        let long = word(&mut random, len);
        match step % 4 {
            0 => {
                fs::write(at.path(&long), &bytes)?;
                // The name of a new file is durable with the file.
                at.fsync(&long)?;
            }
            1 => {
                let short = format!("short {step}");
                fs::write(at.path(&short), &bytes)?;
                at.fsync(&short)?;
                fs::rename(at.path(&short), at.path(&long))?;
                at.fsync(".")?;
                at.claim(&short, &short, vec![State::Absent]);
            }
            2 => {
                let short = format!("first {step}");
                fs::write(at.path(&short), &bytes)?;
                at.fsync(&short)?;
                fs::hard_link(at.path(&short), at.path(&long))?;
                at.fsync(".")?;
            }
            _ => {
                fs::create_dir(at.path(&long))?;
                at.fsync(".")?;
                at.claim(&format!("directory {step}"), &long, vec![State::Dir]);
                return self.rename_last(at, &mut random);
            }
        }
        let key = format!("file {step}");
        at.claim(&key, &long, vec![whole()]);
        self.last = Some((key, long, bytes));
        Ok(())
    }
}

impl LongNames {
    /// From one long name to another.
    fn rename_last(&mut self, at: &At, random: &mut crate::random::Random) -> io::Result<()> {
        let Some((key, old, bytes)) = self.last.take() else { return Ok(()) };
        let new = word(random, 250);
        at.claim(&key, &old, vec![]);
        fs::rename(at.path(&old), at.path(&new))?;
        at.fsync(".")?;
        at.claim(&key, &old, vec![State::Absent]);
        let whole = State::Exactly(bytes.as_slice().into());
        at.claim(&format!("{key} moved"), &new, vec![whole]);
        Ok(())
    }
}

/// Letters and digits.
fn word(random: &mut crate::random::Random, len: usize) -> String {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    (0..len).map(|_| char::from(LETTERS[random.index(LETTERS.len())])).collect()
}

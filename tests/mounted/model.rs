//! Random operations on a mount and on a plain directory: both must show the same at every step.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FallocateFlags, RenameFlags, fallocate, renameat_with};

use crate::harness::{Shell, Vault, assert_same, snapshot};
use crate::random::{Random, seed};

/// The time a run may take; the number of operations follows from it.
const BUDGET: Duration = Duration::from_secs(40);
/// Operations between two comparisons of the whole trees.
const ROUND: u32 = 400;
/// Names in play: few, so that operations meet.
const NAMES: u64 = 12;
/// Files stay below this many bytes, several groups of pages.
const MAX_SIZE: u64 = 1_200_000;

/// The two trees and the handles that are open in both.
struct Pair {
    real: PathBuf,
    plain: PathBuf,
    handles: Vec<(File, File)>,
}

/// What an operation did, in a form that both trees must agree on.
type Answer = Result<Vec<u8>, i32>;

#[test]
fn a_mount_behaves_like_a_plain_directory() {
    let vault = Vault::new("model");
    let plain = vault.outside_dir("plain");
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o700)).unwrap();
    let seed = seed("model");
    let mut random = Random::new(seed);
    let (start, mut operations, mut rounds) = (Instant::now(), 0, 0);
    while start.elapsed() < BUDGET {
        let mount = vault.mount();
        let mut pair = Pair { real: mount.root(), plain: plain.clone(), handles: Vec::new() };
        for _ in 0..ROUND {
            let line = pair.step(&mut random);
            operations += 1;
            assert!(line.is_none(), "seed {seed}, operation {operations}: {}", line.unwrap());
        }
        map_something(&pair, &mut random);
        pair.handles.clear();
        assert_same(
            &shown(&pair.real),
            &shown(&plain),
            &format!("seed {seed}, {operations} operations"),
        );
        mount.unmount();
        let mount = vault.mount();
        let when = format!("seed {seed}, remounted after {operations} operations");
        assert_same(&shown(&mount.root()), &shown(&plain), &when);
        rounds += 1;
    }
    println!("model: {operations} operations in {rounds} rounds, seed {seed}");
}

impl Pair {
    /// One operation in both trees; says what differed.
    fn step(&mut self, random: &mut Random) -> Option<String> {
        match random.below(20) {
            0 => self.open(random),
            1 if !self.handles.is_empty() => {
                let index = random.index(self.handles.len());
                drop(self.handles.swap_remove(index));
                None
            }
            2..=12 if !self.handles.is_empty() => self.on_handle(random),
            _ => self.on_names(random),
        }
    }

    fn open(&mut self, random: &mut Random) -> Option<String> {
        let name = name(random);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true);
        if random.one_in(4) {
            options.append(true);
        } else {
            options.truncate(random.one_in(8));
        }
        let real = options.open(self.real.join(&name));
        let plain = options.open(self.plain.join(&name));
        match (real, plain) {
            (Ok(real), Ok(plain)) => {
                self.handles.push((real, plain));
                if self.handles.len() > 6 {
                    self.handles.remove(0);
                }
                None
            }
            (real, plain) => differ(
                &format!("open {name}"),
                real.map(|_| Vec::new()).map_err(number),
                plain.map(|_| Vec::new()).map_err(number),
            ),
        }
    }

    fn on_handle(&mut self, random: &mut Random) -> Option<String> {
        let (real, plain) = &self.handles[random.index(self.handles.len())];
        let far = if random.one_in(3) { MAX_SIZE } else { 30_000 };
        let offset = random.below(far);
        let long = if random.one_in(3) { 60_000 } else { 5000 };
        let len = random.index(long);
        let bytes = random.bytes(len);
        let kind = random.below(12);
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let act = |file: &File| -> Answer {
            match kind {
                0..=3 => file.write_all_at(&bytes, offset).map(|()| Vec::new()),
                4..=6 => read(file, offset, len),
                7 => file.set_len(offset).map(|()| Vec::new()),
                8 => fallocate(file, punch, offset, len as u64 + 1)
                    .map(|()| Vec::new())
                    .map_err(Into::into),
                9 => fallocate(file, FallocateFlags::empty(), offset, len as u64 + 1)
                    .map(|()| Vec::new())
                    .map_err(Into::into),
                10 => file.sync_data().map(|()| Vec::new()),
                _ => file.metadata().map(|meta| format!("{} {}", meta.len(), meta.nlink()).into()),
            }
            .map_err(number)
        };
        differ(&format!("handle operation {kind} at {offset} length {len}"), act(real), act(plain))
    }

    fn on_names(&self, random: &mut Random) -> Option<String> {
        let (one, two) = (name(random), name(random));
        let kind = random.below(14);
        let bytes = random.bytes(3000);
        let flags = match random.below(3) {
            0 => RenameFlags::NOREPLACE,
            1 => RenameFlags::EXCHANGE,
            _ => RenameFlags::empty(),
        };
        let act = |root: &Path| -> Answer {
            let (a, b) = (root.join(&one), root.join(&two));
            match kind {
                0 | 1 => fs::write(a, &bytes).map(|()| Vec::new()),
                2 => fs::remove_file(a).map(|()| Vec::new()),
                3 | 4 => fs::create_dir(a).map(|()| Vec::new()),
                5 => fs::remove_dir(a).map(|()| Vec::new()),
                6 | 7 => {
                    renameat_with(CWD, a, CWD, b, flags).map(|()| Vec::new()).map_err(Into::into)
                }
                8 => fs::hard_link(a, b).map(|()| Vec::new()),
                9 => symlink(&one, b).map(|()| Vec::new()),
                10 => fs::read_link(a).map(|target| target.to_str().unwrap().into()),
                11 => fs::read(a),
                12 => fs::symlink_metadata(a).map(|meta| {
                    let len = if meta.is_dir() { 0 } else { meta.len() };
                    format!("{:o} {len} {}", meta.mode(), meta.nlink()).into()
                }),
                _ => fs::read_dir(a).map(|list| {
                    let mut names: Vec<_> = list.map(|entry| entry.unwrap().file_name()).collect();
                    names.sort();
                    format!("{names:?}").into()
                }),
            }
            .map_err(number)
        };
        differ(
            &format!("name operation {kind} on {one} and {two}"),
            act(&self.real),
            act(&self.plain),
        )
    }
}

/// A path of one or two components; one name is too long to be stored in the name itself.
fn name(random: &mut Random) -> String {
    let mut part = || match random.below(NAMES) {
        0 => "long".repeat(60),
        number => format!("n{number}"),
    };
    let first = part();
    if random.one_in(2) { format!("{first}/{}", name_part(random)) } else { first }
}

fn name_part(random: &mut Random) -> String {
    format!("n{}", random.below(NAMES))
}

fn read(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut done = 0;
    while done < len {
        match file.read_at(&mut bytes[done..], offset + done as u64)? {
            0 => break,
            count => done += count,
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}

/// Writes through a mapping in one of the regular files.
fn map_something(pair: &Pair, random: &mut Random) {
    let script = "import mmap, os, sys
for path in sys.argv[3:]:
    if os.path.islink(path) or not os.path.isfile(path) or os.path.getsize(path) == 0: continue
    with open(path, 'r+b') as file, mmap.mmap(file.fileno(), 0) as view:
        at = int(sys.argv[1]) % len(view)
        text = sys.argv[2].encode()[:len(view) - at]
        view[at:at + len(text)] = text
";
    let (name, at, text) = (name(random), random.below(MAX_SIZE), random.next());
    fs::write(pair.plain.join("../map.py"), script).unwrap();
    Shell::new(pair.plain.join(".."))
        .var("REAL", pair.real.join(&name))
        .var("PLAIN", pair.plain.join(&name))
        .run(&format!("python3 map.py {at} {text:020} \"$REAL\" \"$PLAIN\""));
}

/// The tree without what the two sides may differ in: times.
fn shown(root: &Path) -> String {
    let without_times = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let time = words.iter().position(|word| word.contains('.') && word.parse::<f64>().is_ok());
        match time {
            Some(at) => [&words[..at], &words[at + 1..]].concat().join(" "),
            None => line.to_owned(),
        }
    };
    snapshot(root).lines().map(without_times).collect::<Vec<_>>().join("\n")
}

fn number(error: io::Error) -> i32 {
    error.raw_os_error().unwrap_or(-1)
}

fn differ(what: &str, real: Answer, plain: Answer) -> Option<String> {
    if real == plain {
        return None;
    }
    let brief = |answer: &Answer| match answer {
        Ok(bytes) if bytes.len() > 80 => format!("{} bytes", bytes.len()),
        Ok(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
        Err(errno) => format!("errno {errno}"),
    };
    let first = match (&real, &plain) {
        (Ok(real), Ok(plain)) => real.iter().zip(plain).position(|(one, two)| one != two),
        _ => None,
    };
    Some(format!(
        "{what}: the mount says {}, the plain directory {} (first difference {first:?})",
        brief(&real),
        brief(&plain)
    ))
}

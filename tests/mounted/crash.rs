//! The daemon is killed with SIGKILL at random moments: what was written before must be there.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::harness::{Vault, check_headers, program};
use crate::random::{Random, seed};

/// The unit of change that the overwriting writer works in.
const BLOCK: usize = 4096;
/// Blocks of the file that is overwritten: more than one group of pages.
const BLOCKS: usize = 260;

/// What one writer knows to be on disk when the daemon dies.
enum Known {
    /// A file of `appended` bytes was acknowledged, of which `synced` were synced.
    Appended { path: PathBuf, id: u64, synced: usize, appended: usize },
    /// The last generation of each block that was acknowledged, and the one in flight.
    Overwritten { path: PathBuf, done: Vec<u32>, trying: Option<usize> },
}

#[test]
fn a_killed_daemon_loses_nothing_that_was_acknowledged() {
    let vault = Vault::new("kill");
    let seed = seed("kill");
    let mut random = Random::new(seed);
    let mut all: Vec<Known> = Vec::new();
    for round in 0..8 {
        let mount = vault.mount();
        check(&all, &mount.root());
        let stop = Arc::new(AtomicBool::new(false));
        let base = PathBuf::from(format!("round {round}"));
        fs::create_dir(mount.path(&base)).unwrap();
        let writers: Vec<JoinHandle<Vec<Known>>> = (0..3)
            .map(|_| {
                let (root, base, seed, stop) =
                    (mount.root(), base.clone(), random.next(), Arc::clone(&stop));
                thread::spawn(move || write_until_dead(&root, &base, seed, &stop))
            })
            .collect();
        thread::sleep(Duration::from_millis(50 + random.below(600)));
        mount.kill();
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            all.extend(writer.join().unwrap());
        }
        if round % 3 == 2 {
            let found = vault.command().arg("fsck").arg(vault.store()).output().unwrap();
            let text = String::from_utf8_lossy(&found.stdout).into_owned();
            assert!(found.status.code() != Some(15), "seed {seed}: fsck found damage\n{text}");
        }
    }
    let mount = vault.mount();
    check(&all, &mount.root());
    println!("kill: {} writers' files checked, seed {seed}", all.len());
}

#[test]
fn a_killed_rewrap_goes_on_where_it_stopped() {
    const FILES: usize = 1500;
    let vault = Vault::new("killrewrap");
    let mount = vault.mount();
    let contents = |number: usize| Random::new(number as u64).bytes(number * 37 % 9000);
    for number in 0..FILES {
        let dir = mount.path(format!("d{}", number % 20));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(number.to_string()), contents(number)).unwrap();
    }
    mount.unmount();
    let mut random = Random::new(seed("killrewrap"));
    for round in 0..4 {
        vault.kmsfs(["key", "rotate", "alias/kmsfs/default"]);
        let mount = vault.mount();
        let mut job = vault
            .command()
            .arg("rewrap")
            .arg(if round % 2 == 0 { mount.root() } else { vault.store().to_owned() })
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        thread::sleep(Duration::from_millis(random.below(120)));
        mount.kill();
        let _ = job.kill();
        job.wait().unwrap();
    }
    let store = vault.store().to_str().unwrap().to_owned();
    vault.kmsfs(["rewrap", &store]);
    check_headers(&vault, "alias/kmsfs/default");
    let mount = vault.mount();
    for number in 0..FILES {
        let path = mount.path(format!("d{}/{number}", number % 20));
        assert!(fs::read(path).unwrap() == contents(number), "file {number} after the re-wraps");
    }
    mount.unmount();
    vault.kmsfs(["fsck", &store]);
    vault.kmsfs(["key", "retire", "alias/kmsfs/default", "--yes"]);
    let mount = vault.mount();
    assert!(fs::read(mount.path("d7/7")).unwrap() == contents(7));
}

/// A journal of which nothing was synced: its length reached the disk, and nothing else of it.
#[test]
fn regression_a_journal_that_was_never_synced_keeps_no_database_from_opening() {
    program("sqlite3");
    let vault = Vault::new("journal");
    let mount = vault.mount();
    let sqlite = |path: &Path, sql: &str| {
        let output = Command::new("sqlite3").arg(path).arg(sql).output().unwrap();
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let database = mount.path("db");
    sqlite(&database, "create table t(v); insert into t values('synced');");
    let before = entries(vault.store());
    fs::write(mount.path("db-journal"), pattern(1, 0, 20_000)).unwrap();
    let journal = entries(vault.store()).into_iter().find(|path| !before.contains(path)).unwrap();
    mount.kill();
    let length = fs::metadata(&journal).unwrap().len();
    fs::write(&journal, vec![0; usize::try_from(length).unwrap()]).unwrap();
    let mount = vault.mount();
    let database = mount.path("db");
    assert_eq!(sqlite(&database, "select v from t"), "synced");
    sqlite(&database, "insert into t values('more')");
    assert_eq!(sqlite(&database, "select count(*) from t"), "2");
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Appends to files and overwrites blocks of one until the mount is gone.
fn write_until_dead(root: &Path, base: &Path, seed: u64, stop: &AtomicBool) -> Vec<Known> {
    let mut random = Random::new(seed);
    let path = base.join(format!("blocks {seed}"));
    let mut known = Vec::new();
    let mut over = Overwriter::new(root, path);
    while !stop.load(Ordering::Relaxed) {
        let appended = append_one(root, base, &mut random);
        let dead = appended.1.is_err() || over.write(&mut random).is_err();
        known.extend(appended.0);
        if dead {
            break;
        }
    }
    known.extend(over.known());
    known
}

/// Writes one file in several appends, some of them synced.
fn append_one(root: &Path, base: &Path, random: &mut Random) -> (Option<Known>, io::Result<()>) {
    let id = random.next();
    let path = base.join(format!("file {id}"));
    let (mut synced, mut appended) = (0, 0);
    let mut write = || -> io::Result<()> {
        let file = OpenOptions::new().append(true).create(true).open(root.join(&path))?;
        for _ in 0..=random.below(6) {
            let len = random.index(9000);
            let bytes = pattern(id, appended, len);
            file.write_all_at(&bytes, 0)?; // O_APPEND: the offset does not count
            appended += len;
            if random.one_in(2) {
                file.sync_data()?;
                synced = appended;
            }
        }
        Ok(())
    };
    let result = write();
    (Some(Known::Appended { path, id, synced, appended }), result)
}

/// Overwrites random blocks of one file with rising generations.
struct Overwriter {
    path: PathBuf,
    file: Option<File>,
    done: Vec<u32>,
    trying: Option<usize>,
}

impl Overwriter {
    fn new(root: &Path, path: PathBuf) -> Self {
        let file = File::options().write(true).create(true).truncate(true).open(root.join(&path));
        Self { path, file: file.ok(), done: Vec::new(), trying: None }
    }

    fn write(&mut self, random: &mut Random) -> io::Result<()> {
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        for _ in 0..8 {
            let block = random.index(BLOCKS.min(self.done.len() + 1));
            if block == self.done.len() {
                self.done.push(0);
            }
            let bytes = vec![generation_byte(block, self.done[block] + 1); BLOCK];
            self.trying = Some(block);
            file.write_all_at(&bytes, (block * BLOCK) as u64)?;
            self.done[block] += 1;
            self.trying = None;
        }
        if random.one_in(3) { file.sync_all() } else { Ok(()) }
    }

    fn known(self) -> Option<Known> {
        self.file.as_ref()?;
        Some(Known::Overwritten { path: self.path, done: self.done, trying: self.trying })
    }
}

fn check(all: &[Known], root: &Path) {
    for known in all {
        match known {
            Known::Appended { path, id, synced, appended } => {
                let bytes = match fs::read(root.join(path)) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound && *appended == 0 => {
                        continue;
                    }
                    read => read.unwrap_or_else(|error| panic!("{path:?} is unreadable: {error}")),
                };
                assert!(
                    bytes.len() >= *synced,
                    "{path:?} lost synced bytes: {} of {synced}",
                    bytes.len()
                );
                assert!(
                    bytes.len() >= *appended,
                    "{path:?} lost bytes: {} of {appended}",
                    bytes.len()
                );
                assert!(bytes == pattern(*id, 0, bytes.len()), "{path:?} has wrong bytes");
            }
            Known::Overwritten { path, done, trying } => {
                let bytes = fs::read(root.join(path))
                    .unwrap_or_else(|error| panic!("{path:?} is unreadable: {error}"));
                for (block, generation) in done.iter().enumerate() {
                    check_block(path, &bytes, block, *generation, *trying == Some(block));
                }
            }
        }
    }
}

/// A block holds its last acknowledged generation; while one was in flight, bytes of that too.
fn check_block(path: &Path, bytes: &[u8], block: usize, generation: u32, in_flight: bool) {
    let start = (block * BLOCK).min(bytes.len());
    let seen = &bytes[start..(start + BLOCK).min(bytes.len())];
    let (old, new) = (generation_byte(block, generation), generation_byte(block, generation + 1));
    let fits = |byte: &u8| {
        (generation > 0 && *byte == old) || (in_flight && (*byte == new || generation == 0))
    };
    assert!(seen.iter().all(fits), "{path:?} block {block} is not of generation {generation}");
    assert!(in_flight || generation == 0 || seen.len() == BLOCK, "{path:?} block {block} is cut");
}

fn generation_byte(block: usize, generation: u32) -> u8 {
    u8::try_from((block * 31 + usize::try_from(generation).unwrap() * 7) % 251 + 1).unwrap()
}

/// The bytes of file `id` from `offset` on.
fn pattern(id: u64, offset: usize, len: usize) -> Vec<u8> {
    let first = offset / 8;
    let words = (first..=(offset + len) / 8)
        .flat_map(|word| (id ^ (word as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes());
    words.skip(offset - first * 8).take(len).collect()
}

//! Rotation, re-wrap, disabling and enabling of keys under a live mount.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Mount, Shell, Vault, check_headers, program};
use crate::random::Random;

const DEFAULT: &str = "alias/kmsfs/default";
/// The promise: a disabled key is felt within a second. The margin is for a loaded machine.
const FELT: Duration = Duration::from_millis(1500);

#[test]
fn a_disabled_key_is_felt_at_once_and_nothing_is_lost() {
    let vault = Vault::new("disable");
    let mount = vault.mount();
    let path = mount.path("file");
    fs::write(&path, vec![7; 100_000]).unwrap();
    fs::write(mount.path("cached"), "cached").unwrap();
    assert_eq!(fs::read(mount.path("cached")).unwrap(), b"cached");
    let handle = File::options().read(true).write(true).open(&path).unwrap();
    let mut mapping = Mapping::open(&mount, "mapped");
    mapping.dirty();

    vault.kmsfs(["key", "disable", DEFAULT]);
    let start = Instant::now();
    wait_until("new opens fail", || refused(File::open(&path).err()));
    wait_until("the open handle fails", || refused(handle.read_at(&mut [0; 10], 0).err()));
    wait_until("cached contents are gone", || refused(fs::read(mount.path("cached")).err()));
    assert!(start.elapsed() < FELT * 2, "felt only after {:?}", start.elapsed());
    assert!(refused(handle.write_at(b"no", 0).err()), "a write to an open handle went through");
    assert!(refused(fs::write(mount.path("new"), "x").err()), "a new file could be written");
    assert_eq!(fs::metadata(&path).unwrap().len(), 100_000, "attributes need no key");
    assert!(fs::read_dir(mount.root()).unwrap().count() >= 3, "listing a known directory");

    vault.kmsfs(["key", "enable", DEFAULT]);
    wait_until("reading works again", || {
        fs::read(&path).is_ok_and(|bytes| bytes == vec![7; 100_000])
    });
    wait_until("the old handle works again", || handle.write_at(b"yes", 5).is_ok());
    let mut seen = [0; 3];
    handle.read_exact_at(&mut seen, 5).unwrap();
    assert_eq!(&seen, b"yes");
    assert_eq!(fs::read(mount.path("cached")).unwrap(), b"cached");
    mapping.close();
    drop(handle);
    let mapped = fs::read(mount.path("mapped")).unwrap();
    assert!(mapped.starts_with(b"dirty page") && mapped.len() == 65_536, "dirty data was lost");
    mount.unmount();
    let mount = vault.mount();
    assert!(fs::read(mount.path("mapped")).unwrap() == mapped, "dirty data was lost on disk");
}

/// A keystore that could not be read any more revoked nothing, for as long as the mount lived.
#[test]
fn a_keystore_that_cannot_be_read_revokes_after_the_grace_and_its_return_ends_that() {
    let vault = Vault::new("unreadable");
    let mount = vault.mount_with(&["--create", "--kms-grace", "1"]);
    let path = mount.path("file");
    fs::write(&path, "contents").unwrap();
    let handle = File::options().read(true).write(true).open(&path).unwrap();
    let mut mapping = Mapping::open(&mount, "mapped");
    mapping.dirty();
    let away = vault.outside("keystore.away");
    fs::rename(vault.keystore(), &away).unwrap();
    assert!(fs::read(&path).is_ok(), "a moment without the keystore revokes nothing");
    thread::sleep(Duration::from_secs(1));
    wait_until("the open handle fails", || refused(handle.read_at(&mut [0; 10], 0).err()));
    wait_until("new opens fail", || refused(File::open(&path).err()));
    assert!(vault.log().contains("cannot be read"), "{}", vault.log());
    fs::rename(&away, vault.keystore()).unwrap();
    wait_until("it is back", || fs::read(&path).is_ok_and(|bytes| bytes == b"contents"));
    wait_until("the old handle works", || handle.write_at(b"more", 8).is_ok());
    mapping.close();
    drop(handle);
    let mapped = fs::read(mount.path("mapped")).unwrap();
    assert!(mapped.starts_with(b"dirty page") && mapped.len() == 65_536, "dirty data was lost");
}

#[test]
fn dirty_pages_of_a_mapping_reach_the_vault_before_their_key_goes() {
    let vault = Vault::new("dirtymap");
    let mount = vault.mount();
    fs::write(mount.path("other"), "contents").unwrap();
    let mut mapping = Mapping::open(&mount, "mapped");
    mapping.dirty();
    vault.kmsfs(["key", "disable", DEFAULT]);
    // Opening the mapped file itself would make the kernel write its pages.
    wait_until("opens fail", || refused(File::open(mount.path("other")).err()));
    thread::sleep(FELT);
    mapping.kill();
    mount.kill();
    vault.kmsfs(["key", "enable", DEFAULT]);
    let mount = vault.mount();
    let mapped = fs::read(mount.path("mapped")).unwrap();
    assert!(mapped.starts_with(b"dirty page"), "{} bytes, {:?}", mapped.len(), mapped.get(..10));
    assert_eq!(&mapped[40_000..40_004], b"also");
}

#[test]
fn a_directory_with_its_own_key_goes_dark_alone() {
    let vault = Vault::new("policy");
    let mount = vault.mount();
    vault.kmsfs(["key", "create", "--alias", "alias/finance"]);
    let dir = mount.path("finance");
    fs::create_dir(&dir).unwrap();
    vault.kmsfs(["policy", "set", dir.to_str().unwrap(), "--key", "alias/finance"]);
    fs::create_dir(dir.join("2026")).unwrap();
    fs::write(dir.join("2026/books"), "secret").unwrap();
    fs::write(mount.path("plain"), "plain").unwrap();
    fs::write(mount.path("moves in"), "moved").unwrap();
    fs::rename(mount.path("moves in"), dir.join("moved in")).unwrap();
    assert_eq!(fs::read(dir.join("moved in")).unwrap(), b"moved");

    vault.kmsfs(["key", "disable", "alias/finance"]);
    wait_until("the directory is dark", || refused(fs::read(dir.join("2026/books")).err()));
    wait_until("what was moved in as well", || refused(fs::read(dir.join("moved in")).err()));
    assert_eq!(fs::read(mount.path("plain")).unwrap(), b"plain");
    fs::write(mount.path("plain 2"), "still works").unwrap();
    vault.kmsfs(["key", "enable", "alias/finance"]);
    wait_until("it is back", || fs::read(dir.join("2026/books")).is_ok_and(|b| b == b"secret"));
    fs::rename(dir.join("moved in"), mount.path("moved out")).unwrap();
    vault.kmsfs(["key", "disable", "alias/finance"]);
    wait_until("dark again", || refused(fs::read(dir.join("2026/books")).err()));
    assert_eq!(fs::read(mount.path("moved out")).unwrap(), b"moved", "it has left the key");
}

#[test]
fn a_rewrap_under_load_changes_headers_and_nothing_else() {
    let files = std::env::var("KMSFS_TEST_FILES").map_or(4000, |text| text.parse().unwrap());
    let vault = Vault::new("rewrap");
    let mount = vault.mount();
    let names: Vec<PathBuf> =
        (0..files).map(|n| PathBuf::from(format!("d{}/f{n}", n % 40))).collect();
    for (number, name) in names.iter().enumerate() {
        fs::create_dir_all(mount.path(name.parent().unwrap())).unwrap();
        fs::write(mount.path(name), contents(number)).unwrap();
    }
    let before = shown(&mount.root(), &names);
    let stop = Arc::new(AtomicBool::new(false));
    let load = workload(mount.path("load"), &stop);
    vault.kmsfs(["key", "rotate", DEFAULT]);
    let start = Instant::now();
    let report = vault.kmsfs(["--json", "rewrap", mount.root().to_str().unwrap()]);
    let took = start.elapsed();
    stop.store(true, Ordering::Relaxed);
    let operations = load.join().unwrap();
    assert!(shown(&mount.root(), &names) == before, "size, mtime, ctime or inode number changed");
    for (number, name) in names.iter().enumerate() {
        assert!(fs::read(mount.path(name)).unwrap() == contents(number), "{name:?}");
    }
    mount.unmount();
    let on_current = check_headers(&vault, DEFAULT);
    assert!(on_current >= files, "{on_current} of {files} headers name the current material");
    vault.kmsfs(["key", "retire", DEFAULT, "--yes"]);
    let mount = vault.mount();
    assert!(shown(&mount.root(), &names) == before, "changed after a remount");
    for (number, name) in names.iter().enumerate().step_by(50) {
        assert!(fs::read(mount.path(name)).unwrap() == contents(number), "{name:?} after retire");
    }
    let rate = (files as f64 / took.as_secs_f64()).round();
    println!(
        "rewrap: {files} files in {took:.2?}, {rate} files/s beside {operations} operations\n{report}"
    );
}

#[test]
fn old_material_is_not_retired_while_a_file_needs_it() {
    let vault = Vault::new("retire");
    let mount = vault.mount();
    for number in 0..30 {
        fs::write(mount.path(number.to_string()), "x").unwrap();
    }
    vault.kmsfs(["key", "rotate", DEFAULT]);
    let refusal = vault.command().args(["key", "retire", DEFAULT, "--yes"]).output().unwrap();
    let text = String::from_utf8_lossy(&refusal.stderr).into_owned();
    assert_eq!(refusal.status.code(), Some(14), "{text}");
    assert!(text.contains("30"), "the refusal does not say how many files: {text}");
    vault.kmsfs(["rewrap", mount.root().to_str().unwrap()]);
    vault.kmsfs(["key", "retire", DEFAULT, "--yes"]);
    assert_eq!(fs::read(mount.path("3")).unwrap(), b"x");
    mount.unmount();
    let mount = vault.mount();
    assert_eq!(fs::read(mount.path("4")).unwrap(), b"x");
}

/// The keystore took a copy that somebody had looked at for the vault itself, looked there alone, and
/// destroyed what the vault needed.
#[test]
fn regression_a_copy_that_was_looked_at_does_not_stand_for_its_vault() {
    let vault = Vault::new("copy");
    let mount = vault.mount();
    fs::write(mount.path("file"), "contents").unwrap();
    let (copy, looked) = (vault.outside("copy"), vault.outside_dir("looked"));
    Shell::new(vault.outside("")).var("V", vault.store()).run("sync; cp -a \"$V\" copy");
    vault.kmsfs(["mount", "-o", "ro", copy.to_str().unwrap(), looked.to_str().unwrap()]);
    vault.kmsfs(["umount", looked.to_str().unwrap()]);
    vault.kmsfs(["key", "rotate", DEFAULT]);
    vault.kmsfs(["rewrap", copy.to_str().unwrap()]);
    let retire = ["key", "retire", DEFAULT, "--yes"];
    let refused = vault.command().args(retire).output().unwrap();
    assert_eq!(refused.status.code(), Some(14), "{refused:?}");
    vault.kmsfs(["rewrap", mount.root().to_str().unwrap()]);
    vault.kmsfs(retire);
    mount.unmount();
    let mount = vault.mount();
    assert_eq!(fs::read(mount.path("file")).unwrap(), b"contents");
}

/// The re-wrap and the look for references passed it by, and its material was destroyed.
#[test]
fn regression_material_is_not_destroyed_that_a_directory_on_the_move_needs() {
    let vault = Vault::new("moving");
    let mount = vault.mount();
    for dir in ["p", "q"] {
        (0..40).for_each(|n| fs::create_dir_all(mount.path(format!("{dir}/{n}"))).unwrap());
    }
    fs::create_dir(mount.path("p/x")).unwrap();
    fs::write(mount.path("p/x/f"), "contents").unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                fs::rename(mount.path("p/x"), mount.path("q/x")).unwrap();
                fs::rename(mount.path("q/x"), mount.path("p/x")).unwrap();
            }
        });
        let root = mount.root();
        for _ in 0..3 {
            vault.kmsfs(["key", "rotate", DEFAULT]);
            let early = vault.command().args(["key", "retire", DEFAULT, "--yes"]).output().unwrap();
            assert_eq!(early.status.code(), Some(14), "{early:?}");
            vault.kmsfs(["rewrap", root.to_str().unwrap()]);
            vault.kmsfs(["key", "retire", DEFAULT, "--yes"]);
        }
        stop.store(true, Ordering::Relaxed);
    });
    mount.unmount();
    let mount = vault.mount();
    assert_eq!(fs::read(mount.path("p/x/f")).unwrap(), b"contents");
}

/// Who holds the vault may rename while it is looked into.
#[test]
fn regression_nothing_is_retired_while_a_vault_is_in_hands_that_cannot_be_asked() {
    let vault = Vault::new("held");
    vault.mount().unmount();
    vault.kmsfs(["key", "rotate", DEFAULT]);
    vault.kmsfs(["rewrap", vault.store().to_str().unwrap()]);
    let lock = File::options().write(true).open(vault.store().join(".kmsfs/lock")).unwrap();
    lock.lock().unwrap();
    let refusal = vault.command().args(["key", "retire", DEFAULT, "--yes"]).output().unwrap();
    let text = String::from_utf8_lossy(&refusal.stderr).into_owned();
    assert_eq!(refusal.status.code(), Some(14), "{text}");
    assert!(text.contains("in use"), "{text}");
    drop(lock);
    vault.kmsfs(["key", "retire", DEFAULT, "--yes"]);
}

#[test]
fn a_vault_moves_to_another_key_while_it_is_mounted() {
    let vault = Vault::new("tokey");
    let mount = vault.mount();
    vault.kmsfs(["key", "create", "--alias", "alias/next"]);
    fs::create_dir(mount.path("d")).unwrap();
    for number in 0..50 {
        fs::write(mount.path(format!("d/{number}")), number.to_string()).unwrap();
    }
    let root = mount.root();
    vault.kmsfs(["rewrap", root.to_str().unwrap(), "--key", DEFAULT, "--to", "alias/next"]);
    vault.kmsfs(["key", "disable", DEFAULT]);
    thread::sleep(FELT);
    for number in 0..50 {
        assert_eq!(
            fs::read_to_string(mount.path(format!("d/{number}"))).unwrap(),
            number.to_string()
        );
    }
    fs::write(mount.path("d/new"), "new").unwrap();
    mount.unmount();
    let mount = vault.mount();
    assert_eq!(fs::read(mount.path("d/new")).unwrap(), b"new");
    assert_eq!(fs::read(mount.path("d/7")).unwrap(), b"7");
}

/// A process that holds a shared mapping and dirties it on demand, without ever syncing it.
struct Mapping {
    process: Child,
    orders: ChildStdin,
}

impl Mapping {
    fn open(mount: &Mount<'_>, name: &str) -> Self {
        let script = "import mmap, sys
file = open(sys.argv[1], 'w+b'); file.truncate(65536)
view = mmap.mmap(file.fileno(), 0)
for line in sys.stdin:
    view[0:10] = b'dirty page'; view[40000:40004] = b'also'
    print('done', flush=True)
";
        let mut process = Command::new(program("python3"))
            .args(["-c", script])
            .arg(mount.path(name))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = process.stdin.take().unwrap();
        Self { process, orders }
    }

    fn dirty(&mut self) {
        self.orders.write_all(b"go\n").unwrap();
        let mut line = String::new();
        BufReader::new(self.process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "done\n");
    }

    fn close(self) {
        let Self { mut process, orders } = self;
        drop(orders);
        process.wait().unwrap();
    }

    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// Writes, reads and renames files of its own until told to stop; says how often.
fn workload(dir: PathBuf, stop: &Arc<AtomicBool>) -> thread::JoinHandle<u64> {
    let stop = Arc::clone(stop);
    thread::spawn(move || {
        fs::create_dir_all(&dir).unwrap();
        let (mut random, mut operations) = (Random::new(1), 0);
        let mut expected: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        while !stop.load(Ordering::Relaxed) {
            let number = random.below(20);
            let bytes = random.bytes(3000);
            fs::write(dir.join("next"), &bytes).unwrap();
            fs::rename(dir.join("next"), dir.join(number.to_string())).unwrap();
            expected.insert(number, bytes);
            let other = random.below(20);
            if let Some(bytes) = expected.get(&other) {
                assert!(fs::read(dir.join(other.to_string())).unwrap() == *bytes);
            }
            operations += 1;
        }
        operations
    })
}

fn shown(root: &Path, names: &[PathBuf]) -> Vec<[i64; 6]> {
    let row = |name: &PathBuf| {
        let meta = fs::symlink_metadata(root.join(name)).unwrap();
        let size = i64::try_from(meta.len()).unwrap();
        let inode = i64::try_from(meta.ino()).unwrap();
        [size, inode, meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()]
    };
    names.iter().map(row).collect()
}

fn contents(number: usize) -> Vec<u8> {
    Random::new(number as u64 + 1).bytes(number * 53 % 9500)
}

/// True for the errors that a key which may not be used gives.
fn refused(error: Option<std::io::Error>) -> bool {
    let errno = error.and_then(|error| error.raw_os_error());
    errno == Some(libc::ENOKEY) || errno == Some(libc::EACCES)
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < FELT, "{what}: not within {FELT:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

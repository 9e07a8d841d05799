//! Nobody gets out of the vault by way of the mount, and nobody makes the mount act on a file that
//! was not meant.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::fs::{CWD, Gid, Mode, Uid, XattrFlags};
use rustix::mount::MountFlags;

use crate::harness::{Vault, is_root, program};

const BOB: u32 = 61_002;

/// `kmsfs.foreign...` was the directory above the vault, and so on up to the root of the machine.
#[test]
fn a_foreign_name_is_no_way_out_for_any_system_call() {
    let vault = Vault::new("escape");
    fs::write(vault.outside("outside"), "precious").unwrap();
    let mount = vault.mount();
    fs::write(mount.path("file"), "x").unwrap();
    let above = vault.store().parent().unwrap();
    let before = (state(above), state(&vault.outside("outside")), names(above));
    for way in [
        "kmsfs.foreign.",
        "kmsfs.foreign..",
        "kmsfs.foreign...",
        "kmsfs.foreign.../kmsfs.foreign...",
        "kmsfs.foreign.../outside",
        "kmsfs.foreign.../../outside",
        "kmsfs.foreign.../kmsfs.foreign.../kmsfs.foreign.../etc/passwd",
    ] {
        for (call, result) in every_call(&mount.path(way), &mount.path("file")) {
            assert!(result.is_err(), "{call} {way} got through");
        }
    }
    assert_eq!(before, (state(above), state(&vault.outside("outside")), names(above)));
    assert_eq!(fs::read(vault.outside("outside")).unwrap(), b"precious");
}

/// What every system call that takes a path says about this one.
fn every_call(path: &Path, file: &Path) -> Vec<(&'static str, io::Result<()>)> {
    let own = (Uid::from_raw(0), Gid::from_raw(0));
    let chown = || {
        Ok(rustix::fs::chownat(CWD, path, Some(own.0), Some(own.1), rustix::fs::AtFlags::empty())?)
    };
    let inside = path.join("new");
    vec![
        ("stat", fs::symlink_metadata(path).map(drop)),
        ("statfs", rustix::fs::statfs(path).map(drop).map_err(Into::into)),
        ("ls", fs::read_dir(path).map(drop)),
        ("open", fs::File::open(path).map(drop)),
        ("write", fs::write(path, "x")),
        ("write in it", fs::write(&inside, "x")),
        ("readlink", fs::read_link(path).map(drop)),
        ("chmod", fs::set_permissions(path, Permissions::from_mode(0o6777))),
        ("chown", chown()),
        ("rename from", fs::rename(path, file.with_file_name("taken"))),
        ("rename to", fs::rename(file, path)),
        ("rename into", fs::rename(file, &inside)),
        ("link from", fs::hard_link(path, file.with_file_name("linked"))),
        ("link to", fs::hard_link(file, path)),
        ("link into", fs::hard_link(file, &inside)),
        ("symlink", std::os::unix::fs::symlink("x", &inside)),
        ("unlink", fs::remove_file(path)),
        ("rmdir", fs::remove_dir(path)),
        ("mkdir", fs::create_dir(path)),
        ("mkdir in it", fs::create_dir(&inside)),
        (
            "setxattr",
            rustix::fs::setxattr(path, "user.a", b"1", XattrFlags::empty()).map_err(Into::into),
        ),
        (
            "mkfifo",
            rustix::fs::mknodat(CWD, &inside, rustix::fs::FileType::Fifo, Mode::RWXU, 0)
                .map_err(Into::into),
        ),
    ]
}

/// Inode numbers there are not the vault's, and the files are not the vault's either.
#[test]
fn what_is_mounted_inside_the_vault_is_not_entered() {
    assert!(is_root(), "only root can mount something there");
    let vault = Vault::new("inner");
    let other = vault.outside_dir("other");
    fs::write(other.join("file"), "precious").unwrap();
    let mount = vault.mount();
    let place = vault.store().join("bound");
    fs::create_dir(&place).unwrap();
    rustix::mount::mount_bind(&other, &place).unwrap();
    let bound = Bound(place);
    let before = state(&other);
    let shown = mount.path("kmsfs.foreign.bound");
    assert!(fs::read_dir(&shown).is_err());
    assert!(fs::read(shown.join("kmsfs.foreign.file")).is_err());
    assert!(fs::remove_file(shown.join("kmsfs.foreign.file")).is_err());
    assert!(fs::set_permissions(&shown, Permissions::from_mode(0o777)).is_err());
    assert!(fs::write(shown.join("new"), "x").is_err());
    assert!(fs::read_dir(mount.root()).unwrap().count() <= 1);
    fs::write(mount.path("neighbour"), "fine").unwrap();
    mount.unmount();
    let checked = vault.command().arg("fsck").arg("--repair").arg(vault.store()).output().unwrap();
    assert_eq!(checked.status.code(), Some(15), "a name that no directory made is told");
    assert_eq!(before, state(&other));
    assert_eq!(names(&other), ["file"]);
    drop(bound);
}

/// A thread of the daemon waited for it with each request, until none was left.
#[test]
fn what_is_mounted_inside_the_vault_and_never_answers_keeps_nobody_waiting() {
    assert!(is_root(), "only root can mount something there");
    let vault = Vault::new("silent");
    let mount = vault.mount();
    let place = vault.store().join("silent");
    fs::create_dir(&place).unwrap();
    let silent = fs::File::options().read(true).write(true).open("/dev/fuse").unwrap();
    let data = format!("fd={},rootmode=40000,user_id=0,group_id=0", silent.as_raw_fd());
    let data = std::ffi::CString::new(data).unwrap();
    rustix::mount::mount("silent", &place, "fuse", MountFlags::empty(), &*data).unwrap();
    let bound = Bound(place);
    let (done, ended) = std::sync::mpsc::channel();
    let (root, shown) = (mount.root(), mount.path("kmsfs.foreign.silent"));
    std::thread::spawn(move || {
        for _ in 0..10 {
            assert!(fs::symlink_metadata(&shown).is_err());
            assert!(fs::create_dir(&shown).is_err());
            assert!(fs::read_dir(&root).unwrap().all(|entry| entry.is_ok()));
        }
        done.send(()).unwrap();
    });
    let waited = ended.recv_timeout(std::time::Duration::from_secs(60));
    // Whoever waits for it now gets an error.
    drop(silent);
    drop(bound);
    waited.expect("somebody waits for what is mounted inside");
    fs::write(mount.path("neighbour"), "fine").unwrap();
    mount.unmount();
}

/// Somebody with a directory in a vault that others may enter exchanges two names in it all the time,
/// while he uses the one that is his on the mount: what belongs to root is never touched.
#[test]
fn names_that_are_exchanged_all_the_time_lead_to_no_other_inode() {
    assert!(is_root(), "only root can turn into another user");
    let vault = Vault::new("exchange");
    let mount = vault.mount_with(&["--create", "--allow-open-vault", "-o", "allow_other"]);
    for private in [vault.store().parent().unwrap(), vault.store(), &mount.root()] {
        fs::set_permissions(private, Permissions::from_mode(0o755)).unwrap();
    }
    let dir = mount.path("bob");
    fs::create_dir(&dir).unwrap();
    std::os::unix::fs::chown(&dir, Some(BOB), Some(BOB)).unwrap();
    fs::write(dir.join("secret"), "a secret of root's").unwrap();
    fs::set_permissions(dir.join("secret"), Permissions::from_mode(0o600)).unwrap();
    fs::write(dir.join("mine"), "x").unwrap();
    std::os::unix::fs::chown(dir.join("mine"), Some(BOB), Some(BOB)).unwrap();
    let numbers = ["secret", "mine"].map(|name| fs::metadata(dir.join(name)).unwrap().ino());
    let backing = vault.store().join(entry_of(vault.store(), fs::metadata(&dir).unwrap().ino()));
    let [secret, mine] = numbers.map(|ino| backing.join(entry_of(&backing, ino)));
    let before = (state(&secret), fs::read(&secret).unwrap());

    let exchanger = Bob::run(EXCHANGE, &[&secret, &mine]);
    let output = as_bob(USE).arg("mine").current_dir(&dir).output().unwrap();
    drop(exchanger);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(!said.contains("leak"), "{said}");
    let secret = backing.join(entry_of(&backing, numbers[0]));
    assert_eq!(before, (state(&secret), fs::read(&secret).unwrap()));
}

/// The kernel keeps for a while that number n is Bob's. He removes the entry behind the mount, lets
/// the daemon make something of its own that gets the number, puts that in the place of his file, and
/// made it setuid by way of the mount.
#[test]
fn regression_a_number_that_is_used_again_leads_to_nothing_of_the_daemons() {
    if !is_root() {
        return;
    }
    let Some(disk) = SmallDisk::new() else { return };
    let vault = Vault::at("reuse", disk.0.path("disk/vault"));
    let mount = vault.mount_with(&["--create", "--allow-open-vault", "-o", "allow_other"]);
    for open in [&disk.0.path("disk"), vault.store(), &mount.root()] {
        fs::set_permissions(open, Permissions::from_mode(0o755)).unwrap();
    }
    let dir = mount.path("bob");
    fs::create_dir(&dir).unwrap();
    std::os::unix::fs::chown(&dir, Some(BOB), Some(BOB)).unwrap();
    let backing = vault.store().join(entry_of(vault.store(), fs::metadata(&dir).unwrap().ino()));
    for call in ["os.chmod(name, 0o4777)", "os.utime(name, (1, 1))", "os.truncate(name, 0)"] {
        let output = as_bob(REUSE).args([&dir, &backing]).arg(call).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("was used again"), "{said}{errors}");
        assert!(said.contains("unchanged"), "{call}: {said}{errors}");
    }
}

/// An open that would make a file opened the one that lay under the name by then, and the kernel asked
/// neither owner nor mode: it took it for made.
#[test]
fn regression_an_open_that_would_make_a_file_opens_nobodys() {
    assert!(is_root(), "only root can turn into another user");
    let vault = Vault::new("create");
    let mount = vault.mount_with(&["--create", "--allow-open-vault", "-o", "allow_other"]);
    for private in [vault.store().parent().unwrap(), vault.store(), &mount.root()] {
        fs::set_permissions(private, Permissions::from_mode(0o755)).unwrap();
    }
    let dir = mount.path("bob");
    fs::create_dir(&dir).unwrap();
    std::os::unix::fs::chown(&dir, Some(BOB), Some(BOB)).unwrap();
    fs::write(dir.join("secret"), "a secret of root's").unwrap();
    fs::set_permissions(dir.join("secret"), Permissions::from_mode(0o600)).unwrap();
    fs::write(dir.join("name"), "").unwrap();
    let numbers = ["secret", "name"].map(|name| fs::metadata(dir.join(name)).unwrap().ino());
    let backing = vault.store().join(entry_of(vault.store(), fs::metadata(&dir).unwrap().ino()));
    let [secret, name] = numbers.map(|ino| backing.join(entry_of(&backing, ino)));
    fs::remove_file(dir.join("name")).unwrap();
    assert!(!dir.join("name").exists(), "the kernel keeps that");
    fs::rename(&secret, &name).unwrap();
    let open = "import os; os.write(os.open('name', os.O_RDWR | os.O_CREAT), b'bob')";
    let output = as_bob(open).current_dir(&dir).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("Permission denied"), "{said}");
    // A name that is free is still made.
    let mut file = fs::File::options();
    assert!(fs::metadata(dir.join("free")).is_err());
    assert!(file.write(true).create(true).truncate(false).open(dir.join("free")).is_ok());
    assert_eq!(fs::read(dir.join("name")).unwrap(), b"a secret of root's");
}

/// A filesystem that uses numbers again at once.
struct SmallDisk(crate::harness::Sandbox);

impl SmallDisk {
    fn new() -> Option<Self> {
        let disk = Self(crate::harness::Sandbox::new("small"));
        disk.0.dir("disk");
        program("mkfs.ext4");
        let made = crate::harness::Shell::new(disk.0.path("")).output(
            "truncate -s 32M small.img && mkfs.ext4 -q -F -O ^has_journal small.img \
             && mount -o loop small.img disk",
        );
        if !made.status.success() {
            eprintln!("no loop device here");
            return None;
        }
        Some(disk)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        use rustix::mount::{UnmountFlags, unmount};
        let _ = unmount(self.0.path("disk"), UnmountFlags::DETACH);
    }
}

/// Its arguments: a directory on the mount, its backing directory, and what to do with a file there.
const REUSE: &str = r"
import os, sys
shown, backing, call = sys.argv[1:4]
def entries(): return {os.lstat(f'{backing}/{e}').st_ino: f'{backing}/{e}' for e in os.listdir(backing)}
mine = {}
for i in range(60):
    open(f'{shown}/{os.getpid()}-{i}', 'w').close()
    number = os.stat(f'{shown}/{os.getpid()}-{i}').st_ino
    mine[number] = (f'{shown}/{os.getpid()}-{i}', entries()[number])
for name, entry in mine.values(): os.unlink(entry)
found = None
for i in range(100):
    os.symlink('x', f'{shown}/{os.getpid()}-{i}-' + 'long' * 50)
    for number, entry in entries().items():
        if entry.endswith('.name') and number in mine: found = (number, entry)
    if found: break
name, entry = mine[found[0]]
print(found[0], 'was used again')
os.rename(found[1], entry)
def state():
    now = os.lstat(entry)
    return (now.st_uid, now.st_mode, now.st_size, now.st_mtime_ns, now.st_ctime_ns)
before = state()
assert before[0] == 0, before
try: eval(call)
except OSError as error: print(error)
print('unchanged' if state() == before else f'changed: {before} {state()}')
";

/// Its mode and owner are those of the vault's own directory.
#[test]
fn the_root_of_a_mount_opens_the_vault_to_nobody() {
    let vault = Vault::new("open");
    let private = vault.store().parent().unwrap();
    let chmod = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
    let mount = vault.mount();
    chmod(&mount.root(), 0o755).unwrap();
    chmod(&mount.root(), 0o700).unwrap();
    chmod(private, 0o755).unwrap();
    let refused = chmod(&mount.root(), 0o755).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
    assert!(
        rustix::fs::setxattr(mount.root(), "system.posix_acl_access", &acl(), XattrFlags::empty())
            .is_err()
    );
    chmod(&mount.root(), 0o1700).unwrap();
    assert_eq!(fs::metadata(vault.store()).unwrap().mode() & 0o7777, 0o1700);
    mount.unmount();
    chmod(vault.store(), 0o750).unwrap();
    let output =
        vault.command().arg("mount").arg(vault.store()).arg(vault.mountpoint()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(14), "{said}");
    assert!(said.contains("--allow-open-vault") && said.contains("chmod 700"), "{said}");
    let doctor = vault.command().arg("doctor").output().unwrap();
    assert!(String::from_utf8_lossy(&doctor.stdout).contains("may enter the vault"));
    let mut reading = vault.command();
    let reading = reading.args(["mount", "--read-only"]).arg(vault.store()).arg(vault.mountpoint());
    assert_eq!(reading.output().unwrap().status.code(), Some(14));
    vault.mount_with(&["--read-only", "--allow-open-vault"]).unmount();
    vault.mount_with(&["-o", "allow_open_vault"]).unmount();
    chmod(private, 0o700).unwrap();
    vault.mount_with(&[]).unmount();
}

/// An access ACL that lets user 1 in, as the kernel passes it.
fn acl() -> Vec<u8> {
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (tag, bits, id) in [
        (1_u16, 7_u16, u32::MAX),
        (2, 5, 1),
        (4, 0, u32::MAX),
        (0x10, 5, u32::MAX),
        (0x20, 0, u32::MAX),
    ] {
        acl.extend(tag.to_le_bytes());
        acl.extend(bits.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    acl
}

/// Exchanges two names until it is killed.
const EXCHANGE: &str = r"
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
one, other = (name.encode() for name in sys.argv[1:3])
print('ready', flush=True)
while True:
    if libc.renameat2(-100, one, -100, other, 2): raise OSError(ctypes.get_errno(), 'renameat2')
";

/// Does everything to a file that its owner may do; it may fail, since somebody exchanges the names.
const USE: &str = r"
import os, sys
name = sys.argv[1]
def attempt(what, *how):
    try: what(*how)
    except OSError: pass
def read():
    with open(name, 'rb') as file:
        if b'secret' in file.read(): print('leak')
def write():
    with open(name, 'r+b') as file: file.write(b'bob')
for round in range(1500):
    attempt(os.chmod, name, 0o666)
    attempt(read)
    attempt(os.chmod, name, 0o644)
    attempt(write)
    attempt(os.truncate, name, round % 5000)
    attempt(os.setxattr, name, 'user.a', b'1')
    attempt(os.removexattr, name, 'user.a')
    attempt(os.utime, name, (1, 1))
    attempt(os.chown, name, -1, os.getgid())
    attempt(os.link, name, 'second')
    attempt(os.unlink, 'second')
    attempt(os.mkdir, 'dir')
    attempt(os.rmdir, 'dir')
    attempt(os.symlink, 'target', 'link')
    attempt(os.unlink, 'link')
    attempt(os.mkfifo, 'fifo')
    attempt(os.unlink, 'fifo')
";

/// A process of another user that works until it is dropped.
struct Bob(Child);

/// A Python script that another user runs.
fn as_bob(script: &str) -> Command {
    let mut command = Command::new(program("setpriv"));
    command
        .args([format!("--reuid={BOB}"), format!("--regid={BOB}"), "--clear-groups".into()])
        .args(["python3", "-c", script])
        // Of the system: he may not enter what others have installed for themselves.
        .env("PATH", "/usr/bin:/bin");
    command
}

impl Bob {
    fn run(script: &str, paths: &[&Path]) -> Self {
        use std::io::BufRead;
        let mut child = as_bob(script).args(paths).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self(child)
    }
}

impl Drop for Bob {
    fn drop(&mut self) {
        let ended = self.0.try_wait();
        let _ = self.0.kill();
        let _ = self.0.wait();
        if !std::thread::panicking() {
            assert!(matches!(ended, Ok(None)), "the other process ended by itself: {ended:?}");
        }
    }
}

struct Bound(PathBuf);

impl Drop for Bound {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

/// What must not change of a file or directory.
fn state(path: &Path) -> (u64, u32, u32, u32, u64, u64) {
    let meta = fs::symlink_metadata(path).unwrap();
    let nlink = if meta.is_dir() { 0 } else { meta.nlink() };
    (
        meta.ino(),
        meta.mode(),
        meta.uid(),
        meta.gid(),
        nlink,
        if meta.is_dir() { 0 } else { meta.len() },
    )
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The name of an inode in a backing directory.
fn entry_of(dir: &Path, ino: u64) -> String {
    let mut entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    let found = entries.find(|entry| std::os::unix::fs::DirEntryExt::ino(entry) == ino);
    found.unwrap().file_name().into_string().unwrap()
}

//! Mounting and steering a mount. These need `/dev/fuse`, and `fusermount3` when not run as root.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::machine::{Machine, keyed, mode};

/// A machine with a vault that is mounted at `m`.
fn mounted() -> Machine {
    let machine = Machine::new();
    machine.ok(&keyed(&["mount", "--create", "vault", "m"]));
    machine
}

/// The same, with a file in it and a copy of the vault.
fn mounted_with_a_copy() -> Machine {
    let machine = mounted();
    fs::write(machine.path("m/file"), "hello").unwrap();
    let mut copy = Command::new("cp");
    copy.arg("-a").arg(machine.path("vault")).arg(machine.path("copy"));
    assert!(copy.status().unwrap().success());
    machine
}

fn is_mounted(path: &Path) -> bool {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    text.lines().any(|line| line.split(' ').nth(4) == path.to_str())
}

#[track_caller]
fn within(time: Duration, what: impl Fn() -> bool) {
    let end = Instant::now() + time;
    while !what() {
        assert!(Instant::now() < end, "not within {time:?}");
        sleep(Duration::from_millis(20));
    }
}

/// A process that has a file open until it is dropped.
struct Reader(Child);

impl Reader {
    fn of(path: PathBuf) -> Self {
        let file = fs::File::open(path).unwrap();
        Self(Command::new("sleep").arg("60").stdin(file).stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn one_command_makes_everything_and_the_files_are_there_next_time() {
    let machine = mounted();
    assert!(is_mounted(&machine.path("m")));
    fs::write(machine.path("m/file"), "hello").unwrap();
    machine.ok(&["umount", "m"]);
    assert!(!is_mounted(&machine.path("m")));
    assert_eq!(fs::read_dir(machine.path("m")).unwrap().count(), 0);
    assert_eq!(machine.ok(&keyed(&["cat", "vault", "file"])), "hello");
    machine.ok(&keyed(&["mount", "--create", "vault", "m"]));
    assert_eq!(fs::read(machine.path("m/file")).unwrap(), b"hello");
}

#[test]
fn a_mountpoint_that_is_of_no_use_is_code_10() {
    let machine = mounted();
    fs::create_dir(machine.path("full")).unwrap();
    fs::write(machine.path("full/file"), "").unwrap();
    machine.fails(&keyed(&["mount", "vault", "m"]), 10, "already");
    machine.fails(&keyed(&["mount", "vault", "full"]), 10, "not empty");
    machine.fails(&keyed(&["mount", "vault", "full/file"]), 10, "not a directory");
    machine.fails(&keyed(&["mount", "vault", "vault/m"]), 10, "lie in each other");
}

#[test]
fn a_vault_in_use_is_code_9() {
    let machine = mounted();
    fs::create_dir(machine.path("m2")).unwrap();
    machine.fails(&keyed(&["mount", "--foreground", "vault", "m2"]), 9, "mount --bind");
    machine.fails(&keyed(&["fsck", "vault"]), 9, "in use");
    assert!(!is_mounted(&machine.path("m2")));
}

#[test]
fn root_mounts_a_vault_at_a_second_place_and_each_ends_alone() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let machine = mounted();
    for name in ["part", "m2", "m3"] {
        fs::create_dir(machine.path(name)).unwrap();
    }
    fs::create_dir(machine.path("m/dir")).unwrap();
    // A part of it is not what is meant.
    rustix::mount::mount_bind(machine.path("m/dir"), machine.path("part")).unwrap();
    machine.ok(&["mount", "vault", "m2"]);
    machine.ok(&keyed(&["mount", "-o", "ro,noexec", "vault", "m3"]));
    fs::write(machine.path("m2/file"), "hello").unwrap();
    assert_eq!(fs::read(machine.path("m3/file")).unwrap(), b"hello");
    let refused = fs::write(machine.path("m3/file"), "x").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let options = |place: &str| {
        let place = machine.path(place);
        let at = |line: &&str| line.split(' ').nth(4) == place.to_str();
        table.lines().find(at).and_then(|line| line.split(' ').nth(5)).unwrap().to_owned()
    };
    assert!(options("m").starts_with("rw,nosuid,nodev"), "{}", options("m"));
    assert_eq!(options("m2"), options("m"));
    assert!(options("m3").starts_with("ro,nosuid,nodev,noexec"), "{}", options("m3"));
    for place in ["m", "part", "m3"] {
        machine.ok(&["umount", place]);
    }
    assert_eq!(fs::read(machine.path("m2/file")).unwrap(), b"hello");
    machine.ok(&["umount", "m2"]);
    machine.ok(&keyed(&["fsck", "vault"]));
}

#[test]
fn a_failure_of_the_daemon_is_a_failure_of_the_command() {
    let machine = mounted();
    machine.ok(&["umount", "m"]);
    for name in ["volume", "volume.bak"] {
        let path = machine.path("vault/.kmsfs").join(name);
        let mut bytes = fs::read(&path).unwrap();
        bytes[100] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    let output = machine.run(&keyed(&["mount", "vault", "m"]));
    assert_eq!(output.status.code(), Some(15), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!output.stderr.is_empty());
}

#[test]
fn a_busy_mount_names_who_keeps_it_busy() {
    let machine = mounted();
    fs::write(machine.path("m/file"), "hello").unwrap();
    let reader = Reader::of(machine.path("m/file"));
    machine.fails(&["umount", "m"], 17, "sleep");
    assert!(is_mounted(&machine.path("m")));
    machine.ok(&["umount", "--lazy", "m"]);
    assert!(!is_mounted(&machine.path("m")));
    drop(reader);
    within(Duration::from_secs(10), || machine.run(&keyed(&["fsck", "vault"])).status.success());
}

#[test]
fn regression_the_umask_of_whoever_mounts_is_not_that_of_the_files() {
    let machine = Machine::new();
    let program = env!("CARGO_BIN_EXE_kmsfs");
    let words = ["-c", "umask 077 && exec \"$0\" \"$@\"", program];
    let mount = keyed(&["mount", "--create", "vault", "m"]);
    let mut command = machine.command_of(Path::new("sh"), &words);
    assert!(command.args(mount).status().unwrap().success());
    fs::create_dir(machine.path("m/dir")).unwrap();
    fs::write(machine.path("m/file"), "").unwrap();
    let umask = rustix::process::umask(rustix::fs::Mode::empty());
    rustix::process::umask(umask);
    assert_eq!(mode(&machine.path("m/dir")), 0o777 & !umask.bits());
    assert_eq!(mode(&machine.path("m/file")), 0o666 & !umask.bits());
}

#[test]
fn status_tells_of_mounts() {
    let machine = mounted();
    let status = machine.json(&["status", "m"]);
    assert_eq!((&status["mounted"], &status["mode"]), (&true.into(), &"read-write".into()));
    assert_eq!(machine.json(&["status", "vault"])["pid"], status["pid"]);
    let all = machine.json(&["status"]);
    let mounts = all["mounts"].as_array().unwrap();
    assert!(mounts.iter().any(|mount| mount["pid"] == status["pid"]));
}

#[test]
fn a_live_mount_is_rewrapped_and_old_material_retired() {
    let machine = mounted();
    fs::write(machine.path("m/file"), "hello").unwrap();
    machine.ok(&keyed(&["key", "rotate", "alias/kmsfs/default"]));
    let retire = keyed(&["key", "retire", "alias/kmsfs/default", "--yes"]);
    machine.fails(&retire, 14, "1 file and ");
    let report = machine.json(&["rewrap", "m", "--changed-list", "changed"]);
    assert_eq!((&report["complete"], &report["rewrapped"]), (&true.into(), &1.into()));
    let changed = fs::read_to_string(machine.path("changed")).unwrap();
    assert!(machine.path("vault").join(changed.trim_end()).is_file(), "{changed}");
    machine.ok(&retire);
    machine.ok(&["umount", "m"]);
    assert_eq!(machine.ok(&keyed(&["cat", "vault", "file"])), "hello");
}

/// On a full disk files were re-wrapped that no list told of, and the list of a run before was lost.
#[test]
fn regression_no_file_is_rewrapped_before_its_line_is_in_the_list() {
    let machine = mounted();
    for name in ["one", "two", "three"] {
        fs::write(machine.path("m").join(name), "hello").unwrap();
    }
    for (target, list) in [("m", "live"), ("vault", "offline")] {
        if target == "vault" {
            machine.ok(&["umount", "m"]);
        }
        machine.ok(&keyed(&["key", "rotate", "alias/kmsfs/default"]));
        let full = keyed(&["rewrap", target, "--changed-list", "/dev/full"]);
        machine.fails(&full, 16, "run it again");
        fs::write(machine.path(list), "earlier\n").unwrap();
        let report = machine.json(&keyed(&["rewrap", target, "--changed-list", list]));
        assert_eq!(report["rewrapped"], 3, "{target}: nothing was changed without a line");
        let lines = fs::read_to_string(machine.path(list)).unwrap();
        assert_eq!((lines.lines().next(), lines.lines().count()), (Some("earlier"), 4), "{lines}");
    }
}

/// What was appended to a line that a full disk had cut short named no file.
#[test]
fn regression_a_list_that_ends_within_a_line_is_continued_with_a_new_one() {
    let machine = mounted();
    fs::write(machine.path("m/file"), "hello").unwrap();
    fs::write(machine.path("list"), "cut sho").unwrap();
    machine.ok(&keyed(&["key", "rotate", "alias/kmsfs/default"]));
    machine.ok(&keyed(&["rewrap", "m", "--changed-list", "list"]));
    let list = fs::read_to_string(machine.path("list")).unwrap();
    let lines: Vec<_> = list.lines().collect();
    assert!(lines.len() == 2 && lines[0] == "cut sho", "{list}");
    assert!(machine.path("vault").join(lines[1]).is_file(), "{list}");
}

/// A copy of the vault was put in its place while it was mounted, and stood for what is mounted.
#[test]
fn regression_nothing_is_retired_that_a_mount_needs_whose_vault_was_moved() {
    let machine = mounted_with_a_copy();
    let retire = keyed(&["key", "retire", "alias/kmsfs/default", "--yes"]);
    machine.ok(&keyed(&["key", "rotate", "alias/kmsfs/default"]));
    fs::rename(machine.path("vault"), machine.path("moved")).unwrap();
    machine.fails(&retire, 14, "not found at a path known here");
    fs::rename(machine.path("copy"), machine.path("vault")).unwrap();
    let output = machine.run(&keyed(&["rewrap", "vault"]));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && said.contains("only the files that are there now"),
        "{said}"
    );
    machine.fails(&retire, 14, "not found at a path known here");
    assert_eq!(fs::read(machine.path("m/file")).unwrap(), b"hello");
    fs::remove_dir_all(machine.path("vault")).unwrap();
    fs::rename(machine.path("moved"), machine.path("vault")).unwrap();
    machine.ok(&keyed(&["rewrap", "m"]));
    machine.ok(&retire);
    assert_eq!(fs::read(machine.path("m/file")).unwrap(), b"hello");
    machine.ok(&["umount", "m"]);
}

/// Whoever held the copy in the place of a mounted vault stood for the mount's daemon.
#[test]
fn regression_nothing_is_retired_because_somebody_holds_the_copy_of_a_mounted_vault() {
    let machine = mounted_with_a_copy();
    machine.ok(&keyed(&["key", "rotate", "alias/kmsfs/default"]));
    fs::rename(machine.path("vault"), machine.path("moved")).unwrap();
    fs::rename(machine.path("copy"), machine.path("vault")).unwrap();
    machine.ok(&keyed(&["rewrap", "vault"]));
    let held = fs::File::open(machine.path("vault")).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockShared).unwrap();
    let retire = keyed(&["key", "retire", "alias/kmsfs/default", "--yes"]);
    machine.fails(&retire, 14, "not found at a path known here");
    assert_eq!(fs::read(machine.path("m/file")).unwrap(), b"hello");
    drop(held);
    fs::remove_dir_all(machine.path("vault")).unwrap();
    fs::rename(machine.path("moved"), machine.path("vault")).unwrap();
    machine.ok(&["umount", "m"]);
}

/// A vault was moved while it was mounted, and another one mounted from its path: what was asked of the
/// first mount was done to the second, and said to be done.
#[test]
fn regression_a_command_for_a_mount_does_not_reach_the_vault_that_is_at_its_path_now() {
    let machine = mounted();
    fs::rename(machine.path("vault"), machine.path("moved")).unwrap();
    machine.ok(&keyed(&["mount", "--create", "vault", "other"]));
    machine.ok(&keyed(&["key", "create", "--alias", "alias/strict"]));
    let before = machine.json(&["policy", "show", "other"]);
    let set = ["policy", "set", "m", "--key", "alias/strict"];
    machine.fails(&set, 1, "does not answer");
    machine.fails(&keyed(&["rewrap", "m"]), 14, "was at");
    assert_eq!(machine.json(&["status", "m"])["mountpoint"], machine.path("m").to_str().unwrap());
    assert_eq!(machine.json(&["policy", "show", "other"]), before);
    machine.ok(&["umount", "m"]);
    machine.ok(&["rewrap", "other"]);
    machine.ok(&["umount", "other"]);
}

/// A mount of a copy of the vault, with the same keystore, where nobody outside can see either.
fn mount_a_copy_in_a_container(machine: &Machine) -> Child {
    fs::create_dir(machine.path("inner")).unwrap();
    let script = "mount -t tmpfs none inner && cp -a vault inner/v && mkdir inner/m && \
                  exec \"$0\" --key-file key mount -f inner/v inner/m";
    let unshare = ["--mount", "--propagation", "private", "sh", "-c", script];
    let words = [&unshare[..], &[env!("CARGO_BIN_EXE_kmsfs")]].concat();
    let container = machine.command_of(Path::new("unshare"), &words).spawn().unwrap();
    let inner = machine.path("inner/m");
    within(Duration::from_secs(20), || {
        let text = fs::read_to_string(format!("/proc/{}/mountinfo", container.id()));
        text.is_ok_and(|text| text.lines().any(|line| line.split(' ').nth(4) == inner.to_str()))
    });
    container
}

/// A copy of the vault in a container, where nobody outside can see it, was mounted with the same
/// keystore, and its material destroyed.
#[test]
fn regression_nothing_is_retired_that_a_mount_in_a_container_needs() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let machine = mounted();
    fs::write(machine.path("m/file"), "hello").unwrap();
    machine.ok(&["umount", "m"]);
    let mut container = mount_a_copy_in_a_container(&machine);
    machine.ok(&keyed(&["mount", "vault", "m"]));
    machine.ok(&keyed(&["key", "rotate", "alias/kmsfs/default"]));
    machine.ok(&keyed(&["rewrap", "m"]));
    let retire = keyed(&["key", "retire", "alias/kmsfs/default", "--yes"]);
    machine.fails(&retire, 14, "not found at a path known here");
    let pid = rustix::process::Pid::from_child(&container);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(container.wait().unwrap().success());
    machine.ok(&retire);
    machine.ok(&["umount", "m"]);
}

/// A keystore that was put back from its copy while a vault was mounted knew nothing of that mount.
#[test]
fn regression_nothing_is_retired_in_a_keystore_put_in_place_under_a_mount() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let machine = mounted();
    fs::write(machine.path("m/file"), "hello").unwrap();
    machine.ok(&["umount", "m"]);
    let mut container = mount_a_copy_in_a_container(&machine);
    machine.ok(&keyed(&["mount", "vault", "m"]));
    machine.ok(&keyed(&["key", "rotate", "alias/kmsfs/default"]));
    machine.ok(&keyed(&["rewrap", "m"]));
    machine.ok(&["umount", "m"]);
    let export = ["keystore", "export", "copy", "--export-passphrase-fd", "0"];
    assert_eq!(machine.feed(&keyed(&export), "of the copy\n"), 0);
    fs::create_dir(machine.path("aside")).unwrap();
    for entry in fs::read_dir(machine.path("data/kmsfs")).unwrap().map(Result::unwrap) {
        fs::rename(entry.path(), machine.path("aside").join(entry.file_name())).unwrap();
    }
    let import = ["keystore", "import", "copy", "--export-passphrase-fd", "0"];
    assert_eq!(machine.feed(&keyed(&import), "of the copy\n"), 0);
    // Its daemon looks several times a second.
    let inode = fs::metadata(machine.path("data/kmsfs/keystore.db")).unwrap().ino();
    within(Duration::from_secs(20), || {
        let locks = fs::read_to_string("/proc/locks").unwrap();
        let its = |line: &&str| line.contains("OFDLCK") && line.contains(&format!(":{inode} "));
        locks.lines().any(|line| its(&line))
    });
    let mut retire = keyed(&["key", "retire", "alias/kmsfs/default", "--yes"]);
    retire.extend(["--other-hosts-checked", "--ciphertexts-checked"]);
    machine.fails(&retire, 14, "not found at a path known here");
    let pid = rustix::process::Pid::from_child(&container);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    container.wait().unwrap();
    machine.ok(&retire);
}

/// The owner of the root of root's mount, who cannot even reach the vault, answered for root's daemon
/// while that was not there.
#[test]
fn regression_nothing_is_retired_on_the_word_of_another_users_daemon() {
    const NOBODY: u32 = 65534;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let machine = mounted();
    fs::write(machine.path("m/file"), "hello").unwrap();
    machine.ok(&["umount", "m"]);
    // What a chown of the mount's root does, where a directory above the vault keeps others out.
    chown(machine.path("vault"), Some(NOBODY), Some(NOBODY)).unwrap();
    let vaults = machine.json(&keyed(&["keystore", "status"]));
    let volume = vaults["vaults"][0]["volume"].as_str().unwrap();
    let place = Path::new("/run/user").join(NOBODY.to_string()).join("kmsfs");
    fs::create_dir_all(&place).unwrap();
    chown(&place, Some(NOBODY), Some(NOBODY)).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o700)).unwrap();
    let meta = fs::metadata(machine.path("vault")).unwrap();
    let socket = place.join(format!("{:x}-{:x}.sock", meta.dev(), meta.ino()));
    let mut liar = Command::new("python3");
    liar.args(["-c", LIAR]).arg(&socket).arg(volume).uid(NOBODY).gid(NOBODY);
    let mut liar = liar.spawn().unwrap();
    within(Duration::from_secs(20), || socket.exists());
    machine.ok(&keyed(&["key", "rotate", "alias/kmsfs/default"]));
    let retire = keyed(&["key", "retire", "alias/kmsfs/default", "--yes"]);
    let refused = machine.run(&retire);
    liar.kill().unwrap();
    liar.wait().unwrap();
    fs::remove_file(&socket).unwrap();
    assert_eq!(refused.status.code(), Some(14), "{refused:?}");
    assert_eq!(machine.ok(&keyed(&["cat", "vault", "file"])), "hello");
}

/// An ordinary user's mount of a directory that calls itself the vault stood for the vault, whose disk was
/// not there.
#[test]
fn regression_nothing_is_retired_because_another_users_mount_stands_for_the_vault() {
    const NOBODY: u32 = 65534;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let machine = mounted();
    fs::write(machine.path("m/file"), "hello").unwrap();
    machine.ok(&["umount", "m"]);
    for dir in ["fake", "fake/.kmsfs", "theirs"] {
        fs::create_dir(machine.path(dir)).unwrap();
    }
    // It says in clear which volume it is.
    fs::copy(machine.path("vault/.kmsfs/volume"), machine.path("fake/.kmsfs/volume")).unwrap();
    for path in ["fake", "fake/.kmsfs", "fake/.kmsfs/volume", "theirs"] {
        chown(machine.path(path), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    fs::rename(machine.path("vault"), machine.path("detached")).unwrap();
    let mut mount = Command::new("python3");
    mount.args(["-c", MOUNT]).arg(machine.path("theirs")).arg(machine.path("fake"));
    let mut mount = mount.uid(NOBODY).gid(NOBODY).spawn().unwrap();
    within(Duration::from_secs(20), || is_mounted(&machine.path("theirs")));
    machine.ok(&keyed(&["key", "rotate", "alias/kmsfs/default"]));
    let refused = machine.run(&keyed(&["key", "retire", "alias/kmsfs/default", "--yes"]));
    mount.kill().unwrap();
    mount.wait().unwrap();
    let _ = Command::new("umount").arg("-l").arg(machine.path("theirs")).status();
    assert_eq!(refused.status.code(), Some(14), "{refused:?}");
    fs::rename(machine.path("detached"), machine.path("vault")).unwrap();
    assert_eq!(machine.ok(&keyed(&["cat", "vault", "file"])), "hello");
}

/// Mounts something that nobody serves, and calls it a mount of a vault.
const MOUNT: &str = r#"
import os, socket, sys, time
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
theirs.set_inheritable(True)
if os.fork() == 0:
    os.environ["_FUSE_COMMFD"] = str(theirs.fileno())
    options = "rw,nosuid,nodev,subtype=kmsfs,fsname=" + sys.argv[2]
    os.execvp("fusermount3", ["fusermount3", "-o", options, "--", sys.argv[1]])
device = socket.recv_fds(ours, 1, 1)[1]
time.sleep(60)
"#;

/// Says that no file needs anything.
const LIAR: &str = r#"
import json, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
while True:
    client, _ = listener.accept()
    client.makefile().readline()
    lie = {"volume": sys.argv[2], "files": [], "directories": [], "unreadable": 0}
    client.sendall((json.dumps({"done": lie}) + "\n").encode())
    client.close()
"#;

/// A slot was changed for a key file in the mount that it opens: after a restart nothing opened it.
#[test]
fn regression_what_opens_the_keystore_is_not_put_where_only_the_keystore_leads() {
    let machine = mounted();
    fs::create_dir(machine.path("m/dir")).unwrap();
    for words in [
        &["keystore", "slots", "change", "1", "--new-key-file", "m/dir/key"][..],
        &["keystore", "slots", "add", "--new-key-file", "m/key"],
    ] {
        machine.fails(&keyed(words), 14, "write it elsewhere");
    }
    machine.fails(&keyed(&["keystore", "export", "m/copy"]), 14, "write it elsewhere");
    assert_eq!(fs::read_dir(machine.path("m")).unwrap().count(), 1);
    machine.ok(&keyed(&["keystore", "slots", "add", "--new-key-file", "key2"]));
    machine.ok(&["umount", "m"]);
    let other = Machine::new();
    for file in ["v/key", "p/key"] {
        let words = ["--key-file", file, "mount", "--create", "v", "p"];
        other.fails(&words, 14, "name a place outside");
    }
    for (file, code) in [("v/key", 14), ("p/key", 10)] {
        let words = ["--key-file", "key", "--keystore", file, "mount", "--create", "v", "p"];
        other.fails(&words, code, "outside");
    }
    assert!(!other.path("v").exists() && !other.path("key").exists());
}

/// The path of a moved vault leads nowhere, and a vault whose keys a server of the keystore gives is not
/// known to that: a key file in such a mount was the only secret, and lay in what it opens.
#[test]
fn regression_a_mount_that_the_keystore_may_open_gets_none_of_its_secrets() {
    let machine = mounted();
    let change = keyed(&["keystore", "slots", "change", "1", "--new-key-file", "m/key"]);
    let export = keyed(&["keystore", "export", "m/copy", "--export-passphrase-fd", "0"]);
    let refused = |why: &str| {
        machine.fails(&change, 14, "write it elsewhere");
        assert_eq!(machine.feed(&export, "sesame\n"), 14, "{why}");
    };
    fs::rename(machine.path("vault"), machine.path("moved")).unwrap();
    refused("moved");
    // Another vault in its place says nothing of the one that is mounted.
    let other = ["--key-file", "key2", "--keystore", "other.db"];
    machine.ok(&[&other[..], &["mount", "--create", "vault", "p"]].concat());
    refused("exchanged");
    machine.ok(&keyed(&["keystore", "slots", "add", "--new-key-file", "p/key"]));
    machine.ok(&["umount", "p"]);
    fs::rename(machine.path("vault"), machine.path("other")).unwrap();
    fs::rename(machine.path("moved"), machine.path("vault")).unwrap();
    // As those whose keys come from a server.
    let status = machine.command(&keyed(&["--json", "keystore", "status"])).output().unwrap();
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    let volume = status["vaults"][0]["volume"].as_str().unwrap();
    machine.ok(&keyed(&["keystore", "forget", volume, "--yes"]));
    refused("unknown");
    assert_eq!(fs::read_dir(machine.path("m")).unwrap().count(), 0);
    let import = ["--keystore", "m/new.db", "keystore", "import", "copy"];
    let words = [&keyed(&import)[..], &["--export-passphrase-fd", "0"]].concat();
    assert_eq!(machine.feed(&words, "sesame\n"), 14);
}

/// There it goes wherever the ciphertext goes: into backups, to the cloud.
#[test]
fn regression_no_secret_and_no_keystore_is_put_into_a_vault() {
    let machine = Machine::with_vault();
    fs::create_dir(machine.path("vault/dir")).unwrap();
    std::os::unix::fs::symlink("vault", machine.path("link")).unwrap();
    let entries = || fs::read_dir(machine.path("vault")).unwrap().count();
    let (before, outside) = (entries(), "name a place outside");
    for file in ["vault/key", "vault/dir/key", "vault/.kmsfs/key", "link/key"] {
        for command in [["slots", "add", "--new-key-file"], ["slots", "change", "1"]] {
            let flag = if command[1] == "add" { &[][..] } else { &["--new-key-file"][..] };
            let words = [&["keystore"], &command[..], flag, &[file]].concat();
            machine.fails(&keyed(&words), 14, outside);
        }
        machine.fails(&keyed(&["keystore", "export", file]), 14, outside);
        machine.fails(
            &["--key-file", file, "--keystore", "new.db", "keystore", "init"],
            14,
            outside,
        );
        let create = ["--key-file", file, "--keystore", "new.db", "mount", "--create", "v2", "m2"];
        machine.fails(&create, 14, outside);
        machine.fails(&keyed(&["--keystore", file, "keystore", "init"]), 14, outside);
    }
    assert_eq!(entries(), before);
    fs::write(machine.path("vault/.kmsfs/volume"), "damaged").unwrap();
    fs::remove_file(machine.path("vault/.kmsfs/volume.bak")).unwrap();
    machine.fails(&keyed(&["keystore", "export", "vault/copy"]), 14, outside);
}

#[test]
fn a_directory_gets_its_own_key_and_losing_it_costs_only_that() {
    let machine = mounted();
    fs::create_dir(machine.path("m/finance")).unwrap();
    fs::write(machine.path("m/file"), "open").unwrap();
    let key = machine.json(&keyed(&["key", "create", "--alias", "alias/finance"]));
    machine.ok(&["policy", "set", "m/finance", "--key", "alias/finance"]);
    let policy = machine.json(&["policy", "show", "m/finance"]);
    assert_eq!((&policy["key"], &policy["inherited"]), (&key["KeyId"], &false.into()));
    machine.fails(&["policy", "show", "vault"], 18, "not inside a mounted vault");
    machine.fails(&["policy", "set", "m/finance", "--key", "alias/none"], 12, "alias/none");
    let secret = machine.path("m/finance/secret");
    fs::write(&secret, "gold").unwrap();
    machine.ok(&keyed(&["key", "disable", "alias/finance"]));
    within(Duration::from_secs(2), || fs::read(&secret).is_err());
    assert_eq!(fs::read(machine.path("m/file")).unwrap(), b"open");
    machine.ok(&keyed(&["key", "enable", "alias/finance"]));
    within(Duration::from_secs(2), || fs::read(&secret).is_ok_and(|text| text == b"gold"));
    let warning = keyed(&["key", "schedule-deletion", "alias/finance"]);
    machine.fails(&warning, 14, "1 file and 1 directory would be lost");
}

/// `rewrap --to` without `--key` did nothing, and said that it was complete.
#[test]
fn regression_a_rewrap_moves_everything_to_the_key_that_is_named() {
    let machine = mounted();
    fs::create_dir(machine.path("m/finance")).unwrap();
    machine.ok(&keyed(&["key", "create", "--alias", "alias/finance"]));
    machine.ok(&["policy", "set", "m/finance", "--key", "alias/finance"]);
    fs::write(machine.path("m/file"), "open").unwrap();
    fs::write(machine.path("m/finance/secret"), "gold").unwrap();
    let made = machine.json(&keyed(&["key", "create", "--alias", "alias/new"]));
    let report = machine.json(&["rewrap", "m", "--to", "alias/new"]);
    let did = json!([report["complete"], report["rewrapped"], report["directories"]]);
    assert_eq!(did, json!([true, 2, 2]));
    for dir in ["m", "m/finance"] {
        let policy = machine.json(&["policy", "show", dir]);
        assert_eq!((&policy["key"], &policy["previous"]), (&made["KeyId"], &json!([])));
    }
    for old in ["alias/kmsfs/default", "alias/finance"] {
        machine.ok(&keyed(&["key", "disable", old]));
    }
    machine.ok(&["umount", "m"]);
    for (file, text) in [("file", "open"), ("finance/secret", "gold")] {
        assert_eq!(machine.ok(&keyed(&["cat", "vault", file])), text);
    }
}

/// Every directory was switched to a key under which nothing could be wrapped then.
#[test]
fn regression_a_key_that_cannot_be_used_is_refused_before_anything_changes() {
    let machine = mounted();
    fs::create_dir(machine.path("m/finance")).unwrap();
    let made = machine.json(&keyed(&["key", "create", "--alias", "alias/new"]));
    let id = made["KeyId"].as_str().unwrap();
    let before = machine.json(&["policy", "show", "m/finance"]);
    machine.ok(&keyed(&["key", "disable", "alias/new"]));
    let old = "alias/kmsfs/default";
    machine.fails(&["rewrap", "m", "--key", old, "--to", "alias/new"], 13, id);
    machine.ok(&keyed(&["key", "schedule-deletion", "alias/new", "--yes"]));
    machine.fails(&["rewrap", "m", "--to", "alias/new"], 13, id);
    machine.fails(&["policy", "set", "m/finance", "--key", "alias/new"], 13, id);
    machine.fails(&["policy", "set", "m/finance", "--key", "alias/new"], 13, "m/finance");
    assert_eq!(machine.json(&["policy", "show", "m/finance"]), before);
    fs::write(machine.path("m/finance/file"), "still writable").unwrap();
}

/// A script's lock was held for as long as the mount that it had made.
#[test]
fn regression_a_mount_lets_go_of_the_files_of_its_caller() {
    let machine = Machine::new();
    let program = env!("CARGO_BIN_EXE_kmsfs");
    let words = ["-c", "exec 9> lock && flock 9 && \"$0\" \"$@\"", program];
    let mount = keyed(&["mount", "--create", "vault", "m"]);
    let mut command = machine.command_of(Path::new("sh"), &words);
    assert!(command.args(mount).status().unwrap().success());
    let lock = fs::File::open(machine.path("lock")).unwrap();
    let alone = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    rustix::fs::flock(&lock, alone).unwrap();
    assert!(is_mounted(&machine.path("m")));
}

/// Vaults on other hosts were ruined without a word.
#[test]
fn regression_material_that_other_hosts_may_need_is_not_retired_by_yes_alone() {
    let machine = Machine::with_vault();
    machine.ok(&keyed(&["access-key", "create", "--user", "ci"]));
    let words = ["access-key", "create", "--user", "host2", "--for-volumes"];
    let made = machine.json(&keyed(&words));
    let id = made["AccessKey"]["AccessKeyId"].as_str().unwrap();
    let retire = keyed(&["key", "retire", "alias/kmsfs/default", "--yes"]);
    machine.ok(&retire);
    machine.ok(&keyed(&["key", "rotate", "alias/kmsfs/default"]));
    machine.ok(&keyed(&["rewrap", "vault"]));
    machine.fails(&retire, 14, id);
    machine.fails(&retire, 14, "--other-hosts-checked");
    let deletion = ["key", "schedule-deletion", "alias/kmsfs/default"];
    machine.fails(&keyed(&deletion), 14, "user:host2");
    let checked: Vec<&str> = [&retire[..], &["--other-hosts-checked"]].concat();
    let retired = machine.json(&checked);
    assert_eq!(retired["AccessKeysForVolumes"], json!([id]));
    assert_eq!(retired["Retired"].as_array().unwrap().len(), 1);
    // Whoever had a key that is deleted may have vaults as well.
    machine.ok(&keyed(&["access-key", "delete", id, "--yes"]));
    machine.ok(&keyed(&["key", "rotate", "alias/kmsfs/default"]));
    machine.ok(&keyed(&["rewrap", "vault"]));
    machine.fails(&retire, 14, "an access key that is deleted");
    machine.ok(&checked);
}

/// What programs had encrypted was lost without a word.
#[test]
fn regression_material_that_encrypted_for_programs_is_not_retired_by_yes_alone() {
    let machine = Machine::with_vault();
    let rotate = keyed(&["key", "rotate", "alias/kmsfs/default"]);
    let retire = keyed(&["key", "retire", "alias/kmsfs/default", "--yes"]);
    machine.ok(&rotate);
    machine.ok(&keyed(&["rewrap", "vault"]));
    machine.ok(&retire);
    let named = ["kms", "encrypt", "--key-id", "alias/kmsfs/default", "--plaintext", "aGVsbG8="];
    machine.ok(&keyed(&named));
    machine.ok(&rotate);
    machine.ok(&keyed(&["rewrap", "vault"]));
    machine.fails(&retire, 14, "--ciphertexts-checked");
    let checked: Vec<&str> = [&retire[..], &["--ciphertexts-checked"]].concat();
    machine.ok(&checked);
    // The next material has encrypted nothing yet.
    machine.ok(&rotate);
    machine.ok(&keyed(&["rewrap", "vault"]));
    machine.ok(&retire);
}

/// A copy from before the re-wrap was told to look for another keystore, or for a disabled key.
#[test]
fn regression_a_copy_whose_material_was_retired_says_so() {
    let machine = mounted();
    fs::write(machine.path("m/file"), "hello").unwrap();
    machine.ok(&["umount", "m"]);
    let mut copy = Command::new("cp");
    copy.args(["-a", "vault", "copy"]).current_dir(machine.path("."));
    assert!(copy.status().unwrap().success());
    machine.ok(&keyed(&["key", "rotate", "alias/kmsfs/default"]));
    machine.ok(&keyed(&["rewrap", "vault"]));
    machine.ok(&keyed(&["key", "retire", "alias/kmsfs/default", "--yes"]));
    assert_eq!(machine.ok(&keyed(&["cat", "vault", "file"])), "hello");
    machine.fails(&keyed(&["cat", "copy", "file"]), 12, "not the material that is needed");
}

#[test]
fn a_read_only_mount_refuses_changes() {
    let machine = mounted();
    fs::write(machine.path("m/file"), "hello").unwrap();
    machine.ok(&["umount", "m"]);
    machine.ok(&keyed(&["mount", "--read-only", "vault", "m"]));
    assert_eq!(fs::read(machine.path("m/file")).unwrap(), b"hello");
    let error = fs::write(machine.path("m/file"), "x").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    assert_eq!(machine.json(&["status", "m"])["mode"], "read-only");
    machine.ok(&["umount", "m"]);
}

#[test]
fn a_signal_ends_a_foreground_mount_cleanly() {
    let machine = mounted();
    machine.ok(&["umount", "m"]);
    let mut daemon =
        machine.command(&keyed(&["mount", "--foreground", "vault", "m"])).spawn().unwrap();
    within(Duration::from_secs(20), || is_mounted(&machine.path("m")));
    fs::write(machine.path("m/file"), "hello").unwrap();
    let kill = Command::new("kill").arg(daemon.id().to_string()).status().unwrap();
    assert!(kill.success());
    assert!(daemon.wait().unwrap().success());
    assert!(!is_mounted(&machine.path("m")));
    assert_eq!(machine.ok(&keyed(&["cat", "vault", "file"])), "hello");
}

#[test]
fn a_mount_whose_daemon_was_killed_is_taken_away() {
    let machine = mounted();
    fs::write(machine.path("m/file"), "hello").unwrap();
    let pid = machine.json(&["status", "m"])["pid"].to_string();
    assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
    within(Duration::from_secs(5), || fs::read_dir(machine.path("m")).is_err());
    assert_eq!(machine.json(&["status", "m"])["alive"], false);
    machine.fails(&keyed(&["mount", "vault", "m"]), 10, "umount");
    machine.ok(&["umount", "m"]);
    machine.ok(&keyed(&["mount", "vault", "m"]));
    assert_eq!(fs::read(machine.path("m/file")).unwrap(), b"hello");
}

#[test]
fn the_mount_helper_does_what_fstab_says() {
    let machine = mounted();
    machine.ok(&["umount", "m"]);
    let helper = machine.path("mount.fuse.kmsfs");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_kmsfs"), &helper).unwrap();
    let mut command = machine.command_of(&helper, &["vault", "m", "-o", "rw,nofail,key-file=key"]);
    assert!(command.args(["-t", "fuse.kmsfs"]).status().unwrap().success());
    assert!(is_mounted(&machine.path("m")));
    machine.ok(&["umount", "m"]);
}

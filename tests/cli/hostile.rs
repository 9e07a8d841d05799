//! Whoever writes to the vault, or prepared a directory, tries to speak for a daemon.

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::FlockOperation;
use serde_json::json;

use crate::machine::{Machine, keyed, texts};

const LOCK: &str = "vault/.kmsfs/lock";

/// Answers every request with success, and counts them.
struct FakeDaemon(Arc<AtomicUsize>);

impl FakeDaemon {
    fn at(path: &Path) -> Self {
        let (listener, asked) = (UnixListener::bind(path).unwrap(), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut line = String::new();
                if BufReader::new(&stream).read_line(&mut line).is_ok_and(|length| length > 0) {
                    count.fetch_add(1, Ordering::SeqCst);
                }
                let report = json!({ "done": { "complete": true, "rewrapped": 9, "failed": [] } });
                let _ = writeln!(&stream, "{report}");
            }
        });
        Self(asked)
    }

    fn asked(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// Holds the vault as a daemon does.
fn hold(machine: &Machine) -> File {
    let mut options = File::options();
    let lock = options.read(true).write(true).create(true).truncate(false);
    let lock = lock.open(machine.path(LOCK)).unwrap();
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
    lock
}

/// The command's text, with nothing in it that a terminal obeys.
fn harmless(text: &str) {
    let bad = |letter: char| (letter.is_control() && letter != '\n') || letter == '\u{202e}';
    assert!(!text.chars().any(bad), "{text:?}");
}

#[test]
fn a_socket_that_the_lock_file_names_is_not_asked() {
    let machine = Machine::with_vault();
    let fake = FakeDaemon::at(&machine.path("fake.sock"));
    let mut lock = hold(&machine);
    let holder = json!({ "pid": 1, "host": "h\u{1b}[2J\u{202e}", "mountpoint": "/\u{9b}31m\nall well",
        "socket": machine.path("fake.sock") });
    lock.write_all(holder.to_string().as_bytes()).unwrap();
    for words in [&["rewrap", "vault"][..], &["fsck", "vault"], &["rewrap", "vault", "--json"]] {
        let output = machine.run(&keyed(words));
        let (stdout, stderr) = texts(&output);
        assert_eq!(output.status.code(), Some(9), "{words:?}: {stdout}{stderr}");
        assert!(!stdout.contains("re-wrapped"), "{stdout}");
        assert!(!stderr.contains("all well"), "{stderr}");
        harmless(&format!("{stdout}{stderr}"));
    }
    let status = machine.json(&["status", "vault"]);
    assert_eq!((&status["in_use"], &status["pid"]), (&true.into(), &json!(null)));
    assert_eq!(fake.asked(), 0);
}

#[test]
fn a_lock_file_of_any_contents_is_emptied_by_the_next_mount() {
    let machine = Machine::with_vault();
    machine.ok(&keyed(&["mount", "--create", "vault", "m"]));
    machine.ok(&["umount", "m"]);
    for contents in [&b"{\"pid\":"[..], &[0xff; 5000]] {
        fs::write(machine.path(LOCK), contents).unwrap();
        machine.ok(&keyed(&["mount", "vault", "m"]));
        assert_eq!(fs::read(machine.path(LOCK)).unwrap(), b"");
        machine.ok(&["umount", "m"]);
    }
    let huge = File::create(machine.path(LOCK)).unwrap();
    huge.set_len(1 << 40).unwrap();
    machine.ok(&keyed(&["mount", "vault", "m"]));
    assert_eq!(fs::metadata(machine.path(LOCK)).unwrap().size(), 0);
}

/// Hostname, mountpoint and socket stood there in the clear.
#[test]
fn a_mounted_vault_says_nothing_of_the_machine() {
    let machine = Machine::new();
    machine.ok(&keyed(&["mount", "--create", "vault", "m"]));
    let host = rustix::system::uname().nodename().to_str().unwrap().to_owned();
    let place = machine.path("m").to_str().unwrap().to_owned();
    for entry in fs::read_dir(machine.path("vault/.kmsfs")).unwrap() {
        let entry = entry.unwrap();
        let text = String::from_utf8_lossy(&fs::read(entry.path()).unwrap()).into_owned();
        for secret in [host.as_str(), &place, ".sock", "pid"] {
            assert!(!text.contains(secret), "{} has {secret}", entry.path().display());
        }
    }
}

#[test]
fn a_lock_that_is_no_file_is_refused_and_nobody_waits() {
    let machine = Machine::with_vault();
    let lock = machine.path(LOCK);
    let commands = [&["status", "vault"][..], &["rewrap", "vault"], &["fsck", "vault"]];
    let limited = |words: &[&str]| {
        let mut command = machine.command_of(Path::new("timeout"), &["20"]);
        command.arg(env!("CARGO_BIN_EXE_kmsfs")).args(keyed(words)).output().unwrap()
    };
    let _ = fs::remove_file(&lock);
    assert!(Command::new("mkfifo").arg(&lock).status().unwrap().success());
    for words in commands {
        let output = limited(words);
        assert_ne!(output.status.code(), Some(124), "{words:?} waits");
        assert_eq!(output.status.success(), words[0] == "status", "{words:?}: {output:?}");
    }
    fs::remove_file(&lock).unwrap();
    let elsewhere = machine.path("elsewhere");
    fs::write(&elsewhere, "precious").unwrap();
    symlink(&elsewhere, &lock).unwrap();
    for words in commands {
        assert_eq!(limited(words).status.success(), words[0] == "status", "{words:?}");
    }
    assert_eq!(fs::read(&elsewhere).unwrap(), b"precious");
}

/// Root asks the daemon of the vault's owner: only in a directory, at a socket and of a process of
/// that user.
#[test]
fn root_believes_nobody_but_the_owner_of_the_vault() {
    assert!(rustix::process::geteuid().is_root(), "run this as root: it plays two other users");
    const OWNER: u32 = 61_301;
    const OTHER: u32 = 61_302;
    let machine = Machine::with_vault();
    let vault = machine.path("vault");
    let lock = hold(&machine);
    chown(&vault, Some(OWNER), None).unwrap();
    let dir = PathBuf::from(format!("/tmp/kmsfs-{OWNER}"));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir(&dir).unwrap();
    let meta = fs::metadata(&vault).unwrap();
    let socket = dir.join(format!("{:x}-{:x}.sock", meta.dev(), meta.ino()));
    let fake = FakeDaemon::at(&socket);
    let set = |dir_owner: u32, mode: u32, socket_owner: u32| {
        fs::set_permissions(&dir, Permissions::from_mode(mode)).unwrap();
        chown(&dir, Some(dir_owner), None).unwrap();
        chown(&socket, Some(socket_owner), None).unwrap();
    };
    for (dir_owner, mode, socket_owner) in [
        // Prepared by another user, open to others, with somebody else's socket, and with a process
        // at the other end (this one) that is not the owner's.
        (OTHER, 0o700, OTHER),
        (OWNER, 0o777, OWNER),
        (OWNER, 0o700, OTHER),
        (OWNER, 0o700, OWNER),
    ] {
        set(dir_owner, mode, socket_owner);
        machine.fails(&keyed(&["rewrap", "vault"]), 9, "in use");
        assert_eq!(fake.asked(), 0, "{dir_owner} {mode:o} {socket_owner}");
    }
    drop(lock);
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn names_in_a_vault_do_not_steer_the_terminal() {
    let machine = Machine::with_vault();
    let name = "x\u{1b}[2J\u{9b}1m\u{202e}y\nkmsfs: all well";
    fs::write(machine.path("vault").join(name), "z").unwrap();
    fs::create_dir(machine.path("vault").join(format!("{name}d"))).unwrap();
    for words in [&["fsck", "vault"][..], &["rewrap", "vault"], &["fsck", "vault", "--json"]] {
        let (stdout, stderr) = texts(&machine.run(&keyed(words)));
        assert!(stdout.contains("all well") || words[0] == "rewrap", "{stdout}");
        harmless(&format!("{stdout}{stderr}"));
        assert!(!stdout.lines().any(|line| line == "kmsfs: all well"), "{stdout}");
    }
}

/// The name of a process is its user's choice.
#[test]
fn names_of_processes_do_not_steer_the_terminal() {
    let machine = Machine::new();
    machine.ok(&keyed(&["mount", "--create", "vault", "m"]));
    fs::write(machine.path("m/file"), "hello").unwrap();
    let program = machine.path("s\u{1b}[2J\ny");
    fs::copy("/bin/sleep", &program).unwrap();
    let file = File::open(machine.path("m/file")).unwrap();
    let mut holder =
        Command::new(&program).arg("60").stdin(file).stdout(Stdio::null()).spawn().unwrap();
    let output = machine.run(&["umount", "m"]);
    let (_, stderr) = texts(&output);
    assert_eq!(output.status.code(), Some(17), "{stderr}");
    assert!(stderr.contains(&holder.id().to_string()), "{stderr}");
    harmless(&stderr);
    holder.kill().unwrap();
    holder.wait().unwrap();
}

/// Only a mount looked: what was repaired or re-wrapped was the other vault.
#[test]
fn regression_exchanged_vaults_are_refused_by_every_command_that_opens_one() {
    let machine = Machine::with_vault();
    machine.ok(&keyed(&["init", "other"]));
    let [vault, other] = ["vault", "other"].map(|name| machine.path(name));
    let (cwd, flags) = (rustix::fs::CWD, rustix::fs::RenameFlags::EXCHANGE);
    rustix::fs::renameat_with(cwd, &vault, cwd, &other, flags).unwrap();
    fs::create_dir(machine.path("m")).unwrap();
    let commands: [&[&str]; 5] = [
        &["cat", "vault", "file"],
        &["fsck", "vault"],
        &["fsck", "vault", "--repair"],
        &["rewrap", "vault"],
        &["mount", "vault", "m"],
    ];
    for words in commands {
        machine.fails(&keyed(words), 14, "is expected here");
    }
    machine.ok(&keyed(&["fsck", "vault", "--repair", "--restored"]));
    machine.ok(&keyed(&["mount", "vault", "m", "--restored"]));
    machine.ok(&["umount", "m"]);
    machine.ok(&keyed(&["rewrap", "vault"]));
}

/// The daemon of a user's vault is a program of that user.
#[test]
fn regression_a_daemon_that_never_answers_keeps_nobody_waiting() {
    let machine = Machine::with_vault();
    let _lock = hold(&machine);
    let meta = fs::metadata(machine.path("vault")).unwrap();
    let place = if rustix::process::geteuid().is_root() {
        PathBuf::from("/run/kmsfs")
    } else {
        machine.path("run/kmsfs")
    };
    fs::create_dir_all(&place).unwrap();
    fs::set_permissions(&place, Permissions::from_mode(0o700)).unwrap();
    let socket = place.join(format!("{:x}-{:x}.sock", meta.dev(), meta.ino()));
    let listener = UnixListener::bind(&socket).unwrap();
    // It takes the request, and sends a byte of an answer now and then.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                while stream.write_all(b" ").is_ok() {
                    std::thread::sleep(std::time::Duration::from_millis(500));
                }
            });
        }
    });
    machine.fails(&["status", "vault"], 1, "does not answer");
    machine.fails(&["metrics", "vault"], 1, "does not answer");
    fs::remove_file(&socket).unwrap();
}

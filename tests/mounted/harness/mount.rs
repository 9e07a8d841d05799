//! A vault with everything that belongs to it, and its mount.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::Sandbox;
use super::tools::checked;

/// How long a mount may take to become usable; the passphrase function is not in play here.
const MOUNT_LIMIT: Duration = Duration::from_secs(20);
/// How long a mount may be busy.
const BUSY_LIMIT: Duration = Duration::from_secs(5);
/// After this long the daemon is killed, so that a hang becomes a failure with a log.
const TEST_LIMIT: Duration = Duration::from_secs(15 * 60);

/// A vault, its keystore, key file, mount point and log, in a sandbox of their own.
pub(crate) struct Vault {
    sandbox: Sandbox,
    store: PathBuf,
    /// Runs the command line tool somewhere else, for example in a network namespace.
    prefix: Vec<String>,
}

impl Vault {
    /// Paths for a vault; nothing is created before the first mount.
    pub(crate) fn new(name: &str) -> Self {
        let sandbox = Sandbox::new(name);
        // The root of a mount that others use has a mode that lets them in, and the vault has it too.
        let private = sandbox.dir("private");
        fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).unwrap();
        let store = private.join("vault");
        sandbox.dir("mnt");
        Self { sandbox, store, prefix: Vec::new() }
    }

    /// The same with the ciphertext at `store`, for example on a filesystem of its own.
    pub(crate) fn at(name: &str, store: PathBuf) -> Self {
        Self { store, ..Self::new(name) }
    }

    /// The same with every command started by `prefix`.
    pub(crate) fn within(self, prefix: Vec<String>) -> Self {
        Self { prefix, ..self }
    }

    /// The directory that holds the ciphertext.
    pub(crate) fn store(&self) -> &Path {
        &self.store
    }

    /// The keystore file.
    pub(crate) fn keystore(&self) -> PathBuf {
        self.sandbox.path("keystore.db")
    }

    /// A path in the sandbox, outside vault and mount.
    pub(crate) fn outside(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.sandbox.path(relative)
    }

    /// Creates a directory in the sandbox, outside vault and mount.
    pub(crate) fn outside_dir(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.sandbox.dir(relative)
    }

    /// Where the vault is mounted.
    pub(crate) fn mountpoint(&self) -> PathBuf {
        self.sandbox.path("mnt")
    }

    /// What every daemon of this vault has logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.sandbox.path("daemon.log")
    }

    /// The command line tool with this vault's keystore and key file.
    pub(crate) fn command(&self) -> Command {
        let mut command = match self.prefix.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(binary());
                command
            }
            None => Command::new(binary()),
        };
        command
            .arg("--keystore")
            .arg(self.keystore())
            .arg("--key-file")
            .arg(self.sandbox.path("key"))
            .stdin(Stdio::null());
        command
    }

    /// Runs the command line tool, which must succeed, and returns its output.
    pub(crate) fn kmsfs<const N: usize>(&self, args: [&str; N]) -> String {
        let output = self.command().args(args).output().unwrap();
        checked(&format!("kmsfs {}", args.join(" ")), output)
    }

    /// Mounts with the usual options, creating what is missing.
    pub(crate) fn mount(&self) -> Mount<'_> {
        self.mount_with(&["--create"])
    }

    /// Mounts with exactly these options.
    pub(crate) fn mount_with(&self, options: &[&str]) -> Mount<'_> {
        need_fuse();
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let before = device(&self.mountpoint());
        let daemon = self
            .command()
            .arg("mount")
            .arg("--foreground")
            .args(options)
            .arg(&self.store)
            .arg(self.mountpoint())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", binary().display()));
        let mut mount = Mount { vault: self, daemon, watchdog: None };
        mount.wait_until_usable(before);
        mount.watchdog = Some(watch(mount.pid()));
        mount
    }
}

/// A mounted vault. Dropping it unmounts; after a panic it prints the daemon's log first.
pub(crate) struct Mount<'v> {
    vault: &'v Vault,
    daemon: Child,
    watchdog: Option<Sender<()>>,
}

impl Mount<'_> {
    /// The root of the mount.
    pub(crate) fn root(&self) -> PathBuf {
        self.vault.mountpoint()
    }

    /// A path inside the mount.
    pub(crate) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root().join(relative)
    }

    /// The daemon's process.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.daemon)
    }

    /// Unmounts through the command line; the daemon must end well.
    pub(crate) fn unmount(mut self) {
        self.ask_to_unmount();
        let status = self.wait_for_end();
        assert!(status.success(), "the daemon ended with {status}\n{}", self.vault.log());
    }

    /// Tries for a while: a program that another test is just starting holds this test's files
    /// for a moment, between fork and exec.
    fn ask_to_unmount(&mut self) {
        let start = Instant::now();
        loop {
            let output = self.vault.command().arg("umount").arg(self.root()).output().unwrap();
            if output.status.success() {
                return;
            }
            if start.elapsed() > BUSY_LIMIT {
                self.kill_daemon();
                checked("kmsfs umount", output);
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Kills the daemon with SIGKILL and removes the dead mount.
    pub(crate) fn kill(mut self) {
        self.kill_daemon();
    }

    fn kill_daemon(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        detach(&self.root());
    }

    fn wait_until_usable(&mut self, before: u64) {
        let start = Instant::now();
        let root = self.root();
        while device(&root) == before {
            if let Some(status) = self.daemon.try_wait().unwrap() {
                panic!("kmsfs mount ended with {status} before the mount was usable");
            }
            assert!(start.elapsed() < MOUNT_LIMIT, "the mount was not usable in time");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// How the daemon ends, whoever ended it.
    pub(crate) fn wait_for_end(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.daemon.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < MOUNT_LIMIT, "the daemon did not end after the unmount");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let ended = matches!(self.daemon.try_wait(), Ok(Some(_)));
        if thread::panicking() {
            print_log(&self.vault.log());
            self.kill_daemon();
        } else if !ended {
            self.ask_to_unmount();
            self.wait_for_end();
        } else {
            detach(&self.root());
        }
    }
}

/// The binary under test.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("KMSFS_BIN").map_or_else(|| env!("CARGO_BIN_EXE_kmsfs").into(), PathBuf::from)
}

fn need_fuse() {
    assert!(
        Path::new("/dev/fuse").exists(),
        "/dev/fuse is missing: run `modprobe fuse`, or give the container `--device /dev/fuse`"
    );
}

/// The device number of a mount point; 0 while it cannot be looked at.
fn device(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |meta| meta.dev())
}

fn detach(root: &Path) {
    for program in ["fusermount3", "umount"] {
        let lazy: &[&str] = if program == "umount" { &["-l"] } else { &["-u", "-z"] };
        let gone = Command::new(program).args(lazy).arg(root).output();
        if gone.is_ok_and(|output| output.status.success()) {
            return;
        }
    }
}

/// Kills the daemon unless the mount is dropped in time.
fn watch(daemon: Pid) -> Sender<()> {
    let (alive, dropped): (Sender<()>, Receiver<()>) = channel();
    thread::spawn(move || {
        if dropped.recv_timeout(TEST_LIMIT) == Err(RecvTimeoutError::Timeout) {
            eprintln!("the test took longer than {TEST_LIMIT:?}: killing its daemon");
            let _ = kill_process(daemon, Signal::KILL);
        }
    });
    alive
}

fn print_log(log: &str) {
    let lines: Vec<&str> = log.lines().collect();
    let tail = lines.get(lines.len().saturating_sub(60)..).unwrap_or_default();
    let _ = writeln!(io::stderr(), "--- last lines of the daemon's log\n{}", tail.join("\n"));
}

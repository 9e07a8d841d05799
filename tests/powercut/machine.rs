//! A machine with one recorded disk: the backing filesystem, a vault on it, its mount.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::MutexGuard;
use std::thread;
use std::time::{Duration, Instant};

use crate::backing::Backing;
use crate::device::Disk;
use crate::image::Image;
use crate::tools::{Scratch, program, run, try_run};

/// How long a mount may take to become usable, and a daemon to end.
const LIMIT: Duration = Duration::from_secs(60);

/// Where the keystore lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Keys {
    /// Beside the vault: the same cut meets both.
    SameDisk,
    /// On another disk, which keeps all that was written to it.
    Apart,
}

/// Whether pages are journaled before they are written over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Journal {
    /// Where the mount thinks it necessary.
    Auto,
    /// Everywhere.
    On,
}

/// What survives of a machine without power: the disk, and the keystore where it lies apart.
#[derive(Clone)]
pub(crate) struct Off {
    pub(crate) image: Image,
    pub(crate) apart: Vec<(String, Vec<u8>)>,
}

/// A running machine. Dropping it takes everything down, however far it is.
pub(crate) struct Machine {
    backing: &'static Backing,
    keys: Keys,
    journal: Journal,
    daemon: Option<Child>,
    disk: Option<Disk>,
    scratch: Scratch,
    _alone: Option<MutexGuard<'static, ()>>,
}

impl Machine {
    /// A machine with an empty filesystem, and a vault in it that is not mounted.
    pub(crate) fn install(backing: &'static Backing, keys: Keys) -> Self {
        let mut machine =
            Self::plug(backing, keys, &Off { image: Image::zeros(backing.size()), apart: vec![] });
        backing.make(machine.disk().device());
        machine.mount_backing().unwrap();
        for dir in ["bare", "keys"] {
            fs::create_dir(machine.back().join(dir)).unwrap();
        }
        machine.mount_vault(&["--create"]).unwrap();
        machine
    }

    /// A machine with this disk, and nothing mounted.
    pub(crate) fn plug(backing: &'static Backing, keys: Keys, off: &Off) -> Self {
        let alone = backing.alone();
        let scratch = Scratch::new(backing.name);
        for dir in ["back", "mnt", "apart"] {
            scratch.dir(dir);
        }
        let mut key = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(scratch.path("key"))
            .unwrap();
        key.write_all(&[0x4b; 32]).unwrap();
        for (name, bytes) in &off.apart {
            fs::write(scratch.path("apart").join(name), bytes).unwrap();
        }
        let disk = Disk::plug(off.image.clone(), &scratch.dir("disk")).unwrap();
        Self {
            backing,
            keys,
            journal: Journal::Auto,
            daemon: None,
            disk: Some(disk),
            scratch,
            _alone: alone,
        }
    }

    /// From the next mount on, journals pages everywhere.
    pub(crate) fn journal(&mut self, journal: Journal) {
        self.journal = journal;
    }

    pub(crate) fn disk(&self) -> &Disk {
        self.disk.as_ref().expect("only drop takes it")
    }

    /// The root of the backing filesystem.
    pub(crate) fn back(&self) -> PathBuf {
        self.scratch.path("back")
    }

    /// A directory of the backing filesystem that kmsfs has nothing to do with.
    pub(crate) fn bare(&self) -> PathBuf {
        self.back().join("bare")
    }

    /// The ciphertext.
    pub(crate) fn vault(&self) -> PathBuf {
        self.back().join("vault")
    }

    /// The root of the mount of the vault.
    pub(crate) fn mnt(&self) -> PathBuf {
        self.scratch.path("mnt")
    }

    /// What the daemons of this machine have logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.scratch.path("log")).unwrap_or_default()
    }

    /// Mounts the backing filesystem, with its journal's recovery.
    pub(crate) fn mount_backing(&mut self) -> Result<(), String> {
        self.backing.mount(self.disk().device(), &self.back())
    }

    /// Mounts the vault, and waits until it can be used.
    pub(crate) fn mount_vault(&mut self, options: &[&str]) -> Result<(), String> {
        let log = File::options().create(true).append(true).open(self.scratch.path("log")).unwrap();
        let before = device(&self.mnt());
        let mut daemon = self
            .command()
            .args(["mount", "--foreground"])
            .args(options)
            .args((self.journal == Journal::On).then_some("-opage-journal=on"))
            .args([self.vault(), self.mnt()])
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let start = Instant::now();
        while device(&self.mnt()) == before {
            if let Some(status) = daemon.try_wait().unwrap() {
                return Err(format!("kmsfs mount: {status}\n{}", self.log()));
            }
            if start.elapsed() > LIMIT {
                let _ = daemon.kill();
                return Err(format!("kmsfs mount hangs\n{}", self.log()));
            }
            thread::sleep(Duration::from_millis(4));
        }
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Unmounts the vault as a user would; its daemon must end well.
    pub(crate) fn unmount_vault(&mut self) -> Result<(), String> {
        let Some(mut daemon) = self.daemon.take() else { return Ok(()) };
        let asked = self.unmount(&self.mnt());
        if asked.is_err() {
            let _ = daemon.kill();
            try_run(Command::new(program("umount")).arg("-l").arg(self.mnt()));
        }
        let status = daemon.wait().unwrap();
        asked?;
        if status.success() {
            return Ok(());
        }
        Err(format!("the daemon ended with {status}\n{}", self.log()))
    }

    /// Kills the daemon with SIGKILL, and removes the dead mount.
    pub(crate) fn kill_daemon(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
            try_run(Command::new(program("umount")).arg("-l").arg(self.mnt()));
        }
    }

    /// Runs the command line tool with this machine's keystore.
    pub(crate) fn kmsfs(&self, args: &[&str]) -> Result<String, String> {
        run(self.command().args(args))
    }

    /// The files of a keystore that lies apart, as they are now.
    pub(crate) fn apart(&self) -> Vec<(String, Vec<u8>)> {
        let files = fs::read_dir(self.scratch.path("apart")).unwrap();
        files
            .map(|file| file.unwrap())
            .filter(|file| file.file_type().unwrap().is_file())
            .map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap()))
            .collect()
    }

    /// Ends in good order.
    pub(crate) fn shut_down(mut self) -> Result<Off, String> {
        self.unmount_vault()?;
        let apart = self.apart();
        self.unmount(&self.back())?;
        Ok(Off { image: self.disk().image(), apart })
    }

    fn command(&self) -> Command {
        let keystore = match self.keys {
            Keys::SameDisk => self.back().join("keys"),
            Keys::Apart => self.scratch.path("apart"),
        };
        let mut command = Command::new(binary());
        command
            .arg("--keystore")
            .arg(keystore.join("keystore.db"))
            .arg("--key-file")
            .arg(self.scratch.path("key"))
            .stdin(Stdio::null());
        command
    }

    /// Tries for a while: a program that another thread is just starting holds this one's files
    /// for a moment, between fork and exec.
    fn unmount(&self, dir: &Path) -> Result<(), String> {
        let start = Instant::now();
        loop {
            match run(Command::new(program("umount")).arg(dir)) {
                Ok(_) => return Ok(()),
                Err(error) if start.elapsed() > Duration::from_secs(10) => return Err(error),
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill_daemon();
        if device(&self.back()) != device(&self.scratch.path("apart"))
            && self.unmount(&self.back()).is_err()
        {
            try_run(Command::new(program("umount")).arg("-l").arg(self.back()));
        }
        drop(self.disk.take());
    }
}

/// The binary under test.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("KMSFS_BIN").map_or_else(|| env!("CARGO_BIN_EXE_kmsfs").into(), PathBuf::from)
}

/// The device number of a directory; 0 while it cannot be looked at.
fn device(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |meta| meta.dev())
}

//! A machine of one's own for each test.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A machine of one's own: empty home, data and runtime directories.
pub(crate) struct Machine {
    root: PathBuf,
}

impl Machine {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("kmsfs-cli-{}-{number}", std::process::id());
        let root = std::env::temp_dir().canonicalize().unwrap().join(name);
        let _ = fs::remove_dir_all(&root);
        for dir in ["home", "data", "run"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        Self { root }
    }

    /// A machine with a keystore, its key file and a vault.
    pub(crate) fn with_vault() -> Self {
        let machine = Self::new();
        machine.ok(&["--key-file", "key", "keystore", "init", "--create-key-file"]);
        machine.ok(&["--key-file", "key", "init", "vault"]);
        machine
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        self.command_of(Path::new(env!("CARGO_BIN_EXE_kmsfs")), words)
    }

    /// The program under another name.
    pub(crate) fn command_of(&self, program: &Path, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(words)
            .current_dir(&self.root)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.path("home"))
            .env("XDG_DATA_HOME", self.path("data"))
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("KMSFS_KEYSTORE", self.path("data/kmsfs/keystore.db"))
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    pub(crate) fn ok(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let (stdout, stderr) = texts(&output);
        assert!(output.status.success(), "{words:?}: {stderr}");
        stdout
    }

    pub(crate) fn json(&self, words: &[&str]) -> serde_json::Value {
        let words: Vec<&str> = words.iter().copied().chain(["--json"]).collect();
        serde_json::from_str(&self.ok(&words)).unwrap()
    }

    /// Runs with `text` on stdin and returns the exit code.
    pub(crate) fn feed(&self, words: &[&str], text: &str) -> i32 {
        let mut command = self.command(words);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        // A command that fails early does not read what it is given.
        let _ = child.stdin.take().unwrap().write_all(text.as_bytes());
        child.wait().unwrap().code().unwrap()
    }

    /// Edits the keystore by hand.
    pub(crate) fn sql(&self, text: &str) {
        let keystore = rusqlite::Connection::open(self.path("data/kmsfs/keystore.db")).unwrap();
        keystore.execute_batch(text).unwrap();
    }

    /// Expects an exit code and a piece of the message.
    #[track_caller]
    pub(crate) fn fails(&self, words: &[&str], code: i32, message: &str) {
        let output = self.run(words);
        let (_, stderr) = texts(&output);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {stderr}");
        assert!(stderr.contains(message), "{words:?} lacks '{message}': {stderr}");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.run(&["umount", "--lazy", "--if-mounted", "m"]);
        let _ = fs::remove_dir_all(&self.root);
    }
}

pub(crate) fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

pub(crate) fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

const KEY: [&str; 2] = ["--key-file", "key"];

/// The words with the key file in front.
pub(crate) fn keyed<'a>(words: &[&'a str]) -> Vec<&'a str> {
    KEY.into_iter().chain(words.iter().copied()).collect()
}

//! A server of one's own for each test, and clients that say exactly what they are told.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use kmsfs::endpoint::{Credentials, Endpoint, Options};
use kmsfs::keystore::{CreateAccessKey, Keystore, Unlock, create_key_file};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A directory with a keystore, its key file and whatever a test puts there.
pub(crate) struct Home {
    pub(crate) dir: PathBuf,
}

impl Home {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("kmsfs-api-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).unwrap();
        create_key_file(&dir.join("key")).unwrap();
        let home = Self { dir };
        home.add_keystore("store.db");
        home
    }

    /// A keystore with the default key.
    pub(crate) fn add_keystore(&self, name: &str) -> Keystore {
        let now = SystemTime::now();
        let keystore = Keystore::create(&self.dir.join(name), &self.unlock(), now).unwrap();
        keystore.ensure_default_key(now).unwrap();
        keystore
    }

    pub(crate) fn keystore(&self) -> Keystore {
        Keystore::open(&self.dir.join("store.db"), &self.unlock()).unwrap()
    }

    /// An access key of the account's root, and one of a user.
    pub(crate) fn access_key(&self, user: Option<&str>) -> (String, String) {
        let request =
            CreateAccessKey { user: user.map(str::to_owned), ..CreateAccessKey::default() };
        let made = self.keystore().create_access_key(&request, SystemTime::now()).unwrap();
        (made.id, made.secret.to_string())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kmsfs"));
        command
            .args(["--keystore", "store.db", "--key-file", "key"])
            .args(words)
            .current_dir(&self.dir)
            .env_clear()
            .env("HOME", &self.dir)
            .stdin(Stdio::null());
        command
    }

    /// Runs a server that is expected to refuse, and returns its exit code and message.
    pub(crate) fn refused(&self, words: &[&str]) -> (i32, String) {
        let words: Vec<&str> = ["serve"].into_iter().chain(words.iter().copied()).collect();
        let Output { status, stderr, .. } = self.command(&words).output().unwrap();
        (status.code().unwrap(), String::from_utf8(stderr).unwrap())
    }

    fn unlock(&self) -> Unlock {
        Unlock::KeyFile(self.dir.join("key"))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A running server.
pub(crate) struct Kms {
    pub(crate) home: Home,
    child: Child,
    addresses: Vec<String>,
}

impl Kms {
    /// A server at a free port of loopback.
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::start_in(Home::new(), options)
    }

    pub(crate) fn start_in(home: Home, options: &[&str]) -> Self {
        let words = [&["serve", "--listen", "127.0.0.1:0"], options].concat();
        Self::spawn(home, &words)
    }

    pub(crate) fn spawn(home: Home, words: &[&str]) -> Self {
        let command = home.command(words);
        Self::run(home, command)
    }

    /// A server by this command.
    pub(crate) fn run(home: Home, mut command: Command) -> Self {
        let child = command.arg("--json").stdout(Stdio::piped()).spawn().unwrap();
        let mut kms = Self { home, child, addresses: Vec::new() };
        let stdout = kms.child.stdout.as_mut().unwrap();
        let said = serde_json::Deserializer::from_reader(stdout).into_iter::<Value>().next();
        let said = said.unwrap().expect("the server did not start");
        let addresses = said["listening"].as_array().unwrap().iter();
        kms.addresses = addresses.map(|address| address.as_str().unwrap().to_owned()).collect();
        kms
    }

    /// The first address, as a client names it.
    pub(crate) fn address(&self) -> &str {
        &self.addresses[0]
    }

    /// The first address as host and port.
    pub(crate) fn authority(&self) -> &str {
        self.address().split_once("://").unwrap().1
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.authority()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// An unsigned call on a new connection.
    pub(crate) fn call(&self, operation: &str, body: &str) -> Answer {
        exchange(&mut self.connect(), &request(operation, &[], body))
    }

    pub(crate) fn endpoint(&self, region: &str, (id, secret): &(String, String)) -> Endpoint {
        let address = self.address().parse().unwrap();
        let credentials = Credentials::new(id, secret, None);
        Endpoint::new(address, Some(region), credentials, None, Options::default()).unwrap()
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits until the server has ended, and returns its exit code.
    pub(crate) fn wait(&mut self) -> i32 {
        self.child.wait().unwrap().code().unwrap()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
}

impl Drop for Kms {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer as it crossed the wire.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The name of the exception.
    pub(crate) fn error(&self) -> String {
        self.json()["__type"].as_str().unwrap().to_owned()
    }

    pub(crate) fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }
}

/// A request of the protocol with further headers.
pub(crate) fn request(operation: &str, headers: &[(&str, &str)], body: &str) -> String {
    let mut text = format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-amz-json-1.1\r\n\
         X-Amz-Target: TrentService.{operation}\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text + "\r\n" + body
}

/// Sends bytes and reads one answer.
pub(crate) fn exchange(stream: &mut (impl Read + Write), bytes: &str) -> Answer {
    // A server that refuses early may close while this is still sent.
    let _ = stream.write_all(bytes.as_bytes());
    answer(stream).expect("an answer")
}

/// Reads one answer; nothing if the connection ends before it.
pub(crate) fn answer(stream: &mut impl Read) -> Option<Answer> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).ok()?;
    Some(Answer { status, head, body: String::from_utf8(body).unwrap() })
}

pub(crate) fn unix(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A key that is there from the start.
pub(crate) const KEY: &str = r#"{"KeyId":"alias/kmsfs/default"}"#;

const PATIENCE: Duration = Duration::from_secs(60);

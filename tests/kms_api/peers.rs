//! Who is at the other end of a Unix socket.

use std::io::{BufRead, BufReader, Lines};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use kmsfs::endpoint::{Credentials, Endpoint, EndpointError, Options};
use serde_json::{Value, json};

use crate::fixture::{Home, KEY, Kms, exchange, request, unix};
use crate::foreign_process::ForeignUser;

#[test]
fn without_the_option_a_unix_socket_takes_signed_requests_only() {
    let kms = Kms::spawn(Home::new(), &["serve", "--listen", "unix:kms.sock"]);
    let answer = exchange(&mut unix(&kms.home.path("kms.sock")), &request("DescribeKey", &[], KEY));
    assert_eq!(answer.status, 400);
    assert_eq!(answer.error(), "MissingAuthenticationTokenException");
}

#[test]
fn the_servers_own_user_is_the_root_of_the_account() {
    let kms = Kms::spawn(Home::new(), &["serve", "--listen", "unix:kms.sock", "--allow-unsigned"]);
    let path = kms.home.path("kms.sock");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let answer = exchange(&mut unix(&path), &request("Encrypt", &[], ENCRYPT));
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// Needs root, to become somebody else.
#[test]
fn another_user_acts_for_oneself() {
    let words = ["serve", "--listen", "unix:kms.sock", "--allow-unsigned", "--socket-mode", "666"];
    let kms = Kms::spawn(Home::new(), &words);
    std::fs::set_permissions(&kms.home.dir, PermissionsExt::from_mode(0o755)).unwrap();
    let path = kms.home.path("kms.sock");
    let output = ask_as_nobody(&path);
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("AccessDeniedException"), "{said}");
    assert!(said.contains("User: arn:aws:iam::000000000000:user/unix/65534"), "{said}");
    assert!(said.contains("kms:Encrypt"), "{said}");
}

#[test]
fn a_user_without_the_right_to_write_does_not_get_in() {
    let kms = Kms::spawn(Home::new(), &["serve", "--listen", "unix:kms.sock", "--allow-unsigned"]);
    std::fs::set_permissions(&kms.home.dir, PermissionsExt::from_mode(0o755)).unwrap();
    let output = ask_as_nobody(&kms.home.path("kms.sock"));
    assert_eq!(output.status.code(), Some(7), "curl could not connect");
    assert!(output.stdout.is_empty());
}

/// In a user namespace of one's own, everybody with subordinate ids gives up the group that a Deny is about,
/// or asks as a user whom no Deny names. Needs root, to become somebody else and to map ids.
#[test]
fn regression_no_deny_is_passed_at_the_socket_from_another_user_namespace() {
    let words = ["serve", "--listen", "unix:kms.sock", "--allow-unsigned", "--socket-mode", "666"];
    let kms = Kms::spawn(Home::new(), &words);
    std::fs::set_permissions(&kms.home.dir, PermissionsExt::from_mode(0o755)).unwrap();
    let socket = kms.home.path("kms.sock");
    let ask = |map: &str, becomes| {
        let user = ForeignUser { uid: 12345, groups: &[12345, 7777], map, becomes };
        String::from_utf8(user.output(&curl(&socket)).stdout).unwrap()
    };
    let without_the_group = || ask("12345 12345 1", 12345);
    let as_subordinate = || ask("0 100000 1000", 0);
    // Nothing to evade: containers ask as they did.
    set_policy(&kms, &[allow_everybody()]);
    heard_of_by(|| without_the_group().contains("CiphertextBlob"));
    for said in [without_the_group(), as_subordinate()] {
        assert!(said.contains("CiphertextBlob"), "{said}");
    }
    for who in ["group/unix/7777", "user/unix/12345"] {
        set_policy(&kms, &[allow_everybody(), statement("Deny", who)]);
        heard_of_by(|| without_the_group().contains("AccessDeniedException"));
        for said in [without_the_group(), as_subordinate()] {
            assert!(said.contains("AccessDeniedException"), "{who}: {said}");
            assert!(said.contains("nobody can say who the process is"), "{who}: {said}");
        }
        // Who stays at home is not concerned.
        let said = String::from_utf8(ask_as_nobody(&socket).stdout).unwrap();
        assert!(said.contains("CiphertextBlob"), "{who}: {said}");
    }
}

/// In a user namespace, all users without a number there have one and the same. A server with that number
/// took everybody for the root of the account. Needs root, to become somebody else.
#[test]
fn regression_a_number_that_stands_for_everybody_is_not_the_servers_own_user() {
    let home = Home::new();
    std::fs::set_permissions(&home.dir, PermissionsExt::from_mode(0o755)).unwrap();
    let words = ["serve", "--listen", "unix:kms.sock", "--allow-unsigned", "--socket-mode", "666"];
    let plain = home.command(&words);
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-user=65534"]).arg(plain.get_program()).args(plain.get_args());
    command.current_dir(&home.dir).stderr(Stdio::null());
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let kms = Kms::run(home, command);
    let ask = || String::from_utf8(ask_as_nobody(&kms.home.path("kms.sock")).stdout).unwrap();
    assert!(ask().contains("AccessDeniedException"), "{}", ask());
    // Nor is it the user of a rule.
    set_policy(&kms, &[statement("Allow", "user/unix/65534")]);
    assert!(ask().contains("nobody can say who the process is"), "{}", ask());
}

/// While the server was down, any user could take its port and give a mount data keys of one's own choice.
/// Needs root, to become somebody else.
#[test]
fn regression_another_user_at_the_port_of_a_kms_is_not_asked() {
    let mut theirs = Answering::begin(Some(NOBODY), &["127.0.0.1"]);
    let error = ask(&format!("http://127.0.0.1:{}", theirs.said)).unwrap_err();
    assert!(error.to_string().contains("user 65534 answers there"), "{error}");
    assert_eq!(theirs.heard(), 0, "it was sent something");
    let mut own = Answering::begin(None, &["127.0.0.1"]);
    ask(&format!("http://127.0.0.1:{}", own.said)).unwrap();
    assert!(own.heard() > 0);
    let mut both = Answering::begin(None, &["::"]);
    ask(&format!("http://127.0.0.1:{}", both.said)).unwrap();
    assert!(both.heard() > 0);
}

/// The same for a socket's name in a directory where everybody may make one.
#[test]
fn regression_another_user_in_the_place_of_a_socket_is_not_asked() {
    let home = Home::new();
    let place = |name: &str, mode| {
        let dir = home.path(name);
        std::fs::create_dir(&dir).unwrap();
        std::os::unix::fs::chown(&dir, Some(NOBODY), None).unwrap();
        std::fs::set_permissions(&dir, PermissionsExt::from_mode(mode)).unwrap();
        dir.join("kms.sock").to_str().unwrap().to_owned()
    };
    std::fs::set_permissions(&home.dir, PermissionsExt::from_mode(0o755)).unwrap();
    let open = place("open", 0o1777);
    let mut theirs = Answering::begin(Some(NOBODY), &[&open]);
    let error = ask(&format!("unix:{open}")).unwrap_err();
    assert!(error.to_string().contains("user 65534 listens there"), "{error}");
    assert_eq!(theirs.heard(), 0, "it was sent something");
    let mut own = Answering::begin(None, &[&place("own", 0o1777)]);
    ask(&format!("unix:{}", own.said)).unwrap();
    assert!(own.heard() > 0);
}

/// The directories of a path were looked at, but not those in which symbolic links on the way lie: who
/// may write there leads the way to a socket of one's own. Needs root, to become somebody else.
#[test]
fn regression_another_user_who_can_change_a_link_on_the_way_is_not_asked() {
    let ways = Ways::new();
    let (server, open) = (ways.dir("server", Some(NOBODY), 0o755), ways.dir("open", None, 0o777));
    symlink(&server, open.join("link")).unwrap();
    symlink(&open, ways.0.join("through")).unwrap();
    symlink(&server, ways.0.join("link")).unwrap();
    let socket = server.join("kms.sock");
    for way in ["open/link", "through/link", "open/../open/link/../server"] {
        let mut theirs = Answering::begin(Some(NOBODY), &[socket.to_str().unwrap()]);
        let error = ask(&format!("unix:{}/{way}/kms.sock", ways.0.display())).unwrap_err();
        assert!(error.to_string().contains("user 65534 listens there"), "{way}: {error}");
        assert_eq!(theirs.heard(), 0, "it was sent something by {way}");
        std::fs::remove_file(&socket).unwrap();
    }
    let mut trusted = Answering::begin(Some(NOBODY), &[socket.to_str().unwrap()]);
    ask(&format!("unix:{}/link/kms.sock", ways.0.display())).unwrap();
    assert!(trusted.heard() > 0);
}

/// Directories where only root, or whom root lets, can change anything: under /tmp there are none.
struct Ways(PathBuf);

impl Ways {
    fn new() -> Self {
        let dir = PathBuf::from(format!("/run/kmsfs-ways-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    fn dir(&self, name: &str, owner: Option<u32>, mode: u32) -> PathBuf {
        let dir = self.0.join(name);
        std::fs::create_dir(&dir).unwrap();
        std::os::unix::fs::chown(&dir, owner, None).unwrap();
        std::fs::set_permissions(&dir, PermissionsExt::from_mode(mode)).unwrap();
        dir
    }
}

impl Drop for Ways {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// One call to whoever answers at an address.
fn ask(address: &str) -> Result<Value, EndpointError> {
    let options = Options { attempt: Duration::from_secs(20), patience: Duration::from_millis(1) };
    let key = Credentials::new("AKIDEXAMPLE", "secret", None);
    let endpoint = Endpoint::new(address.parse().unwrap(), None, key, None, options).unwrap();
    endpoint.call("ListKeys", &json!({}))
}

/// A server that takes one connection, and says how much was sent to it.
struct Answering {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// Its port, or its path.
    said: String,
}

impl Answering {
    fn begin(uid: Option<u32>, place: &[&str]) -> Self {
        let mut command = Command::new("python3");
        command.args(["-c", SERVER]).args(place).stdout(Stdio::piped()).current_dir("/");
        if let Some(uid) = uid {
            command.uid(uid).gid(uid);
        }
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let said = lines.next().unwrap().unwrap();
        Self { child, lines, said }
    }

    fn heard(&mut self) -> usize {
        self.lines.next().unwrap().unwrap().parse().unwrap()
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().unwrap();
    }
}

const SERVER: &str = r#"
import socket, sys
at = sys.argv[1]
if at.startswith("/"):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(at)
    said = at
else:
    listener = socket.socket(socket.AF_INET6 if ":" in at else socket.AF_INET)
    if ":" in at:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.bind((at, 0))
    said = listener.getsockname()[1]
listener.listen()
print(said, flush=True)
client, _ = listener.accept()
heard = client.recv(4096)
if heard:
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
print(len(heard), flush=True)
"#;

const NOBODY: u32 = 65534;

/// Sends one request for Encrypt as another user.
fn ask_as_nobody(socket: &Path) -> Output {
    Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .args(curl(socket))
        .output()
        .unwrap()
}

fn curl(socket: &Path) -> [&str; 11] {
    let kind = "Content-Type: application/x-amz-json-1.1";
    let target = "X-Amz-Target: TrentService.Encrypt";
    let [how, socket] = ["--unix-socket", socket.to_str().unwrap()];
    let url = "http://localhost/";
    ["curl", "-sS", "--data", ENCRYPT, "--header", kind, "--header", target, how, socket, url]
}

/// Waits, for as long as it is worth, until the server has looked at a keystore that another process has
/// changed.
fn heard_of_by(sign: impl Fn() -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(5);
    while !sign() && std::time::Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The root of the account may do everything, and then more statements.
fn set_policy(kms: &Kms, statements: &[Value]) {
    let all = [&[statement("Allow", "root")], statements].concat();
    let file = kms.home.path("policy.json");
    std::fs::write(&file, json!({ "Version": "2012-10-17", "Statement": all }).to_string())
        .unwrap();
    let words = ["key", "policy", "set", "alias/kmsfs/default", file.to_str().unwrap()];
    let set = kms.home.command(&words).output().unwrap();
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
}

fn statement(effect: &str, who: &str) -> Value {
    let principal = format!("arn:aws:iam::000000000000:{who}");
    json!({ "Effect": effect, "Principal": { "AWS": principal }, "Action": "kms:*", "Resource": "*" })
}

fn allow_everybody() -> Value {
    json!({ "Effect": "Allow", "Principal": "*", "Action": "kms:Encrypt", "Resource": "*" })
}

const ENCRYPT: &str = r#"{"KeyId":"alias/kmsfs/default","Plaintext":"aGVsbG8="}"#;

//! Who is at the other end of a Unix socket.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::fixture::{Home, KEY, Kms, exchange, request, unix};

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

/// Sends one request for Encrypt as another user.
fn ask_as_nobody(socket: &Path) -> Output {
    Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .args(["curl", "--silent", "--show-error", "--data", ENCRYPT])
        .args(["--header", "Content-Type: application/x-amz-json-1.1"])
        .args(["--header", "X-Amz-Target: TrentService.Encrypt", "--unix-socket"])
        .arg(socket)
        .arg("http://localhost/")
        .output()
        .unwrap()
}

const ENCRYPT: &str = r#"{"KeyId":"alias/kmsfs/default","Plaintext":"aGVsbG8="}"#;

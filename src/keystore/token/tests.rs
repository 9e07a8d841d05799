//! On SoftHSM2. Its configuration is named by an environment variable, so the tests run in a
//! child process that has it.

use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use super::session::TokenKeyId;
use super::wrap::{NONCE_LEN, OVERHEAD};
use super::{Pin, Serial, Token, TokenError, TokenRef};

#[path = "../../../tests/softhsm/mod.rs"]
mod softhsm;

use softhsm::{MODULE, PIN, SoftHsm};

const KEY: TokenKeyId = [7; 16];

#[test]
fn a_token_wraps_under_keys_that_never_leave_it() {
    in_a_child("wraps");
}

#[test]
fn a_wrong_pin_is_told_apart_also_while_somebody_is_logged_in() {
    in_a_child("pins");
}

#[test]
fn a_token_that_went_away_is_unavailable_and_works_again_when_it_is_back() {
    in_a_child("gone_and_back");
}

#[test]
fn threads_share_a_token() {
    in_a_child("threads");
}

#[test]
fn a_module_that_others_could_change_is_not_loaded() {
    let dir = directory("owner");
    let module = dir.join("module.so");
    std::fs::copy(MODULE, &module).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(&module, mode).unwrap();
    let refused = Token::log_in(TokenRef::new(&module, "any"), pin(PIN)).map(drop).unwrap_err();
    assert!(refused.to_string().contains("could change"), "{refused}");
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
#[ignore = "the other tests run it in a child with an environment of its own"]
fn scenario() {
    let dir = std::env::var("KMSFS_TEST_SOFTHSM").unwrap();
    let hsm = SoftHsm::at(Path::new(&dir));
    match std::env::var("KMSFS_TEST_SCENARIO").unwrap().as_str() {
        "wraps" => wraps(),
        "pins" => pins(),
        "gone_and_back" => gone_and_back(&hsm),
        "threads" => threads(),
        other => panic!("no scenario {other}"),
    }
}

fn wraps() {
    let token = open();
    assert!(!token.has_key(&KEY).unwrap());
    let made_on = token.make_key(&KEY, "a test").unwrap();
    assert_eq!(made_on, Token::find(&token_ref()).unwrap());
    assert!(made_on.is_some());
    assert!(token.has_key(&KEY).unwrap());
    let sealed = token.seal(&KEY, b"context", &[9; 32]).unwrap();
    assert_eq!(sealed.len(), 32 + OVERHEAD);
    assert_ne!(sealed, token.seal(&KEY, b"context", &[9; 32]).unwrap());
    assert_eq!(*token.open(&KEY, b"context", &sealed).unwrap(), vec![9; 32]);

    let wrong = |aad: &[u8], sealed: &[u8]| token.open(&KEY, aad, sealed).unwrap_err();
    assert_eq!(wrong(b"another", &sealed), TokenError::NotAuthentic);
    for at in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        assert_eq!(wrong(b"context", &changed), TokenError::NotAuthentic, "byte {at}");
    }
    for len in [0, NONCE_LEN, OVERHEAD - 1] {
        assert_eq!(wrong(b"context", &sealed[..len]), TokenError::NotAuthentic);
    }
    let (serial, other) = (made_on.as_ref(), Serial("another".to_owned()));
    token.destroy_key(&KEY, serial).unwrap();
    token.destroy_key(&KEY, serial).unwrap();
    token.destroy_key(&KEY, None).unwrap();
    let elsewhere = token.destroy_key(&KEY, Some(&other)).unwrap_err();
    assert!(matches!(elsewhere, TokenError::Another(..)), "{elsewhere}");
    let gone = token.open(&KEY, b"context", &sealed).unwrap_err();
    assert!(matches!(gone, TokenError::KeyMissing(_)), "{gone}");
}

fn pins() {
    let wrong = || Token::log_in(token_ref(), pin("0000")).map(drop).unwrap_err();
    assert!(matches!(wrong(), TokenError::WrongPin(_)));
    let token = open();
    token.make_key(&KEY, "a test").unwrap();
    assert!(matches!(wrong(), TokenError::WrongPin(_)));
    // The failed attempt has logged everybody out.
    token.seal(&KEY, b"", &[1; 32]).unwrap();
    let unknown = TokenRef::new(Path::new(MODULE), "no such token");
    let unknown = Token::log_in(unknown, pin(PIN)).map(drop).unwrap_err();
    assert!(matches!(unknown, TokenError::NotFound(_)));
    let library = TokenRef::new(Path::new("/bin/true"), "any");
    let library = Token::log_in(library, pin(PIN)).map(drop).unwrap_err();
    assert!(matches!(library, TokenError::Module { .. }), "{library}");
}

fn gone_and_back(hsm: &SoftHsm) {
    let token = open();
    token.make_key(&KEY, "a test").unwrap();
    let sealed = token.seal(&KEY, b"", &[9; 32]).unwrap();
    for _ in 0..2 {
        hsm.pull_out();
        let gone = token.open(&KEY, b"", &sealed).unwrap_err();
        assert!(gone.is_absence(), "{gone}");
        sleep(Duration::from_millis(1100));
        let gone = token.seal(&KEY, b"", &[9; 32]).unwrap_err();
        assert!(gone.is_absence(), "{gone}");
        assert!(token.probe(&KEY).is_err_and(|error| error.is_absence()));
        hsm.put_in();
        sleep(Duration::from_millis(1100));
        assert_eq!(*token.open(&KEY, b"", &sealed).unwrap(), vec![9; 32]);
        token.probe(&KEY).unwrap();
    }
}

fn threads() {
    let token = open();
    token.make_key(&KEY, "a test").unwrap();
    std::thread::scope(|scope| {
        for number in 0..12_u8 {
            let token = &token;
            scope.spawn(move || {
                for round in 0..20 {
                    let sealed = token.seal(&KEY, &[number], &[round; 32]).unwrap();
                    assert_eq!(*token.open(&KEY, &[number], &sealed).unwrap(), vec![round; 32]);
                }
            });
        }
    });
}

fn open() -> Token {
    Token::log_in(token_ref(), pin(PIN)).unwrap()
}

fn token_ref() -> TokenRef {
    TokenRef::new(Path::new(MODULE), "a token")
}

fn pin(text: &str) -> Pin {
    Pin::new(zeroize::Zeroizing::new(text.as_bytes().to_vec()))
}

fn directory(name: &str) -> std::path::PathBuf {
    let dir = std::env::temp_dir().join(format!("kmsfs-token-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

fn in_a_child(scenario: &str) {
    let dir = directory(scenario);
    let hsm = SoftHsm::new(&dir, "a token");
    let ran = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "keystore::token::tests::scenario"])
        .env("SOFTHSM2_CONF", hsm.conf())
        .env("KMSFS_TEST_SOFTHSM", &dir)
        .env("KMSFS_TEST_SCENARIO", scenario)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.status.success() && told.contains("1 passed"), "{told}");
    std::fs::remove_dir_all(dir).unwrap();
}

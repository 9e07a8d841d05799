//! How a server ends, and what a client makes of a new one.

use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::fs::FileTypeExt;
use std::time::{Duration, Instant};

use kmsfs::keystore::audit::AuditFilter;
use rustix::process::Signal;
use serde_json::json;

use crate::fixture::{Home, KEY, Kms, answer, exchange, request, unix};

#[test]
fn a_request_under_way_is_answered_and_an_idle_connection_ends() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut kms = Kms::start(&["--allow-unsigned"]);
        let mut idle = kms.connect();
        assert_eq!(exchange(&mut idle, &request("DescribeKey", &[], KEY)).status, 200);
        let mut busy = kms.connect();
        let text = request("DescribeKey", &[], KEY);
        let (early, late) = text.split_at(text.len() - 5);
        busy.write_all(early.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        kms.signal(signal);
        assert!(answer(&mut idle).is_none());
        assert!(!kms.has_ended());
        busy.write_all(late.as_bytes()).unwrap();
        let answered = answer(&mut busy).unwrap();
        assert_eq!(answered.status, 200);
        assert!(answered.head.contains("connection: close"), "{}", answered.head);
        assert_eq!(kms.wait(), 0);
    }
}

#[test]
fn a_second_signal_does_not_wait() {
    let mut kms = Kms::start(&["--allow-unsigned"]);
    let mut busy = kms.connect();
    busy.write_all(request("DescribeKey", &[], KEY).trim_end_matches('}').as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let began = Instant::now();
    kms.signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(100));
    kms.signal(Signal::TERM);
    assert_eq!(kms.wait(), 0);
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_client_finds_a_server_that_was_started_again() {
    let home = Home::new();
    let key = home.access_key(None);
    let mut kms = Kms::start_in(home, &[]);
    let endpoint = kms.endpoint("local", &key);
    let named = json!({ "KeyId": "alias/kmsfs/default" });
    let first = endpoint.call("DescribeKey", &named).unwrap();
    let address = kms.authority().to_owned();
    kms.signal(Signal::TERM);
    assert_eq!(kms.wait(), 0);
    let home = Home { dir: kms.home.dir.clone() };
    std::mem::forget(kms);
    let second = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| endpoint.call("DescribeKey", &named).unwrap());
        std::thread::sleep(Duration::from_millis(300));
        let kms = Kms::spawn(home, &["serve", "--listen", &address]);
        let second = waiting.join().unwrap();
        drop(kms);
        second
    });
    assert_eq!(first["KeyMetadata"]["KeyId"], second["KeyMetadata"]["KeyId"]);
}

#[test]
fn a_killed_server_leaves_a_socket_that_the_next_one_replaces() {
    let words = ["serve", "--listen", "unix:kms.sock", "--allow-unsigned"];
    let mut kms = Kms::spawn(Home::new(), &words);
    let path = kms.home.path("kms.sock");
    let (code, message) = kms.home.refused(&["--listen", "unix:kms.sock"]);
    assert_eq!(code, 1);
    assert!(message.contains("another server listens"), "{message}");
    kms.signal(Signal::KILL);
    let began = Instant::now();
    while !kms.has_ended() {
        assert!(began.elapsed() < Duration::from_secs(5));
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(std::fs::symlink_metadata(&path).unwrap().file_type().is_socket());
    let home = Home { dir: kms.home.dir.clone() };
    std::mem::forget(kms);
    let mut next = Kms::spawn(home, &words);
    let answer = exchange(&mut unix(&path), &request("DescribeKey", &[], KEY));
    assert_eq!(answer.status, 200);
    next.signal(Signal::TERM);
    assert_eq!(next.wait(), 0);
    assert!(!path.exists());
}

/// What was answered in the last moments before a signal was in no log, which was intact nevertheless.
#[test]
fn regression_what_was_answered_before_the_end_is_in_the_audit_log() {
    let mut kms = Kms::start(&["--allow-unsigned"]);
    std::thread::sleep(Duration::from_millis(300));
    for _ in 0..20 {
        assert_eq!(kms.call("DescribeKey", KEY).status, 200);
    }
    kms.signal(Signal::TERM);
    assert_eq!(kms.wait(), 0);
    let filter =
        AuditFilter { operation: Some("DescribeKey".to_owned()), ..AuditFilter::default() };
    let mut found = 0;
    let count = |_| {
        found += 1;
        ControlFlow::Continue(())
    };
    kms.home.keystore().audit_records(&filter, count).unwrap();
    assert_eq!(found, 20);
}

//! Metrics of a server, on loopback.

use std::net::{TcpListener, TcpStream};

use crate::fixture::{Home, KEY, Kms, exchange};

/// An address of loopback that was free a moment ago.
fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn read(address: &str, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer = exchange(&mut TcpStream::connect(address).unwrap(), &request);
    (answer.status, answer.body)
}

#[test]
fn operations_are_counted_for_each_keystore() {
    let home = Home::new();
    home.add_keystore("second.db");
    let address = free_address();
    let kms = Kms::start_in(
        home,
        &["--allow-unsigned", "--metrics", &address, "--replica", "eu-west-1=second.db"],
    );
    assert_eq!(kms.call("DescribeKey", KEY).status, 200);
    let counted = "kmsfs_operations_total{operation=\"DescribeKey\",result=\"Success\"} 1";
    let (status, text) = read(&address, "/metrics");
    assert_eq!(status, 200);
    assert!(text.contains(counted), "{text}");
    let (status, text) = read(&address, "/metrics/eu-west-1");
    assert_eq!(status, 200);
    assert!(!text.contains(counted), "{text}");
    assert_eq!(read(&address, "/metrics/nowhere").0, 404);
    assert_eq!(read(&address, "/").0, 404);
}

#[test]
fn others_cannot_reach_metrics() {
    let (code, message) =
        Home::new().refused(&["--listen", "127.0.0.1:0", "--metrics", "0.0.0.0:0"]);
    assert_eq!(code, 2);
    assert!(message.contains("metrics are served on loopback"), "{message}");
}

//! Clients that send too much, too slowly, or something else than HTTP.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::fixture::{KEY, Kms, answer, exchange, request};

#[test]
fn what_is_no_request_of_the_protocol_is_refused_with_an_id() {
    let kms = Kms::start(&["--allow-unsigned"]);
    for (head, status) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        ("POST /path HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 404),
        ("POST /?query HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 404),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 404),
    ] {
        let answer = exchange(&mut kms.connect(), head);
        assert_eq!((answer.status, answer.error().as_str()), (status, "UnknownOperationException"));
        assert!(answer.head.contains("x-amzn-requestid: "), "{}", answer.head);
    }
    let answer = kms.call("Frobnicate", "{}");
    assert_eq!((answer.status, answer.error().as_str()), (400, "UnknownOperationException"));
}

#[test]
fn every_answer_has_its_type_and_an_id_of_its_own() {
    let kms = Kms::start(&["--allow-unsigned"]);
    let mut stream = kms.connect();
    let mut ids = Vec::new();
    for _ in 0..2 {
        let answer = exchange(&mut stream, &request("DescribeKey", &[], KEY));
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert!(answer.head.contains("content-type: application/x-amz-json-1.1\r\n"));
        let id = answer.head.lines().find_map(|line| line.strip_prefix("x-amzn-requestid: "));
        ids.push(id.unwrap().to_owned());
    }
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn malformed_http_ends_the_connection_and_nothing_else() {
    let kms = Kms::start(&["--allow-unsigned"]);
    for garbage in [
        "\0\u{1}\u{2}\r\n\r\n",
        "POST\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "POST / HTTP/1.1\r\nHost: \u{7f}\r\nA b: c\r\n\r\n",
    ] {
        let mut stream = kms.connect();
        stream.write_all(garbage.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        let said = String::from_utf8_lossy(&said);
        let refused = said.is_empty() || said.starts_with("HTTP/1.1 4");
        assert!(refused, "{garbage:?}: {said}");
    }
    assert_eq!(kms.call("DescribeKey", KEY).status, 200);
}

#[test]
fn bodies_and_heads_have_a_largest_size() {
    let kms = Kms::start(&["--allow-unsigned"]);
    // Announced only: refused before it is sent.
    let announced = request("DescribeKey", &[], "").replace("Length: 0", "Length: 99999999999");
    let answer = exchange(&mut kms.connect(), &announced);
    assert_eq!((answer.status, answer.error().as_str()), (413, "RequestEntityTooLargeException"));

    // In chunks, whose sum nobody announces.
    let head =
        request("DescribeKey", &[], "").replace("Content-Length: 0", "Transfer-Encoding: chunked");
    let chunk = format!("2000\r\n{}\r\n", "x".repeat(0x2000));
    let answer = exchange(&mut kms.connect(), &(head + &chunk.repeat(17)));
    assert_eq!(answer.status, 413);

    let long = "x".repeat(20_000);
    let answer = exchange(&mut kms.connect(), &request("DescribeKey", &[("X-Long", &long)], KEY));
    assert_eq!(answer.status, 431);
    let many: Vec<(&str, &str)> = vec![("X-Many", "x"); 100];
    let answer = exchange(&mut kms.connect(), &request("DescribeKey", &many, KEY));
    assert_eq!(answer.status, 431);
    assert_eq!(kms.call("DescribeKey", KEY).status, 200);
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for() {
    let kms = Kms::start(&["--allow-unsigned"]);
    let mut slow = kms.connect();
    let began = Instant::now();
    slow.write_all(request("DescribeKey", &[], KEY).replace(KEY, "{").as_bytes()).unwrap();
    // Others are served meanwhile.
    assert_eq!(kms.call("DescribeKey", KEY).status, 200);
    assert_eq!(answer(&mut slow).unwrap().status, 408);
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[test]
fn three_hundred_clients_at_once_are_served() {
    let kms = Kms::start(&["--allow-unsigned"]);
    let mut streams: Vec<_> = (0..300).map(|_| kms.connect()).collect();
    for _ in 0..2 {
        for stream in &mut streams {
            stream.write_all(request("DescribeKey", &[], KEY).as_bytes()).unwrap();
        }
        for stream in &mut streams {
            assert_eq!(answer(stream).unwrap().status, 200);
        }
    }
}

#[test]
fn a_client_that_waits_makes_room_for_one_more() {
    let kms = Kms::start(&["--allow-unsigned", "--max-connections", "2"]);
    let mut first = kms.connect();
    let mut second = kms.connect();
    for stream in [&mut first, &mut second] {
        assert_eq!(exchange(stream, &request("DescribeKey", &[], KEY)).status, 200);
    }
    assert_eq!(kms.call("DescribeKey", KEY).status, 200);
    assert!(answer(&mut first).is_none(), "the one that waited longest was closed");
}

/// The attack: a thousand connections that never bring a whole request kept everybody else out.
#[test]
fn half_sent_requests_keep_nobody_out() {
    let kms = Kms::start(&["--allow-unsigned", "--max-connections", "64"]);
    let whole = request("DescribeKey", &[], KEY);
    let no_body = whole.trim_end_matches(KEY);
    for part in ["", "P", &whole[..60], no_body, &whole[..whole.len() - 1]] {
        let mut half_sent: Vec<_> = (0..150).map(|_| kms.connect()).collect();
        for stream in &mut half_sent {
            // Those that had to go already cannot be written to.
            let _ = stream.write_all(part.as_bytes());
        }
        for _ in 0..3 {
            assert_eq!(kms.call("DescribeKey", KEY).status, 200, "{part:?}");
        }
    }
}

#[test]
fn a_request_that_does_not_begin_or_stops_in_its_head_is_not_waited_for() {
    let kms = Kms::start(&["--allow-unsigned"]);
    let mut silent = kms.connect();
    let mut slow = kms.connect();
    slow.write_all(b"POST / HTTP/1.1\r\nHost:").unwrap();
    for stream in [&mut slow, &mut silent] {
        assert!(answer(stream).is_none(), "it is closed");
    }
}

/// The attack: 64 RSA-4096 key pairs at once took all places, and cheap requests were turned away.
#[test]
fn whoever_makes_many_rsa_keys_keeps_nobody_waiting() {
    let kms = Kms::start(&["--allow-unsigned"]);
    let pair = r#"{"KeyId":"alias/kmsfs/default","KeyPairSpec":"RSA_4096"}"#;
    let mut makers: Vec<_> = (0..64).map(|_| kms.connect()).collect();
    for stream in &mut makers {
        stream.write_all(request("GenerateDataKeyPair", &[], pair).as_bytes()).unwrap();
    }
    for _ in 0..10 {
        assert_eq!(kms.call("DescribeKey", KEY).status, 200);
        assert_eq!(kms.call("CreateKey", "{}").status, 200);
        let small = pair.replace("RSA_4096", "ECC_NIST_P256");
        assert_eq!(kms.call("GenerateDataKeyPair", &small).status, 200);
    }
    // They get their turns as well, one after the other.
    assert!(makers.iter_mut().any(|maker| answer(maker).unwrap().status == 200));
}

#[test]
fn one_client_too_many_is_told_so() {
    let kms = Kms::start(&["--allow-unsigned", "--max-connections", "8"]);
    let pair = r#"{"KeyId":"alias/kmsfs/default","KeyPairSpec":"RSA_4096"}"#;
    // Places are had only while their requests are not here yet: at last all are being answered.
    let mut working = Vec::new();
    let refused = (0..1000).find_map(|_| {
        let mut stream = kms.connect();
        let _ = stream.write_all(request("GenerateDataKeyPair", &[], pair).as_bytes());
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let refused = answer(&mut stream).filter(|answer| answer.status != 200);
        working.push(stream);
        refused
    });
    let refused = refused.unwrap();
    assert_eq!((refused.status, refused.error().as_str()), (503, "ServiceUnavailableException"));
}

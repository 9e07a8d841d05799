use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::thread::JoinHandle;

use serde_json::json;

use super::*;

const QUICK: Options =
    Options { attempt: Duration::from_millis(500), patience: Duration::from_secs(5) };

fn endpoint(address: &str) -> Endpoint {
    let credentials = Credentials::new("AKIDEXAMPLE", "secret", None);
    Endpoint::new(address.parse().unwrap(), Some("eu-west-1"), credentials, None, QUICK).unwrap()
}

/// Reads one request and returns its head and body; `None` at the end of the connection.
fn request(stream: &mut (impl Read + Unpin)) -> Option<(String, String)> {
    let mut reader = BufReader::with_capacity(1, stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
    let mut body = vec![0; length.parse().unwrap()];
    reader.read_exact(&mut body).ok()?;
    Some((head, String::from_utf8(body).unwrap()))
}

fn answer(stream: &mut impl Write, status: u16, body: &str) {
    let length = body.len();
    let id = "x-amzn-RequestId: the-id";
    let head = format!("HTTP/1.1 {status} Status\r\n{id}\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
}

/// A server that handles so many connections, one after the other.
fn server(
    connections: usize,
    handle: impl Fn(usize, &mut TcpStream) + Send + 'static,
) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        for number in 0..connections {
            handle(number, &mut listener.accept().unwrap().0);
        }
    });
    (address, thread)
}

#[test]
fn a_call_is_signed_and_its_connection_kept() {
    let (address, thread) = server(1, |_, stream| {
        for _ in 0..2 {
            let (head, body) = request(stream).unwrap();
            assert!(head.starts_with("POST / HTTP/1.1\r\n"), "{head}");
            assert!(head.contains("x-amz-target: TrentService.Encrypt\r\n"), "{head}");
            assert!(head.contains("/eu-west-1/kms/aws4_request, SignedHeaders="), "{head}");
            assert!(head.contains("content-type;host;x-amz-date;x-amz-target, "), "{head}");
            answer(stream, 200, &body);
        }
    });
    let endpoint = endpoint(&address);
    for _ in 0..2 {
        let echoed = endpoint.call("Encrypt", &json!({ "KeyId": "alias/x" })).unwrap();
        assert_eq!(echoed, json!({ "KeyId": "alias/x" }));
    }
    thread.join().unwrap();
}

#[test]
fn what_the_service_says_is_told_apart_from_what_the_network_does() {
    let (address, thread) = server(1, |_, stream| {
        request(stream).unwrap();
        answer(stream, 400, r#"{"__type":"a.b#DisabledException","message":"it is disabled."}"#);
        request(stream).unwrap();
        answer(stream, 404, "not here");
        request(stream).unwrap();
        answer(stream, 200, "not JSON");
    });
    let endpoint = endpoint(&address);
    let refused = endpoint.call("Decrypt", &json!({})).unwrap_err();
    assert_eq!(refused.aws_name(), Some("DisabledException"));
    assert_eq!(refused.to_string(), "Decrypt: DisabledException: it is disabled.");
    let EndpointError::Refused { status, request_id, .. } = refused else { unreachable!() };
    assert_eq!((status, request_id.as_deref()), (400, Some("the-id")));
    for _ in 0..2 {
        let wrong = endpoint.call("Decrypt", &json!({})).unwrap_err();
        assert!(matches!(wrong, EndpointError::Protocol { .. }), "{wrong}");
    }
    thread.join().unwrap();
}

#[test]
fn throttling_and_faults_are_tried_again_with_a_fresh_signature() {
    let (address, thread) = server(1, |_, stream| {
        request(stream).unwrap();
        answer(stream, 400, r#"{"__type":"ThrottlingException","message":"Rate exceeded"}"#);
        request(stream).unwrap();
        answer(stream, 500, r#"{"__type":"KMSInternalException"}"#);
        request(stream).unwrap();
        answer(stream, 503, "busy");
        request(stream).unwrap();
        answer(stream, 200, "{}");
    });
    assert_eq!(endpoint(&address).call("ListKeys", &json!({})).unwrap(), json!({}));
    thread.join().unwrap();
}

#[test]
fn a_server_that_restarts_is_found_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        request(&mut stream).unwrap();
        answer(&mut stream, 200, "{}");
        // The connection in the pool dies together with its server.
        drop((stream, listener));
        std::thread::sleep(Duration::from_millis(300));
        let listener = TcpListener::bind(place).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        request(&mut stream).unwrap();
        answer(&mut stream, 200, r#"{"new":true}"#);
    });
    let endpoint = endpoint(&format!("http://{place}"));
    endpoint.call("ListKeys", &json!({})).unwrap();
    assert_eq!(endpoint.call("ListKeys", &json!({})).unwrap(), json!({ "new": true }));
    thread.join().unwrap();
}

#[test]
fn patience_ends() {
    let options =
        Options { attempt: Duration::from_millis(100), patience: Duration::from_millis(300) };
    let credentials = || Credentials::new("AKIDEXAMPLE", "secret", None);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}", listener.local_addr().unwrap());
    for (address, part) in [(silent.as_str(), "no answer in time"), ("unix:/nowhere", "No such")] {
        let endpoint =
            Endpoint::new(address.parse().unwrap(), None, credentials(), None, options).unwrap();
        let began = Instant::now();
        let error = endpoint.call("ListKeys", &json!({})).unwrap_err();
        assert!(matches!(error, EndpointError::Unreachable { .. }), "{error}");
        assert!(error.to_string().contains(part), "{error}");
        assert!(began.elapsed() < Duration::from_secs(2));
    }
}

#[test]
fn a_unix_socket_is_an_endpoint_and_threads_share_it() {
    let path = std::env::temp_dir().join(format!("kmsfs-{}-client.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                while let Some((_, body)) = request(&mut stream) {
                    answer(&mut stream, 200, &body);
                }
            });
        }
    });
    let endpoint = endpoint(&format!("unix:{}", path.display()));
    std::thread::scope(|scope| {
        for number in 0..4 {
            let endpoint = &endpoint;
            scope.spawn(move || {
                for _ in 0..20 {
                    let echoed = endpoint.call("Encrypt", &json!({ "Number": number })).unwrap();
                    assert_eq!(echoed["Number"], number);
                }
            });
        }
    });
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_secret_is_taken_out_of_its_answer() {
    let mut answer = json!({ "Plaintext": "aGVsbG8=", "KeyId": 7 });
    assert_eq!(take_secret(&mut answer, "Plaintext").unwrap().as_slice(), b"hello");
    assert_eq!(answer, json!({ "Plaintext": null, "KeyId": 7 }));
    assert!(take_secret(&mut answer, "KeyId").is_none());
    assert!(take_secret(&mut answer, "Nothing").is_none());
}

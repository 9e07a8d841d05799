//! The daemon's end of the socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::net::Shutdown;
use serde_json::Value;

use super::protocol::{Event, Failure, Reply, Request};
use crate::process;

/// Carries a request out. Events are sent as they come; sending gives `false` when the command
/// has gone.
pub type Handler =
    dyn Fn(Request, &mut dyn FnMut(Event) -> bool) -> Result<Value, Failure> + Send + Sync;

/// A listening socket with its thread. Dropping it removes the socket.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    listener: Arc<UnixListener>,
    stop: Arc<AtomicBool>,
}

impl Server {
    /// Listens at `path` and serves each command in a thread of its own.
    ///
    /// The caller holds the vault's lock, so a socket that is already there is a dead one.
    pub fn start(path: &Path, handler: Arc<Handler>) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = Arc::new(UnixListener::bind(path)?);
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o600))?;
        let stop = Arc::new(AtomicBool::new(false));
        let server = Self {
            path: path.to_owned(),
            listener: Arc::clone(&listener),
            stop: Arc::clone(&stop),
        };
        std::thread::Builder::new()
            .name("control".into())
            .spawn(move || accept(&listener, &stop, &handler))?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the thread out of `accept`, which a confined daemon could not do by connecting.
        let _ = rustix::net::shutdown(&self.listener, Shutdown::Both);
        let _ = std::fs::remove_file(&self.path);
    }
}

fn accept(listener: &UnixListener, stop: &AtomicBool, handler: &Arc<Handler>) {
    let active = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let Ok(stream) = stream else {
            // Out of file descriptors, most likely: do not spin.
            std::thread::sleep(Duration::from_millis(100));
            continue;
        };
        if active.load(Ordering::Relaxed) >= MOST_CLIENTS || !is_allowed(&stream) {
            continue;
        }
        active.fetch_add(1, Ordering::Relaxed);
        let (handler, count) = (Arc::clone(handler), Arc::clone(&active));
        let spawned = std::thread::Builder::new().name("control-client".into()).spawn(move || {
            serve(&stream, &handler);
            count.fetch_sub(1, Ordering::Relaxed);
        });
        if spawned.is_err() {
            active.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The daemon's own user, or root.
fn is_allowed(stream: &UnixStream) -> bool {
    rustix::net::sockopt::socket_peercred(stream)
        .is_ok_and(|peer| peer.uid.is_root() || process::is_own_user(peer.uid.as_raw()))
}

fn serve(stream: &UnixStream, handler: &Arc<Handler>) {
    let _ = stream.set_read_timeout(Some(REQUEST_TIME));
    let mut line = String::new();
    if BufReader::new(stream).take(LONGEST_REQUEST).read_line(&mut line).is_err() {
        return;
    }
    let result = match serde_json::from_str(&line) {
        Ok(request) => {
            let confirm = matches!(request, Request::Rewrap { confirm: true, .. });
            let mut told = None;
            handler(request, &mut |event| {
                if is_too_often(&event, &mut told) {
                    return true;
                }
                let wait = confirm && matches!(event, Event::Changed(_));
                send(stream, &Reply::Event(event)).is_ok() && (!wait || is_confirmed(stream))
            })
        }
        Err(_) => Err(Failure {
            exit: 2,
            what: "the daemon does not know this request".into(),
            advice: Some("command and daemon are of different versions: mount again".into()),
        }),
    };
    let _ = send(stream, &result.map_or_else(Reply::Failed, Reply::Done));
}

/// True for news of how far the work is that nobody could read: the last came a moment ago, and some is
/// left to be told.
fn is_too_often(event: &Event, told: &mut Option<Instant>) -> bool {
    let Event::Progress { done, total } = event else { return false };
    if Some(*done) != *total && told.is_some_and(|told| told.elapsed() < NEWS_EVERY) {
        return true;
    }
    *told = Some(Instant::now());
    false
}

/// True once the command has done its part. One that has gone, or takes too long, stops the work.
fn is_confirmed(mut stream: &UnixStream) -> bool {
    stream.read_exact(&mut [0]).is_ok()
}

fn send(mut stream: &UnixStream, reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    stream.write_all(&line)
}

const MOST_CLIENTS: usize = 16;
const LONGEST_REQUEST: u64 = 256 << 10;
/// Of how far the work is; a command that was stopped is noticed within this time.
const NEWS_EVERY: Duration = Duration::from_millis(50);
const REQUEST_TIME: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::client::{Client, ClientError};
    use super::*;

    fn socket(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("kmsfs-{}-{name}.sock", std::process::id()))
    }

    fn client(path: &Path) -> Client {
        Client::to(UnixStream::connect(path).unwrap()).unwrap()
    }

    fn rewrap() -> Request {
        Request::Rewrap { key: None, to: None, list: true, take_in: false, confirm: true }
    }

    #[test]
    fn events_come_before_the_result() {
        let path = socket("events");
        let handler: Arc<Handler> = Arc::new(|request, send| {
            send(Event::Progress { done: 1, total: Some(2) });
            send(Event::Changed("a/b".into()));
            Ok(json!({ "asked": request == rewrap() }))
        });
        let _server = Server::start(&path, handler).unwrap();
        let mut seen = Vec::new();
        let result = client(&path).call(&rewrap(), |event| {
            seen.push(event);
            true
        });
        assert_eq!(result.unwrap(), json!({ "asked": true }));
        assert_eq!(seen.len(), 2);
    }

    #[test]
    fn news_of_progress_come_at_a_pace_that_somebody_can_read() {
        let path = socket("pace");
        let handler: Arc<Handler> = Arc::new(|_, send| {
            for done in 1..=100_000 {
                send(Event::Progress { done, total: Some(100_000) });
            }
            Ok(json!({}))
        });
        let _server = Server::start(&path, handler).unwrap();
        let mut seen = Vec::new();
        let result = client(&path).call(&rewrap(), |event| {
            seen.push(event);
            true
        });
        result.unwrap();
        assert_eq!(seen.first(), Some(&Event::Progress { done: 1, total: Some(100_000) }));
        assert_eq!(seen.last(), Some(&Event::Progress { done: 100_000, total: Some(100_000) }));
        assert!(seen.len() < 10_000, "{} of 100000", seen.len());
    }

    /// A file was changed before the command had written it down, or had said that it cannot.
    #[test]
    fn regression_a_file_is_not_changed_before_the_command_has_noted_it() {
        let path = socket("confirmed");
        let handler: Arc<Handler> = Arc::new(|_, send| {
            let sent = ["first", "second", "third"].map(|name| send(Event::Changed(name.into())));
            Ok(json!(sent))
        });
        let _server = Server::start(&path, handler).unwrap();
        let all = client(&path).call(&rewrap(), |_| true);
        assert_eq!(all.unwrap(), json!([true, true, true]));
        let mut left = 1;
        let stopped = client(&path).call(&rewrap(), |_| {
            left -= 1;
            left >= 0
        });
        assert!(matches!(stopped, Err(ClientError::Io(_))));
        assert_eq!(left, -1, "the third is not tried");
    }

    #[test]
    fn a_failure_arrives_whole() {
        let path = socket("failure");
        let failure = Failure { exit: 12, what: "no key".into(), advice: Some("make it".into()) };
        let sent = failure.clone();
        let _server = Server::start(&path, Arc::new(move |_, _| Err(sent.clone()))).unwrap();
        let result = client(&path).call(&Request::Sync, |_| true);
        assert!(matches!(result, Err(ClientError::Failed(got)) if got == failure));
    }

    #[test]
    fn nonsense_is_answered_and_the_socket_goes_with_the_server() {
        let path = socket("nonsense");
        let server = Server::start(&path, Arc::new(|_, _| Ok(Value::Null))).unwrap();
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(b"{]\n").unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        assert!(answer.contains("does not know"));
        drop(server);
        assert!(!path.exists());
    }
}

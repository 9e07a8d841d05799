//! Who answers on this machine, where no certificate says so.
//!
//! While a server is down, every user may take its port, or its socket's name in a directory that all
//! may write to, and would learn requests and give out data keys of one's own choice.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};

use super::way::Way;
use crate::process;

/// Checks who has accepted a loopback connection, which is sent nothing before: root, or the user of
/// this process. Waits until somebody has: before that, the kernel names root for whoever listens.
/// Errors: `PermissionDenied` for anybody else.
pub(super) async fn check_loopback(stream: &TcpStream) -> io::Result<()> {
    let (theirs, ours) = (stream.peer_addr()?, stream.local_addr()?);
    let (mut missed, mut pause) = (0, FIRST_PAUSE);
    loop {
        let look = tokio::task::spawn_blocking(move || acceptor(theirs, ours));
        match look.await.map_err(io::Error::other)?? {
            Found::Accepted(uid) if is_trusted(uid) => return Ok(()),
            Found::Accepted(uid) => {
                return Err(refused(format!(
                    "user {uid} answers there, and over plain HTTP only root and the own user are \
                     believed: let the server listen at a Unix socket, or by TLS"
                )));
            }
            Found::Waiting => {}
            Found::Nothing if missed < MISSES => missed += 1,
            Found::Nothing => {
                return Err(refused(format!(
                    "nobody on this machine answers at {theirs}, and over plain HTTP nobody else is \
                     believed"
                )));
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Connects to a Unix socket and checks who listens there, who is sent nothing before: root, the user of
/// this process, or somebody in whose place no other user could have put a socket there.
/// Errors: `PermissionDenied` for anybody else; those of connecting.
pub(super) async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    let way = Way::to(path)?;
    let stream = UnixStream::connect(way.end()).await?;
    let uid = stream.peer_cred()?.uid();
    if is_trusted(uid) {
        return Ok(stream);
    }
    match way.changeable_by_others(&[ROOT, own_user().unwrap_or(ROOT), uid]) {
        None => Ok(stream),
        Some(dir) => Err(refused(format!(
            "user {uid} listens there, and others too could have put the socket, or a symbolic link on \
             the way to it, into '{}': use a path through directories that only the server's user can \
             change",
            dir.display()
        ))),
    }
}

fn is_trusted(uid: u32) -> bool {
    uid == ROOT || process::is_own_user(uid)
}

/// The user of this process, if its number is nobody else's.
fn own_user() -> Option<u32> {
    Some(rustix::process::geteuid().as_raw()).filter(|own| process::is_own_user(*own))
}

fn refused(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

/// What the kernel knows of the other end of a connection.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// This user has it.
    Accepted(u32),
    /// Nobody has taken it yet.
    Waiting,
    /// It is not of this network namespace, or gone.
    Nothing,
}

/// The other end of the connection from `ours` to `theirs`. A server that listens for IPv6 may have an
/// IPv4 connection under an IPv6 address.
fn acceptor(theirs: SocketAddr, ours: SocketAddr) -> io::Result<Found> {
    let mut found = Found::Nothing;
    let tables = [
        ("/proc/net/tcp", v4(theirs).zip(v4(ours))),
        ("/proc/net/tcp6", Some((v6(theirs), v6(ours)))),
    ];
    for (table, ends) in tables {
        let Some((local, remote)) = ends else { continue };
        match fs::read_to_string(table) {
            Ok(text) => found = entry(&text, &local, &remote),
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound && table.ends_with('6') => {}
            Err(error) => {
                let why = format!("{table} does not say who answers: {error}");
                return Err(io::Error::new(error.kind(), why));
            }
        }
        if found != Found::Nothing {
            break;
        }
    }
    Ok(found)
}

/// The line of a table whose two ends are these. Source: Linux, Documentation/networking/proc_net_tcp.
fn entry(table: &str, local: &str, remote: &str) -> Found {
    let mut found = Found::Nothing;
    for line in table.lines().filter(|line| line.contains(remote)) {
        let mut fields = line.split_ascii_whitespace().skip(1);
        if fields.next() != Some(local) || fields.next() != Some(remote) {
            continue;
        }
        let uid = fields.nth(4).and_then(|uid| uid.parse().ok());
        let inode = fields.nth(1).and_then(|inode| inode.parse::<u64>().ok());
        found = match (uid, inode) {
            (Some(uid), Some(inode)) if inode != 0 => return Found::Accepted(uid),
            _ => Found::Waiting,
        };
    }
    found
}

fn v4(address: SocketAddr) -> Option<String> {
    let IpAddr::V4(ip) = address.ip() else { return None };
    Some(format!("{}:{:04X}", word(ip.octets()), address.port()))
}

fn v6(address: SocketAddr) -> String {
    let octets = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    let (words, _) = octets.as_chunks();
    let words: String = words.iter().map(|octets| word(*octets)).collect();
    format!("{words}:{:04X}", address.port())
}

/// Four bytes of an address, as the kernel prints them: a number of the machine's own order.
fn word(octets: [u8; 4]) -> String {
    let number = match cfg!(target_endian = "little") {
        true => u32::from_le_bytes(octets),
        false => u32::from_be_bytes(octets),
    };
    format!("{number:08X}")
}

const ROOT: u32 = 0;
/// A server accepts at once, or is busy: the tables of a large machine take their time.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// How often a connection is looked for that is not in the tables: they change while they are read.
const MISSES: u32 = 8;

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_user_at_the_other_end_is_known_once_the_connection_is_accepted() {
        let own = rustix::process::geteuid().as_raw();
        for (listen, connect) in
            [("127.0.0.1:0", "127.0.0.1"), ("[::]:0", "127.0.0.1"), ("[::1]:0", "::1")]
        {
            let Ok(listener) = TcpListener::bind(listen) else { continue };
            let port = listener.local_addr().unwrap().port();
            let client = TcpStream::connect((connect, port)).unwrap();
            let (theirs, ours) = (client.peer_addr().unwrap(), client.local_addr().unwrap());
            assert_eq!(acceptor(theirs, ours).unwrap(), Found::Waiting, "{listen}");
            let accepted = listener.accept().unwrap();
            assert_eq!(acceptor(theirs, ours).unwrap(), Found::Accepted(own), "{listen}");
            // The own end is another line.
            assert_eq!(acceptor(ours, theirs).unwrap(), Found::Accepted(own), "{listen}");
            drop((accepted, client, listener));
        }
        let nobody = "127.0.0.1:1".parse().unwrap();
        assert_eq!(acceptor(nobody, nobody).unwrap(), Found::Nothing);
    }

    #[test]
    fn a_line_of_the_table_is_read() {
        let (local, remote) = ("0100007F:B967", "0100007F:ECA6");
        let line = |inode: &str| {
            format!(
                "  sl  local_address rem_address   st\n   3: {local} {remote} 01 00000000:00000000 \
                 00:00000000 00000000 65534        0 {inode} 1 000000002c69245c 20 0 0 10 -1\n"
            )
        };
        assert_eq!(entry(&line("625507"), local, remote), Found::Accepted(65534));
        assert_eq!(entry(&line("0"), local, remote), Found::Waiting);
        assert_eq!(entry(&line("625507"), remote, local), Found::Nothing);
        assert_eq!(entry(&format!("3: {local} {remote}"), local, remote), Found::Waiting);
    }
}

//! Who is at the other end of a connection.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::keystore::{Caller, Principal, Source};
use crate::{process, sys};

/// The other end of a connection, as the kernel knows it.
#[derive(Debug)]
pub(in crate::server) enum Peer {
    /// A process of this machine, on a Unix socket.
    Unix(UnixPeer),
    /// A TCP client, in the clear or by TLS.
    Tcp { address: SocketAddr, encrypted: bool },
}

/// A process that connected to a Unix socket, as it was then.
#[derive(Debug)]
pub(in crate::server) struct UnixPeer {
    pub(in crate::server) uid: u32,
    groups: Vec<u32>,
    /// May be another's by now, unless `handle` says that the process is still there.
    pid: u32,
    /// `None` on kernels that have none.
    handle: Option<OwnedFd>,
    known: OnceLock<bool>,
}

impl Peer {
    /// The user and groups of the process that connected to a Unix socket, as they were then.
    pub(in crate::server) fn of_unix(socket: impl AsFd) -> std::io::Result<Self> {
        let peer = sys::peer_credentials(socket.as_fd())?;
        let mut groups = vec![peer.gid];
        let others = sys::peer_groups(socket.as_fd())?;
        groups.extend(others.into_iter().filter(|group| *group != peer.gid));
        let (handle, known) = match sys::peer_process(socket.as_fd()) {
            Ok(handle) => (Some(handle), OnceLock::new()),
            Err(rustix::io::Errno::NOPROTOOPT) => (None, OnceLock::new()),
            // It is gone.
            Err(_) => (None, OnceLock::from(false)),
        };
        Ok(Self::Unix(UnixPeer { uid: peer.uid, groups, pid: peer.pid, handle, known }))
    }

    /// True if nobody on the network sees what crosses the connection.
    pub(in crate::server) fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { address, .. } => address.ip().to_canonical().is_loopback(),
        }
    }

    /// The caller of a request that is not signed: whoever the kernel says it is. The server's own
    /// user stands for the account, and so does everybody on loopback, where the kernel does not
    /// say who it is.
    pub(in crate::server) fn unsigned(&self) -> Caller {
        match self {
            Self::Unix(peer) if process::is_own_user(peer.uid) => self.caller(Principal::Root),
            Self::Unix(peer) => {
                let groups = peer.groups.clone();
                Caller { groups, ..self.caller(Principal::Unix { uid: peer.uid }) }
            }
            Self::Tcp { .. } => self.caller(Principal::Root),
        }
    }

    /// A caller who proved to be `principal`.
    pub(in crate::server) fn caller(&self, principal: Principal) -> Caller {
        match self {
            Self::Unix(_) => Caller::new(principal, Source::Socket),
            Self::Tcp { address, encrypted } => {
                let source_ip = Some(address.ip().to_canonical());
                let secure_transport = *encrypted;
                Caller { source_ip, secure_transport, ..Caller::new(principal, Source::Network) }
            }
        }
    }
}

impl UnixPeer {
    /// True if the ids of the process are all that there is to know about who it is: it is still
    /// there, with the same ones, and in the user namespace of this process. One look per connection:
    /// whoever has left that namespace does not come back.
    pub(in crate::server) fn is_known(&self) -> bool {
        *self.known.get_or_init(|| {
            let Some(groups) = process::groups_of(self.pid, self.uid) else { return false };
            // Without a handle it may be another process, but then one that has the same right.
            let now: BTreeSet<u32> =
                groups.into_iter().chain(self.groups.first().copied()).collect();
            now.iter().eq(&self.groups.iter().copied().collect::<BTreeSet<u32>>())
                && self.handle.as_ref().is_none_or(|handle| !has_ended(handle))
        })
    }
}

/// Looked at last: a process that is there now was there all the time.
fn has_ended(handle: &OwnedFd) -> bool {
    let mut ends = [PollFd::new(handle, PollFlags::IN)];
    poll(&mut ends, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) != Ok(0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::process::Command;

    use super::*;

    #[test]
    fn the_kernel_says_who_we_are() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = unix(&one);
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        assert_eq!(peer.groups.first(), Some(&rustix::process::getegid().as_raw()));
        assert!(peer.is_known());
    }

    /// The groups were read from /proc, where a process that has ended has none: a denial of one of
    /// its groups could be evaded.
    #[test]
    fn regression_groups_are_known_after_the_peer_has_ended() {
        let path = std::env::temp_dir().join(format!("kmsfs-peer-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let connect = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])";
        let python = ["setpriv", "--groups", "4242,4243", "python3", "-c", connect];
        let ended = Command::new(python[0]).args(&python[1..]).arg(&path).status();
        let accepted = listener.accept();
        std::fs::remove_file(&path).unwrap();
        assert!(ended.unwrap().success());
        let peer = unix(accepted.unwrap().0);
        assert_eq!(peer.groups[1..], [4242, 4243]);
        assert!(!peer.is_known());
    }

    /// The number of a process that has ended belongs to another one sooner or later, which must not
    /// speak for it.
    #[test]
    fn a_process_with_other_groups_or_of_another_user_speaks_for_nobody() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = || UnixPeer { handle: None, ..unix(&one) };
        assert!(peer().is_known());
        assert!(!UnixPeer { uid: 12345, ..peer() }.is_known());
        let groups = [peer().groups, vec![4242]].concat();
        assert!(!UnixPeer { groups, ..peer() }.is_known());
        assert!(!UnixPeer { pid: 0, ..peer() }.is_known());
    }

    fn unix(socket: impl AsFd) -> UnixPeer {
        match Peer::of_unix(socket).unwrap() {
            Peer::Unix(peer) => peer,
            Peer::Tcp { .. } => unreachable!(),
        }
    }

    #[test]
    fn an_unsigned_request_is_the_users_own() {
        let (one, _other) = UnixStream::pair().unwrap();
        let other = unix(&one).uid + 1;
        let peer = UnixPeer { uid: other, groups: vec![1000, 27], ..unix(&one) };
        let peer = Peer::Unix(peer);
        let caller = peer.unsigned();
        assert_eq!(caller.principal, Principal::Unix { uid: other });
        assert_eq!((caller.groups, caller.source), (vec![1000, 27], Source::Socket));
        assert_eq!(Peer::of_unix(&one).unwrap().unsigned().principal, Principal::Root);
        let tcp = |address: &str| Peer::Tcp { address: address.parse().unwrap(), encrypted: true };
        let loopback = tcp("[::ffff:127.0.0.1]:5");
        assert!(loopback.is_local());
        assert_eq!(loopback.unsigned().principal, Principal::Root);
        let remote = tcp("192.0.2.1:5");
        assert!(!remote.is_local());
        assert!(remote.caller(Principal::Root).secure_transport);
    }
}

//! Who is at the other end of a connection.

use std::net::SocketAddr;
use std::os::fd::AsFd;

use crate::keystore::{Caller, Principal, Source};
use crate::sys;

/// The other end of a connection, as the kernel knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server) enum Peer {
    /// A process of this machine, on a Unix socket.
    Unix { uid: u32, groups: Vec<u32> },
    /// A TCP client, in the clear or by TLS.
    Tcp { address: SocketAddr, encrypted: bool },
}

impl Peer {
    /// The user and groups of the process that connected to a Unix socket, as they were then.
    pub(in crate::server) fn of_unix(socket: impl AsFd) -> std::io::Result<Self> {
        let peer = rustix::net::sockopt::socket_peercred(&socket)?;
        let (uid, gid) = (peer.uid.as_raw(), peer.gid.as_raw());
        let mut groups = vec![gid];
        let others = sys::peer_groups(socket.as_fd())?;
        groups.extend(others.into_iter().filter(|group| *group != gid));
        Ok(Self::Unix { uid, groups })
    }

    /// True if nobody on the network sees what crosses the connection.
    pub(in crate::server) fn is_local(&self) -> bool {
        match self {
            Self::Unix { .. } => true,
            Self::Tcp { address, .. } => address.ip().to_canonical().is_loopback(),
        }
    }

    /// The caller of a request that is not signed: whoever the kernel says it is. The server's own
    /// user stands for the account, and so does everybody on loopback, where the kernel does not
    /// say who it is.
    pub(in crate::server) fn unsigned(&self, own_uid: u32) -> Caller {
        match self {
            Self::Unix { uid, .. } if *uid == own_uid => self.caller(Principal::Root),
            Self::Unix { uid, groups } => {
                Caller { groups: groups.clone(), ..self.caller(Principal::Unix { uid: *uid }) }
            }
            Self::Tcp { .. } => self.caller(Principal::Root),
        }
    }

    /// A caller who proved to be `principal`.
    pub(in crate::server) fn caller(&self, principal: Principal) -> Caller {
        match self {
            Self::Unix { .. } => Caller::new(principal, Source::Socket),
            Self::Tcp { address, encrypted } => {
                let source_ip = Some(address.ip().to_canonical());
                let secure_transport = *encrypted;
                Caller { source_ip, secure_transport, ..Caller::new(principal, Source::Network) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::process::Command;

    use super::*;

    #[test]
    fn the_kernel_says_who_we_are() {
        let (one, _other) = UnixStream::pair().unwrap();
        let Peer::Unix { uid, groups } = Peer::of_unix(&one).unwrap() else { unreachable!() };
        assert_eq!(uid, rustix::process::geteuid().as_raw());
        assert_eq!(groups.first(), Some(&rustix::process::getegid().as_raw()));
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
        let Peer::Unix { groups, .. } = Peer::of_unix(accepted.unwrap().0).unwrap() else {
            unreachable!()
        };
        assert_eq!(groups[1..], [4242, 4243]);
    }

    #[test]
    fn an_unsigned_request_is_the_users_own() {
        let peer = Peer::Unix { uid: 1000, groups: vec![1000, 27] };
        let caller = peer.unsigned(0);
        assert_eq!(caller.principal, Principal::Unix { uid: 1000 });
        assert_eq!((caller.groups, caller.source), (vec![1000, 27], Source::Socket));
        assert_eq!(peer.unsigned(1000).principal, Principal::Root);
        let tcp = |address: &str| Peer::Tcp { address: address.parse().unwrap(), encrypted: true };
        let loopback = tcp("[::ffff:127.0.0.1]:5");
        assert!(loopback.is_local());
        assert_eq!(loopback.unsigned(0).principal, Principal::Root);
        let remote = tcp("192.0.2.1:5");
        assert!(!remote.is_local());
        assert!(remote.caller(Principal::Root).secure_transport);
    }
}

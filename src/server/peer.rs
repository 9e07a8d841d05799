//! Who is at the other end of a connection.

use std::net::SocketAddr;
use std::os::fd::AsFd;

use crate::keystore::{Caller, Principal, Source};

/// The other end of a connection, as the kernel knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Peer {
    /// A process of this machine, on a Unix socket.
    Unix { uid: u32, groups: Vec<u32> },
    /// A TCP client, in the clear or by TLS.
    Tcp { address: SocketAddr, encrypted: bool },
}

impl Peer {
    /// The process that connected to a Unix socket, with its groups of that moment.
    ///
    /// The kernel tells user, primary group and process; the other groups are those of that
    /// process as long as it still is the same user's.
    pub(super) fn of_unix(socket: impl AsFd) -> std::io::Result<Self> {
        let peer = rustix::net::sockopt::socket_peercred(socket)?;
        let (uid, gid) = (peer.uid.as_raw(), peer.gid.as_raw());
        let status = format!("/proc/{}/status", peer.pid.as_raw_nonzero());
        let status = std::fs::read_to_string(status).unwrap_or_default();
        let mut groups = vec![gid];
        groups.extend(groups_of(&status, uid).into_iter().filter(|group| *group != gid));
        Ok(Self::Unix { uid, groups })
    }

    /// True if nobody on the network sees what crosses the connection.
    pub(super) fn is_local(&self) -> bool {
        match self {
            Self::Unix { .. } => true,
            Self::Tcp { address, .. } => address.ip().to_canonical().is_loopback(),
        }
    }

    /// The caller of a request that is not signed: whoever the kernel says it is. The server's own
    /// user stands for the account, and so does everybody on loopback, where the kernel does not
    /// say who it is.
    pub(super) fn unsigned(&self, own_uid: u32) -> Caller {
        match self {
            Self::Unix { uid, .. } if *uid == own_uid => self.caller(Principal::Root),
            Self::Unix { uid, groups } => {
                Caller { groups: groups.clone(), ..self.caller(Principal::Unix { uid: *uid }) }
            }
            Self::Tcp { .. } => self.caller(Principal::Root),
        }
    }

    /// A caller who proved to be `principal`.
    pub(super) fn caller(&self, principal: Principal) -> Caller {
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

/// The supplementary groups in a process's status, if it is still a process of `uid`.
fn groups_of(status: &str, uid: u32) -> Vec<u32> {
    let numbers = |name: &str| -> Vec<u32> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().filter_map(|number| number.parse().ok()).collect()
    };
    let owners = numbers("Uid:");
    if owners.is_empty() || owners.iter().any(|owner| *owner != uid) {
        return Vec::new();
    }
    numbers("Groups:")
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_kernel_says_who_we_are() {
        let (one, _other) = UnixStream::pair().unwrap();
        let Peer::Unix { uid, groups } = Peer::of_unix(&one).unwrap() else { unreachable!() };
        assert_eq!(uid, rustix::process::geteuid().as_raw());
        assert_eq!(groups.first(), Some(&rustix::process::getegid().as_raw()));
    }

    #[test]
    fn groups_of_a_process_that_became_another_users_are_not_taken() {
        let status = "Name:\tx\nUid:\t1000\t1000\t1000\t1000\nGroups:\t27 100 \n";
        assert_eq!(groups_of(status, 1000), [27, 100]);
        assert!(groups_of(status, 1001).is_empty());
        assert!(groups_of(&status.replacen("1000", "0", 1), 1000).is_empty());
        assert!(groups_of("", 0).is_empty());
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

//! Who asks the keystore, by which way, and what they bring along.

use std::fmt;
use std::net::IpAddr;
use std::time::SystemTime;

/// On whose behalf an operation is done. Everything that a decision about it may depend on.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The identity that policies and grants name.
    pub principal: Principal,
    /// The Unix groups of a [`Principal::Unix`], the primary one too.
    pub groups: Vec<u32>,
    /// Nobody can say who the process of a [`Principal::Unix`] is, and some rule depends on it: refused.
    pub unknown: bool,
    /// The way the request came.
    pub source: Source,
    /// The service that asks for the principal. Becomes the condition key `kms:ViaService` in
    /// `access/request.rs`.
    pub via: Option<ViaService>,
    /// The time of the request; `None` for the clock's.
    pub at: Option<SystemTime>,
    /// The network address of a client.
    pub source_ip: Option<IpAddr>,
    /// A network connection is encrypted: the condition key `aws:SecureTransport`.
    pub secure_transport: bool,
    /// Tokens of grants that may not have been seen everywhere yet.
    pub grant_tokens: Vec<String>,
    /// Only ask whether it would succeed.
    pub dry_run: bool,
    /// The id that the answer, and the audit log, carry.
    pub request_id: Option<String>,
    /// May make ciphertexts for volumes, whose encryption contexts are reserved.
    pub volume_context: bool,
}

/// An identity.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Principal {
    /// Whoever unlocked the keystore: holds its root key, so that policies do not bind them.
    Owner,
    /// A volume, for what it needs itself: directories, headers. Policies do not bind it.
    Service,
    /// The root of the account: bound by key policies, which name it by default.
    Root,
    /// A user of this machine.
    Unix {
        /// The user id.
        uid: u32,
    },
    /// A named user, who proved to hold an access key.
    User(String),
}

/// The way a request came. Serialised in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The command line.
    Cli,
    /// A mounted volume.
    Mount,
    /// A Unix socket.
    Socket,
    /// A network connection.
    Network,
}

/// A service that asks on behalf of a principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ViaService {
    /// The filesystem.
    Kmsfs,
}

impl Caller {
    /// Somebody who holds the keystore's secret, at the command line.
    pub fn owner() -> Self {
        Self::new(Principal::Owner, Source::Cli)
    }

    /// A volume, for what it needs itself.
    pub fn service() -> Self {
        let volume_context = true;
        Self { volume_context, ..Self::new(Principal::Service, Source::Mount) }
    }

    /// A user of this machine, who uses a mounted volume.
    pub fn on_mount(uid: u32, groups: Vec<u32>) -> Self {
        Self {
            groups,
            via: Some(ViaService::Kmsfs),
            volume_context: true,
            ..Self::new(Principal::Unix { uid }, Source::Mount)
        }
    }

    /// A principal without anything else.
    pub fn new(principal: Principal, source: Source) -> Self {
        Self {
            principal,
            groups: Vec::new(),
            unknown: false,
            source,
            via: None,
            at: None,
            source_ip: None,
            secure_transport: false,
            grant_tokens: Vec::new(),
            dry_run: false,
            request_id: None,
            volume_context: false,
        }
    }

    /// The time that decisions about the request depend on.
    pub fn time(&self) -> SystemTime {
        self.at.unwrap_or_else(SystemTime::now)
    }
}

impl Principal {
    /// The ARN of the user, or of the account for its root.
    pub fn arn(&self) -> String {
        match self {
            Self::Owner | Self::Service | Self::Root => format!("{ACCOUNT_ARN}root"),
            Self::Unix { uid } => format!("{ACCOUNT_ARN}user/unix/{uid}"),
            Self::User(name) => format!("{ACCOUNT_ARN}user/{name}"),
        }
    }

    /// True if policies and grants decide what the principal may do.
    pub fn is_bound(&self) -> bool {
        !matches!(self, Self::Owner | Self::Service)
    }
}

/// The ARN of a group of this machine.
pub fn group_arn(gid: u32) -> String {
    format!("{ACCOUNT_ARN}group/unix/{gid}")
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.arn())
    }
}

impl Source {
    /// True if the request came from another process, which may act for another machine.
    pub(in crate::keystore) const fn is_remote(self) -> bool {
        match self {
            Self::Cli | Self::Mount => false,
            Self::Socket | Self::Network => true,
        }
    }

    /// The name in the audit log and in conditions.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cli => "cli",
            Self::Mount => "mount",
            Self::Socket => "socket",
            Self::Network => "network",
        }
    }
}

impl ViaService {
    /// The value of `kms:ViaService`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kmsfs => "kmsfs",
        }
    }
}

/// Why a process that nobody knows is refused.
pub const UNKNOWN_PROCESS: &str = "because policies or grants tell users of this machine apart, and \
                                   nobody can say who the process is: it has ended, or is in \
                                   another user namespace or pid namespace";

/// The one account.
pub const ACCOUNT: &str = "000000000000";

/// The ARN of the account, and of its root.
pub const ROOT_ARN: &str = "arn:aws:iam::000000000000:root";

const ACCOUNT_ARN: &str = "arn:aws:iam::000000000000:";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_principal_has_an_arn() {
        for (principal, arn) in [
            (Principal::Owner, "arn:aws:iam::000000000000:root"),
            (Principal::Root, "arn:aws:iam::000000000000:root"),
            (Principal::Unix { uid: 1000 }, "arn:aws:iam::000000000000:user/unix/1000"),
            (Principal::User("ci".into()), "arn:aws:iam::000000000000:user/ci"),
        ] {
            assert_eq!(principal.arn(), arn);
        }
        assert_eq!(group_arn(27), "arn:aws:iam::000000000000:group/unix/27");
        assert!(ACCOUNT_ARN.contains(ACCOUNT));
    }
}

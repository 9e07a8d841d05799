//! Everything that a mount daemon opens, connects to or changes after its start: the one list of it.
//!
//! What is not here fails in a confined daemon. Files that are open already need no place here, and
//! neither do Unix sockets that it sends to (`/dev/log`, systemd's) or connects to (a KMS behind `unix:`).

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::calls::Sockets;
use super::plan::Plan;
use crate::cli::env::trust;
use crate::control::RuntimeDir;
use crate::endpoint::Address;

/// What may be done at a path, and below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Use {
    /// Everything but running programs: entries of every type come and go, but block devices.
    Tree,
    /// Block devices as well.
    TreeWithDevices,
    /// Files and sockets come and go.
    Files,
    /// Reading and listing.
    Read,
    /// Reading, writing and `ioctl` of a device that is there.
    Device,
}

/// The ports that a process may connect to over TCP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) enum Ports {
    /// These, none if empty.
    Only(Vec<u16>),
    /// Nobody knows which.
    Any,
}

/// Makes the directory in which volumes are remembered that no keystore can remember: a confined
/// daemon could not. Where that fails, the daemon says what it means for the mount.
pub(in crate::cli) fn prepare() {
    let Some(dir) = trust::options().anchors else { return };
    if let Err(error) = DirBuilder::new().recursive(true).mode(0o700).create(&dir) {
        log::debug!("{}: {error}", dir.display());
    }
}

/// What a daemon reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Reach {
    /// Paths; those that are missing are passed over.
    pub paths: Vec<(PathBuf, Use)>,
    /// Connections.
    pub ports: Ports,
    /// Device nodes are made: whoever makes one of any device can open that. Whiteouts are none.
    pub devices: bool,
    /// The keys come through a socket of Unix.
    pub unix_endpoint: bool,
}

/// Who answers for the keys: it decides about most of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Keys<'a> {
    /// The keystore, without tokens.
    Keystore,
    /// The keystore, and PKCS #11 modules of others, which open what they like.
    Tokens,
    /// An endpoint.
    Endpoint(&'a Address),
}

impl Reach {
    /// The list for this mount.
    pub(in crate::cli) fn of(plan: &Plan, keys: Keys<'_>, runtime: Option<&RuntimeDir>) -> Self {
        let devices = plan.options.dev == Some(true);
        let mut reach = Self {
            paths: always(),
            ports: Ports::Only(Vec::new()),
            devices,
            unix_endpoint: matches!(keys, Keys::Endpoint(address) if address.port().is_none()),
        };
        reach.add(&plan.vault, if devices { Use::TreeWithDevices } else { Use::Tree });
        if let Some(dir) = trust::options().anchors {
            reach.add(&dir, Use::Files);
        }
        if let Some(dir) = runtime {
            reach.add(dir.path(), Use::Files);
        }
        match keys {
            Keys::Keystore => reach.keystore(&plan.keystore),
            Keys::Tokens => {
                reach.keystore(&plan.keystore);
                reach.add(Path::new("/"), Use::Read);
                plan.options.token_paths.iter().for_each(|path| reach.add(path, Use::Tree));
                reach.ports = Ports::Any;
            }
            Keys::Endpoint(address) => reach.endpoint(plan, address),
        }
        reach
    }

    /// The sockets that this takes.
    pub(in crate::cli) fn sockets(&self) -> Sockets {
        match &self.ports {
            Ports::Only(ports) if ports.is_empty() && !self.unix_endpoint => Sockets::Logs,
            Ports::Only(ports) if ports.is_empty() => Sockets::Unix,
            Ports::Only(_) => Sockets::Internet,
            Ports::Any => Sockets::Any,
        }
    }

    fn add(&mut self, path: &Path, how: Use) {
        self.paths.push((path.to_owned(), how));
    }

    /// SQLite makes and removes files beside the keystore, and the audit log lies there.
    fn keystore(&mut self, path: &Path) {
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if let Some(dir) = real.parent() {
            self.add(dir, Use::Files);
        }
    }

    fn endpoint(&mut self, plan: &Plan, address: &Address) {
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let given = [plan.kms.credentials.clone(), plan.kms.ca.clone(), credentials];
        given.into_iter().flatten().for_each(|path| self.add(&path, Use::Read));
        let Some(port) = address.port() else { return };
        self.ports = Ports::Only(vec![port]);
        if address.is_local() {
            return;
        }
        self.ports = Ports::Only(vec![port, DNS]);
        RESOLVING.iter().for_each(|path| self.add(Path::new(path), Use::Read));
        let chosen = ["SSL_CERT_FILE", "SSL_CERT_DIR"].map(std::env::var_os);
        for path in chosen.into_iter().flatten() {
            std::env::split_paths(&path).for_each(|path| self.add(&path, Use::Read));
        }
    }
}

fn always() -> Vec<(PathBuf, Use)> {
    ALWAYS.iter().map(|(path, how)| (PathBuf::from(path), *how)).collect()
}

const ALWAYS: &[(&str, Use)] = &[
    // Threads of their own read from descriptors of their own.
    ("/dev/fuse", Use::Device),
    ("/dev/null", Use::Device),
    ("/dev/urandom", Use::Read),
    // Groups and capabilities of who asks (`/proc/PID/status`), mounts, own descriptors. The kernel
    // keeps what others' entries lead to behind the same rules.
    ("/proc", Use::Read),
    // Which users are other users' own. The file that takes its place later is not seen.
    ("/etc/subuid", Use::Read),
    // How many processors this process may use.
    ("/sys/fs/cgroup", Use::Read),
    ("/sys/devices/system/cpu", Use::Read),
];

/// Names of hosts and certificates of authorities. All of /etc, because `resolv.conf` and others
/// there are replaced, which a rule for the file would not survive.
const RESOLVING: &[&str] = &[
    "/etc",
    "/usr/lib",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
    "/lib",
    "/lib64",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager",
    "/run/connman",
    "/run/nscd",
];
const DNS: u16 = 53;

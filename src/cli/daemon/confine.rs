//! What a mount daemon takes from itself once it is up: files, networks and processes that it does
//! not need, capabilities, and the way to more privileges.
//!
//! A request of the kernel or a byte in the vault that deceives the daemon then reaches the vault and
//! the keystore, and nothing else. Unmounting, and starting programs, is left to the keeper.
//!
//! System calls that no daemon needs are refused: see [`calls`].

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath,
    PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::calls::{self, Sockets};
use super::reach::{Ports, Reach, Use};
use crate::{process, sys};

/// Before Linux 5.19 every rename from one directory to another was refused.
const LEAST: ABI = ABI::V2;
/// The newest that this program was tried with.
const NEWEST: ABI = ABI::V7;

/// What holds of a confined process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Confined {
    /// Files: `None` if they are confined as far as is known today, else what is missing.
    files: Option<String>,
    /// Privileges likewise.
    privileges: Option<String>,
    /// System calls likewise.
    calls: Option<String>,
    /// What [`restrict_sockets`] leaves of sockets.
    pub(in crate::cli) sockets: Sockets,
}

/// Confines this thread and those that it starts from now on. What cannot be had is logged and left
/// out: a kernel without Landlock is no reason not to mount.
pub(in crate::cli) fn confine(reach: &Reach) -> Confined {
    process::learn_subordinates();
    if sys::threads() > 1 {
        log::warn!("a library has started threads already, which are not confined");
    }
    let kept = if reach.devices { DAEMON } else { DAEMON.difference(CapabilitySet::MKNOD) };
    let privileges = bound_privileges(kept).err().map(|error| error.to_string());
    let files = match bound_files(reach) {
        Ok(RulesetStatus::FullyEnforced) => None,
        Ok(RulesetStatus::PartiallyEnforced) => Some("this kernel knows not all of it".to_owned()),
        Ok(RulesetStatus::NotEnforced) => Some("this kernel has no Landlock".to_owned()),
        Err(error) => Some(error.to_string()),
    };
    // Last: it refuses nothing that the others need, and covers what they are made of.
    let sockets = reach.sockets();
    let calls = calls::give_up(sockets).err().map(|error| error.to_string());
    let confined = Confined { files, privileges, calls, sockets };
    log::info!("confined: {confined}");
    confined
}

impl std::fmt::Display for Confined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let part = |what: &str, missing: &Option<String>| match missing {
            None => what.to_owned(),
            Some(why) => format!("{what} not fully ({why})"),
        };
        let (files, privileges) =
            (part("files", &self.files), part("privileges", &self.privileges));
        write!(f, "{files}, {privileges}, {}", part("system calls", &self.calls))
    }
}

/// Opens no further socket to the outside than keys and logs take, now that the control socket is there.
pub(in crate::cli) fn restrict_sockets(sockets: Sockets) {
    if let Err(error) = calls::restrict_sockets(sockets) {
        log::warn!("confined: a daemon that is taken over could talk to other programs: {error}");
    }
}

/// True if this kernel can keep a daemon to its files.
pub(in crate::cli) fn is_possible() -> bool {
    base().and_then(Ruleset::create).is_ok()
}

/// No further capabilities than `kept`, now and after running a program, and no way to get more.
pub(in crate::cli) fn bound_privileges(kept: CapabilitySet) -> rustix::io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    let sets = rustix::thread::capabilities(None)?;
    if sets.permitted.is_empty() {
        return Ok(());
    }
    if sets.effective.contains(CapabilitySet::SETPCAP) {
        for capability in CapabilitySet::all().difference(kept).iter() {
            // One that this kernel does not know is not there.
            let _ = rustix::thread::remove_capability_from_bounding_set(capability);
        }
    }
    let (permitted, effective) = (sets.permitted & kept, sets.effective & kept);
    let inheritable = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, CapabilitySets { permitted, effective, inheritable })
}

fn bound_files(reach: &Reach) -> Result<RulesetStatus, RulesetError> {
    let Ok(ruleset) = base() else { return Ok(RulesetStatus::NotEnforced) };
    let ruleset = ruleset.set_compatibility(CompatLevel::BestEffort);
    let mut ruleset = ruleset.handle_access(AccessFs::from_all(NEWEST))?;
    // A socket of systemd that has no path is outside of it.
    let abstract_socket = std::env::var_os("NOTIFY_SOCKET")
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"@"));
    ruleset = ruleset.scope(Scope::Signal)?;
    if !abstract_socket {
        ruleset = ruleset.scope(Scope::AbstractUnixSocket)?;
    }
    ruleset = ruleset.handle_access(AccessNet::BindTcp)?;
    if let Ports::Only(_) = reach.ports {
        ruleset = ruleset.handle_access(AccessNet::ConnectTcp)?;
    }
    let mut ruleset = ruleset.create()?;
    for (path, how) in &reach.paths {
        // What is missing now, the daemon does without.
        let Ok(fd) = PathFd::new(path) else { continue };
        ruleset = ruleset.add_rule(PathBeneath::new(fd, rights(*how, path.is_dir())))?;
    }
    if let Ports::Only(ports) = &reach.ports {
        for port in ports {
            ruleset = ruleset.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
        }
    }
    Ok(ruleset.restrict_self()?.ruleset)
}

/// The part without which there is none at all.
fn base() -> Result<Ruleset, RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(LEAST))
}

fn rights(how: Use, is_dir: bool) -> BitFlags<AccessFs> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = AccessFs::WriteFile | AccessFs::Truncate;
    let wanted = match how {
        Use::Tree => {
            let never = AccessFs::Execute | AccessFs::IoctlDev | AccessFs::MakeBlock;
            AccessFs::from_all(NEWEST) & !never
        }
        Use::TreeWithDevices => {
            AccessFs::from_all(NEWEST) & !(AccessFs::Execute | AccessFs::IoctlDev)
        }
        Use::Files => {
            let entries = AccessFs::MakeReg | AccessFs::MakeSock | AccessFs::RemoveFile;
            read | write | entries
        }
        Use::Read => read,
        Use::Device => AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev,
    };
    if is_dir { wanted } else { wanted & AccessFs::from_file(NEWEST) }
}

/// What a daemon of root needs of root: to act on files as their owners would (a mount with
/// `allow_other`), `trusted.*` attributes, immutable files, locked memory; with `-o dev`, to make device nodes.
pub(in crate::cli) const DAEMON: CapabilitySet = CapabilitySet::SYS_ADMIN
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::LEASE)
    .union(CapabilitySet::LINUX_IMMUTABLE)
    .union(CapabilitySet::IPC_LOCK);

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// Only the thread that confines itself is confined, and what it does ends with it.
    fn in_a_confined_thread(reach: &Reach, work: impl FnOnce() + Send) {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                rustix::thread::set_no_new_privs(true).unwrap();
                assert_eq!(bound_files(reach).unwrap(), RulesetStatus::FullyEnforced);
                work();
            });
        });
    }

    #[test]
    fn a_confined_thread_reaches_what_is_on_its_list_and_nothing_else() {
        let dir = std::env::temp_dir().join(format!("kmsfs-confine-{}", std::process::id()));
        for name in ["vault/d", "store", "outside"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        let denied = |done: std::io::Result<()>| {
            assert_eq!(done.unwrap_err().kind(), ErrorKind::PermissionDenied);
        };
        let paths = vec![
            (dir.join("vault"), Use::Tree),
            (dir.join("store"), Use::Files),
            (dir.join("missing"), Use::Tree),
            ("/proc".into(), Use::Read),
            ("/dev/null".into(), Use::Device),
        ];
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let reach =
            Reach { paths, ports: Ports::Only(Vec::new()), devices: false, unix_endpoint: false };
        in_a_confined_thread(&reach, || {
            fs::write(dir.join("vault/d/file"), "x").unwrap();
            fs::rename(dir.join("vault/d/file"), dir.join("vault/moved")).unwrap();
            fs::hard_link(dir.join("vault/moved"), dir.join("vault/d/again")).unwrap();
            fs::write(dir.join("store/file"), "x").unwrap();
            assert!(fs::read_to_string("/proc/self/status").is_ok());
            assert!(File::options().write(true).open("/dev/null").is_ok());
            denied(fs::read("/etc/passwd").map(drop));
            denied(fs::write(dir.join("outside/file"), "x"));
            denied(fs::create_dir(dir.join("store/dir")));
            denied(fs::rename(dir.join("vault/moved"), dir.join("outside/moved")));
            denied(fs::read_dir(&dir).map(drop));
            denied(std::process::Command::new("/bin/true").status().map(drop));
            denied(TcpStream::connect(address).map(drop));
            denied(TcpListener::bind("127.0.0.1:0").map(drop));
            let mounted = rustix::mount::unmount("/", rustix::mount::UnmountFlags::DETACH);
            assert_eq!(mounted, Err(rustix::io::Errno::PERM));
        });
        in_a_confined_thread(&Reach { ports: Ports::Only(vec![address.port()]), ..reach }, || {
            assert!(TcpStream::connect(address).is_ok());
        });
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn the_unit_for_systemd_and_a_daemon_by_hand_have_the_same_capabilities() {
        let unit = include_str!("../../../systemd/kmsfs@.service");
        let line = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
        let named = line.unwrap().split(' ').map(|name| {
            CapabilitySet::from_name(name.strip_prefix("CAP_").unwrap()).expect("a capability")
        });
        assert_eq!(named.fold(CapabilitySet::empty(), CapabilitySet::union), DAEMON);
    }

    #[test]
    fn a_rule_for_a_file_has_no_rights_of_directories() {
        assert!(!rights(Use::Read, false).contains(AccessFs::ReadDir));
        assert!(rights(Use::Tree, true).contains(AccessFs::Refer));
        assert!(!rights(Use::Tree, true).contains(AccessFs::Execute));
        assert!(!rights(Use::Tree, true).contains(AccessFs::MakeBlock));
        assert!(rights(Use::TreeWithDevices, true).contains(AccessFs::MakeBlock));
    }
}

//! System calls that a mount daemon gives up: those that no part of it ever makes, and that would
//! help whoever has taken it over.
//!
//! A list of what is refused, not of what is allowed: PKCS #11 modules, the resolver and the C
//! library make calls that no list of ours would know, and one that breaks them one day would be
//! switched off. So this is no sandbox by itself. It closes what Landlock and the bounded capabilities
//! leave open: running memory as a program, mounting, entering and making namespaces, opening files by
//! number, looking into other processes, keys of the kernel, and the parts of the kernel in which most
//! of its faults were found.

use libc::c_long;
use rustix::ioctl::opcode;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, apply_filter, apply_filter_all_threads,
};

/// The sockets that a daemon may make beside those of Unix. Landlock looks at the ports of plain TCP
/// only: what is not that, and ways to begin and accept connections past it, end here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Sockets {
    /// No others; from [`restrict_sockets`] on only those that messages to a log or to systemd go through.
    Logs,
    /// No others.
    Unix,
    /// Plain TCP and UDP, and what looking for a host needs.
    Internet,
    /// Whatever a module of others wants.
    Any,
}

/// Refuses these calls from now on to this thread, and to those that it starts.
///
/// Errors: of a kernel without filters, or a processor that nobody knows here.
pub(in crate::cli) fn give_up(sockets: Sockets) -> Result<(), seccompiler::Error> {
    let missing = u32::try_from(libc::ENOSYS).unwrap_or(1);
    // Its flags are behind a pointer: the C library then makes threads by the older call.
    apply_filter(&filter([(libc::SYS_clone3, Vec::new())], missing)?)?;
    let whole = REFUSED.iter().map(|call| (*call, Vec::new()));
    let partly = partly(sockets)?;
    apply_filter(&filter(whole.chain(foreign()).chain(partly), refused())?)
}

/// Refuses to all threads what is needed until the control socket is there, and not after that.
///
/// A socket that listens without `bind` has a port that Landlock was not asked about. By a stream socket
/// of Unix, other programs of the same user run what they are told to (systemd, D-Bus, container engines).
///
/// Errors: as [`give_up`].
pub(in crate::cli) fn restrict_sockets(sockets: Sockets) -> Result<(), seccompiler::Error> {
    let mut calls = vec![(libc::SYS_listen, Vec::new())];
    if sockets == Sockets::Logs {
        calls.push((libc::SYS_socket, unix_connections()?));
    }
    apply_filter_all_threads(&filter(calls, refused())?)
}

/// Sockets of Unix that are not for single messages, which is how logs and systemd are told.
fn unix_connections() -> Result<Vec<SeccompRule>, BackendError> {
    let kinds = (0..=SOCK_TYPES).filter(|kind| *kind != libc::SOCK_DGRAM);
    kinds.map(|kind| rule([is(0, libc::AF_UNIX)?, is_under(1, SOCK_TYPES, kind)?])).collect()
}

fn refused() -> u32 {
    u32::try_from(libc::EPERM).unwrap_or(1)
}

/// True if this kernel can refuse calls.
pub(in crate::cli) fn is_possible() -> bool {
    std::path::Path::new("/proc/sys/kernel/seccomp/actions_avail").exists()
}

fn filter(
    calls: impl IntoIterator<Item = (c_long, Vec<SeccompRule>)>,
    errno: u32,
) -> Result<BpfProgram, BackendError> {
    let (rest, these) = (SeccompAction::Allow, SeccompAction::Errno(errno));
    let processor = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(calls.into_iter().collect(), rest, these, processor)?.try_into()
}

/// What is refused by what is asked of it.
fn partly(sockets: Sockets) -> Result<Vec<(c_long, Vec<SeccompRule>)>, BackendError> {
    let others = || Ok::<_, BackendError>(vec![rule([not(0, 0)?])?]);
    let fast_open = |flags| Ok::<_, BackendError>(vec![rule([has(flags, libc::MSG_FASTOPEN)?])?]);
    let mut calls = vec![
        (libc::SYS_clone, new_namespaces()?),
        // Limits and processors of another process: a limit of no time kills it.
        (libc::SYS_prlimit64, others()?),
        (libc::SYS_sched_setaffinity, others()?),
        (libc::SYS_sched_setattr, others()?),
        (libc::SYS_sched_setparam, others()?),
        (libc::SYS_sched_setscheduler, others()?),
        // A connection that begins with its first data.
        (libc::SYS_sendto, fast_open(3)?),
        (libc::SYS_sendmsg, fast_open(2)?),
        (libc::SYS_sendmmsg, fast_open(3)?),
        (libc::SYS_setsockopt, fast_open_options()?),
        (libc::SYS_ioctl, device_requests(sockets)?),
    ];
    match sockets {
        Sockets::Logs | Sockets::Unix => {
            calls.push((libc::SYS_socket, vec![rule([not(0, libc::AF_UNIX)?])?]));
        }
        Sockets::Internet => calls.push((libc::SYS_socket, unusual_sockets()?)),
        Sockets::Any => {}
    }
    Ok(calls)
}

/// Whatever a daemon never asks of a descriptor. Filesystems take requests that no rule for files sees:
/// with `CAP_SYS_ADMIN` they freeze, shrink, shut down, and show the contents of any file. A module of
/// others asks for what nobody knows, but for none of these.
fn device_requests(sockets: Sockets) -> Result<Vec<SeccompRule>, BackendError> {
    let others = REQUESTS.iter().map(|request| request_is(SeccompCmpOp::Ne, *request));
    let others = others.collect::<Result<Vec<_>, _>>()?;
    if sockets != Sockets::Any {
        return Ok(vec![SeccompRule::new(others)?]);
    }
    let of_kind = |kind: &u8| {
        let kind = u32::from(*kind) << 8;
        let is_kind = request_is(SeccompCmpOp::MaskedEq(0xff00), kind)?;
        SeccompRule::new([&[is_kind], &others[..]].concat())
    };
    let typed = [libc::TIOCSTI, libc::TIOCLINUX].map(|request| {
        let request = u32::try_from(request).unwrap_or(u32::MAX);
        rule([request_is(SeccompCmpOp::Eq, request)?])
    });
    FILESYSTEMS.iter().map(of_kind).chain(typed).collect()
}

fn request_is(how: SeccompCmpOp, request: u32) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(1, SeccompCmpArgLen::Dword, how, request.into())
}

fn fast_open_options() -> Result<Vec<SeccompRule>, BackendError> {
    let options = [libc::TCP_FASTOPEN, libc::TCP_FASTOPEN_CONNECT];
    let refused = |option| rule([is(1, libc::IPPROTO_TCP)?, is(2, option)?]);
    options.into_iter().map(refused).collect()
}

/// Whatever is neither plain TCP nor UDP: MPTCP, SCTP and others are connections that no rule sees.
fn unusual_sockets() -> Result<Vec<SeccompRule>, BackendError> {
    let usual = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    let families = usual.map(|family| not(0, family)).into_iter().collect::<Result<Vec<_>, _>>()?;
    let mut rules = vec![SeccompRule::new(families)?];
    for family in [libc::AF_INET, libc::AF_INET6] {
        let (tcp, udp) = (not(2, libc::IPPROTO_TCP)?, not(2, libc::IPPROTO_UDP)?);
        rules.push(rule([is(0, family)?, not(2, 0)?, tcp, udp])?);
        // Without a protocol the type means one.
        for kind in
            (0..=SOCK_TYPES).filter(|kind| ![libc::SOCK_STREAM, libc::SOCK_DGRAM].contains(kind))
        {
            rules.push(rule([is(0, family)?, is_under(1, SOCK_TYPES, kind)?])?);
        }
    }
    Ok(rules)
}

fn rule<const N: usize>(all: [SeccompCondition; N]) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(all.into())
}

fn is(argument: u8, value: i32) -> Result<SeccompCondition, BackendError> {
    condition(argument, SeccompCmpOp::Eq, value)
}

fn not(argument: u8, value: i32) -> Result<SeccompCondition, BackendError> {
    condition(argument, SeccompCmpOp::Ne, value)
}

fn has(argument: u8, flag: i32) -> Result<SeccompCondition, BackendError> {
    is_under(argument, flag, flag)
}

fn is_under(argument: u8, mask: i32, value: i32) -> Result<SeccompCondition, BackendError> {
    condition(argument, SeccompCmpOp::MaskedEq(mask.cast_unsigned().into()), value)
}

/// The kernel takes these arguments as 32 bits, whatever the others are.
fn condition(
    argument: u8,
    how: SeccompCmpOp,
    value: i32,
) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, how, value.cast_unsigned().into())
}

/// A process in namespaces of its own, which is what `clone` makes with any of these flags.
fn new_namespaces() -> Result<Vec<SeccompRule>, BackendError> {
    let flags = NAMESPACES.iter().map(|flag| {
        let flag = u64::from(flag.unsigned_abs());
        let has = SeccompCmpOp::MaskedEq(flag);
        SeccompRule::new(vec![SeccompCondition::new(0, SeccompCmpArgLen::Qword, has, flag)?])
    });
    flags.collect()
}

/// The same calls as a program of the x32 kind makes them, where the kernel knows that kind: under
/// numbers of their own, or those above with one bit more.
#[cfg(target_arch = "x86_64")]
fn foreign() -> impl Iterator<Item = (c_long, Vec<SeccompRule>)> {
    const X32: c_long = 0x4000_0000;
    let same = REFUSED.iter().chain(PARTLY).copied();
    same.chain(512..548).map(|call| (call | X32, Vec::new()))
}

#[cfg(not(target_arch = "x86_64"))]
fn foreign() -> impl Iterator<Item = (c_long, Vec<SeccompRule>)> {
    std::iter::empty()
}

/// What is refused to programs of another kind altogether, because it is refused in part.
#[cfg(target_arch = "x86_64")]
const PARTLY: &[c_long] = &[
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_ioctl,
    libc::SYS_prlimit64,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setattr,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setscheduler,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_setsockopt,
    libc::SYS_socket,
    libc::SYS_listen,
];

/// What a daemon asks of a descriptor: whether this is a terminal and how wide it is, how much there is to
/// read, flags of the descriptor and, for the vault's record, of the file; a further channel to the kernel.
#[allow(clippy::cast_possible_truncation, reason = "the kernel takes a request as 32 bits")]
const REQUESTS: &[u32] = &[
    libc::TCGETS as u32,
    libc::TIOCGWINSZ as u32,
    libc::FIONREAD as u32,
    libc::FIONBIO as u32,
    libc::FIOCLEX as u32,
    libc::FIONCLEX as u32,
    opcode::read::<c_long>(b'f', 1) as u32,
    opcode::write::<c_long>(b'f', 2) as u32,
    opcode::read::<u32>(229, 0) as u32,
];

/// The kinds of requests that filesystems know: btrfs, XFS and those of all filesystems, ext4 and f2fs,
/// bcachefs, ceph, OCFS2, FAT.
const FILESYSTEMS: &[u8] = &[0x94, b'X', b'f', 0xf5, 0xbc, 0x97, b'o', b'r'];

/// The bits of a socket's type that are no flags.
const SOCK_TYPES: i32 = 0xf;

/// What is refused whatever is asked of it.
const REFUSED: &[c_long] = &[
    // Programs, also from memory.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Mounts and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_open_tree,
    OPEN_TREE_ATTR,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    // Files by number, behind every directory and every rule of Landlock.
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_quotactl,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_inotify_init,
    libc::SYS_quotactl_fd,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_process_mrelease,
    libc::SYS_setpriority,
    libc::SYS_ioprio_set,
    // Keys of the kernel.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // Large parts of the kernel.
    libc::SYS_bpf,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    // The machine itself.
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// Linux 6.15; every processor has the same number for it.
const OPEN_TREE_ATTR: c_long = 467;

const NAMESPACES: &[i32] = &[
    libc::CLONE_NEWNS,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use rustix::io::Errno;
    use rustix::net::{
        AddressFamily, Protocol, RawProtocol, SendFlags, SocketType, ipproto, send, socket,
    };
    use rustix::process::{Pid, Resource, getpid, prlimit};

    use super::*;
    use crate::sys::call_with_zeros;

    fn after_giving_up(sockets: Sockets, work: impl FnOnce() + Send) {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                give_up(sockets).unwrap();
                work();
            });
        });
    }

    fn protocol(number: u32) -> Option<Protocol> {
        RawProtocol::new(number).map(Protocol::from_raw)
    }

    /// MPTCP, fast open and sockets that listen without a name were no TCP for Landlock.
    #[test]
    fn regression_a_daemon_without_a_kms_makes_no_socket_of_the_internet() {
        after_giving_up(Sockets::Unix, || {
            for family in [AddressFamily::INET, AddressFamily::INET6, AddressFamily::NETLINK] {
                for kind in [SocketType::STREAM, SocketType::DGRAM, SocketType::RAW] {
                    for number in [0, 6, 17, 262] {
                        let made = socket(family, kind, protocol(number)).map(drop);
                        assert_eq!(made, Err(Errno::PERM), "{family:?} {kind:?} {number}");
                    }
                }
            }
            assert!(socket(AddressFamily::UNIX, SocketType::STREAM, None).is_ok());
            assert!(std::os::unix::net::UnixDatagram::unbound().is_ok());
        });
    }

    /// systemd of the same user, told so by its socket, ran a program for a daemon that was taken over.
    #[test]
    fn regression_a_confined_daemon_tells_logs_and_talks_to_nobody() {
        // What holds for all threads ends with the process.
        let alone = "calls::tests::regression_a_confined_daemon_tells_logs_and_talks_to_nobody";
        if std::env::var_os("KMSFS_TEST_ALONE").is_none() {
            let tests = std::env::current_exe().unwrap();
            let mut again = std::process::Command::new(tests);
            again.env("KMSFS_TEST_ALONE", "1").args(["--exact", "--test-threads=1"]);
            let ended = again.arg(format!("cli::daemon::{alone}")).output().unwrap();
            let said = String::from_utf8_lossy(&ended.stdout);
            assert!(ended.status.success() && said.contains("1 passed"), "{said}");
            return;
        }
        let unix = |kind| socket(AddressFamily::UNIX, kind, None).map(drop);
        restrict_sockets(Sockets::Unix).unwrap();
        unix(SocketType::STREAM).unwrap();
        restrict_sockets(Sockets::Logs).unwrap();
        for kind in [SocketType::STREAM, SocketType::SEQPACKET, SocketType::RAW] {
            assert_eq!(unix(kind), Err(Errno::PERM), "{kind:?}");
        }
        unix(SocketType::DGRAM).unwrap();
        std::os::unix::net::UnixStream::pair().unwrap();
    }

    /// With a request a daemon of root read files of btrfs that Landlock kept from it.
    #[test]
    fn regression_nothing_is_asked_of_a_filesystem_that_no_daemon_asks() {
        let dir = std::fs::File::open("/").unwrap();
        let freeze = 0xC004_5877;
        for sockets in [Sockets::Logs, Sockets::Unix, Sockets::Internet, Sockets::Any] {
            after_giving_up(sockets, || {
                for request in [freeze, 0xD000_9411, 0x8004_587D, 0x4008_6610, 0x5412, 0x541C] {
                    let asked = crate::sys::ioctl_with_zero(&dir, request);
                    assert_eq!(asked, Err(Errno::PERM), "{sockets:?} {request:x}");
                }
                assert!(rustix::fs::ioctl_getflags(&dir).is_ok());
                assert!(!std::io::IsTerminal::is_terminal(&dir));
                let listener = TcpListener::bind("127.0.0.1:0");
                if let Ok(listener) = listener {
                    listener.set_nonblocking(true).unwrap();
                }
            });
        }
    }

    #[test]
    fn regression_a_daemon_with_a_kms_makes_connections_of_plain_tcp_only() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        after_giving_up(Sockets::Internet, || {
            for family in [AddressFamily::INET, AddressFamily::INET6] {
                let refused = |kind, number| {
                    let made = socket(family, kind, protocol(number)).map(drop);
                    assert_eq!(made, Err(Errno::PERM), "{family:?} {kind:?} {number}");
                };
                [262, 132, 33, 136, 1]
                    .iter()
                    .for_each(|number| refused(SocketType::STREAM, *number));
                refused(SocketType::SEQPACKET, 0);
                refused(SocketType::from_raw(6), 0);
                refused(SocketType::RAW, 255);
            }
            let vsock = AddressFamily::from_raw(40);
            assert_eq!(socket(vsock, SocketType::STREAM, None).map(drop), Err(Errno::PERM));
            let connected = TcpStream::connect(address).unwrap();
            send(&connected, b"x", SendFlags::empty()).unwrap();
            let fast = SendFlags::from_bits_retain(libc::MSG_FASTOPEN.cast_unsigned());
            assert_eq!(send(&connected, b"x", fast), Err(Errno::PERM));
            assert!(UdpSocket::bind("127.0.0.1:0").is_ok());
            assert!(socket(AddressFamily::INET, SocketType::STREAM, Some(ipproto::TCP)).is_ok());
            assert!(socket(AddressFamily::NETLINK, SocketType::RAW, None).is_ok());
        });
    }

    /// A limit of no processor time killed any process of the same user.
    #[test]
    fn regression_limits_of_other_processes_are_not_set() {
        let parent = rustix::process::getppid().unwrap_or(Pid::INIT);
        after_giving_up(Sockets::Any, || {
            let now = rustix::process::getrlimit(Resource::Nofile);
            for other in [parent, getpid()] {
                let set = prlimit(Some(other), Resource::Nofile, now).map(drop);
                assert_eq!(set, Err(Errno::PERM));
            }
            rustix::process::setrlimit(Resource::Nofile, now).unwrap();
        });
    }

    /// Only the thread that gives them up does, and what it does ends with it.
    #[test]
    fn a_thread_that_has_given_calls_up_makes_none_of_them_and_still_works() {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                give_up(Sockets::Any).unwrap();
                for call in REFUSED {
                    assert_eq!(call_with_zeros(*call), Err(Errno::PERM), "{call}");
                }
                assert_eq!(call_with_zeros(libc::SYS_clone3), Err(Errno::NOSYS));
                #[cfg(target_arch = "x86_64")]
                for (call, _) in foreign() {
                    assert_eq!(call_with_zeros(call), Err(Errno::PERM), "{call:x}");
                }
                let started = std::process::Command::new("/bin/true").status();
                assert_eq!(started.unwrap_err().raw_os_error(), Some(libc::EPERM));
                // Threads, files and sockets are what a daemon lives of.
                assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7);
                assert!(std::fs::read("/proc/self/status").is_ok());
                assert!(TcpListener::bind("127.0.0.1:0").is_ok());
            });
        });
        assert!(std::process::Command::new("/bin/true").status().unwrap().success());
    }

    #[test]
    fn a_process_in_namespaces_of_its_own_is_not_made() {
        for flag in NAMESPACES {
            let flag = *flag;
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    give_up(Sockets::Any).unwrap();
                    assert_eq!(crate::sys::clone_with(flag), Err(Errno::PERM), "{flag:x}");
                });
            });
        }
    }
}

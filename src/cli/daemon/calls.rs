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
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, apply_filter,
};

/// Refuses these calls from now on to this thread, and to those that it starts.
///
/// Errors: of a kernel without filters, or a processor that nobody knows here.
pub(in crate::cli) fn give_up() -> Result<(), seccompiler::Error> {
    let missing = u32::try_from(libc::ENOSYS).unwrap_or(1);
    let refused = u32::try_from(libc::EPERM).unwrap_or(1);
    // Its flags are behind a pointer: the C library then makes threads by the older call.
    apply_filter(&filter([(libc::SYS_clone3, Vec::new())], missing)?)?;
    let whole = REFUSED.iter().map(|call| (*call, Vec::new()));
    let namespaces = (libc::SYS_clone, new_namespaces()?);
    apply_filter(&filter(whole.chain(foreign()).chain([namespaces]), refused)?)
}

/// Can this kernel refuse calls?
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
    let same = REFUSED.iter().copied().chain([libc::SYS_clone, libc::SYS_clone3]);
    same.chain(512..548).map(|call| (call | X32, Vec::new()))
}

#[cfg(not(target_arch = "x86_64"))]
fn foreign() -> impl Iterator<Item = (c_long, Vec<SeccompRule>)> {
    std::iter::empty()
}

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
    libc::SYS_quotactl_fd,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
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
    use rustix::io::Errno;

    use super::*;
    use crate::sys::call_with_zeros;

    /// Only the thread that gives them up does, and what it does ends with it.
    #[test]
    fn a_thread_that_has_given_calls_up_makes_none_of_them_and_still_works() {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                give_up().unwrap();
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
                assert!(std::net::TcpListener::bind("127.0.0.1:0").is_ok());
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
                    give_up().unwrap();
                    assert_eq!(crate::sys::clone_with(flag), Err(Errno::PERM), "{flag:x}");
                });
            });
        }
    }
}

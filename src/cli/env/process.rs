//! What the process does to itself before it touches a secret.

use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::thread::CapabilitySet;

/// No core dumps and no debugger of the same user: memory holds keys.
///
/// Failure is no reason to stop; it is logged at debug.
pub(in crate::cli) fn harden() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = rustix::process::setrlimit(Resource::Core, none) {
        log::debug!("core dumps stay allowed: {error}");
    }
    if let Err(error) = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        log::debug!("the process stays dumpable: {error}");
    }
}

/// Keeps keys out of swap from now on: the pages in which secrets lie, as far as the limit of locked
/// memory lets it. For a process that may lock all its memory, [`lock_memory`] does more.
pub(in crate::cli) fn lock_secrets() {
    let limit = rustix::process::getrlimit(Resource::Memlock);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = rustix::process::setrlimit(Resource::Memlock, raised) {
        log::debug!("the limit of locked memory stays at {:?}: {error}", limit.current);
    }
    crate::crypto::room::lock_pages_with(crate::sys::lock_pages);
}

/// Keeps the memory of a daemon out of swap, where the system lets it.
///
/// Only with CAP_IPC_LOCK: under a limit, a later allocation would fail instead.
pub(in crate::cli) fn lock_memory() {
    let allowed = rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    if !allowed {
        log::debug!("not all memory is locked: CAP_IPC_LOCK is missing");
        return;
    }
    if let Err(error) = crate::sys::lock_all_memory() {
        log::debug!("not all memory is locked: {error}");
    }
}

/// Lets a daemon hold no more memory than it needs.
pub(in crate::cli) fn bound_heap() {
    crate::sys::map_large_allocations();
}

/// Raises the limit of open files to what the system allows.
pub(in crate::cli) fn raise_open_files() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, raised) {
        log::debug!("the limit of open files stays at {:?}: {error}", limit.current);
    }
}

/// Lets the modes of new files be those that the kernel asks for: it has applied the umask of the
/// caller already.
pub(in crate::cli) fn clear_umask() {
    rustix::process::umask(rustix::fs::Mode::empty());
}

/// True when this process runs with the rights of root.
pub(in crate::cli) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

//! Getting at files and directories of ours whose own mode keeps their owner out.
//!
//! A user may make a file that nobody, not even its owner, may write or read (every object of a git
//! repository is one). Root passes such modes; an ordinary user's process gives the owner access for
//! the moment of one system call and puts the mode back, also if the call fails. Everything goes
//! through one descriptor, so that the inode that gets the access is the one that gets its mode
//! back, whoever exchanges names meanwhile. The kernel has checked the user of a mount already, or
//! it is the owner's own command.
//!
//! What is lent is not shown: the mode and the change time that a mount tells are those from before.
//!
//! *Crash*: a process that is killed between the two changes leaves the owner's bits set (`rw-` for
//! a file, `rwx` for a directory), never those of anybody else; the owner could have set them.
//!
//! Modes belong to inodes, not to volumes, so there is one lender in a process.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, MutexGuard};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Stat, chmodat, fstat};
use rustix::io::Errno;
use rustix::process::{Gid, getegid, geteuid, getgroups};

use crate::volume::model::clock::ctime;

/// A mode that was changed and put back. Times are in nanoseconds since 1970.
#[derive(Debug, Clone, Copy)]
struct Loan {
    inode: (u64, u64),
    /// The inode's own mode, and the one that it had meanwhile.
    own: u32,
    lent: u32,
    /// The change times that setting the second and putting back the first gave the inode.
    at: i64,
    after: i64,
}

/// A change time that is not one of the user's: the inode, the time before, the one meanwhile, and
/// the time now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::volume) struct Overlooked {
    pub(in crate::volume) ino: u64,
    pub(in crate::volume) before: i64,
    pub(in crate::volume) at: i64,
    pub(in crate::volume) now: i64,
}

#[derive(Debug, Default)]
struct Loans {
    /// The latest: somebody may have read attributes meanwhile.
    recent: VecDeque<Loan>,
    overlooked: Vec<Overlooked>,
}

/// Held while a mode is changed.
static LOANS: Mutex<Loans> = Mutex::new(Loans { recent: VecDeque::new(), overlooked: Vec::new() });
/// True once anything was lent: before, no attributes need a second look.
static LENT: AtomicBool = AtomicBool::new(false);
/// True while there are overlooked times that nobody took.
static PENDING: AtomicBool = AtomicBool::new(false);
static REFUSED: AtomicBool = AtomicBool::new(false);

/// From now on this process lends nothing: it has a volume that it must not change.
pub(in crate::volume) fn refuse() {
    REFUSED.store(true, Ordering::Relaxed);
}

/// Runs one system call on the inode `of`, or in that directory; if its mode denies it to us as its
/// owner, once more with the owner's access. `action` must lend nothing itself.
///
/// # Errors
/// Those of `action`, `ACCESS` where nothing may be lent; those of putting the mode back.
pub(in crate::volume) fn with_access<T>(
    of: impl AsFd,
    mut action: impl FnMut() -> Result<T, Errno>,
) -> Result<T, Errno> {
    match action() {
        Err(Errno::ACCESS) if lends() => lend(&mut lock(), of.as_fd(), |_| action()),
        other => other,
    }
}

/// As [`with_access`] for a call that needs both directories, which may be the same one.
///
/// # Errors
/// As [`with_access`].
pub(in crate::volume) fn with_access_to_both<T>(
    one: impl AsFd,
    other: impl AsFd,
    mut action: impl FnMut() -> Result<T, Errno>,
) -> Result<T, Errno> {
    match action() {
        Err(Errno::ACCESS) if lends() => {}
        done => return done,
    }
    let (one, other, loans) = (one.as_fd(), other.as_fd(), &mut lock());
    match (may_be_lent(one), may_be_lent(other)) {
        (false, false) => Err(Errno::ACCESS),
        (true, false) => lend(loans, one, |_| action()),
        (false, true) => lend(loans, other, |_| action()),
        (true, true) => lend(loans, one, |loans| {
            // Not the same one, which has it now.
            if may_be_lent(other) { lend(loans, other, |_| action()) } else { action() }
        }),
    }
}

/// The mode and the change time of an inode as they are without a loan that was under way when its
/// attributes were read.
pub(in crate::volume) fn without_loan(stat: &Stat) -> (u32, i64) {
    let (mode, time) = (stat.st_mode, ctime(stat));
    if !LENT.load(Ordering::Acquire) {
        return (mode, time);
    }
    let inode = (stat.st_dev, stat.st_ino);
    let meanwhile = |loan: &&Loan| (loan.inode, loan.lent, loan.at) == (inode, mode & BITS, time);
    let found = lock().recent.iter().rev().find(meanwhile).copied();
    found.map_or((mode, time), |loan| ((mode & !BITS) | loan.own, loan.after))
}

/// Runs a change of an inode's mode while nothing is lent: what is put back must not undo it.
/// `change` must lend nothing itself.
pub(in crate::volume) fn change_mode<T>(found: &Stat, change: impl FnOnce() -> T) -> T {
    if !lends() {
        return change();
    }
    let mut loans = lock();
    let done = change();
    loans.recent.retain(|loan| loan.inode != (found.st_dev, found.st_ino));
    done
}

/// The change times that came from loans since the last call.
pub(in crate::volume) fn take_overlooked() -> Vec<Overlooked> {
    if !PENDING.swap(false, Ordering::AcqRel) {
        return Vec::new();
    }
    std::mem::take(&mut lock().overlooked)
}

fn lends() -> bool {
    !REFUSED.load(Ordering::Relaxed) && !geteuid().is_root()
}

fn lend<T>(
    loans: &mut Loans,
    of: BorrowedFd<'_>,
    action: impl FnOnce(&mut Loans) -> Result<T, Errno>,
) -> Result<T, Errno> {
    let before = fstat(of)?;
    let (own, bits) = (before.st_mode & BITS, owner_bits(&before));
    if !lacks_access(&before) {
        return Err(Errno::ACCESS);
    }
    // Also for descriptors that can do nothing else.
    let path = format!("/proc/self/fd/{}", of.as_raw_fd());
    let set = |mode| chmodat(CWD, &*path, Mode::from_raw_mode(mode), AtFlags::empty());
    LENT.store(true, Ordering::Release);
    set(own | bits).map_err(|_| Errno::ACCESS)?;
    let at = fstat(of).map_or(0, |stat| ctime(&stat));
    let done = action(loans);
    let untouched = fstat(of).is_ok_and(|stat| ctime(&stat) == at);
    if let Err(error) = set(own) {
        log::error!("inode {}: its mode {own:o} could not be put back: {error}", before.st_ino);
        return done.and(Err(error));
    }
    let after = fstat(of).map_or(0, |stat| ctime(&stat));
    let inode = (before.st_dev, before.st_ino);
    loans.recent.push_back(Loan { inode, own, lent: own | bits, at, after });
    if loans.recent.len() > REMEMBERED {
        loans.recent.pop_front();
    }
    if untouched {
        let (ino, before) = (before.st_ino, ctime(&before));
        loans.overlooked.push(Overlooked { ino, before, at, now: after });
        PENDING.store(true, Ordering::Release);
    }
    done
}

fn may_be_lent(of: BorrowedFd<'_>) -> bool {
    fstat(of).is_ok_and(|found| lacks_access(&found))
}

/// True for an inode of ours that its own mode keeps us out of, and whose mode can be put back.
fn lacks_access(found: &Stat) -> bool {
    let (own, bits) = (found.st_mode & BITS, owner_bits(found));
    found.st_uid == geteuid().as_raw() && own & bits != bits && !loses_setgid(found)
}

fn lock() -> MutexGuard<'static, Loans> {
    LOANS.lock()
}

/// What the owner of an inode needs; nothing for what is neither a file nor a directory.
fn owner_bits(stat: &Stat) -> u32 {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => 0o600,
        FileType::Directory => 0o700,
        _ => 0,
    }
}

/// The kernel takes setgid away when somebody changes a mode who is not in the group: it could not
/// be put back.
fn loses_setgid(stat: &Stat) -> bool {
    let group = Gid::from_raw(stat.st_gid);
    let member = || getegid() == group || getgroups().is_ok_and(|groups| groups.contains(&group));
    stat.st_mode & libc::S_ISGID != 0 && !member()
}

const BITS: u32 = 0o7777;
/// Loans that somebody may still have read the attributes of.
const REMEMBERED: usize = 1024;

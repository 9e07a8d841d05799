//! Rank 0: the system calls that no safe crate offers. The home of `unsafe`, but for one block in
//! `fuse::received`.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{Errno, Result};
use rustix::mm::MlockAllFlags;
use rustix::process::Pid;

/// Writes a range of a file out and waits for it, without forcing metadata.
///
/// *Units*: bytes.
///
/// # Errors
/// `EINVAL` past 2^63; those of `sync_file_range(2)`.
#[allow(unsafe_code, reason = "sync_file_range(2) has no safe wrapper")]
pub(crate) fn write_back(fd: BorrowedFd<'_>, offset: u64, length: u64) -> Result<()> {
    let (Ok(offset), Ok(length)) = (i64::try_from(offset), i64::try_from(length)) else {
        return Err(Errno::INVAL);
    };
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: the call takes no pointers, and `fd` is open for as long as it is borrowed.
    match unsafe { libc::sync_file_range(fd.as_raw_fd(), offset, length, flags) } {
        0 => Ok(()),
        _ => Err(last_error()),
    }
}

/// The process at the other end of a Unix socket, as it was when it connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PeerCredentials {
    /// 0 for one in a pid namespace that is not seen from here. The number may be another's by now.
    pub(crate) pid: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Who that process was.
///
/// # Errors
/// Those of `getsockopt(2)` with `SO_PEERCRED`.
pub(crate) fn peer_credentials(socket: BorrowedFd<'_>) -> Result<PeerCredentials> {
    let mut told = [libc::ucred { pid: 0, uid: 0, gid: 0 }];
    peer_option(socket, libc::SO_PEERCRED, &mut told).map_err(|(error, _)| error)?;
    let [libc::ucred { pid, uid, gid }] = told;
    Ok(PeerCredentials { pid: u32::try_from(pid).unwrap_or(0), uid, gid })
}

/// The same process by a descriptor, which stands for no other when the number is used again.
///
/// # Errors
/// `ENOPROTOOPT` before Linux 6.5; others if the process is gone.
#[allow(unsafe_code, reason = "a bare number has no safe owner")]
pub(crate) fn peer_process(socket: BorrowedFd<'_>) -> Result<OwnedFd> {
    let mut told: [RawFd; 1] = [-1];
    peer_option(socket, libc::SO_PEERPIDFD, &mut told).map_err(|(error, _)| error)?;
    let [number] = told;
    if number < 0 {
        return Err(Errno::SRCH);
    }
    // SAFETY: the kernel has just given this number to the descriptor, which nobody else knows of.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The supplementary groups that it had, whatever became of it since.
///
/// # Errors
/// Those of `getsockopt(2)` with `SO_PEERGROUPS` (Linux 4.13).
pub(crate) fn peer_groups(socket: BorrowedFd<'_>) -> Result<Vec<u32>> {
    let mut groups: Vec<libc::gid_t> = vec![0; USUAL_GROUPS];
    loop {
        match peer_option(socket, libc::SO_PEERGROUPS, &mut groups) {
            Ok(told) => {
                groups.truncate(told);
                return Ok(groups);
            }
            Err((Errno::RANGE, told)) if told > groups.len() => groups.resize(told, 0),
            Err((error, _)) => return Err(error),
        }
    }
}

/// Has the kernel say something about the peer of a socket. Returns how many items it had to say, also
/// beside an error.
#[allow(unsafe_code, reason = "these options have no safe wrapper")]
fn peer_option<T: Copy>(
    socket: BorrowedFd<'_>,
    option: libc::c_int,
    items: &mut [T],
) -> std::result::Result<usize, (Errno, usize)> {
    let mut length =
        libc::socklen_t::try_from(size_of_val(items)).map_err(|_| (Errno::RANGE, 0))?;
    // SAFETY: the kernel writes at most `length` bytes to `items`, which has that many and is of plain
    // numbers wherever this is called, and puts what it has to say into `length`; `socket` is open
    // while borrowed.
    let failed = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            items.as_mut_ptr().cast(),
            &raw mut length,
        )
    } != 0;
    let error = last_error();
    let told = usize::try_from(length).unwrap_or(0) / size_of::<T>();
    if failed { Err((error, told)) } else { Ok(told) }
}

/// A copy, closed on exec, of the file that this process has open under a number.
///
/// # Errors
/// `EBADF` if it has none; those of `fcntl(2)` with `F_DUPFD_CLOEXEC`.
#[allow(unsafe_code, reason = "a bare number has no safe owner")]
pub(crate) fn copy_of(number: RawFd) -> Result<OwnedFd> {
    // SAFETY: the call takes no pointers, and refuses numbers that stand for no open file.
    match unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) } {
        -1 => Err(last_error()),
        // SAFETY: the kernel has just given this number to the copy, which nobody else knows of.
        copy => Ok(unsafe { OwnedFd::from_raw_fd(copy) }),
    }
}

/// Lets a descriptor stand for the open file of another one, from one moment to the next, for whoever
/// uses it now as well.
///
/// # Errors
/// Those of `dup3(2)`.
#[allow(unsafe_code, reason = "the safe wrapper wants the descriptor for itself")]
pub(crate) fn stand_for(fd: BorrowedFd<'_>, other: impl AsFd) -> Result<()> {
    let other = other.as_fd().as_raw_fd();
    // SAFETY: the call takes no pointers. `fd` is open while it is borrowed, and stays so: its owner
    // goes on owning the number, which stands for an open file before and after.
    match unsafe { libc::dup3(other, fd.as_raw_fd(), libc::O_CLOEXEC) } {
        -1 => Err(last_error()),
        _ => Ok(()),
    }
}

/// A sum of the handle by which the filesystem finds this inode again, and no other that gets its number.
/// Handles of one number differ in four bytes, the generation, so their sums differ.
///
/// # Errors
/// `EOPNOTSUPP` if the filesystem has none; those of `name_to_handle_at(2)`.
#[allow(unsafe_code, reason = "name_to_handle_at(2) has no safe wrapper")]
pub(crate) fn handle_sum(fd: BorrowedFd<'_>) -> Result<u32> {
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        handle: [u8; ROOM as usize],
    }
    const ROOM: u32 = 128;
    let mut handle = Handle { bytes: ROOM, kind: 0, handle: [0; ROOM as usize] };
    let mut mount = 0;
    // SAFETY: `handle` is laid out as the kernel's structure, says how many bytes it has room for and
    // lives until the call returns, as `mount` does; the path is an empty string with its end; `fd` is
    // open while it is borrowed.
    let done = unsafe {
        libc::name_to_handle_at(
            fd.as_raw_fd(),
            c"".as_ptr(),
            (&raw mut handle).cast(),
            &raw mut mount,
            libc::AT_EMPTY_PATH,
        )
    };
    if done != 0 {
        return Err(last_error());
    }
    // What the kernel has not filled in is 0.
    let (words, _) = handle.handle.as_chunks::<4>();
    Ok(words.iter().fold(0, |sum, word| sum ^ u32::from_le_bytes(*word)))
}

/// Bytes of a file, from `start` up to `end`. *Units*: bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ByteRange {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// Locks bytes for this open file, beside others who have locked them like this.
///
/// # Errors
/// `EAGAIN` if somebody has them for himself; those of `fcntl(2)` with `F_OFD_SETLK`.
pub(crate) fn lock_shared(file: impl AsFd, range: ByteRange) -> Result<()> {
    byte_lock(file.as_fd(), libc::F_OFD_SETLK, libc::F_RDLCK, range).map(drop)
}

/// Some bytes in a range that somebody else has locked, if there are any. A lock that has no end ends
/// with the range.
///
/// # Errors
/// Those of `fcntl(2)` with `F_OFD_GETLK`.
pub(crate) fn locked_in(file: impl AsFd, range: ByteRange) -> Result<Option<ByteRange>> {
    let found = byte_lock(file.as_fd(), libc::F_OFD_GETLK, libc::F_WRLCK, range)?;
    if i32::from(found.l_type) == libc::F_UNLCK {
        return Ok(None);
    }
    let start = u64::try_from(found.l_start).map_err(|_| Errno::INVAL)?;
    let length = u64::try_from(found.l_len).map_err(|_| Errno::INVAL)?;
    let end = if length == 0 { range.end } else { start.saturating_add(length) };
    Ok(Some(ByteRange { start, end }))
}

#[allow(unsafe_code, reason = "locks of open files have no safe wrapper")]
fn byte_lock(
    file: BorrowedFd<'_>,
    command: libc::c_int,
    kind: libc::c_int,
    range: ByteRange,
) -> Result<libc::flock> {
    // SAFETY: a lock is plain data, for which zeros are a value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    let length = range.end.checked_sub(range.start).filter(|length| *length > 0);
    lock.l_type = libc::c_short::try_from(kind).map_err(|_| Errno::INVAL)?;
    lock.l_whence = libc::c_short::try_from(libc::SEEK_SET).map_err(|_| Errno::INVAL)?;
    lock.l_start = i64::try_from(range.start).map_err(|_| Errno::INVAL)?;
    lock.l_len = length.and_then(|length| i64::try_from(length).ok()).ok_or(Errno::INVAL)?;
    // SAFETY: the kernel reads and writes `lock`, which lives until the call returns; `file` is open
    // for as long as it is borrowed.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut lock) } {
        -1 => Err(last_error()),
        _ => Ok(lock),
    }
}

/// Signals to this thread that wait while this lives.
pub(crate) struct HeldSignals {
    before: libc::sigset_t,
    waiting: OwnedFd,
}

impl HeldSignals {
    /// Lets these signals wait.
    ///
    /// # Errors
    /// `EINVAL` for what is no signal; those of `signalfd(2)`.
    #[allow(unsafe_code, reason = "masks of signals have no safe wrapper")]
    pub(crate) fn hold(signals: &[i32]) -> Result<Self> {
        // SAFETY: a set of signals is plain data, for which zeros are a value.
        let mut held: libc::sigset_t = unsafe { std::mem::zeroed() };
        let mut before = held;
        for signal in signals {
            // SAFETY: the call changes the set that it is given, and refuses other numbers.
            if unsafe { libc::sigaddset(&raw mut held, *signal) } != 0 {
                return Err(last_error());
            }
        }
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        // SAFETY: the set is valid; -1 asks for a new descriptor, which nobody else knows of.
        let waiting = match unsafe { libc::signalfd(-1, &raw const held, flags) } {
            -1 => return Err(last_error()),
            number => unsafe { OwnedFd::from_raw_fd(number) },
        };
        // SAFETY: both sets are valid, and the call keeps neither.
        match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const held, &raw mut before) } {
            0 => Ok(Self { before, waiting }),
            error => Err(Errno::from_raw_os_error(error)),
        }
    }

    /// Readable once one of them waits.
    pub(crate) fn waiting(&self) -> BorrowedFd<'_> {
        self.waiting.as_fd()
    }
}

impl Drop for HeldSignals {
    #[allow(unsafe_code, reason = "masks of signals have no safe wrapper")]
    fn drop(&mut self) {
        // SAFETY: the set is the one that the kernel gave, and the call does not keep it.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut())
        };
    }
}

/// The files that whoever started this process left open for it, above the standard ones.
#[derive(Debug)]
pub(crate) struct Inherited(Vec<RawFd>);

impl Inherited {
    /// Looks for them. What this program opens is closed on exec, so what is not was there before;
    /// libraries that do otherwise are loaded later.
    ///
    /// # Errors
    /// Those of reading `/proc/self/fd`.
    #[allow(unsafe_code, reason = "a bare number has no safe owner")]
    pub(crate) fn find() -> std::io::Result<Self> {
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir("/proc/self/fd")? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.parse::<RawFd>().ok());
            numbers.extend(number.filter(|number| *number > libc::STDERR_FILENO));
        }
        // SAFETY: the call takes no pointers and changes nothing.
        numbers.retain(|number| unsafe { libc::fcntl(*number, libc::F_GETFD) } == 0);
        Ok(Self(numbers))
    }

    /// Lets go of them.
    #[allow(unsafe_code, reason = "a bare number has no safe owner")]
    pub(crate) fn close(self) {
        for number in self.0 {
            // SAFETY: the file was open before this program began, so no object here owns it.
            unsafe { libc::close(number) };
        }
    }
}

/// Which of the two processes this is after [`fork`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forked {
    /// The new one.
    Child,
    /// The old one, and the number of the new one.
    Parent(Pid),
}

/// Makes a second process like this one.
///
/// # Errors
/// `EBUSY` if this process has more than one thread; those of `fork(2)`.
#[allow(unsafe_code, reason = "fork(2) has no safe wrapper")]
pub(crate) fn fork() -> Result<Forked> {
    if threads() != 1 {
        return Err(Errno::BUSY);
    }
    // SAFETY: with one thread, the copy lacks none: no lock is held, no data half changed.
    match unsafe { libc::fork() } {
        -1 => Err(last_error()),
        0 => Ok(Forked::Child),
        child => Pid::from_raw(child).map(Forked::Parent).ok_or(Errno::IO),
    }
}

/// How many threads this process has.
pub(crate) fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(usize::MAX, Iterator::count)
}

/// Lets the allocator map large allocations by themselves, and unmap them when they are freed.
///
/// Without this, glibc maps by itself only what is larger than the largest that was ever freed, here the
/// 16 MiB of a buffer for requests. Every thread then has room of its own for what was large once.
#[allow(unsafe_code, reason = "mallopt(3) has no safe wrapper")]
pub(crate) fn map_large_allocations() {
    /// Less than that are the buffers of single requests, which come and go.
    const LARGE: i32 = 1280 * 1024;
    /// As glibc sets it with the other one: what is free at the end is not given back at each request.
    const KEPT: i32 = 32 * 1024 * 1024;
    #[cfg(target_env = "gnu")]
    // SAFETY: sets numbers, under the allocator's own locks.
    let _ = unsafe {
        (libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE), libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT))
    };
}

/// Gives memory that the allocator holds and nobody uses back to the system, where it can.
///
/// Locked memory cannot be given back by parts: if all is locked, it is not for a moment. That is done
/// only where there is no swap, from which the lock keeps it.
///
/// # Errors
/// Those of `mlockall(2)`: memory is not locked any more.
#[allow(unsafe_code, reason = "malloc_trim(3) has no safe wrapper")]
pub(crate) fn give_memory_back() -> Result<()> {
    let locked = LOCKED.load(Ordering::Acquire);
    if locked && (rustix::system::sysinfo().totalswap > 0 || rustix::mm::munlockall().is_err()) {
        return Ok(());
    }
    #[cfg(target_env = "gnu")]
    // SAFETY: touches only what is free, under the allocator's own locks.
    let _ = unsafe { libc::malloc_trim(0) };
    if locked { lock_all_memory() } else { Ok(()) }
}

/// Keeps all memory of the process out of the swap, also what it gets later.
///
/// # Errors
/// `EPERM`, `ENOMEM`; those of `mlockall(2)`.
pub(crate) fn lock_all_memory() -> Result<()> {
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    rustix::mm::mlockall(flags)?;
    LOCKED.store(true, Ordering::Release);
    Ok(())
}

/// All memory of the process is locked.
static LOCKED: AtomicBool = AtomicBool::new(false);

/// Keeps the pages that some bytes lie in out of the swap, for as long as the process lives: `false`
/// if the limit of locked memory is reached.
#[allow(unsafe_code, reason = "mlock(2) has no safe wrapper")]
pub(crate) fn lock_pages(bytes: &[u8]) -> bool {
    // SAFETY: the call changes no byte; the range is that of a slice, which is there.
    unsafe { libc::mlock(bytes.as_ptr().cast(), bytes.len()) == 0 }
}

/// Makes a system call all of whose arguments are zero.
///
/// For calls that are expected to be refused before they do anything.
#[cfg(test)]
#[allow(unsafe_code, reason = "there is no safe way to make any system call")]
pub(crate) fn call_with_zeros(number: libc::c_long) -> Result<()> {
    // SAFETY: no pointer leads anywhere.
    match unsafe { libc::syscall(number, 0, 0, 0, 0, 0, 0) } {
        -1 => Err(last_error()),
        _ => Ok(()),
    }
}

/// Makes a request of a descriptor with 0 in the place of its data.
#[cfg(test)]
#[allow(unsafe_code, reason = "ioctl(2) has no safe wrapper")]
pub(crate) fn ioctl_with_zero(file: impl AsFd, request: u32) -> Result<()> {
    // SAFETY: no pointer leads anywhere.
    let number = file.as_fd().as_raw_fd();
    match unsafe { libc::syscall(libc::SYS_ioctl, number, libc::c_ulong::from(request), 0) } {
        -1 => Err(last_error()),
        _ => Ok(()),
    }
}

/// Makes a process by `clone(2)` with these flags, which ends at once.
#[cfg(test)]
#[allow(unsafe_code, reason = "clone(2) has no safe wrapper")]
pub(crate) fn clone_with(flags: i32) -> Result<()> {
    let flags = libc::c_long::from(flags | libc::SIGCHLD);
    // SAFETY: without a stack of its own the new process has a copy of this one, as after fork(2), and
    // does nothing but to end.
    match unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } {
        -1 => Err(last_error()),
        // SAFETY: the call ends the process without running anything of it.
        0 => unsafe { libc::_exit(0) },
        _ => Ok(()),
    }
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Room for as many groups as most processes have; the kernel says when it needs more.
const USUAL_GROUPS: usize = 32;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::fd::{AsFd, IntoRawFd};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_groups_of_a_peer_are_those_it_had() {
        let (one, _other) = UnixStream::pair().unwrap();
        let told: BTreeSet<u32> = peer_groups(one.as_fd()).unwrap().into_iter().collect();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap();
        let own: BTreeSet<u32> = line.split_whitespace().map(|id| id.parse().unwrap()).collect();
        assert_eq!(told, own);
    }

    #[test]
    fn the_process_of_a_peer_is_the_one_that_connected() {
        let (one, _other) = UnixStream::pair().unwrap();
        let told = peer_credentials(one.as_fd()).unwrap();
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        let own = (std::process::id(), uid.as_raw(), gid.as_raw());
        assert_eq!((told.pid, told.uid, told.gid), own);
        match peer_process(one.as_fd()) {
            Ok(process) => {
                let name = format!("/proc/self/fdinfo/{}", process.as_raw_fd());
                let info = std::fs::read_to_string(name).unwrap();
                assert!(info.contains(&format!("Pid:\t{}\n", own.0)), "{info}");
            }
            Err(error) => assert_eq!(error, Errno::NOPROTOOPT),
        }
    }

    #[test]
    fn a_copy_is_another_number_of_the_same_file() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let copy = copy_of(file.as_raw_fd()).unwrap();
        assert_ne!(copy.as_raw_fd(), file.as_raw_fd());
        let of = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).unwrap().st_rdev;
        assert_eq!(of(copy.as_fd()), of(file.as_fd()));
        assert_eq!(copy_of(-1).unwrap_err(), Errno::BADF);
    }

    #[test]
    fn handles_of_different_inodes_have_different_sums() {
        let [src, tests] = ["src", "tests"].map(|name| std::fs::File::open(name).unwrap());
        let sum = |file: &std::fs::File| handle_sum(file.as_fd()).unwrap();
        assert_eq!(sum(&src), sum(&src));
        assert_ne!(sum(&src), sum(&tests));
        let proc = std::fs::File::open("/proc/self/status").unwrap();
        assert_eq!(handle_sum(proc.as_fd()), Err(Errno::OPNOTSUPP));
    }

    #[test]
    fn a_descriptor_stands_for_another_file_and_keeps_its_number() {
        let [null, zero] =
            ["/dev/null", "/dev/zero"].map(|name| std::fs::File::open(name).unwrap());
        let of = |file: &std::fs::File| rustix::fs::fstat(file).unwrap().st_rdev;
        let number = null.as_raw_fd();
        stand_for(null.as_fd(), &zero).unwrap();
        assert_eq!((null.as_raw_fd(), of(&null)), (number, of(&zero)));
        let flags = rustix::io::fcntl_getfd(&null).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }

    #[test]
    fn what_was_left_open_is_found_and_closed() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let left_open = rustix::io::dup(&file).unwrap().into_raw_fd();
        let found = Inherited::find().unwrap().0;
        assert!(found.contains(&left_open), "{found:?}");
        assert!(!found.contains(&file.as_raw_fd()), "{found:?}");
        Inherited(vec![left_open]).close();
        assert_eq!(copy_of(left_open).unwrap_err(), Errno::BADF);
    }

    /// Held by tests that lock memory.
    static LOCKING: std::sync::Mutex<()> = std::sync::Mutex::new(());

    #[test]
    fn a_page_is_locked_within_the_limit() {
        let _turn = LOCKING.lock().unwrap();
        let locked = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
        };
        let before = locked();
        assert!(lock_pages(&[7; 32]) && locked() > before);
    }

    /// As root, who may lock all. Locked memory refused to be given back.
    #[test]
    fn what_is_locked_is_given_back_where_nothing_is_swapped_and_is_locked_again() {
        let _turn = LOCKING.lock().unwrap();
        let kib = |of: &str| {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix(of)).unwrap();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
        };
        if !rustix::process::geteuid().is_root() || lock_all_memory().is_err() {
            return;
        }
        let locked = kib("VmLck:");
        // Larger than what other tests change meanwhile; the last piece keeps the end from shrinking.
        let mut pieces: Vec<_> = (0..1 << 17).map(|_| vec![1_u8; 1000]).collect();
        pieces.drain(..pieces.len() - 1);
        let before = kib("RssAnon:");
        give_memory_back().unwrap();
        let swap = rustix::system::sysinfo().totalswap > 0;
        assert!(swap || kib("RssAnon:") + 65_536 < before, "{before} {}", kib("RssAnon:"));
        assert!(kib("VmLck:") * 2 > locked, "{} {locked}", kib("VmLck:"));
        drop(pieces);
        rustix::mm::munlockall().unwrap();
        LOCKED.store(false, Ordering::Release);
    }

    /// Tests run in threads of their own.
    #[test]
    fn a_process_with_threads_is_not_forked() {
        assert!(threads() > 1);
        assert_eq!(fork(), Err(Errno::BUSY));
    }

    #[test]
    fn what_is_no_socket_has_no_peer() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(peer_groups(file.as_fd()), Err(Errno::NOTSOCK));
        assert_eq!(peer_credentials(file.as_fd()), Err(Errno::NOTSOCK));
        assert_eq!(peer_process(file.as_fd()).unwrap_err(), Errno::NOTSOCK);
    }

    #[test]
    fn a_range_past_the_largest_offset_is_refused() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(write_back(file.as_fd(), u64::MAX, 1), Err(Errno::INVAL));
    }
}

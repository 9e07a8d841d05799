//! The process that mounts and unmounts for a daemon, which has given up the right to.
//!
//! It is forked before the daemon knows a secret or has a thread, knows one mount only, and takes
//! four orders over a socket pair, none of which names anything: whoever has taken over the daemon
//! can end its mount and make it again, and nothing else. It ends with the daemon.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType,
};
use rustix::process::{Pid, WaitOptions};
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::{background, confine};
use crate::cli::env::mounts::busy;
use crate::cli::env::mounts::detach::{self, Detach};
use crate::cli::env::mounts::mountinfo::{self, Mounted};
use crate::cli::env::mounts::mountpoint::Mountpoint;
use crate::cli::report::exit::CliError;
use crate::fuse;
use crate::sys::{self, Forked};

/// The one mount that it is about.
#[derive(Debug)]
pub(in crate::cli) struct Charge {
    /// The source that the mount table shows.
    pub vault: PathBuf,
    /// What it is mounted on.
    pub mountpoint: Mountpoint,
    /// How.
    pub options: fuse::MountOptions,
}

/// The daemon's end of the line.
#[derive(Debug)]
pub(in crate::cli) struct Keeper {
    socket: Mutex<OwnedFd>,
    process: Pid,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Order {
    /// Mount, and send the connection.
    Mount,
    /// Unmount if nobody uses it.
    Unmount,
    /// Unmount at once.
    UnmountLazily,
    /// Count the processes that use it.
    CountHolders,
}

#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Done,
    Holders(usize),
    Failed { errno: i32, said: String },
}

impl Keeper {
    /// Starts it.
    ///
    /// Errors: those of fork(2); it is busy if this process has threads.
    pub(in crate::cli) fn start(charge: Charge) -> Result<Self, CliError> {
        let failed =
            |errno: Errno| CliError::io("cannot start the process that mounts", &errno.into());
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
                .map_err(failed)?;
        match sys::fork().map_err(failed)? {
            Forked::Child => {
                drop(ours);
                let code = i32::from(work(&charge, &theirs).is_err());
                std::process::exit(code);
            }
            Forked::Parent(process) => {
                drop(theirs);
                let keeper = Self { socket: Mutex::new(ours), process };
                // From here on no signal ends it before the daemon.
                keeper.receive().map_err(|error| {
                    CliError::io("the process that mounts did not start", &error)
                })?;
                Ok(keeper)
            }
        }
    }

    /// Mounts; whoever has the connection that it returns is the filesystem.
    ///
    /// Errors: those of mount(2) or of the mount helper, in its words.
    pub(in crate::cli) fn mount(&self) -> io::Result<OwnedFd> {
        let (_, connection) = self.order(Order::Mount)?;
        connection.ok_or_else(|| io::Error::other("no connection came with the mount"))
    }

    /// Takes the mount away, if it is still there.
    ///
    /// Errors: `ResourceBusy`.
    pub(in crate::cli) fn unmount(&self, how: Detach) -> io::Result<()> {
        let order = match how {
            Detach::WhenFree => Order::Unmount,
            Detach::Lazily => Order::UnmountLazily,
        };
        self.order(order).map(drop)
    }

    /// How many processes use the mount.
    pub(in crate::cli) fn holders(&self) -> usize {
        match self.order(Order::CountHolders) {
            Ok((Answer::Holders(count), _)) => count,
            _ => 0,
        }
    }

    /// Sends it home, and waits until it is there.
    pub(in crate::cli) fn finish(&self) {
        let line = self.socket.lock();
        let _ = rustix::net::shutdown(&*line, Shutdown::Both);
        let wait = || rustix::process::waitpid(Some(self.process), WaitOptions::empty());
        let _ = rustix::io::retry_on_intr(wait);
    }

    fn order(&self, order: Order) -> io::Result<(Answer, Option<OwnedFd>)> {
        let line = self.socket.lock();
        send(&line, &order, None)?;
        let answered = receive_from(&line)?;
        drop(line);
        match answered {
            (Answer::Failed { errno, said }, _) => {
                Err(io::Error::new(io::Error::from_raw_os_error(errno).kind(), said))
            }
            done => Ok(done),
        }
    }

    fn receive(&self) -> io::Result<(Answer, Option<OwnedFd>)> {
        receive_from(&self.socket.lock())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.finish();
    }
}

/// The life of the other process.
fn work(charge: &Charge, socket: &OwnedFd) -> io::Result<()> {
    // Registered, they end nothing.
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))?;
    }
    let _ = rustix::thread::set_name(c"kmsfs-keeper");
    sys::Inherited::find()?.close();
    background::leave_terminal()?;
    if rustix::process::geteuid().is_root() {
        confine::bound_privileges(KEPT)?;
    }
    send(socket, &Answer::Done, None)?;
    loop {
        let order: Order = match receive_from(socket) {
            Ok((order, _)) => order,
            // The daemon is gone.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        let (answer, connection) = carry_out(charge, order).unwrap_or_else(|error| {
            let errno = error.raw_os_error().unwrap_or_else(|| errno_of(error.kind()));
            (Answer::Failed { errno, said: error.to_string() }, None)
        });
        send(socket, &answer, connection.as_ref())?;
    }
}

fn carry_out(charge: &Charge, order: Order) -> io::Result<(Answer, Option<OwnedFd>)> {
    match order {
        Order::Mount => charge.mount().map(|device| (Answer::Done, Some(device))),
        Order::Unmount => charge.unmount(Detach::WhenFree).map(|()| (Answer::Done, None)),
        Order::UnmountLazily => charge.unmount(Detach::Lazily).map(|()| (Answer::Done, None)),
        Order::CountHolders => {
            let count = charge.mounted()?.map_or(0, |mount| busy::holders(&mount).len());
            Ok((Answer::Holders(count), None))
        }
    }
}

impl Charge {
    fn mount(&self) -> io::Result<OwnedFd> {
        let device = fuse::attach(&self.vault, self.mountpoint.dir(), &self.options)?;
        // Dropped, the connection ends, and whatever was mounted with it.
        let Some(mount) = self.mounted()? else {
            self.remove_astray()?;
            return Err(io::Error::other("another directory was put in its place"));
        };
        if self.options.nosymfollow && !mount.has_option("nosymfollow") {
            self.unmount(Detach::WhenFree)?;
            return Err(io::Error::other(
                "this kernel does not know nosymfollow (Linux 5.10 does)",
            ));
        }
        Ok(device)
    }

    fn unmount(&self, how: Detach) -> io::Result<()> {
        match self.mounted()? {
            Some(mount) => detach::detach_in(self.mountpoint.above()?.as_fd(), &mount, how),
            // By somebody else: what is mounted there by now is not ours.
            None => Ok(()),
        }
    }

    fn mounted(&self) -> io::Result<Option<Mounted>> {
        Ok(self.mountpoint.mounted()?.filter(|mount| mount.vault == self.vault))
    }

    /// Takes away what the mount helper mounted elsewhere.
    fn remove_astray(&self) -> io::Result<()> {
        let newest = mountinfo::read()?.into_iter().rfind(|mount| mount.vault == self.vault);
        newest.map_or(Ok(()), |mount| detach::detach(&mount, Detach::Lazily))
    }
}

/// The kinds that somebody asks for later, as numbers.
fn errno_of(kind: io::ErrorKind) -> i32 {
    match kind {
        io::ErrorKind::ResourceBusy => libc::EBUSY,
        io::ErrorKind::NotFound => libc::ENOENT,
        io::ErrorKind::PermissionDenied => libc::EACCES,
        _ => libc::EIO,
    }
}

fn send(to: &OwnedFd, message: &impl Serialize, along: Option<&OwnedFd>) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = along.map(AsFd::as_fd);
    if let Some(fd) = &fds {
        control.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(fd)));
    }
    let parts = [io::IoSlice::new(&bytes)];
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(to, &parts, &mut control, SendFlags::NOSIGNAL)
    })?;
    Ok(())
}

fn receive_from<T: for<'de> Deserialize<'de>>(from: &OwnedFd) -> io::Result<(T, Option<OwnedFd>)> {
    let mut bytes = [0; LONGEST];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        let parts = &mut [io::IoSliceMut::new(&mut bytes)];
        rustix::net::recvmsg(from, parts, &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut along = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            along = fds.last();
        }
    }
    let message = serde_json::from_slice(bytes.get(..received.bytes).unwrap_or_default())?;
    Ok((message, along))
}

/// What mounting and unmounting take, and looking who is in the way.
const KEPT: CapabilitySet = CapabilitySet::SYS_ADMIN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::SYS_PTRACE);

/// What a mount helper says is cut off there.
const LONGEST: usize = 8192;

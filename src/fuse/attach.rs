//! Mounting by itself: a connection to the kernel whose other end is a mountpoint.
//!
//! fuser mounts and serves in one process. Here another process mounts, and hands the connection to
//! the one that serves, which may have given up the right to mount.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use super::MountOptions;

/// Mounts on the directory `mountpoint`, wherever its path leads by now; whoever has the connection
/// that is returned answers there. `source` is what the mount table shows.
///
/// The mount helper finds the directory by its path once more: whoever lets it mount looks at where it
/// did.
///
/// # Errors
/// Those of mount(2). Where that is not permitted, those of the mount helper: `PermissionDenied` if
/// other users may not be let in, `NotFound` if there is no helper, else its words.
pub fn attach(
    source: &Path,
    mountpoint: BorrowedFd<'_>,
    options: &MountOptions,
) -> io::Result<OwnedFd> {
    match by_itself(source, mountpoint, options) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            by_helper(source, mountpoint, options)
        }
        done => done,
    }
}

fn by_itself(
    source: &Path,
    mountpoint: BorrowedFd<'_>,
    options: &MountOptions,
) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let device = rustix::fs::open(DEVICE, flags, Mode::empty())?;
    let mut data = format!(
        "fd={},rootmode={:o},user_id={},group_id={},{SUBTYPE}",
        device.as_raw_fd(),
        rustix::fs::fstat(mountpoint)?.st_mode,
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    for (on, word) in [
        (options.default_permissions, ",default_permissions"),
        (options.allow_other, ",allow_other"),
    ] {
        data.push_str(if on { word } else { "" });
    }
    let data = CString::new(data)?;
    rustix::mount::mount(source, by_number(mountpoint), "fuse", flags_of(options), &*data)?;
    Ok(device)
}

fn flags_of(options: &MountOptions) -> MountFlags {
    let all = [
        (options.read_only, MountFlags::RDONLY),
        (!options.suid, MountFlags::NOSUID),
        (!options.dev, MountFlags::NODEV),
        (!options.exec, MountFlags::NOEXEC),
        (!options.atime, MountFlags::NOATIME),
        (options.sync, MountFlags::SYNCHRONOUS),
        (options.dirsync, MountFlags::DIRSYNC),
        (options.nosymfollow, MountFlags::NOSYMFOLLOW),
    ];
    let set = all.into_iter().filter(|(on, _)| *on);
    set.fold(MountFlags::empty(), |flags, (_, flag)| flags | flag)
}

fn by_helper(
    source: &Path,
    mountpoint: BorrowedFd<'_>,
    options: &MountOptions,
) -> io::Result<OwnedFd> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for program in ["fusermount3", "fusermount"] {
        match run_helper(program, &words(source, options), mountpoint) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => last = error,
            done => return done,
        }
    }
    Err(last)
}

/// The options as the helper takes them. A comma in the source would start another option.
fn words(source: &Path, options: &MountOptions) -> CString {
    let mut words = b"fsname=".to_vec();
    for byte in source.as_os_str().as_bytes() {
        if matches!(byte, b'\\' | b',') {
            words.push(b'\\');
        }
        words.push(*byte);
    }
    let pick = |on: bool, yes: &'static str, no: &'static str| if on { yes } else { no };
    for word in [
        SUBTYPE,
        pick(options.default_permissions, "default_permissions", ""),
        pick(options.read_only, "ro", "rw"),
        pick(options.suid, "suid", "nosuid"),
        pick(options.dev, "dev", "nodev"),
        pick(options.exec, "exec", "noexec"),
        pick(options.atime, "atime", "noatime"),
        pick(options.sync, "sync", ""),
        pick(options.dirsync, "dirsync", ""),
        pick(options.nosymfollow, "nosymfollow", ""),
        pick(options.allow_other, "allow_other", ""),
    ] {
        if !word.is_empty() {
            words.push(b',');
            words.extend_from_slice(word.as_bytes());
        }
    }
    // A path holds no zero.
    CString::new(words).unwrap_or_default()
}

/// The helper sends the connection over a socket whose number stands in its environment. Its
/// standard input can be that socket: what else it inherits is closed.
fn run_helper(program: &str, words: &CString, mountpoint: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut command = Command::new(program);
    command.arg("-o").arg(std::ffi::OsStr::from_bytes(words.as_bytes()));
    command.arg("--").arg(".").current_dir(by_number(mountpoint));
    command.env(SOCKET_NUMBER, "0").env("LC_ALL", "C");
    command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn()?;
    // It holds the other end of the socket.
    drop(command);
    let connection = receive(&ours);
    let ended = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&ended.stderr);
    match connection {
        Some(connection) if ended.status.success() => Ok(connection),
        _ if said.contains("user_allow_other") => {
            Err(io::Error::new(io::ErrorKind::PermissionDenied, said.trim().to_owned()))
        }
        _ => Err(io::Error::other(said.trim().to_owned())),
    }
}

/// A path that leads to what is open, for this process and one that it starts.
fn by_number(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn receive(socket: &UnixStream) -> Option<OwnedFd> {
    let mut byte = [0];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    loop {
        let parts = &mut [io::IoSliceMut::new(&mut byte)];
        match rustix::net::recvmsg(socket, parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    })
}

const DEVICE: &str = "/dev/fuse";
/// What the mount table shows after `fuse.`.
const SUBTYPE: &str = "subtype=kmsfs";
/// Where the helper looks.
const SOCKET_NUMBER: &str = "_FUSE_COMMFD";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_in_the_path_of_a_vault_starts_no_option() {
        let words = words(Path::new("/a,suid\\b"), &MountOptions::default());
        let words = words.to_str().unwrap();
        assert!(words.starts_with("fsname=/a\\,suid\\\\b,subtype=kmsfs,"), "{words}");
        assert!(words.contains(",nosuid,nodev,exec,atime") && !words.contains(",,"), "{words}");
    }
}

//! The log: stderr in the foreground, syslog or a file in the background.
//!
//! Only records of this crate are written: the FUSE library would log plaintext names.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};

use log::{Level, LevelFilter};
use parking_lot::Mutex;

use super::printable::printable;

/// Starts logging to stderr.
pub(in crate::cli) fn start(verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::Warn,
        1 => LevelFilter::Info,
        2 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    };
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        PREFIX.store(JOURNAL, Ordering::Relaxed);
    }
    let quiet = level < LevelFilter::Info;
    let started = env_logger::Builder::new()
        .filter_level(LevelFilter::Off)
        .filter_module("kmsfs", level)
        .filter_module("kmsfs::keystore::audit", level.max(LevelFilter::Info))
        .format(move |out, record| {
            let prefix = PREFIX.load(Ordering::Relaxed);
            // Signed places of the audit log are for a log that somebody keeps, not for a terminal.
            if quiet && prefix == PLAIN && record.level() > Level::Warn {
                return Ok(());
            }
            match prefix {
                JOURNAL => write!(out, "<{}>", severity(record.level()))?,
                SYSLOG => write!(out, "<{}>", DAEMON << 3 | severity(record.level()))?,
                _ => {}
            }
            let pid = std::process::id();
            let level = record.level().as_str().to_lowercase();
            writeln!(out, "kmsfs[{pid}]: {level}: {}", printable(&record.args().to_string()))
        })
        .target(env_logger::Target::Pipe(Box::new(Switch)))
        .write_style(env_logger::WriteStyle::Never)
        .try_init();
    debug_assert!(started.is_ok(), "logging is started once");
    // In the background stderr is gone, and a message of a panic could hold anything.
    std::panic::set_hook(Box::new(|panic| match panic.location() {
        Some(at) => log::error!("panic at {}:{}", at.file(), at.line()),
        None => log::error!("panic"),
    }));
}

/// Leaves stderr: from now on records go to syslog, or to `file` where there is no syslog. Without
/// either they are lost, and the last one says so.
///
/// Errors: those of opening `file`, which must be a regular file and no link.
pub(in crate::cli) fn to_background(file: Option<&Path>) -> io::Result<()> {
    let sink = match syslog() {
        Ok(socket) => {
            PREFIX.store(SYSLOG, Ordering::Relaxed);
            Sink::Syslog(socket)
        }
        Err(error) => match file {
            Some(file) => {
                PREFIX.store(PLAIN, Ordering::Relaxed);
                Sink::File(open(file)?)
            }
            None => {
                log::warn!("syslog: {error}; and no directory for a log: nothing is logged");
                Sink::Nowhere
            }
        },
    };
    *SINK.lock() = sink;
    Ok(())
}

fn open(file: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let mut options = OpenOptions::new();
    let file = options.create(true).append(true).mode(0o600).custom_flags(flags).open(file)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "the log is no regular file: remove it"))
}

fn syslog() -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect("/dev/log")?;
    // A log service that hangs must not hang the filesystem.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Source: syslog(3).
fn severity(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

enum Sink {
    Stderr,
    Syslog(UnixDatagram),
    File(File),
    Nowhere,
}

struct Switch;

impl Write for Switch {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        match &mut *SINK.lock() {
            Sink::Stderr => io::stderr().write(record),
            Sink::Syslog(socket) => {
                // Losing a record is better than stopping for it.
                let _ = socket.send(record.trim_ascii_end());
                Ok(record.len())
            }
            Sink::File(file) => file.write(record),
            Sink::Nowhere => Ok(record.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

static SINK: Mutex<Sink> = Mutex::new(Sink::Stderr);
static PREFIX: AtomicU8 = AtomicU8::new(PLAIN);

/// What stands before a record: nothing, the severity as the journal reads it from stderr, or
/// facility and severity as syslog reads them.
const PLAIN: u8 = 0;
const JOURNAL: u8 = 1;
const SYSLOG: u8 = 2;
/// The facility.
const DAEMON: u8 = 3;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A link in the place of the log would have anything appended to.
    #[test]
    fn the_log_is_a_regular_file_and_no_link() {
        let dir = std::env::temp_dir().join(format!("kmsfs-log-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        assert!(open(&dir.join("new")).is_ok());
        symlink(dir.join("new"), dir.join("link")).unwrap();
        assert!(open(&dir.join("link")).is_err());
        assert!(open(&dir).is_err());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}

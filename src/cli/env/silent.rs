//! Questions whose answer the terminal does not show.
//!
//! Signals that end or stop the process wait meanwhile. When one comes, the terminal gets its echo back
//! first: a shell would go on without it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};
use zeroize::Zeroizing;

use crate::sys::HeldSignals;

/// Asks at the terminal, and reads one line or what there is of it.
pub(super) fn ask(question: &str) -> io::Result<Zeroizing<Vec<u8>>> {
    let terminal = File::options().read(true).write(true).open("/dev/tty")?;
    loop {
        let held = HeldSignals::hold(&[SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP])?;
        // Dropped before `held`: what waited comes when the terminal is as it was.
        let silent = Silent::begin(&terminal)?;
        (&terminal).write_all(question.as_bytes())?;
        if let Some(answer) = silent.answer(&held)? {
            return Ok(answer);
        }
        (&terminal).write_all(b"\n")?;
        drop((silent, held));
        // Whoever comes here was only stopped for a while.
    }
}

/// A terminal that does not show what is typed, while this lives.
struct Silent<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Silent<'a> {
    fn begin(terminal: &'a File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        silent.local_modes.insert(LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG);
        tcsetattr(terminal, OptionalActions::Now, &silent)?;
        Ok(Self { terminal, before })
    }

    /// A line, without its end; `None` once a signal waits.
    fn answer(&self, held: &HeldSignals) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        let mut answer = Zeroizing::new(Vec::with_capacity(LONGEST));
        loop {
            let mut ready = [
                PollFd::from_borrowed_fd(held.waiting(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.terminal.as_fd(), PollFlags::IN),
            ];
            match poll(&mut ready, None) {
                Err(Errno::INTR) => continue,
                done => done?,
            };
            if !ready[0].revents().is_empty() {
                return Ok(None);
            }
            let mut byte = [0];
            let read = match (&mut &*self.terminal).read(&mut byte) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            if read == 0 || byte == *b"\n" {
                return Ok(Some(answer));
            }
            if answer.len() == LONGEST {
                return Err(io::Error::other("it is longer than 4096 bytes"));
            }
            answer.extend_from_slice(&byte);
        }
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(self.terminal, OptionalActions::Now, &self.before) {
            log::warn!("the terminal does not show what is typed ('stty echo' helps): {error}");
        }
    }
}

const LONGEST: usize = 4096;

//! Tells whoever unmounts how the session ended: a daemon in the background has nobody else to tell.
//!
//! `kmsfs umount` asks while the mount is still there, and keeps the line open. A daemon that is
//! killed before it has ended its session closes it without a word, which says as much.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::daemon_client::Target;
use super::mountinfo::Mounted;
use crate::cli::report::exit::{CliError, Exit};
use crate::control::{Event, Failure, Request};
use crate::volume::{Ended, VolumeError};

/// The daemon's side.
#[derive(Debug, Default)]
pub(in crate::cli) struct Farewell {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ended: Option<Option<Failure>>,
    /// Who waits to be told.
    listeners: usize,
}

impl Farewell {
    /// Waits for the end of the session and reports it, unless whoever asked goes away.
    pub(in crate::cli) fn attend(&self, send: &mut dyn FnMut(Event) -> bool) {
        self.lock().listeners += 1;
        while send(Event::Waiting) {
            let mut state = self.lock();
            self.changed.wait_while_for(&mut state, |state| state.ended.is_none(), BEAT);
            let ended = state.ended.clone();
            drop(state);
            if let Some(ended) = ended {
                send(Event::Ended(ended));
                break;
            }
        }
        self.lock().listeners -= 1;
        self.changed.notify_all();
    }

    /// Tells everybody who waits, and makes sure that they have heard it before the process ends.
    pub(in crate::cli) fn tell(&self, ended: Option<Failure>) {
        let mut state = self.lock();
        state.ended = Some(ended);
        self.changed.notify_all();
        self.changed.wait_while_for(&mut state, |state| state.listeners > 0, PATIENCE);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// What to report of the end of a session, if it was not a good one.
pub(in crate::cli) fn failure(
    vault: &Path,
    ended: &Result<Ended, VolumeError>,
) -> Option<CliError> {
    match ended {
        Ok(Ended::Cleanly) => None,
        Ok(Ended::InDoubt) => Some(not_ended(vault, "writing a file failed")),
        Err(error) => Some(not_ended(vault, error)),
    }
}

fn not_ended(vault: &Path, why: impl std::fmt::Display) -> CliError {
    let what = format!("the session of {} could not be ended: {why}", vault.display());
    CliError::new(Exit::NotEnded, what).advise("the next mount looks through it as after a crash")
}

/// The command's side: a daemon that will tell how its session ended.
pub(in crate::cli) struct Listening(Receiver<Event>);

impl Listening {
    /// Asks the daemon of a mount; `None` if it has nothing to tell, or does not answer.
    pub(in crate::cli) fn to(mount: &Mounted) -> Option<Self> {
        let client = Target::of(mount).daemon()?;
        let (sender, receiver) = channel();
        std::thread::Builder::new()
            .name("farewell".into())
            .spawn(move || client.call(&Request::AwaitEnd, |event| sender.send(event).is_ok()))
            .ok()?;
        let first = receiver.recv_timeout(PATIENCE);
        matches!(first, Ok(Event::Waiting)).then_some(Self(receiver))
    }

    /// How it ended. The vault is released already.
    ///
    /// # Errors
    /// `NotEnded`.
    pub(in crate::cli) fn outcome(&self, vault: &Path) -> Result<(), CliError> {
        loop {
            match self.0.recv_timeout(PATIENCE) {
                Ok(Event::Ended(None)) => return Ok(()),
                Ok(Event::Ended(Some(failure))) => return Err(failure.into()),
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout) => {
                    return Err(not_ended(vault, "its daemon went before it said so"));
                }
            }
        }
    }
}

/// How often to check whether somebody still listens.
const BEAT: Duration = Duration::from_millis(200);
/// For an answer that waits for nothing but its process.
const PATIENCE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn whoever_waits_is_told_before_the_process_goes_on() {
        let (farewell, told) = (Farewell::default(), AtomicUsize::new(0));
        let (ready, waits) = channel();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                let ready = ready.clone();
                let (farewell, told) = (&farewell, &told);
                scope.spawn(move || {
                    farewell.attend(&mut |event| {
                        match event {
                            Event::Ended(None) => drop(told.fetch_add(1, Ordering::AcqRel)),
                            _ => drop(ready.send(())),
                        }
                        true
                    });
                });
            }
            (0..3).for_each(|_| waits.recv().unwrap());
            farewell.tell(None);
            assert_eq!(told.load(Ordering::Acquire), 3);
        });
    }

    #[test]
    fn nobody_waits_for_who_has_gone() {
        let farewell = Farewell::default();
        farewell.attend(&mut |_| false);
        farewell.tell(None);
        assert_eq!(farewell.lock().listeners, 0);
    }
}

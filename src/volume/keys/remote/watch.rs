//! The thread that asks for the state of the keys in use.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::key_table::KeyTable;
use crate::volume::model::error::{Result, VolumeError};

/// How often each key is asked about.
const POLL: Duration = Duration::from_secs(2);
/// How often while nobody answers, so that a server which was restarted is found soon.
const POLL_SILENT: Duration = Duration::from_secs(1);

/// Ends its thread, and waits for it, when dropped.
#[derive(Debug)]
pub(super) struct Watch {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(super) fn start(keys: &Arc<KeyTable>) -> Result<Self> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let (keys, signal) = (keys.clone(), stop.clone());
        let thread = std::thread::Builder::new()
            .name("kms-watch".into())
            .spawn(move || run(&keys, &signal))
            .map_err(VolumeError::from)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        *self.stop.0.lock() = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the thread that watches the keys ended in a panic");
        }
    }
}

fn run(keys: &KeyTable, stop: &(Mutex<bool>, Condvar)) {
    loop {
        let pause = if keys.connection.silence().is_some() { POLL_SILENT } else { POLL };
        let mut stopped = stop.0.lock();
        stop.1.wait_while_for(&mut stopped, |stopped| !*stopped, pause);
        if *stopped {
            return;
        }
        drop(stopped);
        look(keys);
    }
}

/// Asks about every key in use. What the mount's access key may not even ask about counts as lost.
fn look(keys: &KeyTable) {
    let watched: Vec<_> = keys.watched().iter().copied().collect();
    for key in watched {
        match keys.ask(key) {
            Ok(_) => {}
            Err(VolumeError::KmsUnreachable(_)) if keys.connection.silence().is_some() => return,
            Err(error @ (VolumeError::KmsUnreachable(_) | VolumeError::Kms(_))) => {
                log::debug!("KMS key {key}: its state is not known: {error}");
            }
            Err(error) => {
                log::debug!("KMS key {key}: {error}");
                if let Some(known) = keys.keys().get_mut(&key) {
                    known.usable = false;
                }
            }
        }
    }
}

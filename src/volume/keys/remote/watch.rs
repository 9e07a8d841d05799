//! The thread that asks for the state of the keys in use.

use std::sync::Arc;
use std::time::Duration;

use super::key_table::KeyTable;
use crate::threads::{Stop, Threads};
use crate::volume::model::error::{Result, VolumeError};

/// How often each key is asked about.
const POLL: Duration = Duration::from_secs(2);
/// How often while nobody answers, so that a server which was restarted is found soon.
const POLL_SILENT: Duration = Duration::from_secs(1);

/// The thread, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct KeyWatch {
    _threads: Threads,
}

impl KeyWatch {
    pub(super) fn start(keys: &Arc<KeyTable>) -> Result<Self> {
        let (keys, mut threads) = (keys.clone(), Threads::default());
        threads.start("kms-watch", move |stop| run(&keys, stop))?;
        Ok(Self { _threads: threads })
    }
}

fn run(keys: &KeyTable, stop: &Stop) {
    loop {
        let pause = if keys.connection.silence().is_some() { POLL_SILENT } else { POLL };
        if stop.within(pause) {
            return;
        }
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

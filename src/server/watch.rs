//! Noticing what other processes change in the keystores.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use super::service::Service;

/// A thread that looks at the keystores many times a second, so that a key or an access key that
/// is disabled elsewhere is refused here at once. Ends when it is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    stop: Sender<()>,
}

impl Watch {
    pub(super) fn start(service: &Arc<Service>) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let service = Arc::clone(service);
        let look = move || {
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                poll(&service);
            }
        };
        std::thread::Builder::new().name("kms-watch".into()).spawn(look)?;
        Ok(Self { stop })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.stop.send(());
    }
}

fn poll(service: &Service) {
    for (region, keystore) in service.keystores() {
        if let Err(error) = keystore.poll_changes() {
            log::warn!("keystore of region {}: {error}", region.unwrap_or("local"));
        }
    }
}

const EVERY: Duration = Duration::from_millis(100);

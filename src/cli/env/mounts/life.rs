//! Whether a mount answers.

use std::sync::mpsc;
use std::time::Duration;

use rustix::io::Errno;
use serde_json::Value;

use super::mountinfo::Mounted;

/// What a mount answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Life {
    Alive,
    /// Its daemon is gone.
    Dead,
    /// Its daemon is there, and does not answer.
    Silent,
    /// Another user's: it answers when that user likes.
    NotAsked,
}

impl Life {
    /// Without its daemon a mount answers nothing. Attributes may still come from the kernel's cache;
    /// the free space never does. Who asks a daemon that was stopped waits until it goes on, so a thread
    /// does, which ends with this command at the latest.
    pub(in crate::cli) fn of(mount: &Mounted) -> Self {
        if mount.user != 0 && mount.user != rustix::process::geteuid().as_raw() {
            return Self::NotAsked;
        }
        let (tell, told) = mpsc::channel();
        let mountpoint = mount.mountpoint.clone();
        let asking = std::thread::Builder::new().spawn(move || {
            let _ = tell.send(rustix::fs::statvfs(&mountpoint).map(drop));
        });
        match asking.ok().and_then(|_| told.recv_timeout(PATIENCE).ok()) {
            Some(Err(Errno::NOTCONN | Errno::CONNABORTED)) => Self::Dead,
            Some(_) => Self::Alive,
            None => Self::Silent,
        }
    }

    pub(in crate::cli) fn as_json(self) -> Value {
        match self {
            Self::Alive => true.into(),
            Self::Dead => false.into(),
            Self::Silent | Self::NotAsked => Value::Null,
        }
    }
}

/// How long a mount may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

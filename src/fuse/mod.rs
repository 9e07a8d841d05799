//! Rank 3: the kernel's view of a volume.
//!
//! Nothing is decided here: a request is unpacked, the volume is called once, and its answer is
//! packed again. May import `volume`; is the only module that names fuser.

mod activity;
mod adapter;
mod attach;
mod convert;
mod errno;
mod handles;
mod options;
mod received;
mod request;

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use fuser::{BackgroundSession, INodeNo, Notifier, Session};
use parking_lot::{Condvar, Mutex};

use crate::volume::{KernelCache, Volume};
use adapter::Adapter;

pub use activity::Activity;
pub use attach::attach;
pub use options::MountOptions;

/// A mounted volume. Dropping it does not unmount.
#[derive(Debug)]
pub struct Mounted {
    // fuser's own teardown would unmount by path, and after an unmount from outside that path may
    // be another filesystem's. Whoever unmounts does it by the system call.
    session: ManuallyDrop<BackgroundSession>,
    ended: Arc<Ended>,
}

/// Set when the last request was answered.
#[derive(Debug, Default)]
struct Ended {
    done: Mutex<bool>,
    changed: Condvar,
}

/// Serves `volume` to the mount at the other end of `connection`, which [`attach`] made with the same
/// options. Requests are answered from threads of their own until someone unmounts it; `activity`
/// hears of those that somebody waits for.
///
/// # Errors
/// Those of the first messages to the kernel: the mount is there then, and nobody answers.
pub fn serve(
    volume: Arc<Volume>,
    connection: OwnedFd,
    options: &MountOptions,
    activity: Option<Arc<Activity>>,
) -> io::Result<Mounted> {
    let ended = Arc::new(Ended::default());
    let notifier = Arc::new(OnceLock::new());
    let told = (Arc::clone(&ended), Arc::clone(&notifier), activity);
    let adapter = Adapter::new(volume, options, told);
    let session = Session::from_fd(adapter, connection, options.acl(), options.config())?;
    let _ = notifier.set(session.notifier());
    Ok(Mounted { session: ManuallyDrop::new(session.spawn()?), ended })
}

impl Mounted {
    /// Waits until the volume is unmounted and every request is answered.
    pub fn wait(&self) {
        let mut done = self.ended.done.lock();
        self.ended.changed.wait_while(&mut done, |done| !*done);
    }

    /// True once the volume is unmounted and every request is answered.
    pub fn has_ended(&self) -> bool {
        *self.ended.done.lock()
    }

    /// What the kernel has cached of this mount, to be dropped from a thread that answers no
    /// requests and holds no lock.
    pub fn kernel_cache(&self) -> Arc<dyn KernelCache> {
        Arc::new(Cache(self.session.notifier()))
    }
}

impl Ended {
    fn set(&self) {
        *self.done.lock() = true;
        self.changed.notify_all();
    }
}

struct Cache(Notifier);

impl KernelCache for Cache {
    fn invalidate_inode(&self, ino: u64) {
        self.invalidate(ino, 0);
    }

    fn invalidate_attributes(&self, ino: u64) {
        self.invalidate(ino, ATTRIBUTES);
    }
}

impl Cache {
    fn invalidate(&self, ino: u64, from: i64) {
        match self.0.inval_inode(INodeNo(ino), from, 0) {
            // What the kernel does not know of, it has not cached.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                log::warn!("the kernel did not drop what it cached of inode {ino}: {error}");
            }
            _ => {}
        }
    }
}

/// The offset by which the kernel is told that no page is meant.
const ATTRIBUTES: i64 = -1;

//! A disk whose n-th call fails: a FUSE filesystem with a [`Tree`] behind it.
//!
//! What a volume does to its vault comes here as the kernel passes it on, one call after the other, and
//! nothing is cached on the way.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fuser::{BackgroundSession, Config, MountOption};
use rustix::io::Errno;

use super::served::Served;
use super::tree::Tree;

/// What is asked of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// Names, attributes, entries, holes.
    Look,
    /// A file or a directory gets a descriptor.
    Open,
    /// A file is made and gets one.
    Create,
    Read,
    Write,
    /// A write to where something is already: it needs no block.
    Overwrite,
    /// A change that may need another block.
    Grow,
    /// A change that needs none.
    Change,
    Sync,
}

/// How calls fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// One call fails and does nothing.
    Once(Errno),
    /// One change is made, and reports an error all the same.
    Late(Errno),
    /// From one call on none of this kind succeeds.
    Lasting(Errno),
    /// A read, or a write, stops half way.
    Short,
}

/// A mounted disk. Unmounted on drop.
pub(super) struct Mounted {
    shared: Arc<Shared>,
    _session: BackgroundSession,
}

pub(super) struct Shared(Mutex<Inner>);

struct Inner {
    tree: Tree,
    fault: Option<Fault>,
    /// So many calls that could fail do not yet.
    left: usize,
    met: Option<Call>,
}

/// What becomes of one call.
enum Fate {
    Well,
    Fails(Errno),
    FailsLate(Errno),
    Half,
}

impl Fault {
    /// Which calls can fail that way.
    fn meets(self, call: Call) -> bool {
        let writes = matches!(call, Call::Write | Call::Overwrite);
        let changes = writes || matches!(call, Call::Create | Call::Grow | Call::Change);
        let error = match self {
            Self::Short => return writes || call == Call::Read,
            Self::Late(_) => return changes || call == Call::Sync,
            Self::Once(error) | Self::Lasting(error) => error,
        };
        match error {
            Errno::NOSPC | Errno::DQUOT => {
                matches!(call, Call::Create | Call::Write | Call::Grow | Call::Sync)
            }
            Errno::INTR => !matches!(call, Call::Look | Call::Change | Call::Create),
            Errno::MFILE => matches!(call, Call::Open | Call::Create),
            Errno::ROFS => changes,
            _ => true,
        }
    }
}

impl Mounted {
    /// Mounts what is on a disk.
    pub(super) fn new(tree: Tree, dir: &Path) -> io::Result<Self> {
        let inner = Inner { tree, fault: None, left: 0, met: None };
        let shared = Arc::new(Shared(Mutex::new(inner)));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("faults".to_owned())];
        let session = fuser::spawn_mount(Served(shared.clone()), dir, &config)?;
        Ok(Self { shared, _session: session })
    }

    /// What is on it.
    pub(super) fn tree(&self) -> Tree {
        self.shared.lock().tree.clone()
    }

    /// Lets the n-th call from now on fail, of those that can fail that way.
    pub(super) fn fail(&self, n: usize, fault: Fault) {
        let mut inner = self.shared.lock();
        (inner.fault, inner.left, inner.met) = (Some(fault), n, None);
    }

    /// No more faults. Returns which call the last one met.
    pub(super) fn heal(&self) -> Option<Call> {
        let mut inner = self.shared.lock();
        inner.fault = None;
        inner.met.take()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a write needs.
    pub(super) fn write_call(&self, ino: u64, offset: usize, len: usize) -> Call {
        let there = self.lock().tree.node(ino).is_ok_and(|node| node.has(offset, len));
        if there { Call::Overwrite } else { Call::Write }
    }

    /// Does something with the tree, unless this is the call that fails.
    pub(super) fn call<T>(
        &self,
        call: Call,
        run: impl FnOnce(&mut Tree) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        self.part(call, |tree, _| run(tree))
    }

    /// The same, where the call may be asked to stop half way.
    pub(super) fn part<T>(
        &self,
        call: Call,
        run: impl FnOnce(&mut Tree, bool) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let mut inner = self.lock();
        match inner.fate(call) {
            Fate::Well => run(&mut inner.tree, false),
            Fate::Half => run(&mut inner.tree, true),
            Fate::Fails(error) => Err(error),
            Fate::FailsLate(error) => run(&mut inner.tree, false).and(Err(error)),
        }
    }
}

impl Inner {
    fn fate(&mut self, call: Call) -> Fate {
        let Some(fault) = self.fault.filter(|fault| fault.meets(call)) else { return Fate::Well };
        if self.left > 0 {
            self.left -= 1;
            return Fate::Well;
        }
        self.met = self.met.or(Some(call));
        if !matches!(fault, Fault::Lasting(_)) {
            self.fault = None;
        }
        match fault {
            Fault::Once(error) | Fault::Lasting(error) => Fate::Fails(error),
            Fault::Late(error) => Fate::FailsLate(error),
            Fault::Short => Fate::Half,
        }
    }
}

//! Rank 0: threads that work until they are told to stop.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Threads that are told to stop when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Threads {
    stop: Stop,
    joined: Vec<JoinHandle<()>>,
}

/// Whether a thread is to stop, and a way to wait for that.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop(Arc<Signal>);

#[derive(Debug, Default)]
struct Signal {
    told: Mutex<bool>,
    changed: Condvar,
}

impl Threads {
    /// Starts a thread, which returns soon after it is told to stop: dropping these waits for it.
    ///
    /// # Errors
    /// Of a system that has no thread left.
    pub(crate) fn start(
        &mut self,
        name: &str,
        work: impl FnOnce(&Stop) + Send + 'static,
    ) -> io::Result<()> {
        self.joined.push(self.spawn(name, work)?);
        Ok(())
    }

    /// Starts a thread that others may keep waiting: it is told to stop, and nobody waits for it.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub(crate) fn start_detached(
        &self,
        name: &str,
        work: impl FnOnce(&Stop) + Send + 'static,
    ) -> io::Result<()> {
        self.spawn(name, work).map(drop)
    }

    fn spawn(
        &self,
        name: &str,
        work: impl FnOnce(&Stop) + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let stop = self.stop.clone();
        Builder::new().name(name.to_owned()).spawn(move || work(&stop))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.set();
        for thread in self.joined.drain(..) {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            if thread.join().is_err() {
                log::error!("the thread {name} ended in a panic");
            }
        }
    }
}

impl Stop {
    /// True once the thread is told to stop.
    pub(crate) fn is_set(&self) -> bool {
        *self.0.told.lock()
    }

    /// The same, for work that asks whether to go on.
    pub(crate) fn flow(&self) -> ControlFlow<()> {
        if self.is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Waits for `pause`, or until the thread is told to stop: true then.
    pub(crate) fn within(&self, pause: Duration) -> bool {
        let mut told = self.0.told.lock();
        self.0.changed.wait_while_for(&mut told, |told| !*told, pause);
        *told
    }

    fn set(&self) {
        *self.0.told.lock() = true;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn all_threads_stop_and_are_waited_for() {
        let (mut threads, ended) = (Threads::default(), Arc::new(AtomicUsize::new(0)));
        for _ in 0..3 {
            let ended = Arc::clone(&ended);
            let work = move |stop: &Stop| {
                assert!(stop.within(LONG) && stop.is_set());
                ended.fetch_add(1, Ordering::AcqRel);
            };
            threads.start("waits", work).unwrap();
        }
        drop(threads);
        assert_eq!(ended.load(Ordering::Acquire), 3);
    }

    #[test]
    fn a_pause_without_a_stop_ends_by_itself() {
        let stop = Stop::default();
        assert!(!stop.within(Duration::from_millis(1)) && !stop.is_set());
        stop.set();
        assert!(stop.within(LONG) && stop.is_set());
    }

    #[test]
    fn a_detached_thread_is_told_and_keeps_nobody_waiting() {
        let (threads, (release, hang)) = (Threads::default(), mpsc::channel::<()>());
        let (tell, told) = mpsc::channel();
        let work = move |stop: &Stop| {
            let _ = hang.recv();
            tell.send(stop.is_set()).unwrap();
        };
        threads.start_detached("hangs", work).unwrap();
        drop(threads);
        release.send(()).unwrap();
        assert!(told.recv().unwrap());
    }

    #[test]
    fn a_thread_that_panics_is_no_panic_of_who_waits_for_it() {
        let mut threads = Threads::default();
        threads.start("panics", |_| panic!("for the test")).unwrap();
        drop(threads);
    }
}

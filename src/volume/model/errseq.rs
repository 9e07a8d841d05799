//! Write-backs that failed, as each handle learns of them: what the kernel's `errseq_t` does.
//!
//! A disk says only once, and to whoever asks next, that it could not keep what it was given. In here
//! whoever meets that writes it down, and each handle compares what it knows when it is asked for a
//! sync: it is told once, and no other is passed over for it. A handle that is opened later is told
//! only of what nobody has heard of yet.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};
use rustix::io::Errno;

/// The failed write-backs of one inode.
#[derive(Debug, Default)]
pub struct WriteErrors(Mutex<Errors>);

/// How much of it a handle knows.
#[derive(Debug, Default)]
pub struct Heard(AtomicU64);

/// Those of the directories that had any, by inode number.
#[derive(Debug, Default)]
pub(in crate::volume) struct DirErrors(Mutex<HashMap<u64, WriteErrors>>);

#[derive(Debug, Default)]
struct Errors {
    count: u64,
    /// As many of them as somebody was told of.
    reported: u64,
    last: Option<Errno>,
}

impl WriteErrors {
    /// Goes on where an inode was closed while nobody had heard of `unreported`.
    pub(in crate::volume) fn resumed(unreported: Option<Errno>) -> Self {
        let errors = Self::default();
        if let Some(error) = unreported {
            errors.record(error);
        }
        errors
    }

    /// Notes that something which was written may not be on the disk.
    pub fn record(&self, error: Errno) {
        let mut errors = self.lock();
        errors.count += 1;
        errors.last = Some(error);
    }

    /// What a handle that is opened now knows: all that somebody was told of.
    pub fn sample(&self) -> Heard {
        Heard(AtomicU64::new(self.lock().reported))
    }

    /// Tells a handle what it does not know yet.
    ///
    /// # Errors
    /// The last failure, if there was one since the handle was opened or last told.
    pub fn tell(&self, heard: &Heard) -> Result<(), Errno> {
        let mut errors = self.lock();
        if heard.0.swap(errors.count, Ordering::Relaxed) == errors.count {
            return Ok(());
        }
        errors.reported = errors.count;
        errors.last.map_or(Ok(()), Err)
    }

    /// The last failure, if nobody was told of it.
    pub(in crate::volume) fn unreported(&self) -> Option<Errno> {
        let errors = self.lock();
        errors.last.filter(|_| errors.reported < errors.count)
    }

    /// They were those of another file.
    pub(in crate::volume) fn forget(&self) {
        *self.lock() = Errors::default();
    }

    fn lock(&self) -> MutexGuard<'_, Errors> {
        self.0.lock()
    }
}

impl DirErrors {
    pub(in crate::volume) fn record(&self, dir: u64, error: Errno) {
        self.lock().entry(dir).or_default().record(error);
    }

    pub(in crate::volume) fn sample(&self, dir: u64) -> Heard {
        self.lock().get(&dir).map_or_else(Heard::default, WriteErrors::sample)
    }

    pub(in crate::volume) fn tell(&self, dir: u64, heard: &Heard) -> Result<(), Errno> {
        self.lock().get(&dir).map_or(Ok(()), |errors| errors.tell(heard))
    }

    /// The directory is gone.
    pub(in crate::volume) fn remove(&self, dir: u64) {
        self.lock().remove(&dir);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, WriteErrors>> {
        self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IO: Result<(), Errno> = Err(Errno::IO);

    #[test]
    fn each_handle_that_was_open_is_told_once() {
        let errors = WriteErrors::default();
        let (one, other) = (errors.sample(), errors.sample());
        assert_eq!(errors.tell(&one), Ok(()));
        errors.record(Errno::IO);
        errors.record(Errno::IO);
        assert_eq!((errors.tell(&one), errors.tell(&one)), (IO, Ok(())));
        assert_eq!((errors.tell(&other), errors.tell(&other)), (IO, Ok(())));
        errors.record(Errno::NOSPC);
        assert_eq!(errors.tell(&one), Err(Errno::NOSPC), "the next failure is news again");
        assert_eq!(errors.tell(&one), Ok(()));
    }

    #[test]
    fn a_later_handle_is_told_only_of_what_nobody_has_heard_of() {
        let errors = WriteErrors::default();
        let early = errors.sample();
        errors.record(Errno::IO);
        let late = errors.sample();
        assert_eq!((errors.tell(&late), errors.tell(&early)), (IO, IO));
        assert_eq!(errors.tell(&errors.sample()), Ok(()));
    }

    #[test]
    fn handles_of_a_directory_are_told_as_well() {
        let errors = DirErrors::default();
        let (one, other) = (errors.sample(7), errors.sample(7));
        errors.record(7, Errno::IO);
        assert_eq!((errors.tell(7, &one), errors.tell(7, &one)), (IO, Ok(())));
        assert_eq!((errors.tell(7, &other), errors.tell(8, &errors.sample(8))), (IO, Ok(())));
        assert_eq!(errors.tell(7, &errors.sample(7)), Ok(()));
        errors.remove(7);
        assert_eq!(errors.tell(7, &one), Ok(()));
    }

    #[test]
    fn what_nobody_was_told_of_outlives_the_last_close() {
        let errors = WriteErrors::default();
        errors.record(Errno::DQUOT);
        let next = WriteErrors::resumed(errors.unreported());
        assert_eq!(next.tell(&next.sample()), Err(Errno::DQUOT));
        assert_eq!(next.unreported(), None);
        assert_eq!(WriteErrors::resumed(None).unreported(), None);
    }
}

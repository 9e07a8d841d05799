//! The numbers by which the kernel names open files and directories.

use std::sync::Arc;

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Open things by number.
#[derive(Debug)]
pub(super) struct Handles<T> {
    slots: RwLock<Slots<T>>,
}

#[derive(Debug)]
struct Slots<T> {
    open: Vec<Option<Arc<T>>>,
    free: Vec<usize>,
}

impl<T> Handles<T> {
    /// Keeps `value` until [`Self::remove`] and returns its number.
    pub(super) fn add(&self, value: T) -> u64 {
        let mut slots = self.write();
        let value = Some(Arc::new(value));
        let free = slots.free.pop();
        let index = match free.and_then(|index| Some((index, slots.open.get_mut(index)?))) {
            Some((index, slot)) => {
                *slot = value;
                index
            }
            None => {
                slots.open.push(value);
                slots.open.len() - 1
            }
        };
        index as u64
    }

    /// What has this number, if it is open.
    pub(super) fn find(&self, number: u64) -> Option<Arc<T>> {
        let index = usize::try_from(number).ok()?;
        self.read().open.get(index)?.clone()
    }

    /// Gives the number back.
    pub(super) fn remove(&self, number: u64) -> Option<Arc<T>> {
        let index = usize::try_from(number).ok()?;
        let mut slots = self.write();
        let value = slots.open.get_mut(index)?.take()?;
        slots.free.push(index);
        Some(value)
    }

    fn read(&self) -> RwLockReadGuard<'_, Slots<T>> {
        self.slots.read()
    }

    fn write(&self) -> RwLockWriteGuard<'_, Slots<T>> {
        self.slots.write()
    }
}

impl<T> Default for Handles<T> {
    fn default() -> Self {
        Self { slots: RwLock::new(Slots { open: Vec::new(), free: Vec::new() }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_used_again_only_after_they_were_given_back() {
        let handles = Handles::default();
        let (a, b) = (handles.add("a"), handles.add("b"));
        assert_ne!(a, b);
        assert_eq!(handles.remove(a).as_deref(), Some(&"a"));
        assert!(handles.find(a).is_none());
        assert!(handles.remove(a).is_none());
        assert_eq!(handles.add("c"), a);
        assert_eq!(handles.find(b).as_deref(), Some(&"b"));
        assert!(handles.find(99).is_none());
    }
}

//! One of a fixed number of places for each inode: locks and counts that take no memory per inode.

/// Places that inodes share by their number. Inodes beside each other have places of their own.
#[derive(Debug)]
pub(in crate::volume) struct ByInode<T>(Box<[T]>);

impl<T: Default> ByInode<T> {
    /// This many places, at least one.
    pub(in crate::volume) fn new(places: usize) -> Self {
        Self((0..places.max(1)).map(|_| T::default()).collect())
    }
}

impl<T> ByInode<T> {
    /// The place of an inode.
    pub(in crate::volume) fn of(&self, ino: u64) -> &T {
        let place = usize::try_from(ino % self.0.len() as u64).unwrap_or(0);
        &self.0[place]
    }

    /// All places.
    pub(in crate::volume) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_place_and_neighbours_have_their_own() {
        let places = ByInode::<u8>::new(3);
        assert!(std::ptr::eq(places.of(1), places.of(4)));
        assert!(!std::ptr::eq(places.of(1), places.of(2)));
        assert_eq!(ByInode::<u8>::new(0).of(u64::MAX), &0);
    }
}

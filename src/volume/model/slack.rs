//! Maps that were much larger once give their room back.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};

/// Maps of so few entries keep their room.
const FEW: usize = 1024;

/// Gives room back if less than a quarter of it is used. To be called after entries were removed: costs
/// nothing until then, and no more than what was removed since.
pub(in crate::volume) fn give_room_back<K: Eq + Hash, V, S: BuildHasher>(
    map: &mut HashMap<K, V, S>,
) {
    if map.capacity() > FEW && map.len() < map.capacity() / 4 {
        map.shrink_to(map.len() * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_given_back_when_most_of_it_is_free() {
        let mut map: HashMap<u32, u32> = (0..100_000).map(|n| (n, n)).collect();
        let full = map.capacity();
        for number in 0..99_990 {
            map.remove(&number);
            give_room_back(&mut map);
        }
        assert!(map.capacity() < full / 50, "{}", map.capacity());
        assert_eq!(map.len(), 10);
        let (mut small, before) = (HashMap::<u32, u32>::with_capacity(500), 500);
        give_room_back(&mut small);
        assert!(small.capacity() >= before);
    }
}

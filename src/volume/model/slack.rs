//! Memory that was needed once is given back.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::time::{Duration, Instant};

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

/// So many files leave enough behind to look for it.
const MANY: u64 = 4096;
/// After this time, files that were written are synced and sealed, and their opens are written down.
const SETTLED: Duration = Duration::from_secs(90);

/// When to give what the allocator holds back to the system. It keeps what was freed in between for who
/// needs it next, and nobody does after a burst.
#[derive(Debug, Default)]
pub(in crate::volume) struct GiveBack {
    /// What was counted when that began of which the rest was given back.
    done: u64,
    /// Since when there is more, and what was counted then.
    pending: Option<(Instant, u64)>,
}

impl GiveBack {
    /// True once the files are settled that were in use until a while ago, if they were many. `turnover`:
    /// a count of files that were used in any way.
    pub(in crate::volume) fn is_due(&mut self, turnover: u64, now: Instant) -> bool {
        match self.pending {
            None if turnover.saturating_sub(self.done) > MANY => {
                self.pending = Some((now, turnover));
                false
            }
            Some((since, counted)) if now.duration_since(since) >= SETTLED => {
                // What was counted since then is not settled.
                (self.done, self.pending) = (counted, None);
                true
            }
            _ => false,
        }
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

    #[test]
    fn memory_is_given_back_when_what_used_it_is_settled_and_once_for_that() {
        let (mut back, start) = (GiveBack::default(), Instant::now());
        let mut is_due =
            |turnover, second| back.is_due(turnover, start + Duration::from_secs(second));
        assert!(!is_due(100, 0) && !is_due(100, 1000), "few");
        assert!(!is_due(10_000, 1000) && !is_due(20_000, 1089));
        assert!(is_due(20_000, 1090));
        assert!(!is_due(20_000, 1095), "what came after second 1000 is looked at later");
        assert!(is_due(20_000, 1185) && !is_due(20_000, 1190) && !is_due(20_000, 9000));
    }
}

//! Keys by small numbers: every inode has one.

use std::collections::HashMap;

use super::nodes::PagesUnder;
use crate::id::KeyId;

/// Numbers for the keys of pages that the kernel may have.
#[derive(Debug, Default)]
pub(super) struct KeyNumbers(HashMap<KeyId, u16>);

/// For keys that came when all numbers were given. They count as every key: dropping pages harms nobody.
const ANY: PagesUnder = PagesUnder(u16::MAX);
const WITHOUT_KEY: PagesUnder = PagesUnder(1);
const FIRST: usize = 2;

impl PagesUnder {
    /// True if the kernel may have pages.
    pub(super) fn is_any(self) -> bool {
        self != Self::default()
    }
}

impl KeyNumbers {
    /// The number of pages under `key`.
    pub(super) fn number(&mut self, key: Option<KeyId>) -> PagesUnder {
        let Some(key) = key else { return WITHOUT_KEY };
        if let Some(number) = self.0.get(&key) {
            return PagesUnder(*number);
        }
        match u16::try_from(self.0.len() + FIRST) {
            Ok(number) if number < ANY.0 => {
                self.0.insert(key, number);
                PagesUnder(number)
            }
            _ => ANY,
        }
    }

    /// The numbers that pages under these keys may have.
    pub(super) fn numbers_of(&self, keys: &[KeyId]) -> Vec<PagesUnder> {
        let known = keys.iter().filter_map(|key| self.0.get(key)).copied().map(PagesUnder);
        known.chain([ANY]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> KeyId {
        let mut bytes = [1; 16];
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        KeyId::from_bytes(bytes)
    }

    #[test]
    fn a_key_that_came_too_late_for_a_number_counts_as_every_key() {
        let mut numbers = KeyNumbers::default();
        assert!(numbers.number(None).is_any() && !PagesUnder::default().is_any());
        let all: Vec<_> = (0..70_000).map(|of| numbers.number(Some(key(of)))).collect();
        assert_eq!(all[5], numbers.number(Some(key(5))));
        assert_ne!(all[5], all[6]);
        assert_eq!(all[69_999], all[69_998]);
        assert!(numbers.numbers_of(&[key(5)]).contains(&all[5]));
        assert!(!numbers.numbers_of(&[key(5)]).contains(&all[6]));
        assert!(numbers.numbers_of(&[key(5)]).contains(&all[69_999]));
        assert!(!numbers.numbers_of(&[key(5)]).contains(&numbers.number(None)));
    }
}

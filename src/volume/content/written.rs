//! Which pages were written since the last sync, so that they can be written again after one failed.
//!
//! A kernel that could not write a page back keeps it in memory as if it had: the next sync has
//! nothing to do with it and succeeds. Written once more with what memory holds, it counts again.

use crate::envelope::layout::PageNo;

/// Ranges that are kept apart; beyond that the nearest two become one.
const RANGES: usize = 32;

/// Ranges of pages, in order and apart. It may hold more than was asked for, never less.
#[derive(Debug, Clone, Default)]
pub(super) struct Written(Vec<(u64, u64)>);

impl Written {
    /// Notes the pages from `first` to `last`.
    pub(super) fn add(&mut self, first: PageNo, last: PageNo) {
        let (mut from, mut to) = (first.0, last.0 + 1);
        // What is appended, or written again, costs next to nothing.
        if let Some((_, end)) = self.0.last_mut().filter(|(b, e)| (*b..=*e).contains(&from)) {
            *end = to.max(*end);
            return;
        }
        let start = self.0.partition_point(|(_, end)| *end < from);
        let end = self.0.partition_point(|(begin, _)| *begin <= to);
        if let Some(met) = self.0.get(start..end)
            && let (Some(low), Some(high)) = (met.first(), met.last())
        {
            (from, to) = (from.min(low.0), to.max(high.1));
        }
        self.0.splice(start..end, [(from, to)]);
        if self.0.len() > RANGES {
            self.join_nearest();
        }
    }

    /// The ranges: each the first page and the one behind the last.
    pub(super) fn ranges(&self) -> &[(u64, u64)] {
        &self.0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.0 = Vec::new();
    }

    fn join_nearest(&mut self) {
        let gaps = self.0.windows(2).map(|pair| match pair {
            [(_, end), (begin, _)] => begin - end,
            _ => u64::MAX,
        });
        let nearest = gaps.enumerate().min_by_key(|(_, gap)| *gap).map(|(at, _)| at);
        if let Some(at) = nearest {
            let (_, end) = self.0.remove(at + 1);
            if let Some(range) = self.0.get_mut(at) {
                range.1 = end;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pages: &[(u64, u64)]) -> Written {
        let mut written = Written::default();
        for (first, last) in pages {
            written.add(PageNo(*first), PageNo(*last));
        }
        written
    }

    #[test]
    fn ranges_that_touch_become_one() {
        assert_eq!(of(&[(5, 6), (1, 1), (9, 9)]).ranges(), [(1, 2), (5, 7), (9, 10)]);
        assert_eq!(of(&[(5, 6), (7, 8), (4, 4)]).ranges(), [(4, 9)]);
        assert_eq!(of(&[(1, 1), (5, 6), (9, 9), (2, 8)]).ranges(), [(1, 10)]);
        assert_eq!(of(&[(1, 9), (3, 4)]).ranges(), [(1, 10)]);
    }

    #[test]
    fn memory_is_bounded_and_no_page_is_left_out() {
        let pages: Vec<_> = (0..1000).map(|n| (n * 7 % 5003, n * 7 % 5003)).collect();
        let written = of(&pages);
        assert!(written.ranges().len() <= RANGES);
        for (page, _) in pages {
            assert!(written.ranges().iter().any(|(from, to)| (*from..*to).contains(&page)));
        }
        assert!(written.ranges().windows(2).all(|pair| pair[0].1 < pair[1].0));
    }
}

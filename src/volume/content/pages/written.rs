//! Which pages were written since the last sync, so that they can be written again after one failed.
//!
//! A kernel that could not write a page back keeps it in memory as if it had: the next sync has
//! nothing to do with it and succeeds. Written once more with what memory holds, it counts again.

use crate::envelope::layout::PageNo;

/// Ranges that are kept apart; beyond that the nearest two become one.
const RANGES: usize = 32;

/// Ranges of pages, in order and apart. It may hold more than was asked for, never less.
#[derive(Debug, Clone, Default)]
pub(in crate::volume::content) struct Written {
    ranges: Vec<(u64, u64)>,
    /// It does hold more, or a page of it was not written.
    blurred: bool,
}

/// Ranges of pages that a sync has made durable. It may hold less than was told, never more.
#[derive(Debug, Clone, Default)]
pub(in crate::volume::content) struct Synced(Written);

impl Synced {
    /// Notes what was written before a sync, as far as that is known and there is room for it.
    pub(in crate::volume::content) fn add(&mut self, written: &Written) {
        if written.blurred {
            return;
        }
        for (from, to) in written.ranges() {
            let mut with = self.0.clone();
            with.add(PageNo(*from), PageNo(to - 1));
            if !with.blurred {
                self.0 = with;
            }
        }
    }

    pub(in crate::volume::content) fn contains(&self, page: PageNo) -> bool {
        self.0.ranges().iter().any(|(from, to)| (*from..*to).contains(&page.0))
    }
}

impl Written {
    /// Notes the pages from `first` to `last`.
    pub(in crate::volume::content) fn add(&mut self, first: PageNo, last: PageNo) {
        let (mut from, mut to) = (first.0, last.0 + 1);
        // What is appended, or written again, costs next to nothing.
        if let Some((_, end)) = self.ranges.last_mut().filter(|(b, e)| (*b..=*e).contains(&from)) {
            *end = to.max(*end);
            return;
        }
        let start = self.ranges.partition_point(|(_, end)| *end < from);
        let end = self.ranges.partition_point(|(begin, _)| *begin <= to);
        if let Some(met) = self.ranges.get(start..end)
            && let (Some(low), Some(high)) = (met.first(), met.last())
        {
            (from, to) = (from.min(low.0), to.max(high.1));
        }
        self.ranges.splice(start..end, [(from, to)]);
        if self.ranges.len() > RANGES {
            self.join_nearest();
        }
    }

    /// The ranges: each the first page and the one behind the last.
    pub(in crate::volume::content) fn ranges(&self) -> &[(u64, u64)] {
        &self.ranges
    }

    /// Notes that something of it was not written after all.
    pub(in crate::volume::content) fn blur(&mut self) {
        self.blurred = true;
    }

    pub(in crate::volume::content) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub(in crate::volume::content) fn clear(&mut self) {
        *self = Self::default();
    }

    fn join_nearest(&mut self) {
        let gaps = self.ranges.windows(2).map(|pair| match pair {
            [(_, end), (begin, _)] => begin - end,
            _ => u64::MAX,
        });
        let nearest = gaps.enumerate().min_by_key(|(_, gap)| *gap).map(|(at, _)| at);
        if let Some(at) = nearest {
            self.blurred = true;
            let (_, end) = self.ranges.remove(at + 1);
            if let Some(range) = self.ranges.get_mut(at) {
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

    /// A page that was not written, and is told to be durable, would be taken for one that was taken
    /// away.
    #[test]
    fn nothing_is_told_to_be_durable_that_is_not() {
        let mut synced = Synced::default();
        let pages: Vec<_> = (0..40).map(|n| (n * 10, n * 10)).collect();
        synced.add(&of(&pages));
        assert!(synced.0.is_empty(), "it was blurred");
        for page in &pages {
            synced.add(&of(&[*page]));
        }
        for page in 0..500 {
            let told = page % 10 == 0 && page / 10 < RANGES as u64;
            assert_eq!(synced.contains(PageNo(page)), told, "{page}");
        }
        let (mut synced, mut failed) = (Synced::default(), of(&[(1, 9)]));
        failed.blur();
        synced.add(&failed);
        assert!(!synced.contains(PageNo(5)));
        failed.clear();
        failed.add(PageNo(5), PageNo(5));
        synced.add(&failed);
        assert!(synced.contains(PageNo(5)) && !synced.contains(PageNo(6)));
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

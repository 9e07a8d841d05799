//! The pages of one group that a write changes, and the calls that bring them out.

use rustix::io::Errno;

use crate::envelope::layout::{
    Block, Copy2, Group, HEADER_AREA, PAGE_LEN, Page, PageNo, in_memory,
};
use crate::volume::model::error::VolumeError;

/// What one write puts into one group: the sealed data pages of a run of blocks, the spill page that
/// has their tails, and in a new file the header slots, in memory as they go out.
///
/// *Order*: (1) the spill page; (2) page 0, with the header slots of a new file; (3) the other data
/// pages. Neighbours on the disk go out in one call: page 0 and the first copy of group 0, the first
/// copy of any other group and its first data page.
///
/// *Crash*: pages reach the disk in any order, each whole or not at all, whichever call they were in.
/// A data page without its entry, or an entry without its data page, is told by the binding (R10),
/// and the copy that was durable is another one (R2a). The order is for the disk that has no room, or
/// fails: (R13) a spill page that did not arrive leaves the data pages as they were; after it those
/// that follow may be missing from some block on, and the caller takes their tails back. So a page 0
/// does not go out before a spill page that may find no room ([`Self::keep_spill_apart_unless`]).
pub(in crate::volume::content) struct PageBatch<'a> {
    first: Block,
    end: Block,
    /// Block 0, the spill page, the other blocks.
    pages: &'a mut [Page],
    /// The spill page goes out, to this copy.
    spill: Option<Copy2>,
    /// Never in one call with page 0.
    apart: bool,
    /// Page 0 goes out with its header slots.
    slots: bool,
}

/// One call to the backing file.
pub(in crate::volume::content) struct Call<'a> {
    /// Where it goes.
    pub(in crate::volume::content) offset: u64,
    /// What goes there.
    pub(in crate::volume::content) bytes: &'a [u8],
    /// Which of its pages is the spill page.
    spill: Option<usize>,
}

/// How much of a call is in the backing file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::volume::content) struct Landed {
    /// Data pages, from the first on.
    pub(in crate::volume::content) blocks: u64,
    /// The spill page, if it was in the call.
    pub(in crate::volume::content) spill: Option<Arrival>,
    /// All of it.
    pub(in crate::volume::content) whole: bool,
}

/// What is known of a page after the call that was to write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::volume::content) enum Arrival {
    /// It is there.
    Whole,
    /// Nothing of it is: the page is as it was.
    Nothing,
    /// Nobody knows what the page holds.
    Unknown,
}

/// Where in memory block 0, the spill page and the other blocks are.
const ZERO: usize = 0;
const SPILL: usize = 1;
const DATA: usize = 2;

impl<'a> PageBatch<'a> {
    /// How many pages of memory the blocks from `first` up to `end` need.
    pub(in crate::volume::content) fn room(first: Block, end: Block) -> usize {
        DATA + in_memory(end.0 - first.0)
    }

    /// A batch of the blocks from `first` up to `end`, all of one group, in [`Self::room`] pages with
    /// arbitrary contents.
    pub(in crate::volume::content) fn new(first: Block, end: Block, pages: &'a mut [Page]) -> Self {
        Self { first, end, pages, spill: None, apart: false, slots: false }
    }

    /// The group.
    pub(in crate::volume::content) fn group(&self) -> Group {
        self.first.group()
    }

    /// How many blocks there are.
    pub(in crate::volume::content) fn count(&self) -> u64 {
        self.end.0 - self.first.0
    }

    /// The blocks.
    pub(in crate::volume::content) fn blocks(&self) -> impl Iterator<Item = Block> + use<> {
        (self.first.0..self.end.0).map(Block)
    }

    /// The data page of one of the blocks.
    pub(in crate::volume::content) fn page(&self, block: Block) -> &Page {
        &self.pages[self.index(block)]
    }

    /// The same, to be sealed.
    pub(in crate::volume::content) fn page_mut(&mut self, block: Block) -> &mut Page {
        &mut self.pages[self.index(block)]
    }

    /// The spill page, to be sealed: it goes out as this copy.
    pub(in crate::volume::content) fn spill_mut(&mut self, copy: Copy2) -> &mut Page {
        self.spill = Some(copy);
        &mut self.pages[SPILL]
    }

    /// The header slots, to be filled: page 0 goes out with them.
    pub(in crate::volume::content) fn slots_mut(&mut self) -> &mut [u8; HEADER_AREA] {
        self.slots = true;
        self.pages[ZERO].first_chunk_mut().expect("page 0 begins with the slots")
    }

    /// True if block 0 is one of them.
    pub(in crate::volume::content) fn begins_the_file(&self) -> bool {
        self.first.0 == 0
    }

    /// Gives a spill page that may find no room a call of its own, before page 0.
    pub(in crate::volume::content) fn keep_spill_apart_unless(&mut self, has_room: bool) {
        self.apart = !has_room;
    }

    /// The calls, in their order. One that does not arrive whole is the last one made.
    pub(in crate::volume::content) fn calls(&self) -> impl Iterator<Item = Call<'_>> {
        let (zero, group) = (self.first.0 == 0, self.group());
        let is_first_copy = self.spill == Some(Copy2::First);
        let after_zero = zero && is_first_copy && !self.apart;
        let before_data = !zero && is_first_copy && self.first == group.first_block();
        let alone = self.spill.filter(|_| !after_zero && !before_data);
        let spill = alone.map(|copy| {
            let page = group.spill_page(copy);
            self.call(page.offset(), SPILL * PAGE_LEN..DATA * PAGE_LEN, Some(0))
        });
        let zero_page = zero.then(|| {
            let start = if self.slots { 0 } else { HEADER_AREA };
            let end = if after_zero { DATA } else { SPILL } * PAGE_LEN;
            self.call(start as u64, start..end, after_zero.then_some(1))
        });
        let data =
            Some(Block(self.first.0.max(1))).filter(|first| *first < self.end).map(|first| {
                let pages = DATA + in_memory(self.end.0 - first.0);
                let from = if before_data { SPILL } else { DATA };
                let offset = match before_data {
                    true => group.spill_page(Copy2::First).offset(),
                    false => first.data_page().offset(),
                };
                self.call(offset, from * PAGE_LEN..pages * PAGE_LEN, before_data.then_some(0))
            });
        [spill, zero_page, data].into_iter().flatten()
    }

    fn call(&self, offset: u64, bytes: std::ops::Range<usize>, spill: Option<usize>) -> Call<'_> {
        Call { offset, bytes: &self.pages.as_flattened()[bytes], spill }
    }

    fn index(&self, block: Block) -> usize {
        match block.0 {
            0 => ZERO,
            number => DATA + in_memory(number - self.first.0.max(1)),
        }
    }
}

impl<'a> Call<'a> {
    /// A spill page by itself.
    pub(in crate::volume::content) fn of_spill(number: PageNo, page: &'a Page) -> Self {
        Self { offset: number.offset(), bytes: page, spill: Some(0) }
    }

    /// How much of it arrived, by the result of the call.
    pub(in crate::volume::content) fn landed(&self, went: Result<usize, Errno>) -> Landed {
        let taken = *went.as_ref().unwrap_or(&0);
        let pages = self.whole_pages(taken);
        let spill = self.spill.map(|at| match went {
            Ok(_) if pages > at => Arrival::Whole,
            Ok(0) => Arrival::Nothing,
            // It ended before the page began.
            Ok(_) if pages < at => Arrival::Nothing,
            // The system says that there is no room, and has touched nothing.
            Err(error) if is_full(error) => Arrival::Nothing,
            _ => Arrival::Unknown,
        });
        let blocks = pages - usize::from(spill == Some(Arrival::Whole));
        Landed { blocks: blocks as u64, spill, whole: went == Ok(self.bytes.len()) }
    }

    /// Page 0 goes out without its slots, so the first page may be shorter than the others.
    fn whole_pages(&self, taken: usize) -> usize {
        let missing = self.bytes.len().next_multiple_of(PAGE_LEN) - self.bytes.len();
        if taken == 0 { 0 } else { (taken + missing) / PAGE_LEN }
    }
}

/// True for an error by which the system says that there is no room: it has changed nothing.
pub(in crate::volume::content) fn is_untouched(error: &VolumeError) -> bool {
    matches!(error, VolumeError::Io(error) if is_full(*error))
}

fn is_full(error: Errno) -> bool {
    matches!(error, Errno::NOSPC | Errno::DQUOT | Errno::FBIG)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PART: u64 = HEADER_AREA as u64;

    /// Offsets and lengths of the calls, in pages where they are whole.
    fn calls(blocks: std::ops::Range<u64>, spill: Option<Copy2>, apart: bool) -> Vec<(u64, usize)> {
        let (first, end) = (Block(blocks.start), Block(blocks.end));
        let mut pages = vec![[0; PAGE_LEN]; PageBatch::room(first, end)];
        let mut batch = PageBatch::new(first, end, &mut pages);
        if let Some(copy) = spill {
            batch.spill_mut(copy)[0] = 1;
        }
        batch.keep_spill_apart_unless(!apart);
        batch.calls().map(|call| (call.offset, call.bytes.len())).collect()
    }

    fn at(page: u64) -> u64 {
        PageNo(page).offset()
    }

    #[test]
    fn the_spill_page_goes_first_or_with_its_neighbour() {
        use Copy2::{First, Second};
        let group = Group(2);
        let (start, page) = (group.first_block().0, group.first_page().0);
        assert_eq!(calls(5..6, None, false), [(at(7), PAGE_LEN)], "an overwrite without tails");
        assert_eq!(calls(5..6, Some(First), false), [(at(1), PAGE_LEN), (at(7), PAGE_LEN)]);
        let whole = start..start + 74;
        assert_eq!(calls(whole.clone(), Some(First), false), [(at(page + 1), 75 * PAGE_LEN)]);
        let apart = [(at(page), PAGE_LEN), (at(page + 2), 74 * PAGE_LEN)];
        assert_eq!(calls(whole, Some(Second), false), apart);
        let inner = [(at(page + 1), PAGE_LEN), (at(page + 3), PAGE_LEN)];
        assert_eq!(calls(start + 1..start + 2, Some(First), false), inner);
    }

    #[test]
    fn page_0_takes_the_first_copy_along_unless_that_may_find_no_room() {
        use Copy2::{First, Second};
        let part = PAGE_LEN - HEADER_AREA;
        assert_eq!(calls(0..1, None, false), [(PART, part)]);
        assert_eq!(calls(0..1, Some(First), false), [(PART, part + PAGE_LEN)]);
        let with_data = [(PART, part + PAGE_LEN), (at(3), 2 * PAGE_LEN)];
        assert_eq!(calls(0..3, Some(First), false), with_data);
        let apart = [(at(1), PAGE_LEN), (PART, part), (at(3), 2 * PAGE_LEN)];
        assert_eq!(calls(0..3, Some(First), true), apart);
        let second = [(at(2), PAGE_LEN), (PART, part), (at(3), 2 * PAGE_LEN)];
        assert_eq!(calls(0..3, Some(Second), false), second);
    }

    #[test]
    fn every_page_goes_out_once_and_to_its_own_place() {
        for (first, end) in [(0, 1), (0, 36), (5, 9), (36, 110), (40, 41), (110, 150)] {
            for copy in [Copy2::First, Copy2::Second] {
                let (first, end) = (Block(first), Block(end));
                let mut pages = vec![[0xee; PAGE_LEN]; PageBatch::room(first, end)];
                let mut batch = PageBatch::new(first, end, &mut pages);
                let mut expected = vec![batch.group().spill_page(copy).0];
                for block in batch.blocks() {
                    *batch.page_mut(block) = [u8::try_from(block.data_page().0).unwrap(); PAGE_LEN];
                    expected.push(block.data_page().0);
                }
                let spill = u8::try_from(batch.group().spill_page(copy).0).unwrap();
                *batch.spill_mut(copy) = [spill; PAGE_LEN];
                if first.0 == 0 {
                    batch.slots_mut().fill(0);
                }
                let mut found = Vec::new();
                for call in batch.calls() {
                    for (number, page) in call.bytes.chunks_exact(PAGE_LEN).enumerate() {
                        let number = call.offset / PAGE_LEN as u64 + number as u64;
                        assert_eq!(u64::from(page[PAGE_LEN - 1]), number);
                        found.push(number);
                    }
                }
                expected.sort_unstable();
                found.sort_unstable();
                assert_eq!(found, expected);
            }
        }
    }

    fn landed(call: usize, blocks: u64, went: Result<usize, Errno>) -> Landed {
        let mut pages = vec![[0; PAGE_LEN]; 80];
        let first = Block(if blocks == 74 { 36 } else { 0 });
        let mut batch = PageBatch::new(first, Block(first.0 + blocks), &mut pages);
        batch.spill_mut(Copy2::First);
        batch.calls().nth(call).unwrap().landed(went)
    }

    #[test]
    fn what_a_call_took_is_counted_in_whole_pages() {
        use Arrival::{Nothing, Unknown, Whole};
        let part = PAGE_LEN - HEADER_AREA;
        let of = |blocks, spill, whole| Landed { blocks, spill: Some(spill), whole };
        // Page 0, then the spill page.
        assert_eq!(landed(0, 1, Ok(0)), of(0, Nothing, false));
        assert_eq!(landed(0, 1, Ok(part - 1)), of(0, Nothing, false));
        assert_eq!(landed(0, 1, Ok(part)), of(1, Unknown, false));
        assert_eq!(landed(0, 1, Ok(part + PAGE_LEN - 1)), of(1, Unknown, false));
        assert_eq!(landed(0, 1, Ok(part + PAGE_LEN)), of(1, Whole, true));
        // The spill page, then 74 others.
        assert_eq!(landed(0, 74, Ok(0)), of(0, Nothing, false));
        assert_eq!(landed(0, 74, Ok(1)), of(0, Unknown, false));
        assert_eq!(landed(0, 74, Ok(PAGE_LEN)), of(0, Whole, false));
        assert_eq!(landed(0, 74, Ok(3 * PAGE_LEN - 1)), of(1, Whole, false));
        assert_eq!(landed(0, 74, Ok(75 * PAGE_LEN)), of(74, Whole, true));
        // Data pages by themselves.
        let data = Landed { blocks: 1, spill: None, whole: false };
        assert_eq!(landed(1, 3, Ok(PAGE_LEN + 100)), data);
        for (error, arrival) in
            [(Errno::NOSPC, Nothing), (Errno::DQUOT, Nothing), (Errno::IO, Unknown)]
        {
            assert_eq!(landed(0, 1, Err(error)), of(0, arrival, false));
            assert_eq!(landed(0, 74, Err(error)), of(0, arrival, false));
        }
    }
}

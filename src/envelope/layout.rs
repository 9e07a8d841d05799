//! All arithmetic between plaintext offsets and backing pages (FORMAT section 2).
//!
//! A backing file is a row of 4096-byte pages. Page 0 holds the header slots and the first payload
//! of block 0. Every plaintext block of 4096 bytes has a data page of its own, which keeps its first
//! [`DATA_PAYLOAD`] bytes; the rest, its tail, lies in the spill page of its group. Each group has
//! two spill copies. The backing length is `4096 * n + t`: `n` pages and a hole of `t` bytes that is
//! never written and only tells the length of the last block.
//!
//! ```text
//! group 0:  [header + block 0][copy 0][copy 1][block 1] .. [block 35]
//! group g:  [copy 1][copy 0][first block] .. [74th block]
//! ```

/// Bytes of a backing page, and of a plaintext block.
pub const PAGE: u64 = 4096;
/// [`PAGE`] as a buffer length.
pub const PAGE_LEN: usize = 4096;
/// The bytes of a backing page, or of a plaintext block.
pub type Page = [u8; PAGE_LEN];
/// Bytes of a unit before its ciphertext: nonce 24, tag 16, length 2, kind 1, flags 1.
pub const UNIT_HEADER: usize = 44;
/// Bytes of a block that its data page holds.
pub const DATA_PAYLOAD: usize = PAGE_LEN - UNIT_HEADER;
/// Bytes of a whole block that go into its spill entry.
pub const TAIL: usize = PAGE_LEN - DATA_PAYLOAD;
/// Bytes of page 0 before its unit: two header slots of 512 bytes.
pub const HEADER_AREA: usize = 1024;
/// Bytes of block 0 that page 0 holds.
pub const FIRST_PAYLOAD: usize = PAGE_LEN - HEADER_AREA - UNIT_HEADER;
/// Bytes of block 0 that go into its spill entry.
pub const FIRST_TAIL: usize = PAGE_LEN - FIRST_PAYLOAD;
/// Bytes that the spill entry of block 0 reserves: enough for header slots of 1024 bytes (R8).
pub const FIRST_TAIL_ROOM: usize = FIRST_TAIL + HEADER_AREA;
/// Blocks in group 0: fixed for every layout of page 0, sized for the widest (R8).
pub const FIRST_GROUP_BLOCKS: u64 = 36;
/// Blocks in every other group.
pub const GROUP_BLOCKS: u64 = 74;
/// The longest plaintext that a file may have.
pub const MAX_SIZE: u64 = 1 << 50;

const FIRST_GROUP_PAGES: u64 = 2 + FIRST_GROUP_BLOCKS;
const GROUP_PAGES: u64 = 2 + GROUP_BLOCKS;

/// A plaintext block, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block(pub u64);

/// A group of blocks that share a spill pair, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(pub u64);

/// A page of the backing file, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageNo(pub u64);

/// One of the two copies of a spill page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Copy2 {
    /// The copy that a group writes first.
    First,
    /// The other one.
    Second,
}

impl Copy2 {
    /// The copy that this one is not.
    pub fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// What a backing page is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageRole {
    /// It holds the start of this block (page 0: behind the header slots).
    Data(Block),
    /// It is a copy of this group's spill page.
    Spill(Group, Copy2),
}

impl Block {
    /// The block that holds the plaintext byte at `offset`.
    pub fn of_offset(offset: u64) -> Self {
        Self(offset / PAGE)
    }

    /// The plaintext offset of the block's first byte.
    pub fn start(self) -> u64 {
        self.0 * PAGE
    }

    /// The group that the block belongs to.
    pub fn group(self) -> Group {
        match self.0.checked_sub(FIRST_GROUP_BLOCKS) {
            None => Group(0),
            Some(rest) => Group(1 + rest / GROUP_BLOCKS),
        }
    }

    /// The block's place among the blocks of its group, from 0.
    pub fn index(self) -> usize {
        in_memory(self.0 - self.group().first_block().0)
    }

    /// How many bytes of the block lie before the plaintext offset `offset`.
    pub fn before(self, offset: u64) -> usize {
        in_memory(offset.saturating_sub(self.start()).min(PAGE))
    }

    /// The page that holds the block's first bytes.
    pub fn data_page(self) -> PageNo {
        if self.0 == 0 {
            return PageNo(0);
        }
        let group = self.group();
        match group.0 {
            0 => PageNo(2 + self.0),
            _ => PageNo(group.first_page().0 + 2 + (self.0 - group.first_block().0)),
        }
    }

    /// How many bytes of the block its data page holds.
    pub fn payload(self) -> usize {
        if self.0 == 0 { FIRST_PAYLOAD } else { DATA_PAYLOAD }
    }
}

impl Group {
    /// The first block of the group.
    pub fn first_block(self) -> Block {
        match self.0.checked_sub(1) {
            None => Block(0),
            Some(before) => Block(FIRST_GROUP_BLOCKS + before * GROUP_BLOCKS),
        }
    }

    /// How many blocks the group has.
    pub fn blocks(self) -> u64 {
        if self.0 == 0 { FIRST_GROUP_BLOCKS } else { GROUP_BLOCKS }
    }

    /// The same as a number of entries of its spill page.
    pub fn entries(self) -> usize {
        in_memory(self.blocks())
    }

    /// The block after the group's last one.
    pub fn end_block(self) -> Block {
        Block(self.first_block().0 + self.blocks())
    }

    /// The first page of the group: a spill copy, or page 0.
    pub fn first_page(self) -> PageNo {
        match self.0.checked_sub(1) {
            None => PageNo(0),
            Some(before) => PageNo(FIRST_GROUP_PAGES + before * GROUP_PAGES),
        }
    }

    /// The page of one of the group's spill copies.
    pub fn spill_page(self, copy: Copy2) -> PageNo {
        let offset = match (self.0, copy) {
            (0, Copy2::First) | (1.., Copy2::First) => 1,
            (0, Copy2::Second) => 2,
            (1.., Copy2::Second) => 0,
        };
        PageNo(self.first_page().0 + offset)
    }
}

impl PageNo {
    /// The backing offset of the page.
    pub fn offset(self) -> u64 {
        self.0 * PAGE
    }

    /// Where in the page its unit starts.
    pub fn unit_start(self) -> usize {
        if self.0 == 0 { HEADER_AREA } else { 0 }
    }

    /// The bytes of its unit.
    pub fn unit(self, page: &Page) -> &[u8] {
        &page[self.unit_start()..]
    }

    /// The same, to be changed.
    pub fn unit_mut(self, page: &mut Page) -> &mut [u8] {
        &mut page[self.unit_start()..]
    }

    /// What the page is for.
    pub fn role(self) -> PageRole {
        let Some(rest) = self.0.checked_sub(FIRST_GROUP_PAGES) else {
            return match self.0 {
                0 => PageRole::Data(Block(0)),
                1 => PageRole::Spill(Group(0), Copy2::First),
                2 => PageRole::Spill(Group(0), Copy2::Second),
                page => PageRole::Data(Block(page - 2)),
            };
        };
        let group = Group(1 + rest / GROUP_PAGES);
        match rest % GROUP_PAGES {
            0 => PageRole::Spill(group, Copy2::Second),
            1 => PageRole::Spill(group, Copy2::First),
            at => PageRole::Data(Block(group.first_block().0 + at - 2)),
        }
    }
}

/// The last block of a plaintext of `size` bytes, and how many bytes it has; `None` for size 0.
pub fn last_block(size: u64) -> Option<(Block, usize)> {
    let last = size.checked_sub(1)?;
    let block = Block::of_offset(last);
    Some((block, block.before(size)))
}

/// A number of bytes or blocks that lie in memory together, as the length of their buffer.
pub fn in_memory(count: u64) -> usize {
    usize::try_from(count).expect("what lies in memory can be counted there")
}

/// The number of backing pages of a plaintext of `size` bytes that has a header.
pub fn pages_of(size: u64) -> u64 {
    match last_block(size) {
        None => 1,
        Some((Block(0), length)) if length <= FIRST_PAYLOAD => 1,
        Some((Block(0), _)) => 3,
        Some((block, _)) => block.data_page().0 + 1,
    }
}

/// The backing length of a plaintext of `size` bytes that has a header.
pub fn backing_len(size: u64) -> u64 {
    let pages = pages_of(size);
    let hint = if pages == 1 { size } else { size % PAGE };
    pages * PAGE + hint
}

/// The plaintext size that a backing length tells, and whether the length is one that
/// [`backing_len`] gives (or 0).
///
/// Total: a length that no size has takes the last data page that exists (R8), and its unit then
/// says how long the block is.
pub fn plain_size(backing: u64) -> (u64, bool) {
    let (pages, hint) = (backing / PAGE, backing % PAGE);
    let first = FIRST_PAYLOAD as u64;
    match pages {
        0 => (0, hint == 0),
        1 => (hint.min(first), hint <= first),
        2 => (first, false),
        3 => match hint {
            0 => (PAGE, true),
            _ => (hint.max(first + 1), hint > first),
        },
        _ => match PageNo(pages - 1).role() {
            PageRole::Data(block) => {
                let length = if hint == 0 { PAGE } else { hint };
                (block.start() + length, true)
            }
            PageRole::Spill(group, _) => (group.first_block().start(), false),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worked_sizes_of_the_format_page() {
        for (plain, backing) in [
            (0, 4096),
            (1, 4097),
            (3028, 4096 + 3028),
            (3029, 3 * 4096 + 3029),
            (4096, 3 * 4096),
            (4097, 4 * 4096 + 1),
            (36 * 4096, 38 * 4096),
            (36 * 4096 + 1, 41 * 4096 + 1),
            (110 * 4096, 114 * 4096),
            (1 << 30, backing_len(1 << 30)),
        ] {
            assert_eq!(backing_len(plain), backing, "plain {plain}");
            assert_eq!(plain_size(backing), (plain, true), "backing {backing}");
        }
    }

    #[test]
    fn sizes_and_backing_lengths_are_a_bijection() {
        let mut previous = 4095;
        for size in (0..1_500_000).chain((1 << 40)..(1 << 40) + 600_000) {
            let backing = backing_len(size);
            assert_eq!(plain_size(backing), (size, true));
            if size != 1 << 40 {
                assert!(backing > previous || size == 0 || size % PAGE == 0, "{size}");
            }
            previous = backing;
        }
    }

    #[test]
    fn the_decoder_is_total_and_never_counts_a_page_that_is_not_there() {
        for backing in 0..(130 * PAGE) {
            let (size, valid) = plain_size(backing);
            assert_eq!(valid, backing == 0 || backing_len(size) == backing, "backing {backing}");
            if let Some((block, _)) = last_block(size) {
                assert!(block.data_page().0 < (backing / PAGE).max(1), "backing {backing}");
            }
        }
    }

    #[test]
    fn pages_and_blocks_name_each_other() {
        let mut data = 0;
        for page in 0..100_000 {
            match PageNo(page).role() {
                PageRole::Data(block) => {
                    assert_eq!(block, Block(data));
                    assert_eq!(block.data_page(), PageNo(page));
                    assert_eq!(block.group().first_block().0 + block.index() as u64, block.0);
                    data += 1;
                }
                PageRole::Spill(group, copy) => assert_eq!(group.spill_page(copy), PageNo(page)),
            }
        }
    }
}

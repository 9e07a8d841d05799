//! The plaintext of the blocks that a write changes: what is written, and what of its first and last
//! block stays.

use crate::crypto::Wiped;
use crate::envelope::layout::{Block, PAGE_LEN, Page, in_memory};
use crate::volume::model::error::Result;

/// What is written at an offset, block by block.
pub(in crate::volume::content) struct Plain<'a> {
    offset: u64,
    data: &'a [u8],
    /// Blocks that are covered in part.
    edges: [Option<Edge>; 2],
}

/// A block that a write covers only in part, merged with what it held.
struct Edge {
    block: Block,
    /// On the heap: a move would leave a copy on the stack.
    bytes: Box<Wiped<Page>>,
    length: usize,
}

impl<'a> Plain<'a> {
    /// `data`, at least a byte, at `offset` of a file of `size` bytes, which does not end before
    /// `offset`. `read` gives what a block holds that is covered in part.
    ///
    /// # Errors
    /// Those of `read`.
    pub(in crate::volume::content) fn merged(
        (offset, data): (u64, &'a [u8]),
        size: u64,
        mut read: impl FnMut(Block, &mut Page) -> Result<()>,
    ) -> Result<Self> {
        let mut plain = Self { offset, data, edges: [None, None] };
        let (first, last) = (plain.first(), Block(plain.end().0 - 1));
        let last = Some(last).filter(|last| *last != first);
        for (edge, block) in plain.edges.iter_mut().zip([Some(first), last]) {
            let Some(block) = block else { continue };
            let (from, to) = (block.before(offset), block.before(offset + data.len() as u64));
            let held = block.before(size);
            if from == 0 && to >= held {
                continue;
            }
            let mut bytes = Box::new(Wiped::new([0; PAGE_LEN]));
            if held > 0 {
                read(block, &mut bytes)?;
            }
            let start = in_memory(block.start() + from as u64 - offset);
            bytes[from..to].copy_from_slice(&data[start..start + (to - from)]);
            *edge = Some(Edge { block, bytes, length: held.max(to) });
        }
        Ok(plain)
    }

    /// The first block.
    pub(in crate::volume::content) fn first(&self) -> Block {
        Block::of_offset(self.offset)
    }

    /// The block behind the last.
    pub(in crate::volume::content) fn end(&self) -> Block {
        Block(Block::of_offset(self.offset + self.data.len() as u64 - 1).0 + 1)
    }

    /// The block's contents after the write, from its first byte: what goes into the data page, and
    /// the tail.
    pub(in crate::volume::content) fn halves(&self, block: Block) -> (&[u8], &[u8]) {
        let bytes = self.of(block);
        bytes.split_at(bytes.len().min(block.payload()))
    }

    fn of(&self, block: Block) -> &[u8] {
        if let Some(edge) = self.edges.iter().flatten().find(|edge| edge.block == block) {
            return &edge.bytes[..edge.length];
        }
        // A block that is no edge begins inside of the data.
        let rest = &self.data[in_memory(block.start() - self.offset)..];
        &rest[..rest.len().min(PAGE_LEN)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::layout::{FIRST_PAYLOAD, PAGE};
    use crate::volume::model::error::VolumeError;

    /// A write into a file of `size` bytes `1`, and the blocks that it had to read.
    fn write(offset: u64, data: &[u8], size: u64) -> (Plain<'_>, Vec<u64>) {
        let mut read = Vec::new();
        let plain = Plain::merged((offset, data), size, |block, bytes| {
            read.push(block.0);
            bytes[..block.before(size)].fill(1);
            Ok(())
        });
        (plain.unwrap(), read)
    }

    fn whole(plain: &Plain<'_>, block: u64) -> Vec<u8> {
        let (start, tail) = plain.halves(Block(block));
        [start, tail].concat()
    }

    #[test]
    fn aligned_writes_and_appends_read_nothing() {
        let data = vec![2; 3 * PAGE_LEN];
        let (plain, read) = write(PAGE, &data, 10 * PAGE);
        assert_eq!((plain.first(), plain.end(), read), (Block(1), Block(4), vec![]));
        assert!((1..4).all(|block| whole(&plain, block) == vec![2; PAGE_LEN]));
        let (plain, read) = write(PAGE, &data[..100], PAGE);
        assert_eq!((whole(&plain, 1), read), (vec![2; 100], vec![]));
        let (plain, read) = write(PAGE, &data[..100], PAGE + 100);
        assert_eq!((whole(&plain, 1), read), (vec![2; 100], vec![]), "all that it holds");
    }

    #[test]
    fn both_ends_keep_what_is_not_written() {
        let data = vec![2; PAGE_LEN];
        let (plain, read) = write(PAGE + 10, &data, 10 * PAGE);
        assert_eq!(read, [1, 2]);
        assert_eq!(whole(&plain, 1), [vec![1; 10], vec![2; PAGE_LEN - 10]].concat());
        assert_eq!(whole(&plain, 2), [vec![2; 10], vec![1; PAGE_LEN - 10]].concat());
        let (plain, read) = write(10, &data[..5], 20);
        assert_eq!(read, [0], "one block is read once");
        assert_eq!(whole(&plain, 0), [[1; 10].as_slice(), &[2; 5], &[1; 5]].concat());
        let (plain, read) = write(20, &data[..5], 20);
        assert_eq!((whole(&plain, 0), read), ([vec![1; 20], vec![2; 5]].concat(), vec![0]));
    }

    #[test]
    fn a_block_is_split_where_its_page_ends() {
        let data = vec![2; 2 * PAGE_LEN];
        let (plain, _) = write(0, &data, 0);
        let lengths = |block| (plain.halves(block).0.len(), plain.halves(block).1.len());
        assert_eq!(lengths(Block(0)), (FIRST_PAYLOAD, PAGE_LEN - FIRST_PAYLOAD));
        assert_eq!(lengths(Block(1)), (4052, 44));
    }

    #[test]
    fn what_cannot_be_read_is_not_merged() {
        let failed = Plain::merged((1, b"x"), 5, |_, _| Err(VolumeError::Lost("page")));
        assert!(matches!(failed, Err(VolumeError::Lost(_))));
    }
}

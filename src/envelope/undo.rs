//! One record of a page journal (FORMAT section 11.5): bytes of one page as they were durable.

use super::layout::{PAGE, PAGE_LEN, PageNo};
use crate::id::FileId;

/// Bytes of a record before those of the page.
pub const UNDO_HEADER: usize = 56;
const MAGIC: &[u8; 8] = b"KMSFSp1\0";
const CRC_AT: usize = 52;
/// No file has one behind it.
const LAST_PAGE: u64 = i64::MAX as u64 / PAGE;

/// A page as it was, from byte `start` on; zeros at its end are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UndoRecord {
    /// Rises with each record of a session.
    pub sequence: u64,
    /// The file.
    pub file: FileId,
    /// The number of its inode: two files can have one id, where one was restored under an old name.
    pub inode: u64,
    /// The page.
    pub page: PageNo,
    /// Its first byte that is kept.
    pub start: u16,
    /// How many bytes follow.
    pub stored: u16,
}

impl UndoRecord {
    /// Appends the record of the page that ends with `bytes`, which begin at byte `start` of it.
    pub fn append(
        out: &mut Vec<u8>,
        sequence: u64,
        (file, inode): (FileId, u64),
        (page, start): (PageNo, usize),
        bytes: &[u8],
    ) {
        let stored = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let bytes = &bytes[..stored];
        let short = |n: usize| u16::try_from(n).expect("a page has 4096 bytes").to_le_bytes();
        let begin = out.len();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&sequence.to_le_bytes());
        out.extend_from_slice(file.as_bytes());
        out.extend_from_slice(&inode.to_le_bytes());
        out.extend_from_slice(&page.0.to_le_bytes());
        out.extend_from_slice(&short(start));
        out.extend_from_slice(&short(stored));
        let mut crc = crc32fast::Hasher::new();
        crc.update(&out[begin..]);
        crc.update(bytes);
        out.extend_from_slice(&crc.finalize().to_le_bytes());
        out.extend_from_slice(bytes);
    }

    /// The record at the start of `bytes`; `None` for what is none, or torn.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<8>()?;
        let (sequence, rest) = rest.split_first_chunk::<8>()?;
        let (file, rest) = rest.split_first_chunk::<16>()?;
        let (inode, rest) = rest.split_first_chunk::<8>()?;
        let (page, rest) = rest.split_first_chunk::<8>()?;
        let (start, rest) = rest.split_first_chunk::<2>()?;
        let (stored, rest) = rest.split_first_chunk::<2>()?;
        let (crc, rest) = rest.split_first_chunk::<4>()?;
        let (start, stored) = (u16::from_le_bytes(*start), u16::from_le_bytes(*stored));
        let inside = usize::from(start) + usize::from(stored) <= PAGE_LEN;
        let page = u64::from_le_bytes(*page);
        if magic != MAGIC || !inside || page > LAST_PAGE {
            return None;
        }
        let mut found = crc32fast::Hasher::new();
        found.update(bytes.get(..CRC_AT)?);
        found.update(rest.get(..usize::from(stored))?);
        let record = Self {
            sequence: u64::from_le_bytes(*sequence),
            file: FileId::from_bytes(*file),
            inode: u64::from_le_bytes(*inode),
            page: PageNo(page),
            start,
            stored,
        };
        (found.finalize().to_le_bytes() == *crc).then_some(record)
    }

    /// Bytes that it takes in the journal.
    pub fn length(&self) -> usize {
        UNDO_HEADER + usize::from(self.stored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let (file, at) = (FileId::from_bytes([7; 16]), (PageNo(5), PAGE_LEN - bytes.len()));
        UndoRecord::append(&mut out, 9, (file, 3), at, bytes);
        out
    }

    #[test]
    fn a_record_comes_back_without_the_zeros_at_its_end() {
        let mut page = vec![3; 3072];
        page[100..].fill(0);
        let bytes = one(&page);
        let record = UndoRecord::parse(&bytes).unwrap();
        assert_eq!((record.sequence, record.page, record.start), (9, PageNo(5), 1024));
        assert_eq!((record.stored, record.length()), (100, bytes.len()));
        assert_eq!(one(&[0; PAGE_LEN]).len(), UNDO_HEADER, "a hole");
    }

    #[test]
    fn the_worked_record_of_the_format_page_is_one() {
        let mut out = Vec::new();
        UndoRecord::append(
            &mut out,
            1,
            (FileId::from_bytes([7; 16]), 3),
            (PageNo(5), 0),
            b"contents\0\0",
        );
        let hex = base16ct::lower::encode_string(&out);
        let page = include_str!("../../docs/FORMAT.md");
        let worked = page.split("Worked record: ").nth(1).and_then(|rest| rest.lines().nth(2));
        assert_eq!(worked.unwrap().replace(' ', ""), hex);
    }

    #[test]
    fn nothing_that_is_torn_or_made_up_is_a_record() {
        let bytes = one(&[3; 600]);
        for cut in 0..bytes.len() {
            assert_eq!(UndoRecord::parse(&bytes[..cut]), None, "cut at {cut}");
            let mut flipped = bytes.clone();
            flipped[cut] ^= 0x10;
            assert_eq!(UndoRecord::parse(&flipped), None, "flipped at {cut}");
        }
        let mut long = bytes;
        long[48..52].fill(0xff);
        assert_eq!(UndoRecord::parse(&long), None);
    }
}

//! The saved list of shown change times (FORMAT section 9.1).
//!
//! Nobody vouches for it: it is a hint, and a CRC finds what a crash tore.

/// Which change time to show for an inode; all in nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShownTime {
    /// The inode's number in the backing filesystem.
    pub ino: u64,
    /// The backing change time for which this holds.
    pub backing: i64,
    /// The one to show instead; the same where nothing is to be shown any more.
    pub shown: i64,
}

impl ShownTime {
    /// Bytes of a record.
    pub const LEN: usize = 32;

    /// The record: inode, backing time, shown time, CRC-32, zeros.
    pub fn encode(self) -> [u8; Self::LEN] {
        let mut record = [0; Self::LEN];
        let body = [self.ino.to_le_bytes(), self.backing.to_le_bytes(), self.shown.to_le_bytes()];
        let body = body.as_flattened();
        let crc = crc32fast::hash(body).to_le_bytes();
        record.iter_mut().zip(body.iter().chain(&crc)).for_each(|(to, from)| *to = *from);
        record
    }

    /// The records of a saved list in order: of two for one inode, the later counts. Damaged ones
    /// are left out, and what is left of one at the end.
    pub fn parse_all(list: &[u8]) -> impl Iterator<Item = Self> + '_ {
        list.chunks_exact(Self::LEN).filter_map(Self::parse)
    }

    fn parse(record: &[u8]) -> Option<Self> {
        let (body, rest) = record.split_first_chunk::<24>()?;
        let (crc, _) = rest.split_first_chunk::<4>()?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return None;
        }
        let (ino, rest) = body.split_first_chunk::<8>()?;
        let (backing, shown) = rest.split_first_chunk::<8>()?;
        Some(Self {
            ino: u64::from_le_bytes(*ino),
            backing: i64::from_le_bytes(*backing),
            shown: i64::from_le_bytes(shown.try_into().ok()?),
        })
    }
}

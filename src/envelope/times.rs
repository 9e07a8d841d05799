//! The saved list of shown times (FORMAT section 9.1).
//!
//! It is a hint, and may be lost. What is in it is authentic: whoever writes to the vault must not
//! make a mount show times of his choice.

use crate::crypto::hash::{Label, derive, hmac_sha256, hmac_verify_short};
use crate::crypto::secret::Secret;
use crate::id::VolumeId;

/// Which times to show for an inode; all in nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShownTime {
    /// The inode's number in the backing filesystem.
    pub ino: u64,
    /// The change time.
    pub ctime: Kept,
    /// The modification time.
    pub mtime: Kept,
}

/// A time that the backing filesystem has, and the one to show instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// The backing time for which this holds.
    pub backing: i64,
    /// The one to show instead; the same where nothing is to be shown.
    pub shown: i64,
}

/// Authenticates the saved list of a volume.
#[derive(Debug)]
pub struct TimesKey(Secret<32>);

impl TimesKey {
    pub(super) fn new(volume: VolumeId, key: &Secret<32>) -> Self {
        Self(derive(key, volume.as_bytes(), Label::VolumeTimes))
    }
}

impl Kept {
    /// Shows every time as it is.
    pub const NONE: Self = Self { backing: 0, shown: 0 };

    /// Shows `shown` for as long as the backing time is `backing`.
    pub fn new(backing: i64, shown: i64) -> Self {
        // A time that is too far away to be told from others stands for none.
        let known = |time| time != i64::MIN && time != i64::MAX;
        if known(backing) && known(shown) { Self { backing, shown } } else { Self::NONE }
    }

    /// True if this is about the backing time, and another one is to be shown.
    pub fn holds(self, backing: i64) -> bool {
        self.backing == backing && self.shown != backing
    }

    /// The time to show.
    pub fn shown(self, backing: i64) -> i64 {
        if self.holds(backing) { self.shown } else { backing }
    }
}

impl ShownTime {
    /// Bytes of a record.
    pub const LEN: usize = BODY + MAC;

    /// The record that says to show the times of an inode as they are.
    pub fn none(ino: u64) -> Self {
        Self { ino, ctime: Kept::NONE, mtime: Kept::NONE }
    }

    /// A record from before a modification time is moved, or of one that is taken back. It says nothing of
    /// the change time.
    pub fn planned(ino: u64, mtime: Kept) -> Self {
        Self { ino, ctime: Kept::NONE, mtime }
    }

    /// True for [`Self::planned`].
    pub fn is_planned(self) -> bool {
        self.ctime == Kept::NONE && self.mtime != Kept::NONE
    }

    /// True if this says to show another time than the backing filesystem has, for some moment.
    pub fn says_anything(self) -> bool {
        [self.ctime, self.mtime].iter().any(|kept| kept.backing != kept.shown)
    }

    /// The record: inode, change times, modification times, truncated MAC.
    pub fn encode(self, keys: &TimesKey) -> [u8; Self::LEN] {
        let Self { ino, ctime, mtime } = self;
        let times = [ctime.backing, ctime.shown, mtime.backing, mtime.shown];
        let body = [ino.to_le_bytes()].into_iter().chain(times.map(i64::to_le_bytes));
        let body: Vec<u8> = body.flatten().collect();
        let mac = hmac_sha256(&keys.0, &[&body]);
        let mut record = [0; Self::LEN];
        record.iter_mut().zip(body.iter().chain(&mac)).for_each(|(to, from)| *to = *from);
        record
    }

    /// The authentic records of a saved list in order: of two for one modification time of an inode, the
    /// later counts, and one of zeros takes back all before it. Others are left out, and what is left of
    /// one at the end.
    pub fn parse_all<'l>(list: &'l [u8], keys: &'l TimesKey) -> impl Iterator<Item = Self> + 'l {
        list.chunks_exact(Self::LEN).filter_map(|record| Self::parse(record, keys))
    }

    fn parse(record: &[u8], keys: &TimesKey) -> Option<Self> {
        let (body, mac) = record.split_first_chunk::<BODY>()?;
        hmac_verify_short(&keys.0, &[body], mac.try_into().ok()?).ok()?;
        let (ino, times) = body.split_first_chunk::<8>()?;
        let mut times = times.chunks_exact(8).map_while(|time| time.try_into().ok());
        let mut next = || times.next().map(i64::from_le_bytes);
        let mut kept = || Some(Kept { backing: next()?, shown: next()? });
        Some(Self { ino: u64::from_le_bytes(*ino), ctime: kept()?, mtime: kept()? })
    }
}

/// Bytes that the MAC is over, and those that are kept of it.
const BODY: usize = 40;
const MAC: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(volume: u8, key: u8) -> TimesKey {
        TimesKey::new(VolumeId::from_bytes([volume; 16]), &Secret::filled(|to| to.fill(key)))
    }

    #[test]
    fn only_records_of_the_same_volume_count() {
        let time = ShownTime { ino: 7, ctime: Kept::new(10, 5), mtime: Kept::new(20, 19) };
        let record = time.encode(&key(1, 1));
        let read = |record: &[u8], key: TimesKey| ShownTime::parse_all(record, &key).count();
        assert_eq!(ShownTime::parse_all(&record, &key(1, 1)).collect::<Vec<_>>(), [time]);
        assert_eq!((read(&record, key(2, 1)), read(&record, key(1, 2))), (0, 0));
        for at in 0..record.len() {
            let mut damaged = record;
            damaged[at] ^= 1;
            assert_eq!(read(&damaged, key(1, 1)), 0, "byte {at}");
        }
        let twice = [record, record].concat();
        assert_eq!(read(&twice[..95], key(1, 1)), 1);
    }

    /// Lists from before had records of 32 bytes with a CRC over 24, and nobody vouched for them.
    #[test]
    fn lists_of_before_and_of_now_are_not_taken_for_each_other() {
        let mut old = [0; 96];
        for (number, record) in (1u8..).zip(old.chunks_exact_mut(32)) {
            record[..24].fill(number);
            let crc = crc32fast::hash(&record[..24]).to_le_bytes();
            record[24..28].copy_from_slice(&crc);
        }
        assert_eq!(ShownTime::parse_all(&old, &key(1, 1)).count(), 0);
        let time = |ino| ShownTime { ino, ctime: Kept::new(10, 5), mtime: Kept::new(20, 19) };
        let new: Vec<u8> = (0..50).flat_map(|ino| time(ino).encode(&key(1, 1))).collect();
        let good = |record: &&[u8]| crc32fast::hash(&record[..24]).to_le_bytes() == record[24..28];
        assert_eq!(new.chunks_exact(32).filter(good).count(), 0);
    }
}

//! The state record: which session a volume is in, and which crashes are not mended yet (FORMAT
//! section 12).
//!
//! It relaxes checks after a crash, so it is authenticated, and held against an anchor that
//! whoever writes to the vault cannot reach.

use super::EnvelopeError;
use super::session::{EXACT, Intents, SessionWord};
use super::volume::VolumeKeys;
use super::{FORMAT, SUITE};
use crate::crypto::hash::{hmac_sha256, hmac_verify};
use crate::id::{FileId, KeyId, VolumeId};

/// Bytes between the two copies of the record in its file; each is at most this long.
pub const STATE_SLOT: usize = 32 * 1024;
/// Words of past sessions that a record keeps.
pub const WORDS: usize = 16;
/// Crashes that a record keeps.
pub const UNRECOVERED: usize = 16;
/// Keys that the recovery of one crash can wait for one by one.
pub const WAITING: usize = 16;

const MAGIC: &[u8; 8] = b"KMSFSs1\0";
const WHAT: &str = "state record";
const MAC_LEN: usize = 32;
const FLAG_OPEN: u8 = 1;
const FLAG_CURSOR: u8 = 2;
const CRASH_COUNTED: u8 = 1;
const CRASH_WITHHELD: u8 = 2;
const CRASH_SOME_KEYS: u8 = 4;
const CRASH_LISTED: u8 = 8;
const INTENTS_ALL: u8 = 1;

/// What a volume says of its sessions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StateRecord {
    /// Of two copies, the higher counts.
    pub sequence: u64,
    /// The newest session.
    pub word: SessionWord,
    /// That session has not ended.
    pub open: bool,
    /// When it began, in nanoseconds since 1970.
    pub since: i64,
    /// The words of the last sessions, oldest first, this one included.
    pub words: Vec<SessionWord>,
    /// What this session announced since the last turn of its generations.
    pub current: Intents,
    /// What it announced in the generation before.
    pub previous: Intents,
    /// Sessions that ended in a crash and are not mended yet, oldest first.
    pub unrecovered: Vec<Unrecovered>,
    /// How far the recovery of one large file is. It stands for nothing where this session announced
    /// the file: [`Self::valid_cursor`].
    pub cursor: Option<Cursor>,
}

/// A session that ended in a crash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unrecovered {
    /// The session.
    pub word: SessionWord,
    /// It is from before there were words: seals hold plain counts.
    pub counted: bool,
    /// Nobody has agreed yet that its residue is to be believed: the vault was put back from
    /// elsewhere.
    pub withheld: bool,
    /// When it began, and when the crash was noticed, in nanoseconds since 1970.
    pub span: (i64, i64),
    /// What it announced.
    pub intents: Intents,
    /// Recovery has looked through all files but those that [`Self::intents`] names now: no other is
    /// excused any more, whatever its header says.
    pub listed: bool,
    /// What is left waits for these keys, which could not be used.
    pub waiting: Option<Vec<KeyId>>,
}

/// How far the recovery of a large file is: below `bytes` it is mended and durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The file.
    pub file: FileId,
    /// Plaintext bytes.
    pub bytes: u64,
}

impl StateRecord {
    /// The cursor, unless an announcement of this session covers its file, by whatever name: what is
    /// changed below it would be refused after a crash.
    pub fn valid_cursor(&self) -> Option<Cursor> {
        let announced =
            |file| [&self.current, &self.previous].iter().any(|intents| intents.covers(file));
        self.cursor.filter(|cursor| !announced(cursor.file))
    }

    /// The record's bytes. A cursor that is not valid is not written.
    ///
    /// *Shape*: at most [`STATE_SLOT`] bytes.
    pub fn encode(&self, keys: &VolumeKeys) -> Vec<u8> {
        let mut out = Vec::with_capacity(4096);
        out.extend(MAGIC);
        out.extend(FORMAT.to_le_bytes());
        out.extend(SUITE.to_le_bytes());
        out.extend([0; 4]);
        out.extend(keys.volume().as_bytes());
        out.extend(self.sequence.to_le_bytes());
        out.extend(self.word.bits().to_le_bytes());
        out.extend(self.since.to_le_bytes());
        let kept = self.valid_cursor();
        let cursor = if kept.is_some() { FLAG_CURSOR } else { 0 };
        let open = if self.open { FLAG_OPEN } else { 0 };
        out.extend([open | cursor, count(&self.words, WORDS), 0, 0]);
        let (file, bytes) = kept.map_or(([0; 16], 0), |c| (*c.file.as_bytes(), c.bytes));
        out.extend(file);
        out.extend(bytes.to_le_bytes());
        for word in self.words.iter().take(WORDS) {
            out.extend(word.bits().to_le_bytes());
        }
        put_intents(&mut out, &self.current);
        put_intents(&mut out, &self.previous);
        out.push(count(&self.unrecovered, UNRECOVERED));
        for crash in self.unrecovered.iter().take(UNRECOVERED) {
            crash.put(&mut out);
        }
        let length = u32::try_from(out.len() + MAC_LEN + 4).expect("a record fits its slot");
        out[LENGTH_AT..LENGTH_AT + 4].copy_from_slice(&length.to_le_bytes());
        let mac = hmac_sha256(keys.state_mac(), &[&out]);
        out.extend(mac);
        let crc = crc32fast::hash(&out);
        out.extend(crc.to_le_bytes());
        out
    }

    /// Reads one copy of the record, which begins `bytes`, and holds it against the volume's keys.
    ///
    /// # Errors
    /// `Malformed` for damage or foreign bytes, `Newer` for a later format, `NotAuthentic` when
    /// these keys did not make it.
    pub fn open(bytes: &[u8], keys: &VolumeKeys) -> Result<Self, EnvelopeError> {
        let body = whole(bytes)?;
        let (signed, mac) = body.split_at(body.len() - MAC_LEN);
        let mac = mac.first_chunk::<MAC_LEN>().ok_or(MALFORMED)?;
        hmac_verify(keys.state_mac(), &[signed], mac)
            .map_err(|_| EnvelopeError::NotAuthentic(WHAT))?;
        let (volume, record) = parse(signed)?;
        if volume != keys.volume() {
            return Err(EnvelopeError::NotAuthentic(WHAT));
        }
        Ok(record)
    }

    /// What a copy of the record claims, without any key: good for reports, not for trust.
    ///
    /// # Errors
    /// `Malformed` for damage or foreign bytes, `Newer` for a later format.
    pub fn claims(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let body = whole(bytes)?;
        let (signed, _) = body.split_at(body.len() - MAC_LEN);
        parse(signed).map(|(_, record)| record)
    }
}

impl Unrecovered {
    /// True if this crash may explain what is odd in a file with this seal and these keys, judged
    /// by what it announced.
    ///
    /// *Source*: FORMAT section 12.3.
    pub fn announced(&self, file: FileId, sealed_in: SessionWord) -> bool {
        let not_after = if self.counted {
            sealed_in.bits() <= self.word.bits()
        } else {
            sealed_in.is_not_after(self.word)
        };
        not_after && self.intents.covers(file)
    }

    /// True if recovery has looked through this file, which has these keys.
    pub fn is_done_for(&self, file: FileId, keys: impl IntoIterator<Item = KeyId>) -> bool {
        match &self.waiting {
            _ if self.listed => !self.intents.covers(file),
            // Earlier builds wrote down the keys only.
            Some(waiting) => !keys.into_iter().any(|key| waiting.contains(&key)),
            None => false,
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        let mut flags = 0;
        if self.counted {
            flags |= CRASH_COUNTED;
        }
        if self.withheld {
            flags |= CRASH_WITHHELD;
        }
        if self.listed {
            flags |= CRASH_LISTED;
        }
        // More keys than there is room for: recovery begins again.
        let waiting = self.waiting.as_ref().filter(|keys| keys.len() <= WAITING);
        if waiting.is_some() {
            flags |= CRASH_SOME_KEYS;
        }
        out.push(flags);
        out.extend(self.word.bits().to_le_bytes());
        out.extend(self.span.0.to_le_bytes());
        out.extend(self.span.1.to_le_bytes());
        put_intents(out, &self.intents);
        let keys = waiting.map_or(&[][..], |keys| keys);
        out.push(count(keys, WAITING));
        keys.iter().for_each(|key| out.extend(key.as_bytes()));
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, EnvelopeError> {
        let flags = reader.u8()?;
        if flags & !(CRASH_COUNTED | CRASH_WITHHELD | CRASH_SOME_KEYS | CRASH_LISTED) != 0 {
            return Err(EnvelopeError::Newer(WHAT));
        }
        let word = reader.word()?;
        let span = (reader.i64()?, reader.i64()?);
        let intents = take_intents(reader)?;
        let count = reader.count(WAITING)?;
        let keys = (0..count).map(|_| reader.array().map(KeyId::from_bytes));
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            word,
            counted: flags & CRASH_COUNTED != 0,
            withheld: flags & CRASH_WITHHELD != 0,
            span,
            intents,
            listed: flags & CRASH_LISTED != 0,
            waiting: (flags & CRASH_SOME_KEYS != 0).then_some(keys),
        })
    }
}

/// The record without its CRC, if the CRC is right.
fn whole(bytes: &[u8]) -> Result<&[u8], EnvelopeError> {
    if !bytes.starts_with(MAGIC) {
        return Err(MALFORMED);
    }
    let length =
        bytes.get(LENGTH_AT..).and_then(|rest| rest.first_chunk::<4>()).ok_or(MALFORMED)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| MALFORMED)?;
    let record = bytes.get(..length.min(STATE_SLOT)).ok_or(MALFORMED)?;
    let (body, crc) = record.split_at_checked(record.len().wrapping_sub(4)).ok_or(MALFORMED)?;
    if body.len() < LENGTH_AT + 4 + MAC_LEN || crc32fast::hash(body).to_le_bytes() != *crc {
        return Err(MALFORMED);
    }
    Ok(body)
}

fn parse(signed: &[u8]) -> Result<(VolumeId, StateRecord), EnvelopeError> {
    let mut reader = Reader { rest: signed };
    reader.array::<8>()?;
    let (format, suite) = (reader.u16()?, reader.u16()?);
    if (format, suite) != (FORMAT, SUITE) {
        return Err(EnvelopeError::Newer(WHAT));
    }
    reader.array::<4>()?;
    let volume = VolumeId::from_bytes(reader.array()?);
    let (sequence, word, since) = (reader.u64()?, reader.word()?, reader.i64()?);
    let [flags, words, zero, more] = reader.array()?;
    if flags & !(FLAG_OPEN | FLAG_CURSOR) != 0 || (zero, more) != (0, 0) {
        return Err(EnvelopeError::Newer(WHAT));
    }
    let cursor = Cursor { file: FileId::from_bytes(reader.array()?), bytes: reader.u64()? };
    if usize::from(words) > WORDS {
        return Err(MALFORMED);
    }
    let words = (0..words).map(|_| reader.word()).collect::<Result<_, _>>()?;
    let (current, previous) = (take_intents(&mut reader)?, take_intents(&mut reader)?);
    let crashes = reader.count(UNRECOVERED)?;
    let unrecovered =
        (0..crashes).map(|_| Unrecovered::take(&mut reader)).collect::<Result<_, _>>()?;
    if !reader.rest.is_empty() {
        return Err(MALFORMED);
    }
    let cursor = (flags & FLAG_CURSOR != 0).then_some(cursor);
    let open = flags & FLAG_OPEN != 0;
    let mut record =
        StateRecord { sequence, word, open, since, words, current, previous, unrecovered, cursor };
    // Earlier builds kept some that were not valid.
    record.cursor = record.valid_cursor();
    Ok((volume, record))
}

fn put_intents(out: &mut Vec<u8>, intents: &Intents) {
    out.push(if intents.is_all() { INTENTS_ALL } else { 0 });
    out.push(count(intents.ids(), EXACT));
    out.extend(intents.parts().to_le_bytes());
    intents.ids().iter().take(EXACT).for_each(|id| out.extend(id.as_bytes()));
}

fn take_intents(reader: &mut Reader<'_>) -> Result<Intents, EnvelopeError> {
    let flags = reader.u8()?;
    if flags & !INTENTS_ALL != 0 {
        return Err(EnvelopeError::Newer(WHAT));
    }
    let count = reader.count(EXACT)?;
    let parts = reader.u64()?;
    let ids = (0..count).map(|_| reader.array().map(FileId::from_bytes));
    Ok(Intents::from_parts(ids.collect::<Result<_, _>>()?, parts, flags & INTENTS_ALL != 0))
}

fn count<T>(items: &[T], most: usize) -> u8 {
    debug_assert!(items.len() <= most, "{} of at most {most}", items.len());
    u8::try_from(items.len().min(most)).expect("no list of the record has more than 64")
}

/// Reads fields in order; every read is bounds checked.
struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], EnvelopeError> {
        let (bytes, rest) = self.rest.split_first_chunk::<N>().ok_or(MALFORMED)?;
        self.rest = rest;
        Ok(*bytes)
    }

    fn u8(&mut self) -> Result<u8, EnvelopeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, EnvelopeError> {
        self.array().map(u16::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, EnvelopeError> {
        self.array().map(u64::from_le_bytes)
    }

    fn i64(&mut self) -> Result<i64, EnvelopeError> {
        self.array().map(i64::from_le_bytes)
    }

    fn word(&mut self) -> Result<SessionWord, EnvelopeError> {
        self.i64().map(SessionWord::from_bits)
    }

    fn count(&mut self, most: usize) -> Result<usize, EnvelopeError> {
        let count = usize::from(self.u8()?);
        if count <= most { Ok(count) } else { Err(MALFORMED) }
    }
}

const MALFORMED: EnvelopeError = EnvelopeError::Malformed(WHAT);
const LENGTH_AT: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::secret::Secret;

    fn keys(volume: u8) -> VolumeKeys {
        let key = Secret::filled(|key| key.fill(3));
        VolumeKeys::new(VolumeId::from_bytes([volume; 16]), &key)
    }

    fn full() -> StateRecord {
        let mut intents = Intents::default();
        (0..80).for_each(|number| intents.add(FileId::from_bytes([number; 16])));
        let crash = |number| Unrecovered {
            word: SessionWord::new(number, 7),
            counted: number == 1,
            withheld: number == 2,
            span: (5, 6),
            intents: intents.clone(),
            listed: number == 3,
            waiting: (number == 3).then(|| vec![KeyId::from_bytes([9; 16]); WAITING]),
        };
        StateRecord {
            sequence: 12,
            word: SessionWord::new(99, 1),
            open: true,
            since: 77,
            words: (0..16).map(|number| SessionWord::new(number, 3)).collect(),
            current: intents.clone(),
            previous: intents.clone(),
            unrecovered: (0..16).map(crash).collect(),
            cursor: Some(Cursor { file: FileId::from_bytes([90; 16]), bytes: 1 << 40 }),
        }
    }

    #[test]
    fn a_cursor_is_void_once_an_announcement_covers_its_file() {
        let cursor = Cursor { file: FileId::from_bytes([200; 16]), bytes: 1 << 30 };
        let announcing = |count: u8| {
            let mut intents = Intents::default();
            (0..count).for_each(|number| intents.add(FileId::from_bytes([number; 16])));
            intents
        };
        let mut named = Intents::default();
        named.add(cursor.file);
        // 200 is in the part of 8, which the 73rd file is the first to fall into once ids are full.
        let cases = [
            (Intents::default(), false),
            (announcing(64), false),
            (announcing(73), true),
            (announcing(81), true),
            (Intents::all(), true),
            (named, true),
        ];
        for (intents, void) in cases {
            let none = Intents::default();
            for (current, previous) in [(intents.clone(), none.clone()), (none, intents)] {
                let record = StateRecord {
                    current,
                    previous,
                    cursor: Some(cursor),
                    ..StateRecord::default()
                };
                let read = StateRecord::open(&record.encode(&keys(1)), &keys(1)).unwrap();
                assert_eq!(read.cursor.is_none(), void, "{record:?}");
            }
        }
    }

    #[test]
    fn a_full_record_fits_and_comes_back() {
        let bytes = full().encode(&keys(1));
        assert!(bytes.len() <= STATE_SLOT, "{}", bytes.len());
        let mut slot = bytes.clone();
        slot.resize(STATE_SLOT, 0xaa);
        assert_eq!(StateRecord::open(&slot, &keys(1)).unwrap(), full());
        assert_eq!(StateRecord::claims(&bytes).unwrap(), full());
        let usual = StateRecord { open: true, ..StateRecord::default() }.encode(&keys(1));
        assert!(usual.len() < 4096);
    }

    #[test]
    fn nothing_but_the_volumes_own_record_is_believed() {
        let bytes = full().encode(&keys(1));
        let not_authentic = Err(EnvelopeError::NotAuthentic(WHAT));
        assert_eq!(StateRecord::open(&bytes, &keys(2)), not_authentic, "another volume's");
        for at in (0..bytes.len()).step_by(97).chain([bytes.len() - 1]) {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(StateRecord::open(&changed, &keys(1)).is_err(), "byte {at}");
            let end = changed.len() - 4;
            if at >= end {
                continue;
            }
            let crc = crc32fast::hash(&changed[..end]).to_le_bytes();
            changed[end..].copy_from_slice(&crc);
            assert!(StateRecord::open(&changed, &keys(1)).is_err(), "byte {at} with a good CRC");
        }
        for length in [0, 8, 11, 12, 16, 40, 52, 53, bytes.len() - 1] {
            assert!(StateRecord::open(&bytes[..length], &keys(1)).is_err(), "{length} bytes");
            assert!(StateRecord::claims(&bytes[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn a_crash_explains_what_it_announced_and_nothing_sealed_later() {
        let file = FileId::from_bytes([5; 16]);
        let mut intents = Intents::default();
        intents.add(file);
        let crash = Unrecovered {
            word: SessionWord::new(8, 1),
            counted: false,
            withheld: false,
            span: (0, 0),
            intents,
            listed: false,
            waiting: None,
        };
        assert!(crash.announced(file, SessionWord::new(7, 9)));
        assert!(crash.announced(file, crash.word), "sealed in it, and changed again");
        assert!(!crash.announced(file, SessionWord::new(9, 0)), "sealed after it");
        assert!(!crash.announced(file, SessionWord::new(8, 2)), "sealed in a fork");
        assert!(!crash.announced(FileId::from_bytes([6; 16]), SessionWord::NONE));
    }
}

//! The state record: words of sessions, announcements, crashes, the cursor.

#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use kmsfs::crypto::hash::{Label, derive, hmac_sha256};
use kmsfs::envelope::{
    Cursor, Intents, STATE_SLOT, SessionWord, StateRecord, UNRECOVERED, Unrecovered, VolumeKeys,
    WAITING, WORDS,
};
use kmsfs::id::{FileId, KeyId, VolumeId};
use kmsfs_fuzz::{key, other_key, within};
use libfuzzer_sys::fuzz_target;

const VOLUME: VolumeId = VolumeId::from_bytes([6; 16]);
const MAGIC: &[u8; 8] = b"KMSFSs1\0";
const LENGTH_AT: usize = 12;
const VOLUME_AT: usize = 16;
/// The fields that every record has.
const SHORTEST: usize = 32;

fuzz_target!(|input: &[u8]| {
    let keys = VolumeKeys::new(VOLUME, &key());
    as_it_stands(&keys, input);
    sealed(&keys, input);
    let mut fields = Unstructured::new(input);
    if let Ok(fields) = Fields::arbitrary(&mut fields) {
        announcements(&fields);
        round_trip(&keys, &fields.record());
    }
});

fn memory(input: &[u8]) -> usize {
    16 * 1024 + 4 * input.len()
}

fn as_it_stands(keys: &VolumeKeys, input: &[u8]) {
    let claims = within(memory(input), || StateRecord::claims(input));
    if let Ok(record) = within(memory(input), || StateRecord::open(input, keys)) {
        assert_eq!(claims, Ok(record));
        assert!(input.len() >= SHORTEST && input.starts_with(&seal(cut(input))), "a forgery");
    }
}

/// The fuzzer's record without the MAC and the CRC that it says to have.
fn cut(input: &[u8]) -> &[u8] {
    let length = input.get(LENGTH_AT..).and_then(|rest| rest.first_chunk());
    let length = length.map_or(0, |length| u32::from_le_bytes(*length));
    let end = usize::try_from(length).unwrap_or(0).saturating_sub(36);
    input.get(..end).unwrap_or_default()
}

/// The body of a record, sealed: magic, length, volume, MAC and CRC are as they must be.
fn seal(body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    body.resize(body.len().max(SHORTEST), 0);
    let length = u32::try_from(body.len() + 36).expect("an input is short");
    body[..8].copy_from_slice(MAGIC);
    body[LENGTH_AT..LENGTH_AT + 4].copy_from_slice(&length.to_le_bytes());
    body[VOLUME_AT..VOLUME_AT + 16].copy_from_slice(VOLUME.as_bytes());
    let mac_key = derive(&key(), VOLUME.as_bytes(), Label::VolumeState);
    let mac = hmac_sha256(&mac_key, &[&body]);
    body.extend(mac);
    let crc = crc32fast::hash(&body);
    body.extend(crc.to_le_bytes());
    body
}

fn sealed(keys: &VolumeKeys, input: &[u8]) {
    let mut bytes = seal(input);
    let record = within(memory(input), || StateRecord::open(&bytes, keys));
    if bytes.len() > STATE_SLOT {
        assert!(record.is_err(), "longer than a copy can be");
    }
    let Ok(record) = record else { return };
    assert_eq!(StateRecord::claims(&bytes).as_ref(), Ok(&record));
    assert!(record.words.len() <= WORDS && record.unrecovered.len() <= UNRECOVERED);
    round_trip(keys, &record);
    for stranger in [
        VolumeKeys::new(VOLUME, &other_key()),
        VolumeKeys::new(VolumeId::from_bytes([9; 16]), &key()),
    ] {
        assert!(StateRecord::open(&bytes, &stranger).is_err());
    }
    for length in [0, bytes.len() / 2, bytes.len() - 1] {
        assert!(StateRecord::open(bytes.get(..length).unwrap_or_default(), keys).is_err());
    }
    let sum = input.iter().fold(0_usize, |sum, byte| sum.wrapping_mul(31) + usize::from(*byte));
    let (bit, end) = (sum % (8 * (bytes.len() - 4)), bytes.len() - 4);
    bytes[bit / 8] ^= 1 << (bit % 8);
    let crc = crc32fast::hash(&bytes[..end]).to_le_bytes();
    bytes[end..].copy_from_slice(&crc);
    assert!(StateRecord::open(&bytes, keys).is_err());
}

fn round_trip(keys: &VolumeKeys, record: &StateRecord) {
    let mut bytes = record.encode(keys);
    assert!(bytes.len() <= STATE_SLOT);
    // A cursor in a file that was announced since is not kept.
    let record = &StateRecord { cursor: record.valid_cursor(), ..record.clone() };
    assert_eq!(StateRecord::open(&bytes, keys).as_ref(), Ok(record));
    // The rest of the copy holds what an older, longer record left.
    bytes.resize(STATE_SLOT, 0xaa);
    assert_eq!(StateRecord::open(&bytes, keys).as_ref(), Ok(record));
}

/// Announcements get coarser and never forget.
fn announcements(fields: &Fields) {
    let ids: Vec<_> = fields.ids.iter().map(|id| FileId::from_bytes(*id)).collect();
    let (one, two) = ids.split_at(ids.len() / 2);
    let of = |ids: &[FileId]| {
        let mut intents = Intents::default();
        ids.iter().for_each(|id| intents.add(*id));
        assert!(ids.iter().all(|id| intents.covers(*id)));
        intents
    };
    let (mut merged, second) = (of(one), of(two));
    merged.merge(&second);
    assert!(ids.iter().all(|id| merged.covers(*id)));
    let once = merged.clone();
    merged.merge(&second);
    assert!(merged == once || merged.ids().len() <= once.ids().len());
    let crash = Unrecovered {
        word: SessionWord::from_bits(fields.word),
        counted: fields.open,
        withheld: false,
        span: (0, 0),
        intents: merged,
        listed: false,
        waiting: None,
    };
    for id in &ids {
        assert!(crash.announced(*id, crash.word), "what the session itself announced");
    }
}

struct Fields {
    sequence: u64,
    word: i64,
    open: bool,
    since: i64,
    cursor: Option<([u8; 16], u64)>,
    words: Vec<i64>,
    ids: Vec<[u8; 16]>,
    crashes: Vec<Crash>,
}

impl<'a> Arbitrary<'a> for Fields {
    fn arbitrary(input: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(Self {
            sequence: input.arbitrary()?,
            word: input.arbitrary()?,
            open: input.arbitrary()?,
            since: input.arbitrary()?,
            cursor: input.arbitrary()?,
            words: input.arbitrary()?,
            ids: input.arbitrary()?,
            crashes: input.arbitrary()?,
        })
    }
}

struct Crash {
    word: i64,
    flags: [bool; 4],
    span: (i64, i64),
    files: Vec<u8>,
    waiting: Option<Vec<[u8; 16]>>,
}

impl<'a> Arbitrary<'a> for Crash {
    fn arbitrary(input: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(Self {
            word: input.arbitrary()?,
            flags: input.arbitrary()?,
            span: input.arbitrary()?,
            files: input.arbitrary()?,
            waiting: input.arbitrary()?,
        })
    }
}

impl Fields {
    fn record(&self) -> StateRecord {
        let intents = |ids: &mut dyn Iterator<Item = [u8; 16]>| {
            let mut intents = Intents::default();
            ids.for_each(|id| intents.add(FileId::from_bytes(id)));
            intents
        };
        let crash = |crash: &Crash| {
            let [counted, withheld, listed, all] = crash.flags;
            let mut named = crash.files.iter().map(|file| [*file; 16]);
            let waiting = crash
                .waiting
                .as_ref()
                .map(|keys| keys.iter().take(WAITING).map(|key| KeyId::from_bytes(*key)).collect());
            Unrecovered {
                word: SessionWord::from_bits(crash.word),
                counted,
                withheld,
                span: crash.span,
                intents: if all { Intents::all() } else { intents(&mut named) },
                listed,
                waiting,
            }
        };
        let cursor = self.cursor.map(|(file, bytes)| (FileId::from_bytes(file), bytes));
        StateRecord {
            sequence: self.sequence,
            word: SessionWord::from_bits(self.word),
            open: self.open,
            since: self.since,
            words: self
                .words
                .iter()
                .take(WORDS)
                .map(|word| SessionWord::from_bits(*word))
                .collect(),
            current: intents(&mut self.ids.iter().copied()),
            previous: intents(&mut self.ids.iter().rev().step_by(2).copied()),
            unrecovered: self.crashes.iter().take(UNRECOVERED).map(crash).collect(),
            cursor: cursor.map(|(file, bytes)| Cursor { file, bytes }),
        }
    }
}

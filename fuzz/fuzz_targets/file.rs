//! A whole file: the owner makes it, somebody changes the backing file, the owner uses it again.
//!
//! Whatever was changed, nothing panics or runs away; and as long as the owner's key made nothing
//! new, every block reads as it was at some time, or not at all.

#![no_main]

use std::collections::BTreeMap;
use std::sync::Arc;

use arbitrary::{Arbitrary, Unstructured};
use kmsfs::crypto::hash::{Label, derive, hmac_sha256};
use kmsfs::crypto::secret::Secret;
use kmsfs::envelope::layout::{MAX_SIZE, PAGE_LEN, PageNo, PageRole};
use kmsfs::envelope::{
    FileHeader, FileKeys, Intents, Nonces, Recipient, SessionWord, UnitPlace, Unrecovered, Wrapped,
};
use kmsfs::id::{FileId, KeyId, MaterialId};
use kmsfs::volume::backing::Durability;
use kmsfs::volume::content::{Access, Content, KeySource, Reserve, SealEffort, SeekTo, Shared};
use kmsfs_fuzz::sparse::{Pages, SparseFile};
use kmsfs_fuzz::{key, within};
use libfuzzer_sys::fuzz_target;

const FILE: FileId = FileId::from_bytes([7; 16]);
const STEPS: usize = 24;
const WINDOW: usize = 3 * PAGE_LEN;
/// What opening, reading or changing a file may ask for, however long it claims to be: batches of
/// pages, spill pages, and what gaps are filled with.
const MEMORY: usize = 16 << 20;

struct Input {
    made: Vec<Step>,
    changed: Vec<Change>,
    crashed: bool,
    read_only: bool,
    used: Vec<Step>,
}

impl<'a> Arbitrary<'a> for Input {
    fn arbitrary(input: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(Self {
            made: input.arbitrary()?,
            changed: input.arbitrary()?,
            crashed: input.arbitrary()?,
            read_only: input.arbitrary()?,
            used: input.arbitrary()?,
        })
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Write { at: At, length: u16, byte: u8 },
    Truncate(At),
    Punch { at: At, length: At },
    Zero { at: At, length: At },
    Reserve { at: At, length: At },
    Seek(At),
    Sync,
    Seal,
    Recover,
    Reopen,
}

impl<'a> Arbitrary<'a> for Step {
    fn arbitrary(input: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(match input.arbitrary::<u8>()? % 12 {
            0..=2 => Self::Write {
                at: input.arbitrary()?,
                length: input.arbitrary()?,
                byte: input.arbitrary()?,
            },
            3 => Self::Truncate(input.arbitrary()?),
            4 => Self::Punch { at: input.arbitrary()?, length: input.arbitrary()? },
            5 => Self::Zero { at: input.arbitrary()?, length: input.arbitrary()? },
            6 => Self::Reserve { at: input.arbitrary()?, length: input.arbitrary()? },
            7 => Self::Seek(input.arbitrary()?),
            8 => Self::Sync,
            9 => Self::Seal,
            10 => Self::Recover,
            _ => Self::Reopen,
        })
    }
}

/// An offset: small ones are frequent.
#[derive(Debug, Clone, Copy)]
struct At {
    reach: u8,
    value: u64,
}

impl<'a> Arbitrary<'a> for At {
    fn arbitrary(input: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(Self { reach: input.arbitrary()?, value: input.arbitrary()? })
    }
}

impl At {
    /// A length to change: what is changed block by block takes as long as it is long.
    fn short(self) -> u64 {
        self.get() % (4 << 20)
    }

    fn get(self) -> u64 {
        let reach = match self.reach % 8 {
            0..=2 => 3 * 4096,
            3..=5 => 400_000,
            6 => 1 << 32,
            _ => MAX_SIZE + 5000,
        };
        self.value % reach
    }
}

enum Change {
    Bytes {
        page: u8,
        at: u16,
        bytes: [u8; 3],
    },
    Zero {
        page: u8,
    },
    Drop {
        page: u8,
    },
    Swap {
        one: u8,
        other: u8,
    },
    Copy {
        from: u8,
        to: u16,
    },
    Replay {
        page: u8,
    },
    Length(At),
    LongestLength(u64),
    /// A page that the owner's key seals: any contents at any place.
    Forge {
        page: u16,
        spill: bool,
        length: u16,
        bytes: [u8; 40],
    },
    /// A header slot that it seals.
    Slot {
        second: bool,
        at: u16,
        bytes: [u8; 4],
    },
}

impl<'a> Arbitrary<'a> for Change {
    fn arbitrary(input: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(match input.arbitrary::<u8>()? % 12 {
            0 | 1 => Self::Bytes {
                page: input.arbitrary()?,
                at: input.arbitrary()?,
                bytes: input.arbitrary()?,
            },
            2 => Self::Zero { page: input.arbitrary()? },
            3 => Self::Drop { page: input.arbitrary()? },
            4 => Self::Swap { one: input.arbitrary()?, other: input.arbitrary()? },
            5 => Self::Copy { from: input.arbitrary()?, to: input.arbitrary()? },
            6 => Self::Replay { page: input.arbitrary()? },
            7 => Self::Length(input.arbitrary()?),
            8 => Self::LongestLength(input.arbitrary()?),
            9 | 10 => Self::Forge {
                page: input.arbitrary()?,
                spill: input.arbitrary()?,
                length: input.arbitrary()?,
                bytes: input.arbitrary()?,
            },
            _ => Self::Slot {
                second: input.arbitrary()?,
                at: input.arbitrary()?,
                bytes: input.arbitrary()?,
            },
        })
    }
}

fuzz_target!(|input: &[u8]| {
    let Ok(input) = Input::arbitrary(&mut Unstructured::new(input)) else { return };
    let (mut model, old, mut pages) = make(&input.made);
    let mut forged = false;
    for change in input.changed.iter().take(STEPS) {
        forged |= apply(change, &mut pages, &old);
    }
    let file = Arc::new(SparseFile::new(pages.clone()));
    let access = if input.read_only { Access::ReadOnly } else { Access::ReadWrite };
    let shared = if input.crashed { after_a_crash() } else { Shared::default() };
    let opened =
        within(MEMORY, || Content::over(file.clone(), Arc::new(Fixed), Arc::new(shared), access));
    let Ok(mut content) = opened else { return };
    let trusted = !forged && !input.crashed;
    look(&content, trusted.then_some(&model));
    for step in input.used.iter().take(STEPS) {
        step.take_on(&mut content, &mut Model::default());
    }
    look(&content, None);
    if input.read_only {
        assert_eq!(file.pages(), pages, "a reader changes nothing");
    }
    model.blocks.clear();
});

/// What every block ever held, zeros behind its end.
#[derive(Default)]
struct Model {
    now: BTreeMap<u64, [u8; PAGE_LEN]>,
    blocks: BTreeMap<u64, Vec<[u8; PAGE_LEN]>>,
    size: u64,
}

/// The owner's file, what it looked like half way, and its pages.
fn make(steps: &[Step]) -> (Model, Pages, Pages) {
    let file = Arc::new(SparseFile::default());
    let (shared, keys) = (Arc::new(Shared::default()), Arc::new(Fixed));
    let made = Content::over(file.clone(), keys, shared, Access::ReadWrite);
    let (mut content, mut model) = (made.expect("an empty file opens"), Model::default());
    let steps: Vec<_> = steps.iter().take(STEPS).collect();
    let (first, second) = steps.split_at(steps.len() / 2);
    first.iter().for_each(|step| step.take_on(&mut content, &mut model));
    let old = file.pages();
    second.iter().for_each(|step| step.take_on(&mut content, &mut model));
    content.sync(Durability::Contents).expect("memory does not fail");
    content.seal(SealEffort::Full).expect("memory does not fail");
    check_own(&content, &model);
    (model, old, file.pages())
}

/// Untouched, the file reads as what was written.
fn check_own(content: &Content, model: &Model) {
    assert_eq!(content.size(), model.size);
    for (number, block) in &model.now {
        let mut out = [0xee; PAGE_LEN];
        let length = content.read(number * PAGE_LEN as u64, &mut out).expect("it is whole");
        assert_eq!(out[..length], block[..length]);
    }
}

impl Model {
    fn put(&mut self, offset: u64, length: u64, byte: u8) {
        for at in offset..offset + length {
            let block = self.now.entry(at / PAGE_LEN as u64).or_insert([0; PAGE_LEN]);
            block[(at % PAGE_LEN as u64) as usize] = byte;
        }
        self.note();
    }

    /// Zeros, of which there may be very many.
    fn zero(&mut self, offset: u64, end: u64) {
        for (number, block) in &mut self.now {
            let start = number * PAGE_LEN as u64;
            let (from, to) = (offset.max(start), end.min(start + PAGE_LEN as u64));
            if from < to {
                block[(from - start) as usize..(to - start) as usize].fill(0);
            }
        }
        self.note();
    }

    fn resize(&mut self, size: u64) {
        if size < self.size {
            self.zero(size, self.size);
        }
        self.size = size;
    }

    fn note(&mut self) {
        for (number, block) in &self.now {
            let known = self.blocks.entry(*number).or_default();
            if known.last() != Some(block) {
                known.push(*block);
            }
        }
    }

    /// True if the block began like this at some time.
    fn knew(&self, number: u64, bytes: &[u8]) -> bool {
        let known = self
            .blocks
            .get(&number)
            .is_some_and(|known| known.iter().any(|block| block.starts_with(bytes)));
        known || bytes.iter().all(|byte| *byte == 0) && !self.always_written(number)
    }

    fn always_written(&self, number: u64) -> bool {
        self.now.get(&number).is_some_and(|block| block.iter().any(|byte| *byte != 0))
    }
}

impl Step {
    /// Does the same to both; what the file refuses does not happen in the model.
    fn take_on(&self, content: &mut Content, model: &mut Model) {
        match *self {
            Self::Write { at, length, byte } => {
                let (at, data) = (at.get(), vec![byte; usize::from(length % 9000)]);
                if let Ok(taken) = within(MEMORY, || content.write(at, &data))
                    && taken > 0
                {
                    let end = at + taken as u64;
                    model.put(at, taken as u64, byte);
                    model.size = model.size.max(end);
                }
            }
            Self::Truncate(size) => {
                if within(MEMORY, || content.truncate(size.get())).is_ok() {
                    model.resize(size.get());
                }
            }
            Self::Punch { at, length } => {
                let (at, length) = (at.get(), length.short());
                if within(MEMORY, || content.punch(at, length)).is_ok() {
                    model.zero(at, (at + length).min(model.size));
                }
            }
            Self::Zero { at, length } => {
                let (at, length) = (at.get(), length.short());
                if within(MEMORY, || content.zero(at, length, Reserve::KeepSize)).is_ok() {
                    model.zero(at, (at + length).min(model.size));
                }
            }
            Self::Reserve { at, length } => {
                let (at, length) = (at.get(), length.get());
                if within(MEMORY, || content.reserve(at, length, Reserve::Grow)).is_ok()
                    && length > 0
                {
                    model.size = model.size.max(at + length);
                }
            }
            Self::Seek(at) => {
                for to in [SeekTo::Data, SeekTo::Hole] {
                    if let Ok(Some(found)) = within(MEMORY, || content.seek(at.get(), to)) {
                        assert!(found >= at.get() && found <= content.size());
                    }
                }
            }
            Self::Sync => drop(content.sync(Durability::Contents)),
            Self::Seal => drop(content.seal(SealEffort::Brief)),
            Self::Recover => drop(within(MEMORY, || content.recover(1 << 20))),
            Self::Reopen => {
                if let Ok(again) = within(MEMORY, || content.reopen()) {
                    *content = again;
                }
            }
        }
    }
}

/// Reads at the ends, and where the owner wrote.
fn look(content: &Content, model: Option<&Model>) {
    let size = content.size();
    let sparse = content.header().is_none_or(|header| header.flags.sparse);
    let known = model.iter().flat_map(|model| model.blocks.keys().copied());
    let ends = [0, size / 2 / PAGE_LEN as u64, (size / PAGE_LEN as u64).saturating_sub(2)];
    for first in known.chain(ends) {
        let mut out = vec![0xee; WINDOW];
        let offset = first * PAGE_LEN as u64;
        let Ok(length) = within(MEMORY, || content.read(offset, &mut out)) else { continue };
        assert_eq!(length as u64, size.saturating_sub(offset).min(WINDOW as u64));
        let Some(model) = model else { continue };
        for (number, block) in (first..).zip(out[..length].chunks(PAGE_LEN)) {
            let hole = sparse && block.iter().all(|byte| *byte == 0);
            assert!(hole || model.knew(number, block), "block {number} never held this");
        }
    }
}

/// True for what only the owner can do.
fn apply(change: &Change, pages: &mut Pages, old: &Pages) -> bool {
    let numbers = pages.numbers();
    let pick = |page: &u8| numbers.get(usize::from(*page) % numbers.len().max(1)).copied();
    match change {
        Change::Bytes { page, at, bytes } => {
            let Some(page) = pick(page) else { return false };
            let at = usize::from(*at) % (PAGE_LEN - bytes.len());
            pages.page(page)[at..at + bytes.len()].copy_from_slice(bytes);
        }
        Change::Zero { page } => {
            let Some(page) = pick(page) else { return false };
            pages.page(page).fill(0);
        }
        Change::Drop { page } => {
            let Some(page) = pick(page) else { return false };
            pages.drop_page(page);
        }
        Change::Swap { one, other } => {
            let (Some(one), Some(other)) = (pick(one), pick(other)) else { return false };
            let kept = *pages.page(one);
            *pages.page(one) = *pages.page(other);
            *pages.page(other) = kept;
        }
        Change::Copy { from, to } => {
            let Some(from) = pick(from) else { return false };
            *pages.page(u64::from(*to)) = *pages.page(from);
        }
        Change::Replay { page } => {
            let Some(page) = pick(page) else { return false };
            match old.clone().numbers().contains(&page) {
                true => *pages.page(page) = *old.clone().page(page),
                false => pages.drop_page(page),
            }
        }
        Change::Length(length) => pages.set_length(length.get()),
        Change::LongestLength(length) => pages.set_length(length >> 1),
        Change::Forge { page, spill, length, bytes } => {
            forge(pages, PageNo(u64::from(*page)), *spill, usize::from(*length), bytes);
            return true;
        }
        Change::Slot { second, at, bytes } => {
            slot(pages, usize::from(*second) * 512, usize::from(*at), *bytes);
            return true;
        }
    }
    false
}

fn forge(pages: &mut Pages, number: PageNo, spill: bool, length: usize, bytes: &[u8]) {
    let spill = match number.role() {
        // Mostly what belongs there.
        PageRole::Spill(..) => !spill,
        PageRole::Data(_) => spill,
    };
    let place = if spill { UnitPlace::spill(number) } else { UnitPlace::data(number) };
    let page = pages.page(number.0);
    let mut payload = vec![0; length % (number.unit(page).len() - 44 + 1)];
    payload.iter_mut().zip(bytes.iter().cycle()).for_each(|(to, from)| *to = *from);
    let cipher = FileKeys::new(FILE, key()).unit_cipher();
    let mut nonces = Nonces::draw(1).expect("the kernel has randomness");
    cipher.seal(place, &mut nonces, &payload, page).expect("there is room");
    let end = (number.0 + 1) * PAGE_LEN as u64;
    pages.set_length(pages.length().max(end));
}

/// Changes a slot and seals it again; its sequence stays one that a file can get to.
fn slot(pages: &mut Pages, start: usize, at: usize, bytes: [u8; 4]) {
    let slot = &mut pages.page(0)[start..start + 512];
    let at = 12 + at % 200;
    slot[at..at + bytes.len()].copy_from_slice(&bytes);
    slot[23] = 0;
    slot[24..40].copy_from_slice(FILE.as_bytes());
    slot[40..72].copy_from_slice(FileKeys::new(FILE, key()).commitment());
    let mac_key = derive(&key(), FILE.as_bytes(), Label::FileHeader);
    let mac = hmac_sha256(&mac_key, &[&slot[..476]]);
    slot[476..508].copy_from_slice(&mac);
    let crc = crc32fast::hash(&slot[..508]);
    slot[508..].copy_from_slice(&crc.to_le_bytes());
}

fn after_a_crash() -> Shared {
    let crash = Unrecovered {
        word: SessionWord::new(1, 0),
        counted: false,
        withheld: false,
        span: (0, 1),
        intents: Intents::all(),
        listed: false,
        waiting: None,
    };
    Shared::in_session(SessionWord::new(2, 0), vec![crash])
}

struct Fixed;

impl KeySource for Fixed {
    fn create(&self) -> kmsfs::volume::Result<(FileId, Secret<32>, Recipient)> {
        let (kms, material) = (KeyId::from_bytes([1; 16]), MaterialId::from_bytes([2; 16]));
        Ok((FILE, key(), Recipient { key: kms, material, wrapped: Wrapped::Kms([3; 72]) }))
    }

    fn unwrap(&self, _claims: &FileHeader) -> kmsfs::volume::Result<Secret<32>> {
        Ok(key())
    }
}

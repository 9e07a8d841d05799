//! Operations on a file and on the model that it is held against.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kmsfs::crypto::secret::Secret;
use kmsfs::envelope::{FileHeader, Intents, Recipient, SessionWord, Unrecovered, Wrapped};
use kmsfs::id::{FileId, KeyId, MaterialId};
use kmsfs::volume::VolumeError;
use kmsfs::volume::backing::memory::MemoryFile;
use kmsfs::volume::backing::{Backing, Durability};
use kmsfs::volume::content::{Access, Content, KeySource, Reserve, SealEffort, Shared};
use kmsfs::volume::journal::CrashedJournals;

use crate::disk::Disk;
use crate::journal::Journal;

/// When a file is opened. Files that a workload starts from were made in an earlier session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// In the session that makes the starting file, and ends cleanly.
    Before,
    /// In the session that the power cut ends.
    Cut,
    /// In the session after that, before anything is mended.
    After,
    /// In a session that no crash excuses anything to.
    Later,
}

/// One step of a workload. Offsets and sizes are in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Write(u64, usize),
    Append(usize),
    Truncate(u64),
    Shrink(u64),
    Extend(u64),
    Punch(u64, u64),
    Zero(u64, u64),
    Sync,
    Seal,
    Raise,
    Xattr,
    Reopen,
}

/// What an operation reported.
pub(crate) type Outcome = Result<usize, VolumeError>;

/// A key source with one key, and a new file id for each file.
#[derive(Default)]
pub(crate) struct OneKey(AtomicU64);

impl KeySource for OneKey {
    fn create(&self) -> Result<(FileId, Secret<32>, Recipient), VolumeError> {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(self.0.fetch_add(1, Ordering::Relaxed) + 1).to_be_bytes());
        let recipient = Recipient {
            key: KeyId::from_bytes([1; 16]),
            material: MaterialId::from_bytes([2; 16]),
            wrapped: Wrapped::Kms([3; 72]),
        };
        Ok((FileId::from_bytes(id), Secret::filled(|key| key.fill(5)), recipient))
    }

    fn unwrap(&self, _claims: &FileHeader) -> Result<Secret<32>, VolumeError> {
        Ok(Secret::filled(|key| key.fill(5)))
    }
}

/// A session that ended in a crash: what it announced, and what was durable of its page journal.
#[derive(Clone)]
pub(crate) struct Crash {
    pub(crate) announced: Intents,
    pub(crate) journal: Option<Journal>,
}

/// Opens a file in the session after these crashes; the first is that of [`When::Cut`].
pub(crate) fn open_after(disk: &Arc<Disk>, crashes: &[Crash]) -> Result<Content, VolumeError> {
    let word = |number: usize| {
        let number = u32::try_from(number).unwrap() + 2;
        SessionWord::new(number, number * 11)
    };
    let unrecovered = crashes.iter().enumerate().map(|(number, crash)| Unrecovered {
        word: word(number),
        counted: false,
        withheld: false,
        span: (0, 0),
        intents: crash.announced.clone(),
        listed: false,
        waiting: None,
    });
    let shared = Shared::in_session(word(crashes.len()), unrecovered.collect());
    let part = |bytes: &Vec<u8>| Arc::new(MemoryFile::new(bytes.clone())) as Arc<dyn Backing>;
    let journals = crashes.iter().enumerate().rev().filter_map(|(number, crash)| {
        Some((word(number), crash.journal.as_ref()?.iter().map(part).collect()))
    });
    shared.set_crashed_journals(CrashedJournals::read(journals.collect()));
    finish(disk, shared)
}

fn finish(disk: &Arc<Disk>, shared: Shared) -> Result<Content, VolumeError> {
    let mut shared = shared.announcing(disk.clone());
    if let Some(journal) = disk.journal() {
        shared = shared.journaling(journal);
    }
    Content::over(disk.clone(), Arc::new(OneKey::default()), Arc::new(shared), Access::ReadWrite)
}

/// Opens a file.
pub(crate) fn open(disk: &Arc<Disk>, when: When) -> Result<Content, VolumeError> {
    let cut = SessionWord::new(2, 22);
    let crash = Unrecovered {
        word: cut,
        counted: false,
        withheld: false,
        span: (0, 0),
        intents: disk.announced(),
        listed: false,
        waiting: None,
    };
    let shared = match when {
        When::Before => Shared::in_session(SessionWord::new(1, 11), Vec::new()),
        When::Cut => Shared::in_session(cut, Vec::new()),
        When::After => Shared::in_session(SessionWord::new(3, 33), vec![crash]),
        When::Later => Shared::in_session(SessionWord::new(4, 44), Vec::new()),
    };
    finish(disk, shared)
}

/// Another file of the same volume, in the session that the power cut ends. There is room for one
/// decrypted spill page in all, so that each use of it sends away what the first file has in memory.
pub(crate) struct Crowd {
    shared: Arc<Shared>,
    bystander: Content,
}

impl Crowd {
    /// Beside the file on `first`, where the session announces what it changes.
    pub(crate) fn new(first: &Arc<Disk>) -> Self {
        let (disk, keys) = (Arc::new(Disk::default()), Arc::new(OneKey::default()));
        let shared = Shared::in_session(SessionWord::new(2, 22), Vec::new()).caching(1);
        let shared = Arc::new(shared.announcing(first.clone()));
        let bystander = Content::over(disk, keys, shared.clone(), Access::ReadWrite).unwrap();
        bystander.write(0, &[7; 9000]).unwrap();
        Self { shared, bystander }
    }

    pub(crate) fn open(&self, disk: &Arc<Disk>) -> Result<Content, VolumeError> {
        let keys = Arc::new(OneKey::default());
        Content::over(disk.clone(), keys, self.shared.clone(), Access::ReadWrite)
    }

    /// Uses the other file's spill page.
    pub(crate) fn push(&self) {
        let mut bytes = [0; 9000];
        assert_eq!(self.bystander.read(0, &mut bytes).unwrap(), 9000);
        assert!(bytes == [7; 9000], "the file beside it");
    }
}

impl Op {
    /// Does it. `tag` makes the bytes of each write its own.
    pub(crate) fn run(self, content: &mut Option<Content>, tag: usize) -> Outcome {
        let file = content.as_ref().expect("the file is open between operations");
        let size = file.size();
        match self {
            Self::Write(offset, length) => file.write(offset, &bytes(offset, length, tag)),
            Self::Append(length) => file.write(size, &bytes(size, length, tag)),
            Self::Truncate(size) => file.truncate(size).map(|()| 0),
            Self::Shrink(by) => file.truncate(size.saturating_sub(by)).map(|()| 0),
            Self::Extend(by) => file.truncate(size + by).map(|()| 0),
            Self::Punch(offset, length) => file.punch(offset, length).map(|()| 0),
            Self::Zero(offset, length) => file.zero(offset, length, Reserve::Grow).map(|()| 0),
            Self::Sync => file.sync(Durability::Contents).map(|()| 0),
            Self::Seal => file.seal(SealEffort::Full).map(usize::from),
            Self::Raise => file.raise_seal().map(usize::from),
            Self::Xattr => file.xattr_keys(Access::ReadWrite).map(|_| 0),
            Self::Reopen => {
                let reopened = file.reopen()?;
                *content = Some(reopened);
                Ok(0)
            }
        }
    }

    /// The same on the model; `taken` is how many bytes a write reported.
    pub(crate) fn apply(self, model: &mut Vec<u8>, tag: usize, taken: Option<usize>) {
        let size = model.len();
        let at = |offset: u64| usize::try_from(offset).unwrap();
        match self {
            Self::Write(offset, length) => put(model, offset, &bytes(offset, length, tag), taken),
            Self::Append(length) => {
                put(model, size as u64, &bytes(size as u64, length, tag), taken);
            }
            Self::Truncate(size) => model.resize(at(size), 0),
            Self::Shrink(by) => model.truncate(size.saturating_sub(at(by))),
            Self::Extend(by) => model.resize(size + at(by), 0),
            Self::Punch(offset, length) => {
                let end = at(offset + length).min(size);
                model.get_mut(at(offset)..end).unwrap_or_default().fill(0);
            }
            Self::Zero(offset, length) => {
                let end = at(offset + length);
                model.resize(size.max(end), 0);
                model[at(offset)..end].fill(0);
            }
            Self::Sync | Self::Seal | Self::Raise | Self::Xattr | Self::Reopen => {}
        }
    }
}

fn put(model: &mut Vec<u8>, offset: u64, data: &[u8], taken: Option<usize>) {
    let data = &data[..taken.unwrap_or(data.len()).min(data.len())];
    let start = usize::try_from(offset).unwrap();
    if !data.is_empty() {
        model.resize(model.len().max(start + data.len()), 0);
        model[start..start + data.len()].copy_from_slice(data);
    }
}

/// Bytes that are never zero and differ between operations at every offset.
fn bytes(offset: u64, length: usize, tag: usize) -> Vec<u8> {
    let base = usize::try_from(offset).unwrap();
    (base..base + length).map(|at| u8::try_from(1 + (at % 25) * 10 + tag % 10).unwrap()).collect()
}

/// Everything in the file, block by block: `None` where a block cannot be read.
pub(crate) fn contents(content: &Content) -> Result<Vec<Option<Vec<u8>>>, VolumeError> {
    let size = usize::try_from(content.size()).unwrap();
    let mut whole = vec![0xee; size];
    if content.read(0, &mut whole).is_ok() {
        return Ok(whole.chunks(4096).map(|block| Some(block.to_vec())).collect());
    }
    let mut blocks = Vec::new();
    for start in (0..size).step_by(4096) {
        let mut block = vec![0xee; 4096.min(size - start)];
        blocks.push(match content.read(start as u64, &mut block) {
            Ok(_) => Some(block),
            Err(VolumeError::Lost(_)) => None,
            Err(error) => return Err(error),
        });
    }
    Ok(blocks)
}

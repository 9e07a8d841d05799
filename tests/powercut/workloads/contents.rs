//! Bytes of one file: overwritten, appended, punched.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, fallocate};

use crate::claim::State;
use crate::record::{At, Workload};

const BLOCK: usize = 4096;

/// How a program asks for its bytes to be durable.
#[derive(Clone, Copy)]
pub(crate) enum Sync {
    Full,
    Data,
}

impl Sync {
    pub(crate) fn file(self, file: &File) -> io::Result<()> {
        match self {
            Self::Full => file.sync_all(),
            Self::Data => file.sync_data(),
        }
    }
}

/// A file of blocks, and for each what may be found after a cut.
struct Blocks {
    path: &'static str,
    states: Vec<Vec<Vec<u8>>>,
}

impl Blocks {
    fn new(path: &'static str) -> Self {
        Self { path, states: Vec::new() }
    }

    fn prepare(&mut self, at: &At, count: usize) -> io::Result<()> {
        let mut random = at.random();
        self.states = (0..count).map(|_| vec![random.bytes(BLOCK)]).collect();
        let all: Vec<u8> = self.states.iter().flat_map(|states| states[0].clone()).collect();
        std::fs::write(at.path(self.path), all)
    }

    fn open(&self, at: &At) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(at.path(self.path))
    }

    /// The block is about to become `new`.
    fn begin(&mut self, at: &At, block: usize, new: Vec<u8>) {
        self.states[block].push(new);
        self.claim(at, block);
    }

    /// Whatever was begun is durable.
    fn synced(&mut self, at: &At) {
        for block in 0..self.states.len() {
            let old = self.states[block].len() - 1;
            if old > 0 {
                self.states[block].drain(..old);
                self.claim(at, block);
            }
        }
    }

    fn now(&self, block: usize) -> Vec<u8> {
        self.states[block].last().cloned().unwrap_or_default()
    }

    fn claim(&self, at: &At, block: usize) {
        let states = self.states[block]
            .iter()
            .map(|bytes| State::Bytes {
                at: (block * BLOCK) as u64,
                bytes: bytes.as_slice().into(),
            })
            .collect();
        at.claim(&format!("{}/{block}", self.path), self.path, states);
    }
}

/// Blocks, and parts of blocks, are overwritten in place and synced.
pub(crate) struct Cells {
    blocks: Blocks,
    sync: Sync,
}

impl Cells {
    pub(crate) fn new(sync: Sync) -> Self {
        Self { blocks: Blocks::new("cells"), sync }
    }
}

impl Workload for Cells {
    fn prepare(&mut self, at: &At) -> io::Result<()> {
        self.blocks.prepare(at, 130)
    }

    fn step(&mut self, at: &At, _: u32) -> io::Result<()> {
        let mut random = at.random();
        let file = self.blocks.open(at)?;
        for _ in 0..=random.below(5) {
            let block = random.index(130);
            let (from, len) = match random.below(3) {
                0 => (random.index(3000), 1 + random.index(1000)),
                _ => (0, BLOCK),
            };
            let bytes = random.bytes(len);
            let mut new = self.blocks.now(block);
            new[from..from + len].copy_from_slice(&bytes);
            self.blocks.begin(at, block, new);
            file.write_all_at(&bytes, (block * BLOCK + from) as u64)?;
        }
        self.sync.file(&file)?;
        self.blocks.synced(at);
        Ok(())
    }
}

/// Ranges are punched out, filled again, and reserved beyond the end.
pub(crate) struct Holes(Blocks);

impl Holes {
    pub(crate) fn new() -> Self {
        Self(Blocks::new("holes"))
    }
}

impl Workload for Holes {
    fn prepare(&mut self, at: &At) -> io::Result<()> {
        self.0.prepare(at, 110)
    }

    fn step(&mut self, at: &At, step: u32) -> io::Result<()> {
        let mut random = at.random();
        let file = self.0.open(at)?;
        let (first, count) = (random.index(100), 1 + random.index(10));
        let (offset, len) = ((first * BLOCK) as u64, (count * BLOCK) as u64);
        match step % 3 {
            0 => {
                (first..first + count).for_each(|block| self.0.begin(at, block, vec![0; BLOCK]));
                let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(&file, punch, offset, len)?;
            }
            1 => {
                let end = (self.0.states.len() * BLOCK) as u64;
                fallocate(&file, FallocateFlags::KEEP_SIZE, end, 1 << 20)?;
                fallocate(&file, FallocateFlags::empty(), offset, len)?;
            }
            _ => {
                let bytes = random.bytes(BLOCK);
                self.0.begin(at, first, bytes.clone());
                file.write_all_at(&bytes, offset)?;
            }
        }
        if random.one_in(2) {
            file.sync_all()?
        } else {
            file.sync_data()?
        }
        self.0.synced(at);
        Ok(())
    }
}

/// A log grows by lines of any length, each synced by fdatasync.
pub(crate) struct Appends {
    len: u64,
    lines: u32,
}

impl Appends {
    pub(crate) fn new() -> Self {
        Self { len: 0, lines: 0 }
    }
}

impl Workload for Appends {
    fn step(&mut self, at: &At, _: u32) -> io::Result<()> {
        let mut random = at.random();
        let file = OpenOptions::new().create(true).append(true).open(at.path("log"))?;
        for _ in 0..=random.below(2) {
            let len = 1 + random.index(6000);
            let line = random.bytes(len);
            io::Write::write_all(&mut &file, &line)?;
            file.sync_data()?;
            let state = State::Bytes { at: self.len, bytes: line.as_slice().into() };
            at.claim(&format!("log/{}", self.lines), "log", vec![state]);
            self.len += line.len() as u64;
            self.lines += 1;
        }
        Ok(())
    }
}

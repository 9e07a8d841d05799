//! The length of one file: cut, grown, appended to, written anew.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::Sync;
use crate::claim::State;
use crate::random::Random;
use crate::record::{At, Workload};

/// A file changes its length a few times, and each change is synced.
pub(crate) struct Sizes {
    now: Arc<[u8]>,
}

impl Sizes {
    pub(crate) fn new() -> Self {
        Self { now: Arc::new([]) }
    }

    /// The file was one of `ways` and becomes the last of them, which `change` does.
    fn becomes(
        &mut self,
        at: &At,
        sync: Sync,
        ways: Vec<Vec<u8>>,
        change: impl FnOnce(&[u8]) -> io::Result<File>,
    ) -> io::Result<()> {
        let ways: Vec<Arc<[u8]>> =
            [self.now.clone()].into_iter().chain(ways.into_iter().map(Arc::from)).collect();
        let new = ways[ways.len() - 1].clone();
        at.claim(FILE, FILE, vec![State::Between(ways)]);
        sync.file(&change(&new)?)?;
        at.claim(FILE, FILE, vec![State::Exactly(new.clone())]);
        self.now = new;
        Ok(())
    }

    fn cut(&mut self, at: &At, sync: Sync, random: &mut Random) -> io::Result<()> {
        // Often within the last page, where the length says more than the number of pages.
        let most = if random.one_in(2) { self.now.len() } else { self.now.len().min(5000) };
        let len = self.now.len() - random.index(most + 1);
        let new = self.now[..len].to_vec();
        self.becomes(at, sync, vec![new], |new| resized(at, new.len()))
    }

    fn grow(&mut self, at: &At, sync: Sync, random: &mut Random) -> io::Result<()> {
        let mut new = self.now.to_vec();
        new.resize(new.len() + random.index(GROWTH), 0);
        self.becomes(at, sync, vec![new], |new| resized(at, new.len()))
    }

    fn append(&mut self, at: &At, sync: Sync, random: &mut Random) -> io::Result<()> {
        let (old, len) = (self.now.len(), 1 + random.index(GROWTH));
        let new = [&self.now[..], &random.bytes(len)].concat();
        self.becomes(at, sync, vec![new], |new| {
            let file = OpenOptions::new().append(true).open(at.path(FILE))?;
            io::Write::write_all(&mut &file, &new[old..])?;
            Ok(file)
        })
    }

    fn anew(&mut self, at: &At, sync: Sync, random: &mut Random) -> io::Result<()> {
        let len = random.index(3 * GROWTH);
        let new = random.bytes(len);
        self.becomes(at, sync, vec![Vec::new(), new], |new| {
            let file = File::create(at.path(FILE))?;
            file.write_all_at(new, 0)?;
            Ok(file)
        })
    }
}

impl Workload for Sizes {
    fn prepare(&mut self, at: &At) -> io::Result<()> {
        // Past the end of the first group of blocks.
        self.now = at.random().bytes(160_000).into();
        fs::write(at.path(FILE), &self.now)
    }

    fn step(&mut self, at: &At, step: u32) -> io::Result<()> {
        let mut random = at.random();
        for turn in 0..3 {
            let sync = if random.one_in(2) { Sync::Full } else { Sync::Data };
            match (step + turn) % 4 {
                0 => self.cut(at, sync, &mut random)?,
                1 => self.append(at, sync, &mut random)?,
                2 => self.grow(at, sync, &mut random)?,
                _ => self.anew(at, sync, &mut random)?,
            }
        }
        Ok(())
    }
}

fn resized(at: &At, len: usize) -> io::Result<File> {
    let file = OpenOptions::new().write(true).open(at.path(FILE))?;
    file.set_len(len as u64)?;
    Ok(file)
}

const FILE: &str = "sizes";
/// Some blocks. Units: bytes.
const GROWTH: usize = 30_000;

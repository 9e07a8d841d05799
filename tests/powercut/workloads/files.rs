//! Whole files: written beside and renamed, delivered, made in trees, never synced.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

use crate::claim::State;
use crate::random::Random;
use crate::record::{At, Workload};

fn exactly(bytes: &[u8]) -> State {
    State::Exactly(bytes.into())
}

/// Writes a new file and syncs it.
fn write(at: &At, path: &str, bytes: &[u8]) -> io::Result<()> {
    fs::write(at.path(path), bytes)?;
    at.fsync(path)
}

/// What makes a rename durable.
#[derive(Clone, Copy)]
pub(crate) enum Then {
    SyncDirectory,
    SyncFile,
}

/// A document is replaced: written beside, synced, renamed.
pub(crate) struct Replace {
    now: Vec<u8>,
    then: Then,
}

impl Replace {
    pub(crate) fn new(then: Then) -> Self {
        Self { now: Vec::new(), then }
    }
}

impl Workload for Replace {
    fn prepare(&mut self, at: &At) -> io::Result<()> {
        self.now = at.random().bytes(9000);
        fs::write(at.path("document"), &self.now)
    }

    fn step(&mut self, at: &At, _: u32) -> io::Result<()> {
        let mut random = at.random();
        let len = random.index(20_000);
        let new = random.bytes(len);
        let file = File::create(at.path("document.new"))?;
        file.write_all_at(&new, 0)?;
        file.sync_all()?;
        at.claim("document", "document", vec![exactly(&self.now), exactly(&new)]);
        fs::rename(at.path("document.new"), at.path("document"))?;
        match self.then {
            Then::SyncDirectory => at.fsync(".")?,
            Then::SyncFile => file.sync_all()?,
        }
        at.claim("document", "document", vec![exactly(&new)]);
        self.now = new;
        Ok(())
    }
}

/// Messages come into `tmp`, go to `new`, are seen into `cur`, and some are deleted.
pub(crate) struct Maildir {
    new: Vec<(String, Vec<u8>)>,
    cur: Vec<String>,
}

impl Maildir {
    pub(crate) fn new() -> Self {
        Self { new: Vec::new(), cur: Vec::new() }
    }

    fn deliver(&mut self, at: &At, step: u32) -> io::Result<()> {
        let mut random = at.random();
        let len = 200 + random.index(12_000);
        let (name, text) = (format!("17{step}.M{step}P1.host"), random.bytes(len));
        write(at, &format!("tmp/{name}"), &text)?;
        let path = format!("new/{name}");
        at.claim(&path, &path, vec![State::Absent, exactly(&text)]);
        fs::rename(at.path(format!("tmp/{name}")), at.path(&path))?;
        at.fsync("new")?;
        at.claim(&path, &path, vec![exactly(&text)]);
        self.new.push((name, text));
        Ok(())
    }

    fn see(&mut self, at: &At) -> io::Result<()> {
        let (name, text) = self.new.remove(0);
        let (from, to) = (format!("new/{name}"), format!("cur/{name}:2,S"));
        at.claim(&from, &from, vec![State::Absent, exactly(&text)]);
        at.claim(&to, &to, vec![State::Absent, exactly(&text)]);
        fs::rename(at.path(&from), at.path(&to))?;
        at.fsync("cur")?;
        at.fsync("new")?;
        at.claim(&from, &from, vec![State::Absent]);
        at.claim(&to, &to, vec![exactly(&text)]);
        self.cur.push(to);
        Ok(())
    }

    fn delete(&mut self, at: &At) -> io::Result<()> {
        let path = self.cur.remove(0);
        at.claim(&path, &path, vec![]);
        fs::remove_file(at.path(&path))?;
        at.fsync("cur")?;
        at.claim(&path, &path, vec![State::Absent]);
        Ok(())
    }
}

impl Workload for Maildir {
    fn prepare(&mut self, at: &At) -> io::Result<()> {
        ["tmp", "new", "cur"].iter().try_for_each(|dir| fs::create_dir(at.path(dir)))
    }

    fn step(&mut self, at: &At, step: u32) -> io::Result<()> {
        self.deliver(at, step)?;
        if self.new.len() > 1 {
            self.see(at)?;
        }
        if self.cur.len() > 2 { self.delete(at) } else { Ok(()) }
    }
}

/// Directories with files are made, and synced from the leaves to the root.
pub(crate) struct Tree;

impl Workload for Tree {
    fn step(&mut self, at: &At, step: u32) -> io::Result<()> {
        let mut random = at.random();
        let mut dirs = vec![format!("tree {step}")];
        for depth in 0..2 + random.below(2) {
            let parent = dirs.last().cloned().unwrap_or_default();
            dirs.push(format!("{parent}/level {depth}"));
        }
        let mut claims = Vec::new();
        for dir in &dirs {
            fs::create_dir(at.path(dir))?;
            claims.push((dir.clone(), State::Dir));
            for number in 0..=random.below(2) {
                let path = format!("{dir}/file {number}");
                let len = random.index(10_000);
                let bytes = random.bytes(len);
                write(at, &path, &bytes)?;
                claims.push((path, exactly(&bytes)));
            }
        }
        for dir in dirs.iter().rev() {
            at.fsync(dir)?;
        }
        at.fsync(".")?;
        for (path, state) in claims {
            at.claim(&path, &path, vec![state]);
        }
        Ok(())
    }
}

/// New directories with new files, of which only the files are synced: that takes along whatever leads
/// to them, but not what lies beside them.
pub(crate) struct NewDirectories {
    /// One name in so many needs a sidecar in a vault.
    pub(crate) long: u64,
}

impl Workload for NewDirectories {
    fn step(&mut self, at: &At, step: u32) -> io::Result<()> {
        let mut random = at.random();
        let letters = |random: &mut Random| {
            let count = if random.one_in(self.long) { 200 } else { 5 };
            "n".repeat(count)
        };
        let mut dir = format!("new {step} {}", letters(&mut random));
        fs::create_dir(at.path(&dir))?;
        for depth in 0..random.below(3) {
            dir = format!("{dir}/{}{depth}", letters(&mut random));
            fs::create_dir(at.path(&dir))?;
            fs::write(at.path(format!("{dir}/beside it")), b"never synced")?;
        }
        for number in 0..=random.below(2) {
            let path = format!("{dir}/file {number}");
            let len = random.index(10_000);
            let bytes = random.bytes(len);
            write(at, &path, &bytes)?;
            at.claim(&path, &path, vec![exactly(&bytes)]);
        }
        let (path, other) = (format!("{dir}/file 0"), format!("{dir}/linked"));
        fs::hard_link(at.path(&path), at.path(&other))?;
        at.fsync(&path)?;
        at.claim(&other, &other, vec![State::SameAs(path.into())]);
        Ok(())
    }
}

/// Files whose names are durable and whose contents nobody ever synced: they open.
pub(crate) struct NeverSynced;

impl Workload for NeverSynced {
    fn step(&mut self, at: &At, step: u32) -> io::Result<()> {
        let mut random = at.random();
        for number in 0..3 {
            let path = format!("unsynced {step}.{number}");
            let file = OpenOptions::new().create_new(true).write(true).open(at.path(&path))?;
            let len = 1 + random.index(150_000);
            file.write_all_at(&random.bytes(len), random.below(2) * 500_000)?;
            at.fsync(".")?;
            at.claim(&path, &path, vec![State::Opens]);
        }
        // Something that is synced beside them, as a database beside its journal.
        let path = format!("synced {step}");
        let bytes = random.bytes(5000);
        write(at, &path, &bytes)?;
        at.fsync(".")?;
        at.claim(&path, &path, vec![exactly(&bytes)]);
        Ok(())
    }
}

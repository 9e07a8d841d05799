//! Programs that promise durability themselves.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use rusqlite::Connection;

use crate::claim::State;
use crate::record::{At, Workload};
use crate::tools::{Scratch, program, run};

/// SQLite, a transaction in each step.
pub(crate) struct Sqlite {
    mode: &'static str,
    synchronous: &'static str,
    held: Option<Connection>,
    rows: u32,
    /// So many of them are durable.
    sure: u32,
}

impl Sqlite {
    pub(crate) fn new(mode: &'static str, synchronous: &'static str) -> Self {
        Self { mode, synchronous, held: None, rows: 0, sure: 0 }
    }

    fn open(&self, at: &At) -> rusqlite::Result<Connection> {
        let db = Connection::open(at.path(FILE))?;
        db.query_row(&format!("PRAGMA journal_mode={}", self.mode), [], |_| Ok(()))?;
        db.pragma_update(None, "synchronous", self.synchronous)?;
        Ok(db)
    }

    fn insert(&mut self, at: &At) -> rusqlite::Result<()> {
        let db = match self.held.take() {
            Some(db) => db,
            None => self.open(at)?,
        };
        let mut random = at.random();
        for _ in 0..=random.below(2) {
            let n = self.rows + 1;
            let bytes = random.bytes(100 + (n as usize * 977) % 9000);
            at.claim(FILE, FILE, vec![State::Database { from: self.sure, to: n }]);
            db.execute("INSERT INTO t VALUES (?1, ?2)", (n, bytes))?;
            // Without EXTRA the removal of the journal, which is the commit, is not synced.
            let removed = self.mode == "DELETE" && self.synchronous == "FULL";
            self.sure = if removed { n - 1 } else { n };
            at.claim(FILE, FILE, vec![State::Database { from: self.sure, to: n }]);
            self.rows = n;
        }
        if self.mode == "WAL" {
            self.held = Some(db);
        }
        Ok(())
    }
}

impl Workload for Sqlite {
    fn prepare(&mut self, at: &At) -> io::Result<()> {
        let made = self.open(at).and_then(|db| {
            db.execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY, v BLOB NOT NULL)")
        });
        made.map_err(io::Error::other)
    }

    fn step(&mut self, at: &At, _: u32) -> io::Result<()> {
        self.insert(at).map_err(io::Error::other)
    }
}

/// git, a commit in each step.
pub(crate) struct Git {
    commits: u32,
}

impl Git {
    pub(crate) fn new() -> Self {
        Self { commits: 0 }
    }
}

impl Workload for Git {
    fn prepare(&mut self, at: &At) -> io::Result<()> {
        fs::create_dir(at.path(REPOSITORY))?;
        git(&at.path(REPOSITORY), &["init", "-q", "-b", "main"])
    }

    fn step(&mut self, at: &At, step: u32) -> io::Result<()> {
        let dir = at.path(REPOSITORY);
        let mut random = at.random();
        for name in ["README", "src.c", &format!("new {step}")] {
            let len = random.index(6000);
            fs::write(dir.join(name), random.bytes(len))?;
        }
        git(&dir, &["add", "-A"])?;
        git(&dir, &["commit", "-q", "-m", "a commit"])?;
        // git syncs its files; the names are its user's business.
        sync_dirs(&dir)?;
        self.commits += 1;
        at.claim(REPOSITORY, REPOSITORY, vec![State::Repository { commits: self.commits }]);
        Ok(())
    }
}

fn git(dir: &Path, args: &[&str]) -> io::Result<()> {
    let mut git = Command::new(program("git"));
    git.env("GIT_CONFIG_GLOBAL", "/dev/null")
        .args(["-c", "core.fsync=all", "-c", "core.fsyncMethod=fsync", "-c", "gc.auto=0"])
        .args(["-c", "user.name=Test", "-c", "user.email=test@localhost", "-C"])
        .arg(dir)
        .args(args);
    run(&mut git).map(drop).map_err(io::Error::other)
}

fn sync_dirs(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_dirs(&entry.path())?;
        }
    }
    fs::File::open(dir)?.sync_all()
}

/// `rsync --inplace --fsync` of a directory whose files change a little.
pub(crate) struct Rsync {
    source: Scratch,
    now: Vec<Vec<u8>>,
}

impl Rsync {
    pub(crate) fn new() -> Self {
        Self { source: Scratch::new("rsync"), now: vec![Vec::new(); 3] }
    }

    fn transfer(&self, at: &At) -> io::Result<()> {
        let mut rsync = Command::new(program("rsync"));
        rsync
            .args(["-a", "--inplace", "--no-whole-file", "--fsync", "--ignore-times"])
            .arg(self.source.path(""))
            .arg(at.path("copy"));
        run(&mut rsync).map(drop).map_err(io::Error::other)?;
        at.fsync("copy")
    }
}

impl Workload for Rsync {
    fn prepare(&mut self, at: &At) -> io::Result<()> {
        let mut random = at.random();
        for (number, now) in self.now.iter_mut().enumerate() {
            *now = random.bytes(60_000 + number * 11_111);
            fs::write(self.source.path(&number.to_string()), now)?;
        }
        fs::create_dir(at.path("copy"))?;
        self.transfer(at)
    }

    fn step(&mut self, at: &At, _: u32) -> io::Result<()> {
        let mut random = at.random();
        for (number, now) in self.now.iter_mut().enumerate() {
            let old = now.clone();
            let place = random.index(now.len() - 3000);
            let bytes = random.bytes(3000);
            now[place..place + 3000].copy_from_slice(&bytes);
            fs::write(self.source.path(&number.to_string()), &now)?;
            at.claim(&key(number), key(number), vec![whole(&old), whole(now)]);
        }
        self.transfer(at)?;
        for (number, now) in self.now.iter().enumerate() {
            at.claim(&key(number), key(number), vec![whole(now)]);
        }
        Ok(())
    }
}

fn key(number: usize) -> String {
    format!("copy/{number}")
}

fn whole(bytes: &[u8]) -> State {
    State::Bytes { at: 0, bytes: bytes.into() }
}

const FILE: &str = "data.db";
const REPOSITORY: &str = "repository";

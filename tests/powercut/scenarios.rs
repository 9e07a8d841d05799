//! The workloads, each with what happens around it.

use crate::machine::Keys;
use crate::record::{Act, Needs, Noise, Scenario, Workload};
use crate::workloads::{
    Appends, Cells, Git, HardLinks, Holes, LongNames, LongNamesInBetween, Maildir, Metadata,
    NamesOfSynced, NeverSynced, NewDirectories, Replace, Rsync, Sizes, Sqlite, Still, Symlinks,
    Sync, Then, Touched, Tree,
};

const fn plain(name: &'static str, workload: fn() -> Box<dyn Workload>) -> Scenario {
    let (keys, needs) = (Keys::SameDisk, Needs::Nothing);
    Scenario { name, workload, steps: 6, keys, acts: &[], noise: Noise::None, needs }
}

const fn noisy(name: &'static str, workload: fn() -> Box<dyn Workload>) -> Scenario {
    Scenario { steps: 8, noise: Noise::Always, ..plain(name, workload) }
}

const fn whole_pages(scenario: Scenario) -> Scenario {
    Scenario { needs: Needs::WholePages, ..scenario }
}

pub(crate) const CELLS_FSYNC: Scenario = plain("cells-fsync", || Box::new(Cells::new(Sync::Full)));
pub(crate) const CELLS_FDATASYNC: Scenario =
    plain("cells-fdatasync", || Box::new(Cells::new(Sync::Data)));
pub(crate) const CELLS_NOISE: Scenario = noisy("cells-noise", || Box::new(Cells::new(Sync::Data)));
pub(crate) const CELLS_APART: Scenario =
    Scenario { keys: Keys::Apart, name: "cells-apart", ..CELLS_NOISE };
pub(crate) const APPENDS: Scenario = whole_pages(noisy("appends", || Box::new(Appends::new())));
pub(crate) const HOLES: Scenario = plain("holes", || Box::new(Holes::new()));
pub(crate) const SIZES: Scenario = whole_pages(plain("sizes", || Box::new(Sizes::new())));
pub(crate) const SIZES_NOISE: Scenario =
    whole_pages(noisy("sizes-noise", || Box::new(Sizes::new())));
pub(crate) const REPLACE: Scenario =
    plain("replace", || Box::new(Replace::new(Then::SyncDirectory)));
pub(crate) const REPLACE_FILE: Scenario =
    plain("replace-fsync-file", || Box::new(Replace::new(Then::SyncFile)));
pub(crate) const MAILDIR: Scenario = noisy("maildir", || Box::new(Maildir::new()));
pub(crate) const TREE: Scenario = plain("tree", || Box::new(Tree));
pub(crate) const TREE_NOISE: Scenario = noisy("tree-noise", || Box::new(Tree));
pub(crate) const NEW_DIRECTORIES: Scenario =
    noisy("new-directories", || Box::new(NewDirectories { long: 3 }));
/// Every directory takes a sync to make, and others commit it before it has its name.
pub(crate) const UNFINISHED_DIRECTORIES: Scenario = Scenario {
    noise: Noise::Unfinished,
    ..plain("unfinished-directories", || Box::new(NewDirectories { long: 1 }))
};
pub(crate) const NEVER_SYNCED: Scenario = noisy("never-synced", || Box::new(NeverSynced));
pub(crate) const METADATA: Scenario = plain("metadata", || Box::new(Metadata::new()));
pub(crate) const HARD_LINKS: Scenario = plain("hard-links", || Box::new(HardLinks));
pub(crate) const NAMES_OF_SYNCED: Scenario = noisy("names-of-synced", || Box::new(NamesOfSynced));
pub(crate) const SYMLINKS: Scenario = plain("symlinks", || Box::new(Symlinks));
pub(crate) const LONG_NAMES: Scenario =
    Scenario { steps: 8, ..plain("long-names", || Box::new(LongNames::new())) };
pub(crate) const SYMLINKS_NOISE: Scenario = noisy("symlinks-noise", || Box::new(Symlinks));
pub(crate) const LONG_NAMES_NOISE: Scenario =
    noisy("long-names-noise", || Box::new(LongNames::new()));
pub(crate) const LONG_NAMES_BETWEEN: Scenario =
    plain("long-names-in-between", || Box::new(LongNamesInBetween));
pub(crate) const SQLITE_DELETE: Scenario =
    whole_pages(plain("sqlite-delete", || Box::new(Sqlite::new("DELETE", "FULL"))));
pub(crate) const SQLITE_EXTRA: Scenario =
    whole_pages(plain("sqlite-delete-extra", || Box::new(Sqlite::new("DELETE", "EXTRA"))));
pub(crate) const SQLITE_TRUNCATE: Scenario =
    whole_pages(plain("sqlite-truncate", || Box::new(Sqlite::new("TRUNCATE", "FULL"))));
pub(crate) const SQLITE_PERSIST: Scenario =
    whole_pages(noisy("sqlite-persist", || Box::new(Sqlite::new("PERSIST", "FULL"))));
pub(crate) const SQLITE_WAL: Scenario =
    plain("sqlite-wal", || Box::new(Sqlite::new("WAL", "FULL")));
pub(crate) const GIT: Scenario = Scenario { steps: 3, ..plain("git", || Box::new(Git::new())) };
pub(crate) const RSYNC: Scenario =
    Scenario { steps: 3, ..plain("rsync", || Box::new(Rsync::new())) };
pub(crate) const KILLED: Scenario = Scenario {
    name: "killed",
    steps: 9,
    acts: &[(2, Act::Kill), (4, Act::Remount), (5, Act::Syncfs), (6, Act::Kill)],
    ..CELLS_NOISE
};
pub(crate) const KEYS_CHANGE: Scenario = Scenario {
    name: "keys-change",
    steps: 9,
    acts: &[
        (1, Act::Rotate),
        (3, Act::Rewrap),
        (4, Act::Retire),
        (5, Act::Policy),
        (6, Act::Rotate),
        (7, Act::Rewrap),
    ],
    ..MAILDIR
};

/// Re-wraps of files of which nothing else changes, while others commit.
pub(crate) const REWRAPPED: Scenario = Scenario {
    steps: 3,
    acts: &[(0, Act::Rotate), (0, Act::Rewrap), (1, Act::Rotate), (1, Act::Rewrap)],
    ..noisy("rewrapped", || Box::new(Still))
};
/// The same again and again, and nobody else takes anything to the disk.
pub(crate) const REWRAPPED_ALONE: Scenario =
    Scenario { steps: 5, acts: REWRAPS, ..plain("rewrapped-alone", || Box::new(Still)) };
/// And in between users set times, and sync nothing.
pub(crate) const TOUCHED: Scenario =
    Scenario { steps: 5, acts: REWRAPS, ..plain("touched", || Box::new(Touched::new())) };
const REWRAPS: &[(u32, Act)] = &[
    (0, Act::Rotate),
    (0, Act::Rewrap),
    (1, Act::Rotate),
    (1, Act::Rewrap),
    (2, Act::Rotate),
    (2, Act::Rewrap),
    (3, Act::Rotate),
    (3, Act::Rewrap),
];

/// The keystore, on another disk, remembers the policy: the directory has to have it.
pub(crate) const POLICY_APART: Scenario = Scenario {
    name: "policy-apart",
    steps: 3,
    keys: Keys::Apart,
    acts: &[(0, Act::Policy), (1, Act::Syncfs), (2, Act::Rewrap)],
    ..TREE
};

/// The scenarios of random cuts.
pub(crate) static ALL: &[&Scenario] = &[
    &CELLS_FSYNC,
    &CELLS_FDATASYNC,
    &CELLS_NOISE,
    &CELLS_APART,
    &APPENDS,
    &HOLES,
    &SIZES,
    &SIZES_NOISE,
    &REPLACE,
    &REPLACE_FILE,
    &MAILDIR,
    &TREE,
    &TREE_NOISE,
    &NEW_DIRECTORIES,
    &UNFINISHED_DIRECTORIES,
    &NEVER_SYNCED,
    &METADATA,
    &HARD_LINKS,
    &NAMES_OF_SYNCED,
    &SYMLINKS,
    &SYMLINKS_NOISE,
    &LONG_NAMES,
    &LONG_NAMES_NOISE,
    &LONG_NAMES_BETWEEN,
    &SQLITE_DELETE,
    &SQLITE_EXTRA,
    &SQLITE_TRUNCATE,
    &SQLITE_PERSIST,
    &SQLITE_WAL,
    &GIT,
    &RSYNC,
    &KILLED,
    &KEYS_CHANGE,
    &REWRAPPED,
    &REWRAPPED_ALONE,
    &TOUCHED,
    &POLICY_APART,
];

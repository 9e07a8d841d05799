//! Each workload, cut right after its last acknowledgement: the vault did the last thing on the
//! disk, so nothing else made its work durable.

use crate::attempt::attempt;
use crate::backing::{BTRFS, Backing, JOURNAL, ORDERED, SMALL, WRITEBACK, XFS};
use crate::cut::{Kept, Unit};
use crate::device::Event;
use crate::machine::Journal;
use crate::random::Random;
use crate::record::{Scenario, record};
use crate::scenarios as s;
use crate::tools::need_root;

/// One test: a filesystem, a scenario, what is kept of the writes after the last flush.
macro_rules! cuts {
    ($($name:ident: $backing:ident, $scenario:ident, $kept:ident, $unit:ident;)*) => {$(
        #[test]
        fn $name() {
            need_root();
            let recording = record(&$backing, &s::$scenario, SEED, Journal::Auto)
                .unwrap_or_else(|error| panic!("{} {}: {error}", $backing.name, s::$scenario.name));
            let mut random = Random::new(named(stringify!($name)));
            let at = recording.last_word();
            let (found, what) = attempt(
                &$backing, &s::$scenario, &recording, (at, Kept::$kept, Unit::$unit), &mut random,
            );
            assert!(found.losses.is_empty(), "{what}\n  {}", found.losses.join("\n  "));
            assert!(found.claims > 0, "{what}: nothing was claimed");
        }
    )*};
}

/// The time of a ciphertext file moves in a re-wrap, and whenever somebody else's commit takes it to the
/// disk, what to show instead is there. Cuts at moments all over two re-wraps.
#[test]
fn regression_a_cut_in_a_rewrap_leaves_the_times_that_are_shown() {
    for backing in [&ORDERED, &XFS, &BTRFS] {
        cut_at_flushes(backing, &s::REWRAPPED, 8);
    }
}

/// From the second re-wrap on, btrfs had the records of the new times before these, and they took the
/// place of those of the times that were there. On the others one journal has both.
#[test]
fn regression_a_cut_in_any_rewrap_leaves_the_times_that_are_shown() {
    for (backing, most) in [(&ORDERED, 8), (&XFS, 8), (&BTRFS, 64)] {
        cut_at_flushes(backing, &s::REWRAPPED_ALONE, most);
    }
}

/// Users set times and synced nothing. That they did was on the disk before these times, so those before
/// were shown as a re-wrap had left them.
#[test]
fn regression_a_time_that_is_set_after_a_rewrap_is_there_or_the_one_before_it() {
    for (backing, most) in [(&ORDERED, 8), (&XFS, 8), (&BTRFS, 64)] {
        cut_at_flushes(backing, &s::TOUCHED, most);
    }
}

/// btrfs: somebody else's commit took a directory along that had no name yet. What is synced in it goes
/// to the disk with its names or after them, so that no cut leaves it where a mount shows nothing.
#[test]
fn regression_no_cut_leaves_something_in_a_directory_without_a_name() {
    cut_at_flushes(&BTRFS, &s::UNFINISHED_DIRECTORIES, 64);
}

/// Cuts right after flushes, `most` of them, all over the recording.
fn cut_at_flushes(backing: &'static Backing, scenario: &Scenario, most: usize) {
    need_root();
    let recording = record(backing, scenario, SEED, Journal::Auto)
        .unwrap_or_else(|error| panic!("{}: {error}", backing.name));
    let flush = |event: &Event| matches!(event, Event::Flush);
    let mark = |event: &Event| matches!(event, Event::Mark(_));
    let begun = recording.events.iter().position(mark).unwrap();
    let flushes: Vec<_> =
        (begun..recording.last_word()).filter(|at| flush(&recording.events[*at])).collect();
    let mut random = Random::new(SEED);
    let step = flushes.len().div_ceil(most);
    let mut failures = Vec::new();
    for at in flushes.into_iter().rev().step_by(step) {
        let cut = (at + 1, Kept::None, Unit::Piece);
        let (found, what) = attempt(backing, scenario, &recording, cut, &mut random);
        if !found.losses.is_empty() {
            failures.push(format!("{what}\n  {}", found.losses.join("\n  ")));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

const SEED: u64 = 8;

/// The same cut each time, another one for each test.
fn named(test: &str) -> u64 {
    test.bytes().fold(SEED, |sum, byte| sum.rotate_left(9) ^ u64::from(byte))
}

cuts! {
    ext4_cells_fsync: ORDERED, CELLS_FSYNC, None, Piece;
    ext4_cells_fdatasync: ORDERED, CELLS_FDATASYNC, None, Piece;
    ext4_cells_in_noise: ORDERED, CELLS_NOISE, Some, Piece;
    ext4_cells_torn: ORDERED, CELLS_NOISE, Some, Sector;
    ext4_cells_keystore_apart: ORDERED, CELLS_APART, AllButOne, Piece;
    ext4_appends: ORDERED, APPENDS, None, Piece;
    ext4_holes: ORDERED, HOLES, None, Piece;
    ext4_sizes: ORDERED, SIZES, None, Piece;
    ext4_sizes_in_noise: ORDERED, SIZES_NOISE, Some, Piece;
    writeback_sizes: WRITEBACK, SIZES, Metadata, Piece;
    xfs_sizes: XFS, SIZES, None, Piece;
    btrfs_sizes: BTRFS, SIZES, None, Piece;
    ext4_replace: ORDERED, REPLACE, None, Piece;
    ext4_maildir: ORDERED, MAILDIR, Metadata, Piece;
    ext4_tree: ORDERED, TREE, None, Piece;
    ext4_tree_all_but_one: ORDERED, TREE, AllButOne, Piece;
    ext4_new_directories_in_noise: ORDERED, NEW_DIRECTORIES, Some, Piece;
    xfs_new_directories_in_noise: XFS, NEW_DIRECTORIES, None, Piece;
    btrfs_new_directories_in_noise: BTRFS, NEW_DIRECTORIES, None, Piece;
    ext4_names_of_synced: ORDERED, NAMES_OF_SYNCED, None, Piece;
    xfs_names_of_synced: XFS, NAMES_OF_SYNCED, None, Piece;
    btrfs_names_of_synced: BTRFS, NAMES_OF_SYNCED, None, Piece;
    btrfs_tree_in_noise: BTRFS, TREE_NOISE, None, Piece;
    ext4_never_synced_without_data: ORDERED, NEVER_SYNCED, Metadata, Piece;
    ext4_never_synced: ORDERED, NEVER_SYNCED, All, Piece;
    ext4_metadata: ORDERED, METADATA, None, Piece;
    writeback_metadata: WRITEBACK, METADATA, None, Piece;
    ext4_replace_and_fsync_the_file: ORDERED, REPLACE_FILE, None, Piece;
    ext4_symlinks: ORDERED, SYMLINKS, None, Piece;
    ext4_symlinks_in_noise: ORDERED, SYMLINKS_NOISE, Some, Piece;
    ext4_long_names_in_noise: ORDERED, LONG_NAMES_NOISE, Some, Piece;
    ext4_long_names_in_between: ORDERED, LONG_NAMES_BETWEEN, None, Piece;
    xfs_long_names_in_between: XFS, LONG_NAMES_BETWEEN, None, Piece;
    journal_long_names_in_noise: JOURNAL, LONG_NAMES_NOISE, Some, Piece;
    xfs_symlinks: XFS, SYMLINKS, None, Piece;
    ext4_hard_links: ORDERED, HARD_LINKS, None, Piece;
    ext4_long_names: ORDERED, LONG_NAMES, None, Piece;
    ext4_sqlite_delete: ORDERED, SQLITE_DELETE, None, Piece;
    ext4_sqlite_delete_extra: ORDERED, SQLITE_EXTRA, None, Piece;
    ext4_sqlite_truncate: ORDERED, SQLITE_TRUNCATE, None, Piece;
    ext4_sqlite_persist: ORDERED, SQLITE_PERSIST, Some, Piece;
    ext4_sqlite_wal: ORDERED, SQLITE_WAL, None, Piece;
    ext4_git: ORDERED, GIT, None, Piece;
    ext4_rsync: ORDERED, RSYNC, None, Piece;
    ext4_killed: ORDERED, KILLED, Some, Piece;
    ext4_keys_change: ORDERED, KEYS_CHANGE, None, Piece;
    ext4_policy_keystore_apart: ORDERED, POLICY_APART, None, Piece;
    xfs_policy_keystore_apart: XFS, POLICY_APART, None, Piece;
    btrfs_policy_keystore_apart: BTRFS, POLICY_APART, None, Piece;
    btrfs_keys_change: BTRFS, KEYS_CHANGE, None, Piece;
    writeback_never_synced: WRITEBACK, NEVER_SYNCED, Metadata, Piece;
    writeback_sqlite_delete: WRITEBACK, SQLITE_DELETE, Data, Piece;
    writeback_replace: WRITEBACK, REPLACE, None, Piece;
    journal_cells_fdatasync: JOURNAL, CELLS_FDATASYNC, None, Piece;
    small_blocks_never_synced: SMALL, NEVER_SYNCED, Metadata, Piece;
    small_blocks_holes: SMALL, HOLES, None, Piece;
    small_blocks_torn: SMALL, CELLS_NOISE, Some, Sector;
    small_blocks_appends: SMALL, APPENDS, Some, Piece;
    small_blocks_appends_torn: SMALL, APPENDS, Some, Sector;
    small_blocks_sizes_torn: SMALL, SIZES_NOISE, Some, Sector;
    small_blocks_sqlite_delete: SMALL, SQLITE_DELETE, Some, Piece;
    small_blocks_sqlite_persist: SMALL, SQLITE_PERSIST, Some, Sector;
    xfs_cells_fdatasync: XFS, CELLS_FDATASYNC, None, Piece;
    xfs_holes: XFS, HOLES, None, Piece;
    xfs_replace_and_fsync_the_file: XFS, REPLACE_FILE, None, Piece;
    xfs_metadata: XFS, METADATA, None, Piece;
    xfs_tree: XFS, TREE, AllButOne, Piece;
    xfs_sqlite_delete: XFS, SQLITE_DELETE, None, Piece;
    xfs_sqlite_persist: XFS, SQLITE_PERSIST, Some, Piece;
    xfs_sqlite_wal: XFS, SQLITE_WAL, None, Piece;
    btrfs_cells_fdatasync: BTRFS, CELLS_FDATASYNC, None, Piece;
    btrfs_replace_and_fsync_the_file: BTRFS, REPLACE_FILE, None, Piece;
    btrfs_metadata: BTRFS, METADATA, None, Piece;
    btrfs_symlinks: BTRFS, SYMLINKS, None, Piece;
    btrfs_long_names_in_between: BTRFS, LONG_NAMES_BETWEEN, None, Piece;
    btrfs_long_names: BTRFS, LONG_NAMES, None, Piece;
    btrfs_sqlite_truncate: BTRFS, SQLITE_TRUNCATE, None, Piece;
    btrfs_rsync: BTRFS, RSYNC, None, Piece;
}

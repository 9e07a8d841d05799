//! A journal over memory: what it keeps, what it forgets, and what a cut leaves of it.

use std::sync::Barrier;

use super::super::crashed::CrashedJournals;
use super::*;
use crate::envelope::layout::PAGE_LEN;
use crate::envelope::{SessionWord, UNDO_HEADER};
use crate::volume::backing::memory::MemoryFile;

const FILE: FileId = FileId::from_bytes([9; 16]);
const INODE: u64 = 7;

fn journal() -> (PageJournal, [Arc<MemoryFile>; 2]) {
    let files = [Arc::new(MemoryFile::default()), Arc::new(MemoryFile::default())];
    (PageJournal::over(files.clone().map(|file| file as Arc<dyn Backing>)), files)
}

fn keep(journal: &PageJournal, journaled: &mut JournaledPages, page: u64, byte: u8) {
    let bytes = [byte; PAGE_LEN];
    let old = OldPage { page: PageNo(page), start: 0, bytes: &bytes };
    journal.record((FILE, INODE), 0, &[old], journaled).unwrap();
}

fn crashed(files: &[Arc<MemoryFile>; 2]) -> CrashedJournals {
    let parts = files.iter().map(|file| file.clone() as Arc<dyn Backing>).collect();
    CrashedJournals::read(vec![(SessionWord::new(1, 1), parts)])
}

fn found(journals: &CrashedJournals, page: u64) -> Option<u8> {
    let mut versions = journals.versions((FILE, INODE), PageNo(page));
    let first = versions.next().map(|page| page[0]);
    assert!(versions.next().is_none(), "one version of a session");
    first
}

#[test]
fn the_latest_version_of_a_page_is_found() {
    let (journal, files) = journal();
    let (mut one, mut other) = (JournaledPages::default(), JournaledPages::default());
    keep(&journal, &mut one, 5, 1);
    keep(&journal, &mut other, 6, 2);
    one.release();
    keep(&journal, &mut one, 5, 3);
    let journals = crashed(&files);
    assert_eq!(
        (found(&journals, 5), found(&journals, 6), found(&journals, 7)),
        (Some(3), Some(2), None)
    );
    assert_eq!(journals.pages_of(FILE, INODE), [PageNo(5), PageNo(6)]);
    assert!(!journals.has(FileId::from_bytes([8; 16])));
}

#[test]
fn a_journal_that_nobody_needs_begins_anew_and_old_records_are_no_newer_ones() {
    let (journal, files) = journal();
    let mut journaled = JournaledPages::default();
    for page in 0..4 {
        keep(&journal, &mut journaled, page, 1);
    }
    journaled.release();
    let long = files[0].length().unwrap();
    keep(&journal, &mut journaled, 0, 2);
    assert_eq!(files[0].length().unwrap(), long, "it is written over");
    let journals = crashed(&files);
    assert_eq!(journals.pages_of(FILE, INODE), [PageNo(0)], "of the others nothing is needed");
    assert_eq!(found(&journals, 0), Some(2));
}

#[test]
fn a_file_that_was_forgotten_is_waited_for() {
    let (journal, files) = journal();
    let mut journaled = JournaledPages::default();
    keep(&journal, &mut journaled, 0, 1);
    drop(journaled.clone());
    drop(journaled);
    let mut journaled = JournaledPages::default();
    keep(&journal, &mut journaled, 1, 1);
    assert_eq!(crashed(&files).pages_of(FILE, INODE), [PageNo(0), PageNo(1)]);
    journaled.release();
    drop(journal.orphans());
    keep(&journal, &mut journaled, 2, 1);
    assert_eq!(crashed(&files).pages_of(FILE, INODE).len(), 3, "that sync failed");
    journaled.release();
    journal.orphans().release();
    keep(&journal, &mut journaled, 3, 1);
    assert_eq!(crashed(&files).pages_of(FILE, INODE), [PageNo(3)]);
}

/// Writes down as many pages as make a part long, from `first` on.
fn fill(journal: &PageJournal, journaled: &mut JournaledPages, first: u64) {
    let old = |page| OldPage { page: PageNo(page), start: 0, bytes: &[1] };
    for start in (first..first + LONG).step_by(64) {
        let pages: Vec<_> = (start..start + 64).map(old).collect();
        journal.record((FILE, INODE), 0, &pages, journaled).unwrap();
    }
}

#[test]
fn two_files_take_turns_when_one_is_long() {
    let (journal, files) = journal();
    let mut all = vec![JournaledPages::default(); 2];
    fill(&journal, &mut all[0], 0);
    assert_eq!(files[1].length().unwrap(), 0);
    keep(&journal, &mut all[1], LONG, 7);
    assert!(files[1].length().unwrap() > 0, "the other one is used");
    assert_eq!(found(&crashed(&files), 0), Some(1));
    assert_eq!(found(&crashed(&files), LONG), Some(7));
    fill(&journal, &mut all[1], LONG + 1);
    assert!(journal.is_pressed(), "both are needed");
    all[0].release();
    assert!(!journal.is_pressed());
    let long = files[0].length().unwrap();
    keep(&journal, &mut all[0], 0, 9);
    assert_eq!(found(&crashed(&files), 0), Some(9));
    assert_eq!(files[0].length().unwrap(), long, "its room is used again");
}

/// The first file was not used anew for as long as anybody at all was about to write.
#[test]
fn regression_a_journal_that_is_never_idle_stays_short() {
    let (journal, files) = journal();
    let mut all = vec![JournaledPages::default(); 2];
    for turn in 0..20 {
        for journaled in &mut all {
            fill(&journal, journaled, turn * LONG);
        }
        all.swap(0, 1);
        all[1].release();
        assert!(!journal.is_pressed(), "in turn {turn}");
    }
    for file in &files {
        let most = 2 * LONG * (UNDO_HEADER as u64 + 1);
        assert!(file.length().unwrap() <= most, "{} bytes", file.length().unwrap());
    }
}

#[test]
fn whoever_waits_for_room_goes_on_when_there_is_some_or_nobody_makes_any() {
    let (journal, _files) = journal();
    let mut all = vec![JournaledPages::default(); 2];
    fill(&journal, &mut all[0], 0);
    fill(&journal, &mut all[1], LONG);
    assert!(journal.is_pressed());
    // Nobody attends to it.
    journal.wait_for_room();
    journal.attend(true);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| journal.wait_for_room());
        all[0].release();
        waiter.join().unwrap();
    });
    assert!(!journal.is_pressed());
    keep(&journal, &mut all[0], 0, 1);
    fill(&journal, &mut all[0], 0);
    assert!(journal.is_pressed());
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| journal.wait_for_room());
        journal.attend(false);
        waiter.join().unwrap();
    });
}

#[test]
fn what_a_burst_took_is_given_back_when_it_is_quiet() {
    let (journal, files) = journal();
    let mut journaled = JournaledPages::default();
    for page in 0..SPARE / PAGE_LEN as u64 + 1 {
        keep(&journal, &mut journaled, page, 1);
    }
    journal.give_back();
    journal.give_back();
    assert!(files[0].length().unwrap() > SPARE, "it is needed");
    journaled.release();
    journal.give_back();
    assert_eq!(files[0].length().unwrap(), 0);
    // A crash may leave them all the same.
    assert_eq!(journal.last_page(FILE), Some(PageNo(SPARE / PAGE_LEN as u64)));
    keep(&journal, &mut journaled, 3, 1);
    assert_eq!(journal.last_page(FILE), Some(PageNo(3)));
}

/// Records that nobody needs are there until their room is used again, durably.
#[test]
fn a_page_that_a_crash_could_leave_a_record_of_is_known() {
    let (journal, files) = journal();
    let mut journaled = JournaledPages::default();
    assert_eq!(journal.last_page(FILE), None);
    keep(&journal, &mut journaled, 5, 1);
    keep(&journal, &mut journaled, 3, 1);
    journaled.release();
    assert_eq!(journal.last_page(FILE), Some(PageNo(5)));
    keep(&journal, &mut journaled, 0, 1);
    assert_eq!(journal.last_page(FILE), Some(PageNo(0)), "the file was begun anew");
    assert_eq!(crashed(&files).pages_of(FILE, INODE), [PageNo(0)]);
    assert_eq!(journal.last_page(FileId::from_bytes([8; 16])), None);
}

#[test]
fn a_page_of_which_nothing_is_durable_is_one_without_bytes() {
    let (journal, files) = journal();
    let mut journaled = JournaledPages::default();
    keep(&journal, &mut journaled, 5, 1);
    let gone = OldPage { page: PageNo(5), start: 0, bytes: &[] };
    journal.record((FILE, INODE), 0, &[gone], &mut journaled).unwrap();
    assert_eq!(found(&crashed(&files), 5), Some(0));
}

#[test]
fn what_was_written_down_before_a_sync_of_everything_does_not_stand_for_what_it_makes_durable() {
    let (journal, _files) = journal();
    let mut journaled = JournaledPages::default();
    let page = |page| OldPage { page: PageNo(page), start: 0, bytes: &[1] };
    journal.record((FILE, INODE), 7, &[page(1), page(2)], &mut journaled).unwrap();
    journaled.turn(7);
    assert!(
        journaled.has(PageNo(1)) && !journaled.is_doubtful_from(PageNo(0)),
        "nothing was written yet"
    );
    journaled.turn(8);
    assert!(!journaled.has(PageNo(1)) && journaled.is_doubtful(PageNo(1)));
    assert!(journaled.is_doubtful_from(PageNo(2)) && !journaled.is_doubtful_from(PageNo(3)));
    journal.record((FILE, INODE), 8, &[page(2)], &mut journaled).unwrap();
    assert!(journaled.has(PageNo(2)) && !journaled.has(PageNo(1)));
    journaled.forget_before(8);
    assert!(journaled.has(PageNo(2)) && !journaled.is_doubtful(PageNo(1)) && !journaled.is_empty());
    journaled.release();
    assert!(journaled.is_empty() && !journaled.has(PageNo(2)));
}

#[test]
fn a_torn_journal_has_what_is_whole() {
    let (journal, files) = journal();
    let mut journaled = JournaledPages::default();
    for page in 0..3 {
        keep(&journal, &mut journaled, page, 1);
    }
    let bytes = files[0].bytes();
    for cut in (0..bytes.len()).step_by(97) {
        let torn = [Arc::new(MemoryFile::new(bytes[..cut].to_vec())), Arc::default()];
        let whole = cut / (bytes.len() / 3);
        assert_eq!(crashed(&torn).pages_of(FILE, INODE).len(), whole, "cut at {cut}");
    }
    let garbage = [Arc::new(MemoryFile::new(vec![0x4b; 1 << 20])), Arc::default()];
    assert!(crashed(&garbage).pages_of(FILE, INODE).is_empty());
}

#[test]
fn whoever_comes_at_the_same_time_is_kept_as_well() {
    let (journal, files) = journal();
    let start = Barrier::new(8);
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let (journal, start) = (&journal, &start);
            scope.spawn(move || {
                let mut journaled = JournaledPages::default();
                start.wait();
                for page in 0..50 {
                    keep(journal, &mut journaled, thread * 100 + page, 1);
                }
                std::mem::forget(journaled);
            });
        }
    });
    assert_eq!(crashed(&files).pages_of(FILE, INODE).len(), 400);
}

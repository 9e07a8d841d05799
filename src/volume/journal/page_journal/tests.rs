//! A journal over memory: what it keeps, what it forgets, and what a cut leaves of it.

use std::sync::Barrier;

use super::super::left::LeftPages;
use super::*;
use crate::envelope::SessionWord;
use crate::envelope::layout::PAGE_LEN;
use crate::volume::backing::memory::MemoryFile;

const FILE: FileId = FileId::from_bytes([9; 16]);

fn journal() -> (PageJournal, [Arc<MemoryFile>; 2]) {
    let files = [Arc::new(MemoryFile::default()), Arc::new(MemoryFile::default())];
    (PageJournal::over(files.clone().map(|file| file as Arc<dyn Backing>)), files)
}

fn keep(journal: &PageJournal, kept: &mut KeptPages, page: u64, byte: u8) {
    let bytes = [byte; PAGE_LEN];
    let old = OldPage { page: PageNo(page), start: 0, bytes: &bytes };
    journal.keep(FILE, &[old], kept).unwrap();
}

fn left(files: &[Arc<MemoryFile>; 2]) -> LeftPages {
    let parts = files.iter().map(|file| file.clone() as Arc<dyn Backing>).collect();
    LeftPages::read(vec![(SessionWord::new(1, 1), parts)])
}

fn found(left: &LeftPages, page: u64) -> Option<u8> {
    let mut versions = left.versions(FILE, PageNo(page));
    let first = versions.next().map(|page| page[0]);
    assert!(versions.next().is_none(), "one version of a session");
    first
}

#[test]
fn the_latest_version_of_a_page_is_found() {
    let (journal, files) = journal();
    let (mut one, mut other) = (KeptPages::default(), KeptPages::default());
    keep(&journal, &mut one, 5, 1);
    keep(&journal, &mut other, 6, 2);
    one.release();
    keep(&journal, &mut one, 5, 3);
    let left = left(&files);
    assert_eq!((found(&left, 5), found(&left, 6), found(&left, 7)), (Some(3), Some(2), None));
    assert_eq!(left.pages_of(FILE), [PageNo(5), PageNo(6)]);
    assert!(!left.has(FileId::from_bytes([8; 16])));
}

#[test]
fn a_journal_that_nobody_needs_begins_anew_and_old_records_are_no_newer_ones() {
    let (journal, files) = journal();
    let mut kept = KeptPages::default();
    for page in 0..4 {
        keep(&journal, &mut kept, page, 1);
    }
    kept.release();
    let long = files[0].length().unwrap();
    keep(&journal, &mut kept, 0, 2);
    assert_eq!(files[0].length().unwrap(), long, "it is written over");
    let left = left(&files);
    assert_eq!(left.pages_of(FILE), [PageNo(0)], "of the others nothing is needed");
    assert_eq!(found(&left, 0), Some(2));
}

#[test]
fn a_file_that_was_forgotten_is_waited_for() {
    let (journal, files) = journal();
    let mut kept = KeptPages::default();
    keep(&journal, &mut kept, 0, 1);
    drop(kept.clone());
    drop(kept);
    let mut kept = KeptPages::default();
    keep(&journal, &mut kept, 1, 1);
    assert_eq!(left(&files).pages_of(FILE), [PageNo(0), PageNo(1)]);
    kept.release();
    drop(journal.orphans());
    keep(&journal, &mut kept, 2, 1);
    assert_eq!(left(&files).pages_of(FILE).len(), 3, "that sync failed");
    kept.release();
    journal.orphans().settle();
    keep(&journal, &mut kept, 3, 1);
    assert_eq!(left(&files).pages_of(FILE), [PageNo(3)]);
}

#[test]
fn two_files_take_turns_when_one_is_long() {
    let (journal, files) = journal();
    let mut all = vec![KeptPages::default(); 2];
    let mut page = 0;
    let fill = |kept: &mut KeptPages, page: &mut u64, part: usize| {
        while files[part].length().unwrap() < LONG {
            keep(&journal, kept, *page, 1);
            *page += 1;
        }
    };
    fill(&mut all[0], &mut page, 0);
    keep(&journal, &mut all[1], page, 7);
    assert!(files[1].length().unwrap() > 0, "the other one is used");
    assert_eq!(found(&left(&files), 0), Some(1));
    assert_eq!(found(&left(&files), page), Some(7));
    fill(&mut all[1], &mut page, 1);
    all[0].release();
    keep(&journal, &mut all[0], 0, 9);
    assert_eq!(found(&left(&files), 0), Some(9));
    assert!(files[0].length().unwrap() < LONG, "the room is given back");
}

#[test]
fn a_torn_journal_has_what_is_whole() {
    let (journal, files) = journal();
    let mut kept = KeptPages::default();
    for page in 0..3 {
        keep(&journal, &mut kept, page, 1);
    }
    let bytes = files[0].bytes();
    for cut in (0..bytes.len()).step_by(97) {
        let torn = [Arc::new(MemoryFile::new(bytes[..cut].to_vec())), Arc::default()];
        let whole = cut / (bytes.len() / 3);
        assert_eq!(left(&torn).pages_of(FILE).len(), whole, "cut at {cut}");
    }
    let garbage = [Arc::new(MemoryFile::new(vec![0x4b; 1 << 20])), Arc::default()];
    assert!(left(&garbage).pages_of(FILE).is_empty());
}

#[test]
fn whoever_comes_at_the_same_time_is_kept_as_well() {
    let (journal, files) = journal();
    let start = Barrier::new(8);
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let (journal, start) = (&journal, &start);
            scope.spawn(move || {
                let mut kept = KeptPages::default();
                start.wait();
                for page in 0..50 {
                    keep(journal, &mut kept, thread * 100 + page, 1);
                }
                std::mem::forget(kept);
            });
        }
    });
    assert_eq!(left(&files).pages_of(FILE).len(), 400);
}

//! The page journal of the modelled disk, and files that a cut leaves where pages are not whole.
//!
//! With the journal a torn page takes nothing along: what was synced is there, and everything can be
//! read, as where pages are whole.

use std::sync::{Arc, Mutex};

use kmsfs::envelope::Intents;
use kmsfs::volume::VolumeError;
use kmsfs::volume::backing::memory::MemoryFile;
use kmsfs::volume::backing::{Backing, Durability};
use kmsfs::volume::content::Content;
use rustix::io::Errno;

use crate::check::{Cut, History};
use crate::disk::{Disk, Image, Torn, Unwritten};
use crate::ops::{Crash, Op, open_after};
use crate::states::{Dice, torn_page};
use crate::{EDGE_OPS, LARGE_STARTS, OPS, STARTS, Tally, explore_pairs, start, stride};

type Result<T> = std::result::Result<T, Errno>;

/// What is durable of both files of a journal.
pub(crate) type Journal = [Vec<u8>; 2];

/// A file of a journal: what was written, and what was synced.
#[derive(Default)]
pub(crate) struct JournalFile {
    now: MemoryFile,
    durable: Mutex<Vec<u8>>,
    /// What its writes or its syncs answer.
    refuses: Mutex<Option<(Call, Errno)>>,
    /// How long it may become, if the disk is full.
    room: Mutex<Option<u64>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Write,
    Sync,
}

impl JournalFile {
    fn refused(&self, call: Call) -> Result<()> {
        match *self.refuses.lock().unwrap() {
            Some((refused, error)) if refused == call => Err(error),
            _ => Ok(()),
        }
    }
}

/// What is durable of both files.
pub(crate) fn durable(journal: &[Arc<JournalFile>; 2]) -> Journal {
    journal.each_ref().map(|file| file.durable.lock().unwrap().clone())
}

/// True if the journal has these bytes of a page, durably.
pub(crate) fn has_record(journal: &[Arc<JournalFile>; 2], page: usize, bytes: &[u8]) -> bool {
    let number = (page as u64).to_le_bytes();
    journal.iter().any(|file| {
        let durable = file.durable.lock().unwrap();
        let mut rest = &durable[..];
        while let Some(header) = rest.get(..56).filter(|header| header.starts_with(b"KMSFSp1")) {
            let stored = usize::from(u16::from_le_bytes([header[50], header[51]]));
            let found = rest.get(56..56 + stored);
            if header[40..48] == number && found == Some(bytes) {
                return true;
            }
            rest = rest.get(56 + stored..).unwrap_or_default();
        }
        false
    })
}

impl Backing for JournalFile {
    fn length(&self) -> Result<u64> {
        self.now.length()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        self.now.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<usize> {
        self.refused(Call::Write)?;
        let room = self.room.lock().unwrap().unwrap_or(u64::MAX);
        let taken = usize::try_from(room.saturating_sub(offset)).unwrap_or(usize::MAX);
        match &buf[..taken.min(buf.len())] {
            [] => Err(Errno::NOSPC),
            taken => self.now.write_at(taken, offset),
        }
    }

    fn set_length(&self, length: u64) -> Result<()> {
        self.now.set_length(length)
    }

    fn sync(&self, _what: Durability) -> Result<()> {
        self.refused(Call::Sync)?;
        *self.durable.lock().unwrap() = self.now.bytes();
        Ok(())
    }

    fn write_back(&self, _offset: u64, _length: u64) -> Result<()> {
        Ok(())
    }

    fn forget(&self, _offset: u64, _length: u64) -> Result<()> {
        Ok(())
    }

    fn punch(&self, _offset: u64, _length: u64) -> Result<()> {
        Err(Errno::OPNOTSUPP)
    }

    fn reserve(&self, _offset: u64, _length: u64) -> Result<()> {
        Err(Errno::OPNOTSUPP)
    }

    fn next_data(&self, offset: u64) -> Result<Option<u64>> {
        self.now.next_data(offset)
    }

    fn next_hole(&self, offset: u64) -> Result<u64> {
        self.now.next_hole(offset)
    }

    fn keep_times(&self, change: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        change()
    }

    fn move_mtime(&self) -> Result<()> {
        Ok(())
    }

    fn mtime(&self) -> Result<i64> {
        Ok(0)
    }

    fn ctime(&self) -> Result<i64> {
        Ok(0)
    }
}

#[test]
fn a_journal_that_takes_no_more_refuses_the_write_and_leaves_the_page() {
    let (image, model) = start("three blocks", &[Op::Append(12000)]);
    for (call, error) in [(Call::Write, Errno::NOSPC), (Call::Sync, Errno::IO)] {
        for op in [Op::Write(4096, 4096), Op::Write(10, 20), Op::Append(10), Op::Zero(0, 5000)] {
            let disk = Arc::new(Disk::guarded(image.clone()).journaled(Torn::Nothing));
            let mut content = Some(open_after(&disk, &[]).unwrap());
            let before = disk.image();
            let refuse = |what: Option<(Call, Errno)>| {
                disk.journal_files().iter().for_each(|file| *file.refuses.lock().unwrap() = what);
            };
            refuse(Some((call, error)));
            let failed = op.run(&mut content, 1).unwrap_err();
            assert!(matches!(failed, VolumeError::Io(told) if told == error), "{op:?}: {failed:?}");
            let after = disk.image();
            assert!(before.length == after.length && before.pages == after.pages, "{op:?}");
            assert!(read(content.as_ref().unwrap()).unwrap() == model, "{op:?}");
            refuse(None);
            op.run(&mut content, 1).unwrap();
        }
    }
}

/// Nothing but a sync of the file that needs the records gives their room back.
#[test]
fn regression_on_a_full_disk_the_room_of_records_is_used_again() {
    let (image, mut model) = start("three blocks", &[Op::Append(12288)]);
    let disk = Arc::new(Disk::guarded(image).journaled(Torn::Nothing));
    for (file, room) in disk.journal_files().iter().zip([2 * 4200, 100]) {
        *file.room.lock().unwrap() = Some(room);
    }
    let mut content = Some(open_after(&disk, &[]).unwrap());
    let ops = [Op::Write(0, 8192), Op::Write(8192, 4096), Op::Zero(4096, 5000), Op::Shrink(5000)];
    for (number, op) in ops.iter().cycle().take(12).enumerate() {
        op.run(&mut content, number + 1).unwrap_or_else(|error| panic!("{op:?}: {error:?}"));
        op.apply(&mut model, number + 1, None);
        assert!(read(content.as_ref().unwrap()).unwrap() == model, "{op:?}");
    }
    content.unwrap().sync(Durability::Contents).unwrap();
}

/// What becomes of a page that has a record which nobody needs any more.
const STALE: &[&[Op]] = &[
    &[Op::Write(16384, 4096), Op::Sync, Op::Truncate(8192), Op::Sync, Op::Append(24000)],
    &[Op::Write(16384, 4096), Op::Sync, Op::Truncate(3000), Op::Sync, Op::Extend(29000)],
    &[Op::Write(16384, 4096), Op::Sync, Op::Truncate(8192), Op::Append(24000)],
    &[Op::Write(16384, 4096), Op::Truncate(8192), Op::Append(24000), Op::Sync],
    &[Op::Write(16384, 4096), Op::Sync, Op::Punch(12288, 9000), Op::Sync, Op::Write(12288, 9000)],
    &[Op::Write(16384, 4096), Op::Sync, Op::Shrink(20000), Op::Sync, Op::Reopen, Op::Append(24000)],
    &[Op::Shrink(9000), Op::Sync, Op::Append(9000), Op::Sync, Op::Shrink(9000), Op::Append(9000)],
    &[Op::Write(0, 32768), Op::Sync, Op::Truncate(0), Op::Sync, Op::Append(32768)],
    &[Op::Write(0, 32768), Op::Sync, Op::Truncate(0), Op::Append(3000), Op::Append(20000)],
    &[Op::Xattr, Op::Write(0, 32768), Op::Sync, Op::Truncate(0), Op::Sync, Op::Append(32768)],
];

#[test]
fn regression_deleted_bytes_do_not_come_back_from_the_journal() {
    let mut tally = Tally::default();
    for setup in [&[Op::Append(32768)][..], &[Op::Append(32768), Op::Xattr, Op::Sync]] {
        let (image, model) = start("eight blocks", setup);
        STALE.iter().for_each(|ops| {
            tally.workload("eight blocks", &image, &model, ops, Cut::Journaled);
        });
    }
    tally.finish("stale records");
}

/// The crash of the session that has the records takes nothing along, and its journal stays: it is
/// withheld, or not looked through yet.
#[test]
fn regression_deleted_bytes_do_not_come_back_from_the_journal_of_an_earlier_crash() {
    let mut failures = Vec::new();
    let mut files = 0;
    for ops in STALE {
        for split in 1..ops.len() {
            let (image, model) = start("eight blocks", &[Op::Append(32768), Op::Xattr]);
            let disk = Arc::new(Disk::guarded(image).journaled(Torn::Nothing));
            let (models, content) = run(&disk, &model, &ops[..split], &[]).unwrap();
            drop(content);
            let journal = Some(durable(&disk.journal_files()));
            let first = Crash { announced: disk.announced(), journal };
            let torn = usize::MAX;
            let later = Later { models: &models[split..], first: &first, torn, ops: &ops[split..] };
            if let Err(problem) = later.try_all(disk.image(), &mut files) {
                failures.push(format!("{ops:?} after {split}: {problem}"));
            }
        }
    }
    println!("stale records of an earlier crash: {files} files");
    failures.truncate(10);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A page is put back, then cut off, and the power goes before either is durable.
#[test]
fn a_page_that_was_put_back_and_cut_off_is_there_until_the_cut_is_durable() {
    let (mut files, mut failures) = (0, Vec::new());
    let (image, model) = start("eight blocks", &[Op::Append(32768)]);
    let disk = Arc::new(Disk::guarded(image).journaled(Torn::Nothing));
    let (models, content) = run(&disk, &model, &[Op::Write(16384, 4096)], &[]).unwrap();
    drop(content);
    for epoch in disk.epochs() {
        let first =
            Crash { announced: epoch.announced.clone(), journal: Some(epoch.journal.clone()) };
        torn_page(&epoch, &mut Dice::new(7), |image, torn, what| {
            for ops in [
                &[Op::Truncate(8192), Op::Append(24000)][..],
                &[Op::Truncate(8192), Op::Sync, Op::Append(24000)],
                &[Op::Write(16384, 4096), Op::Truncate(8192), Op::Append(24000)],
                &[Op::Sync, Op::Truncate(8192), Op::Append(24000)],
            ] {
                let later = Later { models: &models, first: &first, torn, ops };
                if let Err(problem) = later.try_all(image.clone(), &mut files) {
                    failures.push(format!("{what}, then {ops:?}: {problem}"));
                }
            }
        });
    }
    println!("put back and cut off: {files} files");
    failures.truncate(10);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// What is done to a file after a crash, before anything of it is recovered.
struct Later<'a> {
    /// What the file may hold after the crash.
    models: &'a [Vec<u8>],
    first: &'a Crash,
    /// The page that the crash tore.
    torn: usize,
    ops: &'a [Op],
}

impl Later<'_> {
    /// Tries every cut in it, with a page torn.
    fn try_all(&self, image: Image, files: &mut usize) -> std::result::Result<(), String> {
        let left = Disk::left_by(image, Intents::default(), Unwritten::Holes);
        let disk = Arc::new(left.journaled(Torn::Page(self.torn)));
        let crashes = std::slice::from_ref(self.first);
        let opened = open_after(&disk, crashes).map_err(|error| format!("opens: {error:?}"))?;
        let before = read(&opened)?;
        drop(opened);
        let (after, content) = run(&disk, &before, self.ops, crashes)?;
        drop(content);
        let mut outcome = Ok(());
        for epoch in disk.epochs() {
            let mut models: Vec<_> = match epoch.first {
                0 => self.models.to_vec(),
                _ => Vec::new(),
            };
            models.extend_from_slice(&after[epoch.first..=epoch.last + 1]);
            let again =
                Crash { announced: epoch.announced.clone(), journal: Some(epoch.journal.clone()) };
            torn_page(&epoch, &mut Dice::new(9), |image, page, what| {
                *files += 1;
                let history = History {
                    models: &models,
                    cut: Cut::Journaled,
                    crashes: vec![self.first.clone(), again.clone()],
                    torn: Some(page),
                };
                let checked = history.check(image, &mut Dice::new(11));
                if let Err(problem) = checked
                    && outcome.is_ok()
                {
                    outcome = Err(format!("cut in {}, {what}: {problem}", epoch.last));
                }
            });
        }
        outcome
    }
}

#[test]
fn with_the_journal_a_torn_page_takes_nothing_along() {
    explore_pairs(STARTS, OPS, stride(5), Cut::Journaled).finish("journaled pages");
}

#[test]
fn with_the_journal_a_torn_page_at_the_edges_of_groups_takes_nothing_along() {
    explore_pairs(LARGE_STARTS, EDGE_OPS, stride(11), Cut::Journaled).finish("journaled edges");
}

/// Power goes, comes back, goes again while the file is put right and written to, and comes back.
#[test]
fn with_the_journal_a_second_crash_takes_nothing_along_either() {
    let (mut files, mut failures) = (0, Vec::new());
    let mut dice = Dice::new(5);
    for (name, setup) in STARTS {
        let (image, model) = start(name, setup);
        for first in OPS {
            for second in [Op::Sync, Op::Append(10), Op::Write(10, 20)] {
                let ops = [*first, second];
                if let Err(problem) = twice(&image, &model, &ops, &mut dice, &mut files) {
                    failures.push(format!("{name} {ops:?}: {problem}"));
                }
            }
        }
    }
    println!("two crashes: {files} files");
    failures.truncate(10);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn twice(
    image: &Image,
    model: &[u8],
    ops: &[Op],
    dice: &mut Dice,
    files: &mut usize,
) -> std::result::Result<(), String> {
    let disk = Arc::new(Disk::guarded(image.clone()).journaled(Torn::Nothing));
    let (models, content) = run(&disk, model, ops, &[])?;
    drop(content);
    let mut outcome = Ok(());
    for epoch in disk.epochs() {
        let first =
            Crash { announced: epoch.announced.clone(), journal: Some(epoch.journal.clone()) };
        let mut once = Vec::new();
        torn_page(&epoch, &mut Dice::new(7), |image, page, _| once.push((image, page)));
        let models = &models[epoch.first..=epoch.last + 1];
        for (image, torn) in once {
            if dice.roll(200) == 0 {
                let again = second(image, models, &first, torn, dice, files);
                outcome = outcome.and(again);
            }
        }
    }
    outcome
}

/// From a file that the first crash left: it is opened, put right, written to, and the power goes.
fn second(
    image: Image,
    models: &[Vec<u8>],
    first: &Crash,
    torn: usize,
    dice: &mut Dice,
    files: &mut usize,
) -> std::result::Result<(), String> {
    let left =
        Disk::left_by(image, Intents::default(), Unwritten::Holes).journaled(Torn::Page(torn));
    let disk = Arc::new(left);
    let before = match open_after(&disk, std::slice::from_ref(first)) {
        Ok(content) => read(&content)?,
        // Half a header of a file that was never synced.
        Err(_) if torn == 0 && models.iter().any(Vec::is_empty) => return Ok(()),
        Err(error) => return Err(format!("does not open: {error:?}")),
    };
    let op = [Op::Append(10), Op::Write(0, 50), Op::Shrink(1), Op::Sync][dice.roll(4)];
    let (after, content) = run(&disk, &before, &[op], std::slice::from_ref(first))?;
    let recovered = content.recover(u64::MAX);
    recovered.map_err(|error| format!("recovery: {error:?}"))?;
    drop(content);
    let models: Vec<_> = models.iter().chain(&after).cloned().collect();
    let mut outcome = Ok(());
    for epoch in disk.epochs() {
        let again =
            Crash { announced: epoch.announced.clone(), journal: Some(epoch.journal.clone()) };
        let crashes = [first.clone(), again];
        torn_page(&epoch, &mut Dice::new(9), |image, page, what| {
            *files += 1;
            let history = History {
                models: &models,
                cut: Cut::Journaled,
                crashes: crashes.to_vec(),
                torn: Some(page),
            };
            let checked = history.check(image, &mut Dice::new(11));
            if let Err(problem) = checked
                && outcome.is_ok()
            {
                outcome = Err(format!("then {op:?}, {what}: {problem}"));
            }
        });
    }
    outcome
}

fn read(content: &Content) -> std::result::Result<Vec<u8>, String> {
    let mut bytes = vec![0; usize::try_from(content.size()).unwrap()];
    content.read(0, &mut bytes).map_err(|error| format!("cannot be read: {error:?}"))?;
    Ok(bytes)
}

/// Runs the operations in the session after these crashes, and returns the models.
fn run(
    disk: &Arc<Disk>,
    model: &[u8],
    ops: &[Op],
    crashes: &[Crash],
) -> std::result::Result<(Vec<Vec<u8>>, Content), String> {
    let mut models = vec![model.to_vec()];
    let mut content = Some(open_after(disk, crashes).map_err(|error| format!("{error:?}"))?);
    for (number, op) in ops.iter().enumerate() {
        disk.operation(number);
        let mut next = models[number].clone();
        op.run(&mut content, number + 1).map_err(|error| format!("{op:?}: {error:?}"))?;
        op.apply(&mut next, number + 1, None);
        models.push(next);
    }
    Ok((models, content.unwrap()))
}

//! Contents over memory: what the other tests build on, and a first look at every operation.

use parking_lot::Mutex;

use super::*;
use crate::envelope::layout::{Block, Group, PAGE, PAGE_LEN, backing_len};
use crate::envelope::{Intents, Unrecovered};
use crate::volume::backing::contents::Durability;
use crate::volume::backing::memory::MemoryFile;

struct FixedKey;

impl KeySource for FixedKey {
    fn create(&self) -> Result<(FileId, Secret<32>, Recipient)> {
        let recipient = Recipient {
            key: crate::id::KeyId::from_bytes([1; 16]),
            material: crate::id::MaterialId::from_bytes([2; 16]),
            wrapped: crate::envelope::Wrapped::Kms([3; 72]),
        };
        Ok((FileId::from_bytes(crate::crypto::random::id16()?), key(), recipient))
    }

    fn unwrap(&self, _claims: &FileHeader) -> Result<Secret<32>> {
        Ok(key())
    }
}

fn key() -> Secret<32> {
    Secret::filled(|key| key.fill(5))
}

fn open(file: &Arc<MemoryFile>) -> Content {
    open_in(file, Shared::default())
}

pub(super) fn open_in(file: &Arc<MemoryFile>, shared: Shared) -> Content {
    let (keys, shared) = (Arc::new(FixedKey), Arc::new(shared));
    Content::over(file.clone(), keys, shared, Access::ReadWrite).unwrap()
}

fn contents(content: &Content) -> Vec<u8> {
    let mut out = vec![0xee; usize::try_from(content.size()).unwrap()];
    assert_eq!(content.read(0, &mut out).unwrap(), out.len());
    out
}

/// A small generator, so that a failure is repeated by its seed alone.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below.max(1)
    }
}

#[test]
fn any_sequence_of_operations_reads_like_a_plain_file() {
    for seed in 1..=80 {
        run(seed, 120);
    }
}

fn run(seed: u64, steps: usize) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let file = Arc::new(MemoryFile::default());
    let mut content = open(&file);
    let mut model: Vec<u8> = Vec::new();
    for step in 0..steps {
        let what = dice.roll(12);
        let reach = [200, 5000, 20_000, 400_000][usize::try_from(dice.roll(4)).unwrap()];
        let offset = dice.roll(reach);
        let most = [50, 4096, 9000, 70_000][usize::try_from(dice.roll(4)).unwrap()];
        let length = dice.roll(most);
        let at = usize::try_from(offset).unwrap();
        let end = usize::try_from(offset + length).unwrap();
        match what {
            0..=4 => {
                let data: Vec<u8> =
                    (0..length).map(|i| (i + offset + step as u64).to_le_bytes()[0]).collect();
                assert_eq!(content.write(offset, &data).unwrap(), data.len());
                if !data.is_empty() {
                    model.resize(model.len().max(end), 0);
                    model[at..end].copy_from_slice(&data);
                }
            }
            5 => {
                content.truncate(offset).unwrap();
                model.resize(at, 0);
            }
            6 => {
                content.punch(offset, length).unwrap();
                let end = end.min(model.len());
                if at < end {
                    model[at..end].fill(0);
                }
            }
            7 => {
                content.zero(offset, length, Reserve::Grow).unwrap();
                model.resize(model.len().max(end), 0);
                model[at..end].fill(0);
            }
            8 => content.sync(Durability::Contents).unwrap(),
            9 => {
                content.wipe();
            }
            10 => {
                content.seal(SealEffort::Full).unwrap();
            }
            _ => content = open(&file),
        }
        assert_eq!(content.size(), model.len() as u64, "seed {seed} step {step} op {what}");
        assert!(contents(&content) == model, "seed {seed} step {step} op {what}");
        let start = at.min(model.len());
        let mut part = vec![0; usize::try_from(length).unwrap()];
        let got = content.read(start as u64, &mut part).unwrap();
        assert!(part[..got] == model[start..start + got], "seed {seed} step {step}");
    }
}

#[test]
fn a_large_idle_file_leaves_the_others_their_pages() {
    const GROUP: u64 = 74 * 4096;
    let shared = Arc::new(Shared::default().caching(8));
    let open = || {
        let file = Arc::new(MemoryFile::default());
        Content::over(file, Arc::new(FixedKey), shared.clone(), Access::ReadWrite).unwrap()
    };
    let (large, small) = (open(), open());
    large.write(0, &vec![1; 10 << 20]).unwrap();
    small.write(0, &vec![2; 5 * usize::try_from(GROUP).unwrap()]).unwrap();
    for content in [&large, &small] {
        content.sync(Durability::Contents).unwrap();
        contents(content);
    }
    let mut block = [0; 4096];
    for group in 0..5 {
        small.read(group * GROUP, &mut block).unwrap();
    }
    let held = |content: &Content| content.read_state().spills.cached();
    let kept = held(&small);
    assert!((0..5).all(|group| kept.contains(&group)), "of the pages in use only {kept:?}");
    assert!(held(&large).len() <= 3);
    assert_eq!(shared.cache.in_use(), held(&large).len() + kept.len());
    drop(large);
    assert_eq!(shared.cache.in_use(), kept.len(), "a closed file gives its seats back");
}

#[test]
fn a_write_beside_a_reservation_is_not_cut() {
    let content = Arc::new(open(&Arc::new(MemoryFile::default())));
    for round in 0..200_u64 {
        content.truncate(0).unwrap();
        let end = 9000 + round;
        let writer = {
            let content = content.clone();
            std::thread::spawn(move || content.write(end, &[3; 5000]).unwrap())
        };
        content.zero(0, 9000, Reserve::Grow).unwrap();
        content.reserve(0, 9000, Reserve::Grow).unwrap();
        writer.join().unwrap();
        assert_eq!(content.size(), end + 5000);
    }
}

#[test]
fn marks_of_a_file_are_not_for_the_next_one_with_its_number() {
    let (old, new) = (Arc::new(MemoryFile::default()), Arc::new(MemoryFile::default()));
    let content = open(&old);
    content.write(0, &vec![1; 500_000]).unwrap();
    let mut marks = content.into_marks();
    marks.as_mut().unwrap().owed_length = Some(4096);
    open(&new).write(0, &vec![2; 500_000]).unwrap();
    let shared = Arc::new(Shared::default());
    let keys = Arc::new(FixedKey);
    let content = Content::open(
        new.clone(),
        keys,
        shared,
        (Access::ReadWrite, Mutability::Mutable),
        (marks, Damaged::Refused),
    )
    .unwrap();
    assert!(!content.is_dirty(), "the new file has nothing that waits for a sync");
    content.write(1000, &vec![3; 400_000]).unwrap();
    content.sync(Durability::Contents).unwrap();
    let again = contents(&open(&new));
    assert!(again[1000..401_000].iter().all(|byte| *byte == 3));
    assert!(again[401_000..].iter().all(|byte| *byte == 2));
}

#[test]
fn a_header_that_was_lost_before_the_crash_is_not_taken_for_one_that_never_was() {
    let zeroed = |rest: bool| {
        let file = MemoryFile::default();
        file.write_at(&[0; PAGE_LEN], 0).unwrap();
        file.set_length(backing_len(20_000)).unwrap();
        let byte = u8::from(rest);
        file.write_at(&[byte; PAGE_LEN], 3 * PAGE).unwrap();
        Arc::new(file)
    };
    let after = |file: &Arc<MemoryFile>, began: i64| {
        let crash = Unrecovered {
            word: SessionWord::new(1, 1),
            counted: false,
            withheld: false,
            span: (began, i64::MAX),
            intents: Intents::default(),
            listed: false,
            waiting: None,
        };
        let shared = Arc::new(Shared::in_session(SessionWord::new(2, 2), vec![crash]));
        Content::over(file.clone(), Arc::new(FixedKey), shared, Access::ReadWrite)
    };
    // The change time of a file in memory is 0.
    for (rest, began, opens) in [(false, 1 << 40, true), (true, 0, true), (true, 1 << 40, false)] {
        let file = zeroed(rest);
        let before = file.bytes();
        match after(&file, began) {
            Ok(content) => assert!(opens && content.size() == 0 && file.bytes().is_empty()),
            Err(VolumeError::Lost(_)) => assert!(!opens && file.bytes() == before),
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// The next seal looked through all of a file that a call past the largest size had left alone: hours
/// for a long one.
#[test]
fn regression_a_call_that_is_refused_for_its_size_leaves_no_doubt() {
    use crate::envelope::layout::MAX_SIZE;
    let content = open(&Arc::default());
    content.write(0, b"contents").unwrap();
    let refused = [
        content.write(MAX_SIZE, b"x").map(drop),
        content.truncate(MAX_SIZE + 1),
        content.zero(0, MAX_SIZE + 1, Reserve::Grow),
        content.reserve(1, MAX_SIZE, Reserve::Grow),
    ];
    assert!(refused.iter().all(|done| matches!(done, Err(VolumeError::TooLarge))), "{refused:?}");
    assert!(!content.needs_recovery() && !content.is_unsure());
    assert_eq!(contents(&content), b"contents");
}

/// What was written behind the end counted as a hole that was being filled: a crash would have excused
/// it, and each seal wrote the page once more.
#[test]
fn regression_only_what_was_a_hole_is_being_filled() {
    let content = open(&Arc::default());
    let filled =
        || content.read_state().marks.filled.iter().map(|group| group.0).collect::<Vec<_>>();
    content.write(0, &[1; 100]).unwrap();
    content.truncate(10 << 20).unwrap();
    content.write(10 << 20, &vec![2; 700_000]).unwrap();
    assert_eq!(filled(), [0; 0]);
    let hole = Block::of_offset(5 << 20);
    content.write(hole.start(), &[3; 4096]).unwrap();
    assert_eq!(filled(), [hole.group().0]);
    content.sync(Durability::Contents).unwrap();
    assert!(content.seal(SealEffort::Full).unwrap());
    assert_eq!(filled(), [0; 0]);
}

/// A punch over a long hole wrote a page for each group of it.
#[test]
fn regression_a_hole_is_not_punched_again() {
    let content = open(&Arc::default());
    content.write(0, &vec![1; 1 << 20]).unwrap();
    content.truncate(10 << 20).unwrap();
    let size = usize::try_from(content.size()).unwrap();
    for _ in 0..2 {
        content.punch(0, u64::MAX).unwrap();
        assert!(contents(&content) == vec![0; size]);
        let state = content.read_state();
        assert!(content.with_spill(&state, Group(10), |_, absent| absent).unwrap());
    }
}

#[derive(Default)]
struct Announced(Mutex<Vec<FileId>>);

impl Announcements for Announced {
    fn announce(&self, file: FileId) -> Result<u64> {
        self.0.lock().push(file);
        Ok(1)
    }

    fn generation(&self) -> u64 {
        1
    }
}

#[test]
fn a_file_that_was_cut_to_nothing_is_announced_by_its_new_id() {
    let file = Arc::new(MemoryFile::default());
    open(&file).write(0, &vec![1; 40_000]).unwrap();
    let announced = Arc::new(Announced::default());
    let shared = Shared::in_session(SessionWord::new(2, 7), Vec::new());
    let shared = Arc::new(shared.announcing(announced.clone()));
    let content = Content::over(file, Arc::new(FixedKey), shared, Access::ReadWrite).unwrap();
    let old = content.header().unwrap().file;
    content.write(20_000, &[2; 4096]).unwrap();
    content.truncate(0).unwrap();
    content.write(0, &vec![3; 40_000]).unwrap();
    content.sync(Durability::Contents).unwrap();
    assert!(content.seal(SealEffort::Full).unwrap());
    let new = content.header().unwrap().file;
    assert_eq!(*announced.0.lock(), [old], "a new file says of itself that it is open");
    content.write(20_000, &[4; 4096]).unwrap();
    assert_eq!(*announced.0.lock(), [old, new]);
}

/// Puts other wraps into the header, as a re-wrap does.
fn rewrap(content: &Content, number: u8) {
    let moved = content.rewrap(|header| {
        let mut recipient = header.recipients[0].clone();
        recipient.material = crate::id::MaterialId::from_bytes([number; 16]);
        Ok(Some(recipient.into()))
    });
    assert!(moved.unwrap());
}

/// Else a backup by size and time would keep a header that nothing opens any more.
#[test]
fn the_old_header_goes_only_when_the_moved_time_is_durable() {
    let file = Arc::new(MemoryFile::default());
    let content = open(&file);
    content.write(0, &[1; 9000]).unwrap();
    content.sync(Durability::Contents).unwrap();
    assert!(content.seal(SealEffort::Full).unwrap());
    content.sync(Durability::Contents).unwrap();
    let mtime = || file.mtime().unwrap();
    for number in 3..5 {
        let before = mtime();
        rewrap(&content, number);
        assert_eq!((mtime(), content.owed_move()), (before, Some(before)));
        assert!(!content.seal(SealEffort::Full).unwrap(), "not in the middle of a re-wrap");
        content.move_time().unwrap();
        assert_eq!((mtime(), content.owed_move()), (before + 1_000_000_000, None));
        content.sync(Durability::Contents).unwrap();
        assert_eq!(file.synced_mtime(), mtime(), "a sync of contents takes the time along");
        content.scrub().unwrap();
        assert!(!content.seal(SealEffort::Full).unwrap(), "it is sealed already");
        assert_eq!(mtime(), before + 1_000_000_000, "once for each re-wrap");
    }
    let before = mtime();
    rewrap(&content, 5);
    content.update_both_slots(&mut content.write_state(), |_| {}).unwrap();
    assert_eq!((file.synced_mtime(), mtime()), (before + 1_000_000_000, mtime()), "a seal waits");
    let before = mtime();
    rewrap(&content, 6);
    // Somebody's own sync: the new header is durable, and the next one would go over the old one.
    content.sync(Durability::Contents).unwrap();
    content.update_header(&mut content.write_state(), |_| {}).unwrap();
    assert_eq!(
        (file.synced_mtime(), mtime()),
        (before + 1_000_000_000, mtime()),
        "any header waits"
    );
}

#[test]
fn a_time_that_a_user_gave_the_file_meanwhile_stays() {
    let file = Arc::new(MemoryFile::default());
    let content = open(&file);
    content.write(0, &[1; 9000]).unwrap();
    content.sync(Durability::Contents).unwrap();
    rewrap(&content, 3);
    content.write(0, b"changed").unwrap();
    let mtime = file.mtime().unwrap();
    content.move_time().unwrap();
    assert_eq!((file.mtime().unwrap(), content.owed_move()), (mtime, None));
    content.sync(Durability::Contents).unwrap();
    assert_eq!(file.synced_mtime(), mtime, "it is durable before the old header goes");
}

/// Where a crash left the old slot, nobody knows whether the time reached the disk.
#[test]
fn a_rewrap_that_comes_again_moves_the_time() {
    let file = Arc::new(MemoryFile::default());
    open(&file).mark_rewrapped().unwrap();
    assert_eq!(file.mtime().unwrap(), 0, "an empty file has no header");
    let content = open(&file);
    content.write(0, b"contents").unwrap();
    content.sync(Durability::Contents).unwrap();
    let before = file.mtime().unwrap();
    content.mark_rewrapped().unwrap();
    content.move_time().unwrap();
    assert_eq!(file.mtime().unwrap(), before + 1_000_000_000);
    content.sync(Durability::Contents).unwrap();
    assert_eq!(file.synced_mtime(), file.mtime().unwrap());
}

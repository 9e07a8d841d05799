//! Runs a workload on the mount of a vault and, beside it, on the backing filesystem itself, and
//! records what the disk sees and what the workload is told.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use kmsfs::envelope::TEMP_PREFIX;

use crate::backing::Backing;
use crate::claim::{Claim, Side, State};
use crate::device::{Disk, Event};
use crate::image::Image;
use crate::machine::{Journal, Keys, Machine, Off};
use crate::oracle::standing;
use crate::random::Random;

/// What happens on a disk, told by the side that does it. One value for each side.
pub(crate) trait Workload {
    /// Makes what is there, and durable, before the recording.
    fn prepare(&mut self, at: &At) -> io::Result<()> {
        let _ = at;
        Ok(())
    }

    /// Does something and claims what is known of it: more states before a change, fewer after the
    /// sync that makes it durable.
    fn step(&mut self, at: &At, step: u32) -> io::Result<()>;
}

/// What happens to kmsfs itself between two steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Kill,
    Remount,
    Rotate,
    Rewrap,
    Retire,
    /// The directory of the workload gets another key.
    Policy,
    /// The backing filesystem is synced by somebody else.
    Syncfs,
}

/// A workload and what happens around it.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) workload: fn() -> Box<dyn Workload>,
    pub(crate) steps: u32,
    pub(crate) keys: Keys,
    /// After which steps what is done.
    pub(crate) acts: &'static [(u32, Act)],
    pub(crate) noise: Noise,
    pub(crate) needs: Needs,
}

/// What others do on the disk meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Noise {
    None,
    /// They write back and sync the backing filesystem all the time.
    Always,
    /// They sync it whenever the vault is making something, which has no name yet.
    Unfinished,
}

/// What a scenario needs of a disk, so that nothing acknowledged is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    Nothing,
    /// A page of 4096 bytes is written whole, or journaled (FORMAT section 11.5): the page that is
    /// written over has bytes that were synced and are not written now, as the last block of a file
    /// that grows, or a rollback journal on which a database depends.
    WholePages,
}

/// Everything that a cut needs.
pub(crate) struct Recording {
    pub(crate) seed: u64,
    /// A page that tears takes nothing along.
    pub(crate) journaled: bool,
    /// Cuts may tear its pages: the vault knew what was durable when it began.
    pub(crate) tears: bool,
    pub(crate) base: Image,
    pub(crate) events: Vec<Event>,
    pub(crate) claims: Vec<Claim>,
    pub(crate) apart: Vec<(String, Vec<u8>)>,
}

impl Recording {
    /// The moment after the last claim.
    pub(crate) fn last_word(&self) -> usize {
        self.events.iter().rposition(|event| matches!(event, Event::Mark(_))).map_or(0, |at| at + 1)
    }
}

/// Where a step is done, and by which side.
pub(crate) struct At<'r> {
    pub(crate) side: Side,
    root: PathBuf,
    back: PathBuf,
    seed: u64,
    disk: &'r Disk,
    claims: &'r Mutex<Vec<Claim>>,
}

impl At<'_> {
    pub(crate) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }

    /// The same numbers on both sides.
    pub(crate) fn random(&self) -> Random {
        Random::new(self.seed)
    }

    /// From now on one of `states` holds of `path`. The claim stands in the order of the writes.
    pub(crate) fn claim(&self, key: &str, path: impl AsRef<Path>, states: Vec<State>) {
        let mut claims = self.claims.lock().unwrap();
        claims.push(Claim {
            side: self.side,
            key: key.to_owned(),
            path: path.as_ref().to_owned(),
            states,
        });
        self.disk.mark(claims.len() - 1);
    }

    /// Somebody else syncs a file of the backing filesystem, whose journal commits with it
    /// whatever names were changed, and leaves the data of other files where they are.
    pub(crate) fn commit(&self) {
        commit(&self.back);
    }

    /// Syncs a file or a directory.
    pub(crate) fn fsync(&self, path: impl AsRef<Path>) -> io::Result<()> {
        File::open(self.path(path))?.sync_all()
    }
}

/// The directory of the workload, on each side.
pub(crate) const WORK: &str = "w";

/// Runs a scenario; whatever fails on the way is a failure of kmsfs or of the harness.
pub(crate) fn record(
    backing: &'static Backing,
    scenario: &Scenario,
    seed: u64,
    journal: Journal,
) -> Result<Recording, String> {
    // A mounted copy of a vault keeps its material, and the other recordings mount copies.
    let retires = scenario.acts.iter().any(|(_, act)| matches!(act, Act::Retire));
    let off = match retires {
        true => Machine::install(backing, scenario.keys).shut_down()?,
        false => installed(backing, scenario.keys),
    };
    let mut machine = Machine::plug(backing, scenario.keys, &off);
    machine.journal(journal);
    machine.mount_backing()?;
    machine.mount_vault(&[])?;
    let claims = Mutex::new(Vec::new());
    let mut sides = [(Side::Bare, (scenario.workload)()), (Side::Kmsfs, (scenario.workload)())];
    for (side, workload) in &mut sides {
        fs::create_dir(root(&machine, *side).join(WORK)).unwrap();
        workload
            .prepare(&at(&machine, *side, seed, &claims))
            .map_err(|error| format!("preparing {side:?}: {error}\n{}", machine.log()))?;
    }
    let journaled = journal == Journal::On || !backing.whole_pages();
    let tears = journaled || (scenario.needs == Needs::Nothing && !seed.is_multiple_of(2));
    if tears {
        // The vault has to know what is durable: it writes beside that, or journals it.
        fsync_all(&root(&machine, Side::Kmsfs).join(WORK)).unwrap();
    }
    sync(&machine.mnt());
    sync(&machine.back());
    let base = machine.disk().start();
    claims.lock().unwrap().clear();
    let stop = AtomicBool::new(false);
    let (back, vault) = (machine.back(), machine.vault());
    thread::scope(|scope| {
        match scenario.noise {
            Noise::None => {}
            Noise::Always => drop(scope.spawn(|| disturb(&back, seed, &stop))),
            Noise::Unfinished => drop(scope.spawn(|| sync_unfinished(&vault, &stop))),
        }
        // Stopped by a panic too: else it is waited for without end.
        let _stopped = Stop(&stop);
        run(&mut machine, scenario, seed, &mut sides, &claims)
    })?;
    let events = machine.disk().events();
    let claims = claims.into_inner().unwrap();
    let mut recording =
        Recording { seed, journaled, tears, base, events, claims, apart: Vec::new() };
    all_hold(&machine, &recording)?;
    // Kept as it is: killing writes nothing, and a keystore in good order would be another story.
    machine.kill_daemon();
    recording.apart = machine.apart();
    Ok(recording)
}

/// Without a cut, everything that was claimed last is there. A claim that holds nowhere would count as
/// lost by the backing filesystem too, and most cuts would say nothing of it.
fn all_hold(machine: &Machine, recording: &Recording) -> Result<(), String> {
    for ((side, _), claim) in standing(recording, recording.events.len()) {
        let held = claim.check(&root(machine, side).join(WORK), false);
        held.map_err(|error| format!("{side:?} without a cut: {error}"))?;
    }
    Ok(())
}

/// Stops the noise when it goes.
struct Stop<'s>(&'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn run(
    machine: &mut Machine,
    scenario: &Scenario,
    seed: u64,
    sides: &mut [(Side, Box<dyn Workload>); 2],
    claims: &Mutex<Vec<Claim>>,
) -> Result<(), String> {
    let mut random = Random::new(seed ^ 0x5eed);
    for step in 0..scenario.steps {
        // In the last step the vault has the last word: nothing else makes its work durable.
        let swap = step + 1 < scenario.steps && random.one_in(2);
        let step_seed = random.next();
        for turn in 0..2 {
            let (side, workload) = &mut sides[if swap { 1 - turn } else { turn }];
            workload
                .step(&at(machine, *side, step_seed, claims), step)
                .map_err(|error| format!("step {step} on {side:?}: {error}\n{}", machine.log()))?;
        }
        for (_, act) in scenario.acts.iter().filter(|(after, _)| *after == step) {
            perform(machine, *act)
                .map_err(|error| format!("{act:?} after step {step}: {error}"))?;
        }
    }
    Ok(())
}

fn perform(machine: &mut Machine, act: Act) -> Result<(), String> {
    const KEY: &str = "alias/kmsfs/default";
    let mnt = machine.mnt();
    let work = mnt.join(WORK);
    match act {
        Act::Kill => {
            machine.kill_daemon();
            machine.mount_vault(&[])
        }
        Act::Remount => {
            machine.unmount_vault()?;
            machine.mount_vault(&[])
        }
        Act::Rotate => machine.kmsfs(&["key", "rotate", KEY]).map(drop),
        Act::Rewrap => machine.kmsfs(&["rewrap", mnt.to_str().unwrap()]).map(drop),
        Act::Retire => machine.kmsfs(&["key", "retire", KEY, "--yes"]).map(drop),
        Act::Policy => {
            machine.kmsfs(&["key", "create", "--alias", "alias/other"])?;
            let work = work.to_str().unwrap();
            machine.kmsfs(&["policy", "set", work, "--key", "alias/other"]).map(drop)
        }
        Act::Syncfs => {
            sync(&machine.back());
            Ok(())
        }
    }
}

fn at<'r>(machine: &'r Machine, side: Side, seed: u64, claims: &'r Mutex<Vec<Claim>>) -> At<'r> {
    let root = root(machine, side).join(WORK);
    At { side, root, back: machine.back(), seed, disk: machine.disk(), claims }
}

/// The root of a side.
pub(crate) fn root(machine: &Machine, side: Side) -> PathBuf {
    match side {
        Side::Bare => machine.bare(),
        Side::Kmsfs => machine.mnt(),
    }
}

fn sync(dir: &Path) {
    rustix::fs::syncfs(File::open(dir).unwrap()).unwrap();
}

fn fsync_all(path: &Path) -> io::Result<()> {
    let kind = fs::symlink_metadata(path)?.file_type();
    if kind.is_dir() {
        fs::read_dir(path)?.try_for_each(|entry| fsync_all(&entry?.path()))?;
    }
    if kind.is_dir() || kind.is_file() { File::open(path)?.sync_all() } else { Ok(()) }
}

/// What else happens on a disk: pages are written back, without a flush, and the journal commits.
fn disturb(back: &Path, seed: u64, stop: &AtomicBool) {
    let mut random = Random::new(seed ^ 0x00d1_5742);
    let root = File::open(back).unwrap();
    while !stop.load(Ordering::Relaxed) {
        match random.below(8) {
            0 => rustix::fs::syncfs(&root).unwrap(),
            1..4 => write_back(back, &mut random),
            _ => commit(back),
        }
        thread::sleep(Duration::from_micros(200 + random.below(3000)));
    }
}

/// Syncs the filesystem once for everything that is being made in the vault.
fn sync_unfinished(vault: &Path, stop: &AtomicBool) {
    let root = File::open(vault).unwrap();
    let mut synced = HashSet::new();
    while !stop.load(Ordering::Relaxed) {
        let mut found = Vec::new();
        unfinished(vault, &mut found);
        if found.into_iter().filter(|path| synced.insert(path.clone())).count() > 0 {
            rustix::fs::syncfs(&root).unwrap();
        }
    }
}

fn unfinished(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(TEMP_PREFIX.as_bytes()) {
            found.push(entry.path());
        } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            unfinished(&entry.path(), found);
        }
    }
}

fn commit(back: &Path) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let path = back.join(format!("somebody else's {}", COUNT.fetch_add(1, Ordering::Relaxed)));
    fs::write(&path, "a file with a new size")
        .and_then(|()| File::open(&path)?.sync_all())
        .unwrap();
    fs::remove_file(&path).unwrap_or_default();
}

/// Starts the write-back of some files: nobody waits for it, and nothing is flushed.
fn write_back(dir: &Path, random: &mut Random) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            write_back(&entry.path(), random);
        } else if kind.is_file() && random.one_in(3) {
            let Ok(file) = File::open(entry.path()) else { continue };
            let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        }
    }
}

/// A machine where nothing has happened yet, made once for each filesystem.
fn installed(backing: &'static Backing, keys: Keys) -> Off {
    type Made = Mutex<HashMap<(&'static str, Keys), Off>>;
    static MADE: OnceLock<Made> = OnceLock::new();
    let mut made = MADE.get_or_init(Mutex::default).lock().unwrap();
    made.entry((backing.name, keys))
        .or_insert_with(|| Machine::install(backing, keys).shut_down().unwrap())
        .clone()
}

//! The n-th call to the backing filesystem fails, in every operation: the call tells of it or
//! succeeds, what was there stays, the operation works when it is tried again, and a mount after that
//! finds everything in order.

mod disk;
mod operations;
mod process;
mod served;
mod tree;
mod world;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use kmsfs::volume::{Repair, VolumeError};
use rustix::io::Errno;

use disk::Fault;
use operations::{ATTRIBUTES, CONTENTS, NAMES, Operation, Parts, furnish};
use process::Disk;
use world::{Off, View, World};

const FAULTS: [Fault; 10] = [
    Fault::Once(Errno::IO),
    Fault::Late(Errno::IO),
    Fault::Lasting(Errno::IO),
    Fault::Once(Errno::NOSPC),
    Fault::Lasting(Errno::NOSPC),
    Fault::Once(Errno::DQUOT),
    Fault::Lasting(Errno::ROFS),
    Fault::Once(Errno::INTR),
    Fault::Once(Errno::MFILE),
    Fault::Short,
];

#[test]
fn a_call_that_fails_under_a_change_of_names_takes_nothing_along() {
    explore(NAMES, &FAULTS, stride()).finish("names");
}

#[test]
fn a_call_that_fails_under_a_change_of_attributes_takes_nothing_along() {
    explore(ATTRIBUTES, &FAULTS, stride()).finish("attributes");
}

#[test]
fn a_call_that_fails_under_a_change_of_contents_takes_nothing_along() {
    explore(CONTENTS, &FAULTS, stride()).finish("contents");
}

/// What failed after a link was made, or the making itself with the link there all the same, took
/// the file of its target, or of its name, away from it.
#[test]
fn regression_a_symbolic_link_that_was_made_keeps_what_it_needs() {
    let links = NAMES.iter().filter(|operation| operation.name.starts_with("symlink "));
    let links: Vec<Operation> = links.copied().collect();
    explore(&links, &[Fault::Once(Errno::IO), Fault::Late(Errno::IO)], 1).finish("links");
}

/// What was tried.
#[derive(Default)]
struct Tally {
    faults: usize,
    failures: BTreeMap<String, Vec<String>>,
}

impl Tally {
    fn finish(self, what: &str) {
        println!("failing calls under {what}: {}", self.faults);
        let shown: Vec<String> = self
            .failures
            .iter()
            .map(|(problem, cases)| format!("{} like {}: {problem}", cases.len(), cases[0]))
            .collect();
        assert!(shown.is_empty(), "{}", shown.join("\n"));
    }
}

/// Of all failing calls one in this many is tried, so that the suite stays short;
/// `KMSFS_FAULT_STRIDE=1` tries them all.
fn stride() -> usize {
    let given = std::env::var("KMSFS_FAULT_STRIDE").ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(11)
}

fn explore(operations: &[Operation], faults: &[Fault], stride: usize) -> Tally {
    let (mut turn, mut tally) = (0, Tally::default());
    let disk = Disk::new();
    let world = World::install(&disk);
    furnish(&world);
    let off = world.shut_down();
    for operation in operations {
        let trial = Trial::new(operation, &disk, &off);
        for fault in faults.iter().copied() {
            for call in (turn % stride..).step_by(stride) {
                match trial.run(call, fault) {
                    Ok(Met::Nothing) => break,
                    Ok(Met::Call) => tally.faults += 1,
                    Err(problem) => {
                        tally.faults += 1;
                        let case = format!("{:?} in call {call} of {}", fault, operation.name);
                        tally.failures.entry(problem).or_default().push(case);
                    }
                }
            }
            turn += 1;
        }
    }
    tally
}

/// Whether a fault came to pass.
enum Met {
    Call,
    Nothing,
}

/// An operation, and what is seen before and after it when nothing fails.
struct Trial<'t> {
    operation: &'t Operation,
    disk: &'t Disk,
    off: &'t Off,
    before: View,
    after: View,
}

impl<'t> Trial<'t> {
    fn new(operation: &'t Operation, disk: &'t Disk, off: &'t Off) -> Self {
        let mut world = World::start(disk, off);
        world.open().unwrap();
        let before = world.view().unwrap();
        let done = (operation.run)(&mut world);
        done.unwrap_or_else(|error| panic!("{}: {error}", operation.name));
        let after = world.view().unwrap();
        Self { operation, disk, off, before, after }
    }

    fn run(&self, call: usize, fault: Fault) -> Result<Met, String> {
        let mut world = World::start(self.disk, self.off);
        told("open", world.open())?;
        // What is known already is not asked for again: then other calls fail.
        if call % 2 == 1 {
            told("view", world.view())?;
        }
        world.disk.fail(call, fault);
        let outcome = (self.operation.run)(&mut world);
        let Some(met) = world.disk.heal() else { return Ok(Met::Nothing) };
        self.settle(&mut world, &outcome, fault).map_err(|what| format!("{met}: {what}"))?;
        self.restart(world, call).map_err(|what| format!("{met}: {what}"))?;
        Ok(Met::Call)
    }

    /// Looks at what the operation left, and tries it again where it failed.
    fn settle(
        &self,
        world: &mut World<'_>,
        outcome: &Result<(), VolumeError>,
        fault: Fault,
    ) -> Result<(), String> {
        if !world.is_open() {
            told("open afterwards", world.open())?;
        }
        let seen = told("view afterwards", world.view())?;
        let Err(error) = outcome else {
            return same("it succeeded", &seen, &self.after);
        };
        if !honest(error, fault) {
            return Err(format!("it said {error:?}"));
        }
        self.between(&seen).map_err(|what| format!("it failed with {error:?}, and {what}"))?;
        if seen == self.after && self.before != self.after {
            return Ok(());
        }
        let mut again = (self.operation.run)(world);
        if self.operation.parts == Parts::Synced && again.as_ref().is_err_and(|e| honest(e, fault))
        {
            again = (self.operation.run)(world);
        }
        told("tried again", again)?;
        same("tried again", &told("view at last", world.view())?, &self.after)
    }

    /// What is seen is from before, from after, or of both where an operation has parts.
    fn between(&self, seen: &View) -> Result<(), String> {
        let told = self.operation.parts == Parts::Told;
        if *seen == self.before || (*seen == self.after && !told) {
            return Ok(());
        }
        if told || self.operation.parts == Parts::Whole {
            return same("half done", seen, &self.before);
        }
        for path in seen.keys().chain(self.before.keys()) {
            let (now, old, new) = (seen.get(path), self.before.get(path), self.after.get(path));
            let partly = match (now, old, new) {
                (Some(now), old, Some(new)) => now.lies_between(old, new),
                _ => false,
            };
            if now != old && now != new && !partly {
                return Err(format!("{} is neither old nor new", short(path)));
            }
        }
        Ok(())
    }

    /// The next mount finds everything, and nothing that is wrong.
    fn restart(&self, mut world: World<'_>, call: usize) -> Result<(), String> {
        if (call / 2).is_multiple_of(2) {
            told("end", world.volume().end())?;
        }
        world.kill();
        told("mount", world.open())?;
        same("after a mount", &told("view", world.view())?, &self.after)?;
        let mut on = |_: &_| ControlFlow::Continue(());
        let report = told("fsck", world.volume().check(Repair::Yes, &mut on))?;
        let left = |what: &str| what == "left over from something that was never finished";
        if let Some(wrong) = report.problems.iter().find(|problem| !left(&problem.what)) {
            return Err(format!("fsck finds that {}", wrong.what));
        }
        if !report.is_clean() {
            return Err("fsck does not repair everything".to_owned());
        }
        told("end of it all", world.volume().end())?;
        world.kill();
        told("mount again", world.open())?;
        same("after a repair", &told("view", world.view())?, &self.after)
    }
}

/// What the disk said, and nothing of damage.
fn honest(error: &VolumeError, fault: Fault) -> bool {
    let said = match fault {
        Fault::Once(said) | Fault::Late(said) | Fault::Lasting(said) => said,
        Fault::Short => return false,
    };
    match error {
        VolumeError::Io(errno) => *errno == said || *errno == Errno::IO,
        VolumeError::ReadOnly => said == Errno::ROFS,
        _ => false,
    }
}

fn told<T>(what: &str, done: Result<T, VolumeError>) -> Result<T, String> {
    done.map_err(|error| format!("{what}: {error:?}"))
}

fn same(what: &str, seen: &View, wanted: &View) -> Result<(), String> {
    let differs =
        seen.keys().chain(wanted.keys()).find(|path| seen.get(*path) != wanted.get(*path));
    let Some(path) = differs else { return Ok(()) };
    let how = match (seen.get(path), wanted.get(path)) {
        (None, _) => "is gone".to_owned(),
        (_, None) => "is there".to_owned(),
        (Some(seen), Some(wanted)) => seen.differs(wanted),
    };
    Err(format!("{what}: {} {how}", short(path)))
}

/// Long names are of one letter.
fn short(path: &str) -> String {
    path.chars().take(24).collect()
}

//! Power cuts, page by page: every file that a cut can leave is opened, read and used on.
//!
//! A workload is a starting file and up to three operations. Each cut between two syncs leaves
//! some prefix of the length changes and, of each page, any version that was on its way; what was
//! synced must be there whatever the choice (FORMAT section 11).

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod check;
mod disk;
mod errors;
mod journal;
mod namespace;
mod ops;
mod regressions;
mod states;
mod told;

use std::collections::HashMap;
use std::sync::Arc;

use check::{Cut, History};
use disk::{Disk, Image, Torn};
use kmsfs::volume::content::Content;
use ops::Op::{
    self, Append, Extend, Punch, Raise, Reopen, Seal, Shrink, Sync, Truncate, Write, Xattr, Zero,
};
use ops::{Crash, When, contents, open};
use states::{Dice, torn_page, whole_pages};

/// Where the first group ends, and the second.
const G0: u64 = 36 * 4096;
const G1: u64 = 110 * 4096;
/// The same as lengths.
const L0: usize = 36 * 4096;
const L1: usize = 110 * 4096;

/// Files that the workloads start from, each synced.
const STARTS: &[(&str, &[Op])] = &[
    ("nothing", &[]),
    ("header only", &[Xattr]),
    ("small", &[Append(100)]),
    ("one full page", &[Append(3028)]),
    ("one byte in the spill page", &[Append(3029)]),
    ("one block", &[Append(4096)]),
    ("a block and a bit", &[Append(4100)]),
    ("a block and a payload", &[Append(8148)]),
    ("a short tail", &[Append(8150)]),
    ("three blocks, sealed", &[Append(12288), Sync, Seal]),
    ("twice synced", &[Append(9000), Sync, Write(50, 20), Sync, Append(50)]),
    ("sparse", &[Append(100), Write(100_000, 50)]),
    ("sparse from nothing", &[Write(90_000, 5000)]),
    ("punched", &[Append(20480), Punch(4096, 8192)]),
];

/// The same at the edges of groups, where files are larger.
const LARGE_STARTS: &[(&str, &[Op])] = &[
    ("before the first group edge", &[Append(L0 - 50)]),
    ("at the first group edge", &[Append(L0)]),
    ("past the first group edge", &[Append(L0 + 10)]),
    ("past the second group edge", &[Append(L1 + 4090)]),
];

const OPS: &[Op] = &[
    Append(10),
    Append(1500),
    Append(5000),
    Write(0, 4096),
    Write(10, 20),
    Write(2900, 1300),
    Write(4050, 4100),
    Truncate(0),
    Truncate(3000),
    Truncate(4096),
    Truncate(8148),
    Shrink(1),
    Extend(3000),
    Extend(100_000),
    Punch(0, 9000),
    Punch(4096, 4096),
    Zero(3000, 3000),
    Sync,
    Seal,
    Raise,
    Xattr,
    Reopen,
];

const EDGE_OPS: &[Op] = &[
    Append(10),
    Append(5000),
    Write(G0 - 100, 300),
    Truncate(G0 - 20),
    Truncate(G0),
    Truncate(G1 - 44),
    Shrink(4096),
    Punch(G0 - 8192, 16384),
    Extend(600_000),
    Sync,
    Seal,
    Raise,
    Reopen,
];

/// A file in which the starting operations were done and synced.
fn start(name: &str, setup: &[Op]) -> (Image, Vec<u8>) {
    let disk = Arc::new(Disk::default());
    let mut content = Some(open(&disk, When::Before).unwrap());
    let mut model = Vec::new();
    for op in setup.iter().chain(&[Sync]) {
        op.run(&mut content, 0).unwrap_or_else(|error| panic!("{name}: {op:?}: {error:?}"));
        op.apply(&mut model, 0, None);
    }
    (disk.image(), model)
}

/// Counts what was tried.
#[derive(Default)]
struct Tally {
    workloads: usize,
    files: usize,
    failures: Vec<String>,
}

impl Tally {
    /// Runs a workload from a start and tries every cut in it.
    fn workload(&mut self, name: &str, image: &Image, model: &[u8], ops: &[Op], cut: Cut) {
        self.workloads += 1;
        let seed = self.workloads as u64;
        let mut dice = Dice::new(seed);
        let disk = Disk::guarded(image.clone());
        let disk =
            Arc::new(if cut == Cut::Journaled { disk.journaled(Torn::Nothing) } else { disk });
        let mut models = vec![model.to_vec()];
        let mut content = Some(open(&disk, When::Cut).unwrap());
        for (number, op) in ops.iter().enumerate() {
            disk.operation(number);
            let mut next = models[number].clone();
            if let Err(error) = op.run(&mut content, number + 1) {
                return self.failed(format!("{name} {ops:?}: {op:?}: {error:?}"));
            }
            op.apply(&mut next, number + 1, None);
            models.push(next);
        }
        if let Some(problem) = live(content.as_ref().unwrap(), &models[ops.len()]) {
            return self.failed(format!("{name} {ops:?}: {problem}"));
        }
        for epoch in disk.epochs() {
            let mut follow = Dice::new(seed);
            let mut visit = |image: Image, torn: Option<usize>, choice: &str| {
                self.files += 1;
                let models = &models[epoch.first..=epoch.last + 1];
                let journal = (cut == Cut::Journaled).then(|| epoch.journal.clone());
                let crashes = vec![Crash { announced: epoch.announced.clone(), journal }];
                let history = History { models, cut, crashes, torn };
                if let Err(problem) = history.check(image, &mut follow) {
                    self.failed(format!(
                        "{name} {ops:?}, cut in operation {} to {}, {choice}: {problem}",
                        epoch.first, epoch.last
                    ));
                }
            };
            match cut {
                Cut::Clean => whole_pages(&epoch, &mut dice, |i, c| visit(i, None, c)),
                Cut::Torn | Cut::Journaled => {
                    torn_page(&epoch, &mut dice, |i, page, c| visit(i, Some(page), c))
                }
            }
        }
    }

    fn failed(&mut self, problem: String) {
        self.failures.push(problem);
    }

    fn finish(self, what: &str) {
        println!("{what}: {} workloads, {} files", self.workloads, self.files);
        let mut kinds: HashMap<&str, Vec<&str>> = HashMap::new();
        for failure in &self.failures {
            let kind = failure.rsplit_once(": ").map_or("", |(_, problem)| problem);
            kinds.entry(kind).or_default().push(failure);
        }
        let mut shown: Vec<_> =
            kinds.values().map(|k| format!("{} like: {}", k.len(), k[0])).collect();
        shown.truncate(20);
        assert!(shown.is_empty(), "{} failures\n{}", self.failures.len(), shown.join("\n"));
    }
}

fn live(content: &Content, model: &[u8]) -> Option<String> {
    match contents(content) {
        Ok(blocks) => match blocks.into_iter().collect::<Option<Vec<_>>>() {
            Some(blocks) if blocks.concat() == model => None,
            Some(_) => Some("reads something else".to_owned()),
            None => Some("cannot be read".to_owned()),
        },
        Err(error) => Some(format!("cannot be read: {error:?}")),
    }
}

/// All workloads of one operation, and every `stride`-th of two.
fn explore_pairs(starts: &[(&str, &[Op])], ops: &[Op], stride: usize, cut: Cut) -> Tally {
    let mut tally = Tally::default();
    let mut number = 0;
    for (name, setup) in starts {
        let (image, model) = start(name, setup);
        for first in ops {
            tally.workload(name, &image, &model, &[*first], cut);
            for second in ops {
                number += 1;
                if number % stride == 0 {
                    tally.workload(name, &image, &model, &[*first, *second], cut);
                }
            }
        }
    }
    tally
}

/// All workloads of one and two operations, and every `stride`-th of three.
fn explore(starts: &[(&str, &[Op])], ops: &[Op], stride: usize, cut: Cut) -> Tally {
    let mut tally = Tally::default();
    let mut number = 0;
    for (name, setup) in starts {
        let (image, model) = start(name, setup);
        for first in ops {
            tally.workload(name, &image, &model, &[*first], cut);
            for second in ops {
                tally.workload(name, &image, &model, &[*first, *second], cut);
                for third in ops {
                    number += 1;
                    if number % stride == 0 {
                        tally.workload(name, &image, &model, &[*first, *second, *third], cut);
                    }
                }
            }
        }
    }
    tally
}

/// Of the workloads of the most operations, one in this many is run, so that the suite stays short;
/// `KMSFS_CRASH_STRIDE=1` runs them all.
fn stride(usual: usize) -> usize {
    let given = std::env::var("KMSFS_CRASH_STRIDE").ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(usual)
}

#[test]
fn a_cut_leaves_what_was_synced() {
    explore(STARTS, OPS, stride(61), Cut::Clean).finish("whole pages");
}

#[test]
fn a_cut_at_the_edges_of_groups_leaves_what_was_synced() {
    explore(LARGE_STARTS, EDGE_OPS, stride(997), Cut::Clean).finish("group edges");
}

#[test]
fn a_torn_page_hurts_only_what_was_being_written() {
    explore(STARTS, OPS, stride(997), Cut::Torn).finish("torn pages");
}

#[test]
fn a_call_that_fails_takes_nothing_along() {
    errors::explore(STARTS, OPS).finish("failing calls");
}

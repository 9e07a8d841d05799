//! The n-th call of the backing file fails: what was there stays, and what is reported is true.
//! Then the power goes: what was synced is there.

use std::sync::Arc;

use kmsfs::envelope::Intents;
use kmsfs::volume::VolumeError;
use kmsfs::volume::content::Content;
use rustix::io::Errno;

use crate::check::{Cut, History};
use crate::disk::{Disk, Fault, Image};
use crate::ops::{Crash, Crowd, Op, Outcome, When, open};
use crate::states::{Dice, some_pages};
use crate::{Tally, start};

const FAULTS: [Fault; 7] = [
    Fault::Io,
    Fault::NoSpace,
    Fault::Short,
    Fault::Late,
    Fault::Dead,
    Fault::Read,
    Fault::WriteBack,
];

/// One operation of which one call fails, and the operation after it.
#[derive(Clone, Copy)]
struct Failing {
    first: Op,
    second: Op,
    call: usize,
    fault: Fault,
    /// The file is closed and opened again between the two, while the disk is as it is.
    reopened: bool,
}

/// Every operation with each of its calls failing in each way, then one more operation.
pub(crate) fn explore(starts: &[(&str, &[Op])], ops: &[Op]) -> Tally {
    let mut tally = Tally::default();
    for (name, setup) in starts {
        let (image, model) = start(name, setup);
        for first in ops {
            for fault in FAULTS {
                for call in 0.. {
                    let number = call * 5 + tally.workloads;
                    let second = ops[number % ops.len()];
                    let reopened = number % 3 == 0;
                    let failing = Failing { first: *first, second, call, fault, reopened };
                    let told = format!(
                        "{name}, call {call} {fault:?} in [{first:?}, {second:?}] {reopened}"
                    );
                    match failing.run(&image, &model, &mut tally.files) {
                        Ok(true) => tally.workloads += 1,
                        Ok(false) => break,
                        Err(problem) => {
                            tally.failed(format!("{told}: {problem}"));
                            tally.workloads += 1;
                        }
                    }
                }
            }
        }
    }
    tally
}

impl Failing {
    /// Returns false if the operation makes fewer calls than that.
    fn run(self, image: &Image, model: &[u8], files: &mut usize) -> Result<bool, String> {
        let Self { first, second, .. } = self;
        let disk = Arc::new(Disk::holding(image.clone()));
        let crowd = Crowd::new(&disk);
        let mut content = Some(crowd.open(&disk).map_err(|error| format!("open: {error:?}"))?);
        crowd.push();
        let mut after = model.to_vec();
        disk.fail(self.call, self.fault);
        let outcome = first.run(&mut content, 1);
        if !disk.failed() {
            return Ok(false);
        }
        if self.reopened {
            // It may fail as long as the disk does.
            let _ = Op::Reopen.run(&mut content, 0);
        }
        disk.heal();
        crowd.push();
        let file = content.as_ref().expect("open");
        let taken = outcome.as_ref().ok().copied();
        let partly = matches!(first, Op::Write(..) | Op::Append(_)).then_some(taken).flatten();
        first.apply(&mut after, 1, None);
        let models = match outcome {
            Ok(_) => {
                let mut taken = model.to_vec();
                first.apply(&mut taken, 1, partly);
                // Behind what was taken, bytes may have arrived or not.
                if taken == after { vec![after] } else { vec![taken, after] }
            }
            // Whoever is told of a failure goes on by the old size.
            Err(_) if file.size() != model.len() as u64 => {
                return Err(format!("it failed, and left {} bytes", file.size()));
            }
            Err(_) => vec![model.to_vec(), after],
        };
        let history = History {
            models: &models,
            cut: Cut::Clean,
            crashes: crashed(disk.announced()),
            torn: None,
        };
        let between = history.live(file).map_err(|problem| format!("live, {problem}"))?;
        disk.operation(1);
        let mut last = between.clone();
        self.told(second, &mut content, 2)
            .map_err(|error| format!("then {second:?}: {error:?}"))?;
        second.apply(&mut last, 2, None);
        crowd.push();
        disk.operation(2);
        for op in [Op::Sync, Op::Seal, Op::Sync] {
            self.told(op, &mut content, 0)
                .map_err(|error| format!("at the end {op:?}: {error:?}"))?;
        }
        // A file in doubt keeps its session from ending cleanly.
        let doubt = content.take().is_some_and(|file| file.in_doubt());
        for when in [When::Later, When::After].into_iter().skip(usize::from(doubt)) {
            let file = open(&disk, when).map_err(|error| format!("reopen {when:?}: {error:?}"))?;
            let history = History {
                models: &[last.clone()],
                cut: Cut::Clean,
                crashes: crashed(disk.announced()),
                torn: None,
            };
            history.live(&file).map_err(|problem| format!("reopen {when:?}, {problem}"))?;
        }
        let mut moments = vec![vec![model.to_vec()], models, vec![last]];
        moments[1].push(between);
        // A cut costs as much as everything before it, many times over.
        if (self.call + *files).is_multiple_of(3) {
            self.cut(&disk, &moments, files)?;
        }
        *files += 1;
        Ok(true)
    }

    /// Does something after the fault. Who syncs first after a failed write-back is told, once.
    fn told(self, op: Op, content: &mut Option<Content>, tag: usize) -> Outcome {
        match op.run(content, tag) {
            Err(VolumeError::Io(Errno::IO)) if self.fault == Fault::WriteBack => {
                op.run(content, tag)
            }
            done => done,
        }
    }

    /// The power goes at some moment: what was synced before it is there.
    fn cut(self, disk: &Disk, moments: &[Vec<Vec<u8>>], files: &mut usize) -> Result<(), String> {
        let mut dice = Dice::new(self.call as u64 + 1);
        let mut follow = Dice::new(self.call as u64 + 1);
        for epoch in disk.epochs() {
            let mut problem = Ok(());
            let to = (epoch.last + 1).min(moments.len() - 1);
            // Of what a failed sync dropped, the last state that is sure is the first.
            let from = if epoch.dropped.is_empty() { epoch.first } else { 0 };
            let models = moments[from..=to].concat();
            some_pages(&epoch, &mut dice, |image, choice| {
                if problem.is_err() {
                    return;
                }
                *files += 1;
                let history = History {
                    models: &models,
                    cut: Cut::Clean,
                    crashes: crashed(epoch.announced.clone()),
                    torn: None,
                };
                problem = history.check(image, &mut follow).map_err(|problem| {
                    format!("cut in operation {from} to {to}, {choice}: {problem}")
                });
            });
            problem?;
        }
        Ok(())
    }
}

fn crashed(announced: Intents) -> Vec<Crash> {
    vec![Crash { announced, journal: None }]
}

//! The n-th call of the backing file fails: what was there stays, and what is reported is true.

use std::sync::Arc;

use crate::check::{Cut, History};
use crate::disk::{Disk, Fault, Image};
use crate::ops::{Op, When, open};
use crate::{Tally, start};

/// Every operation with each of its calls failing in each way, then one more operation.
pub(crate) fn explore(starts: &[(&str, &[Op])], ops: &[Op]) -> Tally {
    let mut tally = Tally::default();
    for (name, setup) in starts {
        let (image, model) = start(name, setup);
        for first in ops.iter().filter(|op| **op != Op::Reopen) {
            for fault in [Fault::Io, Fault::NoSpace, Fault::Short] {
                for n in 0.. {
                    let second = ops[(n * 5 + tally.workloads) % ops.len()];
                    let told = format!("{name}, call {n} {fault:?} in [{first:?}, {second:?}]");
                    match fail_one(&image, &model, *first, second, (n, fault)) {
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

/// Returns false if the operation makes fewer calls than `n`.
fn fail_one(
    image: &Image,
    model: &[u8],
    first: Op,
    second: Op,
    (n, fault): (usize, Fault),
) -> Result<bool, String> {
    let disk = Arc::new(Disk::holding(image.clone()));
    let mut content = Some(open(&disk, When::Cut).map_err(|error| format!("open: {error:?}"))?);
    let mut after = model.to_vec();
    disk.fail(n, fault);
    let outcome = first.run(&mut content, 1);
    if !disk.failed() {
        return Ok(false);
    }
    disk.heal();
    let taken = outcome.as_ref().ok().copied();
    let whole = matches!(first, Op::Write(..) | Op::Append(_)).then_some(taken).flatten();
    first.apply(&mut after, 1, whole);
    let uncertain = outcome.is_err();
    let models = match outcome {
        Ok(_) => vec![after],
        Err(_) => vec![model.to_vec(), after],
    };
    let file = content.as_ref().expect("open");
    let history =
        History { models: &models, cut: Cut::Clean, announced: disk.announced(), torn: None };
    let mut model = history.live(file).map_err(|problem| format!("live, {problem}"))?;
    second.run(&mut content, 2).map_err(|error| format!("then {second:?}: {error:?}"))?;
    second.apply(&mut model, 2, None);
    for op in [Op::Sync, Op::Seal, Op::Sync] {
        op.run(&mut content, 0).map_err(|error| format!("at the end {op:?}: {error:?}"))?;
    }
    // A file in doubt keeps its session from ending cleanly.
    let doubt = content.take().is_some_and(|file| file.in_doubt());
    for when in [When::Later, When::After].into_iter().skip(usize::from(doubt)) {
        let file = open(&disk, when).map_err(|error| format!("reopen {when:?}: {error:?}"))?;
        // A cut that failed may be undone by a crash, but for nothing else.
        let models = [model.clone(), models[0].clone()];
        let models = if when == When::After && uncertain { &models[..] } else { &models[..1] };
        let history = History { models, cut: Cut::Clean, announced: disk.announced(), torn: None };
        history.live(&file).map_err(|problem| format!("reopen {when:?}, {problem}"))?;
    }
    Ok(true)
}

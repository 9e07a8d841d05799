//! `kmsfs fsck`: checks a vault that is not mounted.

use std::path::Path;

use crate::cli::args::{FsckArgs, Global};
use crate::cli::env::keys_from::KeysFrom;
use crate::cli::env::mounts::mountinfo::text;
use crate::cli::env::{failure, interrupt, paths, vault};
use crate::cli::report::exit::{CliError, Exit};
use crate::cli::report::output::{Output, bytes, count, to_value};
use crate::cli::report::printable::printable;
use crate::cli::report::progress::Progress;
use crate::volume::{CheckReport, Options, Repair, Volume};

/// Reads every file, reports what is damaged, and repairs it where asked and possible.
pub(in crate::cli) fn run(
    args: &FsckArgs,
    global: &Global,
    output: Output,
) -> Result<Exit, CliError> {
    let vault = paths::real(&args.vault)?;
    Volume::peek(&vault).map_err(|error| failure::volume(&vault, &error))?;
    let keys = KeysFrom::open(&args.kms, global)?;
    let failed = |error| keys.failed(&vault, &error);
    let options = Options {
        read_only: !args.repair,
        accept_residue: args.accept_residue,
        ..args.trust.options()
    };
    let volume = vault::open(&keys, &vault, options)?;
    let stop = interrupt::watch()?;
    let progress = Progress::new("fsck");
    let repair = if args.repair { Repair::Yes } else { Repair::No };
    let mut emptied = Vec::new();
    if args.repair {
        let recovered = volume.recover(&mut |report| {
            progress.set(report.scanned, None);
            stop.flow()
        });
        emptied = recovered.map_err(failed)?.emptied;
    }
    let report = volume.check(repair, &mut |report| {
        progress.set(report.files, None);
        stop.flow()
    });
    progress.finish();
    let ended = volume.end().map_err(failed);
    let mut report = report.map_err(failed)?;
    report.emptied.append(&mut emptied);
    ended?;
    output.result(&to_value(&report)?, || summary(&report, &vault, repair));
    Ok(match (report.is_clean(), report.complete) {
        (false, _) => Exit::Damage,
        (true, false) => Exit::General,
        (true, true) => Exit::Ok,
    })
}

fn summary(report: &CheckReport, vault: &Path, repair: Repair) -> String {
    let mut lines: Vec<String> = report
        .problems
        .iter()
        .map(|problem| {
            let repaired = if problem.repaired { " (repaired)" } else { "" };
            format!("{}: {}{repaired}", printable(&text(&problem.path)), problem.what)
        })
        .collect();
    lines.extend(report.emptied.iter().map(|path| {
        let nothing = "nothing of it was on the disk when a crash came: it is empty";
        format!("{}: {nothing}", printable(&text(path)))
    }));
    let unrepaired = || report.problems.iter().filter(|problem| !problem.repaired);
    let left = unrepaired().filter(|problem| !problem.leftover).count();
    let leftovers = unrepaired().filter(|problem| problem.leftover).count();
    lines.push(format!(
        "{}: {}, {} and {} read, {}",
        vault.display(),
        count(report.files, "file"),
        match report.directories {
            1 => "1 directory".to_owned(),
            many => format!("{many} directories"),
        },
        bytes(report.bytes),
        match left {
            0 => "all well".to_owned(),
            left => count(left as u64, "problem"),
        },
    ));
    match (report.pending, report.withheld) {
        (0, 0) => {}
        (pending, 0) => lines.push(format!(
            "{} did not end cleanly: a mount mends what was being written, or --repair does",
            count(pending, "session")
        )),
        (_, withheld) => lines.push(format!(
            "what {} left half written is not believed, since the vault was put back from \
             elsewhere: if that was you, run it with --repair --restored",
            count(withheld, "crashed session")
        )),
    }
    if report.journaled > 0 {
        lines.push(format!(
            "{} torn by a crash and in its journal: recovery puts them back",
            match report.journaled {
                1 => "1 page was".to_owned(),
                many => format!("{many} pages were"),
            }
        ));
    }
    if leftovers > 0 && repair == Repair::No {
        lines.push("what is left over harms nobody: 'kmsfs fsck --repair' removes it".into());
    }
    if left > 0 && repair == Repair::No {
        lines.push("'kmsfs fsck --repair' repairs what has a second copy".into());
    }
    if !report.complete {
        lines.push("stopped before the end".into());
    }
    lines.join("\n")
}

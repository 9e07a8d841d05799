//! `kmsfs rewrap`: through the daemon when the volume is mounted, by itself when it is not.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use serde_json::Value;

use crate::cli::args::{Global, RewrapArgs};
use crate::cli::env::keys_from::KeysFrom;
use crate::cli::env::mounts::daemon_client::Target;
use crate::cli::env::{interrupt, trust, vault};
use crate::cli::jobs::rewrap::{What, carry_out, strangers};
use crate::cli::report::exit::{CliError, Exit};
use crate::cli::report::output::{Output, count};
use crate::cli::report::printable::printable;
use crate::cli::report::progress::Progress;
use crate::control::{Event, Request};

/// Re-wraps, shows the progress, and tells what was done.
pub(in crate::cli) fn run(
    args: &RewrapArgs,
    global: &Global,
    output: Output,
) -> Result<Exit, CliError> {
    let target = Target::find(&args.target)?;
    let mut list = ChangedList::open(args.changed_list.as_deref())?;
    let progress = Progress::new("rewrap");
    let mut event = |event| match event {
        Event::Progress { done, total } => progress.set(done, total),
        Event::Changed(path) => list.add(&path),
        Event::Waiting | Event::Ended(_) => {}
    };
    let request = Request::Rewrap {
        key: args.key.clone(),
        to: args.to.clone(),
        list: args.changed_list.is_some(),
        take_in: args.take_in,
    };
    let report = match target.call(&request, &mut event) {
        Some(answer) => answer?,
        None => offline(args, global, &target.vault, &mut event)?,
    };
    progress.finish();
    list.close()?;
    output.result(&report, || summary(&report, &target.vault));
    Ok(if report["complete"] == true { Exit::Ok } else { Exit::General })
}

fn offline(
    args: &RewrapArgs,
    global: &Global,
    vault: &Path,
    event: &mut dyn FnMut(Event),
) -> Result<Value, CliError> {
    let keys = KeysFrom::open(&args.kms, global)?;
    let volume = vault::open(&keys, vault, trust::options())?;
    let stop = interrupt::watch()?;
    let (key, to) = (args.key.clone(), args.to.clone());
    let what = What { key, to, strangers: strangers(args.take_in) };
    let report = carry_out(&volume, vault, &what, &mut |news| {
        event(news);
        !stop.is_set()
    });
    volume.end().map_err(|error| keys.failed(vault, &error))?;
    report
}

fn summary(report: &Value, vault: &Path) -> String {
    let number = |name: &str| report[name].as_u64().unwrap_or(0);
    let mut text = format!(
        "re-wrapped {} and {} of {}",
        count(number("rewrapped"), "file"),
        if number("directories") == 1 {
            "1 directory".to_owned()
        } else {
            format!("{} directories", number("directories"))
        },
        vault.display(),
    );
    let failed = report["failed"].as_array().map_or(&[][..], Vec::as_slice);
    for entry in failed.iter().take(SHOWN) {
        let part = |index: usize| entry[index].as_str().unwrap_or_default();
        text.push_str(&format!("\nnot re-wrapped: {}: {}", printable(part(0)), printable(part(1))));
    }
    if failed.len() > SHOWN {
        text.push_str(&format!("\nand {} more", failed.len() - SHOWN));
    }
    if report["complete"] != true {
        text.push_str("\nnot complete: run it again, it goes on where it stopped");
    }
    text
}

/// The file of `--changed-list`: one ciphertext path in each line. A name that somebody planted
/// does not begin another line.
struct ChangedList<'a> {
    file: Option<(&'a Path, BufWriter<File>)>,
    failure: Option<std::io::Error>,
}

impl<'a> ChangedList<'a> {
    fn open(path: Option<&'a Path>) -> Result<Self, CliError> {
        let open = |path: &'a Path| {
            let file = File::create(path).map_err(|error| CliError::io(path.display(), &error))?;
            Ok::<_, CliError>((path, BufWriter::new(file)))
        };
        Ok(Self { file: path.map(open).transpose()?, failure: None })
    }

    fn add(&mut self, changed: &str) {
        if let Some((_, file)) = &mut self.file
            && let Err(error) = writeln!(file, "{}", printable(changed))
        {
            self.failure.get_or_insert(error);
        }
    }

    fn close(mut self) -> Result<(), CliError> {
        let Some((path, mut file)) = self.file.take() else { return Ok(()) };
        let flushed = file.flush();
        match self.failure.or(flushed.err()) {
            None => Ok(()),
            Some(error) => Err(CliError::io(path.display(), &error)),
        }
    }
}

const SHOWN: usize = 20;

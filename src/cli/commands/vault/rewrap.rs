//! `kmsfs rewrap`: through the daemon when the volume is mounted, by itself when it is not.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde_json::Value;

use crate::cli::args::{Global, RewrapArgs};
use crate::cli::env::keys_from::KeysFrom;
use crate::cli::env::mounts::daemon_client::Target;
use crate::cli::env::mounts::mountinfo;
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
        Event::Progress { done, total } => {
            progress.set(done, total);
            true
        }
        Event::Changed(path) => list.add(&path),
        Event::Waiting | Event::Ended(_) => true,
    };
    let request = Request::Rewrap {
        key: args.key.clone(),
        to: args.to.clone(),
        list: args.changed_list.is_some(),
        take_in: args.take_in,
        confirm: args.changed_list.is_some(),
    };
    let report = match target.call(&request, &mut event) {
        Some(answer) => answer,
        None => offline(args, (global, output), &target.vault, &mut event),
    };
    progress.finish();
    // What stopped it comes first.
    list.close()?;
    let report = report?;
    output.result(&report, || summary(&report, &target.vault));
    Ok(if report["complete"] == true { Exit::Ok } else { Exit::General })
}

fn offline(
    args: &RewrapArgs,
    (global, output): (&Global, Output),
    vault: &Path,
    event: &mut dyn FnMut(Event) -> bool,
) -> Result<Value, CliError> {
    let keys = KeysFrom::open(&args.kms, global)?;
    let volume = vault::open(&keys, vault, trust::options())?;
    if is_mounted_from_elsewhere(vault)? {
        output.note(&format!(
            "what is mounted is another directory, which was at {} before: only the files that are \
             there now are re-wrapped",
            vault.display()
        ));
    }
    let stop = interrupt::watch()?;
    let (key, to) = (args.key.clone(), args.to.clone());
    let what = What { key, to, strangers: strangers(args.take_in) };
    let report = carry_out(&volume, vault, &what, &mut |news| event(news) && !stop.is_set());
    volume.end().map_err(|error| keys.failed(vault, &error))?;
    report
}

/// True if a mount has another directory by this path.
fn is_mounted_from_elsewhere(vault: &Path) -> Result<bool, CliError> {
    Ok(mountinfo::of_vault(vault)?.is_some_and(|mount| !Target::of(&mount).is_here()))
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
///
/// A line is written before its file changes, behind those of earlier runs: a run that was stopped,
/// or killed, and the one that goes on where it stopped give a list of everything together. Power
/// that fails may take lines with it, and then also the headers, or leaves those that were synced.
struct ChangedList<'a> {
    file: Option<(&'a Path, File)>,
    failure: Option<io::Error>,
}

impl<'a> ChangedList<'a> {
    fn open(path: Option<&'a Path>) -> Result<Self, CliError> {
        let open = |path: &'a Path| {
            let opened = OpenOptions::new().append(true).read(true).create(true).open(path);
            let opened =
                opened.or_else(|_| OpenOptions::new().append(true).create(true).open(path));
            let opened = opened.and_then(|file| end_line(&file).map(|()| file));
            Ok::<_, CliError>((path, opened.map_err(|error| CliError::io(path.display(), &error))?))
        };
        Ok(Self { file: path.map(open).transpose()?, failure: None })
    }

    /// Notes a file that is about to be changed. `false` if it must not be.
    fn add(&mut self, changed: &str) -> bool {
        if let Some((_, file)) = &mut self.file
            && let Err(error) = file.write_all(format!("{}\n", printable(changed)).as_bytes())
        {
            self.failure.get_or_insert(error);
        }
        self.failure.is_none()
    }

    fn close(self) -> Result<(), CliError> {
        let Some((path, file)) = self.file else { return Ok(()) };
        let synced = match file.sync_all() {
            // A pipe, or a terminal.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            synced => synced,
        };
        match self.failure.or(synced.err()) {
            None => Ok(()),
            Some(error) => Err(CliError::io(path.display(), &error).advise(
                "the re-wrap stopped before the file that has no line; run it again with the same \
                 list, which is continued",
            )),
        }
    }
}

/// Ends a line that a full disk cut short: what is appended to it would name no file.
fn end_line(mut file: &File) -> io::Result<()> {
    let found = file.metadata()?;
    if !found.is_file() || found.len() == 0 {
        return Ok(());
    }
    let mut last = [0];
    file.read_exact_at(&mut last, found.len() - 1)?;
    if last != *b"\n" { file.write_all(b"\n") } else { Ok(()) }
}

const SHOWN: usize = 20;

//! `kmsfs rewrap`: through the daemon when the volume is mounted, by itself when it is not.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::Path;

use serde_json::Value;

use super::args::{Global, RewrapArgs};
use super::exit::{CliError, Exit};
use super::keys_from::KeysFrom;
use super::live::Target;
use super::mountinfo::text;
use super::output::{Output, count};
use super::printable::printable;
use super::progress::Progress;
use super::{failure, interrupt, key, trust, vault};
use crate::control::{Event, Request};
use crate::volume::{RewrapJob, Strangers, Volume};

/// Re-wraps, shows the progress, and tells what was done.
pub(super) fn run(args: &RewrapArgs, global: &Global, output: Output) -> Result<Exit, CliError> {
    let target = Target::find(&args.target)?;
    let mut list = ChangedList::open(args.changed_list.as_deref())?;
    let progress = Progress::new("rewrap");
    let mut event = |event| match event {
        Event::Progress { done, total } => progress.set(done, total),
        Event::Changed(path) => list.add(&path),
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

/// What is asked of a re-wrap: keys by their names. What runs by itself asks for the default.
#[derive(Debug, Default)]
pub(super) struct What {
    pub(super) key: Option<String>,
    pub(super) to: Option<String>,
    pub(super) strangers: Strangers,
}

/// What `--take-in` says.
pub(super) fn strangers(take_in: bool) -> Strangers {
    if take_in { Strangers::TakenIn } else { Strangers::Refused }
}

/// The job itself, in the daemon or offline. `event` gives `false` to stop it between two files.
pub(super) fn carry_out(
    volume: &Volume,
    vault: &Path,
    what: &What,
    event: &mut dyn FnMut(Event) -> bool,
) -> Result<Value, CliError> {
    let service = volume.keyring().service();
    let find = |name: &str| service.find_key(name).map_err(|error| failure::volume(vault, &error));
    // Another process may have rotated a key a moment ago.
    service.refresh().map_err(|error| failure::volume(vault, &error))?;
    let named = |name: &Option<String>| name.as_deref().map(find).transpose();
    let job =
        RewrapJob { from: named(&what.key)?, to: named(&what.to)?, strangers: what.strangers };
    let wanted = Cell::new(true);
    let event = RefCell::new(event);
    let tell = |news| wanted.set((*event.borrow_mut())(news) && wanted.get());
    let report = volume.rewrap(
        job,
        &mut |report| {
            tell(Event::Progress { done: report.scanned, total: Some(report.total) });
            if wanted.get() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        },
        &mut |path| tell(Event::Changed(text(path))),
    );
    key::value(&report.map_err(|error| failure::volume(vault, &error))?)
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

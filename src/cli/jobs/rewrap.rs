//! A re-wrap, in the daemon of a mount or in a command of its own.

use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;
use std::path::Path;

use serde_json::Value;

use crate::cli::env::failure;
use crate::cli::env::mounts::mountinfo::text;
use crate::cli::report::exit::CliError;
use crate::cli::report::output::to_value;
use crate::control::Event;
use crate::volume::{RewrapJob, Strangers, Volume};

/// What is asked of a re-wrap: keys by their names. What runs by itself asks for the default.
#[derive(Debug, Default)]
pub(in crate::cli) struct What {
    pub(in crate::cli) key: Option<String>,
    pub(in crate::cli) to: Option<String>,
    pub(in crate::cli) strangers: Strangers,
}

/// What `--take-in` says.
pub(in crate::cli) fn strangers(take_in: bool) -> Strangers {
    if take_in { Strangers::TakenIn } else { Strangers::Refused }
}

/// The job itself, in the daemon or offline. `event` gives `false` to stop it between two files.
pub(in crate::cli) fn carry_out(
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
    let go_on = || if wanted.get() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
    let report = volume.rewrap_announced(
        job,
        &mut |report| {
            tell(Event::Progress { done: report.scanned, total: Some(report.total) });
            go_on()
        },
        &mut |path| {
            tell(Event::Changed(text(path)));
            go_on()
        },
    );
    to_value(&report.map_err(|error| failure::volume(vault, &error))?)
}

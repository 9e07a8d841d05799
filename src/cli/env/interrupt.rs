//! Stopping a long command at a safe point when the user asks for it.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::cli::report::exit::CliError;

/// Set by SIGINT and SIGTERM. A second signal ends the process at once.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// True once the user wants the command to stop.
    pub(in crate::cli) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// The same, for work that asks whether to go on.
    pub(in crate::cli) fn flow(&self) -> ControlFlow<()> {
        if self.is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Starts to watch for signals.
pub(in crate::cli) fn watch() -> Result<Interrupt, CliError> {
    let set = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds the flag unset and only sets it.
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&set))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&set)))
            .map_err(|error| CliError::io("signals", &error))?;
    }
    Ok(Interrupt(set))
}

//! A progress bar with rate and time left, shown only at a terminal.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Progress of a long operation.
#[derive(Debug)]
pub(in crate::cli) struct Progress(ProgressBar);

impl Progress {
    /// A bar for `what`; its total may become known later.
    pub(in crate::cli) fn new(what: &str) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::new_spinner();
        bar.set_style(style(UNKNOWN));
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    /// So many are done, of so many where that is known.
    pub(in crate::cli) fn set(&self, done: u64, total: Option<u64>) {
        if let Some(total) = total.filter(|total| self.0.length() != Some(*total)) {
            self.0.set_length(total);
            self.0.set_style(style(KNOWN));
        }
        self.0.set_position(done);
    }

    /// Takes the bar away; results follow.
    pub(in crate::cli) fn finish(self) {
        self.0.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

const UNKNOWN: &str = "{msg}: {human_pos} files, {per_sec}, {elapsed}";
const KNOWN: &str = "{msg}: [{bar:30}] {human_pos}/{human_len} files, {per_sec}, {eta} left";

//! What the checks found.

use serde::Serialize;

use crate::cli::report::exit::CliError;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::cli) enum Severity {
    /// Files or keys may be lost or exposed: act now.
    Error,
    /// Not as it should be.
    Warning,
    /// Worth knowing.
    Note,
}

/// Something that was found.
#[derive(Debug, Clone, Serialize)]
pub(in crate::cli) struct Finding {
    severity: Severity,
    /// The name of the check.
    check: &'static str,
    /// What was found.
    what: String,
    /// What to do about it.
    advice: String,
}

/// What was found so far.
#[derive(Default)]
pub(in crate::cli) struct Findings(Vec<Finding>);

impl Findings {
    /// Adds a finding.
    pub(in crate::cli) fn add(
        &mut self,
        severity: Severity,
        check: &'static str,
        what: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.0.push(Finding { severity, check, what: what.into(), advice: advice.into() });
    }

    /// Takes note of a check that could not be made.
    pub(in crate::cli) fn failed(&mut self, check: &'static str, error: &CliError) {
        self.add(
            Severity::Error,
            check,
            error.what.clone(),
            error.advice.clone().unwrap_or_default(),
        );
    }

    /// What was found, the worst first.
    pub(in crate::cli) fn worst_first(&mut self) -> &[Finding] {
        self.0.sort_by_key(|finding| finding.severity);
        &self.0
    }

    /// True if files or keys may be lost or exposed.
    pub(in crate::cli) fn has_errors(&self) -> bool {
        self.0.iter().any(|finding| finding.severity == Severity::Error)
    }

    /// A line for each finding, and one for what to do about it.
    pub(in crate::cli) fn in_words(&self) -> String {
        if self.0.is_empty() {
            return "nothing to complain about".to_owned();
        }
        let lines = self.0.iter().map(|finding| {
            let severity = match finding.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
                Severity::Note => "note",
            };
            format!("{severity}: {}\n  {}", finding.what, finding.advice)
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

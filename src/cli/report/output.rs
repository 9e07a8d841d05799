//! Results on stdout: text for people, one JSON document for programs.

use std::io::{self, Write};
use std::sync::OnceLock;

use serde::Serialize;
use serde_json::{Value, json};

use super::exit::{CliError, Exit};
use super::printable::{self, printable};

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Output {
    /// Text for people.
    Text,
    /// One JSON document.
    Json,
}

impl Output {
    /// Prints a result: `value` for programs, the lines of `text` for people.
    pub(in crate::cli) fn result(self, value: &Value, text: impl FnOnce() -> String) {
        match self {
            Self::Json => line(&printable::json(&format!("{value:#}"))),
            Self::Text => {
                let text = text();
                if !text.is_empty() {
                    line(&printable::lines(text.trim_end()));
                }
            }
        }
    }

    /// Has everything that was to be printed on stdout been written there?
    /// Errors: the first failure; what the command did is done.
    pub(in crate::cli) fn written(self) -> Result<(), CliError> {
        match UNWRITTEN.get() {
            None => Ok(()),
            Some(error) => Err(CliError::io("cannot write the result", error)
                .advise("it is only the output that is missing: what the command does is done")),
        }
    }

    /// Prints a failure on stderr.
    pub(in crate::cli) fn error(self, error: &CliError) {
        match self {
            Self::Text => remark(&format!("kmsfs: {error}")),
            Self::Json => {
                let document = json!({ "error": {
                    "code": error.exit.code(),
                    "meaning": error.exit.meaning(),
                    "message": error.what,
                    "advice": error.advice,
                }});
                remark(&printable::json(&document.to_string()));
            }
        }
    }

    /// A remark that is no result: on stderr, and only for people.
    pub(in crate::cli) fn note(self, text: &str) {
        if self == Self::Text {
            remark(&printable::lines(text));
        }
    }
}

/// A result with the member names of AWS.
pub(in crate::cli) fn to_value(result: &impl Serialize) -> Result<Value, CliError> {
    serde_json::to_value(result).map_err(|error| CliError::new(Exit::General, error.to_string()))
}

/// Columns of text, each as wide as its widest cell; an empty header is left out.
pub(in crate::cli) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = header.iter().map(|cell| (*cell).to_owned()).collect();
    let rows = rows.iter().map(|row| row.iter().map(|cell| printable(cell).into_owned()).collect());
    let rows: Vec<Vec<String>> = rows.collect();
    let lines = || std::iter::once(&head).filter(|head| !head.is_empty()).chain(&rows);
    let mut widths: Vec<usize> = Vec::new();
    for line in lines() {
        widths.resize(widths.len().max(line.len()), 0);
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for line in lines() {
        let cells: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Bytes in a unit that a person reads at once.
pub(in crate::cli) fn bytes(count: u64) -> String {
    let mut unit = 0;
    let mut scaled = count;
    let mut rest = 0;
    while scaled >= 1024 && unit + 1 < UNITS.len() {
        rest = scaled % 1024;
        scaled /= 1024;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or("B");
    if unit == 0 {
        format!("{scaled} {name}")
    } else {
        format!("{scaled}.{} {name}", rest * 10 / 1024)
    }
}

/// "1 file", "2 files".
pub(in crate::cli) fn count(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// A line on stderr. Where that cannot be written, nobody can be told; the command goes on, since half of
/// what it does is worse, and its exit code says how it ended.
pub(in crate::cli) fn remark(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

fn line(text: &str) {
    let mut stdout = io::stdout().lock();
    note(writeln!(stdout, "{text}").and_then(|()| stdout.flush()));
}

/// Keeps the first failure to write a result. A closed pipe (`kmsfs key list | head -1`) is the
/// reader's choice, not a failure.
fn note(written: io::Result<()>) {
    if let Err(error) = written
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        UNWRITTEN.get_or_init(|| error);
    }
}

/// Results are printed in many places, and none of them can do anything about it: [`Output::written`]
/// is asked at the end, and where a result is shown only once.
static UNWRITTEN: OnceLock<io::Error> = OnceLock::new();

const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "bb".to_owned()], vec!["ccc".to_owned(), "d".to_owned()]];
        assert_eq!(table(&["X", "Y"], &rows), "X    Y\na    bb\nccc  d\n");
        assert_eq!(table(&[], &rows), "a    bb\nccc  d\n");
    }

    /// A description could move the cursor and write over other rows.
    #[test]
    fn regression_what_is_in_a_table_does_not_steer_the_terminal() {
        let rows = [vec!["a\u{1b}[2Jb\nc".to_owned(), "é".to_owned()]];
        assert_eq!(table(&[], &rows), "a\\u{1b}[2Jb\\nc  é\n");
    }

    #[test]
    fn bytes_have_one_digit_after_the_point() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(5 << 40), "5.0 TiB");
    }

    #[test]
    fn one_file_is_not_one_files() {
        assert_eq!(count(1, "file"), "1 file");
        assert_eq!(count(0, "file"), "0 files");
    }
}

//! Questions at the terminal: passphrases and confirmations.

use std::io::{IsTerminal, Write};

use zeroize::Zeroizing;

use super::silent;
use crate::cli::report::exit::{CliError, Exit};
use crate::cli::report::output::remark;
use crate::cli::report::printable::{lines, printable};

/// A passphrase as typed.
pub(in crate::cli) type Passphrase = Zeroizing<Vec<u8>>;

/// True when there is somebody to ask.
pub(in crate::cli) fn has_terminal() -> bool {
    std::io::stdin().is_terminal() && std::fs::File::open("/dev/tty").is_ok()
}

/// Asks for a passphrase once.
pub(in crate::cli) fn passphrase(question: &str) -> Result<Passphrase, CliError> {
    silent::ask(&format!("{}: ", printable(question)))
        .map_err(|error| CliError::io("cannot read the passphrase", &error))
}

/// Asks for a new passphrase, twice, until both are equal and not empty; three tries.
pub(in crate::cli) fn new_passphrase(what: &str) -> Result<Passphrase, CliError> {
    for _ in 0..TRIES {
        let first = passphrase(&format!("new passphrase for {what}"))?;
        if first.is_empty() {
            remark("an empty passphrase protects nothing");
            continue;
        }
        let second = passphrase("the same again")?;
        if *first == *second {
            return Ok(first);
        }
        remark("these are not the same");
    }
    Err(CliError::new(Exit::NoSecret, "no new passphrase was given"))
}

/// Says what will be destroyed and asks. Without a terminal only `--yes` is a yes.
pub(in crate::cli) fn confirm(warning: &str, yes: bool) -> Result<(), CliError> {
    if yes {
        return Ok(());
    }
    if !has_terminal() {
        let advice = "there is no terminal to ask at: add --yes if that is what you want";
        return Err(
            CliError::new(Exit::Refused, "not confirmed").advise(format!("{warning}\n  {advice}"))
        );
    }
    // Whoever was not asked has not said yes.
    let mut terminal = std::io::stderr().lock();
    write!(terminal, "{}\ntype yes to go on: ", lines(warning))
        .and_then(|()| terminal.flush())
        .map_err(|error| CliError::io("terminal", &error))?;
    drop(terminal);
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(|error| CliError::io("terminal", &error))?;
    if answer.trim() == "yes" {
        Ok(())
    } else {
        Err(CliError::new(Exit::Refused, "not confirmed: nothing was changed"))
    }
}

const TRIES: usize = 3;

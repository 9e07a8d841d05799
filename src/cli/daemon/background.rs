//! The daemon: starting it, and what it does to become one.
//!
//! A process with threads must not fork, so the command starts itself again with `--foreground
//! --detached`. The passphrase goes to the child through its stdin, "ready" comes back through its
//! stdout; a child that fails prints its error itself and its exit code becomes ours.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::cli::env::prompt::Passphrase;
use crate::cli::report::exit::{CliError, Exit};
use crate::sys::Inherited;

/// How the daemon ended its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Started {
    /// The mount is usable.
    Ready,
    /// It failed, has said why, and gave this exit code.
    Failed(u8),
}

/// Runs `command` as a daemon and waits until its mount is usable.
pub(in crate::cli) fn start(
    command: &mut Command,
    passphrase: Option<Passphrase>,
) -> Result<Started, CliError> {
    let failed = |error: &std::io::Error| CliError::io("cannot start the daemon", error);
    let stdin = if passphrase.is_some() { Stdio::piped() } else { Stdio::null() };
    let mut child =
        command.stdin(stdin).stdout(Stdio::piped()).spawn().map_err(|error| failed(&error))?;
    if let (Some(passphrase), Some(mut pipe)) = (passphrase, child.stdin.take()) {
        // When the child is gone already, its exit code tells more than this error.
        let _ = pipe.write_all(&passphrase).and_then(|()| pipe.write_all(b"\n"));
    }
    let mut answer = Vec::new();
    if let Some(mut pipe) = child.stdout.take() {
        pipe.read_to_end(&mut answer).map_err(|error| failed(&error))?;
    }
    if answer == READY {
        return Ok(Started::Ready);
    }
    let status = child.wait().map_err(|error| failed(&error))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok()).filter(|code| *code != 0);
    code.map(Started::Failed).ok_or_else(|| {
        CliError::new(Exit::General, format!("the daemon ended before it was ready: {status}"))
            .advise("run the command with --foreground -v to see more")
    })
}

/// A daemon that is not ready yet.
pub(in crate::cli) struct Detached {
    /// The caller's files: a secret may come from one of them, and a lock be held by another.
    inherited: Inherited,
}

/// The first step of the child: a session of its own, ended if the command goes away meanwhile.
pub(in crate::cli) fn detach() -> Result<Detached, CliError> {
    let failed = |error: &std::io::Error| CliError::io("cannot detach", error);
    let inherited = Inherited::find().map_err(|error| failed(&error))?;
    rustix::process::setsid()
        .and_then(|_| rustix::process::set_parent_process_death_signal(Some(Signal::TERM)))
        .map_err(|errno| failed(&errno.into()))?;
    Ok(Detached { inherited })
}

/// The last step of the child: lets go of the caller's files, terminal and directory, and tells the
/// command.
pub(in crate::cli) fn ready(detached: Detached) -> std::io::Result<()> {
    detached.inherited.close();
    rustix::process::set_parent_process_death_signal(None)?;
    let mut stdout = std::io::stdout();
    stdout.write_all(READY)?;
    stdout.flush()?;
    leave_terminal()
}

/// Lets go of the terminal, or whatever the standard files are, and of the directory.
pub(in crate::cli) fn leave_terminal() -> std::io::Result<()> {
    std::env::set_current_dir("/")?;
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(rustix::stdio::dup2_stderr(&null)?)
}

const READY: &[u8] = b"ready\n";

//! `kmsfs policy`: the key of a directory. Works on a mounted volume, through its daemon.

use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde_json::Value;

use crate::cli::args::PolicyCommand;
use crate::cli::env::mounts::daemon_client::Target;
use crate::cli::env::mounts::mountinfo;
use crate::cli::report::exit::{CliError, Exit};
use crate::cli::report::output::Output;
use crate::control::{DirRef, Request};

/// Runs one of the commands.
pub(in crate::cli) fn run(command: &PolicyCommand, output: Output) -> Result<Exit, CliError> {
    match command {
        PolicyCommand::Set { dir, key, cross } => {
            let (key, cross) = (key.clone(), cross.clone());
            let value = ask(dir, |dir| Request::PolicySet { dir, key, cross })?;
            output.result(&value, || {
                format!(
                    "new files in {} get key {}\n\
                     files that are there keep theirs until 'kmsfs rewrap VAULT' moves them",
                    dir.display(),
                    text(&value["key"])
                )
            });
        }
        PolicyCommand::Show { dir } => {
            let value = ask(dir, |dir| Request::PolicyShow { dir })?;
            output.result(&value, || {
                let from = if value["inherited"] == true { "inherited" } else { "its own" };
                format!("{}: key {} ({from})", dir.display(), text(&value["key"]))
            });
        }
    }
    Ok(Exit::Ok)
}

/// Sends a request about a directory to the daemon of the mount that it is in. What is meant is what
/// is open here, whatever is mounted where its path leads.
pub(in crate::cli) fn ask(
    dir: &Path,
    request: impl FnOnce(DirRef) -> Request,
) -> Result<Value, CliError> {
    let failed = |errno: Errno| CliError::io(dir.display(), &errno.into());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let held = rustix::fs::open(dir, flags, Mode::empty()).map_err(failed)?;
    let stat = rustix::fs::fstat(&held).map_err(failed)?;
    let outside = || {
        CliError::new(Exit::NotMounted, format!("{} is not inside a mounted vault", dir.display()))
            .advise("mount the vault, and name a directory below its mountpoint")
    };
    let mount = mountinfo::of_device(stat.st_dev)?.ok_or_else(outside)?;
    let request = request(DirRef { inode: stat.st_ino, name: mountinfo::text(dir) });
    Target::of(&mount).call(&request, |_| true).ok_or_else(|| {
        CliError::new(
            Exit::General,
            format!("the daemon of {} does not answer", mount.mountpoint.display()),
        )
        .advise("only its own user and root may ask it; 'kmsfs status' shows whether it lives")
    })?
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("unknown").to_owned()
}

//! `kmsfs policy`: the key of a directory. Works on a mounted volume, through its daemon.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde_json::Value;

use super::args::PolicyCommand;
use super::exit::{CliError, Exit};
use super::live::Target;
use super::output::Output;
use super::{mountinfo, paths};
use crate::control::Request;

/// Runs one of the commands.
pub(super) fn run(command: &PolicyCommand, output: Output) -> Result<Exit, CliError> {
    match command {
        PolicyCommand::Set { dir, key, cross } => {
            let (key, cross) = (key.clone(), cross.clone());
            let value = ask(dir, |path| Request::PolicySet { path, key, cross })?;
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
            let value = ask(dir, |path| Request::PolicyShow { path })?;
            output.result(&value, || {
                let from = if value["inherited"] == true { "inherited" } else { "its own" };
                format!("{}: key {} ({from})", dir.display(), text(&value["key"]))
            });
        }
    }
    Ok(Exit::Ok)
}

/// Sends a request about a directory to the daemon of the mount that holds it.
pub(super) fn ask(dir: &Path, request: impl FnOnce(Vec<u8>) -> Request) -> Result<Value, CliError> {
    let dir = dir.canonicalize().map_err(|error| CliError::io(dir.display(), &error))?;
    let dir = paths::absolute(&dir)?;
    let outside = || {
        CliError::new(Exit::NotMounted, format!("{} is not inside a mounted vault", dir.display()))
            .advise("mount the vault, and name a directory below its mountpoint")
    };
    let mount = mountinfo::holding(&dir)?.ok_or_else(outside)?;
    let inside = dir.strip_prefix(&mount.mountpoint).map_err(|_| outside())?;
    let target = Target::find(&mount.mountpoint)?;
    let request = request(inside.as_os_str().as_bytes().to_vec());
    target.call(&request, |_| {}).ok_or_else(|| {
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

//! `kmsfs adopt`: takes in a directory that is not in its place. Works on a mounted volume, through
//! its daemon.

use std::path::Path;

use serde_json::Value;

use super::policy;
use crate::cli::args::AdoptArgs;
use crate::cli::env::prompt;
use crate::cli::report::exit::{CliError, Exit};
use crate::cli::report::output::Output;
use crate::control::Request;

/// Says what is wrong with the directory, asks, and takes it in.
pub(in crate::cli) fn run(args: &AdoptArgs, output: Output) -> Result<Exit, CliError> {
    let dir = &args.dir;
    let found = policy::ask(dir, |dir| Request::AdoptShow { dir })?;
    if found["misplaced"].is_null() {
        output.result(&found, || format!("{} is in its place", dir.display()));
        return Ok(Exit::Ok);
    }
    prompt::confirm(&warning(dir, &found), args.yes)?;
    let adopted = policy::ask(dir, |dir| Request::Adopt { dir })?;
    output.result(&adopted, || format!("{} belongs where it is", dir.display()));
    Ok(Exit::Ok)
}

fn warning(dir: &Path, found: &Value) -> String {
    let text = |name: &str| found[name].as_str().unwrap_or("unknown").to_owned();
    let from = if found["inherited"] == true { "inherited" } else { "its own" };
    format!(
        "{} cannot be used: {}\n\
         if it is taken in, it counts as the directory of this name, with all that is in it;\n\
         its new files get key {} ({from})\n\
         do so only if you know how it came there: who can write to the vault can put old or other \
         directories there",
        dir.display(),
        text("misplaced"),
        text("key"),
    )
}

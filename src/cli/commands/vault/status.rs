//! `kmsfs status`: mounted vaults, or one of them.

use std::path::Path;

use rustix::io::Errno;
use serde_json::{Value, json};

use crate::cli::args::StatusArgs;
use crate::cli::env::live::{self, Target};
use crate::cli::env::mountinfo::{self, Mounted, text};
use crate::cli::env::paths;
use crate::cli::report::exit::{CliError, Exit};
use crate::cli::report::output::{Output, table};
use crate::control::Request;

/// Shows all mounts, or the facts about one vault.
pub(in crate::cli) fn run(args: &StatusArgs, output: Output) -> Result<Exit, CliError> {
    match &args.target {
        None => all(output),
        Some(target) => one(target, output),
    }
}

fn all(output: Output) -> Result<Exit, CliError> {
    let mounts = mountinfo::all()?;
    let values: Vec<Value> = mounts.iter().map(describe).collect();
    output.result(&json!({ "mounts": values }), || {
        if mounts.is_empty() {
            return "no vault is mounted".into();
        }
        let rows: Vec<Vec<String>> = mounts
            .iter()
            .map(|mount| {
                let is_dead = is_alive(mount) == Some(false);
                let state = if is_dead { "dead".into() } else { mode(mount) };
                vec![text(&mount.mountpoint), state, text(&mount.vault)]
            })
            .collect();
        table(&["MOUNTPOINT", "STATE", "VAULT"], &rows)
    });
    Ok(Exit::Ok)
}

fn one(named: &Path, output: Output) -> Result<Exit, CliError> {
    let target = Target::find(named)?;
    check_vault(&target.vault)?;
    let mount = mountinfo::of_vault(&target.vault)?;
    let mut value = json!({
        "vault": text(&target.vault),
        "mounted": mount.is_some(),
        "in_use": !live::is_free(&target.vault),
    });
    if let Some(mount) = &mount {
        merge(&mut value, &describe(mount));
    }
    if let Some(answer) = target.call(&Request::Status, |_| {}) {
        merge(&mut value, &answer?);
    }
    output.result(&value, || lines(&value));
    Ok(Exit::Ok)
}

fn check_vault(vault: &Path) -> Result<(), CliError> {
    if vault.join(".kmsfs").is_dir() {
        return Ok(());
    }
    Err(CliError::new(
        Exit::NotAVault,
        format!("{} is neither a vault nor the mountpoint of one", paths::real(vault)?.display()),
    )
    .advise("'kmsfs status' without an argument lists what is mounted"))
}

fn describe(mount: &Mounted) -> Value {
    json!({
        "vault": text(&mount.vault),
        "mountpoint": text(&mount.mountpoint),
        "mode": mode(mount),
        "alive": is_alive(mount),
        "pid": Target::of(mount).daemon().map(|daemon| daemon.daemon()),
    })
}

fn mode(mount: &Mounted) -> String {
    if mount.has_option("ro") { "read-only".into() } else { "read-write".into() }
}

/// Without its daemon a mount answers nothing. Attributes may still come from the kernel's cache;
/// the free space never does. Nothing is asked of another user's, which answers when that user
/// likes: `None`.
fn is_alive(mount: &Mounted) -> Option<bool> {
    if mount.user != 0 && mount.user != rustix::process::geteuid().as_raw() {
        return None;
    }
    let asked = rustix::fs::statvfs(&mount.mountpoint);
    Some(!matches!(asked, Err(Errno::NOTCONN | Errno::CONNABORTED)))
}

fn merge(into: &mut Value, from: &Value) {
    if let (Some(into), Some(from)) = (into.as_object_mut(), from.as_object()) {
        into.extend(from.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
}

fn lines(value: &Value) -> String {
    let Some(fields) = value.as_object() else { return value.to_string() };
    let rows: Vec<Vec<String>> =
        fields.iter().map(|(name, value)| vec![name.replace('_', " "), plain(value)]).collect();
    table(&[], &rows)
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.into(),
        Value::Null => "-".into(),
        other => other.to_string(),
    }
}

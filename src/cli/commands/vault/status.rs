//! `kmsfs status`: mounted vaults, or one of them.

use std::path::Path;

use serde_json::{Value, json};

use crate::cli::args::StatusArgs;
use crate::cli::env::mounts::daemon_client;
use crate::cli::env::mounts::daemon_client::Target;
use crate::cli::env::mounts::life::Life;
use crate::cli::env::mounts::mountinfo::{self, Mounted, text};
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
    let lives: Vec<Life> = mounts.iter().map(Life::of).collect();
    let seen = || mounts.iter().zip(&lives);
    let values: Vec<Value> = seen().map(|(mount, life)| describe(mount, *life)).collect();
    output.result(&json!({ "mounts": values }), || {
        if mounts.is_empty() {
            return "no vault is mounted".into();
        }
        let row = |(mount, life): (&Mounted, &Life)| {
            let state = match life {
                Life::Dead => "dead".into(),
                Life::Silent => "does not answer".into(),
                Life::Alive | Life::NotAsked => mode(mount),
            };
            let vault = mount.believed_vault().map_or_else(|| "-".into(), text);
            vec![text(&mount.mountpoint), state, vault]
        };
        let rows: Vec<_> = seen().map(row).collect();
        table(&["MOUNTPOINT", "STATE", "VAULT"], &rows)
    });
    Ok(Exit::Ok)
}

fn one(named: &Path, output: Output) -> Result<Exit, CliError> {
    let target = Target::named(named)?;
    check_vault(&target.vault)?;
    let mount = match target.mount() {
        Some(mount) => Some(mount.clone()),
        None => mountinfo::of_vault(&target.vault)?,
    };
    let mut value = json!({
        "vault": text(&target.vault),
        "mounted": mount.is_some(),
        "in_use": !daemon_client::is_free(&target.vault),
    });
    if let Some(mount) = &mount {
        merge(&mut value, &describe(mount, Life::of(mount)));
    }
    if let Some(answer) = target.call(&Request::Status, |_| true) {
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

fn describe(mount: &Mounted, life: Life) -> Value {
    json!({
        "vault": mount.believed_vault().map(text),
        "mountpoint": text(&mount.mountpoint),
        "mode": mode(mount),
        "alive": life.as_json(),
        "pid": Target::of(mount).daemon().map(|daemon| daemon.daemon()),
    })
}

fn mode(mount: &Mounted) -> String {
    if mount.has_option("ro") { "read-only".into() } else { "read-write".into() }
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

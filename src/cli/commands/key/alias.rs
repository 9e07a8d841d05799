//! `kmsfs alias`: names for keys.

use std::time::SystemTime;

use serde_json::json;

use crate::cli::args::Global;
use crate::cli::args::keys::AliasCommand;
use crate::cli::env::keystore;
use crate::cli::report::exit::{CliError, Exit};
use crate::cli::report::output::{Output, table};
use crate::keystore::{AliasName, Keystore};

/// Runs one of the commands.
pub(in crate::cli) fn run(
    command: &AliasCommand,
    global: &Global,
    output: Output,
) -> Result<Exit, CliError> {
    let keystore = keystore::open(global)?;
    let now = SystemTime::now();
    match command {
        AliasCommand::Create { alias, key } => {
            let key = keystore::key_id(&keystore, key)?;
            keystore.create_alias(&alias.parse()?, key, now)?;
            output.result(&json!({ "AliasName": alias, "TargetKeyId": key.to_string() }), || {
                format!("{alias} means {key}")
            });
        }
        AliasCommand::Update { alias, key } => {
            let key = keystore::key_id(&keystore, key)?;
            keystore.update_alias(&alias.parse()?, key, now)?;
            output.result(&json!({ "AliasName": alias, "TargetKeyId": key.to_string() }), || {
                format!("{alias} means {key} from now on; files keep the key they have")
            });
        }
        AliasCommand::Delete { alias } => {
            let name: AliasName = alias.parse()?;
            keystore.delete_alias(&name)?;
            output.result(&json!({ "AliasName": alias }), || format!("removed {alias}"));
        }
        AliasCommand::List => list(&keystore, output)?,
    }
    Ok(Exit::Ok)
}

fn list(keystore: &Keystore, output: Output) -> Result<(), CliError> {
    let aliases = keystore.list_aliases(None)?;
    output.result(&json!({ "Aliases": aliases }), || {
        let rows: Vec<Vec<String>> = aliases
            .iter()
            .map(|alias| vec![alias.alias_name.to_string(), alias.target_key_id.to_string()])
            .collect();
        table(&["ALIAS", "KEY"], &rows)
    });
    Ok(())
}

//! `kmsfs principal`: what the account lets users and groups do.

use serde_json::json;

use super::{key_policy, who};
use crate::cli::args::Global;
use crate::cli::args::access::{PrincipalCommand, PrincipalPolicyCommand};
use crate::cli::env::{keystore, prompt};
use crate::cli::report::exit::{CliError, Exit};
use crate::cli::report::output::{Output, table};
use crate::keystore::Keystore;

/// Runs one of the commands.
pub(in crate::cli) fn run(
    command: &PrincipalCommand,
    global: &Global,
    output: Output,
) -> Result<Exit, CliError> {
    let keystore = keystore::open(global)?;
    match command {
        PrincipalCommand::List => {
            let principals = keystore.list_principals()?;
            output.result(&json!({ "Principals": principals }), || {
                let row = |one: &crate::keystore::PrincipalEntry| {
                    vec![who::short(&one.arn), one.policy_names.join(", "), one.arn.clone()]
                };
                let rows: Vec<Vec<String>> = principals.iter().map(row).collect();
                table(&["WHO", "POLICIES", "ARN"], &rows)
            });
        }
        PrincipalCommand::Policy(command) => policy(&keystore, command, output)?,
    }
    Ok(Exit::Ok)
}

fn policy(
    keystore: &Keystore,
    command: &PrincipalPolicyCommand,
    output: Output,
) -> Result<(), CliError> {
    match command {
        PrincipalPolicyCommand::Put { who, name, file } => {
            let arn = who::arn(who)?;
            keystore.put_principal_policy(&arn, name, &key_policy::read(file)?)?;
            output.result(&json!({ "Arn": arn, "PolicyName": name }), || {
                format!(
                    "{} has policy '{name}'; live mounts notice within a second",
                    who::short(&arn)
                )
            });
        }
        PrincipalPolicyCommand::Get { who, name } => {
            let policy = keystore.get_principal_policy(&who::arn(who)?, name)?;
            output.result(&json!({ "Policy": key_policy::document(&policy) }), || policy);
        }
        PrincipalPolicyCommand::Delete { who, name, yes } => {
            let arn = who::arn(who)?;
            keystore.get_principal_policy(&arn, name)?;
            let warning = format!("policy '{name}' of {} is removed for good", who::short(&arn));
            prompt::confirm(&warning, *yes)?;
            keystore.delete_principal_policy(&arn, name)?;
            output.result(&json!({ "Arn": arn, "PolicyName": name }), || {
                format!("{} has no policy '{name}' any more", who::short(&arn))
            });
        }
        PrincipalPolicyCommand::List { who } => {
            let arn = who::arn(who)?;
            let found = keystore.list_principals()?.into_iter().find(|one| one.arn == arn);
            let names = found.map_or_else(Vec::new, |one| one.policy_names);
            output.result(&json!({ "Arn": arn, "PolicyNames": names }), || names.join("\n"));
        }
    }
    Ok(())
}

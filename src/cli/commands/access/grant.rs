//! `kmsfs grant`: permissions to use a key, given and taken one by one.

use std::time::SystemTime;

use serde_json::json;

use super::who;
use crate::cli::args::Global;
use crate::cli::args::access::{CreateGrantArgs, GrantCommand};
use crate::cli::env::keystore;
use crate::cli::report::exit::{CliError, Exit};
use crate::cli::report::output::{Output, table};
use crate::keystore::{
    Constraints, CreateGrant, EncryptionContext, GrantEntry, GrantFilter, Keystore,
};

/// Runs one of the commands.
pub(in crate::cli) fn run(
    command: &GrantCommand,
    global: &Global,
    output: Output,
) -> Result<Exit, CliError> {
    let keystore = keystore::open(global)?;
    match command {
        GrantCommand::Create(args) => create(&keystore, args, output)?,
        GrantCommand::List { key, to, retirable_by } => {
            let grants = match (key, retirable_by) {
                (_, Some(who)) => keystore.list_retirable_grants(&who::arn(who)?)?,
                (key, None) => {
                    let grantee = to.as_deref().map(who::arn).transpose()?;
                    let filter = GrantFilter { id: None, grantee };
                    keystore.list_grants(&required(key.as_ref()).parse()?, &filter)?
                }
            };
            output.result(&json!({ "Grants": grants }), || listed(&grants));
        }
        GrantCommand::Revoke { key, grant } => {
            keystore.revoke_grant(&key.parse()?, grant.parse()?)?;
            output.result(&json!({ "GrantId": grant }), || {
                format!("revoked {grant}; live mounts notice within a second")
            });
        }
        GrantCommand::Retire { token: Some(token), .. } => {
            keystore.retire_grant_by_token(token)?;
            output.result(&json!({}), || "retired the grant".to_owned());
        }
        GrantCommand::Retire { key, grant, token: None } => {
            let grant = required(grant.as_ref());
            keystore.retire_grant(&required(key.as_ref()).parse()?, grant.parse()?)?;
            output.result(&json!({ "GrantId": grant }), || format!("retired {grant}"));
        }
    }
    Ok(Exit::Ok)
}

/// An argument that the parser of the command line insists on; the empty text names nothing.
fn required(argument: Option<&String>) -> &str {
    argument.map_or("", String::as_str)
}

fn create(keystore: &Keystore, args: &CreateGrantArgs, output: Output) -> Result<(), CliError> {
    let now = SystemTime::now();
    let request = CreateGrant {
        grantee: who::arn(&args.to)?,
        retiring: args.retiring.as_deref().map(who::arn).transpose()?,
        operations: args.operations.iter().flat_map(|word| word.0.iter().copied()).collect(),
        constraints: constraints(&args.context, args.exact)?,
        name: args.name.clone(),
        expires: args.expires.as_deref().map(|when| who::end(when, now)).transpose()?,
    };
    let made = keystore.create_grant(&args.key.parse()?, &request, now)?;
    let value = json!({ "GrantId": made.id.to_string(), "GrantToken": made.token });
    output.result(&value, || {
        format!("grant {} for {}\ntoken {}", made.id, who::short(&request.grantee), made.token)
    });
    Ok(())
}

fn constraints(pairs: &[String], exact: bool) -> Result<Constraints, CliError> {
    let pair = |text: &String| {
        let wrong = || {
            CliError::new(Exit::Usage, format!("'{text}' is not a KEY=VALUE pair"))
                .advise("write --context KEY=VALUE")
        };
        let (key, value) = text.split_once('=').ok_or_else(wrong)?;
        Ok::<_, CliError>((key.to_owned(), value.to_owned()))
    };
    let context: EncryptionContext =
        pairs.iter().map(pair).collect::<Result<Vec<_>, _>>()?.into_iter().collect();
    Ok(match (pairs.is_empty(), exact) {
        (true, _) => Constraints::default(),
        (false, true) => Constraints { equals: Some(context), subset: None },
        (false, false) => Constraints { equals: None, subset: Some(context) },
    })
}

fn listed(grants: &[GrantEntry]) -> String {
    let row = |grant: &GrantEntry| {
        let operations: Vec<&str> = grant.operations.iter().map(|one| one.as_str()).collect();
        vec![
            grant.grant_id.to_string(),
            who::short(&grant.grantee_principal),
            operations.join(","),
            bounds(&grant.constraints),
            grant.expiration_date.map_or_else(|| "never".to_owned(), |end| end.to_string()),
        ]
    };
    let rows: Vec<Vec<String>> = grants.iter().map(row).collect();
    table(&["GRANT", "FOR", "OPERATIONS", "CONTEXT", "ENDS"], &rows)
}

fn bounds(constraints: &Constraints) -> String {
    let pairs = |context: &EncryptionContext| {
        let pairs: Vec<String> = context.pairs().map(|(k, v)| format!("{k}={v}")).collect();
        pairs.join(",")
    };
    match (&constraints.equals, &constraints.subset) {
        (Some(equals), _) => format!("exactly {}", pairs(equals)),
        (None, Some(subset)) => pairs(subset),
        (None, None) => "any".to_owned(),
    }
}

//! `kmsfs access-key`: what users of the network endpoint sign with.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::SystemTime;

use serde_json::json;
use zeroize::Zeroizing;

use super::who;
use crate::cli::args::Global;
use crate::cli::args::access::{AccessKeyCommand, CreateAccessKeyArgs};
use crate::cli::env::{keystore, prompt};
use crate::cli::report::exit::{CliError, Exit};
use crate::cli::report::output::{Output, table};
use crate::keystore::{
    AccessKeyEntry, AccessKeyStatus, CreateAccessKey, Keystore, NewAccessKey, UnixTime,
};

/// Runs one of the commands.
pub(in crate::cli) fn run(
    command: &AccessKeyCommand,
    global: &Global,
    output: Output,
) -> Result<Exit, CliError> {
    let keystore = keystore::open(global)?;
    match command {
        AccessKeyCommand::Create(args) => create(&keystore, args, output)?,
        AccessKeyCommand::List => {
            let keys = keystore.list_access_keys()?;
            output.result(&json!({ "AccessKeys": keys }), || listed(&keys));
        }
        AccessKeyCommand::Enable { id } => switch(&keystore, id, AccessKeyStatus::Active, output)?,
        AccessKeyCommand::Disable { id } => {
            switch(&keystore, id, AccessKeyStatus::Inactive, output)?;
        }
        AccessKeyCommand::Delete { id, yes } => {
            // Nobody is asked about a key that is not there.
            if keystore.list_access_keys()?.iter().any(|key| key.access_key_id == *id) {
                let what = format!("access key {id} is removed for good: its user is refused");
                prompt::confirm(&what, *yes)?;
            }
            keystore.delete_access_key(id)?;
            output.result(&json!({ "AccessKeyId": id }), || format!("deleted access key {id}"));
        }
    }
    Ok(Exit::Ok)
}

fn create(keystore: &Keystore, args: &CreateAccessKeyArgs, output: Output) -> Result<(), CliError> {
    let now = SystemTime::now();
    let request = CreateAccessKey {
        user: args.user.clone(),
        for_volumes: args.for_volumes,
        expires: args.expires.as_deref().map(|when| who::end(when, now)).transpose()?,
    };
    // The file first: a key whose secret cannot be written is of no use.
    let file = args.credentials_file.as_deref().map(|path| new_file(path).map(|file| (path, file)));
    let file = file.transpose()?;
    let made = match keystore.create_access_key(&request, now) {
        Ok(made) => made,
        Err(error) => {
            if let Some((path, _)) = &file {
                let _ = std::fs::remove_file(path);
            }
            return Err(error.into());
        }
    };
    match file {
        Some((path, file)) => written(path, file, &made, output),
        None => {
            shown(&made, request.user.as_deref(), output);
            output.written().map_err(|error| {
                error.advise(format!(
                    "the access key {0} was made and its secret is lost: 'kmsfs access-key delete \
                     {0}', and make another one",
                    made.id
                ))
            })
        }
    }
}

/// A file that only its owner reads, and that was not there before.
fn new_file(path: &Path) -> Result<File, CliError> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    opened.map_err(|error| CliError::io(path.display(), &error))
}

/// Writes the shared credentials file of AWS's tools.
fn written(
    path: &Path,
    mut file: File,
    made: &NewAccessKey,
    output: Output,
) -> Result<(), CliError> {
    let text = Zeroizing::new(format!(
        "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
        made.id, *made.secret
    ));
    let done = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    done.map_err(|error| {
        CliError::io(path.display(), &error)
            .advise(format!("the access key {} was made: delete it and try again", made.id))
    })?;
    output.result(&json!({ "AccessKeyId": made.id, "CredentialsFile": path }), || {
        format!("access key {} is in {}", made.id, path.display())
    });
    Ok(())
}

fn shown(made: &NewAccessKey, user: Option<&str>, output: Output) {
    let value = json!({ "AccessKey": {
        "AccessKeyId": made.id,
        "SecretAccessKey": *made.secret,
        "Status": "Active",
        "UserName": user,
    }});
    output.note("the secret is shown this once: keep it now");
    output.result(&value, || {
        format!("aws_access_key_id = {}\naws_secret_access_key = {}", made.id, *made.secret)
    });
}

fn switch(
    keystore: &Keystore,
    id: &str,
    status: AccessKeyStatus,
    output: Output,
) -> Result<(), CliError> {
    keystore.update_access_key(id, status)?;
    output.result(&json!({ "AccessKeyId": id, "Status": status }), || match status {
        AccessKeyStatus::Active => format!("access key {id} can be used again"),
        AccessKeyStatus::Inactive => {
            format!("access key {id} is refused; running servers notice within a second")
        }
    });
    Ok(())
}

fn listed(keys: &[AccessKeyEntry]) -> String {
    let or_never =
        |time: Option<UnixTime>| time.map_or_else(|| "never".to_owned(), |t| t.to_string());
    let row = |key: &AccessKeyEntry| {
        vec![
            key.access_key_id.clone(),
            key.user_name.as_ref().map_or_else(|| "root".to_owned(), |name| format!("user:{name}")),
            format!("{:?}", key.status),
            if key.for_volumes { "yes" } else { "no" }.to_owned(),
            or_never(key.last_used_date),
            or_never(key.expiration_date),
        ]
    };
    let rows: Vec<Vec<String>> = keys.iter().map(row).collect();
    table(&["ACCESS KEY", "OF", "STATUS", "FOR VOLUMES", "LAST USED", "ENDS"], &rows)
}

//! `kmsfs key`: keys, their states and their rotation.

pub(in crate::cli) mod alias;
mod destroy;
pub(in crate::cli) mod key_store;
mod other_hosts;
pub(in crate::cli) mod replica;

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde_json::json;

use super::access::key_policy;
use crate::cli::args::Global;
use crate::cli::args::keys::{CreateKeyArgs, KeyCommand};
use crate::cli::env::keystore;
use crate::cli::report::exit::{CliError, Exit};
use crate::cli::report::output::{Output, table, to_value};
use crate::id::KeyId;
use crate::keystore::{
    AliasName, ClockTrust, CreateKey, KeyMetadata, KeyRef, KeySpec, KeyUsage, Keystore,
    KeystoreError, MaterialState, TransferKind,
};

/// Runs one of the commands.
pub(in crate::cli) fn run(
    command: &KeyCommand,
    global: &Global,
    output: Output,
) -> Result<Exit, CliError> {
    let keystore = keystore::open(global)?;
    match command {
        KeyCommand::Create(args) => create(&keystore, args, output)?,
        KeyCommand::List => list(&keystore, output)?,
        KeyCommand::Describe { key } => describe(&keystore, &key.parse()?, output)?,
        KeyCommand::Enable { key } => {
            let key: KeyRef = key.parse()?;
            keystore.enable_key(&key)?;
            state(&keystore, &key, "live mounts get its files back within a second", output)?;
        }
        KeyCommand::Disable { key } => {
            let key: KeyRef = key.parse()?;
            keystore.disable_key(&key)?;
            state(&keystore, &key, "live mounts stop using it within a second", output)?;
        }
        KeyCommand::Rotate { key } => rotate(&keystore, &key.parse()?, output)?,
        KeyCommand::Rotation { key, every, disable } => {
            rotation(&keystore, &key.parse()?, *every, *disable, output)?;
        }
        KeyCommand::Policy(command) => key_policy::run(&keystore, command, output)?,
        KeyCommand::ScheduleDeletion(args) => destroy::schedule(&keystore, args, output)?,
        KeyCommand::CancelDeletion { key } => {
            let key: KeyRef = key.parse()?;
            keystore.cancel_key_deletion(&key)?;
            state(&keystore, &key, "'kmsfs key enable' allows its use again", output)?;
        }
        KeyCommand::DeleteExpired { confirm_clock } => {
            let trust = if *confirm_clock { ClockTrust::Confirmed } else { ClockTrust::Steps };
            destroy::expired(&keystore, trust, output)?;
        }
        KeyCommand::Replicate(args) => {
            replica::send(&keystore, TransferKind::Replica, args, output)?;
        }
        KeyCommand::Sync(args) => replica::send(&keystore, TransferKind::Sync, args, output)?,
        KeyCommand::UpdatePrimary(args) => {
            replica::send(&keystore, TransferKind::Primary, args, output)?;
        }
        KeyCommand::Receive(args) => replica::receive(&keystore, args, output)?,
        KeyCommand::ForgetReplica { key, region, yes } => {
            replica::forget(&keystore, key, region, *yes, output)?;
        }
        KeyCommand::Retire(args) => destroy::retire(&keystore, args, output)?,
    }
    Ok(Exit::Ok)
}

fn create(keystore: &Keystore, args: &CreateKeyArgs, output: Output) -> Result<(), CliError> {
    let now = SystemTime::now();
    let alias: Option<AliasName> = args.alias.as_deref().map(str::parse).transpose()?;
    // A key cannot be taken back: what would fail after it was made fails before.
    if let Some(alias) = &alias {
        must_be_free(keystore, alias)?;
    }
    let every = args.rotate_every.map(period).transpose()?;
    let request = CreateKey {
        description: args.description.clone(),
        tags: tags(&args.tags)?,
        key_store: args
            .key_store
            .as_deref()
            .map(|store| key_store::named(keystore, store))
            .transpose()?,
        multi_region: args.multi_region,
        ..CreateKey::default()
    };
    let made = keystore.create_key(request, now)?;
    let named =
        alias.as_ref().map_or(Ok(()), |alias| keystore.create_alias(alias, made.key_id, now));
    let rotated = named.and_then(|()| match every {
        Some(_) => keystore.enable_key_rotation(&made.key_id.into(), every, now).map(drop),
        None => Ok(()),
    });
    if let Err(error) = rotated {
        let error = CliError::from(error);
        let what =
            format!("key {} was made, but not all of its settings: {}", made.key_id, error.what);
        return Err(CliError { what, ..error }.advise(
            "go on with this key ('kmsfs alias create', 'kmsfs key rotation'), or delete it: \
             running the command again makes another",
        ));
    }
    output.result(&to_value(&made)?, || {
        let name = alias.map(|alias| format!(" ({alias})")).unwrap_or_default();
        format!("made key {}{name}", made.key_id)
    });
    Ok(())
}

/// Errors: `General` if the name means a key already, whatever became of that.
fn must_be_free(keystore: &Keystore, alias: &AliasName) -> Result<(), CliError> {
    if keystore.list_aliases(None)?.iter().any(|known| known.alias_name == *alias) {
        return Err(CliError::new(Exit::General, format!("{alias} exists already"))
            .advise("'kmsfs alias update' lets it mean another key"));
    }
    Ok(())
}

fn list(keystore: &Keystore, output: Output) -> Result<(), CliError> {
    let mut keys = Vec::new();
    let mut rows = Vec::new();
    for key in keystore.list_keys()? {
        let names = names(keystore, key.key_id)?;
        rows.push(vec![
            key.key_id.to_string(),
            key.key_state.to_string(),
            key.creation_date.to_string(),
            role(&key),
            names.join(" "),
            key.description.clone(),
        ]);
        let mut shown = to_value(&key)?;
        shown["Aliases"] = json!(names);
        keys.push(shown);
    }
    output.result(&json!({ "Keys": keys }), || {
        table(&["KEY", "STATE", "CREATED", "MULTI-REGION", "ALIASES", "DESCRIPTION"], &rows)
    });
    Ok(())
}

fn describe(keystore: &Keystore, key: &KeyRef, output: Output) -> Result<(), CliError> {
    let metadata = keystore.describe_key(key)?;
    let id = metadata.key_id;
    let materials = match keystore.list_key_rotations(&id.into()) {
        Err(KeystoreError::UnsupportedOperation(_)) => Vec::new(),
        materials => materials?,
    };
    let rotation = match keystore.get_key_rotation_status(&id.into()) {
        Err(KeystoreError::UnsupportedOperation(_)) => None,
        status => Some(status?),
    };
    let mut shown = to_value(&metadata)?;
    shown["Aliases"] = json!(names(keystore, id)?);
    shown["Tags"] = json!(keystore.list_resource_tags(&id.into())?);
    shown["Materials"] = to_value(&materials)?;
    shown["Rotation"] = to_value(&rotation)?;
    output.result(&shown, || {
        let mut rows = facts(&metadata);
        rows.push(fact("aliases", names(keystore, id).unwrap_or_default().join(" ")));
        rows.push(fact(
            "rotation",
            match rotation.as_ref().map(|status| status.rotation_period_in_days) {
                Some(Some(days)) => format!("every {days} days"),
                Some(None) => "by hand".into(),
                None => "never".into(),
            },
        ));
        for material in &materials {
            let current = match material.key_material_state {
                MaterialState::Current => ", current",
                MaterialState::PendingRotation => ", waits for a rotation",
                MaterialState::NonCurrent => "",
            };
            let text =
                format!("{} of {}{current}", material.key_material_id, material.rotation_date);
            rows.push(fact("material", text));
        }
        table(&[], &rows)
    });
    Ok(())
}

fn rotate(keystore: &Keystore, key: &KeyRef, output: Output) -> Result<(), CliError> {
    let material = keystore.rotate_key_on_demand(key, SystemTime::now())?;
    let shown = json!({
        "KeyId": keystore.resolve(key)?.to_string(),
        "KeyMaterialId": material.to_string(),
    });
    output.result(&shown, || {
        format!(
            "new files get material {material}\n\
             files that are there keep the old one until 'kmsfs rewrap VAULT'"
        )
    });
    Ok(())
}

fn rotation(
    keystore: &Keystore,
    key: &KeyRef,
    every: Option<u32>,
    disable: bool,
    output: Output,
) -> Result<(), CliError> {
    if let Some(days) = every {
        keystore.enable_key_rotation(key, Some(period(days)?), SystemTime::now())?;
    } else if disable {
        keystore.disable_key_rotation(key)?;
    }
    let status = keystore.get_key_rotation_status(key)?;
    output.result(&to_value(&status)?, || match status.rotation_period_in_days {
        Some(days) => {
            let next = status.next_rotation_date.map(|date| format!(", next {date}"));
            format!("{} rotates every {days} days{}", status.key_id, next.unwrap_or_default())
        }
        None => format!("{} rotates only by hand", status.key_id),
    });
    Ok(())
}

fn state(keystore: &Keystore, key: &KeyRef, then: &str, output: Output) -> Result<(), CliError> {
    let metadata = keystore.describe_key(key)?;
    let state = metadata.key_state;
    output.result(&to_value(&metadata)?, || format!("{} is {state}\n{then}", metadata.key_id));
    Ok(())
}

/// The aliases of a key.
fn names(keystore: &Keystore, key: KeyId) -> Result<Vec<String>, CliError> {
    let aliases = keystore.list_aliases(Some(&key.into()))?;
    Ok(aliases.into_iter().map(|alias| alias.alias_name.to_string()).collect())
}

fn facts(key: &KeyMetadata) -> Vec<Vec<String>> {
    let mut rows = vec![
        fact("key", key.key_id),
        fact("arn", key.arn),
        fact("state", key.key_state),
        fact("created", key.creation_date),
        fact("description", &key.description),
    ];
    if (key.key_spec, key.key_usage) != (KeySpec::SymmetricDefault, KeyUsage::EncryptDecrypt) {
        rows.push(fact("kind", format!("{}, {}", key.key_spec, key.key_usage)));
    }
    rows.extend(regions(key).map(|regions| fact("multi-region", regions)));
    rows.extend(key.deletion_date.map(|date| fact("deletion", date)));
    rows.extend(key.custom_key_store_id.map(|store| fact("key store", store)));
    rows.extend(key.cloud_hsm_cluster_id.as_ref().map(|token| fact("token", token)));
    rows
}

/// What a multi-Region key is here, and where its related keys are.
fn regions(key: &KeyMetadata) -> Option<String> {
    let related = key.multi_region_configuration.as_ref()?;
    let primary = &related.primary_key.region;
    let replicas: Vec<&str> =
        related.replica_keys.iter().map(|replica| replica.region.as_str()).collect();
    let replicas = if replicas.is_empty() { "none".to_owned() } else { replicas.join(" ") };
    Some(format!("{}; primary in {primary}, replicas in {replicas}", role(key)))
}

/// "primary", "replica", or nothing for a key of one Region.
fn role(key: &KeyMetadata) -> String {
    let related = key.multi_region_configuration.as_ref();
    related.map(|related| related.multi_region_key_type.to_lowercase()).unwrap_or_default()
}

fn fact(name: &str, value: impl ToString) -> Vec<String> {
    vec![name.to_owned(), value.to_string()]
}

fn tags(words: &[String]) -> Result<BTreeMap<String, String>, CliError> {
    let tag = |word: &String| {
        let (key, value) = word.split_once('=').ok_or_else(|| {
            CliError::new(Exit::Usage, format!("a tag is KEY=VALUE, not '{word}'"))
        })?;
        Ok((key.to_owned(), value.to_owned()))
    };
    words.iter().map(tag).collect()
}

fn period(days: u32) -> Result<u16, CliError> {
    let days_in_bounds = u16::try_from(days).ok().filter(|days| (90..=2560).contains(days));
    days_in_bounds.ok_or_else(|| {
        CliError::new(Exit::Usage, format!("a key rotates every 90 to 2560 days, not {days}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_may_hold_an_equals_sign_in_its_value() {
        let parsed = tags(&["a=b=c".into()]).unwrap();
        assert_eq!(parsed.get("a").map(String::as_str), Some("b=c"));
        assert_eq!(tags(&["a".into()]).unwrap_err().exit, Exit::Usage);
    }
}

//! `kmsfs key schedule-deletion` and `kmsfs key retire`: the commands that destroy.
//!
//! Both look into every vault the keystore knows before they do anything, and say what they found,
//! and who may have vaults that it does not know.

use std::time::SystemTime;

use serde_json::json;

use super::other_hosts::OtherHosts;
use crate::cli::args::keys::{DeletionArgs, RetireArgs};
use crate::cli::env::keystore::key_id;
use crate::cli::env::prompt;
use crate::cli::jobs::maintenance::NOT_SEEN_TO_PASS;
use crate::cli::jobs::survey::Survey;
use crate::cli::report::exit::{CliError, Exit};
use crate::cli::report::output::{Output, count, to_value};
use crate::id::{KeyId, MaterialId};
use crate::keystore::{ClockTrust, Keystore, MaterialState, ReferenceReport};

/// Starts the waiting period of a key, after telling what would be lost.
pub(in crate::cli) fn schedule(
    keystore: &Keystore,
    args: &DeletionArgs,
    output: Output,
) -> Result<(), CliError> {
    let key = key_id(keystore, &args.key)?;
    let days = u16::try_from(args.days).ok();
    let days = days.filter(|days| (7..=30).contains(days)).ok_or_else(|| {
        CliError::new(Exit::Usage, format!("the waiting period is 7 to 30 days, not {}", args.days))
    })?;
    let survey = Survey::of(keystore, &args.vaults)?;
    let other_hosts = OtherHosts::of(keystore, &keystore.shared_materials(key)?)?;
    let forgotten = match keystore.may_have_lost_volumes()? {
        true => "  the keystore may have forgotten vaults, or copies of them\n",
        false => "",
    };
    let warning = format!(
        "key {key} will be destroyed after {days} days, and nothing brings it back then\n{}\n\
         {forgotten}{}  {}",
        survey.losses(key),
        other_hosts.warning(),
        last_use(keystore, key)?,
    );
    prompt::confirm(&warning, args.yes)?;
    let scheduled = keystore.schedule_key_deletion(key, Some(days), SystemTime::now())?;
    let mut value = to_value(&scheduled)?;
    value["Vaults"] = survey.value(key);
    value["AccessKeysForVolumes"] = other_hosts.value();
    output.result(&value, || {
        let when = match scheduled.deletion_date {
            Some(date) => format!("on {date}"),
            None => format!("{days} days after its last replica is gone"),
        };
        format!(
            "{}\n{}key {key} will be destroyed {when}; 'kmsfs key cancel-deletion {key}' stops it",
            survey.losses(key),
            other_hosts.warning(),
        )
    });
    Ok(())
}

/// When the key was last used, in words.
fn last_use(keystore: &Keystore, key: KeyId) -> Result<String, CliError> {
    let usage = keystore.get_key_last_usage(key)?;
    Ok(match (usage.key_last_usage.operation, usage.key_last_usage.timestamp) {
        (Some(operation), Some(time)) => format!("it was last used on {time}, for {operation}"),
        _ => format!("it was not used since {}", usage.tracking_start_date),
    })
}

/// Destroys the keys whose waiting period is over.
pub(in crate::cli) fn expired(
    keystore: &Keystore,
    trust: ClockTrust,
    output: Output,
) -> Result<(), CliError> {
    let expired = keystore.delete_expired(SystemTime::now(), trust)?;
    output.result(&to_value(&expired)?, || {
        let mut lines: Vec<_> =
            expired.deleted.iter().map(|key| format!("key {key} is destroyed")).collect();
        lines.extend(expired.held.iter().map(|key| {
            format!(
                "key {key} waits: {NOT_SEEN_TO_PASS}; --confirm-clock says that the clock is right"
            )
        }));
        if lines.is_empty() {
            lines.push("no waiting period is over".to_owned());
        }
        lines.join("\n")
    });
    Ok(())
}

/// Destroys old material that nothing refers to.
pub(in crate::cli) fn retire(
    keystore: &Keystore,
    args: &RetireArgs,
    output: Output,
) -> Result<(), CliError> {
    let key = key_id(keystore, &args.key)?;
    let materials = chosen(keystore, key, args.material.as_deref())?;
    must_be_free(keystore, &materials, args)?;
    let mut shared = keystore.shared_materials(key)?;
    shared.retain(|material| materials.contains(material));
    let other_hosts = OtherHosts::of(keystore, &shared)?;
    if !materials.is_empty() {
        must_not_be_lost(keystore, args.lost_vaults_checked)?;
        other_hosts.must_be_checked(args.other_hosts_checked)?;
        if !args.ciphertexts_checked {
            let used = keystore.materials_of_programs(key, &materials)?;
            must_be_no_programs(&used, &shared)?;
        }
        let warning = format!(
            "{} of key {key} will be destroyed; copies of files from before their rewrap cannot \
             be read any more: bring backups of the vaults up to date first\n{}",
            count(materials.len() as u64, "material"),
            other_hosts.warning(),
        );
        prompt::confirm(warning.trim_end(), args.yes)?;
    }
    if !materials.is_empty() {
        // Some time may have passed, in which something was put back.
        let survey = must_be_free(keystore, &materials, args)?;
        for material in &materials {
            let report = ReferenceReport {
                other_hosts_checked: args.other_hosts_checked,
                ciphertexts_checked: args.ciphertexts_checked,
                ..survey.report(*material)
            };
            keystore.retire_material(&key.into(), *material, &report)?;
        }
    }
    let retired: Vec<String> = materials.iter().map(MaterialId::to_string).collect();
    let value = json!({
        "KeyId": key.to_string(),
        "Retired": retired,
        "AccessKeysForVolumes": other_hosts.value(),
    });
    output.result(&value, || {
        if retired.is_empty() {
            return format!("key {key} has no old material");
        }
        format!("destroyed {}", retired.join(", "))
    });
    Ok(())
}

/// Errors: `Refused` if vaults may be forgotten, and nobody says that they were looked into.
fn must_not_be_lost(keystore: &Keystore, checked: bool) -> Result<(), CliError> {
    if checked || !keystore.may_have_lost_volumes()? {
        return Ok(());
    }
    let what = "the keystore may have forgotten vaults, or copies of them, that need the material";
    Err(CliError::new(Exit::Refused, what).advise(
        "mount each of them once, or name it with --vault; when none needs it any more, add \
         --lost-vaults-checked, or let 'kmsfs keystore confirm-vaults' end this",
    ))
}

/// Errors: `Refused` if programs have ciphertexts of one of the materials, or may have.
fn must_be_no_programs(used: &[MaterialId], shared: &[MaterialId]) -> Result<(), CliError> {
    let what = match (used.first(), shared.first()) {
        (Some(material), _) => format!(
            "material {material} has encrypted for programs ('kms encrypt', clients of 'serve'), and \
             where these ciphertexts are is not known here"
        ),
        (None, Some(material)) => format!(
            "material {material} is, or was, in another keystore too, and what it has encrypted for \
             programs there is not known here"
        ),
        (None, None) => return Ok(()),
    };
    Err(CliError::new(Exit::Refused, what).advise(
        "let the programs re-encrypt them ('kmsfs kms re-encrypt', ReEncrypt); when none needs it any \
         more, add --ciphertexts-checked",
    ))
}

/// Errors: `Refused` if something in a vault needs one of the materials, or may need it.
fn must_be_free(
    keystore: &Keystore,
    materials: &[MaterialId],
    args: &RetireArgs,
) -> Result<Survey, CliError> {
    let survey = Survey::of(keystore, &args.vaults)?;
    survey.must_be_complete()?;
    materials.iter().try_for_each(|material| survey.must_be_free(*material))?;
    Ok(survey)
}

/// The material that was named, or all but the current.
fn chosen(
    keystore: &Keystore,
    key: KeyId,
    named: Option<&str>,
) -> Result<Vec<MaterialId>, CliError> {
    if let Some(named) = named {
        let material = named.parse().map_err(|error| {
            CliError::new(Exit::Usage, format!("'{named}' is no material: {error}"))
        })?;
        return Ok(vec![material]);
    }
    let old = keystore
        .list_key_rotations(&key.into())?
        .into_iter()
        .filter(|material| material.key_material_state == MaterialState::NonCurrent)
        .map(|material| material.key_material_id);
    Ok(old.collect())
}

//! `kmsfs keystore slots`: the ways to open the keystore.

use std::time::SystemTime;

use serde_json::json;

use crate::cli::args::Global;
use crate::cli::args::keys::{NewSecret, SlotsCommand};
use crate::cli::env::mounts::inside;
use crate::cli::env::unlock::{self, MissingKeyFile, Source};
use crate::cli::env::{keystore, prompt};
use crate::cli::report::exit::CliError;
use crate::cli::report::output::{Output, table};
use crate::keystore::{Keystore, SlotId, SlotInfo, Unlock};

/// Runs one of the commands.
pub(in crate::cli) fn run(
    command: &SlotsCommand,
    global: &Global,
    output: Output,
) -> Result<(), CliError> {
    let keystore = keystore::open(global)?;
    match command {
        SlotsCommand::List => list(&keystore.list_slots()?, output),
        SlotsCommand::Add(secret) => {
            let slot = with_new(&keystore, secret, output, |unlock| {
                Ok(keystore.add_slot(unlock, SystemTime::now())?)
            })?;
            output.result(&json!({ "id": slot }), || format!("added slot {slot}"));
        }
        SlotsCommand::Remove { slot, yes } => {
            let slot = SlotId::from_number(*slot);
            let shown = keystore.list_slots()?.into_iter().find(|shown| shown.id == slot);
            let warning = format!("slot {slot} will not open the keystore any more");
            prompt::confirm(&warning, *yes)?;
            keystore.remove_slot(slot)?;
            output.result(&json!({ "id": slot }), || format!("removed slot {slot}"));
            if let Some(token) = shown.and_then(|slot| slot.token) {
                output.note(&format!(
                    "its key stays on the token '{}': pkcs11-tool --module {} --token-label '{}' \
                     --login --delete-object --type secrkey --id {}",
                    token.token,
                    token.module.display(),
                    token.token,
                    token.key
                ));
            }
        }
        SlotsCommand::Change { slot, secret } => {
            let old = SlotId::from_number(*slot);
            let slot = with_new(&keystore, secret, output, |unlock| {
                Ok(keystore.replace_slot(old, unlock, SystemTime::now())?)
            })?;
            output.result(&json!({ "id": slot }), || {
                format!(
                    "slot {slot} stands in the place of slot {old}, which opens nothing any more"
                )
            });
        }
    }
    Ok(())
}

/// Takes a new secret for the slot that `make` makes.
fn with_new(
    keystore: &Keystore,
    secret: &NewSecret,
    output: Output,
    make: impl FnOnce(&Unlock) -> Result<SlotId, CliError>,
) -> Result<SlotId, CliError> {
    let source = unlock::new_secret(secret, "the slot")?;
    if let Source::KeyFile(path) = &source {
        inside::refuse(keystore, path, "the key file")?;
    }
    Ok(source.with_new(MissingKeyFile::Make, "the keystore", output, make)?.0)
}

fn list(slots: &[SlotInfo], output: Output) {
    output.result(&json!({ "slots": slots }), || {
        let rows: Vec<Vec<String>> = slots
            .iter()
            .map(|slot| {
                let token = slot.token.as_ref().map(|slot| slot.token.clone());
                vec![
                    slot.id.to_string(),
                    slot.kind.as_str().into(),
                    slot.created.to_string(),
                    token.unwrap_or_default(),
                ]
            })
            .collect();
        table(&["SLOT", "KIND", "ADDED", "TOKEN"], &rows)
    });
}

//! `kmsfs key-store`: tokens that make and keep keys.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::cli::args::Global;
use crate::cli::args::key_store::KeyStoreCommand;
use crate::cli::env::{keystore, prompt, unlock};
use crate::cli::jobs::survey::Survey;
use crate::cli::report::exit::{CliError, Exit};
use crate::cli::report::output::{Output, count, table, to_value};
use crate::id::KeyId;
use crate::keystore::{
    CreateKeyStore, KeyStoreEntry, KeyStoreError, KeyStoreId, Keystore, KeystoreError, TokenError,
    TokenRef, UpdateKeyStore,
};

/// Runs one of the commands.
pub(in crate::cli) fn run(
    command: &KeyStoreCommand,
    global: &Global,
    output: Output,
) -> Result<(), CliError> {
    let keystore = keystore::open(global)?;
    match command {
        KeyStoreCommand::Create { name, store_module, store_token, store_pin_fd } => {
            let token_ref = TokenRef::new(store_module, store_token);
            create(&keystore, name, token_ref, *store_pin_fd, output)
        }
        KeyStoreCommand::Connect { store } => {
            let id = named(&keystore, store)?;
            keystore.connect_custom_key_store(id).map_err(|error| not_connected(store, error))?;
            show(&keystore, id, output)
        }
        KeyStoreCommand::Disconnect { store } => {
            let id = named(&keystore, store)?;
            keystore.disconnect_custom_key_store(id)?;
            show(&keystore, id, output)
        }
        KeyStoreCommand::List => list(&keystore, output),
        KeyStoreCommand::Update { store, name, store_token, store_pin_fd } => {
            let id = named(&keystore, store)?;
            let pin = store_pin_fd.map(|descriptor| pin_of(store, descriptor)).transpose()?;
            let update = UpdateKeyStore { name: name.clone(), pin, token: store_token.clone() };
            keystore.update_custom_key_store(id, &update)?;
            show(&keystore, id, output)
        }
        KeyStoreCommand::Delete { store, vaults, yes } => {
            delete(&keystore, store, vaults, *yes, output)
        }
    }
}

/// The key store that a user named, by its id or its name.
pub(in crate::cli) fn named(keystore: &Keystore, text: &str) -> Result<KeyStoreId, CliError> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let found = keystore.describe_custom_key_stores(None, Some(text))?;
    let first = found.first().map(|entry| entry.custom_key_store_id);
    first.ok_or_else(|| CliError::new(Exit::KeyUnknown, format!("there is no key store '{text}'")))
}

fn create(
    keystore: &Keystore,
    name: &str,
    token_ref: TokenRef,
    descriptor: Option<u32>,
    output: Output,
) -> Result<(), CliError> {
    let pin = unlock::pin(&token_ref, descriptor, PIN_OPTION)?;
    let request = CreateKeyStore { name: name.to_owned(), token_ref, pin };
    let id = keystore.create_custom_key_store(&request, SystemTime::now())?;
    output.result(&json!({ "CustomKeyStoreId": id.to_string() }), || {
        format!("made key store {id} ({name})\n'kmsfs key-store connect {name}' lets it be used")
    });
    Ok(())
}

/// A PIN that the token refused is not tried again: the key store needs another.
fn not_connected(store: &str, error: KeystoreError) -> CliError {
    let is_pin = matches!(
        error,
        KeystoreError::KeyStore(KeyStoreError::TokenConfiguration(
            TokenError::WrongPin(_) | TokenError::PinUnusable(..)
        ))
    );
    let failure = CliError::from(error);
    if !is_pin {
        return failure;
    }
    failure.advise(format!(
        "'kmsfs key-store disconnect {store}', 'kmsfs key-store update {store} {PIN_OPTION} N', \
         then connect it again"
    ))
}

fn pin_of(store: &str, descriptor: u32) -> Result<crate::keystore::Pin, CliError> {
    unlock::pin(&TokenRef::new(Path::new(""), store), Some(descriptor), PIN_OPTION)
}

fn show(keystore: &Keystore, id: KeyStoreId, output: Output) -> Result<(), CliError> {
    for entry in keystore.describe_custom_key_stores(Some(id), None)? {
        output.result(&to_value(&entry)?, || {
            format!("key store {} is {}", entry.custom_key_store_name, entry.connection_state)
        });
    }
    Ok(())
}

fn list(keystore: &Keystore, output: Output) -> Result<(), CliError> {
    let stores = keystore.describe_custom_key_stores(None, None)?;
    let row = |entry: &KeyStoreEntry| {
        vec![
            entry.custom_key_store_name.clone(),
            entry.custom_key_store_id.to_string(),
            entry.connection_state.to_string(),
            entry.cloud_hsm_cluster_id.clone(),
            entry.trust_anchor_certificate.display().to_string(),
        ]
    };
    output.result(&json!({ "CustomKeyStores": to_value(&stores)? }), || {
        let rows: Vec<_> = stores.iter().map(row).collect();
        table(&["NAME", "ID", "STATE", "TOKEN", "MODULE"], &rows)
    });
    Ok(())
}

fn delete(
    keystore: &Keystore,
    store: &str,
    vaults: &[PathBuf],
    yes: bool,
    output: Output,
) -> Result<(), CliError> {
    let id = named(keystore, store)?;
    let keys = keys_of(keystore, id)?;
    let survey = Survey::of(keystore, vaults)?;
    let told: Vec<String> = keys
        .iter()
        .map(|key| format!("key {key} belongs to it\n{}", survey.losses(*key)))
        .collect();
    let warning = format!(
        "key store {store} will be removed; {} belong to it\n{}",
        count(keys.len() as u64, "key"),
        told.join("\n")
    );
    prompt::confirm(&warning, yes)?;
    if let Err(error) = keystore.delete_custom_key_store(id) {
        told.iter().for_each(|line| output.note(line));
        return Err(error.into());
    }
    output.result(
        &json!({ "CustomKeyStoreId": id.to_string(), "Keys": Value::Array(vec![]) }),
        || format!("removed key store {store}; the token stays as it is"),
    );
    Ok(())
}

fn keys_of(keystore: &Keystore, store: KeyStoreId) -> Result<Vec<KeyId>, CliError> {
    let keys = keystore.list_keys()?;
    let own = keys.into_iter().filter(|key| key.custom_key_store_id == Some(store));
    Ok(own.map(|key| key.key_id).collect())
}

const PIN_OPTION: &str = "--store-pin-fd";

//! CreateCustomKeyStore, Describe, Connect, Disconnect, Update, Delete.

use std::time::SystemTime;

use crate::keystore::access;
use crate::keystore::access::request::RequestContext;
use crate::keystore::custom_store::link::code_of;
use crate::keystore::engine::Keystore;
use crate::keystore::error::custom_store::KeyStoreError;
use crate::keystore::error::{KeystoreError, Quota};
use crate::keystore::model::action::Action;
use crate::keystore::model::key_store::{ConnectionState, KeyStoreId};
use crate::keystore::ops::keys::on_token as keys;
use crate::keystore::records::key_store::{KeyStoreEntry, KeyStoreRecord, seal_pin};
use crate::keystore::storage::rows::Table;
use crate::keystore::storage::sealed::{Reader, Writer, tampered};
use crate::keystore::token::{Pin, Token, TokenRef};

/// What CreateCustomKeyStore is told.
#[derive(Debug)]
pub struct CreateKeyStore {
    /// A name of 1 to 256 characters that no other key store has.
    pub name: String,
    /// The token.
    pub token_ref: TokenRef,
    /// The PIN of its user.
    pub pin: Pin,
}

/// What UpdateCustomKeyStore changes.
#[derive(Debug, Default)]
pub struct UpdateKeyStore {
    /// Another name.
    pub name: Option<String>,
    /// Another PIN, which the token has already.
    pub pin: Option<Pin>,
    /// The same token under another label or serial number, or a copy of it.
    pub token: Option<String>,
}

impl Keystore {
    /// Makes a key store, disconnected. The token must be there; its PIN is not tried yet.
    /// Errors: `KeyStore`, `LimitExceeded`, `Validation`.
    pub fn create_custom_key_store(
        &self,
        request: &CreateKeyStore,
        now: SystemTime,
    ) -> Result<KeyStoreId, KeystoreError> {
        check_name(&request.name)?;
        let action = Action::CreateCustomKeyStore;
        self.operate(action, None, |_| {
            self.may(action)?;
            let serial = Token::find(&request.token_ref).map_err(KeyStoreError::of)?;
            self.write(|writer| {
                let quota = Quota::KeyStores;
                if writer.rows().count(Table::KeyStore)? >= quota.limit() {
                    return Err(KeystoreError::LimitExceeded(quota));
                }
                check_free(writer, None, &request.name, &request.token_ref)?;
                let id = KeyStoreId::random()?;
                let record = KeyStoreRecord {
                    name: request.name.clone(),
                    module: request.token_ref.module.clone(),
                    token: request.token_ref.token.clone(),
                    serial: serial.clone(),
                    pin: seal_pin(writer.root(), id, &request.pin)?,
                    created: now.into(),
                    connection: ConnectionState::Disconnected,
                    problem: None,
                    connections: 0,
                };
                record.save(writer, id)?;
                Ok(id)
            })
        })
    }

    /// The key stores, or the one that is named by its id or its name, oldest first.
    /// Errors: `KeyStore(NotFound)` when one is named and is not there.
    pub fn describe_custom_key_stores(
        &self,
        id: Option<KeyStoreId>,
        name: Option<&str>,
    ) -> Result<Vec<KeyStoreEntry>, KeystoreError> {
        let mut found = self.view_all(Action::DescribeCustomKeyStores, all)?;
        found.retain(|entry| {
            id.is_none_or(|id| entry.custom_key_store_id == id)
                && name.is_none_or(|name| entry.custom_key_store_name == name)
        });
        match (found.is_empty(), id, name) {
            (true, Some(id), _) => Err(KeyStoreError::NotFound(id.to_string()).into()),
            (true, None, Some(name)) => Err(KeyStoreError::NotFound(name.to_owned()).into()),
            _ => Ok(found),
        }
    }

    /// True if there are key stores. Asked by a process for itself, so that it knows whether it will load
    /// modules of others; written down by nobody.
    /// Errors: `Database`.
    pub fn has_custom_key_stores(&self) -> Result<bool, KeystoreError> {
        self.read(|reader| Ok(reader.rows().count(Table::KeyStore)? > 0))
    }

    /// Logs in to the token and lets the keys be used. An attempt that fails leaves the state
    /// `Failed` and the reason.
    /// Errors: `KeyStore`.
    pub fn connect_custom_key_store(&self, id: KeyStoreId) -> Result<(), KeystoreError> {
        let action = Action::ConnectCustomKeyStore;
        self.operate(action, None, |_| {
            self.may(action)?;
            let (token_ref, serial, pin) = self.read(|reader| {
                let record = KeyStoreRecord::find(reader, id)?;
                if record.connection == ConnectionState::Failed {
                    return Err(wrong_state(id, record.connection, "disconnect it first"));
                }
                let pin = record.open_pin(reader.root(), id)?;
                Ok((record.token_ref(), record.serial, pin))
            })?;
            let logged_in = Token::prove(token_ref, serial, pin);
            self.write(|writer| {
                let mut record = KeyStoreRecord::find(writer, id)?;
                record.problem = logged_in.as_ref().err().map(code_of);
                if let Ok(Some(serial)) = &logged_in {
                    record.serial = Some(serial.clone());
                }
                record.connection = match record.problem {
                    None => ConnectionState::Connected,
                    Some(_) => ConnectionState::Failed,
                };
                record.connections += 1;
                record.save(writer, id)
            })?;
            logged_in.map_err(KeyStoreError::of)?;
            log::info!("key store {id} is connected");
            Ok(())
        })
    }

    /// Makes the keys of a key store unavailable until it is connected again.
    /// Errors: `KeyStore`.
    pub fn disconnect_custom_key_store(&self, id: KeyStoreId) -> Result<(), KeystoreError> {
        self.change_store(Action::DisconnectCustomKeyStore, id, |_, record| {
            if record.connection == ConnectionState::Disconnected {
                return Err(wrong_state(id, record.connection, "there is nothing to do"));
            }
            record.connection = ConnectionState::Disconnected;
            record.problem = None;
            Ok(())
        })?;
        log::info!("key store {id} is disconnected");
        Ok(())
    }

    /// Changes the name, the PIN or the token of a disconnected key store.
    /// Errors: `KeyStore`, `Validation`.
    pub fn update_custom_key_store(
        &self,
        id: KeyStoreId,
        update: &UpdateKeyStore,
    ) -> Result<(), KeystoreError> {
        update.name.as_deref().map_or(Ok(()), check_name)?;
        self.change_store(Action::UpdateCustomKeyStore, id, |writer, record| {
            must_be_disconnected(id, record)?;
            if let Some(name) = &update.name {
                record.name.clone_from(name);
            }
            if let Some(token) = &update.token {
                record.token.clone_from(token);
                // The next one to be connected is the one that is meant.
                record.serial = None;
            }
            if let Some(pin) = &update.pin {
                record.pin = seal_pin(writer.root(), id, pin)?;
            }
            check_free(writer, Some(id), &record.name, &record.token_ref())
        })
    }

    /// Removes a disconnected key store without keys. The token stays as it is.
    /// Errors: `KeyStore`.
    pub fn delete_custom_key_store(&self, id: KeyStoreId) -> Result<(), KeystoreError> {
        let action = Action::DeleteCustomKeyStore;
        self.operate(action, None, |_| {
            self.may(action)?;
            self.write(|writer| {
                must_be_disconnected(id, &KeyStoreRecord::find(writer, id)?)?;
                match keys::count(writer, id)? {
                    0 => writer.delete(Table::KeyStore, id.as_bytes()),
                    keys => Err(KeyStoreError::HasKeys(id, keys).into()),
                }?;
                writer.meta.scrub_due = true;
                Ok(())
            })?;
            self.scrub_if_due();
            Ok(())
        })
    }

    fn change_store(
        &self,
        action: Action,
        id: KeyStoreId,
        change: impl FnOnce(&Writer<'_>, &mut KeyStoreRecord) -> Result<(), KeystoreError>,
    ) -> Result<(), KeystoreError> {
        self.operate(action, None, |_| {
            self.may(action)?;
            self.write(|writer| {
                let mut record = KeyStoreRecord::find(writer, id)?;
                change(writer, &mut record)?;
                record.connections += 1;
                record.save(writer, id)
            })
        })
    }

    /// Errors: `AccessDenied`, `DryRun`.
    fn may(&self, action: Action) -> Result<(), KeystoreError> {
        let request_context = RequestContext::default();
        self.read(|reader| {
            access::authorise(reader, self.subject(), action, None, request_context)
        })?;
        self.stop_if_dry()
    }
}

fn all(reader: &Reader<'_>) -> Result<Vec<KeyStoreEntry>, KeystoreError> {
    let mut found = Vec::new();
    for stored in reader.all::<KeyStoreRecord>()? {
        let id = stored.id.as_slice().try_into();
        let id = KeyStoreId::from_bytes(id.map_err(|_| tampered(Table::KeyStore, &stored.id))?);
        found.push(stored.record.entry(id));
    }
    found.sort_by_key(|entry| (entry.creation_date, entry.custom_key_store_id));
    Ok(found)
}

/// Errors: `KeyStore` if another key store has the name or the token.
fn check_free(
    reader: &Reader<'_>,
    own: Option<KeyStoreId>,
    name: &str,
    token_ref: &TokenRef,
) -> Result<(), KeystoreError> {
    for other in all(reader)?.iter().filter(|other| Some(other.custom_key_store_id) != own) {
        if other.custom_key_store_name == name {
            return Err(KeyStoreError::NameInUse(name.to_owned()).into());
        }
        if other.cloud_hsm_cluster_id == token_ref.token
            && other.trust_anchor_certificate == token_ref.module
        {
            return Err(KeyStoreError::TokenInUse(token_ref.token.clone()).into());
        }
    }
    Ok(())
}

fn must_be_disconnected(id: KeyStoreId, record: &KeyStoreRecord) -> Result<(), KeystoreError> {
    match record.connection {
        ConnectionState::Disconnected => Ok(()),
        state @ (ConnectionState::Connected | ConnectionState::Failed) => {
            Err(wrong_state(id, state, "disconnect it first"))
        }
    }
}

fn wrong_state(id: KeyStoreId, state: ConnectionState, advice: &'static str) -> KeystoreError {
    KeyStoreError::InvalidState { id, state, advice }.into()
}

fn check_name(name: &str) -> Result<(), KeystoreError> {
    if (1..=256).contains(&name.chars().count()) {
        return Ok(());
    }
    Err(KeystoreError::Validation("the name of a key store has 1 to 256 characters".to_owned()))
}

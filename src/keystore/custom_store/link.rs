//! Key stores in use: which are connected, and the tokens that this process has reached.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use zeroize::Zeroizing;

use crate::id::{KeyId, MaterialId};
use crate::keystore::custom_store::presence::Presence;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::key_store::{ConnectionErrorCode, ConnectionState, KeyStoreId};
use crate::keystore::model::state::KeyState;
use crate::keystore::records::key_store::KeyStoreRecord;
use crate::keystore::storage::sealed::Reader;
use crate::keystore::token::{Pin, Serial, Token, TokenError, TokenRef};

/// The key stores that this process has used.
#[derive(Default)]
pub(in crate::keystore) struct KeyStores {
    links: Mutex<HashMap<KeyStoreId, Arc<Link>>>,
    /// Some token has refused its PIN since somebody last asked.
    refused: Arc<AtomicBool>,
}

/// A PIN that a token refused to a connection of a key store.
pub(in crate::keystore) struct RefusedPin {
    pub(in crate::keystore) store: KeyStoreId,
    pub(in crate::keystore) connection: u64,
    pub(in crate::keystore) code: ConnectionErrorCode,
}

/// One connection of a key store.
pub(in crate::keystore) struct Link {
    connection: u64,
    connected: bool,
    token_ref: TokenRef,
    serial: Option<Serial>,
    pin: Pin,
    token: Mutex<Option<Arc<Token>>>,
    presence: Arc<Presence>,
    refusal: OnceLock<ConnectionErrorCode>,
    refused: Arc<AtomicBool>,
}

impl KeyStores {
    /// The PINs that were refused to the connections of this process, if one was since the last call.
    pub(in crate::keystore) fn refused_pins(&self) -> Vec<RefusedPin> {
        if !self.refused.load(Ordering::Relaxed) || !self.refused.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        let links = self.links.lock();
        let refused = links.iter().filter_map(|(store, link)| {
            let (store, connection) = (*store, link.connection);
            Some(RefusedPin { store, connection, code: *link.refusal.get()? })
        });
        refused.collect()
    }

    /// The connection of a key store as it is stored now. Asks no token.
    /// Errors: `KeyStore(NotFound)`, `Tampered`.
    pub(in crate::keystore) fn link(
        &self,
        reader: &Reader<'_>,
        id: KeyStoreId,
    ) -> Result<Arc<Link>, KeystoreError> {
        let record = KeyStoreRecord::find(reader, id)?;
        let connected = record.connection == ConnectionState::Connected;
        let mut links = self.links.lock();
        if let Some(link) = links.get(&id)
            && (link.connection, link.connected) == (record.connections, connected)
        {
            return Ok(Arc::clone(link));
        }
        let link = Arc::new(Link {
            connection: record.connections,
            connected,
            token_ref: record.token_ref(),
            pin: record.open_pin(reader.root(), id)?,
            serial: record.serial,
            token: Mutex::default(),
            presence: Arc::default(),
            refusal: OnceLock::new(),
            refused: Arc::clone(&self.refused),
        });
        links.insert(id, Arc::clone(&link));
        Ok(link)
    }
}

impl Link {
    /// A key's state as its connection makes it: unavailable while it has no token.
    pub(in crate::keystore) fn state_of(
        self: &Arc<Self>,
        material: MaterialId,
        stored: KeyState,
    ) -> KeyState {
        match stored {
            KeyState::Enabled | KeyState::Disabled if !self.is_there(material) => {
                KeyState::Unavailable
            }
            _ => stored,
        }
    }

    /// The token's label or serial number.
    pub(in crate::keystore) fn token_name(&self) -> String {
        self.token_ref.token.clone()
    }

    /// Errors: `InvalidState` while the key store is not connected.
    pub(in crate::keystore) fn check_connected(&self, key: KeyId) -> Result<(), KeystoreError> {
        let state = KeyState::Unavailable;
        if self.connected { Ok(()) } else { Err(KeystoreError::InvalidState { key, state }) }
    }

    /// Encrypts on the token.
    /// Errors: `KeyUnavailable`, `Token`.
    pub(in crate::keystore) fn seal(
        &self,
        (key, material): (KeyId, MaterialId),
        aad: &[u8],
        plaintext: &[u8],
    ) -> Result<Vec<u8>, KeystoreError> {
        let sealed = self.ask(|token| token.seal(material.as_bytes(), aad, plaintext));
        self.judge((key, material), sealed)
    }

    /// Decrypts on the token.
    /// Errors: `InvalidCiphertext`; `KeyUnavailable`, `Token`.
    pub(in crate::keystore) fn open(
        &self,
        (key, material): (KeyId, MaterialId),
        aad: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, KeystoreError> {
        let opened = self.ask(|token| token.open(material.as_bytes(), aad, sealed));
        self.judge((key, material), opened)
    }

    /// Destroys a key on the token.
    pub(in crate::keystore) fn destroy(
        &self,
        material: MaterialId,
        made_on: Option<&Serial>,
    ) -> Result<(), TokenError> {
        self.ask(|token| token.destroy_key(material.as_bytes(), made_on))
    }

    /// Asks the token. That it refuses the PIN is remembered for those who can write it down.
    pub(super) fn ask<T>(
        &self,
        question: impl FnOnce(&Token) -> Result<T, TokenError>,
    ) -> Result<T, TokenError> {
        self.token().and_then(|token| question(&token)).inspect_err(|error| {
            if error.is_refusal() && self.refusal.set(code_of(error)).is_ok() {
                self.refused.store(true, Ordering::Release);
            }
        })
    }

    /// The token, logged in at its first use. A PIN that it refused is not tried again before the
    /// key store is connected anew: tokens lock themselves after a few wrong ones.
    fn token(&self) -> Result<Arc<Token>, TokenError> {
        let mut token = self.token.lock();
        if let Some(token) = &*token {
            return Ok(Arc::clone(token));
        }
        let made = Arc::new(Token::new(
            self.token_ref.clone(),
            self.serial.clone(),
            self.pin.duplicate(),
        )?);
        *token = Some(Arc::clone(&made));
        Ok(made)
    }

    /// Is the token there, and the key on it?
    fn is_there(self: &Arc<Self>, material: MaterialId) -> bool {
        let link = Arc::clone(self);
        let probe =
            move |material: MaterialId| link.ask(|token| token.probe(material.as_bytes())).is_ok();
        self.connected && self.presence.is_there(material, probe)
    }

    fn judge<T>(
        &self,
        (key, material): (KeyId, MaterialId),
        result: Result<T, TokenError>,
    ) -> Result<T, KeystoreError> {
        result.map_err(|error| match error {
            TokenError::NotAuthentic => KeystoreError::InvalidCiphertext,
            why => {
                self.presence.is_gone(material);
                KeystoreError::KeyUnavailable { key, why }
            }
        })
    }
}

/// What is told of a connection that a token refused.
pub(in crate::keystore) fn code_of(error: &TokenError) -> ConnectionErrorCode {
    match error {
        TokenError::WrongPin(_) => ConnectionErrorCode::InvalidCredentials,
        TokenError::PinUnusable(..) => ConnectionErrorCode::UserLockedOut,
        TokenError::NotFound(_) | TokenError::Another(..) | TokenError::Unavailable(..) => {
            ConnectionErrorCode::ClusterNotFound
        }
        TokenError::Module { .. }
        | TokenError::Ambiguous(_)
        | TokenError::Unsupported(..)
        | TokenError::KeyMissing(_)
        | TokenError::NotAuthentic => ConnectionErrorCode::InternalError,
    }
}

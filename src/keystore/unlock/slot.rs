//! Unlock slots: the root key, sealed once for each passphrase, key file, credential or token.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Loaded, token_slot};
use crate::crypto::hash::{self, Label};
use crate::crypto::passphrase::Cost;
use crate::crypto::{Secret, random, xaes};
use crate::keystore::error::KeystoreError;
use crate::keystore::model::slot::{SlotId, SlotKind};
use crate::keystore::model::time::UnixTime;
use crate::keystore::storage::root::RootKey;
use crate::keystore::storage::rows::SlotRow;
use crate::keystore::storage::sealed::{Reader, Writer, root_aad, slot_aad};

/// A slot as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SlotInfo {
    /// Its number.
    pub id: SlotId,
    /// What it opens with.
    pub kind: SlotKind,
    /// When it was added.
    pub created: UnixTime,
    /// What one guess at its passphrase costs. Units: KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_kib: Option<u32>,
    /// The token that has its key: module, and label or serial number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenSlot>,
}

/// The key on a token that a slot opens with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokenSlot {
    /// The PKCS#11 module that was used.
    pub module: PathBuf,
    /// The label or serial number of the token.
    pub token: String,
    /// The id (`CKA_ID`) of the key, in hexadecimal digits.
    pub key: String,
}

/// The sealed part of a slot: what only an open keystore needs. Sealing it also authenticates
/// the clear columns.
#[derive(Serialize, Deserialize)]
struct SlotRecord {
    created: UnixTime,
}

/// Seals the root key for `loaded`. Id and sealed part are filled in when it is inserted.
pub(in crate::keystore) fn sealed_root(
    root: &RootKey,
    kind: SlotKind,
    loaded: &Loaded<'_>,
) -> Result<SlotRow, KeystoreError> {
    loaded.check_new()?;
    let (cost, stored) = match kind {
        SlotKind::Passphrase => {
            let cost = Cost::default();
            (cost, [cost.memory_kib(), cost.passes(), cost.lanes()])
        }
        SlotKind::KeyFile | SlotKind::Credential | SlotKind::Token => (FREE, [0; 3]),
    };
    let mut slot = SlotRow {
        id: 0,
        kind: kind.as_str().to_owned(),
        salt: random::id16()?,
        cost: stored,
        detail: Vec::new(),
        root: Vec::new(),
        sealed: Vec::new(),
    };
    let secret = match loaded {
        Loaded::Token(token) => return token_slot::seal(token, root, slot),
        Loaded::Secret(secret) => secret,
    };
    let key = root_seal_key(&secret.slot_key(&slot.salt, cost)?, root.keystore());
    slot.root = xaes::seal(&key, &root_aad(root.keystore(), &slot), root.secret().expose())?;
    Ok(slot)
}

/// Gives a slot its number and authenticates its columns.
pub(in crate::keystore) fn insert(
    writer: &mut Writer<'_>,
    mut slot: SlotRow,
    created: UnixTime,
) -> Result<SlotId, KeystoreError> {
    slot.id = writer.rows().next_slot_id()?;
    let body = serde_json::to_vec(&SlotRecord { created }).expect("the record is plain data");
    slot.sealed = writer.root().seal_row(&slot_aad(&slot), &body)?;
    writer.put_slot(&slot)?;
    Ok(SlotId::from_number(slot.id))
}

/// The root key, from the first slot that opens. Slots of another kind are not tried.
/// `None` if none opens.
pub(in crate::keystore) fn unlock(
    keystore: [u8; 16],
    slots: &[SlotRow],
    kind: SlotKind,
    loaded: &Loaded<'_>,
) -> Result<Option<RootKey>, KeystoreError> {
    for slot in slots {
        let Some(cost) = cost_for(kind, slot) else { continue };
        let secret = match loaded {
            Loaded::Secret(secret) => secret,
            Loaded::Token(token) => match token_slot::open(token, &keystore, slot)? {
                None => continue,
                root => return Ok(root),
            },
        };
        let key = root_seal_key(&secret.slot_key(&slot.salt, cost)?, &keystore);
        if let Ok(opened) = xaes::open(&key, &root_aad(&keystore, slot), &slot.root)
            && let Some(root) = Secret::from_slice(&opened)
        {
            return Ok(Some(RootKey::new(root, keystore)));
        }
    }
    Ok(None)
}

/// The slots in words, for somebody who has not unlocked the keystore.
pub(in crate::keystore) fn in_words(slots: &[SlotRow]) -> Vec<String> {
    let words = slots.iter().map(|slot| match SlotKind::parse(&slot.kind) {
        Some(SlotKind::Token) => match token_slot::token_ref_of(slot) {
            Some(token_ref) => format!("slot {} ({token_ref})", slot.id),
            None => format!("slot {} (token)", slot.id),
        },
        Some(kind) => format!("slot {} ({})", slot.id, kind.as_str()),
        None => format!("slot {} (unknown kind)", slot.id),
    });
    words.collect()
}

/// Checks that a slot's columns are those that were written.
/// Errors: `Tampered`.
pub(in crate::keystore) fn info(
    reader: &Reader<'_>,
    slot: &SlotRow,
) -> Result<SlotInfo, KeystoreError> {
    let body = reader.root().open_row(&slot_aad(slot), &slot.sealed).ok();
    let record = body.and_then(|body| serde_json::from_slice::<SlotRecord>(&body).ok());
    let (record, kind) = record
        .zip(SlotKind::parse(&slot.kind))
        .ok_or_else(|| KeystoreError::Tampered { table: "slot", row: slot.id.to_string() })?;
    let [memory, ..] = slot.cost;
    Ok(SlotInfo {
        id: SlotId::from_number(slot.id),
        kind,
        created: record.created,
        memory_kib: (kind == SlotKind::Passphrase).then_some(memory),
        token: token_slot::token_ref_of(slot).filter(|_| kind == SlotKind::Token).map(
            |token_ref| TokenSlot {
                module: token_ref.module,
                token: token_ref.token,
                key: base16ct::lower::encode_string(&slot.salt),
            },
        ),
    })
}

/// Stands in where a key file needs no cost.
const FREE: Cost = Cost::MINIMUM;

/// The cost to try a slot at, or `None` if `kind` does not open it or its cost is out of bounds.
fn cost_for(kind: SlotKind, slot: &SlotRow) -> Option<Cost> {
    let slot_kind = SlotKind::parse(&slot.kind).filter(|other| kind.opens(*other))?;
    let [memory, passes, lanes] = slot.cost;
    match slot_kind {
        SlotKind::Passphrase => Cost::new(memory, passes, lanes).ok(),
        SlotKind::KeyFile | SlotKind::Credential | SlotKind::Token => Some(FREE),
    }
}

fn root_seal_key(slot_key: &Secret<32>, keystore: &[u8; 16]) -> Secret<32> {
    hash::derive(slot_key, keystore, Label::KeystoreSlot)
}

pub(in crate::keystore) fn find(slots: &[SlotRow], id: SlotId) -> Result<&SlotRow, KeystoreError> {
    slots.iter().find(|slot| slot.id == id.number()).ok_or(KeystoreError::SlotNotFound(id))
}

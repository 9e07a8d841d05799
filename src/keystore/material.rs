//! Key material, sealed at rest: 256-bit keys that wrap data keys, HMAC keys, private keys.
//!
//! Each KMS key has a random wrapping key, sealed under the root key in a row of its own, and its
//! materials are sealed under that. Deleting the one row destroys all of them at once.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::algorithm::Form;
use super::error::KeystoreError;
use super::record::{Reader, Record, Stored, Writer, base64, tampered};
use super::root::place;
use super::spec::KeySpec;
use super::store::{Row, Table};
use super::time::UnixTime;
use crate::crypto::asym::PrivateKey;
use crate::crypto::hash::{self, Label};
use crate::crypto::xaes::{self, XaesKey};
use crate::crypto::{Secret, random};
use crate::id::{KeyId, MaterialId};

/// Why a material was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MaterialOrigin {
    /// With the key.
    Created,
    /// By the schedule.
    Automatic,
    /// By RotateKeyOnDemand.
    OnDemand,
}

/// The stored form of one material.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct MaterialRecord {
    /// 1 for the first material of a key, then counting.
    pub(super) sequence: u64,
    pub(super) created: UnixTime,
    pub(super) origin: MaterialOrigin,
    #[serde(with = "base64")]
    sealed: Vec<u8>,
}

impl Record for MaterialRecord {
    const TABLE: Table = Table::Material;
}

/// Gives a key its wrapping key.
pub(super) fn create_wrapping(writer: &mut Writer<'_>, key: KeyId) -> Result<(), KeystoreError> {
    let wrapping = Secret::random()?;
    let sealed = writer.root().seal_wrapping(&wrapping_place(key), &wrapping)?;
    let row = Row { id: key.as_bytes().to_vec(), owner: None, sealed };
    writer.put_row(Table::Wrapping, &row)
}

/// Fresh material of this kind, in the form in which it is sealed. Searches for primes for RSA:
/// not to be called inside of a transaction.
/// Errors: `Crypto`.
pub(super) fn fresh(spec: KeySpec) -> Result<Zeroizing<Vec<u8>>, KeystoreError> {
    let len = match spec.form() {
        Form::Symmetric => 32,
        Form::Mac(len) => len,
        Form::Asymmetric(kind) => return Ok(PrivateKey::generate(kind)?.to_pkcs8()?),
    };
    let mut bytes = Zeroizing::new(vec![0; len]);
    random::fill(&mut bytes)?;
    Ok(bytes)
}

/// Makes `bytes` the next material of a key. The caller makes it current.
pub(super) fn create(
    writer: &mut Writer<'_>,
    key: KeyId,
    bytes: &[u8],
    origin: MaterialOrigin,
    created: UnixTime,
) -> Result<MaterialId, KeystoreError> {
    let id = MaterialId::from_bytes(random::id16()?);
    let earlier = writer.of_key::<MaterialRecord>(key)?;
    let last = earlier.iter().map(|stored| stored.record.sequence).max().unwrap_or(0);
    let sealed = seal(writer, key, id, bytes)?;
    let record = MaterialRecord { sequence: last + 1, created, origin, sealed };
    writer.put(id.as_bytes(), Some(key), &record)?;
    Ok(id)
}

fn seal(
    reader: &Reader<'_>,
    key: KeyId,
    id: MaterialId,
    bytes: &[u8],
) -> Result<Vec<u8>, KeystoreError> {
    let seal_key = seal_key(&wrapping(reader, key)?, key);
    Ok(xaes::seal(&seal_key, &material_place(key, id), bytes)?)
}

/// A material in memory, ready for use. Wiped when dropped.
pub(super) enum LiveMaterial {
    /// Wraps data keys.
    Symmetric(XaesKey),
    /// Authenticates messages.
    Mac(Zeroizing<Vec<u8>>),
    /// Signs, decrypts or agrees.
    Asymmetric(Box<PrivateKey>),
}

impl LiveMaterial {
    fn read(spec: KeySpec, bytes: Zeroizing<Vec<u8>>) -> Option<Self> {
        match spec.form() {
            Form::Symmetric => {
                Secret::from_slice(&bytes).map(|key| Self::Symmetric(XaesKey::new(&key)))
            }
            Form::Mac(len) => (bytes.len() == len).then_some(Self::Mac(bytes)),
            Form::Asymmetric(kind) => {
                let key = PrivateKey::from_pkcs8(kind, &bytes).ok()?;
                Some(Self::Asymmetric(Box::new(key)))
            }
        }
    }
}

/// All materials of a key, ready to use.
/// Errors: `Tampered`.
pub(super) fn load(
    reader: &Reader<'_>,
    key: KeyId,
    spec: KeySpec,
) -> Result<Vec<(MaterialId, LiveMaterial)>, KeystoreError> {
    let seal_key = seal_key(&wrapping(reader, key)?, key);
    let stored = reader.of_key::<MaterialRecord>(key)?;
    let open = |stored: Stored<MaterialRecord>| {
        let id = stored.id.as_slice().try_into().map(MaterialId::from_bytes).ok()?;
        let opened = xaes::open(&seal_key, &material_place(key, id), &stored.record.sealed);
        Some((id, LiveMaterial::read(spec, opened.ok()?)?))
    };
    stored
        .into_iter()
        .map(|stored| {
            let row = stored.id.clone();
            open(stored).ok_or_else(|| tampered(Table::Material, &row))
        })
        .collect()
}

/// A key's wrapping key.
/// Errors: `Tampered`, also when the row is missing.
pub(super) fn wrapping(reader: &Reader<'_>, key: KeyId) -> Result<Secret<32>, KeystoreError> {
    let lost = || tampered(Table::Wrapping, key.as_bytes());
    let row = reader.rows().get(Table::Wrapping, key.as_bytes())?.ok_or_else(lost)?;
    reader.root().open_wrapping(&wrapping_place(key), &row.sealed).map_err(|_| lost())
}

fn seal_key(wrapping: &Secret<32>, key: KeyId) -> Secret<32> {
    hash::derive(wrapping, key.as_bytes(), Label::KeystoreMaterial)
}

fn wrapping_place(key: KeyId) -> Vec<u8> {
    place(&[b"wrapping", key.as_bytes()])
}

fn material_place(key: KeyId, material: MaterialId) -> Vec<u8> {
    place(&[b"material", key.as_bytes(), material.as_bytes()])
}

//! Key material, sealed at rest: 256-bit keys that wrap data keys, HMAC keys, private keys.
//!
//! Each KMS key has a random wrapping key, sealed under the root key in a row of its own, and its
//! materials are sealed under that. Deleting the one row destroys all of them at once.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::crypto::asym::PrivateKey;
use crate::crypto::hash::{self, Label};
use crate::crypto::xaes::{self, XaesKey};
use crate::crypto::{Secret, random};
use crate::id::{KeyId, MaterialId};
use crate::keystore::error::KeystoreError;
use crate::keystore::model::spec::KeySpec;
use crate::keystore::model::time::UnixTime;
use crate::keystore::records::algorithm::Form;
use crate::keystore::storage::root::encode_parts;
use crate::keystore::storage::rows::{Row, Table};
use crate::keystore::storage::sealed::{Reader, Record, Stored, Writer, base64, tampered};
use crate::keystore::storage::wrapping::wrapping_aad;

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
pub(in crate::keystore) struct MaterialRecord {
    /// 1 for the first material of a key, then counting.
    pub(in crate::keystore) sequence: u64,
    pub(in crate::keystore) created: UnixTime,
    pub(in crate::keystore) origin: MaterialOrigin,
    /// The material; empty once imported material was deleted. Its row stays, so that nothing but
    /// the same bytes, which give the same id, can take its place.
    #[serde(with = "base64")]
    pub(in crate::keystore) sealed: Vec<u8>,
    /// What is known of imported material.
    #[serde(default)]
    pub(in crate::keystore) imported: Option<Import>,
}

/// What is known of imported material besides what it is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(in crate::keystore) struct Import {
    /// When it has to go.
    pub(in crate::keystore) valid_to: Option<UnixTime>,
    pub(in crate::keystore) description: Option<String>,
    /// It waits for a rotation to become current.
    pub(in crate::keystore) pending: bool,
}

impl MaterialRecord {
    pub(in crate::keystore) fn is_pending(&self) -> bool {
        self.imported.as_ref().is_some_and(|import| import.pending)
    }

    pub(in crate::keystore) fn valid_to(&self) -> Option<UnixTime> {
        self.imported.as_ref().and_then(|import| import.valid_to)
    }
}

impl Record for MaterialRecord {
    const TABLE: Table = Table::Material;
}

/// Gives a key its wrapping key.
pub(in crate::keystore) fn create_wrapping(
    writer: &mut Writer<'_>,
    key: KeyId,
) -> Result<(), KeystoreError> {
    let wrapping = Secret::random()?;
    let sealed = writer.root().seal_wrapping(&wrapping_aad(key), &wrapping)?;
    let row = Row { id: key.as_bytes().to_vec(), owner: None, sealed };
    writer.put_row(Table::Wrapping, &row)
}

/// Fresh material of this kind, in the form in which it is sealed. Searches for primes for RSA:
/// not to be called inside of a transaction.
/// Errors: `Crypto`.
pub(in crate::keystore) fn fresh(spec: KeySpec) -> Result<Zeroizing<Vec<u8>>, KeystoreError> {
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
pub(in crate::keystore) fn create(
    writer: &mut Writer<'_>,
    key: KeyId,
    bytes: &[u8],
    origin: MaterialOrigin,
    created: UnixTime,
) -> Result<MaterialId, KeystoreError> {
    let id = MaterialId::from_bytes(random::id16()?);
    let sealed = seal(writer, key, &material_aad(key, id), bytes)?;
    let sequence = next_sequence(writer, key)?;
    let record = MaterialRecord { sequence, created, origin, sealed, imported: None };
    writer.put(id.as_bytes(), Some(key), &record)?;
    Ok(id)
}

/// The number of a key's next material.
pub(in crate::keystore) fn next_sequence(
    reader: &Reader<'_>,
    key: KeyId,
) -> Result<u64, KeystoreError> {
    let earlier = reader.of_key::<MaterialRecord>(key)?;
    Ok(earlier.iter().map(|stored| stored.record.sequence).max().unwrap_or(0) + 1)
}

/// The bytes that imported material is kept as: of a private key, one form for all its encodings.
/// Errors: `IncorrectKeyMaterial` if they are no material of this kind.
pub(in crate::keystore) fn read_imported(
    spec: KeySpec,
    bytes: Zeroizing<Vec<u8>>,
) -> Result<Zeroizing<Vec<u8>>, KeystoreError> {
    let canonical = match (spec.form(), LiveMaterial::read(spec, &bytes)) {
        (_, Some(LiveMaterial::Asymmetric(key))) => key.to_pkcs8().ok(),
        (_, Some(_)) => Some(bytes),
        (_, None) => None,
    };
    canonical.ok_or_else(|| {
        let form = match spec.form() {
            Form::Symmetric => "32 bytes".to_owned(),
            Form::Mac(len) => format!("{len} bytes"),
            Form::Asymmetric(_) => "a private key of this spec in PKCS #8 DER".to_owned(),
        };
        let problem = format!("The key material of a key with the spec {spec} is {form}.");
        KeystoreError::IncorrectKeyMaterial(problem)
    })
}

/// The id of imported material: the same bytes have the same one in the same key, also in a
/// replica of the key, and no others have it.
pub(in crate::keystore) fn imported_id(key: KeyId, bytes: &[u8]) -> MaterialId {
    let id = hash::derive_from::<16>(bytes, key.as_bytes(), Label::KeystoreMaterialId);
    MaterialId::from_bytes(*id.expose())
}

/// A material to be carried to another keystore: what is known about it, and its bytes, of which
/// there are none if they were deleted.
/// Errors: `Tampered`.
pub(in crate::keystore) fn carry(
    reader: &Reader<'_>,
    key: KeyId,
    id: MaterialId,
    mut record: MaterialRecord,
) -> Result<(MaterialRecord, Zeroizing<Vec<u8>>), KeystoreError> {
    let seal_key = seal_key(&reader.wrapping(key)?, key);
    let sealed = std::mem::take(&mut record.sealed);
    if sealed.is_empty() {
        return Ok((record, Zeroizing::default()));
    }
    let opened = xaes::open(&seal_key, &material_aad(key, id), &sealed);
    let bytes = opened.map_err(|_| tampered(Table::Material, id.as_bytes()))?;
    Ok((record, bytes))
}

/// Stores a material that was carried here.
pub(in crate::keystore) fn put_carried(
    writer: &mut Writer<'_>,
    key: KeyId,
    id: MaterialId,
    record: &MaterialRecord,
    bytes: &[u8],
) -> Result<(), KeystoreError> {
    let sealed = match bytes {
        [] => Vec::new(),
        bytes => seal(writer, key, &material_aad(key, id), bytes)?,
    };
    writer.put(id.as_bytes(), Some(key), &MaterialRecord { sealed, ..record.clone() })
}

/// Seals bytes under the wrapping key of a KMS key: they are lost together with the key.
pub(in crate::keystore) fn seal(
    reader: &Reader<'_>,
    key: KeyId,
    aad: &[u8],
    bytes: &[u8],
) -> Result<Vec<u8>, KeystoreError> {
    let seal_key = seal_key(&reader.wrapping(key)?, key);
    Ok(xaes::seal(&seal_key, aad, bytes)?)
}

/// Opens what [`seal`] made. `None` if it was changed.
pub(in crate::keystore) fn unseal(
    reader: &Reader<'_>,
    key: KeyId,
    aad: &[u8],
    sealed: &[u8],
) -> Result<Option<Zeroizing<Vec<u8>>>, KeystoreError> {
    let seal_key = seal_key(&reader.wrapping(key)?, key);
    Ok(xaes::open(&seal_key, aad, sealed).ok())
}

/// A material in memory, ready for use. Wiped when dropped.
pub(in crate::keystore) enum LiveMaterial {
    /// Wraps data keys.
    Symmetric(Box<XaesKey>),
    /// Authenticates messages.
    Mac(Zeroizing<Vec<u8>>),
    /// Signs, decrypts or agrees.
    Asymmetric(Box<PrivateKey>),
}

impl LiveMaterial {
    fn read(spec: KeySpec, bytes: &[u8]) -> Option<Self> {
        match spec.form() {
            Form::Symmetric => {
                Secret::from_slice(bytes).map(|key| Self::Symmetric(Box::new(XaesKey::new(&key))))
            }
            Form::Mac(len) => {
                (bytes.len() == len).then(|| Self::Mac(Zeroizing::new(bytes.to_vec())))
            }
            Form::Asymmetric(kind) => {
                let key = PrivateKey::from_pkcs8(kind, bytes).ok()?;
                Some(Self::Asymmetric(Box::new(key)))
            }
        }
    }
}

/// All materials of a key that are there, ready to use.
/// Errors: `Tampered`.
pub(in crate::keystore) fn load(
    reader: &Reader<'_>,
    key: KeyId,
    spec: KeySpec,
) -> Result<Vec<(MaterialId, LiveMaterial)>, KeystoreError> {
    let seal_key = seal_key(&reader.wrapping(key)?, key);
    let stored = reader.of_key::<MaterialRecord>(key)?;
    let open = |stored: Stored<MaterialRecord>| {
        let id = stored.id.as_slice().try_into().map(MaterialId::from_bytes).ok()?;
        let opened = xaes::open(&seal_key, &material_aad(key, id), &stored.record.sealed);
        Some((id, LiveMaterial::read(spec, &opened.ok()?)?))
    };
    stored
        .into_iter()
        .filter(|stored| !stored.record.sealed.is_empty())
        .map(|stored| {
            let row = stored.id.clone();
            open(stored).ok_or_else(|| tampered(Table::Material, &row))
        })
        .collect()
}

/// The materials that a key has rows of.
/// Errors: `Tampered`.
pub(in crate::keystore) fn ids(
    reader: &Reader<'_>,
    key: KeyId,
) -> Result<Vec<MaterialId>, KeystoreError> {
    let rows = reader.rows().of_key(Table::Material, key)?;
    let id = |row: &Row| row.id.as_slice().try_into().map(MaterialId::from_bytes);
    rows.iter().map(|row| id(row).map_err(|_| tampered(Table::Material, &row.id))).collect()
}

fn seal_key(wrapping: &Secret<32>, key: KeyId) -> Secret<32> {
    hash::derive(wrapping, key.as_bytes(), Label::KeystoreMaterial)
}

pub(in crate::keystore) fn material_aad(key: KeyId, material: MaterialId) -> Vec<u8> {
    encode_parts(&[b"material", key.as_bytes(), material.as_bytes()])
}

//! A keystore in one file under a passphrase, to be kept in a safe or carried to another machine.
//!
//! Shape: "KMSFSEXP" | version 1 (u8) | Argon2id memory in KiB, passes, lanes (u32 each, big
//! endian) | salt 16 | sealed: nonce 24, ciphertext, tag 16. The head is authenticated. Sealed
//! are keystore id 16, root key 32, and as JSON all rows but the unlock slots. Rows stay sealed
//! under the root key as they are in the keystore.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::crypto::hash::{self, Label};
use crate::crypto::passphrase::{self, Cost};
use crate::crypto::{Secret, random, xaes};
use crate::id::KeyId;
use crate::keystore::engine::Keystore;
use crate::keystore::error::{ExportProblem, KeystoreError};
use crate::keystore::model::id::text;
use crate::keystore::model::operation::OwnOperation;
use crate::keystore::model::time::UnixTime;
use crate::keystore::records::key::{KeyRecord, key_id};
use crate::keystore::records::material;
use crate::keystore::storage::file::{Draft, io_error};
use crate::keystore::storage::root::RootKey;
use crate::keystore::storage::rows::{Row, Store, Table};
use crate::keystore::storage::sealed::{Meta, Reader, Writer, base64};
use crate::keystore::unlock::{SlotSecret, Unlock, slot};

const MAGIC: &[u8; 8] = b"KMSFSEXP";
const VERSION: u8 = 1;
const HEAD_LEN: usize = 37;

#[derive(Serialize, Deserialize)]
struct Dump {
    meta: Meta,
    rows: Vec<DumpedRow>,
}

#[derive(Serialize, Deserialize)]
struct DumpedRow {
    #[serde(with = "text")]
    table: Table,
    #[serde(with = "base64")]
    id: Vec<u8>,
    #[serde(with = "base64")]
    owner: Vec<u8>,
    #[serde(with = "base64")]
    sealed: Vec<u8>,
}

impl Keystore {
    /// Writes everything but the unlock slots into a new file of mode 0600 that `passphrase`
    /// opens. Whoever has both has all keys.
    /// Errors: `Validation` for an empty passphrase, `Exists`, `Io`, `Crypto`.
    pub fn export(&self, to: &Path, passphrase: &[u8]) -> Result<(), KeystoreError> {
        self.operate_own(OwnOperation::ExportKeystore, |_| {
            self.write_export(to, passphrase)?;
            let now = self.caller().time().into();
            let noted = self.write(|writer| {
                writer.meta.exported = Some(now);
                Ok(())
            });
            if let Err(error) = noted {
                log::warn!("the export is made, but the keystore does not note when: {error}");
            }
            Ok(())
        })
    }

    /// When the last export was made.
    pub fn last_export(&self) -> Result<Option<UnixTime>, KeystoreError> {
        Ok(self.read(|reader| reader.meta())?.exported)
    }

    fn write_export(&self, to: &Path, passphrase: &[u8]) -> Result<(), KeystoreError> {
        SlotSecret::Passphrase(passphrase).check_new()?;
        let rows = self.read(dump)?;
        let mut plaintext = Zeroizing::new(Vec::with_capacity(48 + rows.len()));
        plaintext.extend_from_slice(self.root().keystore());
        plaintext.extend_from_slice(self.root().secret().expose());
        plaintext.extend_from_slice(&rows);

        let (cost, salt) = (Cost::default(), random::id16()?);
        let mut bytes = head(cost, &salt);
        let key = seal_key(passphrase, &salt, cost)?;
        bytes.extend(xaes::seal(&key, &bytes, &plaintext)?);

        let mut draft = Draft::begin(to)?;
        draft.write(&bytes).map_err(|error| io_error(to, "write", error))?;
        draft.publish()
    }

    /// Makes a new keystore from an export. It has the same keys, and `unlock` as its only slot.
    /// Errors: `Export`, `Exists`, `KeyFile`, `Io`.
    pub fn import(
        from: &Path,
        passphrase: &[u8],
        path: &Path,
        unlock: &Unlock,
        now: SystemTime,
    ) -> Result<Self, KeystoreError> {
        let failed = |problem| KeystoreError::Export { path: from.to_owned(), problem };
        let bytes = fs::read(from).map_err(|error| io_error(from, "read", error))?;
        let (cost, salt, head, sealed) = parse(&bytes).map_err(failed)?;
        let opened = xaes::open(&seal_key(passphrase, salt, cost)?, head, sealed);
        let opened = opened.map_err(|_| failed(ExportProblem::NotAuthentic))?;
        let (root, dump) = read_dump(&opened).ok_or_else(|| failed(ExportProblem::NotAnExport))?;

        let slot = slot::sealed_root(&root, unlock.kind(), &unlock.load()?)?;
        let draft = Draft::keystore(path)?;
        let written = Store::create(draft.path()).and_then(|mut store| {
            store.write(|rows| {
                let mut writer = Writer::fresh(rows, &root, dump.meta.clock);
                restore(&mut writer, &dump)?;
                slot::insert(&mut writer, slot, now.into())?;
                writer.finish()
            })?;
            store.close()
        });
        written.map_err(|error| draft.about_target(error))?;
        draft.publish()?;
        Self::assemble(path, root)?.check()
    }
}

fn dump(reader: &Reader<'_>) -> Result<Zeroizing<Vec<u8>>, KeystoreError> {
    reader.check_set()?;
    let mut rows = Vec::new();
    for table in Table::ALL {
        rows.extend(reader.rows().all(table)?.into_iter().map(|row| DumpedRow {
            table,
            id: row.id,
            owner: row.owner.map(|key| key.as_bytes().to_vec()).unwrap_or_default(),
            sealed: row.sealed,
        }));
    }
    let dump = Dump { meta: reader.meta()?, rows };
    Ok(Zeroizing::new(serde_json::to_vec(&dump).expect("rows are plain data")))
}

/// Puts the rows of all tables into an empty keystore: also the halves of imports and transfers that
/// are under way, which arrive in a keystore that was restored meanwhile. The tables come in an order
/// in which what a row refers to is there before it.
fn restore(writer: &mut Writer<'_>, dump: &Dump) -> Result<(), KeystoreError> {
    for dumped in &dump.rows {
        let owner = dumped.owner.as_slice().try_into().ok().map(KeyId::from_bytes);
        let row = Row { id: dumped.id.clone(), owner, sealed: dumped.sealed.clone() };
        writer.put_row(dumped.table, &row)?;
    }
    writer.meta.take_over(&dump.meta);
    share_all(writer)
}

/// The keystore that was exported may have gone on: which vaults and programs have used the material
/// there since, nobody here knows.
fn share_all(writer: &mut Writer<'_>) -> Result<(), KeystoreError> {
    for stored in writer.all::<KeyRecord>()? {
        let (key, mut record) = (key_id(&stored.id)?, stored.record);
        record.shared.extend(material::ids(writer, key)?);
        record.save(writer, key)?;
    }
    Ok(())
}

fn head(cost: Cost, salt: &[u8; 16]) -> Vec<u8> {
    let mut head = MAGIC.to_vec();
    head.push(VERSION);
    for number in [cost.memory_kib(), cost.passes(), cost.lanes()] {
        head.extend_from_slice(&number.to_be_bytes());
    }
    head.extend_from_slice(salt);
    head
}

type Parsed<'a> = (Cost, &'a [u8; 16], &'a [u8], &'a [u8]);

fn parse(bytes: &[u8]) -> Result<Parsed<'_>, ExportProblem> {
    let (magic, rest) = bytes.split_first_chunk::<8>().ok_or(ExportProblem::NotAnExport)?;
    let (version, rest) = rest.split_first().ok_or(ExportProblem::NotAnExport)?;
    if magic != MAGIC {
        return Err(ExportProblem::NotAnExport);
    }
    if *version != VERSION {
        return Err(ExportProblem::Newer(*version));
    }
    parse_rest(bytes, rest).ok_or(ExportProblem::NotAnExport)
}

fn parse_rest<'a>(bytes: &'a [u8], rest: &'a [u8]) -> Option<Parsed<'a>> {
    let (memory, rest) = rest.split_first_chunk()?;
    let (passes, rest) = rest.split_first_chunk()?;
    let (lanes, rest) = rest.split_first_chunk()?;
    let (salt, sealed) = rest.split_first_chunk()?;
    let [memory, passes, lanes] = [memory, passes, lanes].map(|b| u32::from_be_bytes(*b));
    let cost = Cost::new(memory, passes, lanes).ok()?;
    Some((cost, salt, bytes.get(..HEAD_LEN)?, sealed))
}

fn read_dump(opened: &[u8]) -> Option<(RootKey, Dump)> {
    let (keystore, rest) = opened.split_first_chunk()?;
    let (root, rows) = rest.split_first_chunk::<32>()?;
    let root = RootKey::new(Secret::from_slice(root)?, *keystore);
    Some((root, serde_json::from_slice(rows).ok()?))
}

fn seal_key(passphrase: &[u8], salt: &[u8; 16], cost: Cost) -> Result<Secret<32>, KeystoreError> {
    let key = passphrase::derive(passphrase, salt, cost)?;
    Ok(hash::derive(&key, salt, Label::KeystoreExport))
}

//! GetParametersForImport, ImportKeyMaterial, DeleteImportedKeyMaterial.

use std::time::SystemTime;

use zeroize::Zeroizing;

use crate::crypto::asym::PrivateKey;
use crate::id::{KeyId, MaterialId};
use crate::keystore::access;
use crate::keystore::access::request::RequestContext;
use crate::keystore::engine::Keystore;
use crate::keystore::engine::frame::named;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::action::Action;
use crate::keystore::model::id::{KeyArn, KeyRef};
use crate::keystore::model::spec::{
    ExpirationModel, ImportType, KeySpec, Origin, WrappingAlgorithm, WrappingKeySpec,
};
use crate::keystore::model::time::UnixTime;
use crate::keystore::ops::keys::expiry::{material_id, refresh_record, remove};
use crate::keystore::policy::Fact;
use crate::keystore::records::import_key::{self, ImportParameters};
use crate::keystore::records::key::{KeyRecord, Operation, permit, wrong_origin};
use crate::keystore::records::material::{
    self, Import, MaterialOrigin, MaterialRecord, imported_id,
};
use crate::keystore::storage::rows::Table;
use crate::keystore::storage::sealed::{Reader, Writer};

/// What ImportKeyMaterial is told.
#[derive(Debug, Clone)]
pub struct ImportRequest<'a> {
    /// The token of GetParametersForImport.
    pub token: &'a [u8],
    /// The material, wrapped as was said there.
    pub encrypted: &'a [u8],
    /// Does the material have an end?
    pub model: ExpirationModel,
    /// Which: in the future, at most 365 days from now.
    pub valid_to: Option<SystemTime>,
    /// New material, or one that the key had? If nothing is said: new for a key that never had
    /// any. For symmetric keys only.
    pub import_type: Option<ImportType>,
    /// A few words about it; without any, those of its last import stay.
    pub description: Option<String>,
    /// The material that is brought back. For symmetric keys only.
    pub material: Option<MaterialId>,
}

/// Which material was imported or deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImportedMaterial {
    /// The key.
    pub key: KeyId,
    /// The material; `None` if there was none to delete.
    pub material: Option<MaterialId>,
}

impl Keystore {
    /// A public key to wrap material for a key with, and a token for the import, both valid for a
    /// day.
    /// Errors: `KeyNotFound`, `InvalidState`, `AccessDenied`; `UnsupportedOperation` for a key
    /// whose material is not imported, or whose material is too long for the algorithm.
    pub fn get_parameters_for_import(
        &self,
        key: &KeyRef,
        algorithm: WrappingAlgorithm,
        spec: WrappingKeySpec,
        now: SystemTime,
    ) -> Result<ImportParameters, KeystoreError> {
        let action = Action::GetParametersForImport;
        self.operate(action, None, |details| {
            let admit = |reader: &Reader<'_>| {
                let request_context = RequestContext::default()
                    .naming(key)
                    .with(Fact::WrappingAlgorithm, algorithm.as_str())
                    .with(Fact::WrappingKeySpec, spec.as_str());
                let key = named(reader, key)?;
                let record = KeyRecord::find(reader, key)?;
                let about = Some((key, &record));
                access::authorise(reader, self.subject(), action, about, request_context)?;
                permit(Operation::Import, key, record.state)?;
                check_origin(key, &record)?;
                import_key::check_wrapping(record.spec, algorithm, spec)?;
                Ok(key)
            };
            details.key = Some(self.read(admit)?);
            self.stop_if_dry()?;
            // Outside of the transaction: an RSA key takes its time.
            let private = PrivateKey::generate(import_key::kind(spec))?;
            self.write(|writer| {
                let key = admit(writer)?;
                import_key::store(writer, key, &private, algorithm, spec, now.into())
            })
        })
    }

    /// Gives a key the material that it waits for, the next one to rotate to, or one that it had.
    /// Errors: `KeyNotFound`, `InvalidState`, `AccessDenied`, `UnsupportedOperation`, `Validation`;
    /// `InvalidImportToken`, `ExpiredImportToken`, `InvalidCiphertext`; `IncorrectKeyMaterial` for
    /// material of another kind, or other material than that.
    pub fn import_key_material(
        &self,
        key: &KeyRef,
        request: &ImportRequest<'_>,
        now: SystemTime,
    ) -> Result<ImportedMaterial, KeystoreError> {
        let now = UnixTime::from(now);
        let valid_to = end(request, now)?;
        let action = Action::ImportKeyMaterial;
        let request_context =
            RequestContext::default().with(Fact::ExpirationModel, request.model.as_str());
        let request_context =
            request_context.with_any(Fact::ValidTo, valid_to.map(|end| end.to_string()));
        let operation = Operation::Import;
        let imported =
            self.edit_with(action, key, operation, request_context, |writer, key, record| {
                check_origin(key, record)?;
                check_arguments(request, record.spec)?;
                let (token, encrypted) = (request.token, request.encrypted);
                let bytes = import_key::unwrap(writer, key, token, encrypted, now)?;
                let bytes = material::read_imported(record.spec, bytes)?;
                let material = UnwrappedMaterial { bytes, valid_to, now }
                    .insert(writer, key, record, request)?;
                refresh_record(writer, key, record)?;
                Ok(ImportedMaterial { key, material: Some(material) })
            })?;
        log::info!("imported material into key {}", imported.key);
        Ok(imported)
    }

    /// Takes imported material away: the current one, if none is named. The key cannot be used
    /// until the same material is imported again. The bytes leave the file, its free pages and
    /// its WAL.
    /// Errors: `KeyNotFound`, `AccessDenied`, `UnsupportedOperation`; `Validation` for a material
    /// that the key does not have.
    pub fn delete_imported_key_material(
        &self,
        key: &KeyRef,
        material: Option<MaterialId>,
    ) -> Result<ImportedMaterial, KeystoreError> {
        let action = Action::DeleteImportedKeyMaterial;
        let deleted =
            self.edit(action, key, Operation::DeleteImported, |writer, key, record| {
                check_origin(key, record)?;
                let Some(id) = material.or(record.current_material()) else {
                    return Ok(ImportedMaterial { key, material: None });
                };
                let stored = find(writer, key, id)?.ok_or_else(|| not_associated(key, id))?;
                remove(writer, key, id, stored)?;
                refresh_record(writer, key, record)?;
                Ok(ImportedMaterial { key, material: Some(id) })
            })?;
        log::info!("deleted imported material of key {}", deleted.key);
        self.scrub_if_due();
        Ok(deleted)
    }
}

/// Makes the material that waits for it the current one.
/// Errors: `NothingToRotate`.
pub(in crate::keystore) fn rotate(
    writer: &mut Writer<'_>,
    key: KeyId,
    record: &mut KeyRecord,
    now: UnixTime,
) -> Result<(), KeystoreError> {
    let materials = writer.of_key::<MaterialRecord>(key)?;
    let ready = |material: &MaterialRecord| {
        material.is_pending() && material.valid_to().is_none_or(|end| end > now)
    };
    let waiting = materials.into_iter().find(|material| ready(&material.record));
    let stored = waiting.ok_or(KeystoreError::NothingToRotate(key))?;
    record.current = material_id(&stored)?;
    let mut material = stored.record;
    if let Some(import) = &mut material.imported {
        import.pending = false;
    }
    (material.created, material.origin) = (now, MaterialOrigin::OnDemand);
    writer.put(record.current.as_bytes(), Some(key), &material)?;
    refresh_record(writer, key, record)
}

/// Material that was unwrapped and is of the right kind.
struct UnwrappedMaterial {
    bytes: Zeroizing<Vec<u8>>,
    valid_to: Option<UnixTime>,
    now: UnixTime,
}

impl UnwrappedMaterial {
    /// Stores the material where it belongs among those of its key.
    /// Errors: `IncorrectKeyMaterial`.
    fn insert(
        self,
        writer: &mut Writer<'_>,
        key: KeyId,
        record: &mut KeyRecord,
        request: &ImportRequest<'_>,
    ) -> Result<MaterialId, KeystoreError> {
        let id = imported_id(key, &self.bytes);
        let all = writer.of_key::<MaterialRecord>(key)?;
        let (had_any, waits) =
            (!all.is_empty(), all.iter().any(|stored| stored.record.is_pending()));
        let known = find(writer, key, id)?;
        let default = match had_any {
            true => ImportType::ExistingKeyMaterial,
            false => ImportType::NewKeyMaterial,
        };
        let mut material = match (request.import_type.unwrap_or(default), known) {
            (ImportType::ExistingKeyMaterial, _)
                if request.material.is_some_and(|named| named != id) =>
            {
                return Err(incorrect("is not the key material that is named"));
            }
            (ImportType::ExistingKeyMaterial, Some(known)) => known,
            (ImportType::ExistingKeyMaterial, None) => {
                return Err(incorrect("was not imported into this key before"));
            }
            (ImportType::NewKeyMaterial, Some(_)) => {
                return Err(incorrect("is already associated with this key"));
            }
            (ImportType::NewKeyMaterial, None) if waits => {
                return Err(incorrect("has to wait: other key material is pending rotation"));
            }
            (ImportType::NewKeyMaterial, None) => MaterialRecord {
                sequence: material::next_sequence(writer, key)?,
                created: self.now,
                origin: MaterialOrigin::Created,
                sealed: Vec::new(),
                imported: Some(Import { pending: had_any, ..Import::default() }),
            },
        };
        let aad = material::material_aad(key, id);
        material.sealed = material::seal(writer, key, &aad, &self.bytes)?;
        let import = material.imported.get_or_insert_default();
        import.valid_to = self.valid_to;
        if let Some(description) = &request.description {
            import.description = Some(description.clone());
        }
        if !had_any {
            record.current = id;
        }
        writer.put(id.as_bytes(), Some(key), &material)?;
        Ok(id)
    }
}

/// A material of a key, if it has that.
fn find(
    reader: &Reader<'_>,
    key: KeyId,
    material: MaterialId,
) -> Result<Option<MaterialRecord>, KeystoreError> {
    match reader.rows().get(Table::Material, material.as_bytes())? {
        Some(row) if row.owner == Some(key) => Ok(Some(reader.open(&row)?.record)),
        _ => Ok(None),
    }
}

fn not_associated(key: KeyId, material: MaterialId) -> KeystoreError {
    let problem = format!("Key material {material} is not associated with {}.", KeyArn(key));
    KeystoreError::Validation(problem)
}

/// When the material has to go.
/// Errors: `Validation`.
fn end(request: &ImportRequest<'_>, now: UnixTime) -> Result<Option<UnixTime>, KeystoreError> {
    let problem = match (request.model, request.valid_to.map(UnixTime::from)) {
        (ExpirationModel::KeyMaterialDoesNotExpire, None) => return Ok(None),
        (ExpirationModel::KeyMaterialExpires, Some(end))
            if end > now && end <= now.plus_days(365) =>
        {
            return Ok(Some(end));
        }
        (ExpirationModel::KeyMaterialExpires, Some(_)) => {
            "ValidTo must be in the future, at most 365 days from now"
        }
        (ExpirationModel::KeyMaterialExpires, None) => {
            "A validTo date must be set if the ExpirationModel is KEY_MATERIAL_EXPIRES"
        }
        (ExpirationModel::KeyMaterialDoesNotExpire, Some(_)) => {
            "A validTo date must not be set if the ExpirationModel is KEY_MATERIAL_DOES_NOT_EXPIRE"
        }
    };
    Err(KeystoreError::Validation(problem.to_owned()))
}

/// Errors: `Validation`.
fn check_arguments(request: &ImportRequest<'_>, spec: KeySpec) -> Result<(), KeystoreError> {
    let symmetric_only = request.import_type.is_some()
        || request.description.is_some()
        || request.material.is_some();
    let problem = if symmetric_only && spec != KeySpec::SymmetricDefault {
        format!(
            "ImportType, KeyMaterialDescription and KeyMaterialId are not valid for a key of the \
             spec {spec}"
        )
    } else if request.import_type == Some(ImportType::NewKeyMaterial) && request.material.is_some()
    {
        "KeyMaterialId is not valid with the ImportType NEW_KEY_MATERIAL".to_owned()
    } else {
        return Ok(());
    };
    Err(KeystoreError::Validation(problem))
}

/// Errors: `UnsupportedOperation`, in AWS's words.
fn check_origin(key: KeyId, record: &KeyRecord) -> Result<(), KeystoreError> {
    if record.origin == Origin::External { Ok(()) } else { Err(wrong_origin(key, record)) }
}

fn incorrect(what: &str) -> KeystoreError {
    KeystoreError::IncorrectKeyMaterial(format!("The key material {what}."))
}

//! Key material that is made elsewhere.

use serde::Deserialize;
use serde_json::{Value, json};

use super::keys::known;
use super::{Call, Fault, KEY_ID, Member, Operation, Shape, shapes, wire};
use crate::keystore::{ExpirationModel, ImportRequest, WrappingAlgorithm, WrappingKeySpec};
use wire::{Blob, Time};

pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        name: "GetParametersForImport",
        about: "Get a public key to wrap material with, and a token for its import",
        members: &[
            KEY_ID,
            Member::needed("WrappingAlgorithm", &WRAPPING_ALGORITHM),
            Member::needed("WrappingKeySpec", &WRAPPING_KEY_SPEC),
        ],
        run: parameters_for_import,
    },
    Operation {
        name: "ImportKeyMaterial",
        about: "Import wrapped material",
        members: &[
            KEY_ID,
            Member::needed("ImportToken", &shapes::CIPHERTEXT),
            Member::needed("EncryptedKeyMaterial", &shapes::CIPHERTEXT),
            Member::optional("ValidTo", &shapes::TIME),
            Member::optional("ExpirationModel", &EXPIRATION_MODEL),
            Member::optional("ImportType", &IMPORT_TYPE),
            Member::optional("KeyMaterialDescription", &shapes::MATERIAL_DESCRIPTION),
            Member::optional("KeyMaterialId", &shapes::MATERIAL_ID),
        ],
        run: import_key_material,
    },
    Operation {
        name: "DeleteImportedKeyMaterial",
        about: "Delete imported material; the same may be imported again",
        members: &[KEY_ID, Member::optional("KeyMaterialId", &shapes::MATERIAL_ID)],
        run: delete_imported_key_material,
    },
];

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ParametersRequest {
    wrapping_algorithm: String,
    wrapping_key_spec: String,
}

fn parameters_for_import(call: &Call<'_>) -> Result<Value, Fault> {
    let asked: ParametersRequest = call.read()?;
    let algorithm: Option<WrappingAlgorithm> =
        known("WrappingAlgorithm", Some(asked.wrapping_algorithm))?;
    let spec: Option<WrappingKeySpec> = known("WrappingKeySpec", Some(asked.wrapping_key_spec))?;
    let (Some(algorithm), Some(spec)) = (algorithm, spec) else { return Err(Fault::internal()) };
    let key = call.key_id()?.into();
    let made = call.keystore.get_parameters_for_import(&key, algorithm, spec, call.now)?;
    Ok(json!({
        "KeyId": call.arn(made.key),
        "ImportToken": wire::base64(&made.token),
        "PublicKey": wire::base64(&made.public_key),
        "ParametersValidTo": made.valid_to,
    }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ImportKeyMaterialRequest {
    import_token: Blob,
    encrypted_key_material: Blob,
    valid_to: Option<Time>,
    expiration_model: Option<String>,
    import_type: Option<String>,
    key_material_description: Option<String>,
    key_material_id: Option<String>,
}

fn import_key_material(call: &Call<'_>) -> Result<Value, Fault> {
    let asked: ImportKeyMaterialRequest = call.read()?;
    let model = known("ExpirationModel", asked.expiration_model)?;
    let material = asked.key_material_id.as_deref();
    let request = ImportRequest {
        token: asked.import_token.bytes(),
        encrypted: asked.encrypted_key_material.bytes(),
        model: model.unwrap_or(ExpirationModel::KeyMaterialExpires),
        valid_to: asked.valid_to.map(|time| time.0),
        import_type: known("ImportType", asked.import_type)?,
        description: asked.key_material_description,
        material: material.map(wire::parse_material_id).transpose()?,
    };
    let done = call.keystore.import_key_material(&call.key_id()?.into(), &request, call.now)?;
    Ok(json!({
        "KeyId": call.arn(done.key),
        "KeyMaterialId": done.material.map(wire::material_id),
    }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DeleteRequest {
    key_material_id: Option<String>,
}

fn delete_imported_key_material(call: &Call<'_>) -> Result<Value, Fault> {
    let asked: DeleteRequest = call.read()?;
    let material = asked.key_material_id.as_deref().map(wire::parse_material_id).transpose()?;
    let key = call.key_id()?.into();
    let done = call.keystore.delete_imported_key_material(&key, material)?;
    Ok(json!({
        "KeyId": call.arn(done.key),
        "KeyMaterialId": done.material.map(wire::material_id),
    }))
}

const WRAPPING_ALGORITHM: Shape = Shape::Choice(&[
    "RSAES_PKCS1_V1_5",
    "RSAES_OAEP_SHA_1",
    "RSAES_OAEP_SHA_256",
    "RSA_AES_KEY_WRAP_SHA_1",
    "RSA_AES_KEY_WRAP_SHA_256",
    "SM2PKE",
]);
const WRAPPING_KEY_SPEC: Shape = Shape::Choice(&["RSA_2048", "RSA_3072", "RSA_4096", "SM2"]);
const EXPIRATION_MODEL: Shape =
    Shape::Choice(&["KEY_MATERIAL_EXPIRES", "KEY_MATERIAL_DOES_NOT_EXPIRE"]);
const IMPORT_TYPE: Shape = Shape::Choice(&["NEW_KEY_MATERIAL", "EXISTING_KEY_MATERIAL"]);

//! Encrypt, Decrypt, ReEncrypt.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    CONTEXT, Call, DRY_RUN, Fault, GRANT_TOKENS, KEY_ID, Member, Operation, RECIPIENT, shapes, wire,
};
use crate::keystore::{CiphertextBlob, EncryptionAlgorithm, EncryptionContext};
use wire::Blob;

pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        name: "Encrypt",
        about: "Encrypt up to 4096 bytes",
        members: &[
            KEY_ID,
            Member::needed("Plaintext", &shapes::PLAINTEXT),
            CONTEXT,
            GRANT_TOKENS,
            Member::optional("EncryptionAlgorithm", &shapes::ENCRYPTION_ALGORITHM),
            DRY_RUN,
        ],
        run: encrypt,
    },
    Operation {
        name: "Decrypt",
        about: "Decrypt what Encrypt or GenerateDataKey made",
        members: &[
            Member::optional("CiphertextBlob", &shapes::CIPHERTEXT),
            CONTEXT,
            GRANT_TOKENS,
            Member::optional("KeyId", &shapes::KEY_ID),
            Member::optional("EncryptionAlgorithm", &shapes::ENCRYPTION_ALGORITHM),
            RECIPIENT,
            DRY_RUN,
            Member::optional("DryRunModifiers", &shapes::DRY_RUN_MODIFIERS),
        ],
        run: decrypt,
    },
    Operation {
        name: "ReEncrypt",
        about: "Decrypt, and encrypt again under another key or context",
        members: &[
            Member::optional("CiphertextBlob", &shapes::CIPHERTEXT),
            Member::optional("SourceEncryptionContext", &shapes::CONTEXT),
            Member::optional("SourceKeyId", &shapes::KEY_ID),
            Member::needed("DestinationKeyId", &shapes::KEY_ID),
            Member::optional("DestinationEncryptionContext", &shapes::CONTEXT),
            Member::optional("SourceEncryptionAlgorithm", &shapes::ENCRYPTION_ALGORITHM),
            Member::optional("DestinationEncryptionAlgorithm", &shapes::ENCRYPTION_ALGORITHM),
            GRANT_TOKENS,
            DRY_RUN,
            Member::optional("DryRunModifiers", &shapes::DRY_RUN_MODIFIERS),
        ],
        run: re_encrypt,
    },
];

/// An encryption context as a request holds it.
pub(super) type Pairs = BTreeMap<String, String>;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EncryptRequest {
    plaintext: Blob,
    #[serde(default)]
    encryption_context: Option<Pairs>,
}

fn encrypt(call: &Call<'_>) -> Result<Value, Fault> {
    let asked: EncryptRequest = call.read()?;
    let context = context(asked.encryption_context);
    let blob = call.keystore.encrypt(&call.key()?, asked.plaintext.bytes(), &context)?;
    Ok(json!({
        "CiphertextBlob": wire::base64(blob.as_bytes()),
        "KeyId": call.arn(blob.key_id()),
        "EncryptionAlgorithm": EncryptionAlgorithm::SymmetricDefault,
    }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DecryptRequest {
    ciphertext_blob: Option<Blob>,
    encryption_context: Option<Pairs>,
    key_id: Option<String>,
}

fn decrypt(call: &Call<'_>) -> Result<Value, Fault> {
    let asked: DecryptRequest = call.read()?;
    let key = asked.key_id.map(|key| call.region.key_ref(&key)).transpose()?;
    let blob = ciphertext(asked.ciphertext_blob)?;
    let opened = call.keystore.decrypt(&blob, &context(asked.encryption_context), key.as_ref())?;
    Ok(json!({
        "KeyId": call.arn(opened.key),
        "Plaintext": wire::base64(opened.plaintext.expose()),
        "EncryptionAlgorithm": EncryptionAlgorithm::SymmetricDefault,
        "KeyMaterialId": wire::material_id(opened.material),
    }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ReEncryptRequest {
    ciphertext_blob: Option<Blob>,
    source_encryption_context: Option<Pairs>,
    source_key_id: Option<String>,
    destination_key_id: String,
    destination_encryption_context: Option<Pairs>,
}

fn re_encrypt(call: &Call<'_>) -> Result<Value, Fault> {
    let asked: ReEncryptRequest = call.read()?;
    let _source = asked.source_key_id.map(|key| call.region.key_ref(&key)).transpose()?;
    let source = ciphertext(asked.ciphertext_blob)?;
    let made = call.keystore.re_encrypt(
        &source,
        &context(asked.source_encryption_context),
        &call.region.key_ref(&asked.destination_key_id)?,
        &context(asked.destination_encryption_context),
    )?;
    Ok(json!({
        "CiphertextBlob": wire::base64(made.as_bytes()),
        "SourceKeyId": call.arn(source.key_id()),
        "KeyId": call.arn(made.key_id()),
        "SourceEncryptionAlgorithm": EncryptionAlgorithm::SymmetricDefault,
        "DestinationEncryptionAlgorithm": EncryptionAlgorithm::SymmetricDefault,
        "SourceKeyMaterialId": wire::material_id(source.material_id()),
        "DestinationKeyMaterialId": wire::material_id(made.material_id()),
    }))
}

/// The encryption context of a request.
pub(super) fn context(pairs: Option<Pairs>) -> EncryptionContext {
    pairs.into_iter().flatten().collect()
}

fn ciphertext(blob: Option<Blob>) -> Result<CiphertextBlob, Fault> {
    let blob = blob.ok_or_else(|| Fault::validation("CiphertextBlob is required"))?;
    Ok(CiphertextBlob::parse(blob.bytes())?)
}

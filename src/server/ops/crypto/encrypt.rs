//! Encrypt, Decrypt, ReEncrypt.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::id::MaterialId;
use crate::keystore::{
    EncryptionAlgorithm, EncryptionContext, ReEncryptDestination, ReEncryptSource,
};
use crate::server::ops::keys::known;
use crate::server::ops::{
    CONTEXT, Call, DRY_RUN, Fault, GRANT_TOKENS, KEY_ID, Member, Operation, RECIPIENT, shapes, wire,
};
use wire::Blob;

pub(in crate::server::ops) const OPERATIONS: &[Operation] = &[
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
pub(in crate::server::ops) type Pairs = BTreeMap<String, String>;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EncryptRequest {
    plaintext: Blob,
    encryption_context: Option<Pairs>,
    encryption_algorithm: Option<String>,
}

fn encrypt(call: &Call<'_>) -> Result<Value, Fault> {
    let asked: EncryptRequest = call.read()?;
    let algorithm = algorithm(asked.encryption_algorithm)?;
    let context = context(asked.encryption_context);
    let plaintext = asked.plaintext.bytes();
    let made = call.keystore.encrypt_with(&call.key()?, algorithm, plaintext, &context)?;
    Ok(json!({
        "CiphertextBlob": wire::base64(&made.ciphertext),
        "KeyId": call.arn(made.key),
        "EncryptionAlgorithm": algorithm,
    }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DecryptRequest {
    ciphertext_blob: Option<Blob>,
    encryption_context: Option<Pairs>,
    key_id: Option<String>,
    encryption_algorithm: Option<String>,
    #[serde(default)]
    dry_run_modifiers: Vec<String>,
}

fn decrypt(call: &Call<'_>) -> Result<Value, Fault> {
    let asked: DecryptRequest = call.read()?;
    let algorithm = algorithm(asked.encryption_algorithm)?;
    let context = context(asked.encryption_context);
    let key = asked.key_id.map(|key| call.region.key_ref(&key)).transpose()?;
    if ignores_ciphertext(call, &asked.dry_run_modifiers)? {
        let key = key.ok_or_else(|| missing("keyId"))?;
        call.keystore.try_decrypt(&key, algorithm, &context)?;
        return Ok(Value::Null);
    }
    let ciphertext = asked.ciphertext_blob.ok_or_else(|| missing("ciphertextBlob"))?;
    let opened =
        call.keystore.decrypt_with(key.as_ref(), algorithm, ciphertext.bytes(), &context)?;
    Ok(json!({
        "KeyId": call.arn(opened.key),
        "Plaintext": wire::base64(opened.plaintext.expose()),
        "EncryptionAlgorithm": algorithm,
        "KeyMaterialId": material(algorithm, opened.material),
    }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ReEncryptRequest {
    ciphertext_blob: Option<Blob>,
    source_encryption_context: Option<Pairs>,
    source_key_id: Option<String>,
    source_encryption_algorithm: Option<String>,
    destination_key_id: String,
    destination_encryption_context: Option<Pairs>,
    destination_encryption_algorithm: Option<String>,
    #[serde(default)]
    dry_run_modifiers: Vec<String>,
}

fn re_encrypt(call: &Call<'_>) -> Result<Value, Fault> {
    let asked: ReEncryptRequest = call.read()?;
    let source_key = asked.source_key_id.map(|key| call.region.key_ref(&key)).transpose()?;
    if ignores_ciphertext(call, &asked.dry_run_modifiers)? {
        let source = ReEncryptDestination {
            key: &source_key.ok_or_else(|| missing("sourceKeyId"))?,
            algorithm: algorithm(asked.source_encryption_algorithm)?,
            context: &context(asked.source_encryption_context),
        };
        let destination = ReEncryptDestination {
            key: &call.region.key_ref(&asked.destination_key_id)?,
            algorithm: algorithm(asked.destination_encryption_algorithm)?,
            context: &context(asked.destination_encryption_context),
        };
        call.keystore.try_re_encrypt(source, destination)?;
        return Ok(Value::Null);
    }
    let ciphertext = asked.ciphertext_blob.ok_or_else(|| missing("ciphertextBlob"))?;
    let source = ReEncryptSource {
        key: source_key.as_ref(),
        algorithm: algorithm(asked.source_encryption_algorithm)?,
        ciphertext: ciphertext.bytes(),
        context: &context(asked.source_encryption_context),
    };
    let destination = ReEncryptDestination {
        key: &call.region.key_ref(&asked.destination_key_id)?,
        algorithm: algorithm(asked.destination_encryption_algorithm)?,
        context: &context(asked.destination_encryption_context),
    };
    let done = call.keystore.re_encrypt_with(source, destination)?;
    Ok(json!({
        "CiphertextBlob": wire::base64(&done.made.ciphertext),
        "SourceKeyId": call.arn(done.source),
        "KeyId": call.arn(done.made.key),
        "SourceEncryptionAlgorithm": source.algorithm,
        "DestinationEncryptionAlgorithm": destination.algorithm,
        "SourceKeyMaterialId": material(source.algorithm, done.source_material),
        "DestinationKeyMaterialId": material(destination.algorithm, done.made.material),
    }))
}

/// The encryption context of a request.
pub(in crate::server::ops) fn context(pairs: Option<Pairs>) -> EncryptionContext {
    pairs.into_iter().flatten().collect()
}

/// The algorithm of a request; that of symmetric keys if none is named.
fn algorithm(name: Option<String>) -> Result<EncryptionAlgorithm, Fault> {
    let named = known("EncryptionAlgorithm", name)?;
    Ok(named.unwrap_or(EncryptionAlgorithm::SymmetricDefault))
}

/// Only symmetric keys have several materials, so that AWS KMS tells which.
fn material(algorithm: EncryptionAlgorithm, material: MaterialId) -> Option<String> {
    (algorithm == EncryptionAlgorithm::SymmetricDefault).then(|| wire::material_id(material))
}

/// True for a dry run that only asks about the keys.
/// Errors: `ValidationException` if it is no dry run.
fn ignores_ciphertext(call: &Call<'_>, modifiers: &[String]) -> Result<bool, Fault> {
    match (modifiers.is_empty(), call.keystore.caller().dry_run) {
        (true, _) => Ok(false),
        (false, true) => Ok(true),
        (false, false) => Err(Fault::validation("DryRunModifiers is only valid with DryRun.")),
    }
}

fn missing(member: &str) -> Fault {
    let what = "failed to satisfy constraint: Member must not be null";
    Fault::constraints(&[format!("Value null at '{member}' {what}")])
}

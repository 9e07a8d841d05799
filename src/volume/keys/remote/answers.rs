//! What requests to a KMS say, and what its answers mean for a volume.

use base64ct::{Base64, Encoding};
use serde_json::Value;

use crate::crypto::hash::sha256;
use crate::crypto::secret::Secret;
use crate::endpoint::EndpointError;
use crate::endpoint::client::take_secret;
use crate::envelope::{Opaque, Recipient, Wrapped};
use crate::id::{KeyId, MaterialId};
use crate::keystore::{CiphertextBlob, EncryptionContext};
use crate::volume::keys::local;
use crate::volume::model::error::{Result, VolumeError};

pub(super) fn pairs(context: &EncryptionContext) -> Value {
    context.pairs().map(|(name, value)| (name.to_owned(), Value::from(value))).collect()
}

/// The ciphertext that the service once gave.
pub(super) fn ciphertext(wrapped: &Recipient) -> Result<Vec<u8>> {
    Ok(match &wrapped.wrapped {
        Wrapped::Kms(_) => local::blob(wrapped)?.as_bytes().to_vec(),
        Wrapped::Opaque(opaque) => opaque.as_bytes().to_vec(),
    })
}

/// What an answer wraps, in the form in which headers store it.
pub(super) fn recipient(answer: &Value, key: KeyId, material_member: &str) -> Result<Recipient> {
    check_key(answer, key)?;
    let bytes = answer["CiphertextBlob"].as_str().and_then(|text| Base64::decode_vec(text).ok());
    let bytes = bytes.ok_or_else(|| strange("the answer has no CiphertextBlob"))?;
    let ours = CiphertextBlob::parse(&bytes).ok().filter(|blob| blob.key_id() == key);
    if let Some(Ok(recipient)) = ours.map(|blob| local::recipient(&blob)) {
        return Ok(recipient);
    }
    let wrapped = Wrapped::Opaque(Opaque::new(bytes)?);
    Ok(Recipient { key, material: material(&answer[material_member]), wrapped })
}

/// The 16 bytes that stand for a material's name: its own ones if it is a keystore of ours, which
/// writes them before 32 zeros; else a part of the name's hash; zeros if the service tells none.
pub(super) fn material(name: &Value) -> MaterialId {
    let Some(name) = name.as_str() else { return MaterialId::from_bytes([0; 16]) };
    let own = name.split_at_checked(32).filter(|(_, rest)| *rest == "0".repeat(32));
    if let Some(Ok(id)) = own.map(|(digits, _)| digits.parse()) {
        return id;
    }
    let [id @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = sha256(&[name.as_bytes()]);
    MaterialId::from_bytes(id)
}

/// The service answers for the key that was asked about, or not at all.
pub(super) fn check_key(answer: &Value, key: KeyId) -> Result<()> {
    let arn = answer["KeyId"].as_str().unwrap_or_default();
    let id = arn.rsplit('/').next().unwrap_or_default();
    if id.parse() == Ok(key) { Ok(()) } else { Err(strange("the answer is about another key")) }
}

pub(super) fn plaintext(answer: &mut Value) -> Result<Secret<32>> {
    let bytes = take_secret(answer, "Plaintext").ok_or_else(|| strange("no Plaintext came"))?;
    Secret::from_slice(&bytes).ok_or(VolumeError::Tampered(WRAPPED_KEY))
}

pub(super) fn strange(what: &str) -> VolumeError {
    VolumeError::Kms(what.to_owned())
}

pub(super) fn refused(key: KeyId, error: EndpointError) -> VolumeError {
    match error.aws_name() {
        // Not about the key: it counts as silence.
        _ if error.is_no_answer() => VolumeError::KmsUnreachable(error.to_string()),
        None => VolumeError::KmsUnreachable(error.to_string()),
        Some(
            "NotFoundException"
            | "DisabledException"
            | "KMSInvalidStateException"
            | "KeyUnavailableException",
        ) => VolumeError::KeyUnusable(key),
        Some("InvalidCiphertextException" | "IncorrectKeyException") => {
            VolumeError::Tampered(WRAPPED_KEY)
        }
        Some(
            "AccessDeniedException"
            | "UnrecognizedClientException"
            | "InvalidSignatureException"
            | "ExpiredTokenException",
        ) => VolumeError::KmsDenied(error.to_string()),
        Some(_) => VolumeError::Kms(error.to_string()),
    }
}

const WRAPPED_KEY: &str = "wrapped key";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn material_names_become_16_bytes() {
        let own = format!("{}{}", "0123456789abcdef".repeat(2), "0".repeat(32));
        assert_eq!(material(&own.into()), "0123456789abcdef".repeat(2).parse().unwrap());
        let foreign = material(&"material-1".into());
        assert_eq!(foreign.as_bytes()[..], sha256(&[b"material-1"])[..16]);
        assert!(material(&Value::Null).is_zero());
        assert_ne!(material(&"é".repeat(16).into()), foreign);
    }

    #[test]
    fn an_answer_about_another_key_is_refused() {
        let key = KeyId::from_bytes([7; 16]);
        for name in [key.to_string(), format!("arn:aws:kms:eu-west-1:111122223333:key/{key}")] {
            assert!(check_key(&json!({ "KeyId": name }), key).is_ok(), "{name}");
        }
        for answer in [json!({}), json!({ "KeyId": KeyId::from_bytes([8; 16]).to_string() })] {
            assert!(check_key(&answer, key).is_err(), "{answer}");
        }
    }

    #[test]
    fn only_our_own_form_under_the_same_key_is_taken_apart() {
        let (key, other) = (KeyId::from_bytes([7; 16]), KeyId::from_bytes([8; 16]));
        let answer = |blob: &[u8]| json!({ "KeyId": key.to_string(), "CiphertextBlob": Base64::encode_string(blob) });
        let of = |key| CiphertextBlob::from_parts(key, MaterialId::from_bytes([1; 16]), &[3; 72]);
        let ours = recipient(&answer(of(key).unwrap().as_bytes()), key, "KeyMaterialId").unwrap();
        assert_eq!(ours.wrapped, Wrapped::Kms([3; 72]));
        for blob in [of(other).unwrap().as_bytes(), &[1; 184]] {
            let foreign = recipient(&answer(blob), key, "KeyMaterialId").unwrap();
            assert!(matches!(foreign.wrapped, Wrapped::Opaque(_)));
            assert_eq!(ciphertext(&foreign).unwrap(), blob);
        }
        assert!(recipient(&answer(&[1; 301]), key, "KeyMaterialId").is_err());
        assert!(recipient(&json!({ "KeyId": key.to_string() }), key, "KeyMaterialId").is_err());
    }
}

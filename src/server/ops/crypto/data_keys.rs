//! Data keys.

use serde::Deserialize;
use serde_json::{Value, json};

use super::encrypt::{Pairs, context};
use crate::keystore::{CiphertextBlob, KeySpec};
use crate::server::ops::keys::known;
use crate::server::ops::{
    CONTEXT, Call, DRY_RUN, Fault, GRANT_TOKENS, KEY_ID, Member, Operation, RECIPIENT, shapes, wire,
};

pub(in crate::server::ops) const OPERATIONS: &[Operation] = &[
    Operation {
        name: "GenerateDataKey",
        about: "Make a data key, in the clear and encrypted",
        members: &[KEY_ID, CONTEXT, NUMBER_OF_BYTES, KEY_SPEC, GRANT_TOKENS, RECIPIENT, DRY_RUN],
        run: generate_data_key,
    },
    Operation {
        name: "GenerateDataKeyWithoutPlaintext",
        about: "Make a data key, only encrypted",
        members: &[KEY_ID, CONTEXT, KEY_SPEC, NUMBER_OF_BYTES, GRANT_TOKENS, DRY_RUN],
        run: generate_data_key_without_plaintext,
    },
    Operation {
        name: "GenerateDataKeyPair",
        about: "Make a key pair, its private half in the clear and encrypted",
        members: &[CONTEXT, KEY_ID, KEY_PAIR_SPEC, GRANT_TOKENS, RECIPIENT, DRY_RUN],
        run: generate_data_key_pair,
    },
    Operation {
        name: "GenerateDataKeyPairWithoutPlaintext",
        about: "Make a key pair, its private half only encrypted",
        members: &[CONTEXT, KEY_ID, KEY_PAIR_SPEC, GRANT_TOKENS, DRY_RUN],
        run: generate_data_key_pair_without_plaintext,
    },
];

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DataKeyRequest {
    encryption_context: Option<Pairs>,
    number_of_bytes: Option<usize>,
    key_spec: Option<String>,
}

impl DataKeyRequest {
    /// The length of the key that is asked for.
    /// Errors: `ValidationException` unless exactly one member names it.
    fn len(&self) -> Result<usize, Fault> {
        match (self.number_of_bytes, self.key_spec.as_deref()) {
            (Some(len), None) => Ok(len),
            (None, Some("AES_128")) => Ok(16),
            (None, Some(_)) => Ok(32),
            _ => Err(Fault::validation(
                "Please specify either number of bytes or key spec, but not both.",
            )),
        }
    }
}

fn generate_data_key(call: &Call<'_>) -> Result<Value, Fault> {
    let asked: DataKeyRequest = call.read()?;
    let len = asked.len()?;
    let context = context(asked.encryption_context);
    let made = call.keystore.generate_data_key_of(&call.key()?, len, &context)?;
    Ok(json!({
        "CiphertextBlob": wire::base64(made.ciphertext.as_bytes()),
        "Plaintext": wire::base64(made.plaintext.expose()),
        "KeyId": call.arn(made.ciphertext.key_id()),
        "KeyMaterialId": wire::material_id(made.ciphertext.material_id()),
    }))
}

fn generate_data_key_without_plaintext(call: &Call<'_>) -> Result<Value, Fault> {
    let asked: DataKeyRequest = call.read()?;
    let len = asked.len()?;
    let context = context(asked.encryption_context);
    let made = call.keystore.generate_data_key_without_plaintext(&call.key()?, len, &context)?;
    Ok(json!({
        "CiphertextBlob": wire::base64(made.as_bytes()),
        "KeyId": call.arn(made.key_id()),
        "KeyMaterialId": wire::material_id(made.material_id()),
    }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PairRequest {
    encryption_context: Option<Pairs>,
    key_pair_spec: String,
}

impl PairRequest {
    /// Errors: `UnsupportedOperationException` for kinds that only AWS has.
    fn spec(&self) -> Result<KeySpec, Fault> {
        let spec = known("KeyPairSpec", Some(self.key_pair_spec.clone()))?;
        spec.ok_or_else(Fault::internal)
    }
}

fn generate_data_key_pair(call: &Call<'_>) -> Result<Value, Fault> {
    let asked: PairRequest = call.read()?;
    let spec = asked.spec()?;
    let context = context(asked.encryption_context);
    let made = call.keystore.generate_data_key_pair(&call.key()?, spec, &context)?;
    let mut answer = pair(call, spec, &made.private_ciphertext, &made.public);
    answer["PrivateKeyPlaintext"] = wire::base64(made.private.expose()).into();
    Ok(answer)
}

fn generate_data_key_pair_without_plaintext(call: &Call<'_>) -> Result<Value, Fault> {
    let asked: PairRequest = call.read()?;
    let spec = asked.spec()?;
    let context = context(asked.encryption_context);
    let key = call.key()?;
    let (private, public) =
        call.keystore.generate_data_key_pair_without_plaintext(&key, spec, &context)?;
    Ok(pair(call, spec, &private, &public))
}

fn pair(call: &Call<'_>, spec: KeySpec, private: &CiphertextBlob, public: &[u8]) -> Value {
    json!({
        "PrivateKeyCiphertextBlob": wire::base64(private.as_bytes()),
        "PublicKey": wire::base64(public),
        "KeyId": call.arn(private.key_id()),
        "KeyPairSpec": spec,
        "KeyMaterialId": wire::material_id(private.material_id()),
    })
}

const KEY_PAIR_SPEC: Member = Member::needed("KeyPairSpec", &shapes::KEY_PAIR_SPEC);
const NUMBER_OF_BYTES: Member = Member::optional("NumberOfBytes", &shapes::NUMBER_OF_BYTES);
const KEY_SPEC: Member = Member::optional("KeySpec", &shapes::DATA_KEY_SPEC);

//! Signatures, public keys and shared secrets of asymmetric keys.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::keystore::{MessageType, SigningAlgorithm};
use crate::server::ops::keys::{algorithms, known};
use crate::server::ops::{
    Call, DRY_RUN, Fault, GRANT_TOKENS, KEY_ID, Member, Operation, RECIPIENT, shapes, wire,
};
use wire::Blob;

pub(in crate::server::ops) const OPERATIONS: &[Operation] = &[
    Operation {
        name: "Sign",
        about: "Sign a message or its digest",
        members: &[KEY_ID, MESSAGE, MESSAGE_TYPE, GRANT_TOKENS, ALGORITHM, DRY_RUN],
        run: sign,
    },
    Operation {
        name: "Verify",
        about: "Verify a signature",
        members: &[
            KEY_ID,
            MESSAGE,
            MESSAGE_TYPE,
            Member::needed("Signature", &shapes::CIPHERTEXT),
            ALGORITHM,
            GRANT_TOKENS,
            DRY_RUN,
        ],
        run: verify,
    },
    Operation {
        name: "GetPublicKey",
        about: "Show the public half of a key",
        members: &[KEY_ID, GRANT_TOKENS],
        run: public_key,
    },
    Operation {
        name: "DeriveSharedSecret",
        about: "Agree on a secret with the owner of another key (ECDH)",
        members: &[
            KEY_ID,
            Member::needed("KeyAgreementAlgorithm", &shapes::KEY_AGREEMENT_ALGORITHM),
            Member::needed("PublicKey", &shapes::PUBLIC_KEY),
            GRANT_TOKENS,
            DRY_RUN,
            RECIPIENT,
        ],
        run: derive_shared_secret,
    },
];

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SignRequest {
    message: Blob,
    message_type: Option<String>,
    signing_algorithm: String,
    signature: Option<Blob>,
}

impl SignRequest {
    /// The algorithm, and what the message is.
    fn terms(&self) -> Result<(SigningAlgorithm, MessageType), Fault> {
        let algorithm = known("SigningAlgorithm", Some(self.signing_algorithm.clone()))?;
        let form = known("MessageType", self.message_type.clone())?.unwrap_or(MessageType::Raw);
        Ok((algorithm.ok_or_else(Fault::internal)?, form))
    }
}

fn sign(call: &Call<'_>) -> Result<Value, Fault> {
    let asked: SignRequest = call.read()?;
    let (algorithm, form) = asked.terms()?;
    let made = call.keystore.sign(&call.key()?, algorithm, form, asked.message.bytes())?;
    Ok(json!({
        "KeyId": call.arn(made.key),
        "Signature": wire::base64(&made.signature),
        "SigningAlgorithm": algorithm,
    }))
}

fn verify(call: &Call<'_>) -> Result<Value, Fault> {
    let asked: SignRequest = call.read()?;
    let (algorithm, form) = asked.terms()?;
    let signature = asked.signature.as_ref().map_or(&[][..], Blob::bytes);
    let message = asked.message.bytes();
    let key = call.keystore.verify_signature(&call.key()?, algorithm, form, message, signature)?;
    Ok(json!({
        "KeyId": call.arn(key),
        "SignatureValid": true,
        "SigningAlgorithm": algorithm,
    }))
}

fn public_key(call: &Call<'_>) -> Result<Value, Fault> {
    let found = call.keystore.get_public_key(&call.key()?)?;
    let (spec, usage) = (found.key.key_spec, found.key.key_usage);
    let (member, algorithms) = algorithms(spec, usage);
    let mut answer = json!({
        "KeyId": call.arn(found.key.key_id),
        "PublicKey": wire::base64(&found.der),
        "CustomerMasterKeySpec": spec,
        "KeySpec": spec,
        "KeyUsage": usage,
    });
    answer[member] = algorithms;
    Ok(answer)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SecretRequest {
    public_key: Blob,
    key_agreement_algorithm: String,
}

fn derive_shared_secret(call: &Call<'_>) -> Result<Value, Fault> {
    let asked: SecretRequest = call.read()?;
    let made = call.keystore.derive_shared_secret(&call.key()?, asked.public_key.bytes())?;
    Ok(json!({
        "KeyId": call.arn(made.key.key_id),
        "SharedSecret": wire::base64(made.secret.expose()),
        "KeyAgreementAlgorithm": asked.key_agreement_algorithm,
        "KeyOrigin": made.key.origin,
    }))
}

const MESSAGE: Member = Member::needed("Message", &shapes::PLAINTEXT);
const MESSAGE_TYPE: Member = Member::optional("MessageType", &shapes::MESSAGE_TYPE);
const ALGORITHM: Member = Member::needed("SigningAlgorithm", &shapes::SIGNING_ALGORITHM);

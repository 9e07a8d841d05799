//! Codes that authenticate messages, and random bytes.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::keystore::MacAlgorithm;
use crate::server::ops::{
    Call, DRY_RUN, Fault, GRANT_TOKENS, KEY_ID, Member, Operation, RECIPIENT, shapes, wire,
};
use wire::Blob;

pub(in crate::server::ops) const OPERATIONS: &[Operation] = &[
    Operation {
        name: "GenerateMac",
        about: "Make a code that authenticates a message (HMAC)",
        members: &[MESSAGE, KEY_ID, ALGORITHM, GRANT_TOKENS, DRY_RUN],
        run: generate_mac,
    },
    Operation {
        name: "VerifyMac",
        about: "Verify such a code",
        members: &[
            MESSAGE,
            KEY_ID,
            ALGORITHM,
            Member::needed("Mac", &shapes::CIPHERTEXT),
            GRANT_TOKENS,
            DRY_RUN,
        ],
        run: verify_mac,
    },
    Operation {
        name: "GenerateRandom",
        about: "Make random bytes",
        members: &[
            Member::optional("NumberOfBytes", &shapes::NUMBER_OF_BYTES),
            Member::optional("CustomKeyStoreId", &shapes::KEY_STORE_ID),
            RECIPIENT,
        ],
        run: generate_random,
    },
];

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct MacRequest {
    message: Blob,
    mac_algorithm: MacAlgorithm,
    mac: Option<Blob>,
}

fn generate_mac(call: &Call<'_>) -> Result<Value, Fault> {
    let asked: MacRequest = call.read()?;
    let algorithm = asked.mac_algorithm;
    let made = call.keystore.generate_mac(&call.key()?, algorithm, asked.message.bytes())?;
    Ok(json!({
        "Mac": wire::base64(&made.mac),
        "MacAlgorithm": algorithm,
        "KeyId": call.arn(made.key),
    }))
}

fn verify_mac(call: &Call<'_>) -> Result<Value, Fault> {
    let asked: MacRequest = call.read()?;
    let (algorithm, mac) = (asked.mac_algorithm, asked.mac.as_ref().map_or(&[][..], Blob::bytes));
    let key = call.keystore.verify_mac(&call.key()?, algorithm, asked.message.bytes(), mac)?;
    Ok(json!({ "KeyId": call.arn(key), "MacValid": true, "MacAlgorithm": algorithm }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RandomRequest {
    number_of_bytes: Option<usize>,
    custom_key_store_id: Option<String>,
}

fn generate_random(call: &Call<'_>) -> Result<Value, Fault> {
    let asked: RandomRequest = call.read()?;
    if asked.custom_key_store_id.is_some() {
        return Err(Fault::unsupported("Random bytes do not come from custom key stores."));
    }
    let len =
        asked.number_of_bytes.ok_or_else(|| Fault::validation("NumberOfBytes is required."))?;
    let made = call.keystore.generate_random(len)?;
    Ok(json!({ "Plaintext": wire::base64(made.expose()) }))
}

const MESSAGE: Member = Member::needed("Message", &shapes::PLAINTEXT);
const ALGORITHM: Member = Member::needed("MacAlgorithm", &shapes::MAC_ALGORITHM);

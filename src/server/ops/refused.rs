//! Operations that AWS KMS has and this keystore has not: their requests are checked, then refused.

use super::{Call, DRY_RUN, Fault, GRANT_TOKENS, KEY_ID, Member, Operation, shapes};
use serde_json::Value;

pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        name: "Encapsulate",
        about: "Not supported: ML-KEM",
        members: &[KEY_ID, ALGORITHM, GRANT_TOKENS, DRY_RUN],
        run: refuse,
    },
    Operation {
        name: "Decapsulate",
        about: "Not supported: ML-KEM",
        members: &[
            KEY_ID,
            Member::needed("SharedSecretCiphertextBlob", &shapes::CIPHERTEXT),
            ALGORITHM,
            GRANT_TOKENS,
            DRY_RUN,
        ],
        run: refuse,
    },
];

fn refuse(_: &Call<'_>) -> Result<Value, Fault> {
    Err(Fault::unsupported("ML-KEM keys are not supported."))
}

const ALGORITHM: Member =
    Member::needed("EncapsulationAlgorithm", &shapes::ENCAPSULATION_ALGORITHM);

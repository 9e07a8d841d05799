//! CreateKey, DescribeKey, ListKeys, states, descriptions, deletion.

use serde::Deserialize;
use serde_json::{Value, json};

use super::policies::lockout;
use super::tags::{Tag, tag_map};
use super::{
    Call, Fault, GRANT_TOKENS, KEY_ID, LIMIT, MARKER, Member, Operation, Region, Shape, shapes,
    wire,
};
use crate::keystore::{ACCOUNT, CreateKey, KeyMetadata, KeySpec, KeyUsage, Origin};

pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        name: "CreateKey",
        about: "Make a key",
        members: &[
            Member::optional("Policy", &shapes::POLICY),
            Member::optional("Description", &shapes::DESCRIPTION),
            Member::optional("KeyUsage", &KEY_USAGE),
            Member::optional("CustomerMasterKeySpec", &KEY_SPEC),
            Member::optional("KeySpec", &KEY_SPEC),
            Member::optional("Origin", &ORIGIN),
            Member::optional("CustomKeyStoreId", &shapes::KEY_STORE_ID),
            Member::optional("BypassPolicyLockoutSafetyCheck", &shapes::FLAG),
            Member::optional("Tags", &shapes::TAGS),
            Member::optional("MultiRegion", &shapes::FLAG),
            Member::optional("XksKeyId", &shapes::XKS_KEY_ID),
        ],
        run: create_key,
    },
    Operation {
        name: "DescribeKey",
        about: "Show everything about a key but its material",
        members: &[KEY_ID, GRANT_TOKENS],
        run: describe_key,
    },
    Operation {
        name: "ListKeys",
        about: "List all keys",
        members: &[LIMIT, MARKER, Member::optional("ResourceOwners", &RESOURCE_OWNERS)],
        run: list_keys,
    },
    Operation {
        name: "UpdateKeyDescription",
        about: "Replace a key's description",
        members: &[KEY_ID, Member::needed("Description", &shapes::DESCRIPTION)],
        run: update_key_description,
    },
    Operation {
        name: "EnableKey",
        about: "Let a disabled key be used again",
        members: &[KEY_ID],
        run: enable_key,
    },
    Operation {
        name: "DisableKey",
        about: "Forbid every use of a key",
        members: &[KEY_ID],
        run: disable_key,
    },
    Operation {
        name: "ScheduleKeyDeletion",
        about: "Destroy a key after 7 to 30 days",
        members: &[KEY_ID, Member::optional("PendingWindowInDays", &WINDOW)],
        run: schedule_key_deletion,
    },
    Operation {
        name: "CancelKeyDeletion",
        about: "Take back a scheduled deletion",
        members: &[KEY_ID],
        run: cancel_key_deletion,
    },
    Operation {
        name: "GetKeyLastUsage",
        about: "Show when a key was last used, and for what",
        members: &[KEY_ID],
        run: key_last_usage,
    },
];

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CreateKeyRequest {
    description: Option<String>,
    key_usage: Option<String>,
    key_spec: Option<String>,
    customer_master_key_spec: Option<String>,
    origin: Option<String>,
    #[serde(default)]
    tags: Vec<Tag>,
    xks_key_id: Option<String>,
    custom_key_store_id: Option<String>,
    #[serde(default)]
    multi_region: bool,
    policy: Option<String>,
    #[serde(default)]
    bypass_policy_lockout_safety_check: bool,
}

fn create_key(call: &Call<'_>) -> Result<Value, Fault> {
    let asked: CreateKeyRequest = call.read()?;
    if asked.xks_key_id.is_some() {
        return Err(Fault::unsupported("External key stores are not supported."));
    }
    let spec = match (asked.key_spec, asked.customer_master_key_spec) {
        (Some(_), Some(_)) => {
            return Err(Fault::validation(
                "You cannot specify KeySpec and CustomerMasterKeySpec in the same request. \
                 CustomerMasterKeySpec is deprecated.",
            ));
        }
        (spec, old) => spec.or(old),
    };
    let request = CreateKey {
        spec: known::<KeySpec>("KeySpec", spec)?,
        usage: known::<KeyUsage>("KeyUsage", asked.key_usage)?,
        origin: known::<Origin>("Origin", asked.origin)?,
        description: asked.description.unwrap_or_default(),
        tags: tag_map(asked.tags)?,
        key_store: asked.custom_key_store_id.map(|id| id.parse()).transpose()?,
        multi_region: asked.multi_region,
        policy: asked.policy.map(|policy| call.region.inward(&policy)),
        lockout: lockout(asked.bypass_policy_lockout_safety_check),
    };
    let made = call.keystore.create_key(request, call.now)?;
    Ok(json!({ "KeyMetadata": metadata(call, &made)? }))
}

/// A name that AWS KMS knows and this keystore may not.
/// Errors: `UnsupportedOperationException`.
pub(super) fn known<T: std::str::FromStr>(
    member: &str,
    name: Option<String>,
) -> Result<Option<T>, Fault> {
    let parse = |name: String| {
        name.parse().map_err(|_| Fault::unsupported(format!("{member} {name} is not supported.")))
    };
    name.map(parse).transpose()
}

fn describe_key(call: &Call<'_>) -> Result<Value, Fault> {
    let found = call.keystore.describe_key(&call.key()?)?;
    Ok(json!({ "KeyMetadata": metadata(call, &found)? }))
}

fn metadata(call: &Call<'_>, key: &KeyMetadata) -> Result<Value, Fault> {
    metadata_in(call.region, key)
}

/// A key as the `KeyMetadata` of AWS KMS, in a region.
pub(super) fn metadata_in(region: &Region<'_>, key: &KeyMetadata) -> Result<Value, Fault> {
    let mut shown = wire::value(key)?;
    shown["AWSAccountId"] = ACCOUNT.into();
    shown["Arn"] = region.key_arn(key.key_id).into();
    shown["KeyManager"] = "CUSTOMER".into();
    shown["CustomerMasterKeySpec"] = shown["KeySpec"].clone();
    let (member, algorithms) = algorithms(key.key_spec, key.key_usage);
    shown[member] = algorithms;
    shown["CurrentKeyMaterialId"] = match key.key_spec {
        KeySpec::SymmetricDefault => key.current_key_material_id.map(wire::material_id).into(),
        _ => Value::Null,
    };
    Ok(shown)
}

/// What a key of this kind can do in its use, and the member that tells so.
pub(super) fn algorithms(spec: KeySpec, usage: KeyUsage) -> (&'static str, Value) {
    match usage {
        KeyUsage::EncryptDecrypt => ("EncryptionAlgorithms", json!(spec.encryption_algorithms())),
        KeyUsage::SignVerify => ("SigningAlgorithms", json!(spec.signing_algorithms())),
        KeyUsage::GenerateVerifyMac => ("MacAlgorithms", json!(spec.mac_algorithms())),
        KeyUsage::KeyAgreement => ("KeyAgreementAlgorithms", json!(["ECDH"])),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListKeysRequest {
    resource_owners: Option<Vec<String>>,
}

fn list_keys(call: &Call<'_>) -> Result<Value, Fault> {
    let owners = call.read::<ListKeysRequest>()?.resource_owners;
    let mut keys = call.keystore.list_keys()?;
    if owners.is_some_and(|owners| !owners.iter().any(|owner| owner == "SELF")) {
        keys.clear();
    }
    let page = call.page(100, keys, |key| key.key_id.to_string())?;
    Ok(page.answer(
        "Keys",
        |key| json!({ "KeyId": key.key_id.to_string(), "KeyArn": call.arn(key.key_id) }),
    ))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DescriptionRequest {
    description: String,
}

fn update_key_description(call: &Call<'_>) -> Result<Value, Fault> {
    let asked: DescriptionRequest = call.read()?;
    call.keystore.update_key_description(&call.key_id()?.into(), &asked.description)?;
    Ok(Value::Null)
}

fn enable_key(call: &Call<'_>) -> Result<Value, Fault> {
    call.keystore.enable_key(&call.key_id()?.into())?;
    Ok(Value::Null)
}

fn disable_key(call: &Call<'_>) -> Result<Value, Fault> {
    call.keystore.disable_key(&call.key_id()?.into())?;
    Ok(Value::Null)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DeletionRequest {
    pending_window_in_days: Option<u16>,
}

fn schedule_key_deletion(call: &Call<'_>) -> Result<Value, Fault> {
    let days = call.read::<DeletionRequest>()?.pending_window_in_days;
    let done = call.keystore.schedule_key_deletion(call.key_id()?, days, call.now)?;
    Ok(json!({
        "KeyId": call.arn(done.key_id),
        "DeletionDate": done.deletion_date,
        "KeyState": done.key_state,
        "PendingWindowInDays": done.pending_window_in_days,
    }))
}

fn cancel_key_deletion(call: &Call<'_>) -> Result<Value, Fault> {
    let key = call.keystore.cancel_key_deletion(&call.key_id()?.into())?;
    Ok(json!({ "KeyId": call.arn(key) }))
}

fn key_last_usage(call: &Call<'_>) -> Result<Value, Fault> {
    wire::value(&call.keystore.get_key_last_usage(call.key_id()?)?)
}

const KEY_USAGE: Shape = Shape::Choice(&[
    "SIGN_VERIFY",
    "ENCRYPT_DECRYPT",
    "GENERATE_VERIFY_MAC",
    "KEY_AGREEMENT",
    "ENCAPSULATE_DECAPSULATE",
]);
const KEY_SPEC: Shape = Shape::Choice(&[
    "RSA_2048",
    "RSA_3072",
    "RSA_4096",
    "ECC_NIST_P256",
    "ECC_NIST_P384",
    "ECC_NIST_P521",
    "ECC_SECG_P256K1",
    "SYMMETRIC_DEFAULT",
    "HMAC_224",
    "HMAC_256",
    "HMAC_384",
    "HMAC_512",
    "SM2",
    "ML_DSA_44",
    "ML_DSA_65",
    "ML_DSA_87",
    "ECC_NIST_EDWARDS25519",
    "ML_KEM_512",
    "ML_KEM_768",
    "ML_KEM_1024",
]);
const ORIGIN: Shape = Shape::Choice(&["AWS_KMS", "EXTERNAL", "AWS_CLOUDHSM", "EXTERNAL_KEY_STORE"]);
const RESOURCE_OWNERS: Shape =
    Shape::List { of: &Shape::Choice(&["SELF", "OTHER_ACCOUNTS_VIA_RAM"]), length: (1, 2) };
const WINDOW: Shape = Shape::Integer { range: (1, 365) };

//! Custom key stores: PKCS#11 tokens in the place of CloudHSM clusters. The cluster's id is the
//! token's label or serial number, the trust anchor the path of the PKCS#11 module.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::{Call, Fault, LIMIT, MARKER, Member, Operation, Shape, shapes, wire};
use crate::keystore::{
    CreateKeyStore, KeyStoreEntry, KeyStoreId, Pin, Source, TokenRef, UpdateKeyStore,
};

pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        name: "CreateCustomKeyStore",
        about: "Keep keys on a PKCS#11 token",
        members: &[
            Member::needed("CustomKeyStoreName", &shapes::KEY_STORE_NAME),
            Member::optional("CloudHsmClusterId", &shapes::TOKEN),
            Member::optional("TrustAnchorCertificate", &shapes::TRUST_ANCHOR),
            Member::optional("KeyStorePassword", &shapes::KEY_STORE_PASSWORD),
            Member::optional("CustomKeyStoreType", &STORE_TYPE),
        ],
        run: create,
    },
    Operation {
        name: "DescribeCustomKeyStores",
        about: "List key stores and their states",
        members: &[
            Member::optional("CustomKeyStoreId", &shapes::KEY_STORE_ID),
            Member::optional("CustomKeyStoreName", &shapes::KEY_STORE_NAME),
            LIMIT,
            MARKER,
        ],
        run: describe,
    },
    Operation {
        name: "ConnectCustomKeyStore",
        about: "Log in to the token of a key store",
        members: &[ID],
        run: connect,
    },
    Operation {
        name: "DisconnectCustomKeyStore",
        about: "Make the keys of a key store unavailable",
        members: &[ID],
        run: disconnect,
    },
    Operation {
        name: "UpdateCustomKeyStore",
        about: "Change the name, the PIN or the token of a key store",
        members: &[
            ID,
            Member::optional("NewCustomKeyStoreName", &shapes::KEY_STORE_NAME),
            Member::optional("KeyStorePassword", &shapes::KEY_STORE_PASSWORD),
            Member::optional("CloudHsmClusterId", &shapes::TOKEN),
        ],
        run: update,
    },
    Operation {
        name: "DeleteCustomKeyStore",
        about: "Remove a key store without keys; the token stays as it is",
        members: &[ID],
        run: delete,
    },
];

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CreateRequest<'a> {
    custom_key_store_name: String,
    cloud_hsm_cluster_id: Option<String>,
    trust_anchor_certificate: Option<PathBuf>,
    key_store_password: Option<&'a str>,
    custom_key_store_type: Option<String>,
}

fn create(call: &Call<'_>) -> Result<Value, Fault> {
    let asked: CreateRequest<'_> = call.read()?;
    if asked.custom_key_store_type.as_deref() == Some("EXTERNAL_KEY_STORE") {
        return Err(Fault::unsupported("External key stores are not supported."));
    }
    let missing = |member: &str| Fault::validation(format!("{member} is required."));
    let token = asked.cloud_hsm_cluster_id.ok_or_else(|| missing("CloudHsmClusterId"))?;
    let module = asked.trust_anchor_certificate.ok_or_else(|| missing("TrustAnchorCertificate"))?;
    let pin = asked.key_store_password.ok_or_else(|| missing("KeyStorePassword"))?;
    check_module(call.keystore.caller().source, &module)?;
    let request = CreateKeyStore {
        name: asked.custom_key_store_name,
        token_ref: TokenRef::new(&module, &token),
        pin: secret(pin),
    };
    let id = call.keystore.create_custom_key_store(&request, call.now)?;
    Ok(serde_json::json!({ "CustomKeyStoreId": id.to_string() }))
}

/// A module is code that runs in this process: who comes over a socket may only name what the
/// administrator of the machine has installed.
/// Errors: `IncorrectTrustAnchorException`.
fn check_module(source: Source, module: &Path) -> Result<(), Fault> {
    let real = module.canonicalize();
    let installed = |real: PathBuf| INSTALLED.iter().any(|place| real.starts_with(place));
    if source == Source::Cli || real.is_ok_and(installed) {
        return Ok(());
    }
    let places = INSTALLED.join(", ");
    Err(Fault::new(
        "IncorrectTrustAnchorException",
        format!("the PKCS#11 module must lie below one of {places}; the command line takes any"),
    ))
}

fn secret(pin: &str) -> Pin {
    Pin::new(Zeroizing::new(pin.as_bytes().to_vec()))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NamedRequest {
    custom_key_store_id: Option<String>,
    custom_key_store_name: Option<String>,
}

impl NamedRequest {
    fn id(&self) -> Result<KeyStoreId, Fault> {
        Ok(self.custom_key_store_id.as_deref().unwrap_or("").parse()?)
    }
}

fn describe(call: &Call<'_>) -> Result<Value, Fault> {
    let asked: NamedRequest = call.read()?;
    let id = asked.custom_key_store_id.as_ref().map(|_| asked.id()).transpose()?;
    let name = asked.custom_key_store_name.as_deref();
    if id.is_some() && name.is_some() {
        return Err(Fault::validation("Name a key store by its id or its name, not by both."));
    }
    let found = call.keystore.describe_custom_key_stores(id, name)?;
    let shown: Vec<Value> = found.iter().map(entry).collect::<Result<_, _>>()?;
    let page =
        call.page(100, shown, |entry| entry["CustomKeyStoreId"].as_str().unwrap_or("").to_owned())?;
    Ok(page.answer("CustomKeyStores", |entry| entry))
}

fn entry(store: &KeyStoreEntry) -> Result<Value, Fault> {
    let mut shown = wire::value(store)?;
    shown["CustomKeyStoreType"] = "AWS_CLOUDHSM".into();
    Ok(shown)
}

fn connect(call: &Call<'_>) -> Result<Value, Fault> {
    call.keystore.connect_custom_key_store(call.read::<NamedRequest>()?.id()?)?;
    Ok(empty())
}

fn disconnect(call: &Call<'_>) -> Result<Value, Fault> {
    call.keystore.disconnect_custom_key_store(call.read::<NamedRequest>()?.id()?)?;
    Ok(empty())
}

fn delete(call: &Call<'_>) -> Result<Value, Fault> {
    call.keystore.delete_custom_key_store(call.read::<NamedRequest>()?.id()?)?;
    Ok(empty())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct UpdateRequest<'a> {
    custom_key_store_id: String,
    new_custom_key_store_name: Option<String>,
    key_store_password: Option<&'a str>,
    cloud_hsm_cluster_id: Option<String>,
}

fn update(call: &Call<'_>) -> Result<Value, Fault> {
    let asked: UpdateRequest<'_> = call.read()?;
    let update = UpdateKeyStore {
        name: asked.new_custom_key_store_name,
        pin: asked.key_store_password.map(secret),
        token: asked.cloud_hsm_cluster_id,
    };
    call.keystore.update_custom_key_store(asked.custom_key_store_id.parse()?, &update)?;
    Ok(empty())
}

/// These operations answer an object without members, where others answer nothing.
fn empty() -> Value {
    Value::Object(serde_json::Map::new())
}

const ID: Member = Member::needed("CustomKeyStoreId", &shapes::KEY_STORE_ID);
const STORE_TYPE: Shape = Shape::Choice(&["AWS_CLOUDHSM", "EXTERNAL_KEY_STORE"]);
/// Where distributions and vendors install PKCS#11 modules.
const INSTALLED: &[&str] = &["/usr/lib", "/usr/lib64", "/usr/local/lib", "/opt"];

//! Names of keys.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Call, Fault, LIMIT, MARKER, Member, Operation, shapes};
use crate::keystore::KeyRef;

pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        name: "CreateAlias",
        about: "Give a key a name",
        members: &[ALIAS_NAME, TARGET],
        run: create_alias,
    },
    Operation {
        name: "UpdateAlias",
        about: "Let a name mean another key",
        members: &[ALIAS_NAME, TARGET],
        run: update_alias,
    },
    Operation {
        name: "DeleteAlias",
        about: "Remove a name; the key stays",
        members: &[ALIAS_NAME],
        run: delete_alias,
    },
    Operation {
        name: "ListAliases",
        about: "List the names of all keys, or of one",
        members: &[Member::optional("KeyId", &shapes::KEY_ID), LIMIT, MARKER],
        run: list_aliases,
    },
];

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AliasRequest {
    alias_name: String,
    target_key_id: String,
}

fn create_alias(call: &Call<'_>) -> Result<Value, Fault> {
    let asked: AliasRequest = call.read()?;
    let target = call.region.key_id(&asked.target_key_id)?;
    call.keystore.create_alias(&asked.alias_name.parse()?, target, call.now)?;
    Ok(Value::Null)
}

fn update_alias(call: &Call<'_>) -> Result<Value, Fault> {
    let asked: AliasRequest = call.read()?;
    let target = call.region.key_id(&asked.target_key_id)?;
    call.keystore.update_alias(&asked.alias_name.parse()?, target, call.now)?;
    Ok(Value::Null)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DeleteAliasRequest {
    alias_name: String,
}

fn delete_alias(call: &Call<'_>) -> Result<Value, Fault> {
    let asked: DeleteAliasRequest = call.read()?;
    call.keystore.delete_alias(&asked.alias_name.parse()?)?;
    Ok(Value::Null)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListAliasesRequest {
    key_id: Option<String>,
}

fn list_aliases(call: &Call<'_>) -> Result<Value, Fault> {
    let asked: ListAliasesRequest = call.read()?;
    let key = asked.key_id.map(|key| call.region.key_id(&key).map(KeyRef::Id)).transpose()?;
    let aliases = call.keystore.list_aliases(key.as_ref())?;
    let page = call.page(50, aliases, |alias| alias.alias_name.to_string())?;
    Ok(page.answer("Aliases", |alias| {
        json!({
            "AliasName": alias.alias_name,
            "AliasArn": call.region.outward(&alias.alias_arn),
            "TargetKeyId": alias.target_key_id.to_string(),
            "CreationDate": alias.creation_date,
            "LastUpdatedDate": alias.last_updated_date,
        })
    }))
}

const ALIAS_NAME: Member = Member::needed("AliasName", &shapes::ALIAS_NAME);
const TARGET: Member = Member::needed("TargetKeyId", &shapes::KEY_ID);

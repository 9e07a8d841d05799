//! Tags of keys.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Call, Fault, KEY_ID, LIMIT, MARKER, Member, Operation, shapes};

pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        name: "TagResource",
        about: "Add tags to a key, or change their values",
        members: &[KEY_ID, Member::needed("Tags", &shapes::TAGS)],
        run: tag_resource,
    },
    Operation {
        name: "UntagResource",
        about: "Take tags from a key",
        members: &[KEY_ID, Member::needed("TagKeys", &shapes::TAG_KEYS)],
        run: untag_resource,
    },
    Operation {
        name: "ListResourceTags",
        about: "List the tags of a key",
        members: &[KEY_ID, LIMIT, MARKER],
        run: list_resource_tags,
    },
];

/// One tag of a request.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Tag {
    tag_key: String,
    tag_value: String,
}

/// The tags of a request.
/// Errors: `TagException` for two with one key.
pub(super) fn tag_map(tags: Vec<Tag>) -> Result<BTreeMap<String, String>, Fault> {
    let mut map = BTreeMap::new();
    for tag in tags {
        if map.insert(tag.tag_key, tag.tag_value).is_some() {
            return Err(Fault::new("TagException", "Duplicate tag keys"));
        }
    }
    Ok(map)
}

/// Tags as AWS KMS lists them.
pub(super) fn tag_list(tags: &BTreeMap<String, String>) -> Value {
    tags.iter().map(|(key, value)| json!({ "TagKey": key, "TagValue": value })).collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TagRequest {
    tags: Vec<Tag>,
}

fn tag_resource(call: &Call<'_>) -> Result<Value, Fault> {
    let tags = tag_map(call.read::<TagRequest>()?.tags)?;
    call.keystore.tag_resource(&call.key_id()?.into(), tags)?;
    Ok(Value::Null)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct UntagRequest {
    tag_keys: Vec<String>,
}

fn untag_resource(call: &Call<'_>) -> Result<Value, Fault> {
    let asked: UntagRequest = call.read()?;
    let keys: Vec<&str> = asked.tag_keys.iter().map(String::as_str).collect();
    call.keystore.untag_resource(&call.key_id()?.into(), &keys)?;
    Ok(Value::Null)
}

fn list_resource_tags(call: &Call<'_>) -> Result<Value, Fault> {
    let tags = call.keystore.list_resource_tags(&call.key_id()?.into())?;
    let page = call.page(50, tags.into_iter().collect(), |(key, _)| key.clone())?;
    Ok(page.answer("Tags", |(key, value)| json!({ "TagKey": key, "TagValue": value })))
}

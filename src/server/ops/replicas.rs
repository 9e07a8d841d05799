//! Multi-Region keys: the same key in the keystores of several regions.

use serde::Deserialize;
use serde_json::{Value, json};

use super::keys::metadata_in;
use super::policies::lockout;
use super::tags::{Tag, tag_list, tag_map};
use super::{Call, Fault, KEY_ID, Member, Operation, shapes};
use crate::id::KeyId;
use crate::keystore::{Keystore, ReplicaPolicy, ReplicaProperties};

pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        name: "ReplicateKey",
        about: "Make a replica of a multi-Region key in another region that is served",
        members: &[
            KEY_ID,
            Member::needed("ReplicaRegion", &shapes::REGION),
            Member::optional("Policy", &shapes::POLICY),
            Member::optional("BypassPolicyLockoutSafetyCheck", &shapes::FLAG),
            Member::optional("Description", &shapes::DESCRIPTION),
            Member::optional("Tags", &shapes::TAGS),
        ],
        run: replicate_key,
    },
    Operation {
        name: "UpdatePrimaryRegion",
        about: "Let a replica and its primary key change places",
        members: &[KEY_ID, Member::needed("PrimaryRegion", &shapes::REGION)],
        run: update_primary_region,
    },
];

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ReplicateRequest {
    replica_region: String,
    policy: Option<String>,
    #[serde(default)]
    bypass_policy_lockout_safety_check: bool,
    description: Option<String>,
    #[serde(default)]
    tags: Vec<Tag>,
}

fn replicate_key(call: &Call<'_>) -> Result<Value, Fault> {
    let asked: ReplicateRequest = call.read()?;
    let key = call.key_id()?;
    let region = call.keystores.region(Some(&asked.replica_region))?;
    let destination = other(call, &asked.replica_region)?;
    let properties = ReplicaProperties {
        description: Some(asked.description.unwrap_or_default()),
        tags: Some(tag_map(asked.tags)?),
        policy: match asked.policy {
            Some(policy) => ReplicaPolicy::Own(region.inward(&policy)),
            None => ReplicaPolicy::Default,
        },
        lockout: lockout(asked.bypass_policy_lockout_safety_check),
    };
    let made = call.keystore.replicate_key_into(key, &destination, properties, call.now)?;
    Ok(json!({
        "ReplicaKeyMetadata": metadata_in(&region, &made.metadata)?,
        "ReplicaPolicy": region.outward(&made.policy),
        "ReplicaTags": tag_list(&made.tags),
    }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PrimaryRequest {
    primary_region: String,
}

fn update_primary_region(call: &Call<'_>) -> Result<Value, Fault> {
    let asked: PrimaryRequest = call.read()?;
    let key = call.key_id()?;
    let destination = other(call, &asked.primary_region)?;
    call.keystore.update_primary_region_in(key, &destination)?;
    Ok(Value::Null)
}

/// Gives the replicas of a primary key its new material, where their keystores are served here. A
/// replica that cannot be reached gets it by the next synchronisation.
pub(super) fn sync(call: &Call<'_>, key: KeyId) {
    let owner = call.region.keystore;
    let known = owner.describe_key(&key.into()).ok().and_then(|key| key.multi_region_configuration);
    for replica in known.into_iter().flat_map(|known| known.replica_keys) {
        let Some(destination) = call.keystores.keystore_of(&replica.region) else { continue };
        if let Err(error) = owner.sync_replica_in(key, destination) {
            log::warn!("the replica of {key} in {} has the old material: {error}", replica.region);
        }
    }
}

/// The keystore of another region, acting for the same caller.
/// Errors: `UnsupportedOperationException` for a region that has no keystore of its own.
fn other(call: &Call<'_>, region: &str) -> Result<Keystore, Fault> {
    let keystore = call.keystores.keystore_of(region).ok_or_else(|| {
        Fault::unsupported(format!("The region {region} is not served by a keystore of its own."))
    })?;
    Ok(keystore.acting_for(call.keystore.caller().clone()))
}

//! Rotation of keys, by schedule and on demand.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Call, Fault, KEY_ID, LIMIT, MARKER, Member, Operation, Shape, wire};
use crate::keystore::{MaterialOrigin, MaterialState, Rotation};

pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        name: "EnableKeyRotation",
        about: "Rotate a key by itself every 90 to 2560 days (365 if none is named)",
        members: &[KEY_ID, Member::optional("RotationPeriodInDays", &PERIOD)],
        run: enable_key_rotation,
    },
    Operation {
        name: "DisableKeyRotation",
        about: "Rotate a key only by hand",
        members: &[KEY_ID],
        run: disable_key_rotation,
    },
    Operation {
        name: "GetKeyRotationStatus",
        about: "Show whether and when a key rotates by itself",
        members: &[KEY_ID],
        run: key_rotation_status,
    },
    Operation {
        name: "RotateKeyOnDemand",
        about: "Rotate a key now, at most 25 times",
        members: &[KEY_ID],
        run: rotate_key_on_demand,
    },
    Operation {
        name: "ListKeyRotations",
        about: "List the rotations of a key, or all its material",
        members: &[KEY_ID, Member::optional("IncludeKeyMaterial", &INCLUDE), LIMIT, MARKER],
        run: list_key_rotations,
    },
];

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EnableRequest {
    rotation_period_in_days: Option<u16>,
}

fn enable_key_rotation(call: &Call<'_>) -> Result<Value, Fault> {
    let days = call.read::<EnableRequest>()?.rotation_period_in_days;
    call.keystore.enable_key_rotation(&call.key_id()?.into(), days, call.now)?;
    Ok(Value::Null)
}

fn disable_key_rotation(call: &Call<'_>) -> Result<Value, Fault> {
    call.keystore.disable_key_rotation(&call.key_id()?.into())?;
    Ok(Value::Null)
}

fn key_rotation_status(call: &Call<'_>) -> Result<Value, Fault> {
    let status = call.keystore.get_key_rotation_status(&call.key_id()?.into())?;
    Ok(json!({
        "KeyId": status.key_id.to_string(),
        "KeyRotationEnabled": status.key_rotation_enabled,
        "RotationPeriodInDays": status.rotation_period_in_days,
        "NextRotationDate": status.next_rotation_date,
    }))
}

fn rotate_key_on_demand(call: &Call<'_>) -> Result<Value, Fault> {
    let key = call.key_id()?;
    call.keystore.rotate_key_on_demand(&key.into(), call.now)?;
    super::replicas::sync(call, key);
    Ok(json!({ "KeyId": key.to_string() }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListRequest {
    include_key_material: Option<String>,
}

/// The first material came with no rotation: it is listed only among all material.
fn list_key_rotations(call: &Call<'_>) -> Result<Value, Fault> {
    let include = call.read::<ListRequest>()?.include_key_material;
    let all = include.as_deref() == Some("ALL_KEY_MATERIAL");
    let listed = call.keystore.list_key_rotations(&call.key_id()?.into())?.into_iter();
    let numbered: Vec<(usize, Rotation)> = listed
        .enumerate()
        .filter(|(_, rotation)| all || rotation_type(rotation).is_some())
        .collect();
    let page = call.page(100, numbered, |(number, _)| format!("{number:08}"))?;
    Ok(page.answer("Rotations", |(_, rotation)| {
        json!({
            "KeyId": rotation.key_id.to_string(),
            "KeyMaterialId": wire::material_id(rotation.key_material_id),
            "KeyMaterialState": match rotation.key_material_state {
                MaterialState::Current => "CURRENT",
                MaterialState::NonCurrent => "NON_CURRENT",
                MaterialState::PendingRotation => "PENDING_ROTATION",
            },
            "RotationDate": rotation_type(&rotation).map(|_| rotation.rotation_date),
            "RotationType": rotation_type(&rotation),
            "ImportState": rotation.import_state,
            "KeyMaterialDescription": rotation.key_material_description,
            "ExpirationModel": rotation.expiration_model,
            "ValidTo": rotation.valid_to,
        })
    }))
}

/// Why the material became current; nothing for the first one and for one that waits.
fn rotation_type(rotation: &Rotation) -> Option<&'static str> {
    if rotation.key_material_state == MaterialState::PendingRotation {
        return None;
    }
    match rotation.rotation_type {
        MaterialOrigin::Created => None,
        MaterialOrigin::Automatic => Some("AUTOMATIC"),
        MaterialOrigin::OnDemand => Some("ON_DEMAND"),
    }
}

const PERIOD: Shape = Shape::Integer { range: (90, 2560) };
const INCLUDE: Shape = Shape::Choice(&["ALL_KEY_MATERIAL", "ROTATIONS_ONLY"]);

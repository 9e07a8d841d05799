//! A KMS key: what is stored about it, its states, and what each state permits.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::id::{KeyId, MaterialId};
use crate::keystore::error::KeystoreError;
use crate::keystore::error::replica::ReplicaError;
use crate::keystore::model::id::{KeyArn, text};
use crate::keystore::model::key_store::KeyStoreId;
use crate::keystore::model::spec::{ExpirationModel, KeySpec, KeyUsage, Origin};
use crate::keystore::model::state::KeyState;
use crate::keystore::model::time::UnixTime;
use crate::keystore::policy::DEFAULT;
use crate::keystore::records::regions::{MultiRegionConfiguration, Regions};
use crate::keystore::records::rotation::Schedule;
use crate::keystore::storage::rows::Table;
use crate::keystore::storage::sealed::{self, Reader, Record, Writer};
use crate::keystore::token::Serial;

/// Operations by what a key's state means to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::keystore) enum Operation {
    /// Encrypt, Decrypt, ReEncrypt, GenerateDataKey.
    Crypto,
    /// EnableKey, DisableKey.
    Toggle,
    /// Tags, description, CreateAlias, and the new key of UpdateAlias.
    Metadata,
    /// EnableKeyRotation, DisableKeyRotation, RotateKeyOnDemand.
    Rotation,
    /// ScheduleKeyDeletion.
    ScheduleDeletion,
    /// CancelKeyDeletion.
    CancelDeletion,
    /// PutKeyPolicy, RetireGrant, RevokeGrant: possible in any state.
    Access,
    /// GetParametersForImport, ImportKeyMaterial.
    Import,
    /// DeleteImportedKeyMaterial.
    DeleteImported,
}

/// May `operation` touch a key in this state? Source: AWS KMS, "Key states of AWS KMS keys".
/// Errors: `Disabled`, `InvalidState`, `NotPendingDeletion`, `UnsupportedOperation`.
pub(in crate::keystore) fn permit(
    operation: Operation,
    key: KeyId,
    state: KeyState,
) -> Result<(), KeystoreError> {
    use KeyState::{
        Disabled, Enabled, PendingDeletion, PendingImport, PendingReplicaDeletion, Unavailable,
    };
    let invalid = Err(KeystoreError::InvalidState { key, state });
    match (operation, state) {
        (Operation::CancelDeletion, PendingDeletion | PendingReplicaDeletion) => Ok(()),
        (Operation::CancelDeletion, _) => Err(KeystoreError::NotPendingDeletion(key)),
        (Operation::Access | Operation::DeleteImported, _) | (_, Enabled) => Ok(()),
        (Operation::Crypto | Operation::Rotation, Disabled) => Err(KeystoreError::Disabled(key)),
        (_, Disabled) => Ok(()),
        (_, PendingDeletion | PendingReplicaDeletion) => invalid,
        (Operation::Crypto, PendingImport | Unavailable) => invalid,
        (Operation::Rotation, PendingImport | Unavailable) => {
            Err(KeystoreError::UnsupportedOperation(format!("{} cannot rotate.", KeyArn(key))))
        }
        (Operation::Toggle, PendingImport) => invalid,
        (Operation::Toggle, Unavailable) => Ok(()),
        (
            Operation::Metadata | Operation::ScheduleDeletion | Operation::Import,
            PendingImport | Unavailable,
        ) => Ok(()),
    }
}

/// The stored form of a key: everything about it but its material.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::keystore) struct KeyRecord {
    pub(in crate::keystore) state: KeyState,
    pub(in crate::keystore) usage: KeyUsage,
    pub(in crate::keystore) spec: KeySpec,
    pub(in crate::keystore) origin: Origin,
    pub(in crate::keystore) description: String,
    pub(in crate::keystore) created: UnixTime,
    /// The material in use; zero while there is none yet. Read it by `current_material`.
    #[serde(with = "text")]
    pub(in crate::keystore) current: MaterialId,
    #[serde(default)]
    pub(in crate::keystore) tags: BTreeMap<String, String>,
    #[serde(default)]
    pub(in crate::keystore) deletion: Option<PendingDeletion>,
    #[serde(default)]
    pub(in crate::keystore) rotation: Option<Schedule>,
    #[serde(default)]
    pub(in crate::keystore) on_demand_rotations: usize,
    /// The key store whose token keeps the material; its id there is that of `current`.
    #[serde(default, with = "text::optional", skip_serializing_if = "Option::is_none")]
    pub(in crate::keystore) key_store: Option<KeyStoreId>,
    /// The token that it was made on; `None` of a key of an earlier version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::keystore) made_on: Option<Serial>,
    /// The key policy, as it was given; `None` for the default one.
    #[serde(default)]
    pub(in crate::keystore) policy: Option<String>,
    /// When the first of its imported materials ends, and the key with it.
    #[serde(default)]
    pub(in crate::keystore) valid_to: Option<UnixTime>,
    /// When the first material has to be deleted: the same, or one that waits for a rotation.
    #[serde(default)]
    pub(in crate::keystore) expiry: Option<UnixTime>,
    /// The related keys of a multi-Region key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::keystore) regions: Option<Regions>,
    /// Materials that have made ciphertexts for programs: where those are, nobody here can look up.
    #[serde(default, with = "text::set", skip_serializing_if = "BTreeSet::is_empty")]
    pub(in crate::keystore) programs: BTreeSet<MaterialId>,
    /// Materials that another keystore has as well, or once had: what was done with them there,
    /// nobody here knows. Read it by `is_shared`.
    #[serde(default, with = "text::set", skip_serializing_if = "BTreeSet::is_empty")]
    pub(in crate::keystore) shared: BTreeSet<MaterialId>,
}

/// A waiting period that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::keystore) struct PendingDeletion {
    pub(in crate::keystore) date: UnixTime,
    pub(in crate::keystore) window_days: u16,
}

/// A key as DescribeKey shows it. Serialises with AWS's member names; times are seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct KeyMetadata {
    /// The key.
    #[serde(with = "text")]
    pub key_id: KeyId,
    /// Its ARN.
    #[serde(with = "text")]
    pub arn: KeyArn,
    /// Its state.
    pub key_state: KeyState,
    /// True in the state Enabled.
    pub enabled: bool,
    /// Free text of its owner.
    pub description: String,
    /// When it was created.
    pub creation_date: UnixTime,
    /// When it will be destroyed, in the state PendingDeletion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_date: Option<UnixTime>,
    /// The waiting period that was chosen. Units: days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending_deletion_window_in_days: Option<u16>,
    /// What it may be used for.
    pub key_usage: KeyUsage,
    /// The kind of its material.
    pub key_spec: KeySpec,
    /// Where its material came from.
    pub origin: Origin,
    /// Whether imported material has an end, while it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration_model: Option<ExpirationModel>,
    /// When the first of its imported materials is deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_to: Option<UnixTime>,
    /// The material that new ciphertexts are made with; none before the first import.
    #[serde(serialize_with = "optional_text", skip_serializing_if = "Option::is_none")]
    pub current_key_material_id: Option<MaterialId>,
    /// The key store whose token keeps the material.
    #[serde(with = "text::optional", skip_serializing_if = "Option::is_none")]
    pub custom_key_store_id: Option<KeyStoreId>,
    /// That token, by label or serial number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cloud_hsm_cluster_id: Option<String>,
    /// True for a multi-Region key.
    pub multi_region: bool,
    /// The related keys of a multi-Region key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multi_region_configuration: Option<MultiRegionConfiguration>,
}

impl Record for KeyRecord {
    const TABLE: Table = Table::Key;
}

impl KeyRecord {
    /// Errors: `KeyNotFound`, `Tampered`.
    pub(in crate::keystore) fn find(
        reader: &Reader<'_>,
        key: KeyId,
    ) -> Result<Self, KeystoreError> {
        reader.get(key.as_bytes())?.ok_or(KeystoreError::KeyNotFound(key))
    }

    pub(in crate::keystore) fn save(
        &self,
        writer: &mut Writer<'_>,
        key: KeyId,
    ) -> Result<(), KeystoreError> {
        writer.put(key.as_bytes(), None, self)
    }

    /// Errors: `UnsupportedOperation` for a replica, which gets its material from the primary.
    pub(in crate::keystore) fn must_be_primary(&self, key: KeyId) -> Result<(), KeystoreError> {
        match &self.regions {
            Some(regions) if !regions.is_primary() => {
                Err(ReplicaError::IsReplica { key, primary: regions.primary.region.clone() }.into())
            }
            _ => Ok(()),
        }
    }

    /// True if another keystore has the material as well, or may have had it: that of a multi-Region
    /// key that has, or had, related keys, and all in a keystore that was made from an export.
    pub(in crate::keystore) fn is_shared(&self, material: MaterialId) -> bool {
        self.shared.contains(&material) || self.regions.as_ref().is_some_and(Regions::are_several)
    }

    /// The deletion of a primary key with replicas waits until they are gone; `true` if so.
    pub(in crate::keystore) fn wait_for_replicas(&mut self, days: u16) -> bool {
        let waits = |regions: &Regions| regions.is_primary() && !regions.replicas.is_empty();
        match &mut self.regions {
            Some(regions) if waits(regions) => regions.waiting_days = Some(days),
            _ => return false,
        }
        self.state = KeyState::PendingReplicaDeletion;
        true
    }

    /// The deletion is taken back.
    pub(in crate::keystore) fn stop_waiting_for_replicas(&mut self) {
        if let Some(regions) = &mut self.regions {
            regions.waiting_days = None;
        }
    }

    /// The key policy, as it was given.
    pub(in crate::keystore) fn policy_text(&self) -> &str {
        self.policy.as_deref().unwrap_or(DEFAULT)
    }

    /// Is the key to rotate now? A key that cannot be used waits until it can.
    pub(in crate::keystore) fn rotation_due(&self, now: UnixTime) -> bool {
        let reached = self.rotation.is_some_and(|schedule| schedule.next <= now);
        let is_replica = self.regions.as_ref().is_some_and(|regions| !regions.is_primary());
        self.state == KeyState::Enabled && reached && !is_replica
    }

    pub(in crate::keystore) fn current_material(&self) -> Option<MaterialId> {
        Some(self.current).filter(|current| !current.is_zero())
    }

    /// The state at a moment: imported material ends on time, before it is deleted.
    pub(in crate::keystore) fn state_at(&self, now: UnixTime) -> KeyState {
        match self.state {
            KeyState::Enabled | KeyState::Disabled
                if self.valid_to.is_some_and(|end| end <= now) =>
            {
                KeyState::PendingImport
            }
            state => state,
        }
    }

    fn expiration_model(&self) -> Option<ExpirationModel> {
        let has_material = self.origin == Origin::External && self.state != KeyState::PendingImport;
        has_material.then_some(match self.valid_to {
            Some(_) => ExpirationModel::KeyMaterialExpires,
            None => ExpirationModel::KeyMaterialDoesNotExpire,
        })
    }

    pub(in crate::keystore) fn metadata(&self, key: KeyId) -> KeyMetadata {
        KeyMetadata {
            key_id: key,
            arn: KeyArn(key),
            key_state: self.state,
            enabled: self.state == KeyState::Enabled,
            description: self.description.clone(),
            creation_date: self.created,
            deletion_date: self.deletion.map(|deletion| deletion.date),
            pending_deletion_window_in_days: self.deletion.map(|deletion| deletion.window_days),
            key_usage: self.usage,
            key_spec: self.spec,
            origin: self.origin,
            expiration_model: self.expiration_model(),
            valid_to: self.valid_to,
            current_key_material_id: self.current_material(),
            custom_key_store_id: self.key_store,
            cloud_hsm_cluster_id: None,
            multi_region: self.regions.is_some(),
            multi_region_configuration: self
                .regions
                .as_ref()
                .map(|regions| regions.configuration(key)),
        }
    }
}

/// The key id that a row of `kms_key` has.
pub(in crate::keystore) fn key_id(id: &[u8]) -> Result<KeyId, KeystoreError> {
    let bytes = id.try_into().map_err(|_| sealed::tampered(Table::Key, id))?;
    Ok(KeyId::from_bytes(bytes))
}

/// The refusal of a key because of where its material comes from, in AWS's words.
pub(in crate::keystore) fn wrong_origin(key: KeyId, record: &KeyRecord) -> KeystoreError {
    let (arn, origin) = (KeyArn(key), record.origin);
    KeystoreError::UnsupportedOperation(format!(
        "{arn} origin is {origin} which is not valid for this operation."
    ))
}

fn optional_text<S: serde::Serializer>(
    id: &Option<MaterialId>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match id {
        Some(id) => serializer.collect_str(id),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: KeyId = KeyId::from_bytes([1; 16]);

    /// The whole table: a row per operation, a column per state in the order of the enum.
    #[test]
    fn every_state_permits_what_aws_permits() {
        use Operation::{Crypto, Metadata, Rotation, ScheduleDeletion, Toggle};
        let states = [
            KeyState::Enabled,
            KeyState::Disabled,
            KeyState::PendingDeletion,
            KeyState::PendingImport,
            KeyState::Unavailable,
            KeyState::PendingReplicaDeletion,
        ];
        let (ok, off) = ("ok", "DisabledException");
        let (bad, not) = ("KMSInvalidStateException", "UnsupportedOperationException");
        for (operation, expected) in [
            (Crypto, [ok, off, bad, bad, bad, bad]),
            (Toggle, [ok, ok, bad, bad, ok, bad]),
            (Metadata, [ok, ok, bad, ok, ok, bad]),
            (Rotation, [ok, off, bad, not, not, bad]),
            (ScheduleDeletion, [ok, ok, bad, ok, ok, bad]),
            (Operation::CancelDeletion, [bad, bad, ok, bad, bad, ok]),
            (Operation::Access, [ok, ok, ok, ok, ok, ok]),
            (Operation::Import, [ok, ok, bad, ok, ok, bad]),
            (Operation::DeleteImported, [ok, ok, ok, ok, ok, ok]),
        ] {
            for (state, expected) in states.into_iter().zip(expected) {
                let verdict = permit(operation, KEY, state).map_or_else(|e| e.aws_name(), |()| ok);
                assert_eq!(verdict, expected, "{operation:?} in {state}");
            }
        }
    }

    #[test]
    fn messages_are_those_of_aws() {
        let message = |operation, state| permit(operation, KEY, state).unwrap_err().to_string();
        let arn = KeyArn(KEY);
        assert_eq!(message(Operation::Crypto, KeyState::Disabled), format!("{arn} is disabled."));
        assert_eq!(
            message(Operation::Crypto, KeyState::PendingDeletion),
            format!("{arn} is pending deletion.")
        );
        assert_eq!(
            message(Operation::Crypto, KeyState::PendingImport),
            format!("{arn} is pending import.")
        );
    }
}

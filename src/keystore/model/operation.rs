//! Everything that is written down by a name: operations of the KMS, and those that are ours.

use super::action::Action;

/// An operation that takes no permission of AWS: it is offered by kmsfs alone, or done by the
/// keystore itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::keystore) enum OwnOperation {
    /// Another way to unlock.
    AddSlot,
    /// All vaults are known again, somebody says.
    ConfirmVolumes,
    /// A key that another keystore seals one KMS key for.
    CreateTransferKey,
    /// Grants that have ended are removed.
    DropExpiredGrants,
    /// The keystore is written into a file under a passphrase.
    ExportKeystore,
    /// A volume no longer protects the keys that it used.
    ForgetVolume,
    /// Old records of the audit log are removed.
    PruneAudit,
    /// A way to unlock less.
    RemoveSlot,
    /// Rows are accepted as they are.
    RepairKeystore,
    /// One way to unlock in the place of another.
    ReplaceSlot,
    /// What happens to operations that cannot be written down.
    SetAuditMode,
    /// Are the data keys of a volume wrapped anew after a rotation?
    SetRewrapAfterRotate,
    /// Imported material whose date has come is deleted. By the name that CloudTrail has for it.
    DeleteExpiredKeyMaterial,
    /// A key whose waiting period is over is destroyed. By the name that CloudTrail has for it.
    DeleteKey,
    /// A replica is gone.
    ForgetReplica,
    /// A key rotates by its schedule. By the name that CloudTrail has for it.
    RotateKey,
}

impl OwnOperation {
    /// The name in the audit log.
    pub(in crate::keystore) const fn as_str(self) -> &'static str {
        match self {
            Self::AddSlot => "kmsfs:AddSlot",
            Self::ConfirmVolumes => "kmsfs:ConfirmVolumes",
            Self::CreateTransferKey => "kmsfs:CreateTransferKey",
            Self::DropExpiredGrants => "kmsfs:DropExpiredGrants",
            Self::ExportKeystore => "kmsfs:ExportKeystore",
            Self::ForgetVolume => "kmsfs:ForgetVolume",
            Self::PruneAudit => "kmsfs:PruneAudit",
            Self::RemoveSlot => "kmsfs:RemoveSlot",
            Self::RepairKeystore => "kmsfs:RepairKeystore",
            Self::ReplaceSlot => "kmsfs:ReplaceSlot",
            Self::SetAuditMode => "kmsfs:SetAuditMode",
            Self::SetRewrapAfterRotate => "kmsfs:SetRewrapAfterRotate",
            Self::DeleteExpiredKeyMaterial => "DeleteExpiredKeyMaterial",
            Self::DeleteKey => "DeleteKey",
            Self::ForgetReplica => "ForgetReplica",
            Self::RotateKey => "RotateKey",
        }
    }
}

/// An operation, as the audit log and the counters name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::keystore) enum AuditedOperation {
    /// Of the KMS.
    Kms(Action),
    /// Ours.
    Own(OwnOperation),
}

impl AuditedOperation {
    pub(in crate::keystore) const fn as_str(self) -> &'static str {
        match self {
            Self::Kms(action) => action.as_str(),
            Self::Own(own) => own.as_str(),
        }
    }

    /// True if it leaves the keystore other than it was. Then it is announced to an audit log that is
    /// required, before it is done. All of ours do.
    pub(in crate::keystore) const fn writes(self) -> bool {
        match self {
            Self::Kms(action) => !action.only_reads(),
            Self::Own(_) => true,
        }
    }
}

impl From<Action> for AuditedOperation {
    fn from(action: Action) -> Self {
        Self::Kms(action)
    }
}

impl From<OwnOperation> for AuditedOperation {
    fn from(own: OwnOperation) -> Self {
        Self::Own(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_writes_is_told_by_the_operation_and_not_by_its_name() {
        for (operation, writes) in [
            (Action::Decrypt.into(), false),
            (Action::ListKeys.into(), false),
            // Stores a key, whatever its name says.
            (Action::GetParametersForImport.into(), true),
            (Action::RetireKeyMaterial.into(), true),
            (OwnOperation::CreateTransferKey.into(), true),
            (OwnOperation::RotateKey.into(), true),
        ] {
            let operation: AuditedOperation = operation;
            assert_eq!(operation.writes(), writes, "{}", operation.as_str());
        }
    }
}

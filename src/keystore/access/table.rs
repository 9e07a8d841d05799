//! Which condition keys which operation supplies: the table that decides.
//!
//! A request that does not say what the table lists for its operation is refused, so that a Deny
//! on such a key is never passed by a forgotten argument. `tests/keystore/conditions.rs` walks the
//! table: every key of every operation decides, by Deny and by Allow. Source: Service
//! Authorization Reference, "Actions, resources, and condition keys for AWS Key Management
//! Service"; keys that are not supplied, and why, stand in [`crate::keystore::policy`].

use crate::keystore::model::action::Action;
use crate::keystore::policy::Fact;

/// A condition key of the table. One that ends with a name stands for all names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SuppliedKey {
    /// A key without a name in it.
    Fact(Fact),
    /// `kms:EncryptionContext:<name>`.
    EncryptionContext,
    /// `aws:ResourceTag/<name>`.
    ResourceTag,
    /// `aws:RequestTag/<name>`.
    RequestTag,
}

impl SuppliedKey {
    /// May a request have several values under it?
    pub fn has_many_values(self) -> bool {
        let Self::Fact(fact) = self else { return false };
        matches!(
            fact,
            Fact::EncryptionContextKeys
                | Fact::GrantOperations
                | Fact::ResourceAliases
                | Fact::TagKeys
        )
    }
}

/// What every request says, from its caller. The last two are those of network connections only.
pub(super) const OF_CALLER: &[SuppliedKey] = &[
    SuppliedKey::Fact(Fact::CallerAccount),
    SuppliedKey::Fact(Fact::ViaService),
    SuppliedKey::Fact(Fact::GrantIsForAwsResource),
    SuppliedKey::Fact(Fact::PrincipalArn),
    SuppliedKey::Fact(Fact::PrincipalType),
    SuppliedKey::Fact(Fact::PrincipalAccount),
    SuppliedKey::Fact(Fact::CurrentTime),
    SuppliedKey::Fact(Fact::EpochTime),
    SuppliedKey::Fact(Fact::Username),
    SuppliedKey::Fact(Fact::UserId),
    SuppliedKey::Fact(Fact::Source),
    SuppliedKey::Fact(Fact::SourceIp),
    SuppliedKey::Fact(Fact::SecureTransport),
];

/// What every request about a key says, from the key.
pub(super) const OF_KEY: &[SuppliedKey] = &[
    SuppliedKey::Fact(Fact::KeySpec),
    SuppliedKey::Fact(Fact::KeyUsage),
    SuppliedKey::Fact(Fact::KeyOrigin),
    SuppliedKey::Fact(Fact::MultiRegion),
    SuppliedKey::Fact(Fact::MultiRegionKeyType),
    SuppliedKey::Fact(Fact::ResourceAliases),
    SuppliedKey::ResourceTag,
];

/// What the arguments of an operation say.
pub(super) fn of_request(action: Action) -> &'static [SuppliedKey] {
    use SuppliedKey::{EncryptionContext, Fact as F, RequestTag, ResourceTag};
    match action {
        Action::Encrypt
        | Action::Decrypt
        | Action::GenerateDataKey
        | Action::GenerateDataKeyWithoutPlaintext => CONTEXT,
        Action::GenerateDataKeyPair | Action::GenerateDataKeyPairWithoutPlaintext => &[
            F(Fact::RequestAlias),
            F(Fact::EncryptionAlgorithm),
            F(Fact::EncryptionContextKeys),
            EncryptionContext,
            F(Fact::DataKeyPairSpec),
        ],
        Action::ReEncryptFrom | Action::ReEncryptTo => &[
            F(Fact::RequestAlias),
            F(Fact::EncryptionAlgorithm),
            F(Fact::EncryptionContextKeys),
            EncryptionContext,
            F(Fact::ReEncryptOnSameKey),
        ],
        Action::Sign | Action::Verify => {
            &[F(Fact::RequestAlias), F(Fact::SigningAlgorithm), F(Fact::MessageType)]
        }
        Action::GenerateMac | Action::VerifyMac => &[F(Fact::RequestAlias), F(Fact::MacAlgorithm)],
        Action::DeriveSharedSecret => &[F(Fact::RequestAlias), F(Fact::KeyAgreementAlgorithm)],
        Action::DescribeKey | Action::GetPublicKey => &[F(Fact::RequestAlias)],
        Action::CreateKey => &[
            RequestTag,
            ResourceTag,
            F(Fact::TagKeys),
            F(Fact::BypassPolicyLockoutSafetyCheck),
            F(Fact::KeyOrigin),
            F(Fact::KeySpec),
            F(Fact::KeyUsage),
            F(Fact::MultiRegion),
            F(Fact::MultiRegionKeyType),
        ],
        Action::TagResource => &[RequestTag, F(Fact::TagKeys)],
        Action::UntagResource => &[F(Fact::TagKeys)],
        Action::PutKeyPolicy => &[F(Fact::BypassPolicyLockoutSafetyCheck)],
        Action::CreateGrant => &[
            EncryptionContext,
            F(Fact::EncryptionContextKeys),
            F(Fact::GrantConstraintType),
            F(Fact::GrantOperations),
            F(Fact::GranteePrincipal),
            F(Fact::RetiringPrincipal),
        ],
        Action::RetireGrant => {
            &[EncryptionContext, F(Fact::EncryptionContextKeys), F(Fact::GrantConstraintType)]
        }
        Action::ScheduleKeyDeletion => &[F(Fact::PendingWindowInDays)],
        Action::EnableKeyRotation => &[F(Fact::RotationPeriodInDays)],
        Action::GetParametersForImport => &[F(Fact::WrappingAlgorithm), F(Fact::WrappingKeySpec)],
        Action::ImportKeyMaterial => &[F(Fact::ExpirationModel), F(Fact::ValidTo)],
        Action::ReplicateKey => &[F(Fact::ReplicaRegion)],
        Action::UpdatePrimaryRegion => &[F(Fact::PrimaryRegion)],
        _ => &[],
    }
}

/// What operations with an encryption context say.
const CONTEXT: &[SuppliedKey] = &[
    SuppliedKey::Fact(Fact::RequestAlias),
    SuppliedKey::Fact(Fact::EncryptionAlgorithm),
    SuppliedKey::Fact(Fact::EncryptionContextKeys),
    SuppliedKey::EncryptionContext,
];

/// Everything that a request for this operation says, where it has it.
pub fn supplied_keys(action: Action) -> Vec<SuppliedKey> {
    let of_key = if is_about_a_key(action) { OF_KEY } else { &[] };
    [OF_CALLER, of_key, of_request(action)].concat()
}

/// Does the operation concern a key, whose policy is asked?
pub fn is_about_a_key(action: Action) -> bool {
    !matches!(
        action,
        Action::ConnectCustomKeyStore
            | Action::CreateAccessKey
            | Action::CreateCustomKeyStore
            | Action::CreateKey
            | Action::DeleteAccessKey
            | Action::DeleteCustomKeyStore
            | Action::DeletePrincipalPolicy
            | Action::DescribeCustomKeyStores
            | Action::DisconnectCustomKeyStore
            | Action::GenerateRandom
            | Action::GetPrincipalPolicy
            | Action::ListAccessKeys
            | Action::ListAliases
            | Action::ListKeys
            | Action::ListPrincipals
            | Action::ListRetirableGrants
            | Action::PutPrincipalPolicy
            | Action::UpdateAccessKey
            | Action::UpdateCustomKeyStore
    )
}

//! The operations of the KMS, by the names that AWS gave them.

use std::fmt;

macro_rules! actions {
    ($($name:ident),* $(,)?) => {
        /// An operation, as permissions and the audit log name it. ReEncrypt needs two permissions,
        /// one on either key.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs, reason = "each is the operation of AWS KMS with this name; those of access keys, principals and RetireKeyMaterial are ours")]
        pub enum Action {
            $($name),*
        }

        impl Action {
            /// All of them, in alphabetical order.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The name of the operation.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name)),*
                }
            }

            /// The permission that it takes, as policies write it.
            pub const fn permission(self) -> &'static str {
                match self {
                    $(Self::$name => concat!("kms:", stringify!($name))),*
                }
            }
        }
    };
}

actions! {
    CancelKeyDeletion,
    ConnectCustomKeyStore,
    CreateAccessKey,
    CreateAlias,
    CreateCustomKeyStore,
    CreateGrant,
    CreateKey,
    Decrypt,
    DeleteAccessKey,
    DeleteAlias,
    DeleteCustomKeyStore,
    DeleteImportedKeyMaterial,
    DeletePrincipalPolicy,
    DeriveSharedSecret,
    DescribeCustomKeyStores,
    DescribeKey,
    DisableKey,
    DisableKeyRotation,
    DisconnectCustomKeyStore,
    EnableKey,
    EnableKeyRotation,
    Encrypt,
    GenerateDataKey,
    GenerateDataKeyPair,
    GenerateDataKeyPairWithoutPlaintext,
    GenerateDataKeyWithoutPlaintext,
    GenerateMac,
    GenerateRandom,
    GetKeyLastUsage,
    GetKeyPolicy,
    GetKeyRotationStatus,
    GetParametersForImport,
    GetPrincipalPolicy,
    GetPublicKey,
    ImportKeyMaterial,
    ListAccessKeys,
    ListAliases,
    ListGrants,
    ListKeyPolicies,
    ListKeyRotations,
    ListKeys,
    ListPrincipals,
    ListResourceTags,
    ListRetirableGrants,
    PutKeyPolicy,
    PutPrincipalPolicy,
    ReEncryptFrom,
    ReEncryptTo,
    ReplicateKey,
    RetireGrant,
    RetireKeyMaterial,
    RevokeGrant,
    RotateKeyOnDemand,
    ScheduleKeyDeletion,
    Sign,
    TagResource,
    UntagResource,
    UpdateAccessKey,
    UpdateAlias,
    UpdateCustomKeyStore,
    UpdateKeyDescription,
    UpdatePrimaryRegion,
    Verify,
    VerifyMac,
}

impl Action {
    /// True if the operation leaves the keystore as it was. (GetParametersForImport stores a key.)
    pub const fn only_reads(self) -> bool {
        matches!(
            self,
            Self::Decrypt
                | Self::DeriveSharedSecret
                | Self::DescribeCustomKeyStores
                | Self::DescribeKey
                | Self::Encrypt
                | Self::GenerateDataKey
                | Self::GenerateDataKeyPair
                | Self::GenerateDataKeyPairWithoutPlaintext
                | Self::GenerateDataKeyWithoutPlaintext
                | Self::GenerateMac
                | Self::GenerateRandom
                | Self::GetKeyLastUsage
                | Self::GetKeyPolicy
                | Self::GetKeyRotationStatus
                | Self::GetPrincipalPolicy
                | Self::GetPublicKey
                | Self::ListAccessKeys
                | Self::ListAliases
                | Self::ListGrants
                | Self::ListKeyPolicies
                | Self::ListKeyRotations
                | Self::ListKeys
                | Self::ListPrincipals
                | Self::ListResourceTags
                | Self::ListRetirableGrants
                | Self::ReEncryptFrom
                | Self::ReEncryptTo
                | Self::Sign
                | Self::Verify
                | Self::VerifyMac
        )
    }

    /// The operation with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|action| action.as_str() == name)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_permissions_go_together_and_are_sorted() {
        assert_eq!(Action::named("Decrypt"), Some(Action::Decrypt));
        assert_eq!(Action::ReEncryptFrom.permission(), "kms:ReEncryptFrom");
        assert!(Action::ALL.windows(2).all(|pair| pair[0].as_str() < pair[1].as_str()));
    }
}

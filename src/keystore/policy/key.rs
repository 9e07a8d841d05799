//! The condition keys that a policy may ask about.

use std::fmt;
use std::str::FromStr;

/// A condition key. Names are not case-sensitive, as in AWS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConditionKey {
    /// One of [`Fact`].
    Fact(Fact),
    /// `kms:EncryptionContext:<name>`: the value of one pair.
    EncryptionContext(String),
    /// `aws:ResourceTag/<name>`: a tag of the key.
    ResourceTag(String),
    /// `aws:RequestTag/<name>`: a tag that the request brings.
    RequestTag(String),
}

macro_rules! facts {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A condition key without a name in it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Fact {
            $($(#[$doc])* $name,)*
        }

        impl Fact {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The name that policies use.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

facts! {
    /// The service on whose way the request comes: `kmsfs` for a mount.
    ViaService = "kms:ViaService",
    /// The account of the caller.
    CallerAccount = "kms:CallerAccount",
    /// The names of the pairs of the encryption context.
    EncryptionContextKeys = "kms:EncryptionContextKeys",
    /// The key's spec.
    KeySpec = "kms:KeySpec",
    /// The key's usage.
    KeyUsage = "kms:KeyUsage",
    /// Where the key's material came from.
    KeyOrigin = "kms:KeyOrigin",
    /// Whether it is a multi-Region key.
    MultiRegion = "kms:MultiRegion",
    /// PRIMARY or REPLICA, of a multi-Region key.
    MultiRegionKeyType = "kms:MultiRegionKeyType",
    /// The alias that the request named the key by.
    RequestAlias = "kms:RequestAlias",
    /// The aliases of the key.
    ResourceAliases = "kms:ResourceAliases",
    /// The operations of the grant that is made.
    GrantOperations = "kms:GrantOperations",
    /// Whom the grant that is made is for.
    GranteePrincipal = "kms:GranteePrincipal",
    /// Who may retire the grant that is made.
    RetiringPrincipal = "kms:RetiringPrincipal",
    /// The kind of constraint of the grant that is made.
    GrantConstraintType = "kms:GrantConstraintType",
    /// Whether the request comes from a service on somebody's behalf.
    GrantIsForAwsResource = "kms:GrantIsForAWSResource",
    /// The waiting period of ScheduleKeyDeletion, in days.
    PendingWindowInDays = "kms:ScheduleKeyDeletionPendingWindowInDays",
    /// The algorithm of Encrypt and Decrypt.
    EncryptionAlgorithm = "kms:EncryptionAlgorithm",
    /// The kind of key pair that is generated.
    DataKeyPairSpec = "kms:DataKeyPairSpec",
    /// Whether ReEncrypt encrypts under the key that it decrypts with.
    ReEncryptOnSameKey = "kms:ReEncryptOnSameKey",
    /// The algorithm of Sign and Verify.
    SigningAlgorithm = "kms:SigningAlgorithm",
    /// The algorithm of GenerateMac and VerifyMac.
    MacAlgorithm = "kms:MacAlgorithm",
    /// The algorithm of DeriveSharedSecret.
    KeyAgreementAlgorithm = "kms:KeyAgreementAlgorithm",
    /// RAW or DIGEST.
    MessageType = "kms:MessageType",
    /// Whether the check against locking oneself out is switched off.
    BypassPolicyLockoutSafetyCheck = "kms:BypassPolicyLockoutSafetyCheck",
    /// The period of EnableKeyRotation, in days.
    RotationPeriodInDays = "kms:RotationPeriodInDays",
    /// Whether imported material expires.
    ExpirationModel = "kms:ExpirationModel",
    /// When imported material expires.
    ValidTo = "kms:ValidTo",
    /// How imported material is wrapped.
    WrappingAlgorithm = "kms:WrappingAlgorithm",
    /// The spec of the key that imported material is wrapped with.
    WrappingKeySpec = "kms:WrappingKeySpec",
    /// The Region that gets a replica.
    ReplicaRegion = "kms:ReplicaRegion",
    /// The Region that gets the primary key.
    PrimaryRegion = "kms:PrimaryRegion",
    /// The caller's ARN.
    PrincipalArn = "aws:PrincipalArn",
    /// `Account` for the root of the account, `User` for others.
    PrincipalType = "aws:PrincipalType",
    /// The caller's account.
    PrincipalAccount = "aws:PrincipalAccount",
    /// The time of the request, RFC 3339.
    CurrentTime = "aws:CurrentTime",
    /// The time of the request in seconds since 1970.
    EpochTime = "aws:EpochTime",
    /// The address that a request over the network came from.
    SourceIp = "aws:SourceIp",
    /// Whether the request came through TLS.
    SecureTransport = "aws:SecureTransport",
    /// The caller's name.
    Username = "aws:username",
    /// The caller's id.
    UserId = "aws:userid",
    /// The names of the tags that the request brings.
    TagKeys = "aws:TagKeys",
    /// The way the request came: `cli`, `mount`, `socket` or `network`.
    Source = "kmsfs:Source",
}

impl From<Fact> for ConditionKey {
    fn from(fact: Fact) -> Self {
        Self::Fact(fact)
    }
}

impl FromStr for ConditionKey {
    type Err = UnknownKey;

    /// Errors: also for keys of AWS that no request here supplies. A policy that names one is
    /// refused: as part of a Deny it would deny nothing.
    fn from_str(text: &str) -> Result<Self, UnknownKey> {
        type Make = fn(String) -> ConditionKey;
        let with_name: [(&str, Make); 3] = [
            ("kms:EncryptionContext:", Self::EncryptionContext),
            ("aws:ResourceTag/", Self::ResourceTag),
            ("aws:RequestTag/", Self::RequestTag),
        ];
        for (prefix, make) in with_name {
            if let Some((head, name)) = text.split_at_checked(prefix.len())
                && head.eq_ignore_ascii_case(prefix)
                && !name.is_empty()
            {
                return Ok(make(name.to_owned()));
            }
        }
        let known = Fact::ALL.iter().find(|fact| fact.as_str().eq_ignore_ascii_case(text));
        known.map(|fact| Self::Fact(*fact)).ok_or_else(|| UnknownKey::of(text))
    }
}

impl ConditionKey {
    /// True if it says which user of the account asks.
    pub(super) const fn is_of_caller(&self) -> bool {
        matches!(self, Self::Fact(Fact::PrincipalArn | Fact::Username | Fact::UserId))
    }

    /// True if it is the value of one pair of a context, or of one tag: their names are compared in any
    /// case.
    pub(super) const fn is_of_a_pair(&self) -> bool {
        match self {
            Self::Fact(_) => false,
            Self::EncryptionContext(_) | Self::ResourceTag(_) | Self::RequestTag(_) => true,
        }
    }
}

impl fmt::Display for ConditionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fact(fact) => f.write_str(fact.as_str()),
            Self::EncryptionContext(name) => write!(f, "kms:EncryptionContext:{name}"),
            Self::ResourceTag(name) => write!(f, "aws:ResourceTag/{name}"),
            Self::RequestTag(name) => write!(f, "aws:RequestTag/{name}"),
        }
    }
}

/// The text is no condition key of this KMS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownKey {
    /// Why not, if it is one of AWS KMS; else empty.
    pub why: &'static str,
}

impl UnknownKey {
    fn of(text: &str) -> Self {
        let same = |(start, _): &&(&str, &str)| {
            text.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start))
        };
        Self { why: NOT_SUPPLIED.iter().find(same).map_or("", |(_, why)| why) }
    }
}

/// The condition keys of AWS KMS that no request here supplies, by their beginnings, and why.
pub const NOT_SUPPLIED: &[(&str, &str)] = &[
    ("kms:CustomerMasterKeySpec", "it is deprecated: use kms:KeySpec"),
    ("kms:CustomerMasterKeyUsage", "it is deprecated: use kms:KeyUsage"),
    ("kms:RecipientAttestation:", "no enclave attests anything to this KMS"),
    ("aws:PrincipalOrg", "there is one account here, and no organization"),
    ("aws:PrincipalTag/", "principals have no tags here"),
    ("aws:SourceAccount", "there are no services of AWS here"),
    ("aws:SourceArn", "there are no services of AWS here"),
    ("aws:SourceOrg", "there are no services of AWS here"),
    ("aws:SourceVpc", "there are no networks of AWS here"),
    ("aws:VpcSourceIp", "there are no networks of AWS here"),
    ("aws:CalledVia", "there are no services of AWS here: use kms:ViaService"),
    ("aws:ViaAWSService", "there are no services of AWS here: use kms:ViaService"),
    ("aws:MultiFactorAuth", "nobody shows a second factor here"),
    ("aws:TokenIssueTime", "there are no temporary credentials here"),
    ("aws:FederatedProvider", "there are no federated users here"),
    ("aws:Requested", "a keystore answers for every Region"),
    ("aws:Resource", "of the resource only kms: keys and aws:ResourceTag/ are known"),
    ("aws:Referer", "what a client writes into its head proves nothing"),
    ("aws:UserAgent", "what a client writes into its head proves nothing"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back_in_any_case() {
        for fact in Fact::ALL {
            let key = ConditionKey::Fact(*fact);
            assert_eq!(key.to_string().parse(), Ok(key.clone()));
            assert_eq!(key.to_string().to_uppercase().parse(), Ok(key));
        }
        let key: ConditionKey = "KMS:encryptioncontext:App:Name".parse().unwrap();
        assert_eq!(key, ConditionKey::EncryptionContext("App:Name".to_owned()));
        for text in ["", "kms:", "kms:EncryptionContext:", "aws:PrincipalOrgID", "ä:ViaService"] {
            assert!(text.parse::<ConditionKey>().is_err(), "{text}");
        }
    }

    #[test]
    fn keys_of_aws_that_nothing_supplies_are_refused_with_the_reason() {
        for (start, why) in NOT_SUPPLIED {
            let error = format!("{start}x").to_uppercase().parse::<ConditionKey>();
            assert_eq!(error, Err(UnknownKey { why }), "{start}");
        }
        assert_eq!("kms:Nothing".parse::<ConditionKey>(), Err(UnknownKey { why: "" }));
    }
}

//! What a policy is asked: may this principal do this with that?

use std::borrow::Cow;

use super::key::ConditionKey;
use crate::keystore::model::caller::ROOT_ARN;

/// The values that a request has under one condition key. None: the key is missing.
pub type Values<'a> = Vec<Cow<'a, str>>;

/// One question to a policy.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The permission: `kms:Decrypt`.
    pub action: &'a str,
    /// The ARN of what it is about, or `*`.
    pub resource: &'a str,
    /// Who asks.
    pub requester: Requester<'a>,
    /// What the request says under a condition key. Only what a policy asks for is computed.
    pub conditions: &'a dyn Fn(&ConditionKey) -> Values<'a>,
}

/// Who asks: a principal and the groups it is in.
#[derive(Debug, Clone, Copy)]
pub struct Requester<'a> {
    /// The principal's ARN.
    pub arn: &'a str,
    /// The ARNs of its groups.
    pub groups: &'a [String],
}

impl Requester<'_> {
    /// Is it the account itself?
    pub fn is_root(&self) -> bool {
        self.arn == ROOT_ARN
    }

    /// Is it this principal, or in this group?
    pub fn is(&self, arn: &str) -> bool {
        self.arn == arn || self.groups.iter().any(|group| group == arn)
    }
}

impl<'a> Request<'a> {
    /// What the request says under a condition key.
    pub(super) fn values(&self, key: &ConditionKey) -> Values<'a> {
        (self.conditions)(key)
    }
}

impl std::fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("action", &self.action)
            .field("resource", &self.resource)
            .field("requester", &self.requester)
            .finish_non_exhaustive()
    }
}

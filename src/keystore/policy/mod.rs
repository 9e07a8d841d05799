//! Policies in AWS's policy language: parsed once, then asked without files and without a clock.
//!
//! A key policy belongs to a key and names principals; an identity policy belongs to a principal.
//! What is not understood is refused when a policy is parsed, so that no part of a policy that is
//! in force is ever passed over. Source: IAM User Guide, "IAM JSON policy reference" and "Policy
//! evaluation logic".

mod condition;
mod default;
mod error;
mod json;
mod key;
mod operator;
mod parse;
mod pattern;
mod principal;
mod request;
#[cfg(test)]
mod tests;

pub use crate::keystore::model::caller::ROOT_ARN;
pub(in crate::keystore) use default::DEFAULT;
pub use default::{DEFAULT_POLICY_NAME, default_key_policy};
pub use error::PolicyError;
pub use key::{ConditionKey, Fact, NOT_SUPPLIED};
pub use principal::{Named, PrincipalMatch};
pub use request::{Request, Requester, Values};

use condition::Condition;
use pattern::Pattern;
use principal::Principals;

/// The longest policy. Units: bytes. Source: AWS KMS quotas.
pub const MAX_POLICY: usize = 32 * 1024;

/// What a policy is attached to, which decides what may stand in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// To a key: each statement names principals.
    Key,
    /// To a principal: no statement names any.
    Identity,
}

/// A parsed policy.
#[derive(Debug, Clone)]
pub struct Policy {
    statements: Vec<Statement>,
}

/// What a policy says to a request. Ordered: of several the greatest holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Evaluation {
    /// Nothing.
    NoMatch,
    /// Yes, if the policies of the account say so too.
    Delegated,
    /// Yes.
    Allow,
    /// No, whatever else says yes. The Sid of the statement, if it has one.
    Deny(Option<String>),
}

#[derive(Debug, Clone)]
struct Statement {
    sid: Option<String>,
    effect: Effect,
    /// Nobody is named in an identity policy.
    principals: Option<Principals>,
    actions: Matching,
    resources: Matching,
    conditions: Vec<Condition>,
    /// The condition keys that stand as variables in `resources` and `conditions`.
    variables: Vec<ConditionKey>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Allow,
    Deny,
}

/// Action and Resource, or NotAction and NotResource.
#[derive(Debug, Clone)]
enum Matching {
    AnyOf(Vec<Pattern>),
    NoneOf(Vec<Pattern>),
}

impl Policy {
    /// Reads a policy document.
    /// Errors: what is wrong with it and where it stands.
    pub fn parse(text: &str, kind: Kind) -> Result<Self, PolicyError> {
        parse::policy(text, kind)
    }

    /// What the policy says to a request.
    pub fn evaluate(&self, request: &Request<'_>) -> Evaluation {
        let said = self.statements.iter().map(|statement| statement.evaluate(request));
        said.max().unwrap_or(Evaluation::NoMatch)
    }

    /// True if what it refuses could be had by asking as another user of this machine, or without a group:
    /// a Deny or a NotPrincipal names users or groups, anything names a group, or a condition asks who
    /// the caller is. `kind`: what it was parsed as.
    pub fn is_evadable(&self, kind: Kind) -> bool {
        self.statements.iter().any(|statement| statement.is_evadable(kind))
    }

    /// The first statement that allows every KMS operation, without a condition, to others than
    /// the account's root: its number, counted from 1, and its Sid.
    pub fn allows_everything(&self) -> Option<(usize, Option<&str>)> {
        let all = self.statements.iter().zip(1..);
        all.filter(|(statement, _)| statement.is_unlimited())
            .map(|(statement, number)| (number, statement.sid.as_deref()))
            .next()
    }
}

impl Statement {
    fn evaluate(&self, request: &Request<'_>) -> Evaluation {
        let meant = self
            .principals
            .as_ref()
            .map_or(PrincipalMatch::Itself, |all| all.mean(request.requester));
        if meant == PrincipalMatch::Not || !self.is_about(request) {
            return Evaluation::NoMatch;
        }
        match (self.effect, meant) {
            (Effect::Deny, _) => Evaluation::Deny(self.sid.clone()),
            (Effect::Allow, PrincipalMatch::Itself) => Evaluation::Allow,
            (Effect::Allow, _) => Evaluation::Delegated,
        }
    }

    fn is_about(&self, request: &Request<'_>) -> bool {
        let action = |one: &Pattern| one.matches_ignoring_case(request.action);
        let resource = |one: &Pattern| {
            one.resolved(request).is_some_and(|pattern| pattern.matches(request.resource))
        };
        if !self.actions.test(action) {
            return false;
        }
        if self.variables.iter().any(|key| request.values(key).len() > 1) {
            // Nobody knows what the statement says to it.
            return self.effect == Effect::Deny;
        }
        self.resources.test(resource)
            && self.conditions.iter().all(|condition| condition.holds(request, self.effect))
    }

    /// A policy of a principal holds for whoever is that one: only what it takes away can be evaded.
    fn is_evadable(&self, kind: Kind) -> bool {
        match kind {
            Kind::Identity => self.effect == Effect::Deny,
            Kind::Key => {
                self.principals.as_ref().is_some_and(|named| named.are_evadable(self.effect))
                    || self.variables.iter().any(ConditionKey::is_of_caller)
                    || self.conditions.iter().any(Condition::asks_for_caller)
            }
        }
    }

    fn is_unlimited(&self) -> bool {
        let every_action = match &self.actions {
            Matching::AnyOf(patterns) => {
                patterns.iter().any(|one| one.is_everything() || *one == Pattern::glob("kms:*"))
            }
            Matching::NoneOf(_) => false,
        };
        self.effect == Effect::Allow
            && every_action
            && self.conditions.is_empty()
            && self.principals.as_ref().is_none_or(Principals::reach_beyond_root)
    }
}

impl Matching {
    fn patterns(&self) -> &[Pattern] {
        match self {
            Self::AnyOf(patterns) | Self::NoneOf(patterns) => patterns,
        }
    }

    fn test(&self, fits: impl Fn(&Pattern) -> bool) -> bool {
        match self {
            Self::AnyOf(patterns) => patterns.iter().any(fits),
            Self::NoneOf(patterns) => !patterns.iter().any(fits),
        }
    }
}

//! Whom a statement of a key policy is about, and whom a grant is for.

use super::Effect;
use super::request::Requester;
use crate::keystore::model::caller::{ACCOUNT, ROOT_ARN};

const IAM: &str = "arn:aws:iam::000000000000:";

/// A principal as a policy names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// `*`: everybody.
    Everybody,
    /// The account: its root, and whomever the account's own policies allow.
    Account,
    /// One user, or the members of one group, by ARN.
    One(String),
    /// A service. None of them asks in its own name here.
    Service(String),
}

/// How a principal is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PrincipalMatch {
    /// Not at all.
    Not,
    /// As one of the account: the account's own policies have to agree.
    AsOneOfAccount,
    /// Itself.
    Itself,
}

impl Named {
    /// Reads the ARN of an account, user or group, or the id of the account; `None` for others.
    pub fn parse(text: &str) -> Option<Self> {
        if text == ACCOUNT || text == ROOT_ARN {
            return Some(Self::Account);
        }
        let local = text.strip_prefix(IAM)?;
        let name = local.strip_prefix("user/").or_else(|| local.strip_prefix("group/"))?;
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-/".contains(c);
        let valid = name.len() <= 512
            && name.chars().all(allowed)
            && name.split('/').all(|part| !part.is_empty());
        valid.then(|| Self::One(text.to_owned()))
    }

    /// True of a user of this machine.
    pub fn is_local_user(&self) -> bool {
        matches!(self, Self::One(arn) if is_local(arn, "user/unix/"))
    }

    /// True of a group of this machine.
    pub fn is_local_group(&self) -> bool {
        matches!(self, Self::One(arn) if is_local(arn, "group/unix/"))
    }

    /// Whether the requester is meant, and how.
    pub fn means(&self, requester: Requester<'_>) -> PrincipalMatch {
        match self {
            Self::Everybody => PrincipalMatch::Itself,
            Self::Account if requester.is_root() => PrincipalMatch::Itself,
            Self::Account => PrincipalMatch::AsOneOfAccount,
            Self::One(arn) if requester.is(arn) => PrincipalMatch::Itself,
            Self::One(_) | Self::Service(_) => PrincipalMatch::Not,
        }
    }

    /// The canonical text: an ARN, `*` or the service's name.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Everybody => "*",
            Self::Account => ROOT_ARN,
            Self::One(arn) => arn,
            Self::Service(name) => name,
        }
    }
}

/// The element Principal or NotPrincipal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Principals {
    /// Principal: those named.
    These(Vec<Named>),
    /// NotPrincipal: everybody but those named.
    AllBut(Vec<Named>),
}

impl Principals {
    pub(super) fn mean(&self, requester: Requester<'_>) -> PrincipalMatch {
        let best = |named: &[Named]| named.iter().map(|one| one.means(requester)).max();
        match self {
            Self::These(named) => best(named).unwrap_or(PrincipalMatch::Not),
            // To name the account exempts its root only, not each of its users.
            Self::AllBut(named) => match best(named) {
                Some(PrincipalMatch::Itself) => PrincipalMatch::Not,
                _ => PrincipalMatch::Itself,
            },
        }
    }

    /// True if somebody of this machine could be meant, or not be meant, by asking as another user or
    /// without a group.
    pub(super) fn are_evadable(&self, effect: Effect) -> bool {
        match self {
            Self::These(named) => named
                .iter()
                .any(|one| one.is_local_group() || (effect == Effect::Deny && one.is_local_user())),
            Self::AllBut(named) => {
                named.iter().any(|one| one.is_local_group() || one.is_local_user())
            }
        }
    }

    /// True if somebody else than the account's root is meant.
    pub(super) fn reach_beyond_root(&self) -> bool {
        match self {
            Self::These(named) => {
                named.iter().any(|one| matches!(one, Named::Everybody | Named::One(_)))
            }
            Self::AllBut(_) => true,
        }
    }
}

fn is_local(arn: &str, kind: &str) -> bool {
    arn.strip_prefix(IAM).is_some_and(|name| name.starts_with(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_users_and_groups_are_read() {
        assert_eq!(Named::parse(ACCOUNT), Some(Named::Account));
        assert_eq!(Named::parse(ROOT_ARN), Some(Named::Account));
        let user = "arn:aws:iam::000000000000:user/unix/1000";
        assert_eq!(Named::parse(user), Some(Named::One(user.to_owned())));
        for text in [
            "",
            "*",
            "alice",
            "111122223333",
            "arn:aws:iam::111122223333:user/alice",
            "arn:aws:iam::000000000000:role/admin",
            "arn:aws:iam::000000000000:user/",
            "arn:aws:iam::000000000000:user//x",
            "arn:aws:iam::000000000000:user/*",
        ] {
            assert_eq!(Named::parse(text), None, "{text}");
        }
    }
}

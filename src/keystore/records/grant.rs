//! Grants: permissions to use a key that are given and taken one by one.
//!
//! What a grant allows stands here; `ops::grants` makes, lists and removes them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use base64ct::{Base64UrlUnpadded, Encoding};
use serde::{Deserialize, Serialize};

use crate::crypto::{Secret, random};
use crate::id::KeyId;
use crate::keystore::error::KeystoreError;
use crate::keystore::error::access::AccessError;
use crate::keystore::model::context::EncryptionContext;
use crate::keystore::model::id::GrantId;
use crate::keystore::model::spec::GrantOperation;
use crate::keystore::model::time::UnixTime;
use crate::keystore::policy::{Named, PrincipalMatch, ROOT_ARN, Requester};
use crate::keystore::storage::root::RootKey;
use crate::keystore::storage::rows::Table;
use crate::keystore::storage::sealed::{Reader, Record};

/// What the encryption context of a request has to be for a grant to allow it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Constraints {
    /// These pairs and no others.
    #[serde(rename = "EncryptionContextEquals", skip_serializing_if = "Option::is_none", default)]
    pub equals: Option<EncryptionContext>,
    /// At least these pairs.
    #[serde(rename = "EncryptionContextSubset", skip_serializing_if = "Option::is_none", default)]
    pub subset: Option<EncryptionContext>,
}

/// The stored form of a grant. It belongs to its key and goes with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::keystore) struct GrantRecord {
    pub(in crate::keystore) grantee: String,
    pub(in crate::keystore) retiring: Option<String>,
    pub(in crate::keystore) operations: Vec<GrantOperation>,
    pub(in crate::keystore) constraints: Constraints,
    pub(in crate::keystore) name: Option<String>,
    pub(in crate::keystore) created: UnixTime,
    pub(in crate::keystore) expires: Option<UnixTime>,
}

impl Record for GrantRecord {
    const TABLE: Table = Table::Grant;
}

/// The grant that CreateGrant is asked to make: a grant that allows CreateGrant passes on no more
/// than it gives.
#[derive(Debug, Clone, Copy)]
pub(in crate::keystore) struct GrantRequest<'a> {
    pub(in crate::keystore) operations: &'a [GrantOperation],
    pub(in crate::keystore) constraints: &'a Constraints,
    pub(in crate::keystore) expires: Option<UnixTime>,
}

/// A request, as grants are searched for one that allows it.
pub(in crate::keystore) struct GrantQuery<'a> {
    pub(in crate::keystore) requester: Requester<'a>,
    /// The account's policies allow it, which a grant for the account needs.
    pub(in crate::keystore) by_account: bool,
    pub(in crate::keystore) operation: GrantOperation,
    pub(in crate::keystore) context: Option<&'a EncryptionContext>,
    /// What CreateGrant would make.
    pub(in crate::keystore) child: Option<GrantRequest<'a>>,
}

impl Constraints {
    /// True if every context will do.
    pub fn is_empty(&self) -> bool {
        self.equals.is_none() && self.subset.is_none()
    }

    fn admit(&self, context: Option<&EncryptionContext>) -> bool {
        let none = EncryptionContext::new();
        let context = context.unwrap_or(&none);
        self.equals.as_ref().is_none_or(|equals| equals == context)
            && self.subset.as_ref().is_none_or(|subset| context.contains(subset))
    }

    /// Does whatever these admit pass `other` too?
    fn are_as_strict_as(&self, other: &Self) -> bool {
        let equals = match &other.equals {
            Some(theirs) => self.equals.as_ref() == Some(theirs),
            None => true,
        };
        let within = |own: &Option<EncryptionContext>, theirs| {
            own.as_ref().is_some_and(|own| own.contains(theirs))
        };
        equals
            && other
                .subset
                .as_ref()
                .is_none_or(|theirs| within(&self.equals, theirs) || within(&self.subset, theirs))
    }
}

impl GrantRecord {
    /// Does the grant allow it at this time?
    pub(in crate::keystore) fn allows(&self, query: &GrantQuery<'_>, now: UnixTime) -> bool {
        self.is_valid(now)
            && self.is_for(query.requester, query.by_account)
            && self.operations.contains(&query.operation)
            && self.admits(query)
    }

    pub(in crate::keystore) fn is_valid(&self, now: UnixTime) -> bool {
        self.expires.is_none_or(|end| now < end)
    }

    fn is_for(&self, requester: Requester<'_>, by_account: bool) -> bool {
        match Named::parse(&self.grantee).map(|named| named.means(requester)) {
            Some(PrincipalMatch::Itself) => true,
            Some(PrincipalMatch::AsOneOfAccount) => by_account,
            Some(PrincipalMatch::Not) | None => false,
        }
    }

    /// May the requester remove this grant because of what it says?
    pub(in crate::keystore) fn lets_retire(&self, requester: Requester<'_>) -> bool {
        let itself = |arn: &str| {
            Named::parse(arn).is_some_and(|n| n.means(requester) == PrincipalMatch::Itself)
        };
        let retiring = self.retiring.as_deref().is_some_and(itself);
        retiring
            || (self.operations.contains(&GrantOperation::RetireGrant) && itself(&self.grantee))
    }

    /// Constraints are about operations that have an encryption context.
    fn admits(&self, query: &GrantQuery<'_>) -> bool {
        match query.operation {
            GrantOperation::DescribeKey | GrantOperation::RetireGrant => true,
            GrantOperation::CreateGrant => {
                query.child.as_ref().is_some_and(|child| self.covers(child))
            }
            _ => self.constraints.admit(query.context),
        }
    }

    fn covers(&self, child: &GrantRequest<'_>) -> bool {
        child.operations.iter().all(|operation| self.operations.contains(operation))
            && child.constraints.are_as_strict_as(&self.constraints)
            && self.expires.is_none_or(|end| child.expires.is_some_and(|theirs| theirs <= end))
    }
}

/// The grants of one key, by whom they are for.
#[derive(Debug, Default)]
pub(in crate::keystore) struct Grants(HashMap<String, Vec<GrantRecord>>);

impl Grants {
    pub(in crate::keystore) fn load(
        reader: &Reader<'_>,
        key: KeyId,
    ) -> Result<Arc<Self>, KeystoreError> {
        let stored = reader.of_key::<GrantRecord>(key)?;
        Ok(Arc::new(stored.into_iter().map(|grant| grant.record).collect()))
    }

    /// The grant that allows it for the longest time.
    pub(in crate::keystore) fn allowing(
        &self,
        query: &GrantQuery<'_>,
        now: SystemTime,
    ) -> Option<&GrantRecord> {
        let now = UnixTime::from(now);
        let allow = self.for_requester(query.requester).filter(|grant| grant.allows(query, now));
        allow.max_by_key(|grant| grant.expires.map_or(i64::MAX, UnixTime::seconds))
    }

    /// Might another encryption context change what is allowed?
    pub(in crate::keystore) fn depend_on_context(&self, requester: Requester<'_>) -> bool {
        self.for_requester(requester).any(|grant| !grant.constraints.is_empty())
    }

    fn for_requester<'a>(
        &'a self,
        requester: Requester<'_>,
    ) -> impl Iterator<Item = &'a GrantRecord> {
        let account = (!requester.is_root()).then_some(ROOT_ARN);
        let groups = requester.groups.iter().map(String::as_str);
        let arns = std::iter::once(requester.arn).chain(groups).chain(account);
        arns.filter_map(|arn| self.0.get(arn)).flatten()
    }
}

impl FromIterator<GrantRecord> for Grants {
    fn from_iter<I: IntoIterator<Item = GrantRecord>>(records: I) -> Self {
        let mut grants: HashMap<String, Vec<GrantRecord>> = HashMap::new();
        for record in records {
            grants.entry(record.grantee.clone()).or_default().push(record);
        }
        Self(grants)
    }
}

/// A new token for a grant: 16 random bytes, the id of the grant, and a keyed hash of both.
pub(in crate::keystore) fn token(root: &RootKey, id: GrantId) -> Result<String, KeystoreError> {
    let nonce = random::id16()?;
    let tag = token_tag(root, &nonce, id);
    let parts = [nonce.as_slice(), id.as_bytes(), tag.expose()];
    Ok(Base64UrlUnpadded::encode_string(&parts.concat()))
}

/// The grant that a token of this keystore names; whether it still exists is not asked.
/// Errors: `InvalidGrantToken`.
pub(in crate::keystore) fn read_token(
    root: &RootKey,
    token: &str,
) -> Result<GrantId, KeystoreError> {
    let bytes = Base64UrlUnpadded::decode_vec(token).unwrap_or_default();
    let read = || {
        let (nonce, rest) = bytes.split_first_chunk::<16>()?;
        let (id, tag) = rest.split_first_chunk::<32>()?;
        let id = GrantId::from_bytes(*id);
        // Secrets are compared in constant time.
        (Secret::from_slice(tag)? == token_tag(root, nonce, id)).then_some(id)
    };
    read().ok_or_else(|| AccessError::InvalidGrantToken.into())
}

fn token_tag(root: &RootKey, nonce: &[u8; 16], id: GrantId) -> Secret<32> {
    let tag = root.lookup(&format!("grant token {:032x} {id}", u128::from_be_bytes(*nonce)));
    Secret::filled(|secret| *secret = tag)
}

/// Errors: `InvalidGrantToken` unless all are tokens of grants that exist.
pub(in crate::keystore) fn check_tokens(
    reader: &Reader<'_>,
    tokens: &[String],
) -> Result<(), KeystoreError> {
    for token in tokens {
        let id = read_token(reader.root(), token)?;
        if reader.rows().get(Table::Grant, id.as_bytes())?.is_none() {
            return Err(AccessError::InvalidGrantToken.into());
        }
    }
    Ok(())
}

/// True if any grant is for a group of this machine.
pub(in crate::keystore) fn any_is_for_local_group(
    reader: &Reader<'_>,
) -> Result<bool, KeystoreError> {
    let is_for_group = |grant: &GrantRecord| {
        Named::parse(&grant.grantee).is_some_and(|grantee| grantee.is_local_group())
    };
    Ok(reader.all::<GrantRecord>()?.iter().any(|grant| is_for_group(&grant.record)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: &str = "arn:aws:iam::000000000000:user/unix/1000";
    const STAFF: &str = "arn:aws:iam::000000000000:group/unix/27";

    fn context(pairs: &[(&str, &str)]) -> EncryptionContext {
        pairs.iter().copied().collect()
    }

    fn equals(pairs: &[(&str, &str)]) -> Constraints {
        Constraints { equals: Some(context(pairs)), subset: None }
    }

    fn subset(pairs: &[(&str, &str)]) -> Constraints {
        Constraints { equals: None, subset: Some(context(pairs)) }
    }

    fn grant(
        grantee: &str,
        operations: &[GrantOperation],
        constraints: Constraints,
    ) -> GrantRecord {
        GrantRecord {
            grantee: grantee.to_owned(),
            retiring: None,
            operations: operations.to_vec(),
            constraints,
            name: None,
            created: UnixTime::from_seconds(0),
            expires: Some(UnixTime::from_seconds(100)),
        }
    }

    fn query<'a>(
        arn: &'a str,
        groups: &'a [String],
        operation: GrantOperation,
        context: &'a EncryptionContext,
    ) -> GrantQuery<'a> {
        let requester = Requester { arn, groups };
        GrantQuery { requester, by_account: false, operation, context: Some(context), child: None }
    }

    #[test]
    fn a_grant_is_for_its_grantee_its_operations_and_its_time() {
        use GrantOperation::{Decrypt, Encrypt};
        let (none, staff) = (EncryptionContext::new(), [STAFF.to_owned()]);
        let now = UnixTime::from_seconds;
        for (grantee, arn, groups, operation, time, expected) in [
            (ALICE, ALICE, &[][..], Decrypt, 99, true),
            (ALICE, ALICE, &[], Decrypt, 100, false),
            (ALICE, ALICE, &[], Encrypt, 0, false),
            (ALICE, "arn:aws:iam::000000000000:user/unix/1001", &[], Decrypt, 0, false),
            (STAFF, ALICE, &staff, Decrypt, 0, true),
            (STAFF, ALICE, &[], Decrypt, 0, false),
            (ROOT_ARN, ROOT_ARN, &[], Decrypt, 0, true),
            (ROOT_ARN, ALICE, &[], Decrypt, 0, false),
        ] {
            let grant = grant(grantee, &[Decrypt], Constraints::default());
            let allowed = grant.allows(&query(arn, groups, operation, &none), now(time));
            assert_eq!(allowed, expected, "{grantee} {arn} {operation} {time}");
            let all: Grants = [grant].into_iter().collect();
            let query = query(arn, groups, operation, &none);
            let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(time.unsigned_abs());
            assert_eq!(all.allowing(&query, at).is_some(), expected);
        }
        let mut agreed = query(ALICE, &[], Decrypt, &none);
        agreed.by_account = true;
        let for_account = grant(ROOT_ARN, &[Decrypt], Constraints::default());
        assert!(for_account.allows(&agreed, now(0)), "the account's policies agree");
    }

    #[test]
    fn constraints_are_about_operations_with_a_context() {
        use GrantOperation::{Decrypt, DescribeKey};
        let (ab, a) = ([("a", "1"), ("b", "2")], [("a", "1")]);
        for (constraints, operation, given, expected) in [
            (equals(&a), Decrypt, context(&a), true),
            (equals(&a), Decrypt, context(&ab), false),
            (equals(&a), Decrypt, context(&[("A", "1")]), false),
            (subset(&a), Decrypt, context(&ab), true),
            (subset(&ab), Decrypt, context(&a), false),
            (subset(&a), Decrypt, context(&[("a", "2"), ("b", "1")]), false),
            (equals(&a), DescribeKey, context(&[]), true),
        ] {
            let grant = grant(ALICE, &[Decrypt, DescribeKey], constraints.clone());
            let query = query(ALICE, &[], operation, &given);
            let allowed = grant.allows(&query, UnixTime::from_seconds(0));
            assert_eq!(allowed, expected, "{constraints:?} {operation} {given:?}");
        }
    }

    #[test]
    fn a_grant_passes_on_no_more_than_it_gives() {
        use GrantOperation::{CreateGrant, Decrypt, Encrypt};
        let (none, ab, a) = (Constraints::default(), [("a", "1"), ("b", "2")], [("a", "1")]);
        let empty = EncryptionContext::new();
        for (own, operations, theirs, expires, expected) in [
            (none.clone(), &[Decrypt][..], none.clone(), Some(100), true),
            (none.clone(), &[Decrypt], none.clone(), Some(101), false),
            (none.clone(), &[Decrypt], none.clone(), None, false),
            (none.clone(), &[Decrypt, Encrypt], none.clone(), Some(1), false),
            (none.clone(), &[Decrypt], equals(&a), Some(1), true),
            (subset(&a), &[Decrypt], none, Some(1), false),
            (subset(&a), &[Decrypt], subset(&ab), Some(1), true),
            (subset(&a), &[Decrypt], equals(&ab), Some(1), true),
            (subset(&ab), &[Decrypt], subset(&a), Some(1), false),
            (equals(&a), &[Decrypt], equals(&a), Some(1), true),
            (equals(&a), &[Decrypt], equals(&ab), Some(1), false),
            (equals(&a), &[Decrypt], subset(&a), Some(1), false),
        ] {
            let parent = grant(ALICE, &[Decrypt, CreateGrant], own.clone());
            let expires = expires.map(UnixTime::from_seconds);
            let mut query = query(ALICE, &[], CreateGrant, &empty);
            query.child = Some(GrantRequest { operations, constraints: &theirs, expires });
            let allowed = parent.allows(&query, UnixTime::from_seconds(0));
            assert_eq!(allowed, expected, "{own:?} {operations:?} {theirs:?} {expires:?}");
        }
    }
}

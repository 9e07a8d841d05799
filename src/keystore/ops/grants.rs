//! CreateGrant, ListGrants, ListRetirableGrants, RetireGrant, RevokeGrant.

use std::time::SystemTime;

use serde::Serialize;

use crate::crypto::random;
use crate::id::KeyId;
use crate::keystore::access::decision;
use crate::keystore::access::request::RequestContext;
use crate::keystore::engine::Keystore;
use crate::keystore::engine::frame::{AuditDetails, named};
use crate::keystore::error::access::AccessError;
use crate::keystore::error::{KeystoreError, Quota};
use crate::keystore::model::action::Action;
use crate::keystore::model::caller::group_arn;
use crate::keystore::model::context;
use crate::keystore::model::id::{GrantId, KeyRef, text};
use crate::keystore::model::operation::OwnOperation;
use crate::keystore::model::spec::{GrantOperation, KeySpec, KeyUsage};
use crate::keystore::model::time::UnixTime;
use crate::keystore::policy::{Fact, Named, ROOT_ARN, Requester};
use crate::keystore::records::grant::{self, Constraints, GrantRecord, GrantRequest};
use crate::keystore::records::key::{KeyRecord, Operation, permit};
use crate::keystore::storage::rows::Table;
use crate::keystore::storage::sealed::{Reader, Stored, Writer, tampered};

/// What CreateGrant is told.
#[derive(Debug, Clone, Default)]
pub struct CreateGrant {
    /// Whom it is for: the ARN of a user, a group or the account.
    pub grantee: String,
    /// Who may retire it besides the account's root.
    pub retiring: Option<String>,
    /// What it allows.
    pub operations: Vec<GrantOperation>,
    /// For which encryption contexts.
    pub constraints: Constraints,
    /// A name, by which the same grant is not made twice.
    pub name: Option<String>,
    /// When it ends. AWS's grants have no end.
    pub expires: Option<SystemTime>,
}

/// A grant that was made, or was there already.
#[derive(Debug, Clone)]
pub struct CreatedGrant {
    /// The grant.
    pub id: GrantId,
    /// Its key.
    pub key: KeyId,
    /// Names the grant in other requests. A new one each time.
    pub token: String,
}

/// Which grants of a key are listed: those that fit all that is given.
#[derive(Debug, Clone, Default)]
pub struct GrantFilter {
    /// Only this one.
    pub id: Option<GrantId>,
    /// Only those for this principal.
    pub grantee: Option<String>,
}

/// A grant as ListGrants shows it. Serialises with AWS's member names; times are seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct GrantEntry {
    /// Its key.
    #[serde(with = "text")]
    pub key_id: KeyId,
    /// The grant.
    #[serde(with = "text")]
    pub grant_id: GrantId,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// When it was made.
    pub creation_date: UnixTime,
    /// Whom it is for.
    pub grantee_principal: String,
    /// Who may retire it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retiring_principal: Option<String>,
    /// The account.
    pub issuing_account: &'static str,
    /// What it allows.
    pub operations: Vec<GrantOperation>,
    /// For which encryption contexts.
    #[serde(skip_serializing_if = "Constraints::is_empty")]
    pub constraints: Constraints,
    /// When it ends; not a member of AWS's answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration_date: Option<UnixTime>,
}

impl Keystore {
    /// Lets a principal use a key for some operations. With a name, the same request gives the
    /// same grant.
    /// Errors: `InvalidPrincipal`, `Validation`, `LimitExceeded`, `Disabled`, `InvalidState`,
    /// `AccessDenied`.
    pub fn create_grant(
        &self,
        key: &KeyRef,
        request: &CreateGrant,
        now: SystemTime,
    ) -> Result<CreatedGrant, KeystoreError> {
        let record = request.record(now.into())?;
        let made = self.operate(Action::CreateGrant, None, |details| {
            self.write(|writer| self.make_grant(writer, key, &record, details))
        })?;
        log::info!("grant {} on key {} for {}", made.id, made.key, record.grantee);
        Ok(made)
    }

    /// The grants of a key, oldest first, without those that have ended.
    /// Errors: `KeyNotFound`, `AliasNotFound`, `AccessDenied`.
    pub fn list_grants(
        &self,
        key: &KeyRef,
        filter: &GrantFilter,
    ) -> Result<Vec<GrantEntry>, KeystoreError> {
        let listed = self.view(Action::ListGrants, key, |reader, key, _| reader.of_key(key))?;
        let wanted = |grant: &GrantEntry| {
            filter.id.is_none_or(|id| id == grant.grant_id)
                && filter.grantee.as_ref().is_none_or(|arn| *arn == grant.grantee_principal)
        };
        Ok(self.entries(listed)?.into_iter().filter(wanted).collect())
    }

    /// The grants of all keys that a principal may retire because they say so, oldest first.
    /// Errors: `AccessDenied`.
    pub fn list_retirable_grants(&self, retiring: &str) -> Result<Vec<GrantEntry>, KeystoreError> {
        let listed = self.view_all(Action::ListRetirableGrants, |reader| reader.all())?;
        let wanted = |grant: &GrantEntry| grant.retiring_principal.as_deref() == Some(retiring);
        Ok(self.entries(listed)?.into_iter().filter(wanted).collect())
    }

    /// Takes a grant back, as somebody who administers the key.
    /// Errors: `GrantNotFound`, `KeyNotFound`, `AccessDenied`.
    pub fn revoke_grant(&self, key: &KeyRef, grant: GrantId) -> Result<(), KeystoreError> {
        let key = self.edit(Action::RevokeGrant, key, Operation::Access, |writer, key, _| {
            find(writer, key, grant)?;
            writer.delete(Table::Grant, grant.as_bytes())?;
            Ok(key)
        })?;
        log::info!("grant {grant} on key {key} is revoked");
        Ok(())
    }

    /// Gives a grant back, as somebody whom the grant itself names for that.
    /// Errors: `GrantNotFound`, `KeyNotFound`, `AccessDenied`.
    pub fn retire_grant(&self, key: &KeyRef, grant: GrantId) -> Result<(), KeystoreError> {
        self.operate(Action::RetireGrant, None, |details| {
            self.write(|writer| {
                let key = named(writer, key)?;
                self.retire(writer, key, grant, details)
            })
        })
    }

    /// As [`Keystore::retire_grant`], for the grant that a token names.
    /// Errors: `InvalidGrantToken`, `AccessDenied`.
    pub fn retire_grant_by_token(&self, token: &str) -> Result<(), KeystoreError> {
        self.operate(Action::RetireGrant, None, |details| {
            self.write(|writer| {
                let grant = grant::read_token(writer.root(), token)?;
                let row = writer.rows().get(Table::Grant, grant.as_bytes())?;
                let key = row.and_then(|row| row.owner).ok_or(AccessError::InvalidGrantToken)?;
                self.retire(writer, key, grant, details)
            })
        })
    }

    /// Removes the grants that have ended, writes that down, and returns how many there were.
    pub fn drop_expired_grants(&self, now: SystemTime) -> Result<usize, KeystoreError> {
        let ended = |reader: &Reader<'_>| {
            let mut all = reader.all::<GrantRecord>()?;
            all.retain(|grant| !grant.record.is_valid(now.into()));
            Ok::<_, KeystoreError>(all)
        };
        let due = |reader: &Reader<'_>| {
            Ok::<_, KeystoreError>(
                !ended(reader)?.is_empty() && reader.meta()?.clock_is_steady(now.into()),
            )
        };
        if !self.read(due)? {
            return Ok(0);
        }
        self.operate_own(OwnOperation::DropExpiredGrants, |details| {
            let dropped = self.write(|writer| {
                let ended = ended(writer)?;
                for grant in &ended {
                    writer.delete(Table::Grant, &grant.id)?;
                }
                Ok(ended.len())
            })?;
            details.detail = Some(format!("{dropped} grants"));
            Ok(dropped)
        })
    }

    /// Everything that may refuse the request comes before a dry run is told that it would succeed.
    fn make_grant(
        &self,
        writer: &mut Writer<'_>,
        key: &KeyRef,
        record: &GrantRecord,
        details: &mut AuditDetails,
    ) -> Result<CreatedGrant, KeystoreError> {
        let request_context = record.request_context().naming(key);
        let key = named(writer, key)?;
        details.key = Some(key);
        let about = KeyRecord::find(writer, key)?;
        decision::authorise(
            writer,
            self.subject(),
            Action::CreateGrant,
            Some((key, &about)),
            request_context,
        )?;
        permit(Operation::Crypto, key, about.state)?;
        check_operations(record, &about)?;
        let same = same_grant(writer, key, record)?;
        if same.is_none() {
            check_room(writer, key)?;
        }
        self.stop_if_dry()?;
        let id = same.map_or_else(|| insert(writer, key, record), Ok)?;
        Ok(CreatedGrant { id, key, token: grant::token(writer.root(), id)? })
    }

    fn retire(
        &self,
        writer: &mut Writer<'_>,
        key: KeyId,
        grant: GrantId,
        details: &mut AuditDetails,
    ) -> Result<(), KeystoreError> {
        details.key = Some(key);
        let record = KeyRecord::find(writer, key)?;
        let stored = find(writer, key, grant)?;
        let groups: Vec<String> = self.caller().groups.iter().map(|gid| group_arn(*gid)).collect();
        let arn = self.caller().principal.arn();
        let entitled = stored.lets_retire(Requester { arn: &arn, groups: &groups });
        let request_context = RequestContext { entitled, ..RequestContext::default() }
            .constrained(&stored.constraints);
        let about = Some((key, &record));
        decision::authorise(writer, self.subject(), Action::RetireGrant, about, request_context)?;
        self.stop_if_dry()?;
        writer.delete(Table::Grant, grant.as_bytes())
    }

    fn entries(&self, grants: Vec<Stored<GrantRecord>>) -> Result<Vec<GrantEntry>, KeystoreError> {
        let now = self.caller().time().into();
        let valid = grants.into_iter().filter(|grant| grant.record.is_valid(now));
        let mut entries = valid.map(entry).collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(|grant| (grant.creation_date, *grant.grant_id.as_bytes()));
        Ok(entries)
    }
}

impl CreateGrant {
    /// Errors: `InvalidPrincipal`, `Validation`.
    fn record(&self, now: UnixTime) -> Result<GrantRecord, KeystoreError> {
        let mut operations = self.operations.clone();
        operations.sort_unstable();
        operations.dedup();
        if operations.is_empty() {
            return Err(KeystoreError::Validation("a grant allows at least one operation".into()));
        }
        let expires = self.expires.map(UnixTime::from);
        if expires.is_some_and(|end| end <= now) {
            return Err(KeystoreError::Validation("a grant does not end before it begins".into()));
        }
        check_constraint(self.constraints.equals.as_ref())?;
        check_constraint(self.constraints.subset.as_ref())?;
        Ok(GrantRecord {
            grantee: principal(&self.grantee)?,
            retiring: self.retiring.as_deref().map(principal).transpose()?,
            operations,
            constraints: self.constraints.clone(),
            name: self.name.clone(),
            created: now,
            expires,
        })
    }
}

impl GrantRecord {
    /// The request to make this grant.
    fn request_context(&self) -> RequestContext<'_> {
        let Self { operations, constraints, expires, .. } = self;
        let grant = GrantRequest { operations, constraints, expires: *expires };
        RequestContext { grant: Some(grant), ..RequestContext::default() }
            .constrained(constraints)
            .with(Fact::GranteePrincipal, &*self.grantee)
            .with_any(Fact::RetiringPrincipal, self.retiring.as_deref())
    }

    /// The same but for the time it was made.
    fn is_like(&self, other: &Self) -> bool {
        *self == Self { created: self.created, ..other.clone() }
    }
}

/// The canonical ARN of a principal.
/// Errors: `InvalidPrincipal`.
fn principal(text: &str) -> Result<String, KeystoreError> {
    match Named::parse(text) {
        Some(named) => Ok(named.as_str().to_owned()),
        None => Err(AccessError::InvalidPrincipal(text.chars().take(256).collect()).into()),
    }
}

/// Source: CreateGrant, "Each constraint value can include up to 8 encryption context pairs".
fn check_constraint(constraint: Option<&context::EncryptionContext>) -> Result<(), KeystoreError> {
    const PAIRS: usize = 8;
    const CHARACTERS: usize = 384;
    let Some(context) = constraint else { return Ok(()) };
    let letters: usize = context.pairs().map(|(k, v)| k.chars().count() + v.chars().count()).sum();
    if context.pairs().count() <= PAIRS && letters <= CHARACTERS {
        return Ok(());
    }
    Err(KeystoreError::Validation(format!(
        "a grant constraint has at most {PAIRS} pairs and {CHARACTERS} characters"
    )))
}

/// Errors: `Validation` for an operation, or a constraint, that the key has no use for.
fn check_operations(grant: &GrantRecord, key: &KeyRecord) -> Result<(), KeystoreError> {
    if let Some(odd) = grant.operations.iter().find(|operation| !fits(**operation, key)) {
        return Err(KeystoreError::Validation(format!(
            "Operation {odd} is not supported by a key with spec {} and usage {}",
            key.spec, key.usage
        )));
    }
    if key.spec != KeySpec::SymmetricDefault && !grant.constraints.is_empty() {
        return Err(KeystoreError::Validation(format!(
            "Grant constraints need an encryption context, which keys with spec {} have not",
            key.spec
        )));
    }
    Ok(())
}

fn fits(operation: GrantOperation, key: &KeyRecord) -> bool {
    use GrantOperation::{
        CreateGrant, Decrypt, DeriveSharedSecret, DescribeKey, Encrypt, GenerateDataKey,
        GenerateDataKeyPair, GenerateDataKeyPairWithoutPlaintext, GenerateDataKeyWithoutPlaintext,
        GenerateMac, GetPublicKey, ReEncryptFrom, ReEncryptTo, RetireGrant, Sign, Verify,
        VerifyMac,
    };
    let symmetric = key.spec == KeySpec::SymmetricDefault;
    match operation {
        CreateGrant | DescribeKey | RetireGrant => true,
        Decrypt | Encrypt | ReEncryptFrom | ReEncryptTo => key.usage == KeyUsage::EncryptDecrypt,
        GenerateDataKey
        | GenerateDataKeyPair
        | GenerateDataKeyPairWithoutPlaintext
        | GenerateDataKeyWithoutPlaintext => symmetric,
        GetPublicKey => !symmetric && key.usage != KeyUsage::GenerateVerifyMac,
        Sign | Verify => key.usage == KeyUsage::SignVerify,
        GenerateMac | VerifyMac => key.usage == KeyUsage::GenerateVerifyMac,
        DeriveSharedSecret => key.usage == KeyUsage::KeyAgreement,
    }
}

/// The grant that was made by the same request before, if that had a name.
fn same_grant(
    reader: &Reader<'_>,
    key: KeyId,
    record: &GrantRecord,
) -> Result<Option<GrantId>, KeystoreError> {
    if record.name.is_none() {
        return Ok(None);
    }
    let known = reader.of_key::<GrantRecord>(key)?;
    known
        .iter()
        .find(|grant| grant.record.is_like(record))
        .map(|grant| grant_id(&grant.id))
        .transpose()
}

/// Errors: `LimitExceeded` if the key has as many grants as it may have.
fn check_room(reader: &Reader<'_>, key: KeyId) -> Result<(), KeystoreError> {
    let quota = Quota::GrantsPerKey;
    if reader.rows().count_of_key(Table::Grant, key)? >= quota.limit() {
        return Err(KeystoreError::LimitExceeded(quota));
    }
    Ok(())
}

fn insert(
    writer: &mut Writer<'_>,
    key: KeyId,
    record: &GrantRecord,
) -> Result<GrantId, KeystoreError> {
    let (mut id, halves) = ([0; 32], [random::id16()?, random::id16()?]);
    id.copy_from_slice(halves.as_flattened());
    writer.put(&id, Some(key), record)?;
    Ok(GrantId::from_bytes(id))
}

/// Errors: `GrantNotFound` if the key has no such grant.
fn find(reader: &Reader<'_>, key: KeyId, id: GrantId) -> Result<GrantRecord, KeystoreError> {
    let row = reader.rows().get(Table::Grant, id.as_bytes())?.filter(|row| row.owner == Some(key));
    let row = row.ok_or(AccessError::GrantNotFound(id))?;
    Ok(reader.open(&row)?.record)
}

fn grant_id(bytes: &[u8]) -> Result<GrantId, KeystoreError> {
    let id = bytes.try_into().map_err(|_| tampered(Table::Grant, bytes))?;
    Ok(GrantId::from_bytes(id))
}

fn entry(stored: Stored<GrantRecord>) -> Result<GrantEntry, KeystoreError> {
    let GrantRecord { grantee, retiring, operations, constraints, name, created, expires } =
        stored.record;
    Ok(GrantEntry {
        key_id: stored.owner.ok_or_else(|| tampered(Table::Grant, &stored.id))?,
        grant_id: grant_id(&stored.id)?,
        name,
        creation_date: created,
        grantee_principal: grantee,
        retiring_principal: retiring,
        issuing_account: ROOT_ARN,
        operations,
        constraints,
        expiration_date: expires,
    })
}

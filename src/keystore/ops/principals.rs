//! Policies of users and groups: what the account itself says about who may do what. AWS keeps
//! these in IAM, so the operations are our own.

use crate::keystore::access::decision::authorise_account;
use crate::keystore::engine::Keystore;
use crate::keystore::error::KeystoreError;
use crate::keystore::error::access::AccessError;
use crate::keystore::model::action::Action;
use crate::keystore::policy::{Kind, Named, Policy};
use crate::keystore::records::principal::{PrincipalEntry, PrincipalRecord};
use crate::keystore::storage::sealed::Writer;

impl Keystore {
    /// Gives a user or group a policy, replacing the one with the same name.
    /// Errors: `InvalidPrincipal`, `MalformedPolicy`, `Validation`, `LimitExceeded`,
    /// `AccessDenied`.
    pub fn put_principal_policy(
        &self,
        arn: &str,
        name: &str,
        policy: &str,
    ) -> Result<(), KeystoreError> {
        let arn = canonical(arn)?;
        check_name(name)?;
        Policy::parse(policy, Kind::Identity)?;
        self.of_account(Action::PutPrincipalPolicy, |writer| {
            let known = PrincipalRecord::find(writer, &arn)?;
            let mut record = known.unwrap_or_else(|| PrincipalRecord::new(arn.clone()));
            record.policies_mut().insert(name.to_owned(), policy.to_owned());
            record.save(writer)
        })?;
        log::info!("{arn} has a new policy '{name}'");
        Ok(())
    }

    /// A policy of a user or group, as it was given.
    /// Errors: `InvalidPrincipal`, `PolicyNotFound`, `AccessDenied`.
    pub fn get_principal_policy(&self, arn: &str, name: &str) -> Result<String, KeystoreError> {
        let arn = canonical(arn)?;
        self.operate(Action::GetPrincipalPolicy, None, |_| {
            authorise_account(self.caller(), Action::GetPrincipalPolicy)?;
            let record = self.read(|reader| PrincipalRecord::find(reader, &arn))?;
            let found = record.and_then(|mut record| record.policies_mut().remove(name));
            found.ok_or_else(|| AccessError::PolicyNotFound(name.to_owned()).into())
        })
    }

    /// Takes a policy from a user or group.
    /// Errors: `InvalidPrincipal`, `PolicyNotFound`, `AccessDenied`.
    pub fn delete_principal_policy(&self, arn: &str, name: &str) -> Result<(), KeystoreError> {
        let arn = canonical(arn)?;
        self.of_account(Action::DeletePrincipalPolicy, |writer| {
            let unknown = || AccessError::PolicyNotFound(name.to_owned());
            let mut record = PrincipalRecord::find(writer, &arn)?.ok_or_else(unknown)?;
            record.policies_mut().remove(name).ok_or_else(unknown)?;
            record.save(writer)
        })?;
        log::info!("{arn} has no policy '{name}' any more");
        Ok(())
    }

    /// All users and groups that have policies, by ARN.
    /// Errors: `AccessDenied`.
    pub fn list_principals(&self) -> Result<Vec<PrincipalEntry>, KeystoreError> {
        let stored = self.operate(Action::ListPrincipals, None, |_| {
            authorise_account(self.caller(), Action::ListPrincipals)?;
            self.read(|reader| reader.all::<PrincipalRecord>())
        })?;
        let mut entries: Vec<_> =
            stored.into_iter().map(|stored| stored.record.into_entry()).collect();
        entries.sort_by(|a, b| a.arn.cmp(&b.arn));
        Ok(entries)
    }

    /// One transaction that changes who may do what in the account.
    pub(in crate::keystore) fn of_account<T>(
        &self,
        action: Action,
        change: impl FnOnce(&mut Writer<'_>) -> Result<T, KeystoreError>,
    ) -> Result<T, KeystoreError> {
        self.operate(action, None, |_| {
            authorise_account(self.caller(), action)?;
            self.stop_if_dry()?;
            self.write(change)
        })
    }
}

fn canonical(arn: &str) -> Result<String, KeystoreError> {
    match Named::parse(arn) {
        Some(named) => Ok(named.as_str().to_owned()),
        None => Err(AccessError::InvalidPrincipal(arn.chars().take(256).collect()).into()),
    }
}

/// Source: the pattern of policyNameType in IAM's service model.
fn check_name(name: &str) -> Result<(), KeystoreError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
    if (1..=128).contains(&name.len()) && name.chars().all(allowed) {
        return Ok(());
    }
    Err(KeystoreError::Validation(
        "a policy name has 1 to 128 of a-z A-Z 0-9 _ + = , . @ -".to_owned(),
    ))
}

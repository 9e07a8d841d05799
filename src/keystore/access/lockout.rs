//! Nobody takes from themselves the right to change a key policy, unless they say so.

use crate::id::KeyId;
use crate::keystore::access::decision::authorise;
use crate::keystore::access::request::RequestContext;
use crate::keystore::access::rules::Subject;
use crate::keystore::error::KeystoreError;
use crate::keystore::error::access::AccessError;
use crate::keystore::model::action::Action;
use crate::keystore::policy::{Fact, Kind, Policy};
use crate::keystore::records::key::KeyRecord;
use crate::keystore::storage::sealed::Reader;

/// Whether a policy may take the right to change it from the caller.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LockoutCheck {
    /// It may not.
    #[default]
    Enforced,
    /// It may: `BypassPolicyLockoutSafetyCheck`.
    Bypassed,
}

impl LockoutCheck {
    /// The request of somebody who wants this check.
    pub(in crate::keystore) fn request_context(self) -> RequestContext<'static> {
        let bypassed = (self == Self::Bypassed).to_string();
        RequestContext::default().with(Fact::BypassPolicyLockoutSafetyCheck, bypassed)
    }
}

/// Gives a key a policy, unless that is malformed or locks the caller out.
pub(in crate::keystore) fn set(
    reader: &Reader<'_>,
    subject: Subject<'_>,
    key: KeyId,
    record: &mut KeyRecord,
    policy: &str,
    check: LockoutCheck,
) -> Result<(), KeystoreError> {
    Policy::parse(policy, Kind::Key)?;
    record.policy = Some(policy.to_owned());
    if check == LockoutCheck::Enforced {
        let again = authorise(
            reader,
            subject,
            Action::PutKeyPolicy,
            Some((key, record)),
            check.request_context(),
        );
        again.map_err(|error| match error {
            KeystoreError::AccessDenied(_) => AccessError::Lockout.into(),
            other => other,
        })?;
    }
    Ok(())
}

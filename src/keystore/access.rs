//! May a caller do this? The first step of every operation.

use super::Keystore;
use super::action::Action;
use super::cache::LiveKey;
use super::caller::Caller;
use super::context::EncryptionContext;
use super::error::KeystoreError;
use super::id::KeyArn;
use super::key::KeyRecord;
use super::record::Reader;
use crate::id::KeyId;

/// What a request says that conditions of policies may ask for.
#[derive(Debug, Clone, Copy, Default)]
#[expect(dead_code, reason = "policies read it")]
pub(super) struct Asked<'a> {
    /// The encryption context.
    pub(super) context: Option<&'a EncryptionContext>,
}

/// Errors: `AccessDenied`.
pub(super) fn authorise(
    _reader: &Reader<'_>,
    caller: &Caller,
    action: Action,
    key: Option<(KeyId, &KeyRecord)>,
    _asked: Asked<'_>,
) -> Result<(), KeystoreError> {
    if caller.principal.is_bound() {
        return Err(denied(caller, action, key.map(|(key, _)| key)));
    }
    Ok(())
}

/// The words of AWS for a refusal that nothing allows.
fn denied(caller: &Caller, action: Action, key: Option<KeyId>) -> KeystoreError {
    let resource = key.map_or_else(|| "*".to_owned(), |key| KeyArn(key).to_string());
    let permission = action.permission();
    KeystoreError::AccessDenied(format!(
        "User: {} is not authorized to perform: {permission} on resource: {resource} because no \
         key policy, identity-based policy or grant allows the {permission} action",
        caller.principal
    ))
}

impl Keystore {
    /// As [`authorise`], from memory.
    pub(super) fn authorise_live(
        &self,
        action: Action,
        live: &LiveKey,
        _asked: Asked<'_>,
    ) -> Result<(), KeystoreError> {
        if self.caller.principal.is_bound() {
            return Err(denied(&self.caller, action, Some(live.id)));
        }
        Ok(())
    }

    /// The same keystore for another caller.
    pub fn acting_for(&self, caller: Caller) -> Self {
        Self { inner: self.inner.clone(), caller }
    }

    /// The caller that this handle acts for.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }
}

//! Makes ciphertexts under the current material of a symmetric key.

use std::sync::Arc;

use crate::id::KeyId;
use crate::keystore::access::request::RequestContext;
use crate::keystore::engine::Keystore;
use crate::keystore::engine::cache::LiveKey;
use crate::keystore::engine::frame::AuditDetails;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::action::Action;
use crate::keystore::model::blob::{self, CiphertextBlob};
use crate::keystore::model::context::EncryptionContext;
use crate::keystore::model::id::KeyRef;
use crate::keystore::records::algorithm::check_symmetric;
use crate::keystore::records::key::{KeyRecord, Operation, permit};

impl Keystore {
    /// A symmetric key with which the caller may make ciphertexts with the context of the request.
    pub(in crate::keystore) fn usable_for_making(
        &self,
        action: Action,
        key: &KeyRef,
        request_context: RequestContext<'_>,
        details: &mut AuditDetails,
    ) -> Result<KeyId, KeystoreError> {
        let live = self.admitted_for_making(action, key, request_context, details)?;
        self.stop_if_dry()?;
        Ok(live.id)
    }

    /// As [`Keystore::usable_for_making`], also for a dry run.
    pub(in crate::keystore) fn admitted_for_making(
        &self,
        action: Action,
        key: &KeyRef,
        request_context: RequestContext<'_>,
        details: &mut AuditDetails,
    ) -> Result<Arc<LiveKey>, KeystoreError> {
        let reserved = request_context.context.is_some_and(EncryptionContext::is_reserved);
        if reserved && !self.caller().volume_context {
            return Err(KeystoreError::AccessDenied(
                "encryption context keys that start with 'kmsfs:' are reserved for volumes: an access \
                 key made by 'kmsfs access-key create --for-volumes' may use them"
                    .into(),
            ));
        }
        let live =
            self.admitted(action, self.resolve(key)?, request_context.naming(key), details)?;
        check_symmetric(action, live.record.spec)?;
        details.material = Some(live.record.current);
        Ok(live)
    }

    /// The plaintext under the current material of a symmetric key that the caller may use. Nothing
    /// lies between the look for what is current and the use of it: another process may have rotated
    /// the key while this one made the plaintext, and have retired the material.
    pub(in crate::keystore) fn wrap(
        &self,
        key: KeyId,
        context: &EncryptionContext,
        plaintext: &[u8],
        details: &mut AuditDetails,
    ) -> Result<CiphertextBlob, KeystoreError> {
        let of_volume = self.caller().volume_context && context.is_reserved();
        if of_volume && self.caller().source.is_remote() {
            self.note_served_host()?;
        }
        let live = self.about_to_wrap(key, of_volume)?;
        details.material = Some(live.record.current);
        wrap(&live, context, plaintext)
    }

    /// A key as it is now. Ciphertexts that are no headers of files are noted durably, before the
    /// material makes the first: nothing is known of these again, and it must not go unasked.
    fn about_to_wrap(&self, key: KeyId, of_volume: bool) -> Result<Arc<LiveKey>, KeystoreError> {
        self.look_if_due()?;
        loop {
            let live = self.live(key)?;
            permit(Operation::Crypto, key, live.record.state_at(self.caller().time().into()))?;
            let material = live.record.current;
            if of_volume || live.record.programs.contains(&material) {
                return Ok(live);
            }
            self.write(|writer| {
                let mut record = KeyRecord::find(writer, key)?;
                // Another process may have rotated it by now: then its new material is noted next.
                match record.current == material && record.programs.insert(material) {
                    true => record.save(writer, key),
                    false => Ok(()),
                }
            })?;
        }
    }
}

fn wrap(
    key: &LiveKey,
    context: &EncryptionContext,
    plaintext: &[u8],
) -> Result<CiphertextBlob, KeystoreError> {
    let current = key.record.current;
    if let Some(link) = &key.link {
        let aad = blob::token_aad(key.id, current, context);
        let sealed = link.seal((key.id, current), &aad, plaintext)?;
        let blob = CiphertextBlob::from_token(key.id, current, &sealed);
        return blob.ok_or(KeystoreError::InvalidCiphertext);
    }
    let sealed = key.symmetric(current)?.seal(&blob::aad(key.id, current, context), plaintext)?;
    CiphertextBlob::from_parts(key.id, current, &sealed)
}

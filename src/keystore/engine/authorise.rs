//! Decisions from memory: the engine's rules, parsed once and kept until something changes.

use std::sync::Arc;

use crate::id::KeyId;
use crate::keystore::access::decision::{self, Decision};
use crate::keystore::access::request::RequestContext;
use crate::keystore::access::rules::{KeyRules, RuleSource};
use crate::keystore::engine::cache::LiveKey;
use crate::keystore::engine::keystore::Keystore;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::action::Action;
use crate::keystore::model::context::EncryptionContext;
use crate::keystore::policy::Policy;
use crate::keystore::records::grant::{self, Grants};
use crate::keystore::records::key::KeyRecord;
use crate::keystore::records::principal::PrincipalRecord;

impl RuleSource for Keystore {
    fn of_key(&self, key: KeyId, record: &KeyRecord) -> Result<Arc<KeyRules>, KeystoreError> {
        self.remembered(
            |known| known.keys.get(&key).cloned(),
            |reader| KeyRules::load(reader, key, record),
            |known, rules| drop(known.keys.insert(key, rules)),
        )
    }

    fn of_principal(&self, arn: &str) -> Result<Arc<[Policy]>, KeystoreError> {
        self.remembered(
            |known| known.principals.get(arn).cloned(),
            |reader| PrincipalRecord::policies_of(reader, arn),
            |known, policies| drop(known.principals.insert(arn.to_owned(), policies)),
        )
    }

    fn grants(&self, key: KeyId) -> Result<Arc<Grants>, KeystoreError> {
        self.remembered(
            |known| known.grants.get(&key).cloned(),
            |reader| Grants::load(reader, key),
            |known, grants| drop(known.grants.insert(key, grants)),
        )
    }

    fn check_tokens(&self, tokens: &[String]) -> Result<(), KeystoreError> {
        self.read(|reader| grant::check_tokens(reader, tokens))
    }
}

impl Keystore {
    /// As `access::authorise`, from memory.
    pub(super) fn authorise_live(
        &self,
        action: Action,
        live: &LiveKey,
        request_context: RequestContext<'_>,
    ) -> Result<(), KeystoreError> {
        decision::authorise_by(
            self,
            self.subject(),
            action,
            (live.id, &live.record),
            &request_context,
        )
    }

    /// May the caller, a user of a volume, do this to a key? Does nothing else and writes nothing
    /// down.
    /// Errors: `KeyNotFound`, `InvalidGrantToken`; a refusal is no error.
    pub fn authorise(
        &self,
        action: Action,
        key: KeyId,
        context: &EncryptionContext,
    ) -> Result<Decision, KeystoreError> {
        let live = self.live(key)?;
        // Volumes name keys by their ids, and move files to other keys only.
        let mut request_context = RequestContext::symmetric(context).naming_maybe(None);
        if matches!(action, Action::ReEncryptFrom | Action::ReEncryptTo) {
            request_context = request_context.on_same_key(false);
        }
        decision::decide(self, self.subject(), action, (live.id, &live.record), &request_context)
    }

    /// Does a policy or a grant name a group of this machine?
    /// Errors: `Database`.
    pub fn names_groups(&self) -> Result<bool, KeystoreError> {
        self.remembered(
            |known| known.names_groups,
            |reader| {
                // JSON may write any character as an escape: then nobody looks closer.
                let mention = |text: &str| text.contains("group/unix/") || text.contains('\\');
                let keys = reader.all::<KeyRecord>()?;
                Ok(keys.iter().any(|key| mention(key.record.policy_text()))
                    || PrincipalRecord::any_is(reader, mention)?
                    || grant::any_is_for(reader, mention)?)
            },
            |known, answer| known.names_groups = Some(answer),
        )
    }
}

//! What a request says under the condition keys of policies.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::grant::GrantRequest;
use super::rules::KeyRules;
use crate::keystore::caller::{ACCOUNT, Caller, Principal, Source};
use crate::keystore::context::EncryptionContext;
use crate::keystore::id::{AliasName, KeyRef};
use crate::keystore::key::KeyRecord;
use crate::keystore::policy::{ConditionKey, Fact, Values};
use crate::keystore::spec::{EncryptionAlgorithm, MessageType, SigningAlgorithm};
use crate::keystore::time::UnixTime;

/// What the arguments of a request say that conditions of policies may ask for.
#[derive(Debug, Clone, Default)]
pub(in crate::keystore) struct Asked<'a> {
    /// The encryption context.
    pub(in crate::keystore) context: Option<&'a EncryptionContext>,
    /// The alias that the key is named by.
    pub(in crate::keystore) alias: Option<&'a AliasName>,
    /// The tags that it brings.
    pub(in crate::keystore) tags: Option<&'a BTreeMap<String, String>>,
    /// The grant that it makes.
    pub(in crate::keystore) grant: Option<GrantRequest<'a>>,
    /// What it is about gives the caller the right: to retire a grant that says so.
    pub(in crate::keystore) entitled: bool,
    /// Everything else, by condition key.
    pub(in crate::keystore) facts: Vec<(Fact, Cow<'a, str>)>,
}

impl<'a> Asked<'a> {
    /// A request with an encryption context.
    pub(in crate::keystore) fn context(context: &'a EncryptionContext) -> Self {
        Self { context: Some(context), ..Self::default() }
    }

    /// A request to a symmetric key, with an encryption context.
    pub(in crate::keystore) fn symmetric(context: &'a EncryptionContext) -> Self {
        let algorithm = EncryptionAlgorithm::SymmetricDefault.as_str();
        Self::context(context).with(Fact::EncryptionAlgorithm, algorithm)
    }

    /// A request to sign, or to check a signature.
    pub(in crate::keystore) fn signing(
        key: &'a KeyRef,
        algorithm: SigningAlgorithm,
        form: MessageType,
    ) -> Self {
        let asked = Self::default().naming(key).with(Fact::SigningAlgorithm, algorithm.as_str());
        asked.with(Fact::MessageType, form.as_str())
    }

    /// The same request, which names its key in this way.
    pub(in crate::keystore) fn naming(mut self, key: &'a KeyRef) -> Self {
        if let KeyRef::Alias(alias) = key {
            self.alias = Some(alias);
        }
        self
    }

    /// The same request with a value more under a condition key.
    pub(in crate::keystore) fn with(mut self, fact: Fact, value: impl Into<Cow<'a, str>>) -> Self {
        self.facts.push((fact, value.into()));
        self
    }
}

/// What a decision looked at: how long it holds, and for which contexts.
#[derive(Default)]
pub(in crate::keystore) struct Looked {
    context: Cell<bool>,
    clock: Cell<bool>,
}

impl Looked {
    /// Notes that another encryption context might have been decided otherwise.
    pub(in crate::keystore) fn at_context(&self) {
        self.context.set(true);
    }

    pub(in crate::keystore) fn was_at_context(&self) -> bool {
        self.context.get()
    }

    /// A decision by the clock holds for a second.
    pub(in crate::keystore) fn time_limit(&self, now: SystemTime) -> Option<SystemTime> {
        self.clock.get().then(|| now + Duration::from_secs(1))
    }
}

/// All that is known about a request.
pub(in crate::keystore) struct Facts<'a> {
    pub(in crate::keystore) caller: &'a Caller,
    pub(in crate::keystore) asked: &'a Asked<'a>,
    pub(in crate::keystore) key: Option<(&'a KeyRecord, &'a KeyRules)>,
}

impl<'a> Facts<'a> {
    /// The values under a condition key, and a note of what was looked at.
    pub(in crate::keystore) fn values(&self, key: &ConditionKey, looked: &Looked) -> Values<'a> {
        match key {
            ConditionKey::EncryptionContext(name) => {
                looked.at_context();
                self.asked.context.map_or_else(Vec::new, |context| pair(context.pairs(), name))
            }
            ConditionKey::ResourceTag(name) => {
                self.key.map_or_else(Vec::new, |(record, _)| pair(texts(&record.tags), name))
            }
            ConditionKey::RequestTag(name) => {
                self.asked.tags.map_or_else(Vec::new, |tags| pair(texts(tags), name))
            }
            ConditionKey::Fact(fact) => self.fact(*fact, looked),
        }
    }

    fn fact(&self, fact: Fact, looked: &Looked) -> Values<'a> {
        match fact {
            Fact::EncryptionContextKeys => {
                looked.at_context();
                let pairs = self.asked.context.into_iter().flat_map(EncryptionContext::pairs);
                pairs.map(|(name, _)| Cow::Borrowed(name)).collect()
            }
            Fact::CurrentTime | Fact::EpochTime => {
                looked.clock.set(true);
                let now = UnixTime::from(self.caller.time());
                let seconds = fact == Fact::EpochTime;
                one(if seconds { now.seconds().to_string() } else { now.to_string() })
            }
            _ => {
                let said = self.asked.facts.iter().filter(|(known, _)| *known == fact);
                let said: Values<'a> = said.map(|(_, value)| value.clone()).collect();
                if !said.is_empty() {
                    return said;
                }
                let of_caller = self.of_caller(fact);
                if of_caller.is_empty() { self.of_key(fact) } else { of_caller }
            }
        }
    }

    fn of_caller(&self, fact: Fact) -> Values<'a> {
        let caller = self.caller;
        let name = user_name(&caller.principal);
        match fact {
            Fact::ViaService => {
                caller.via.map(|via| Cow::Borrowed(via.as_str())).into_iter().collect()
            }
            Fact::GrantIsForAwsResource => one(caller.via.is_some().to_string()),
            Fact::CallerAccount | Fact::PrincipalAccount => one(ACCOUNT),
            Fact::PrincipalArn => one(caller.principal.arn()),
            Fact::PrincipalType => one(if name.is_some() { "User" } else { "Account" }),
            Fact::Username => name.map(Cow::Owned).into_iter().collect(),
            Fact::UserId => one(name.unwrap_or_else(|| ACCOUNT.to_owned())),
            Fact::Source => one(caller.source.as_str()),
            Fact::SourceIp => {
                caller.source_ip.map(|ip| ip.to_string().into()).into_iter().collect()
            }
            Fact::SecureTransport if caller.source == Source::Network => {
                one(caller.secure_transport.to_string())
            }
            Fact::TagKeys => {
                let tags = self.asked.tags.into_iter().flat_map(BTreeMap::keys);
                tags.map(|tag| Cow::Borrowed(tag.as_str())).collect()
            }
            Fact::RequestAlias => {
                let alias = self.asked.alias.into_iter();
                alias.map(|alias| Cow::Borrowed(alias.as_str())).collect()
            }
            Fact::GrantOperations => {
                let operations = self.asked.grant.iter().flat_map(|grant| grant.operations);
                operations.map(|operation| Cow::Borrowed(operation.as_str())).collect()
            }
            _ => Vec::new(),
        }
    }

    fn of_key(&self, fact: Fact) -> Values<'a> {
        let Some((record, rules)) = self.key else { return Vec::new() };
        match fact {
            Fact::KeySpec => one(record.spec.as_str()),
            Fact::KeyUsage => one(record.usage.as_str()),
            Fact::KeyOrigin => one(record.origin.as_str()),
            Fact::MultiRegion => one(rules.multi_region.to_string()),
            Fact::ResourceAliases => {
                rules.aliases.iter().map(|alias| Cow::Borrowed(alias.as_str())).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// What stands after `user/` in the ARN; the root of the account has no name.
fn user_name(principal: &Principal) -> Option<String> {
    match principal {
        Principal::Owner | Principal::Service | Principal::Root => None,
        Principal::Unix { uid } => Some(format!("unix/{uid}")),
        Principal::User(name) => Some(name.clone()),
    }
}

/// The value of a pair; its name in exactly this case, or else in any.
fn pair<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)> + Clone, name: &str) -> Values<'a> {
    let exact = pairs.clone().find(|(known, _)| *known == name);
    let lower = || name.to_lowercase();
    let found = exact.or_else(|| pairs.clone().find(|(known, _)| known.to_lowercase() == lower()));
    found.map(|(_, value)| Cow::Borrowed(value)).into_iter().collect()
}

fn texts(tags: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> + Clone {
    tags.iter().map(|(key, value)| (key.as_str(), value.as_str()))
}

fn one<'a>(value: impl Into<Cow<'a, str>>) -> Values<'a> {
    vec![value.into()]
}

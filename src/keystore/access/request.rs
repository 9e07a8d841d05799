//! What a request says under the condition keys of policies.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use crate::keystore::access::rules::KeyRules;
use crate::keystore::access::table::SuppliedKey;
use crate::keystore::model::action::Action;
use crate::keystore::model::caller::{ACCOUNT, Caller, Principal, Source};
use crate::keystore::model::context::EncryptionContext;
use crate::keystore::model::id::{AliasName, KeyRef};
use crate::keystore::model::spec::{EncryptionAlgorithm, MessageType, SigningAlgorithm};
use crate::keystore::model::time::UnixTime;
use crate::keystore::policy::{ConditionKey, Fact, Values};
use crate::keystore::records::grant::{Constraints, GrantRequest};
use crate::keystore::records::key::KeyRecord;

/// What the arguments of a request say that conditions of policies may ask for.
#[derive(Debug, Clone, Default)]
pub(in crate::keystore) struct RequestContext<'a> {
    /// The encryption context.
    pub(in crate::keystore) context: Option<&'a EncryptionContext>,
    /// The alias by which it names its key, if by one; `None` if the request does not say.
    pub(in crate::keystore) named: Option<Option<&'a AliasName>>,
    /// The tags that it brings.
    pub(in crate::keystore) tags: Option<&'a BTreeMap<String, String>>,
    /// The names of the tags that it takes away.
    pub(in crate::keystore) untagged: Option<&'a [&'a str]>,
    /// The grant that it makes.
    pub(in crate::keystore) grant: Option<GrantRequest<'a>>,
    /// The constraints of the grant that it makes or retires.
    pub(in crate::keystore) constraints: Option<&'a Constraints>,
    /// The target itself gives the caller the right: a grant says who may retire it.
    pub(in crate::keystore) entitled: bool,
    /// Everything else, by condition key. Without a value: the request has none.
    pub(in crate::keystore) facts: Vec<(Fact, Option<Cow<'a, str>>)>,
}

impl<'a> RequestContext<'a> {
    /// A request to a symmetric key, with an encryption context.
    pub(in crate::keystore) fn symmetric(context: &'a EncryptionContext) -> Self {
        Self::encrypting(EncryptionAlgorithm::SymmetricDefault, context)
    }

    /// A request by an algorithm of RSA, or of symmetric keys.
    pub(in crate::keystore) fn encrypting(
        algorithm: EncryptionAlgorithm,
        context: &'a EncryptionContext,
    ) -> Self {
        Self { context: Some(context), ..Self::default() }
            .with(Fact::EncryptionAlgorithm, algorithm.as_str())
    }

    /// One half of ReEncrypt: is the other half about the same key?
    pub(in crate::keystore) fn on_same_key(self, same: bool) -> Self {
        self.with(Fact::ReEncryptOnSameKey, same.to_string())
    }

    /// A request that brings a key, or its role, to a Region.
    pub(in crate::keystore) fn to_region(action: Action, region: impl Into<Cow<'a, str>>) -> Self {
        let to_primary = action == Action::UpdatePrimaryRegion;
        let fact = if to_primary { Fact::PrimaryRegion } else { Fact::ReplicaRegion };
        Self::default().with(fact, region)
    }

    /// A request to sign, or to check a signature.
    pub(in crate::keystore) fn signing(
        key: &'a KeyRef,
        algorithm: SigningAlgorithm,
        form: MessageType,
    ) -> Self {
        let request_context =
            Self::default().naming(key).with(Fact::SigningAlgorithm, algorithm.as_str());
        request_context.with(Fact::MessageType, form.as_str())
    }

    /// The same request, which names its key in this way.
    pub(in crate::keystore) fn naming(self, key: &'a KeyRef) -> Self {
        self.naming_maybe(Some(key))
    }

    /// The same request, which need not name its key.
    pub(in crate::keystore) fn naming_maybe(mut self, key: Option<&'a KeyRef>) -> Self {
        self.named = Some(match key {
            Some(KeyRef::Alias(alias)) => Some(alias),
            Some(KeyRef::Id(_)) | None => None,
        });
        self
    }

    /// The same request about a grant with these constraints.
    pub(in crate::keystore) fn constrained(mut self, constraints: &'a Constraints) -> Self {
        let Constraints { equals, subset } = constraints;
        let equals = equals.as_ref().map(|_| "EncryptionContextEquals");
        let subset = subset.as_ref().map(|_| "EncryptionContextSubset");
        self.constraints = Some(constraints);
        let fact = Fact::GrantConstraintType;
        self.with_any(fact, equals).with_any(fact, subset)
    }

    /// The same request with one more value under a condition key.
    pub(in crate::keystore) fn with(self, fact: Fact, value: impl Into<Cow<'a, str>>) -> Self {
        self.with_any(fact, Some(value))
    }

    /// The same request, with a value under a condition key if it has one.
    pub(in crate::keystore) fn with_any(
        mut self,
        fact: Fact,
        value: Option<impl Into<Cow<'a, str>>>,
    ) -> Self {
        self.facts.push((fact, value.map(Into::into)));
        self
    }

    /// True if the request states a value for this condition key, or states that it has none.
    pub(in crate::keystore) fn supplies(&self, key: SuppliedKey) -> bool {
        match key {
            SuppliedKey::EncryptionContext | SuppliedKey::Fact(Fact::EncryptionContextKeys) => {
                self.context.is_some() || self.constraints.is_some()
            }
            SuppliedKey::ResourceTag | SuppliedKey::RequestTag => self.tags.is_some(),
            SuppliedKey::Fact(Fact::TagKeys) => self.tags.is_some() || self.untagged.is_some(),
            SuppliedKey::Fact(Fact::RequestAlias) => self.named.is_some(),
            SuppliedKey::Fact(Fact::GrantOperations) => self.grant.is_some(),
            SuppliedKey::Fact(fact) => self.facts.iter().any(|(known, _)| *known == fact),
        }
    }

    /// The encryption contexts that it concerns: its own, or those of a grant's constraints.
    fn contexts(&self) -> impl Iterator<Item = &'a EncryptionContext> {
        let bound = self.constraints.into_iter();
        let bound = bound.flat_map(|bound| [&bound.equals, &bound.subset]).flatten();
        self.context.into_iter().chain(bound)
    }
}

/// What a decision depended on: for how long it holds, and for which contexts.
#[derive(Default)]
pub(in crate::keystore) struct DecisionScope {
    context: Cell<bool>,
    clock: Cell<bool>,
}

impl DecisionScope {
    /// Notes that another encryption context might have been decided otherwise.
    pub(in crate::keystore) fn note_context(&self) {
        self.context.set(true);
    }

    pub(in crate::keystore) fn depends_on_context(&self) -> bool {
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
    pub(in crate::keystore) request_context: &'a RequestContext<'a>,
    pub(in crate::keystore) key: Option<(&'a KeyRecord, &'a KeyRules)>,
}

impl<'a> Facts<'a> {
    /// The values under a condition key; notes what the decision then depends on.
    pub(in crate::keystore) fn values(
        &self,
        key: &ConditionKey,
        scope: &DecisionScope,
    ) -> Values<'a> {
        match key {
            ConditionKey::EncryptionContext(name) => {
                scope.note_context();
                self.request_context
                    .contexts()
                    .flat_map(|context| pair(context.pairs(), name))
                    .collect()
            }
            ConditionKey::ResourceTag(name) => {
                // A key that is made will have the tags that it is made with.
                let tags = self.key.map(|(record, _)| &record.tags).or(self.request_context.tags);
                tags.map_or_else(Vec::new, |tags| pair(texts(tags), name))
            }
            ConditionKey::RequestTag(name) => {
                self.request_context.tags.map_or_else(Vec::new, |tags| pair(texts(tags), name))
            }
            ConditionKey::Fact(fact) => self.fact(*fact, scope),
        }
    }

    fn fact(&self, fact: Fact, scope: &DecisionScope) -> Values<'a> {
        match fact {
            Fact::EncryptionContextKeys => {
                scope.note_context();
                let pairs = self.request_context.contexts().flat_map(EncryptionContext::pairs);
                pairs.map(|(name, _)| Cow::Borrowed(name)).collect()
            }
            Fact::CurrentTime | Fact::EpochTime => {
                scope.clock.set(true);
                let now = UnixTime::from(self.caller.time());
                let seconds = fact == Fact::EpochTime;
                one(if seconds { now.seconds().to_string() } else { now.to_string() })
            }
            _ => {
                let said = self.request_context.facts.iter().filter(|(known, _)| *known == fact);
                let said: Values<'a> = said.filter_map(|(_, value)| value.clone()).collect();
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
                let tags = self.request_context.tags.into_iter().flat_map(BTreeMap::keys);
                let untagged = self.request_context.untagged.into_iter().flatten().copied();
                tags.map(String::as_str).chain(untagged).map(Cow::Borrowed).collect()
            }
            Fact::RequestAlias => {
                let alias = self.request_context.named.flatten().into_iter();
                alias.map(|alias| Cow::Borrowed(alias.as_str())).collect()
            }
            Fact::GrantOperations => {
                let operations =
                    self.request_context.grant.iter().flat_map(|grant| grant.operations);
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
            Fact::MultiRegionKeyType => {
                record.regions.iter().map(|regions| regions.key_type().into()).collect()
            }
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

/// The values of the pairs with this name, in any case. All of them: who may choose which one counts
/// passes a Deny by adding another.
fn pair<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>, name: &str) -> Values<'a> {
    let same = |known: &str| match known.is_ascii() && name.is_ascii() {
        true => known.eq_ignore_ascii_case(name),
        false => known.to_lowercase() == name.to_lowercase(),
    };
    let named = pairs.filter(|(known, _)| same(known));
    named.map(|(_, value)| Cow::Borrowed(value)).collect()
}

fn texts(tags: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    tags.iter().map(|(key, value)| (key.as_str(), value.as_str()))
}

fn one<'a>(value: impl Into<Cow<'a, str>>) -> Values<'a> {
    vec![value.into()]
}

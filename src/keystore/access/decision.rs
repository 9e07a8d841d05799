//! The decision about one request, by the rules of a transaction or of an open keystore.

use std::time::SystemTime;

use crate::id::KeyId;
use crate::keystore::access::request::{DecisionScope, Facts, RequestContext};
use crate::keystore::access::rules::{KeyRules, RuleSource, Subject};
use crate::keystore::access::table;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::action::Action;
use crate::keystore::model::caller::{Caller, Principal, UNKNOWN_PROCESS, group_arn};
use crate::keystore::model::id::{AliasName, KeyArn};
use crate::keystore::model::spec::GrantOperation;
use crate::keystore::policy::{ConditionKey, Evaluation, Request, Requester};
use crate::keystore::records::grant::{GrantQuery, Grants};
use crate::keystore::records::key::KeyRecord;
use crate::keystore::storage::sealed::Reader;

/// Whether a caller may, and for how long that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Why not.
    pub denied: Option<String>,
    /// When it has to be asked again; `None` for as long as the keystore does not change.
    pub until: Option<SystemTime>,
    /// The decision holds for every encryption context.
    pub any_context: bool,
}

/// May `subject` do this, judged by what one transaction sees?
/// Errors: `AccessDenied`, `InvalidGrantToken`.
pub(in crate::keystore) fn authorise(
    reader: &Reader<'_>,
    subject: Subject<'_>,
    action: Action,
    key: Option<(KeyId, &KeyRecord)>,
    request_context: RequestContext<'_>,
) -> Result<(), KeystoreError> {
    allowed(
        DecisionInput { rules: reader, subject, action, request_context: &request_context }
            .judge(key)?,
    )
}

/// May `subject` do this to an alias? Its key is asked about separately, as in AWS.
/// Errors: `AccessDenied`.
pub(in crate::keystore) fn authorise_alias(
    reader: &Reader<'_>,
    subject: Subject<'_>,
    action: Action,
    alias: &AliasName,
) -> Result<(), KeystoreError> {
    let request_context = RequestContext::default();
    let input = DecisionInput { rules: reader, subject, action, request_context: &request_context };
    allowed(input.judge_without_key(&alias.arn())?)
}

/// May `caller` change who may do what in the account? Its owner and its root may, nobody else.
/// Errors: `AccessDenied`.
pub(in crate::keystore) fn authorise_account(
    caller: &Caller,
    action: Action,
) -> Result<(), KeystoreError> {
    match caller.principal {
        Principal::Owner | Principal::Root => Ok(()),
        _ => {
            let permission = action.permission();
            Err(KeystoreError::AccessDenied(format!(
                "User: {} is not authorized to perform: {permission} on resource: * because only \
                 the root of the account may",
                caller.principal
            )))
        }
    }
}

/// As [`authorise`], by the rules of an open keystore, which may be in memory.
/// Errors: `AccessDenied`, `InvalidGrantToken`; those of the source.
pub(in crate::keystore) fn authorise_by(
    rules: &dyn RuleSource,
    subject: Subject<'_>,
    action: Action,
    key: (KeyId, &KeyRecord),
    request_context: &RequestContext<'_>,
) -> Result<(), KeystoreError> {
    allowed(decide(rules, subject, action, key, request_context)?)
}

/// Decides whether a caller may do this to a key. A refusal is no error.
/// Errors: `InvalidGrantToken`; those of the source.
pub(in crate::keystore) fn decide(
    rules: &dyn RuleSource,
    subject: Subject<'_>,
    action: Action,
    key: (KeyId, &KeyRecord),
    request_context: &RequestContext<'_>,
) -> Result<Decision, KeystoreError> {
    DecisionInput { rules, subject, action, request_context }.judge(Some(key))
}

fn allowed(decision: Decision) -> Result<(), KeystoreError> {
    decision.denied.map_or(Ok(()), |words| Err(KeystoreError::AccessDenied(words)))
}

/// One request, and where the rules for it are found.
struct DecisionInput<'a> {
    rules: &'a dyn RuleSource,
    subject: Subject<'a>,
    action: Action,
    request_context: &'a RequestContext<'a>,
}

/// Why a request is refused.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refusal {
    KeyPolicy,
    IdentityPolicy,
    Nothing,
    NothingInAccount,
    /// The request is not known well enough to decide.
    MissingConditionKeys,
    /// Nor is who asks.
    UnknownProcess,
}

impl DecisionInput<'_> {
    fn judge(&self, key: Option<(KeyId, &KeyRecord)>) -> Result<Decision, KeystoreError> {
        let missing =
            table::of_request(self.action).iter().find(|key| !self.request_context.supplies(**key));
        debug_assert!(missing.is_none(), "{} does not say {missing:?}", self.action);
        if !self.subject.caller.grant_tokens.is_empty() {
            self.rules.check_tokens(&self.subject.caller.grant_tokens)?;
        }
        if !self.subject.caller.principal.is_bound() {
            return Ok(Decision { denied: None, until: None, any_context: true });
        }
        if missing.is_some() {
            // Otherwise a Deny on that key would be bypassed.
            return Ok(self.refused(Refusal::MissingConditionKeys, "*", &DecisionScope::default()));
        }
        if self.subject.caller.unknown {
            return Ok(self.refused_unknown("*"));
        }
        let Some((id, record)) = key else { return self.judge_without_key("*") };
        let rules = self.rules.of_key(id, record)?;
        self.judge_key(id, record, &rules)
    }

    fn judge_key(
        &self,
        id: KeyId,
        record: &KeyRecord,
        rules: &KeyRules,
    ) -> Result<Decision, KeystoreError> {
        let scope = DecisionScope::default();
        let facts = Facts {
            caller: self.subject.caller,
            request_context: self.request_context,
            key: Some((record, rules)),
        };
        let conditions = |key: &ConditionKey| facts.values(key, &scope);
        let (arn, groups, resource) = (self.arn(), self.groups(), KeyArn(id).to_string());
        let requester = Requester { arn: &arn, groups: &groups };
        let action = self.action.permission();
        let request = Request { action, resource: &resource, requester, conditions: &conditions };
        let by_key = rules.policy.evaluate(&request);
        if let Evaluation::Deny(_) = by_key {
            return Ok(self.refused(Refusal::KeyPolicy, &resource, &scope));
        }
        let by_account = self.evaluate_account(&request)?;
        if let Evaluation::Deny(_) = by_account {
            return Ok(self.refused(Refusal::IdentityPolicy, &resource, &scope));
        }
        if by_key == Evaluation::Allow
            || (by_key == Evaluation::Delegated && by_account == Evaluation::Allow)
        {
            return Ok(self.permitted(&scope, None));
        }
        let grants = self.rules.grants(id)?;
        if self.request_context.entitled {
            return Ok(self.permitted(&scope, None));
        }
        let granted = self.granted(&grants, requester, by_account == Evaluation::Allow, &scope);
        Ok(match granted {
            Some(until) => self.permitted(&scope, until),
            None => self.refused(Refusal::Nothing, &resource, &scope),
        })
    }

    fn judge_without_key(&self, resource: &str) -> Result<Decision, KeystoreError> {
        let scope = DecisionScope::default();
        if !self.subject.caller.principal.is_bound() {
            return Ok(self.permitted(&scope, None));
        }
        if self.subject.caller.unknown {
            return Ok(self.refused_unknown(resource));
        }
        let facts =
            Facts { caller: self.subject.caller, request_context: self.request_context, key: None };
        let conditions = |key: &ConditionKey| facts.values(key, &scope);
        let (arn, groups) = (self.arn(), self.groups());
        let requester = Requester { arn: &arn, groups: &groups };
        let action = self.action.permission();
        let request = Request { action, resource, requester, conditions: &conditions };
        Ok(match self.evaluate_account(&request)? {
            Evaluation::Deny(_) => self.refused(Refusal::IdentityPolicy, resource, &scope),
            Evaluation::Allow => self.permitted(&scope, None),
            _ if requester.is_root() => self.permitted(&scope, None),
            _ => self.refused(Refusal::NothingInAccount, resource, &scope),
        })
    }

    /// What the policies for the caller and its groups say, of this keystore and of the account's.
    fn evaluate_account(&self, request: &Request<'_>) -> Result<Evaluation, KeystoreError> {
        let mut evaluation = Evaluation::NoMatch;
        for arn in std::iter::once(request.requester.arn)
            .chain(request.requester.groups.iter().map(String::as_str))
        {
            for rules in std::iter::once(self.rules).chain(self.subject.account) {
                let policies = rules.of_principal(arn)?;
                let all = policies.iter().map(|policy| policy.evaluate(request));
                evaluation = all.max().unwrap_or(Evaluation::NoMatch).max(evaluation);
            }
        }
        Ok(evaluation)
    }

    /// The end of the grant that allows it, if one does.
    fn granted(
        &self,
        grants: &Grants,
        requester: Requester<'_>,
        by_account: bool,
        scope: &DecisionScope,
    ) -> Option<Option<SystemTime>> {
        // A grant says itself who may retire it.
        let operation = self.action.as_str().parse().ok()?;
        if operation == GrantOperation::RetireGrant {
            return None;
        }
        let context = self.request_context.context;
        let query = GrantQuery {
            requester,
            by_account,
            operation,
            context,
            child: self.request_context.grant,
        };
        let found = grants.allowing(&query, self.subject.caller.time());
        if grants.depend_on_context(requester) {
            scope.note_context();
        }
        found.map(|grant| grant.expires.map(SystemTime::from))
    }

    fn arn(&self) -> String {
        self.subject.caller.principal.arn()
    }

    fn groups(&self) -> Vec<String> {
        self.subject.caller.groups.iter().map(|gid| group_arn(*gid)).collect()
    }

    fn permitted(&self, scope: &DecisionScope, end: Option<SystemTime>) -> Decision {
        let until = [scope.time_limit(self.subject.caller.time()), end].into_iter().flatten().min();
        Decision { denied: None, until, any_context: !scope.depends_on_context() }
    }

    /// A Deny that names users or groups would not match a process whose identity is unknown.
    fn refused_unknown(&self, resource: &str) -> Decision {
        self.refused(Refusal::UnknownProcess, resource, &DecisionScope::default())
    }

    /// A refusal, in the words of AWS.
    fn refused(&self, by: Refusal, resource: &str, scope: &DecisionScope) -> Decision {
        let permission = self.action.permission();
        let why = match by {
            Refusal::KeyPolicy => "with an explicit deny in a resource-based policy".to_owned(),
            Refusal::IdentityPolicy => {
                "with an explicit deny in an identity-based policy".to_owned()
            }
            Refusal::Nothing => format!(
                "because no key policy, identity-based policy or grant allows the {permission} \
                 action"
            ),
            Refusal::NothingInAccount => {
                format!("because no identity-based policy allows the {permission} action")
            }
            Refusal::MissingConditionKeys => {
                "because the request lacks condition keys of its operation".into()
            }
            Refusal::UnknownProcess => UNKNOWN_PROCESS.into(),
        };
        let words = format!(
            "User: {} is not authorized to perform: {permission} on resource: {resource} {why}",
            self.subject.caller.principal
        );
        Decision { denied: Some(words), ..self.permitted(scope, None) }
    }
}

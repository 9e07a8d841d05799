//! From a policy document to a [`Policy`].

use super::condition::Condition;
use super::error::{Fault, PolicyError, Problem};
use super::json::Json;
use super::pattern::{Pattern, Syntax};
use super::principal::{Named, Principals};
use super::{Effect, Kind, MAX_POLICY, Matching, Policy, Statement};
use crate::keystore::model::action::Action;
use crate::keystore::model::caller::ACCOUNT;

/// Reads a document of the given kind.
pub(super) fn policy(text: &str, kind: Kind) -> Result<Policy, PolicyError> {
    if text.len() > MAX_POLICY {
        return Err(Problem::Long(text.len()).at("").into());
    }
    if let Some(letter) = text.chars().find(|letter| !is_allowed(*letter)) {
        return Err(Problem::Letter(letter).at("").into());
    }
    let document = Json::parse(text).map_err(|words| Problem::Syntax(words).at(""))?;
    let mut members = members(document, "a policy")?;
    let language = Language { kind, variables: version(take(&mut members, "Version"))? };
    if let Some(id) = take(&mut members, "Id") {
        one_text(id, "Id")?;
    }
    let statements = take(&mut members, "Statement");
    nothing_left(members, "an element of a policy")?;
    let statements = statements.ok_or_else(|| Problem::Missing("Statement").at(""))?;
    language.statements(statements)
}

/// Source: the pattern of PolicyType in the service model.
fn is_allowed(letter: char) -> bool {
    matches!(letter, '\t' | '\n' | '\r' | '\u{20}'..='\u{ff}')
}

/// Returns whether texts may hold variables.
fn version(value: Option<Json>) -> Result<bool, Fault> {
    let Some(value) = value else { return Ok(false) };
    match one_text(value, "Version")?.as_str() {
        "2012-10-17" => Ok(true),
        "2008-10-17" => Ok(false),
        other => Err(Problem::Unknown {
            what: "a version of the policy language",
            found: other.to_owned(),
            hint: "use 2012-10-17",
        }
        .at("Version")),
    }
}

/// What may stand in the statements of one document.
#[derive(Clone, Copy)]
struct Language {
    kind: Kind,
    variables: bool,
}

impl Language {
    fn statements(self, value: Json) -> Result<Policy, PolicyError> {
        let list = match value {
            Json::List(list) => list,
            one => vec![one],
        };
        if list.is_empty() {
            return Err(Problem::Missing("a statement").at("Statement").into());
        }
        let mut statements: Vec<Statement> = Vec::new();
        for (value, number) in list.into_iter().zip(1..) {
            let sid = sid_of(&value);
            let statement = self.statement(value).map_err(|f| f.in_statement(number, sid))?;
            if let Some(sid) = &statement.sid
                && statements.iter().any(|other| other.sid.as_ref() == Some(sid))
            {
                return Err(Problem::SameSid(sid.clone()).at("Sid").in_statement(number, None));
            }
            statements.push(statement);
        }
        Ok(Policy { statements })
    }

    fn statement(self, value: Json) -> Result<Statement, Fault> {
        let mut members = members(value, "a statement")?;
        let members = &mut members;
        let mut statement = Statement {
            sid: take(members, "Sid").map(|sid| one_text(sid, "Sid")).transpose()?,
            effect: effect(take(members, "Effect"))?,
            principals: self.principals(members)?,
            actions: actions(members)?,
            resources: self.resources(members)?,
            conditions: self.conditions(take(members, "Condition"))?,
            variables: Vec::new(),
        };
        let of_resources = statement.resources.patterns().iter().flat_map(Pattern::variables);
        let of_conditions = statement.conditions.iter().flat_map(Condition::variables);
        statement.variables = of_resources.chain(of_conditions).cloned().collect();
        nothing_left(std::mem::take(members), "an element of a statement")?;
        Ok(statement)
    }

    fn principals(self, members: &mut Members) -> Result<Option<Principals>, Fault> {
        let found = one_of(members, "Principal", "NotPrincipal")?;
        match (self.kind, found) {
            (Kind::Identity, None) => Ok(None),
            (Kind::Identity, Some((_, name, _))) => {
                Err(Problem::Misplaced("the policy of a principal names no principals").at(name))
            }
            (Kind::Key, None) => Err(Problem::Missing("Principal").at("")),
            (Kind::Key, Some((value, name, negated))) => {
                let named = principals(value).map_err(|fault| fault.inside(name))?;
                Ok(Some(if negated { Principals::AllBut(named) } else { Principals::These(named) }))
            }
        }
    }

    fn resources(self, members: &mut Members) -> Result<Matching, Fault> {
        let (value, name, negated) = one_of(members, "Resource", "NotResource")?
            .ok_or_else(|| Problem::Missing("Resource").at(""))?;
        let syntax = Syntax { wildcards: true, variables: self.variables };
        let pattern = |text: String| {
            let what = "\"*\", a key's ARN or an alias's ARN";
            let unknown = || Problem::Unknown { what, found: text.clone(), hint: "" }.at(name);
            if text.trim_matches('*').is_empty() && !text.is_empty() {
                return Ok(Pattern::glob("*"));
            }
            let here = any_region(&text).ok_or_else(unknown)?;
            Pattern::parse(&here, syntax).map_err(|_| unknown())
        };
        let patterns = texts(value, name)?.into_iter().map(pattern).collect::<Result<_, _>>()?;
        Ok(matching(patterns, negated))
    }

    fn conditions(self, value: Option<Json>) -> Result<Vec<Condition>, Fault> {
        let Some(value) = value else { return Ok(Vec::new()) };
        let within = |fault: Fault| fault.inside("Condition");
        let mut conditions = Vec::new();
        for (operator, tests) in object(value).map_err(|problem| problem.at("Condition"))? {
            let tests = object(tests).map_err(|problem| within(problem.at(operator.as_str())))?;
            for (key, values) in tests {
                let values = texts(values, &key).map_err(|f| within(f.inside(&operator)))?;
                let parsed = Condition::parse(&operator, &key, &values, self.variables);
                conditions.push(parsed.map_err(within)?);
            }
        }
        Ok(conditions)
    }
}

/// Keystores have no regions: whatever region a policy's ARN names, or leaves to a wildcard, this
/// keystore is meant. `None` for what can be no resource of it: as part of a Deny, such a text would
/// deny nothing.
fn any_region(text: &str) -> Option<String> {
    let mut parts: Vec<&str> = text.splitn(6, ':').collect();
    let ["arn", partition, service, region, account, _] = parts.as_mut_slice() else { return None };
    let fits = |part: &str, ours| part.contains('$') || Pattern::glob(part).matches(ours);
    let ours = fits(partition, "aws") && fits(service, "kms") && fits(account, ACCOUNT);
    if !ours || region.contains('$') {
        return None;
    }
    *region = "local";
    Some(parts.join(":"))
}

fn effect(value: Option<Json>) -> Result<Effect, Fault> {
    let value = value.ok_or_else(|| Problem::Missing("Effect").at(""))?;
    match one_text(value, "Effect")?.as_str() {
        "Allow" => Ok(Effect::Allow),
        "Deny" => Ok(Effect::Deny),
        other => Err(Problem::Unknown {
            what: "an effect",
            found: other.to_owned(),
            hint: "it is Allow or Deny",
        }
        .at("Effect")),
    }
}

fn principals(value: Json) -> Result<Vec<Named>, Fault> {
    let kinds = match value {
        Json::Text(text) if text == "*" => return Ok(vec![Named::Everybody]),
        other => object(other).map_err(|problem| problem.at(""))?,
    };
    let mut named = Vec::new();
    for (kind, values) in kinds {
        let read: fn(&str) -> Option<Named> = match kind.as_str() {
            "AWS" => |text| if text == "*" { Some(Named::Everybody) } else { Named::parse(text) },
            "Service" => service,
            _ => {
                let what = "a kind of principal of this KMS";
                let hint = "there are AWS and Service";
                return Err(Problem::Unknown { what, found: kind, hint }.at(""));
            }
        };
        for text in texts(values, &kind)? {
            let what = "a principal of this KMS";
            let hint = "name arn:aws:iam::000000000000:root, ...:user/NAME, ...:user/unix/UID or \
                        ...:group/unix/GID";
            let unknown = || Problem::Unknown { what, found: text.clone(), hint }.at(kind.as_str());
            named.push(read(&text).ok_or_else(unknown)?);
        }
    }
    if named.is_empty() { Err(Problem::Missing("a principal").at("")) } else { Ok(named) }
}

fn service(text: &str) -> Option<Named> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let valid = text.contains('.') && text.chars().all(allowed);
    valid.then(|| Named::Service(text.to_owned()))
}

fn actions(members: &mut Members) -> Result<Matching, Fault> {
    let (value, name, negated) =
        one_of(members, "Action", "NotAction")?.ok_or_else(|| Problem::Missing("Action").at(""))?;
    let pattern = |text: String| {
        let pattern = Pattern::glob(&text);
        let real = Action::ALL.iter().map(|action| action.permission()).chain(MORE_PERMISSIONS);
        let found = real.into_iter().any(|real| pattern.matches_ignoring_case(real));
        let what = "a permission of KMS";
        let unknown = || Problem::Unknown { what, found: text, hint: "" }.at(name);
        if found { Ok(pattern) } else { Err(unknown()) }
    };
    let patterns = texts(value, name)?.into_iter().map(pattern).collect::<Result<_, _>>()?;
    Ok(matching(patterns, negated))
}

/// Permissions that AWS has and nothing here asks for: policies that name them mean no mistake.
const MORE_PERMISSIONS: [&str; 3] =
    ["kms:SynchronizeMultiRegionKey", "kms:Encapsulate", "kms:Decapsulate"];

fn matching(patterns: Vec<Pattern>, negated: bool) -> Matching {
    if negated { Matching::NoneOf(patterns) } else { Matching::AnyOf(patterns) }
}

type Members = Vec<(String, Json)>;

fn object(value: Json) -> Result<Members, Problem> {
    match value {
        Json::Object(members) => Ok(members),
        other => Err(Problem::Expected { expected: "an object", found: other.what() }),
    }
}

fn members(value: Json, whole: &'static str) -> Result<Members, Fault> {
    match value {
        Json::Object(members) => Ok(members),
        other => Err(Problem::Expected { expected: whole, found: other.what() }.at("")),
    }
}

fn take(members: &mut Members, name: &str) -> Option<Json> {
    let at = members.iter().position(|(known, _)| known == name)?;
    Some(members.swap_remove(at).1)
}

/// Takes an element or its opposite: the value, its name, and whether it is the opposite.
fn one_of(
    members: &mut Members,
    name: &'static str,
    opposite: &'static str,
) -> Result<Option<(Json, &'static str, bool)>, Fault> {
    match (take(members, name), take(members, opposite)) {
        (Some(_), Some(_)) => Err(Problem::Both(name, opposite).at("")),
        (Some(value), None) => Ok(Some((value, name, false))),
        (None, Some(value)) => Ok(Some((value, opposite, true))),
        (None, None) => Ok(None),
    }
}

fn nothing_left(members: Members, what: &'static str) -> Result<(), Fault> {
    match members.into_iter().next() {
        Some((found, _)) => Err(Problem::Unknown { what, found, hint: "" }.at("")),
        None => Ok(()),
    }
}

fn one_text(value: Json, name: &str) -> Result<String, Fault> {
    match value {
        Json::Text(text) => Ok(text),
        other => Err(Problem::Expected { expected: "a text", found: other.what() }.at(name)),
    }
}

/// One text, or a list of at least one.
fn texts(value: Json, name: &str) -> Result<Vec<String>, Fault> {
    match value {
        Json::List(list) if list.is_empty() => Err(Problem::Missing("a value").at(name)),
        Json::List(list) => list.into_iter().map(|text| one_text(text, name)).collect(),
        one => Ok(vec![one_text(one, name)?]),
    }
}

/// The Sid of a statement that may be malformed, for the error about it.
fn sid_of(statement: &Json) -> Option<String> {
    let Json::Object(members) = statement else { return None };
    members.iter().find_map(|(name, value)| match (name.as_str(), value) {
        ("Sid", Json::Text(sid)) => Some(sid.clone()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        policy(text, Kind::Key).expect_err(text).to_string()
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name_and_place() {
        let with = |more: &str| {
            format!(
                r#"{{"Version":"2012-10-17","Statement":[{{"Sid":"Use","Effect":"Allow",
                   "Principal":"*","Action":"kms:*","Resource":"*"{more}}}]}}"#
            )
        };
        let statement = |text: &str| format!(r#"{{"Statement":{text}}}"#);
        for (text, expected) in [
            ("", "policy: EOF while parsing a value at line 1 column 0"),
            ("[]", "policy: a policy is expected, not a list"),
            ("{}", "policy: Statement is missing"),
            (r#"{"Statement":[]}"#, "policy, Statement: a statement is missing"),
            (r#"{"Statement":[1]}"#, "policy statement 1: a statement is expected, not a text"),
            (
                r#"{"Version":"2020-01-01","Statement":{}}"#,
                "policy, Version: '2020-01-01' is not a version of the policy language: use 2012-10-17",
            ),
            (r#"{"Statment":{}}"#, "policy: 'Statment' is not an element of a policy"),
            (r#"{"Id":["x"],"Statement":{}}"#, "policy, Id: a text is expected, not a list"),
            ("{\"Id\":\"\u{1}\"}", "policy: the character U+0001 is not allowed"),
            ("{\"Id\":\"\u{20ac}\"}", "policy: the character U+20AC is not allowed"),
            (
                r#"{"Statement":{},"Statement":{}}"#,
                "policy: 'Statement' stands twice in one object at line 1 column 27",
            ),
            (&statement("{}"), "policy statement 1: Effect is missing"),
            (
                &statement(r#"{"Effect":"allow"}"#),
                "policy statement 1, Effect: 'allow' is not an effect: it is Allow or Deny",
            ),
            (&statement(r#"{"Effect":"Allow"}"#), "policy statement 1: Principal is missing"),
            (
                &statement(r#"{"Effect":"Allow","Principal":"*"}"#),
                "policy statement 1: Action is missing",
            ),
            (
                &statement(r#"{"Effect":"Allow","Principal":"*","Action":"kms:*"}"#),
                "policy statement 1: Resource is missing",
            ),
            (
                &with(r#","NotAction":"kms:*""#),
                "policy statement 1 ('Use'): Action and NotAction exclude each other",
            ),
            (
                &with(r#","Conditions":{}"#),
                "policy statement 1 ('Use'): 'Conditions' is not an element of a statement",
            ),
            (
                &with(r#","Condition":[]"#),
                "policy statement 1 ('Use'), Condition: an object is expected, not a list",
            ),
            (
                &with(r#","Condition":{"StringIs":{"kms:KeySpec":"x"}}"#),
                "policy statement 1 ('Use'), Condition.StringIs: 'StringIs' is not a condition operator: operators are spelled as in AWS, and binary ones are not supported",
            ),
            (
                &with(r#","Condition":{"NullIfExists":{"kms:KeySpec":"true"}}"#),
                "policy statement 1 ('Use'), Condition.NullIfExists: 'NullIfExists' is not a condition operator: operators are spelled as in AWS, and binary ones are not supported",
            ),
            (
                &with(r#","Condition":{"StringEquals":{"kms:Keyspec2":"x"}}"#),
                "policy statement 1 ('Use'), Condition.StringEquals: 'kms:Keyspec2' is not a condition key of this KMS",
            ),
            (
                &with(r#","Condition":{"DateLessThan":{"aws:CurrentTime":"soon"}}"#),
                "policy statement 1 ('Use'), Condition.DateLessThan.aws:CurrentTime: 'soon' is not a date such as 2026-12-31T23:59:59Z, or seconds since 1970",
            ),
            (
                &with(r#","Condition":{"StringEquals":{"aws:username":"${aws:nobody}"}}"#),
                "policy statement 1 ('Use'), Condition.StringEquals.aws:username: '${aws:nobody}' is not a text whose ${variables} are condition keys",
            ),
            (
                &with(r#","Condition":{"Null":{"aws:username":"maybe"}}"#),
                "policy statement 1 ('Use'), Condition.Null.aws:username: 'maybe' is not true or false",
            ),
            (
                &with(r#","Condition":{"Bool":{"kms:MultiRegion":[]}}"#),
                "policy statement 1 ('Use'), Condition.Bool.kms:MultiRegion: a value is missing",
            ),
            (
                &with(r#","Condition":{"Bool":{"kms:MultiRegion":[{}]}}"#),
                "policy statement 1 ('Use'), Condition.Bool.kms:MultiRegion: a text is expected, not an object",
            ),
            (
                &with("").replace("kms:*", "kms:Decryptt"),
                "policy statement 1 ('Use'), Action: 'kms:Decryptt' is not a permission of KMS",
            ),
            (
                &with("").replace(r#""Resource":"*""#, r#""Resource":"key/1""#),
                "policy statement 1 ('Use'), Resource: 'key/1' is not \"*\", a key's ARN or an alias's ARN",
            ),
            (
                &with("").replace(r#""Principal":"*""#, r#""Principal":{"AWS":"alice"}"#),
                "policy statement 1 ('Use'), Principal.AWS: 'alice' is not a principal of this KMS: name arn:aws:iam::000000000000:root, ...:user/NAME, ...:user/unix/UID or ...:group/unix/GID",
            ),
            (
                &with("").replace(r#""Principal":"*""#, r#""Principal":{"Federated":"x"}"#),
                "policy statement 1 ('Use'), Principal: 'Federated' is not a kind of principal of this KMS: there are AWS and Service",
            ),
            (
                &with("").replace(r#""Principal":"*""#, r#""Principal":{}"#),
                "policy statement 1 ('Use'), Principal: a principal is missing",
            ),
            (
                &with(
                    r#"},{"Sid":"Use","Effect":"Deny","Principal":"*","Action":"kms:*","Resource":"*""#,
                ),
                "policy statement 2, Sid: the Sid 'Use' is used twice",
            ),
        ] {
            assert_eq!(problem(text), expected, "{text}");
        }
    }

    #[test]
    fn a_policy_has_32_kibibytes() {
        let start =
            r#"{"Statement":{"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"*"}"#;
        let fill = |len: usize| format!("{start}{:1$}}}", "", len - start.len() - 1);
        assert!(policy(&fill(MAX_POLICY), Kind::Key).is_ok());
        let error = policy(&fill(MAX_POLICY + 1), Kind::Key).unwrap_err();
        assert!(error.is_too_long());
        assert_eq!(error.to_string(), "policy: it has 32769 bytes, at most 32768 are allowed");
    }
}

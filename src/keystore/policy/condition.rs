//! One line of a Condition block: an operator, a condition key, and values.

use std::slice::from_ref;

use super::Effect;
use super::error::{Fault, Problem};
use super::key::{ConditionKey, UnknownKey};
use super::operator::{Comparison, Expected, boolean};
use super::pattern::Pattern;
use super::request::Request;

/// A test that a statement makes.
#[derive(Debug, Clone)]
pub(super) struct Condition {
    key: ConditionKey,
    test: Test,
}

#[derive(Debug, Clone)]
enum Test {
    /// `Null`: is the key missing? Any of these answers will do.
    Missing(Vec<bool>),
    Compare(Compare),
}

#[derive(Debug, Clone)]
struct Compare {
    operator: Operator,
    expected: Vec<Expected>,
}

/// An operator with its prefix and suffix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Operator {
    comparison: Comparison,
    negated: bool,
    over: Option<Over>,
    if_exists: bool,
}

/// How many of the request's values have to pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    All,
    Any,
}

impl Condition {
    /// Reads one line of a Condition block. `variables`: `${...}` in values are variables.
    pub(super) fn parse(
        operator: &str,
        key: &str,
        values: &[String],
        variables: bool,
    ) -> Result<Self, Fault> {
        let unknown = |unknown: UnknownKey| Problem::Unknown {
            what: "a condition key of this KMS",
            found: key.to_owned(),
            hint: unknown.why,
        };
        let parsed: ConditionKey = key.parse().map_err(|e| unknown(e).at(operator))?;
        let test = if operator == "Null" {
            Test::Missing(answers(key, values).map_err(|fault| fault.inside(operator))?)
        } else {
            Test::Compare(Compare::parse(operator, key, values, variables)?)
        };
        Ok(Self { key: parsed, test })
    }

    /// True if the request passes. Of pairs whose names differ only by case nobody knows which the policy
    /// means: for a Deny it is any of them, for an Allow every one.
    pub(super) fn holds(&self, request: &Request<'_>, effect: Effect) -> bool {
        let values = request.values(&self.key);
        match &self.test {
            Test::Missing(answers) => answers.contains(&values.is_empty()),
            Test::Compare(compare) if values.len() > 1 && self.key.is_of_a_pair() => {
                let mut each = values.iter().map(|value| compare.holds(from_ref(value), request));
                match effect {
                    Effect::Deny => each.any(|holds| holds),
                    Effect::Allow => each.all(|holds| holds),
                }
            }
            Test::Compare(compare) => compare.holds(&values, request),
        }
    }

    pub(super) const fn asks_for_caller(&self) -> bool {
        self.key.is_of_caller()
    }

    /// The condition keys that stand as variables in its values.
    pub(super) fn variables(&self) -> impl Iterator<Item = &ConditionKey> {
        let expected: &[Expected] = match &self.test {
            Test::Missing(_) => &[],
            Test::Compare(compare) => &compare.expected,
        };
        let texts = expected.iter().filter_map(|expected| match expected {
            Expected::Text(pattern) => Some(pattern),
            _ => None,
        });
        texts.flat_map(Pattern::variables)
    }
}

impl Compare {
    fn parse(name: &str, key: &str, values: &[String], variables: bool) -> Result<Self, Fault> {
        let found = name.to_owned();
        let hint = "operators are spelled as in AWS, and binary ones are not supported";
        let unknown = Problem::Unknown { what: "a condition operator", found, hint };
        let operator = Operator::parse(name).ok_or_else(|| unknown.at(name))?;
        let expect = |value: &String| {
            operator
                .comparison
                .expect(value, variables)
                .map_err(|what| Problem::Unknown { what, found: value.clone(), hint: "" }.at(key))
        };
        let expected = values.iter().map(expect).collect::<Result<_, Fault>>();
        Ok(Self { operator, expected: expected.map_err(|fault| fault.inside(name))? })
    }

    /// A key without values is missing. A negated operator passes what agrees with none of the
    /// policy's values; without a prefix, all of the request's values have to pass it.
    fn holds(&self, values: &[std::borrow::Cow<'_, str>], request: &Request<'_>) -> bool {
        let Operator { comparison, negated, over, if_exists } = self.operator;
        if values.is_empty() {
            return if_exists || over == Some(Over::All) || (over.is_none() && negated);
        }
        let passes = |value: &std::borrow::Cow<'_, str>| {
            let agrees = |expected| comparison.agrees(expected, value, request);
            self.expected.iter().any(agrees) != negated
        };
        let all = over.map_or(negated, |over| over == Over::All);
        if all { values.iter().all(passes) } else { values.iter().any(passes) }
    }
}

impl Operator {
    fn parse(text: &str) -> Option<Self> {
        let (over, rest) = match text.split_once(':') {
            Some(("ForAllValues", rest)) => (Some(Over::All), rest),
            Some(("ForAnyValue", rest)) => (Some(Over::Any), rest),
            Some(_) => return None,
            None => (None, text),
        };
        let (name, if_exists) = match rest.strip_suffix("IfExists") {
            Some(name) => (name, true),
            None => (rest, false),
        };
        let (comparison, negated) = Comparison::named(name)?;
        Some(Self { comparison, negated, over, if_exists })
    }
}

fn answers(key: &str, values: &[String]) -> Result<Vec<bool>, Fault> {
    let answer = |value: &String| {
        let found = value.clone();
        boolean(value)
            .ok_or_else(|| Problem::Unknown { what: "true or false", found, hint: "" }.at(key))
    };
    values.iter().map(answer).collect()
}

//! The shapes of requests: what each member may hold, and how it is refused.
//!
//! The operations (`ops`) declare their members with the constants of `shapes`. One walk
//! checks JSON types, which refuses the whole request at the first wrong one; a second checks
//! constraints and reports all that are broken, in AWS's words.

use base64ct::{Base64, Encoding};
use serde_json::{Map, Value};

use super::error::Fault;

/// A named part of a request, or of a structure in it.
#[derive(Debug)]
pub struct Member {
    /// Its name in JSON.
    pub name: &'static str,
    /// What it may hold.
    pub shape: &'static Shape,
    /// Must it be there?
    pub required: bool,
}

/// What a member may hold. Lengths are in characters, bytes or elements; both bounds are allowed.
#[derive(Debug)]
pub enum Shape {
    /// Text.
    Text {
        /// The shortest and the longest.
        length: (usize, usize),
        /// What it must look like.
        pattern: Option<Pattern>,
        /// Is it kept out of messages?
        secret: bool,
    },
    /// One of some names.
    Choice(&'static [&'static str]),
    /// Bytes, in base64.
    Blob {
        /// The shortest and the longest.
        length: (usize, usize),
        /// Are they kept out of messages?
        secret: bool,
    },
    /// A whole number.
    Integer {
        /// The least and the largest.
        range: (i64, i64),
    },
    /// True or false.
    Flag,
    /// A point in time: seconds since 1970, as a number.
    Time,
    /// Text by text.
    Pairs,
    /// Several of a kind.
    List {
        /// The kind.
        of: &'static Shape,
        /// The fewest and the most.
        length: (usize, usize),
    },
    /// Named parts.
    Structure(&'static [Member]),
}

/// A regular expression of AWS's model, and the function that decides it.
#[derive(Debug, Clone, Copy)]
pub struct Pattern {
    /// As AWS writes it, for messages.
    pub text: &'static str,
    /// Does a text match?
    pub matches: fn(&str) -> bool,
}

impl Member {
    /// A member that must be there.
    pub(in crate::server) const fn needed(name: &'static str, shape: &'static Shape) -> Self {
        Self { name, shape, required: true }
    }

    /// A member that may be left out.
    pub(in crate::server) const fn optional(name: &'static str, shape: &'static Shape) -> Self {
        Self { name, shape, required: false }
    }
}

/// Checks a request against its members. Members that are not known are ignored.
/// Errors: `SerializationException` for a wrong JSON type, `ValidationException` for a broken
/// constraint.
pub(in crate::server) fn check(
    members: &[Member],
    request: &Map<String, Value>,
) -> Result<(), Fault> {
    check_types(members, request)?;
    let mut broken = Vec::new();
    check_members(members, request, "", &mut broken);
    if broken.is_empty() { Ok(()) } else { Err(Fault::constraints(&broken)) }
}

fn check_types(members: &[Member], request: &Map<String, Value>) -> Result<(), Fault> {
    present(members, request).try_for_each(|(member, value)| check_type(member.shape, value))
}

/// The members that are there; `null` counts as absent.
fn present<'a>(
    members: &'a [Member],
    request: &'a Map<String, Value>,
) -> impl Iterator<Item = (&'a Member, &'a Value)> {
    members.iter().filter_map(|member| {
        let value = request.get(member.name).filter(|value| !value.is_null())?;
        Some((member, value))
    })
}

fn check_type(shape: &Shape, value: &Value) -> Result<(), Fault> {
    let wrong = |wanted| Err(Fault::wrong_type(value, wanted));
    match (shape, value) {
        (Shape::Text { .. } | Shape::Choice(_), Value::String(_))
        | (Shape::Flag, Value::Bool(_)) => Ok(()),
        (Shape::Text { .. } | Shape::Choice(_), _) => wrong("a String"),
        (Shape::Flag, _) => wrong("a Boolean"),
        (Shape::Blob { .. }, Value::String(text)) => match decoded_len(text) {
            Some(_) => Ok(()),
            None => Err(Fault::serialization("Invalid base64 in a blob")),
        },
        (Shape::Blob { .. }, _) => wrong("a ByteBuffer"),
        (Shape::Integer { .. }, Value::Number(number)) if number.as_i64().is_some() => Ok(()),
        (Shape::Integer { .. }, _) => wrong("an Integer"),
        (Shape::Time, Value::Number(number)) if number.as_f64().is_some_and(f64::is_finite) => {
            Ok(())
        }
        (Shape::Time, _) => wrong("milliseconds since epoch"),
        (Shape::Pairs, Value::Object(pairs)) => pairs.values().try_for_each(|value| match value {
            Value::String(_) => Ok(()),
            _ => Err(Fault::wrong_type(value, "a String")),
        }),
        (Shape::List { of, .. }, Value::Array(items)) => {
            items.iter().try_for_each(|item| check_type(of, item))
        }
        (Shape::Structure(members), Value::Object(parts)) => check_types(members, parts),
        (Shape::Pairs | Shape::List { .. } | Shape::Structure(_), _) => {
            wrong("a structure or list")
        }
    }
}

/// Notes each constraint that a member breaks; `path` ends in a dot unless it is empty.
fn check_members(
    members: &[Member],
    request: &Map<String, Value>,
    path: &str,
    broken: &mut Vec<String>,
) {
    for member in members.iter().filter(|member| member.required) {
        if request.get(member.name).is_none_or(Value::is_null) {
            let at = format!("{path}{}", lower_first(member.name));
            broken.push(format!(
                "Value null at '{at}' failed to satisfy constraint: Member must not be null"
            ));
        }
    }
    for (member, value) in present(members, request) {
        let at = format!("{path}{}", lower_first(member.name));
        check_value(member.shape, value, &at, broken);
    }
}

fn check_value(shape: &Shape, value: &Value, at: &str, broken: &mut Vec<String>) {
    match (shape, value) {
        (Shape::List { of: Shape::Structure(members), .. }, Value::Array(items)) => {
            note(shape, value, at, broken);
            for (index, item) in items.iter().enumerate() {
                if let Value::Object(parts) = item {
                    let path = format!("{at}.{}.member.", index + 1);
                    check_members(members, parts, &path, broken);
                }
            }
        }
        (Shape::Structure(members), Value::Object(parts)) => {
            check_members(members, parts, &format!("{at}."), broken);
        }
        _ => note(shape, value, at, broken),
    }
}

fn note(shape: &Shape, value: &Value, at: &str, broken: &mut Vec<String>) {
    for constraint in violations(shape, value) {
        let shown = shown(shape, value);
        broken.push(format!("Value {shown}at '{at}' failed to satisfy constraint: {constraint}"));
    }
}

/// The constraints that a value breaks, each as a sentence.
fn violations(shape: &Shape, value: &Value) -> Vec<String> {
    match (shape, value) {
        (Shape::Text { length, pattern, .. }, Value::String(text)) => {
            let mut found = outside(*length, text.chars().count(), "length");
            let unlike = pattern.filter(|pattern| !(pattern.matches)(text));
            found.extend(unlike.map(|pattern| pattern_sentence(&pattern)));
            found
        }
        (Shape::Choice(names), Value::String(text)) if !names.contains(&text.as_str()) => {
            vec![choice_sentence(names)]
        }
        (Shape::Blob { length, .. }, Value::String(text)) => {
            outside(*length, decoded_len(text).unwrap_or(0), "length")
        }
        (Shape::Integer { range }, Value::Number(number)) => {
            outside(*range, number.as_i64().unwrap_or(i64::MIN), "value")
        }
        (Shape::List { of, length }, Value::Array(items)) => {
            let mut found = outside(*length, items.len(), "length");
            if items.iter().any(|item| !violations(of, item).is_empty()) {
                found.push(format!("Member must satisfy constraint: [{}]", rules(of).join(", ")));
            }
            found
        }
        _ => Vec::new(),
    }
}

/// All that a value of a shape must keep to.
fn rules(shape: &Shape) -> Vec<String> {
    match shape {
        Shape::Choice(names) => vec![choice_sentence(names)],
        Shape::Text { length: (least, most), pattern, .. } => {
            let mut rules = vec![
                format!("Member must have length less than or equal to {most}"),
                format!("Member must have length greater than or equal to {least}"),
            ];
            rules.extend(pattern.map(|pattern| pattern_sentence(&pattern)));
            rules
        }
        _ => Vec::new(),
    }
}

fn outside<N: PartialOrd + std::fmt::Display>(
    (least, most): (N, N),
    found: N,
    what: &str,
) -> Vec<String> {
    if found < least {
        vec![format!("Member must have {what} greater than or equal to {least}")]
    } else if found > most {
        vec![format!("Member must have {what} less than or equal to {most}")]
    } else {
        Vec::new()
    }
}

fn choice_sentence(names: &[&str]) -> String {
    format!("Member must satisfy enum value set: [{}]", names.join(", "))
}

fn pattern_sentence(pattern: &Pattern) -> String {
    format!("Member must satisfy regular expression pattern: {}", pattern.text)
}

/// The value as messages quote it, followed by a blank; nothing of a secret.
fn shown(shape: &Shape, value: &Value) -> String {
    let text = match (shape, value) {
        (Shape::Text { secret: true, .. } | Shape::Blob { secret: true, .. }, _) => {
            return String::new();
        }
        (Shape::Blob { .. }, Value::String(text)) => {
            let len = decoded_len(text).unwrap_or(0);
            format!("java.nio.HeapByteBuffer[pos=0 lim={len} cap={len}]")
        }
        (_, Value::Array(items)) => {
            let texts: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            format!("[{}]", texts.join(", "))
        }
        (_, Value::String(text)) => text.clone(),
        (_, other) => other.to_string(),
    };
    let cut: String = text.chars().take(LONGEST_QUOTE).collect();
    format!("'{cut}' ")
}

/// How many bytes a base64 text stands for; nothing if it is not base64.
fn decoded_len(text: &str) -> Option<usize> {
    let mut bytes = zeroize::Zeroizing::new(vec![0; text.len()]);
    Base64::decode(text, &mut bytes).ok().map(<[u8]>::len)
}

/// A member's name as messages write it.
fn lower_first(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// A message quotes no more of a value than this.
const LONGEST_QUOTE: usize = 1024;

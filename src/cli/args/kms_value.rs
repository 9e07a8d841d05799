//! Values of `kmsfs kms` options, as the AWS CLI spells them, as JSON.

use std::io::Read;
use std::path::Path;

use base64ct::{Base64, Encoding};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::server::shape::{Member, Shape};

/// What the command line says about one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) enum Given {
    /// `--x` or `--no-x`.
    Flag(bool),
    /// `--x WORD...`.
    Words(Vec<String>),
}

/// A request from a file; `-` is stdin, and `file://` may stand before the path.
pub(in crate::cli) fn request(input: &str) -> Result<Map<String, Value>, String> {
    let text = if input == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(|error| format!("stdin: {error}"))?;
        text
    } else {
        read_text(input.strip_prefix(FILE).unwrap_or(input))?
    };
    match serde_json::from_str(&text) {
        Ok(Value::Object(request)) => Ok(request),
        Ok(_) => Err(format!("{input}: not a JSON object")),
        Err(error) => Err(format!("{input}: {error}")),
    }
}

/// The value of a member.
/// Errors: why there is none, in words.
pub(in crate::cli) fn value(shape: &Shape, given: &Given) -> Result<Value, String> {
    match (shape, given) {
        (_, Given::Flag(flag)) => Ok((*flag).into()),
        (Shape::List { of, .. }, Given::Words(words)) => list(of, words),
        (_, Given::Words(words)) => match words.as_slice() {
            [word] => one(shape, word),
            _ => Err("one value is expected".to_owned()),
        },
    }
}

fn list(of: &Shape, words: &[String]) -> Result<Value, String> {
    if let [word] = words
        && word.trim_start().starts_with('[')
    {
        return json(word);
    }
    words.iter().map(|word| one(of, word)).collect()
}

fn one(shape: &Shape, word: &str) -> Result<Value, String> {
    if let Some(path) = word.strip_prefix(BINARY_FILE) {
        return blob_of_file(shape, path);
    }
    let word = match word.strip_prefix(FILE) {
        Some(path) => read_text(path)?,
        None => word.to_owned(),
    };
    match shape {
        Shape::Text { .. } | Shape::Choice(_) | Shape::Blob { .. } => Ok(word.into()),
        Shape::Integer { .. } => {
            let number: Result<i64, _> = word.parse();
            number.map(Value::from).map_err(|_| format!("'{word}' is not a whole number"))
        }
        Shape::Flag => match word.as_str() {
            "true" => Ok(true.into()),
            "false" => Ok(false.into()),
            _ => Err(format!("'{word}' is neither true nor false")),
        },
        Shape::Time => time(&word),
        Shape::Pairs | Shape::Structure(_) | Shape::List { .. } if is_json(&word) => json(&word),
        Shape::Pairs => pairs(&word),
        Shape::Structure(members) => structure(members, &word),
        Shape::List { of, .. } => split(&word).into_iter().map(|part| one(of, part)).collect(),
    }
}

fn blob_of_file(shape: &Shape, path: &str) -> Result<Value, String> {
    if !matches!(shape, Shape::Blob { .. }) {
        return Err("fileb:// is for bytes: use file:// here".to_owned());
    }
    let bytes = std::fs::read(Path::new(path)).map_err(|error| format!("{path}: {error}"))?;
    Ok(Base64::encode_string(&Zeroizing::new(bytes)).into())
}

fn read_text(path: &str) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))
}

fn time(word: &str) -> Result<Value, String> {
    if let Ok(seconds) = word.parse::<i64>() {
        return Ok(seconds.into());
    }
    let time: Result<jiff::Timestamp, _> = word.parse();
    let time = time.map_err(|_| {
        format!("'{word}' is no time: 2030-01-31T12:00:00Z or seconds since 1970 are expected")
    })?;
    Ok(time.as_second().into())
}

/// `k=v,k2=v2`, with or without braces.
fn pairs(word: &str) -> Result<Value, String> {
    let mut map = Map::new();
    for (key, value) in assignments(word)? {
        map.insert(key.to_owned(), value.into());
    }
    Ok(map.into())
}

/// `Name=value,Name2={k=v}`.
fn structure(members: &[Member], word: &str) -> Result<Value, String> {
    let mut map = Map::new();
    for (name, text) in assignments(word)? {
        let member = members.iter().find(|member| member.name == name);
        let member = member.ok_or_else(|| {
            let names: Vec<&str> = members.iter().map(|member| member.name).collect();
            format!("'{name}' is none of {}", names.join(", "))
        })?;
        map.insert(name.to_owned(), one(member.shape, text)?);
    }
    Ok(map.into())
}

fn assignments(word: &str) -> Result<Vec<(&str, &str)>, String> {
    let parts = split(word).into_iter();
    parts
        .map(|part| {
            part.split_once('=').ok_or_else(|| format!("'{part}' is not of the form name=value"))
        })
        .collect()
}

/// The parts between commas that stand in no brackets of their own.
fn split(word: &str) -> Vec<&str> {
    let inside = |open, close| word.strip_prefix(open)?.strip_suffix(close);
    let word = inside('{', '}').or_else(|| inside('[', ']')).unwrap_or(word);
    let mut depth = 0_usize;
    let parts = word.split(|letter| {
        match letter {
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        letter == ',' && depth == 0
    });
    parts.filter(|part| !part.is_empty()).collect()
}

/// Shorthand may begin with a brace as well: then no quotation mark follows.
fn is_json(word: &str) -> bool {
    let word = word.trim_start();
    let inner = word.strip_prefix(['{', '[']).map(str::trim_start);
    inner.is_some_and(|inner| inner.starts_with(['"', '{', '}', ']']))
}

fn json(word: &str) -> Result<Value, String> {
    serde_json::from_str(word).map_err(|error| format!("not JSON: {error}"))
}

const FILE: &str = "file://";
const BINARY_FILE: &str = "fileb://";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TEXT: Shape = Shape::Text { length: (0, 100), pattern: None, secret: false };
    const TAG: Shape = Shape::Structure(&[
        Member { name: "TagKey", shape: &TEXT, required: true },
        Member { name: "Pairs", shape: &Shape::Pairs, required: false },
    ]);
    const TAGS: Shape = Shape::List { of: &TAG, length: (0, 10) };

    fn words(shape: &Shape, words: &[&str]) -> Result<Value, String> {
        value(shape, &Given::Words(words.iter().map(|word| (*word).to_owned()).collect()))
    }

    #[test]
    fn values_are_spelled_as_in_the_aws_cli() {
        let integer = Shape::Integer { range: (0, 9) };
        for (shape, given, expected) in [
            (&TEXT, &["a=b,c"][..], json!("a=b,c")),
            (&integer, &["7"], json!(7)),
            (&Shape::Pairs, &["a=1,b=x=y"], json!({ "a": "1", "b": "x=y" })),
            (&Shape::Pairs, &["{\"a\": \"1,2\"}"], json!({ "a": "1,2" })),
            (&Shape::Pairs, &["{}"], json!({})),
            (&Shape::Time, &["2030-01-01T00:00:00Z"], json!(1_893_456_000)),
            (&Shape::Time, &["5"], json!(5)),
            (
                &TAGS,
                &["TagKey=a", "TagKey=b,Pairs={c=d,e=f}"],
                json!([
                    { "TagKey": "a" }, { "TagKey": "b", "Pairs": { "c": "d", "e": "f" } }
                ]),
            ),
            (&TAGS, &["[{\"TagKey\": \"a\"}]"], json!([{ "TagKey": "a" }])),
        ] {
            assert_eq!(words(shape, given), Ok(expected), "{given:?}");
        }
        assert_eq!(value(&Shape::Flag, &Given::Flag(false)), Ok(json!(false)));
    }

    #[test]
    fn what_makes_no_value_is_explained() {
        for (shape, given, problem) in [
            (&Shape::Pairs, "a", "'a' is not of the form name=value"),
            (&TAG, "Nothing=a", "'Nothing' is none of TagKey, Pairs"),
            (&Shape::Time, "soon", "is no time"),
            (&TEXT, "fileb:///dev/null", "use file:// here"),
            (&TEXT, "file:///nothing/there", "/nothing/there: "),
        ] {
            let error = words(shape, &[given]).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
    }

    #[test]
    fn a_file_of_bytes_becomes_base64() {
        let blob = Shape::Blob { length: (0, 10), secret: true };
        assert_eq!(words(&blob, &["fileb:///dev/null"]), Ok(json!("")));
    }
}

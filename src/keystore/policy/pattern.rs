//! Texts with `*`, `?` and policy variables such as `${aws:username}`.

use super::key::ConditionKey;
use super::request::Request;

/// What a text is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Char(char),
    /// `?`: one character.
    One,
    /// `*`: any number of characters.
    Any,
    /// `${key}` or `${key, 'otherwise'}`: what the request says under a condition key.
    Variable(ConditionKey, Option<String>),
}

/// What is special in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Syntax {
    /// `*` and `?` are wildcards.
    pub(super) wildcards: bool,
    /// `${...}` is a variable: in policies of version 2012-10-17.
    pub(super) variables: bool,
}

impl Pattern {
    /// Reads a pattern; the error names the variable that is none.
    pub(super) fn parse(text: &str, syntax: Syntax) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(letter) = rest.chars().next() {
            if let (true, Some(inside)) = (syntax.variables, rest.strip_prefix("${")) {
                let (name, after) = inside.split_once('}').ok_or_else(|| format!("${{{inside}"))?;
                pieces.push(variable(name)?);
                rest = after;
                continue;
            }
            pieces.push(match letter {
                '*' if syntax.wildcards => Piece::Any,
                '?' if syntax.wildcards => Piece::One,
                other => Piece::Char(other),
            });
            rest = rest.get(letter.len_utf8()..).unwrap_or_default();
        }
        Ok(Self(pieces))
    }

    /// A pattern with wildcards and without variables.
    pub(super) fn glob(text: &str) -> Self {
        let piece = |letter| match letter {
            '*' => Piece::Any,
            '?' => Piece::One,
            other => Piece::Char(other),
        };
        Self(text.chars().map(piece).collect())
    }

    /// The same pattern with the request's values in place of its variables; `None` if the
    /// request says nothing, or several things, where one is needed.
    pub(super) fn resolved(&self, request: &Request<'_>) -> Option<std::borrow::Cow<'_, Self>> {
        use std::borrow::Cow;
        if !self.0.iter().any(|piece| matches!(piece, Piece::Variable(..))) {
            return Some(Cow::Borrowed(self));
        }
        let mut pieces = Vec::new();
        for piece in &self.0 {
            match piece {
                Piece::Variable(key, otherwise) => {
                    let values = request.values(key);
                    let value = match (values.as_slice(), otherwise) {
                        ([value], _) => value,
                        ([], Some(otherwise)) => otherwise.as_str(),
                        _ => return None,
                    };
                    pieces.extend(value.chars().map(Piece::Char));
                }
                other => pieces.push(other.clone()),
            }
        }
        Some(Cow::Owned(Self(pieces)))
    }

    /// The condition keys that stand in it as variables.
    pub(super) fn variables(&self) -> impl Iterator<Item = &ConditionKey> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Variable(key, _) => Some(key),
            _ => None,
        })
    }

    /// True if the whole text fits. Needs a pattern without variables.
    pub(super) fn matches(&self, text: &str) -> bool {
        fits(&self.0, text, same)
    }

    /// The same, where `a` is `A`.
    pub(super) fn matches_ignoring_case(&self, text: &str) -> bool {
        fits(&self.0, text, |a, b| a == b || a.to_lowercase().eq(b.to_lowercase()))
    }

    /// True if an ARN fits, each of its six parts for itself.
    pub(super) fn matches_arn(&self, arn: &str) -> bool {
        let patterns: Vec<&[Piece]> =
            self.0.splitn(6, |piece| *piece == Piece::Char(':')).collect();
        let parts: Vec<&str> = arn.splitn(6, ':').collect();
        let mut pairs = patterns.iter().zip(&parts);
        patterns.len() == 6 && parts.len() == 6 && pairs.all(|(own, part)| fits(own, part, same))
    }

    /// True if it has the six parts of an ARN.
    pub(super) fn is_arn(&self) -> bool {
        self.0.splitn(6, |piece| *piece == Piece::Char(':')).count() == 6
            && self.0.starts_with(&['a', 'r', 'n', ':'].map(Piece::Char))
    }

    /// True for patterns that every text fits.
    pub(super) fn is_everything(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|piece| *piece == Piece::Any)
    }
}

/// `*`, `?` and `$` in braces stand for themselves.
fn variable(name: &str) -> Result<Piece, String> {
    if let "*" | "?" | "$" = name {
        return Ok(Piece::Char(name.chars().next().unwrap_or('$')));
    }
    let (key, otherwise) = match name.split_once(',') {
        Some((key, text)) => {
            let text = text.trim().strip_prefix('\'').and_then(|text| text.strip_suffix('\''));
            (key.trim(), Some(text.ok_or_else(|| format!("${{{name}}}"))?.to_owned()))
        }
        None => (name, None),
    };
    let key = key.parse().map_err(|_| format!("${{{name}}}"))?;
    Ok(Piece::Variable(key, otherwise))
}

fn same(a: char, b: char) -> bool {
    a == b
}

/// Matches from the left; when it fails after a `*`, that takes one character more. Only the
/// last `*` ever has to: time grows with pattern times text.
fn fits(pattern: &[Piece], text: &str, same: impl Fn(char, char) -> bool) -> bool {
    let (mut pattern, mut rest) = (pattern, text.chars());
    let mut retry: Option<(&[Piece], std::str::Chars<'_>)> = None;
    loop {
        match pattern.split_first() {
            Some((Piece::Any, after)) => {
                pattern = after;
                retry = Some((after, rest.clone()));
                continue;
            }
            Some((piece, after)) => {
                let mut ahead = rest.clone();
                let fit = ahead.next().is_some_and(|letter| match piece {
                    Piece::Char(own) => same(*own, letter),
                    Piece::One => true,
                    Piece::Any | Piece::Variable(..) => false,
                });
                if fit {
                    (pattern, rest) = (after, ahead);
                    continue;
                }
            }
            None if rest.as_str().is_empty() => return true,
            None => {}
        }
        let Some((after, from)) = &mut retry else { return false };
        if from.next().is_none() {
            return false;
        }
        (pattern, rest) = (after, from.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_whole_texts() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("?", "", false),
            ("?", "ä", true),
            ("a*c", "abbc", true),
            ("a*c", "abcb", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*ab", "aab", true),
            ("a?c*", "abcd", true),
            ("*.*.*", "a.b", false),
        ] {
            assert_eq!(Pattern::glob(pattern).matches(text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn a_pattern_made_to_be_slow_is_not() {
        let pattern = Pattern::glob(&"*a".repeat(2000));
        assert!(!pattern.matches(&"a".repeat(1999)));
        assert!(pattern.matches(&"a".repeat(2000)));
    }

    #[test]
    fn a_star_does_not_cross_the_parts_of_an_arn() {
        let arn = "arn:aws:iam::000000000000:user/a:b";
        for (pattern, expected) in [
            ("arn:aws:iam::000000000000:user/*", true),
            ("arn:aws:iam::*:user/a:b", true),
            ("arn:*:user/a:b", false),
            ("arn:aws:*:*:*:*", true),
            ("*", false),
        ] {
            assert_eq!(Pattern::glob(pattern).matches_arn(arn), expected, "{pattern}");
        }
    }

    #[test]
    fn what_is_no_variable_is_refused() {
        let syntax = Syntax { wildcards: true, variables: true };
        for text in ["${", "${}", "${aws:nothing}", "${aws:username, x}"] {
            assert!(Pattern::parse(text, syntax).is_err(), "{text}");
        }
        assert!(Pattern::parse("${*}${?}${$}", syntax).unwrap().matches("*?$"));
        let old = Syntax { wildcards: true, variables: false };
        assert!(Pattern::parse("${aws:username}", old).unwrap().matches("${aws:username}"));
    }
}

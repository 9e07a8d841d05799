//! Texts that somebody else wrote, made harmless for a terminal and a log.
//!
//! Names in a vault, answers of a daemon or a KMS, names of processes: whoever chose them must not
//! move the cursor, change colours, turn the direction of writing, or begin a line of their own.

use std::borrow::Cow;

/// The text on one line, with everything escaped that a terminal would obey.
pub(in crate::cli) fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, |letter| letter.escape_default().collect())
}

/// The same for texts of several lines, whose parts are printable.
pub(in crate::cli) fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |letter| match letter {
        '\n' | '\t' => letter.to_string(),
        other => other.escape_default().collect(),
    })
}

/// JSON with the same characters escaped: they can only stand in its strings.
pub(in crate::cli) fn json(text: &str) -> Cow<'_, str> {
    escaped(text, |letter| match letter {
        '\n' => letter.to_string(),
        other => format!("\\u{:04x}", u32::from(other)),
    })
}

fn escaped(text: &str, escape: impl Fn(char) -> String) -> Cow<'_, str> {
    if !text.chars().any(steers) {
        return Cow::Borrowed(text);
    }
    let one = |letter: char| if steers(letter) { escape(letter) } else { letter.to_string() };
    Cow::Owned(text.chars().map(one).collect())
}

/// True for control characters (C0, delete, C1), marks that turn the direction of writing, and
/// separators of lines.
fn steers(letter: char) -> bool {
    letter.is_control()
        || matches!(letter,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "a\u{1b}[2Jb\u{9b}1mc\r\nkmsfs: all well\u{202e}gpj.exe\u{7f}\u{2067}é";

    #[test]
    fn nothing_steers_the_terminal() {
        for made in [printable(HOSTILE), lines(HOSTILE), json(HOSTILE)] {
            assert!(!made.chars().any(|letter| letter != '\n' && steers(letter)), "{made:?}");
        }
        assert!(!printable(HOSTILE).contains('\n'));
        assert_eq!(printable("\u{1b}[0m\t"), "\\u{1b}[0m\\t");
        assert_eq!(lines("a\tb\nc\u{7}"), "a\tb\nc\\u{7}");
    }

    #[test]
    fn json_stays_the_same_document() {
        let document = serde_json::json!({ "name": HOSTILE });
        let text = format!("{document:#}");
        let back: serde_json::Value = serde_json::from_str(&json(&text)).unwrap();
        assert_eq!(back, document);
    }

    #[test]
    fn ordinary_texts_are_left_alone() {
        for text in ["", "ordinary, ünïcödé 文字 🎉 \\ \"quoted\""] {
            assert!(matches!(printable(text), Cow::Borrowed(_)), "{text}");
        }
    }
}

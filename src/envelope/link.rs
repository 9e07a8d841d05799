//! The text of a backing symbolic link (FORMAT section 7.2).
//!
//! The encrypted form of a target is a third longer than the target, and a backing link holds 4095
//! bytes, on some filesystems less: a target over 3055 bytes, or one that was not taken, is kept in a
//! file, and the link names that file. The two forms
//! are told apart by their length alone: base64 text never has a length of 1 modulo 4, and the text
//! of a long link always has.

/// The longest target, in bytes.
pub const TARGET_MAX: usize = 4095;
/// The longest text of a backing link.
pub const LINK_TEXT_MAX: usize = 4095;

/// Bytes by which AES-SIV makes a target longer.
const SEAL: u64 = 16;
/// Starts the text of a long link: this, its target's length, a dot, its id, padding.
const LONG_MARK: &str = "long.";
const ID_LEN: usize = 32;

/// The text of a backing link whose target is in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LongLink {
    length: usize,
    id: String,
}

impl LongLink {
    /// The link to a target of `length` bytes in the file with this id.
    pub fn new(length: usize, id: [u8; ID_LEN / 2]) -> Self {
        Self { length, id: base16ct::lower::encode_string(&id) }
    }

    /// The length of the target: a claim.
    ///
    /// *Shape*: 1 to [`TARGET_MAX`].
    pub fn length(&self) -> usize {
        self.length
    }

    /// The name of the file that holds the encrypted target: 32 hexadecimal digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The text of the link.
    pub fn text(&self) -> String {
        let mut text = format!("{LONG_MARK}{}.{}", self.length, self.id);
        while text.len() % 4 != 1 {
            text.push('.');
        }
        text
    }

    /// `None` for what [`Self::text`] does not make.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (length, id) = text.strip_prefix(LONG_MARK)?.split_once('.')?;
        let (length, id) = (length.parse().ok()?, id.trim_end_matches('.'));
        let plain = id.len() == ID_LEN && id.bytes().all(|b| b.is_ascii_hexdigit());
        // The length is shown as the link's size before anything vouches for it.
        if !plain || !(1..=TARGET_MAX).contains(&length) {
            return None;
        }
        Some(Self { length, id: id.to_owned() }).filter(|link| link.text() == text)
    }
}

/// The length of the target whose encrypted form has `backing` bytes; `None` for the long form.
pub fn link_target_len(backing: u64) -> Option<u64> {
    // Three quarters, without the product: a claim may be any number.
    let sealed = backing / 4 * 3 + backing % 4 * 3 / 4;
    (backing % 4 != 1).then(|| sealed.saturating_sub(SEAL))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: [u8; 16] = [0xa5; 16];

    #[test]
    fn the_long_form_reads_back_and_is_told_by_its_length() {
        for length in [1, 700, 3056, 4000, 4095] {
            let long = LongLink::new(length, ID);
            assert_eq!(link_target_len(long.text().len() as u64), None);
            assert_eq!(LongLink::parse(long.text().as_bytes()), Some(long));
        }
    }

    #[test]
    fn a_base64_length_gives_the_length_of_the_target() {
        for target in 1..=3055 {
            let sealed = target + SEAL;
            let base64 = sealed / 3 * 4 + [0, 2, 3][usize::try_from(sealed % 3).unwrap()];
            assert_eq!(link_target_len(base64), Some(target));
            assert!(base64 <= LINK_TEXT_MAX as u64, "{target}");
        }
        assert!(link_target_len(u64::MAX).is_some());
    }

    #[test]
    fn other_texts_are_no_long_links() {
        for text in ["", "long.1.x", "long.10.../../../../etc/passwd0000000000", "abcde"] {
            assert_eq!(LongLink::parse(text.as_bytes()), None, "{text}");
        }
    }

    /// A planted link was shown with a size of 2^64 - 1, and who reads a link makes room for that.
    #[test]
    fn regression_a_long_link_claims_no_more_than_a_target_can_have() {
        for length in ["18446744073709551615", "4096", "0", "+3056", "03056"] {
            let mut text = format!("long.{length}.{}", "a5".repeat(16));
            while text.len() % 4 != 1 {
                text.push('.');
            }
            assert_eq!(LongLink::parse(text.as_bytes()), None, "{text}");
        }
    }
}

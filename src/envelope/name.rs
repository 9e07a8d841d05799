//! Names of entries: what may be one, which are the vault's own, and how those are shown that no
//! name of ours stands for (FORMAT section 7).

use super::META_DIR;
use crate::crypto::hash::sha256;

/// What the backing names of long names start with.
pub const LONG_PREFIX: &str = "kn.";
/// What is added to them for the file that holds the encrypted name.
pub const SIDECAR_SUFFIX: &str = ".name";
/// What the names of foreign entries start with. Nothing can be created under such a name.
pub const FOREIGN_PREFIX: &[u8] = b"kmsfs.foreign.";
/// The longest name of an entry, in bytes.
pub const NAME_MAX: usize = 255;

/// Starts the shown form of a foreign name that cannot be shown whole.
const HASHED: &[u8] = b"~";
/// Bytes of the hash in it.
const HASH_LEN: usize = 16;

/// The backing form of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EncodedName {
    /// The encrypted name itself.
    Inline(String),
    /// The encrypted name is too long for one: it is kept in a file beside.
    Long {
        /// The backing name of the entry.
        entry: String,
        /// The backing name of the file that holds the encrypted name.
        sidecar: String,
        /// That file's contents.
        contents: String,
    },
}

impl EncodedName {
    /// The backing name of the entry.
    pub fn entry(&self) -> &str {
        match self {
            Self::Inline(entry) | Self::Long { entry, .. } => entry,
        }
    }
}

/// What the shown form of a foreign name says of its entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForeignName<'a> {
    /// Its backing name, whatever that is: it comes from a user.
    Entry(&'a [u8]),
    /// A hash: it is the entry whose [`foreign_name`] this is.
    Hashed,
}

impl<'a> ForeignName<'a> {
    /// `None` for what is not the shown form of a foreign name.
    pub fn parse(name: &'a [u8]) -> Option<Self> {
        let raw = name.strip_prefix(FOREIGN_PREFIX)?;
        Some(if raw.starts_with(HASHED) { Self::Hashed } else { Self::Entry(raw) })
    }
}

/// The name under which a foreign entry is shown: no two entries of a directory share one.
///
/// *Shape*: at most [`NAME_MAX`] bytes.
pub fn foreign_name(entry: &[u8]) -> Vec<u8> {
    // A name that begins like a hash would be taken for one.
    if FOREIGN_PREFIX.len() + entry.len() <= NAME_MAX && !entry.starts_with(HASHED) {
        return [FOREIGN_PREFIX, entry].concat();
    }
    let mut name = [FOREIGN_PREFIX, HASHED].concat();
    let hash = sha256(&[entry]);
    let (hash, _) = hash.split_at(HASH_LEN);
    name.extend(base16ct::lower::encode_string(hash).into_bytes());
    name
}

/// True for the name of one entry, whatever directory it is used in: 1 to 255 bytes without `/` and
/// NUL, and neither `.` nor `..`.
pub const fn is_name(name: &[u8]) -> bool {
    if matches!(name, b"" | b"." | b"..") || name.len() > NAME_MAX {
        return false;
    }
    let mut rest = name;
    while let [first, tail @ ..] = rest {
        if matches!(first, b'/' | 0) {
            return false;
        }
        rest = tail;
    }
    true
}

/// True for backing names that belong to the vault itself and are never shown.
pub fn is_hidden(entry: &[u8]) -> bool {
    entry.starts_with(META_DIR.as_bytes()) || is_sidecar(entry)
}

/// True for the backing name of a file that holds a long name.
pub fn is_sidecar(name: &[u8]) -> bool {
    name.starts_with(LONG_PREFIX.as_bytes()) && name.ends_with(SIDECAR_SUFFIX.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_name_is_shown_whole_or_as_a_hash() {
        let shown = foreign_name(b"readme");
        assert_eq!(shown, b"kmsfs.foreign.readme");
        assert_eq!(ForeignName::parse(&shown), Some(ForeignName::Entry(b"readme")));
        let long = foreign_name(&[b'x'; 250]);
        assert_eq!(long.len(), 14 + 1 + 32);
        assert_eq!(ForeignName::parse(&long), Some(ForeignName::Hashed));
        assert_eq!(ForeignName::parse(b"readme"), None);
    }

    /// `~notes` was shown as it is and then looked for as a hash: nobody could remove it.
    #[test]
    fn regression_a_foreign_name_that_begins_like_a_hash_can_be_found() {
        for entry in [&b"~"[..], b"~notes", b"~0123456789abcdef0123456789abcdef"] {
            let shown = foreign_name(entry);
            match ForeignName::parse(&shown).unwrap() {
                ForeignName::Entry(raw) => assert_eq!(raw, entry),
                ForeignName::Hashed => assert_ne!(&shown[FOREIGN_PREFIX.len()..], entry),
            }
        }
    }
}

//! SHA-256, HMAC-SHA-256, HKDF-SHA-256, and the one table of derivation labels.

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::secret::wipe_stack;
use super::{CryptoError, Secret};

/// The SHA-256 of the parts, one after the other.
///
/// The parts are only concatenated: where their lengths vary, prefix them with their lengths.
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

/// The HMAC-SHA-256 of the parts, one after the other. As with [`sha256`], prefix lengths.
pub fn hmac_sha256(key: &Secret<32>, parts: &[&[u8]]) -> [u8; 32] {
    keyed(key, parts).finalize().into_bytes().into()
}

/// Checks a MAC made by [`hmac_sha256`] in constant time.
/// Errors: `NotAuthentic`.
pub fn hmac_verify(key: &Secret<32>, parts: &[&[u8]], mac: &[u8; 32]) -> Result<(), CryptoError> {
    keyed(key, parts).verify_slice(mac).map_err(|_| CryptoError::NotAuthentic)
}

/// Checks the first bytes of a MAC made by [`hmac_sha256`] in constant time: for hints, of which there
/// are many and none is worth 32 bytes.
/// Errors: `NotAuthentic`.
pub fn hmac_verify_short(
    key: &Secret<32>,
    parts: &[&[u8]],
    mac: &[u8; 8],
) -> Result<(), CryptoError> {
    keyed(key, parts).verify_truncated_left(mac).map_err(|_| CryptoError::NotAuthentic)
}

/// A key of `N` bytes for one purpose, from a uniformly random key.
/// Shape: `N <= 64`.
/// Source: RFC 5869, HKDF-SHA-256 with the label as `info`.
pub fn derive<const N: usize>(ikm: &Secret<32>, salt: &[u8], label: Label) -> Secret<N> {
    derive_from(ikm.expose(), salt, label)
}

/// Like [`derive()`], from input of any length, such as the contents of a key file.
pub fn derive_from<const N: usize>(ikm: &[u8], salt: &[u8], label: Label) -> Secret<N> {
    const { assert!(N <= 64, "no key in this crate is longer than 64 bytes") };
    let derived = Secret::filled(|out| hkdf(ikm, salt, label.as_str().as_bytes(), out));
    wipe_stack();
    derived
}

#[inline(never)]
fn hkdf(ikm: &[u8], salt: &[u8], info: &[u8], out: &mut [u8]) {
    let kdf = Hkdf::<Sha256>::new(Some(salt), ikm);
    kdf.expand(info, out).expect("callers ask for less than HKDF's limit of 8160 bytes");
}

fn keyed(key: &Secret<32>, parts: &[&[u8]]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose()).expect("HMAC takes every length");
    for part in parts {
        mac.update(part);
    }
    mac
}

macro_rules! labels {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What a derived key is for. No two purposes share a label, and none is ever reused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Label {
            $($(#[$doc])* $name,)*
        }

        impl Label {
            /// The bytes that go into the derivation.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            #[cfg(test)]
            const ALL: &[Self] = &[$(Self::$name,)*];
        }
    };
}

labels! {
    /// Encrypts the units of a file.
    FileUnit = "kmsfs/1/file/unit",
    /// Authenticates a file's header slots.
    FileHeader = "kmsfs/1/file/header",
    /// Commits to the file key.
    FileCommit = "kmsfs/1/file/commit",
    /// Encrypts the names of a file's extended attributes.
    FileXattrName = "kmsfs/1/file/xattr-name",
    /// Encrypts the values of a file's extended attributes.
    FileXattrValue = "kmsfs/1/file/xattr-value",
    /// Encrypts the names in a directory.
    DirName = "kmsfs/1/dir/name",
    /// Authenticates a directory descriptor.
    DirDescriptor = "kmsfs/1/dir/descriptor",
    /// Commits to the directory key.
    DirCommit = "kmsfs/1/dir/commit",
    /// Encrypts the names of a directory's extended attributes.
    DirXattrName = "kmsfs/1/dir/xattr-name",
    /// Encrypts the values of a directory's extended attributes.
    DirXattrValue = "kmsfs/1/dir/xattr-value",
    /// Encrypts the targets of the symbolic links in a directory.
    DirLink = "kmsfs/1/dir/link",
    /// Authenticates the volume descriptor.
    VolumeDescriptor = "kmsfs/1/volume/descriptor",
    /// Commits to the volume key.
    VolumeCommit = "kmsfs/1/volume/commit",
    /// Authenticates the record of a volume's sessions.
    VolumeState = "kmsfs/1/volume/state",
    /// Authenticates what is kept of a volume on a machine without its keystore.
    VolumeAnchor = "kmsfs/1/volume/anchor",
    /// Authenticates the list of times that a mount shows.
    VolumeTimes = "kmsfs/1/volume/times",
    /// Seals the rows of a keystore.
    KeystoreRow = "kmsfs/1/keystore/row",
    /// Authenticates the set of all rows of a keystore.
    KeystoreSet = "kmsfs/1/keystore/set",
    /// Makes equal names findable without showing them.
    KeystoreLookup = "kmsfs/1/keystore/lookup",
    /// Seals the wrapping keys of a keystore's KMS keys.
    KeystoreWrapping = "kmsfs/1/keystore/wrapping",
    /// Seals key material under a KMS key's wrapping key.
    KeystoreMaterial = "kmsfs/1/keystore/material",
    /// Names imported key material by what it is.
    KeystoreMaterialId = "kmsfs/1/keystore/material-id",
    /// Seals the root key in an unlock slot.
    KeystoreSlot = "kmsfs/1/keystore/slot",
    /// Turns the contents of a key file into a slot's key.
    KeystoreKeyFile = "kmsfs/1/keystore/key-file",
    /// The seed of the key that signs what a keystore tells others.
    KeystoreIdentity = "kmsfs/1/keystore/identity",
    /// Seals a KMS key for another keystore.
    /// Seals an exported keystore.
    KeystoreExport = "kmsfs/1/keystore/export",
    /// Seals the records of a keystore's audit log.
    AuditRecord = "kmsfs/1/audit/record",
    /// The seed of the key that signs the audit log's checkpoints.
    AuditSigning = "kmsfs/1/audit/signing",
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn labels_are_distinct_and_none_is_the_start_of_another_purpose() {
        let texts: HashSet<_> = Label::ALL.iter().map(|label| label.as_str()).collect();
        assert_eq!(texts.len(), Label::ALL.len());
        assert!(texts.iter().all(|text| text.starts_with("kmsfs/1/")));
    }

    /// RFC 5869, test cases A.1 to A.3.
    #[test]
    fn hkdf_agrees_with_its_rfc() {
        let bytes = |range: std::ops::RangeInclusive<u8>| range.collect::<Vec<_>>();
        let cases = [
            (
                vec![0x0b; 22],
                bytes(0..=12),
                bytes(0xf0..=0xf9),
                "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
            ),
            (
                bytes(0..=0x4f),
                bytes(0x60..=0xaf),
                bytes(0xb0..=0xff),
                "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
            ),
            (
                vec![0x0b; 22],
                vec![],
                vec![],
                "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
            ),
        ];
        for (ikm, salt, info, expected) in cases {
            let mut out = vec![0; expected.len() / 2];
            hkdf(&ikm, &salt, &info, &mut out);
            let hex = base16ct::lower::encode_string(&out);
            assert_eq!(hex, expected);
        }
    }

    #[test]
    fn a_mac_is_checked_whole() {
        let key = Secret::random().unwrap();
        let mut mac = hmac_sha256(&key, &[b"a", b"bc"]);
        assert_eq!(hmac_verify(&key, &[b"abc"], &mac), Ok(()));
        mac[31] ^= 1;
        assert_eq!(hmac_verify(&key, &[b"abc"], &mac), Err(CryptoError::NotAuthentic));
    }

    #[test]
    fn salt_and_label_both_separate_keys() {
        let ikm = Secret::random().unwrap();
        let base = derive::<32>(&ikm, b"s", Label::FileUnit);
        assert_eq!(base, derive(&ikm, b"s", Label::FileUnit));
        assert_ne!(base, derive(&ikm, b"t", Label::FileUnit));
        assert_ne!(base, derive(&ikm, b"s", Label::FileHeader));
    }
}

//! The keys of one file: all derived from the one random file key that is wrapped in its header.

use super::unit::UnitCipher;
use super::xattr::XattrKeys;
use crate::crypto::hash::{Label, derive};
use crate::crypto::secret::Secret;
use crate::id::FileId;

/// The file key (DEK) and what is derived from it (FORMAT section 4).
///
/// Lives while the file is open; every part is wiped on drop.
#[derive(Debug)]
pub struct FileKeys {
    file: FileId,
    dek: Secret<32>,
    commitment: [u8; 32],
    header_mac: Secret<32>,
}

impl FileKeys {
    /// The keys that the file key `dek` gives for `file`.
    pub fn new(file: FileId, dek: Secret<32>) -> Self {
        let commitment = *derive::<32>(&dek, file.as_bytes(), Label::FileCommit).expose();
        let header_mac = derive(&dek, file.as_bytes(), Label::FileHeader);
        Self { file, dek, commitment, header_mac }
    }

    /// The file that the keys belong to.
    pub fn file(&self) -> FileId {
        self.file
    }

    /// The value that the header carries so that one ciphertext cannot be given two keys.
    pub fn commitment(&self) -> &[u8; 32] {
        &self.commitment
    }

    /// The key of the header's MAC.
    pub(super) fn header_mac(&self) -> &Secret<32> {
        &self.header_mac
    }

    /// The cipher for the file's pages.
    pub fn unit_cipher(&self) -> UnitCipher {
        UnitCipher::new(self.file, derive(&self.dek, self.file.as_bytes(), Label::FileUnit))
    }

    /// The keys for the names and values of the file's extended attributes.
    pub fn xattr_keys(&self) -> XattrKeys {
        XattrKeys::new(
            *self.file.as_bytes(),
            derive(&self.dek, self.file.as_bytes(), Label::FileXattrName),
            derive(&self.dek, self.file.as_bytes(), Label::FileXattrValue),
        )
    }
}

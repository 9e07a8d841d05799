//! Wrapped keys, and for whom they are wrapped (FORMAT section 3.2).

use super::EnvelopeError;
use crate::id::{KeyId, MaterialId};

/// Bytes of a 32-byte key that a keystore of ours wrapped: nonce 24, ciphertext 32, tag 16.
pub const WRAPPED_LEN: usize = 72;
/// Longest ciphertext of a foreign KMS that a record holds. AWS makes 184 bytes.
pub const OPAQUE_MAX: usize = 300;
/// Most recipients of one file.
pub(super) const MAX_RECIPIENTS: usize = 3;
/// Bytes that the recipients of one file may have together: the rest of the header slot.
pub(super) const RECIPIENTS_ROOM: usize = 380;

/// Type, length, key id and material id.
const FIXED_LEN: usize = 36;

/// A key wrapped for one KMS key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// The KMS key.
    pub key: KeyId,
    /// The version of its material.
    pub material: MaterialId,
    /// The wrapped key.
    pub wrapped: Wrapped,
}

/// The wrapped form of a 32-byte key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrapped {
    /// Type 1: made by a keystore of ours, so nonce, ciphertext and tag are known.
    Kms([u8; WRAPPED_LEN]),
    /// Type 2: a foreign KMS made it, and only that KMS can read it.
    Opaque(Opaque),
}

/// The ciphertext of a foreign KMS: 1 to [`OPAQUE_MAX`] bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opaque(Vec<u8>);

/// The recipients of a file key: 1 to `MAX_RECIPIENTS`, and together they fit into a header slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipients(Vec<Recipient>);

impl Recipient {
    /// Bytes of this recipient in a record.
    pub fn encoded_len(&self) -> usize {
        FIXED_LEN
            + match &self.wrapped {
                Wrapped::Kms(wrapped) => wrapped.len(),
                Wrapped::Opaque(opaque) => opaque.as_bytes().len(),
            }
    }
}

impl Opaque {
    /// Takes a ciphertext as a KMS gave it.
    ///
    /// # Errors
    /// `Oversized` when it is empty or longer than [`OPAQUE_MAX`] bytes.
    pub fn new(bytes: Vec<u8>) -> Result<Self, EnvelopeError> {
        if (1..=OPAQUE_MAX).contains(&bytes.len()) {
            Ok(Self(bytes))
        } else {
            Err(EnvelopeError::Oversized("the ciphertext of the KMS"))
        }
    }

    /// The ciphertext.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its length, as the record says it.
    pub(super) fn length(&self) -> u16 {
        u16::try_from(self.0.len()).expect("the constructor refuses more than 300 bytes")
    }
}

impl Recipients {
    /// Takes the recipients of a file, the preferred one first.
    ///
    /// # Errors
    /// `Oversized` when there are none, more than three, or they do not fit into a header slot
    /// together: two of a foreign KMS may not.
    pub fn new(recipients: Vec<Recipient>) -> Result<Self, EnvelopeError> {
        let length: usize = recipients.iter().map(Recipient::encoded_len).sum();
        if (1..=MAX_RECIPIENTS).contains(&recipients.len()) && length <= RECIPIENTS_ROOM {
            Ok(Self(recipients))
        } else {
            Err(EnvelopeError::Oversized("the list of wrapped keys"))
        }
    }

    /// How many there are, as the record says it.
    pub(super) fn count(&self) -> u8 {
        u8::try_from(self.0.len()).expect("the constructor refuses more than three")
    }
}

impl From<Recipient> for Recipients {
    /// One recipient always fits.
    fn from(recipient: Recipient) -> Self {
        Self(vec![recipient])
    }
}

impl std::ops::Deref for Recipients {
    type Target = [Recipient];

    fn deref(&self) -> &[Recipient] {
        &self.0
    }
}

const _: () = assert!(FIXED_LEN + OPAQUE_MAX <= RECIPIENTS_ROOM);
const _: () = assert!(MAX_RECIPIENTS * (FIXED_LEN + WRAPPED_LEN) <= RECIPIENTS_ROOM);

#[cfg(test)]
mod tests {
    use super::*;

    fn with(wrapped: Wrapped) -> Recipient {
        let (key, material) = (KeyId::from_bytes([1; 16]), MaterialId::from_bytes([2; 16]));
        Recipient { key, material, wrapped }
    }

    fn opaque(length: usize) -> Recipient {
        with(Wrapped::Opaque(Opaque::new(vec![9; length]).unwrap()))
    }

    #[test]
    fn a_foreign_ciphertext_has_1_to_300_bytes() {
        assert!(Opaque::new(Vec::new()).is_err());
        assert!(Opaque::new(vec![0; 301]).is_err());
        assert_eq!(opaque(184).encoded_len(), 220);
        assert_eq!(opaque(300).encoded_len(), 336);
    }

    #[test]
    fn recipients_fit_into_a_slot_or_are_refused() {
        let ours = with(Wrapped::Kms([3; WRAPPED_LEN]));
        assert!(Recipients::new(vec![ours.clone(); 3]).is_ok());
        assert!(Recipients::new(vec![ours.clone(); 4]).is_err());
        assert!(Recipients::new(Vec::new()).is_err());
        assert!(Recipients::new(vec![ours, opaque(184)]).is_ok());
        assert!(Recipients::new(vec![opaque(184); 2]).is_err());
        assert!(Recipients::new(vec![opaque(300)]).is_ok());
    }
}

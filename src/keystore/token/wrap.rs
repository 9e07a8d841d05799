//! AES-256-GCM on the token.

use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::session::Session;
use zeroize::Zeroizing;

use super::TokenError;
use super::error::Fault;
use super::session::TokenKeyId;
use super::session::{Line, Token};
use crate::crypto::{Nonce, random};
use cryptoki::object::ObjectHandle;

/// Bytes of the nonce. Drawn at random: one key wraps at most 2^32 times.
pub(in crate::keystore) const NONCE_LEN: usize = size_of::<Nonce>();

/// Bytes that [`Token::seal`] adds: nonce and tag.
pub(in crate::keystore) const OVERHEAD: usize = NONCE_LEN + 16;

/// What a probe authenticates; nothing else does.
const PROBE: &[u8] = b"kmsfs: probe";

impl Token {
    /// Encrypts on the token.
    /// Shape: nonce 12 | ciphertext | tag 16.
    /// Errors: `KeyMissing`, `Unavailable`, and those of a login.
    pub(in crate::keystore) fn seal(
        &self,
        key: &TokenKeyId,
        aad: &[u8],
        plaintext: &[u8],
    ) -> Result<Vec<u8>, TokenError> {
        self.run(|line| {
            let handle = self.key(line, key)?;
            self.seal_with(line.session(), handle, aad, plaintext)
        })
    }

    /// Is the token there, and does it wrap under this key?
    /// Errors: as [`Token::seal`].
    pub(in crate::keystore) fn probe(&self, key: &TokenKeyId) -> Result<(), TokenError> {
        self.seal(key, PROBE, &[0; 16]).map(drop)
    }

    /// Decrypts on the token what [`Token::seal`] made.
    /// Errors: `NotAuthentic`; `KeyMissing`, `Unavailable`, and those of a login.
    pub(in crate::keystore) fn open(
        &self,
        key: &TokenKeyId,
        aad: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, TokenError> {
        let (nonce, body) = sealed.split_first_chunk().ok_or(TokenError::NotAuthentic)?;
        if sealed.len() < OVERHEAD {
            return Err(TokenError::NotAuthentic);
        }
        self.run(|line| {
            let handle = self.key(line, key)?;
            match self.open_with(line.session(), handle, (nonce, aad), body) {
                Err(Fault::Refused(why)) => Err(self.judge(line, handle, why)),
                other => other,
            }
        })
    }

    /// Tokens answer a wrong tag with codes that also mean "something is broken" (SoftHSM:
    /// `CKR_GENERAL_ERROR`). One that encrypts with the same key is not broken.
    fn judge(&self, line: &Line, key: ObjectHandle, why: String) -> Fault {
        match self.seal_with(line.session(), key, PROBE, &[0; 16]) {
            Ok(_) => Fault::Final(TokenError::NotAuthentic),
            Err(Fault::Final(error) | Fault::Lost(error)) => Fault::Lost(error),
            Err(Fault::Refused(_)) => {
                Fault::Lost(TokenError::Unavailable(self.token_ref().clone(), why))
            }
        }
    }

    fn seal_with(
        &self,
        session: &Session,
        key: ObjectHandle,
        aad: &[u8],
        plaintext: &[u8],
    ) -> Result<Vec<u8>, Fault> {
        let mut nonce: Nonce = [0; NONCE_LEN];
        let random = random::fill(&mut nonce);
        random.map_err(|error| Fault::Refused(error.to_string()))?;
        let mut sealed = nonce.to_vec();
        let mechanism = self.gcm(&mut nonce, aad)?;
        sealed.extend(self.call(session.encrypt(&mechanism, key, plaintext))?);
        Ok(sealed)
    }

    fn open_with(
        &self,
        session: &Session,
        key: ObjectHandle,
        (nonce, aad): (&Nonce, &[u8]),
        body: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let mut nonce = *nonce;
        let mechanism = self.gcm(&mut nonce, aad)?;
        self.call(session.decrypt(&mechanism, key, body)).map(Zeroizing::new)
    }

    fn gcm<'a>(&self, nonce: &'a mut Nonce, aad: &'a [u8]) -> Result<Mechanism<'a>, Fault> {
        self.call(GcmParams::new(nonce, aad, 128.into())).map(Mechanism::AesGcm)
    }
}

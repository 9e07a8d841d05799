//! Rank 0: the primitives. No files, no clock that decides anything, no state beyond a key.
//!
//! Imports nothing of the crate. Every algorithm has one home:
//!
//! | module | what it gives |
//! |---|---|
//! | [`secret`] | [`Secret`]: the only owner of key bytes |
//! | [`random`] | the only source of randomness |
//! | [`aead`] | AES-256-GCM, the reference implementation; wraps keys |
//! | [`xaes`] | XAES-256-GCM: 24-byte nonces, safe to draw at random |
//! | [`bulk`] | AES-256-GCM for page contents, on the fastest backend |
//! | [`wiped`] | [`Wiped`]: plaintext, wiped when dropped |
//! | [`siv`] | AES-256-SIV: deterministic, for names |
//! | [`ed25519`] | Ed25519 keys and signatures |
//! | [`hash`] | SHA-256, HMAC, HKDF and the one table of derivation labels |
//! | [`digest`] | the SHA functions, chosen at run time |
//! | [`mac`] | HMAC with them |
//! | [`asym`] | RSA, ECDSA, ECDH, Ed25519, ML-DSA behind one type of key |
//! | [`hybrid`] | HPKE: messages for the owner of a key pair |
//! | [`keywrap`] | AES key wrap with padding, for imported keys |
//! | [`passphrase`] | Argon2id with a bounded cost |
//!
//! Invariants: a failed authentication returns no byte of plaintext (buffers are wiped); secrets
//! are compared in constant time; nothing here prints a secret.

pub mod aead;
pub mod asym;
pub mod bulk;
pub mod digest;
pub mod ed25519;
pub mod error;
pub mod hash;
pub mod hybrid;
pub mod keywrap;
pub mod mac;
pub mod passphrase;
pub mod random;
pub mod room;
pub mod secret;
pub mod siv;
pub mod wiped;
pub mod xaes;

pub use error::CryptoError;
pub use hash::Label;
pub use secret::Secret;
pub use wiped::Wiped;

/// The authentication tag of AES-GCM.
pub type Tag = [u8; 16];

/// The nonce of AES-GCM.
pub type Nonce = [u8; 12];

//! What opens a keystore: a passphrase, a key file, a systemd credential, or a PKCS#11 token.

pub(in crate::keystore) mod slot;
pub(in crate::keystore) mod token_slot;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use base64ct::{Base64, Encoding};
use zeroize::Zeroizing;

use crate::crypto::hash::{self, Label};
use crate::crypto::passphrase::{self, Cost};
use crate::crypto::{CryptoError, Secret};
use crate::keystore::error::{KeyFileProblem, KeystoreError};
use crate::keystore::model::slot::SlotKind;
use crate::keystore::storage::file::Draft;
use crate::keystore::token::{Pin, Token, TokenRef};

/// The name of the credential that systemd passes, in `$CREDENTIALS_DIRECTORY`.
pub const CREDENTIAL: &str = "kmsfs.key";

/// The name of the credential that holds the PIN of a token.
pub const PIN_CREDENTIAL: &str = "kmsfs.pin";

/// A way to open a keystore.
pub enum Unlock {
    /// A passphrase, without a line end.
    Passphrase(Zeroizing<Vec<u8>>),
    /// A file of at least 32 bytes that only its owner can read.
    KeyFile(PathBuf),
    /// The directory of systemd's credentials, which holds a file [`CREDENTIAL`].
    Credentials(PathBuf),
    /// A key on a PKCS#11 token.
    Token(TokenRef, Pin),
}

impl Unlock {
    pub(in crate::keystore) fn kind(&self) -> SlotKind {
        match self {
            Self::Passphrase(_) => SlotKind::Passphrase,
            Self::KeyFile(_) => SlotKind::KeyFile,
            Self::Credentials(_) => SlotKind::Credential,
            Self::Token(..) => SlotKind::Token,
        }
    }

    /// Reads the key file or logs in to the token, once for all slots that are tried.
    pub(in crate::keystore) fn load(&self) -> Result<Loaded<'_>, KeystoreError> {
        let secret = match self {
            Self::Passphrase(passphrase) => SlotSecret::Passphrase(passphrase),
            Self::KeyFile(path) => SlotSecret::Bytes(read_key_file(path, Exposure::Refused)?),
            // systemd decides who reads its credentials, by access lists that look like a group.
            Self::Credentials(dir) => {
                SlotSecret::Bytes(read_key_file(&dir.join(CREDENTIAL), Exposure::Accepted)?)
            }
            Self::Token(token_ref, pin) => {
                return Ok(Loaded::Token(Token::log_in(token_ref.clone(), pin.duplicate())?));
            }
        };
        Ok(Loaded::Secret(secret))
    }
}

impl fmt::Debug for Unlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passphrase(_) => f.write_str("Passphrase"),
            Self::KeyFile(path) => f.debug_tuple("KeyFile").field(path).finish(),
            Self::Credentials(dir) => f.debug_tuple("Credentials").field(dir).finish(),
            Self::Token(token_ref, _) => f.debug_tuple("Token").field(token_ref).finish(),
        }
    }
}

/// An [`Unlock`], ready to use.
pub(in crate::keystore) enum Loaded<'a> {
    Secret(SlotSecret<'a>),
    Token(Token),
}

impl Loaded<'_> {
    /// May this protect a keystore from now on?
    /// Errors: `Validation` for an empty passphrase.
    pub(in crate::keystore) fn check_new(&self) -> Result<(), KeystoreError> {
        match self {
            Self::Secret(secret) => secret.check_new(),
            Self::Token(_) => Ok(()),
        }
    }
}

/// A secret in memory.
pub(in crate::keystore) enum SlotSecret<'a> {
    Passphrase(&'a [u8]),
    Bytes(Zeroizing<Vec<u8>>),
}

impl SlotSecret<'_> {
    /// May this protect a keystore from now on?
    /// Errors: `Validation` for an empty passphrase.
    pub(in crate::keystore) fn check_new(&self) -> Result<(), KeystoreError> {
        match self {
            Self::Passphrase([]) => {
                Err(KeystoreError::Validation("a passphrase is not empty".to_owned()))
            }
            Self::Passphrase(_) | Self::Bytes(_) => Ok(()),
        }
    }

    /// The key of a slot with this salt and cost.
    /// Errors: `NoMemory`.
    pub(in crate::keystore) fn slot_key(
        &self,
        salt: &[u8; 16],
        cost: Cost,
    ) -> Result<Secret<32>, CryptoError> {
        match self {
            Self::Passphrase(passphrase) => passphrase::derive(passphrase, salt, cost),
            Self::Bytes(bytes) => Ok(hash::derive_from(bytes, salt, Label::KeystoreKeyFile)),
        }
    }
}

/// Makes a key file: mode 0600, 32 random bytes as one line of base64, durable.
///
/// It has another name until it is complete and durable, and takes no name that is taken. A crash
/// before leaves a file `.kmsfs.tmp.*` that nothing needs; one after, a key file for the next try.
/// Once it has its name it is never removed: somebody else may have taken it for a keystore.
/// Errors: `KeyFile`, also when the file exists.
pub fn create_key_file(path: &Path) -> Result<(), KeystoreError> {
    let key = Secret::<32>::random()?;
    let mut line = Zeroizing::new([0; 45]);
    let (text, end) = line.split_at_mut(44);
    Base64::encode(key.expose(), text).expect("32 bytes are 44 characters of base64");
    end.fill(b'\n');
    let failed = |problem| key_file_error(path, KeyFileProblem::Io(problem));
    let made = Draft::beside(path).and_then(|mut draft| {
        draft.write(line.as_slice()).map_err(failed)?;
        draft.publish()
    });
    made.map_err(|error| match error {
        KeystoreError::Exists(_) => failed(io::ErrorKind::AlreadyExists.into()),
        KeystoreError::Io { source, .. } => failed(source),
        error => error,
    })
}

#[derive(PartialEq, Eq)]
enum Exposure {
    Refused,
    Accepted,
}

const MIN_KEY_FILE: usize = 32;
const MAX_KEY_FILE: usize = 1 << 20;

fn read_key_file(path: &Path, exposure: Exposure) -> Result<Zeroizing<Vec<u8>>, KeystoreError> {
    let read = read_bounded(path, exposure);
    read.map_err(|problem| key_file_error(path, problem))
}

fn read_bounded(path: &Path, exposure: Exposure) -> Result<Zeroizing<Vec<u8>>, KeyFileProblem> {
    let mut file = File::open(path).map_err(KeyFileProblem::Io)?;
    let metadata = file.metadata().map_err(KeyFileProblem::Io)?;
    if exposure == Exposure::Refused && metadata.is_file() && metadata.mode() & 0o077 != 0 {
        return Err(KeyFileProblem::Exposed(metadata.mode()));
    }
    // Read into a buffer that never grows, so that no copy stays behind unwiped.
    let mut bytes = Zeroizing::new(vec![0; MAX_KEY_FILE + 1]);
    let mut len = 0;
    while let Some(free) = bytes.get_mut(len..).filter(|free| !free.is_empty()) {
        match file.read(free).map_err(KeyFileProblem::Io)? {
            0 => break,
            more => len += more,
        }
    }
    bytes.truncate(len);
    match len {
        0..MIN_KEY_FILE => Err(KeyFileProblem::Short(len)),
        MIN_KEY_FILE..=MAX_KEY_FILE => Ok(bytes),
        _ => Err(KeyFileProblem::Long),
    }
}

fn key_file_error(path: &Path, problem: KeyFileProblem) -> KeystoreError {
    KeystoreError::KeyFile { path: path.to_owned(), problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_passphrase() {
        let unlock = Unlock::Passphrase(Zeroizing::new(b"hunter2".to_vec()));
        assert_eq!(format!("{unlock:?}"), "Passphrase");
    }

    #[test]
    fn file_and_passphrase_with_the_same_bytes_give_different_keys() {
        let cost = Cost::new(8 << 10, 1, 1).unwrap();
        let bytes = Zeroizing::new(vec![7; 32]);
        let typed = SlotSecret::Passphrase(&bytes).slot_key(&[0; 16], cost).unwrap();
        let filed = SlotSecret::Bytes(bytes).slot_key(&[0; 16], cost).unwrap();
        assert_ne!(typed, filed);
    }
}

//! What can go wrong with a token, and what a code of PKCS#11 says about it.

use std::fmt;
use std::path::PathBuf;

use cryptoki::error::{Error, RvError};

use super::TokenRef;

/// The one error of the tokens. No variant carries a PIN or key bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenError {
    /// The module cannot be loaded or started.
    Module {
        /// The shared library.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// The module has no token with this label or serial number.
    NotFound(TokenRef),
    /// A token with this label is there, and is not the one with this serial number.
    Another(TokenRef, String),
    /// Several tokens have this label.
    Ambiguous(TokenRef),
    /// The PIN is wrong.
    WrongPin(TokenRef),
    /// The token takes no PIN any more, or has none yet; what it says about that.
    PinUnusable(TokenRef, String),
    /// The token cannot do what is needed.
    Unsupported(TokenRef, String),
    /// The key is not on the token.
    KeyMissing(TokenRef),
    /// What was to be opened was changed, or was made under another key or context.
    NotAuthentic,
    /// The token is gone, or does not answer as it should.
    Unavailable(TokenRef, String),
}

impl TokenError {
    /// Was the PIN refused? The next tries may lock the token.
    pub(in crate::keystore) fn is_refusal(&self) -> bool {
        matches!(self, Self::WrongPin(_) | Self::PinUnusable(..))
    }

    /// Does it work again when the token is back, without anybody changing anything?
    pub(in crate::keystore) fn is_absence(&self) -> bool {
        match self {
            Self::Module { .. }
            | Self::NotFound(_)
            | Self::Another(..)
            | Self::KeyMissing(_)
            | Self::Unavailable(..) => true,
            Self::Ambiguous(_)
            | Self::WrongPin(_)
            | Self::PinUnusable(..)
            | Self::Unsupported(..)
            | Self::NotAuthentic => false,
        }
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Module { path, problem } => {
                write!(f, "cannot use the PKCS#11 module '{}': {problem}", path.display())
            }
            Self::NotFound(token_ref) => write!(
                f,
                "there is no {token_ref}: 'pkcs11-tool --module {} -L' lists those that are there",
                token_ref.module.display()
            ),
            Self::Another(token_ref, serial) => write!(
                f,
                "{token_ref} is another one than the token with the serial number '{serial}', which is meant"
            ),
            Self::Ambiguous(token_ref) => {
                write!(f, "there are several of {token_ref}: name it by its serial number")
            }
            Self::WrongPin(token_ref) => write!(f, "wrong PIN for {token_ref}"),
            Self::PinUnusable(token_ref, why) => {
                write!(f, "the PIN of {token_ref} cannot be used: {why}")
            }
            Self::Unsupported(token_ref, what) => {
                write!(f, "{token_ref} is not fit for this: {what}")
            }
            Self::KeyMissing(token_ref) => write!(f, "the key is not on {token_ref}"),
            Self::NotAuthentic => f.write_str("the token found the ciphertext not authentic"),
            Self::Unavailable(token_ref, why) => write!(f, "{token_ref} is not available: {why}"),
        }
    }
}

impl std::error::Error for TokenError {}

/// How a call to a token failed, and so what to try next.
pub(super) enum Fault {
    /// The session, the login or the library is not what it was: worth a try with new ones.
    Lost(TokenError),
    /// The token refused. For a decryption that can mean anything, see [`super::wrap`].
    Refused(String),
    /// No second try gives anything else.
    Final(TokenError),
}

impl Fault {
    /// What a failed call means.
    pub(super) fn of(token_ref: &TokenRef, error: &Error) -> Self {
        let Error::Pkcs11(code, _) = error else {
            return Self::Final(TokenError::Unsupported(token_ref.clone(), error.to_string()));
        };
        match code {
            RvError::PinIncorrect => Self::Final(TokenError::WrongPin(token_ref.clone())),
            RvError::PinLocked
            | RvError::PinExpired
            | RvError::PinInvalid
            | RvError::PinLenRange
            | RvError::UserPinNotInitialized => {
                Self::Final(TokenError::PinUnusable(token_ref.clone(), short(error)))
            }
            RvError::MechanismInvalid
            | RvError::MechanismParamInvalid
            | RvError::FunctionNotSupported
            | RvError::KeyFunctionNotPermitted
            | RvError::KeySizeRange
            | RvError::KeyTypeInconsistent
            | RvError::TemplateIncomplete
            | RvError::TemplateInconsistent
            | RvError::TokenWriteProtected => {
                Self::Final(TokenError::Unsupported(token_ref.clone(), short(error)))
            }
            RvError::EncryptedDataInvalid | RvError::EncryptedDataLenRange => {
                Self::Final(TokenError::NotAuthentic)
            }
            RvError::CryptokiNotInitialized
            | RvError::DeviceError
            | RvError::DeviceRemoved
            | RvError::KeyHandleInvalid
            | RvError::ObjectHandleInvalid
            | RvError::OperationActive
            | RvError::SessionClosed
            | RvError::SessionHandleInvalid
            | RvError::SlotIdInvalid
            | RvError::TokenNotPresent
            | RvError::TokenNotRecognized
            | RvError::UserNotLoggedIn => Self::Lost(unavailable(token_ref, error)),
            _ => Self::Refused(short(error)),
        }
    }

    /// As it is told when nothing more is tried.
    pub(super) fn into_error(self, token_ref: &TokenRef) -> TokenError {
        match self {
            Self::Lost(error) | Self::Final(error) => error,
            Self::Refused(why) => TokenError::Unavailable(token_ref.clone(), why),
        }
    }
}

/// The token does not answer, and this is what it said.
pub(super) fn unavailable(token_ref: &TokenRef, error: &Error) -> TokenError {
    TokenError::Unavailable(token_ref.clone(), short(error))
}

/// The name of the function and of the code, without the explanation that follows it.
fn short(error: &Error) -> String {
    match error {
        Error::Pkcs11(code, function) => format!("{function:?} answers {code:?}"),
        other => other.to_string(),
    }
}

//! What can go wrong with a token, and what a code of PKCS#11 says about it.

use std::fmt;
use std::path::PathBuf;

use cryptoki::error::{Error, RvError};

use super::TokenPlace;

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
    NotFound(TokenPlace),
    /// Several tokens have this label.
    Ambiguous(TokenPlace),
    /// The PIN is wrong.
    WrongPin(TokenPlace),
    /// The token takes no PIN any more, or has none yet; what it says about that.
    PinUnusable(TokenPlace, String),
    /// The token cannot do what is needed.
    Unsupported(TokenPlace, String),
    /// The key is not on the token.
    KeyMissing(TokenPlace),
    /// What was to be opened was changed, or was made under another key or context.
    NotAuthentic,
    /// The token is gone, or does not answer as it should.
    Unavailable(TokenPlace, String),
}

impl TokenError {
    /// Does it work again when the token is back, without anybody changing anything?
    pub(in crate::keystore) fn is_absence(&self) -> bool {
        match self {
            Self::Module { .. }
            | Self::NotFound(_)
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
            Self::NotFound(place) => write!(
                f,
                "there is no {place}: 'pkcs11-tool --module {} -L' lists those that are there",
                place.module.display()
            ),
            Self::Ambiguous(place) => {
                write!(f, "there are several of {place}: name it by its serial number")
            }
            Self::WrongPin(place) => write!(f, "wrong PIN for {place}"),
            Self::PinUnusable(place, why) => {
                write!(f, "the PIN of {place} cannot be used: {why}")
            }
            Self::Unsupported(place, what) => {
                write!(f, "{place} is not fit for this: {what}")
            }
            Self::KeyMissing(place) => write!(f, "the key is not on {place}"),
            Self::NotAuthentic => f.write_str("the token found the ciphertext not authentic"),
            Self::Unavailable(place, why) => write!(f, "{place} is not available: {why}"),
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
    pub(super) fn of(place: &TokenPlace, error: &Error) -> Self {
        let Error::Pkcs11(code, _) = error else {
            return Self::Final(TokenError::Unsupported(place.clone(), error.to_string()));
        };
        match code {
            RvError::PinIncorrect => Self::Final(TokenError::WrongPin(place.clone())),
            RvError::PinLocked
            | RvError::PinExpired
            | RvError::PinInvalid
            | RvError::PinLenRange
            | RvError::UserPinNotInitialized => {
                Self::Final(TokenError::PinUnusable(place.clone(), short(error)))
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
                Self::Final(TokenError::Unsupported(place.clone(), short(error)))
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
            | RvError::UserNotLoggedIn => Self::Lost(unavailable(place, error)),
            _ => Self::Refused(short(error)),
        }
    }

    /// As it is told when nothing more is tried.
    pub(super) fn told(self, place: &TokenPlace) -> TokenError {
        match self {
            Self::Lost(error) | Self::Final(error) => error,
            Self::Refused(why) => TokenError::Unavailable(place.clone(), why),
        }
    }
}

/// The token does not answer, and this is what it said.
pub(super) fn unavailable(place: &TokenPlace, error: &Error) -> TokenError {
    TokenError::Unavailable(place.clone(), short(error))
}

/// The name of the function and of the code, without the explanation that follows it.
fn short(error: &Error) -> String {
    match error {
        Error::Pkcs11(code, function) => format!("{function:?} answers {code:?}"),
        other => other.to_string(),
    }
}

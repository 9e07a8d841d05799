//! Why a request's signature is refused, and why a call fails.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a request is not taken as its sender's. Names and messages are those of AWS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignatureError {
    /// There is no signature.
    Missing,
    /// The `Authorization` header is malformed; AWS's sentence says how.
    Incomplete(String),
    /// Nobody knows the access key, or a session token came with it.
    UnknownKey,
    /// The signature is not that of this request under this access key.
    Mismatch,
    /// What was signed cannot be accepted: wrong service, unsigned header, wrong time.
    Invalid(String),
    /// The same signature came before.
    Replayed,
    /// More signatures arrive than can be remembered.
    Throttled,
}

impl SignatureError {
    /// The AWS exception on the wire. All of them have status 400.
    pub const fn aws_name(&self) -> &'static str {
        match self {
            Self::Missing => "MissingAuthenticationTokenException",
            Self::Incomplete(_) => "IncompleteSignatureException",
            Self::UnknownKey => "UnrecognizedClientException",
            Self::Mismatch | Self::Invalid(_) | Self::Replayed => "InvalidSignatureException",
            Self::Throttled => "ThrottlingException",
        }
    }
}

impl fmt::Display for SignatureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "Missing Authentication Token",
            Self::Incomplete(what) | Self::Invalid(what) => what,
            Self::UnknownKey => "The security token included in the request is invalid.",
            Self::Mismatch => {
                "The request signature we calculated does not match the signature you provided. \
                 Check your AWS Secret Access Key and signing method. Consult the service \
                 documentation for details."
            }
            Self::Replayed => "The request was already received: sign every request anew.",
            Self::Throttled => "Rate exceeded",
        })
    }
}

impl std::error::Error for SignatureError {}

/// Why an endpoint gives no answer. No variant carries a secret.
#[derive(Debug)]
pub enum EndpointError {
    /// The service answered with an error.
    Refused {
        /// The operation.
        operation: String,
        /// The AWS exception, such as `AccessDeniedException`.
        name: String,
        /// The service's message.
        message: String,
        /// The HTTP status.
        status: u16,
        /// The id under which the service knows the request.
        request_id: Option<String>,
    },
    /// There is no connection, or no answer in time, also after the retries.
    Unreachable {
        /// The endpoint.
        address: String,
        /// What happened at the last try.
        why: String,
    },
    /// The answer is not one of this protocol.
    Protocol {
        /// The endpoint.
        address: String,
        /// What is wrong with it.
        what: String,
    },
    /// The text is not the address of an endpoint.
    Address {
        /// The text.
        text: String,
        /// What is expected.
        expected: &'static str,
    },
    /// A file of credentials or certificates that cannot be used.
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        problem: FileProblem,
    },
    /// The system gave no thread or no randomness.
    System(io::Error),
}

/// Why a file is not used.
#[derive(Debug)]
pub enum FileProblem {
    /// It cannot be read.
    Io(io::Error),
    /// Others can read it; its mode is given.
    Exposed(u32),
    /// It is too long for what it should hold.
    Long,
    /// The profile is not in it, or lacks a member.
    Profile {
        /// The profile.
        name: String,
        /// The member that is missing; none if the whole profile is.
        lacks: Option<&'static str>,
    },
    /// It holds no certificate.
    NoCertificate,
    /// A certificate in it is malformed.
    BadCertificate,
}

impl EndpointError {
    /// The AWS exception if the service itself refused.
    pub fn aws_name(&self) -> Option<&str> {
        match self {
            Self::Refused { name, .. } => Some(name),
            _ => None,
        }
    }
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { operation, name, message, .. } if message.is_empty() => {
                write!(f, "{operation}: {name}")
            }
            Self::Refused { operation, name, message, .. } => {
                write!(f, "{operation}: {name}: {message}")
            }
            Self::Unreachable { address, why } => {
                write!(f, "the KMS endpoint {address} does not answer: {why}")
            }
            Self::Protocol { address, what } => {
                write!(f, "the KMS endpoint {address} speaks another protocol: {what}")
            }
            Self::Address { text, expected } => {
                write!(f, "'{text}' is no address of a KMS endpoint: {expected}")
            }
            Self::File { path, problem } => write!(f, "'{}': {problem}", path.display()),
            Self::System(error) => write!(f, "the KMS client cannot work: {error}"),
        }
    }
}

impl EndpointError {
    /// True if nothing was said about what was asked: nobody answers, or somebody who is overwhelmed,
    /// broken, or asks for patience. A key whose token is away (`KeyUnavailableException`) is an
    /// answer.
    pub fn is_no_answer(&self) -> bool {
        match self {
            Self::Refused { status, name, .. } => {
                (*status >= 500 && name != "KeyUnavailableException")
                    || matches!(*status, 408 | 429)
                    || PATIENCE.contains(&name.as_str())
            }
            Self::Unreachable { .. } | Self::Protocol { .. } => true,
            Self::Address { .. } | Self::File { .. } | Self::System(_) => false,
        }
    }
}

/// Exceptions with which a service asks for patience.
const PATIENCE: [&str; 5] = [
    "ThrottlingException",
    "ThrottledException",
    "RequestThrottledException",
    "TooManyRequestsException",
    "DependencyTimeoutException",
];

impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Exposed(mode) => {
                write!(f, "others can read it (mode {:04o}): run 'chmod 600' on it", mode & 0o7777)
            }
            Self::Long => f.write_str("it is longer than such a file can be"),
            Self::Profile { name, lacks: None } => write!(f, "it has no profile [{name}]"),
            Self::Profile { name, lacks: Some(member) } => {
                write!(f, "its profile [{name}] has no {member}")
            }
            Self::NoCertificate => f.write_str("it holds no certificate in PEM form"),
            Self::BadCertificate => f.write_str("a certificate in it is malformed"),
        }
    }
}

impl std::error::Error for EndpointError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File { problem: FileProblem::Io(error), .. } | Self::System(error) => Some(error),
            _ => None,
        }
    }
}

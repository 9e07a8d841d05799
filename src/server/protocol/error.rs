//! Refusals as AWS KMS words them: an exception's name, a message, an HTTP status.

use serde_json::{Value, json};

use crate::keystore::KeystoreError;

/// A request that was refused, or that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server) struct Fault {
    name: &'static str,
    message: Option<String>,
}

impl Fault {
    /// An exception with a message.
    pub(in crate::server) fn new(name: &'static str, message: impl Into<String>) -> Self {
        Self { name, message: Some(message.into()) }
    }

    /// An exception that AWS gives no message.
    pub(in crate::server) const fn bare(name: &'static str) -> Self {
        Self { name, message: None }
    }

    /// The request is not JSON of the right form.
    pub(in crate::server) fn serialization(message: impl Into<String>) -> Self {
        Self::new("SerializationException", message)
    }

    /// A value has another JSON type than its member.
    pub(in crate::server) fn wrong_type(found: &Value, wanted: &str) -> Self {
        let found = match found {
            Value::Null => "NULL_VALUE",
            Value::Bool(true) => "TRUE_VALUE",
            Value::Bool(false) => "FALSE_VALUE",
            Value::Number(number) if number.is_f64() => "DECIMAL_VALUE",
            Value::Number(_) => "NUMBER_VALUE",
            Value::String(_) => "STRING_VALUE",
            Value::Array(_) => {
                return Self::serialization("Start of list found where not expected");
            }
            Value::Object(_) => {
                return Self::serialization("Start of structure or map found where not expected.");
            }
        };
        Self::serialization(format!("{found} can not be converted to {wanted}"))
    }

    /// Constraints are broken; each is a sentence.
    pub(in crate::server) fn constraints(broken: &[String]) -> Self {
        let errors = if broken.len() == 1 { "error" } else { "errors" };
        let all = broken.join("; ");
        Self::validation(format!("{} validation {errors} detected: {all}", broken.len()))
    }

    /// The request makes no sense.
    pub(in crate::server) fn validation(message: impl Into<String>) -> Self {
        Self::new("ValidationException", message)
    }

    /// No such key, alias, or text that cannot name one.
    pub(in crate::server) fn not_found(message: impl Into<String>) -> Self {
        Self::new("NotFoundException", message)
    }

    /// What this keystore does not do.
    pub(in crate::server) fn unsupported(message: impl Into<String>) -> Self {
        Self::new("UnsupportedOperationException", message)
    }

    /// Something failed that is not the client's fault.
    pub(in crate::server) fn internal() -> Self {
        Self::new("KMSInternalException", "the keystore failed; the log of the server says how")
    }

    /// The exception's name.
    pub(in crate::server) const fn name(&self) -> &'static str {
        self.name
    }

    /// The HTTP status. AWS KMS answers 400 to every error that is the client's, whatever its
    /// model says.
    pub(in crate::server) fn status(&self) -> u16 {
        match self.name {
            "KMSInternalException" | "KeyUnavailableException" => 500,
            "DependencyTimeoutException" => 503,
            _ => 400,
        }
    }

    /// The same with another text for its message.
    pub(in crate::server) fn reword(mut self, reword: impl FnOnce(String) -> String) -> Self {
        self.message = self.message.map(reword);
        self
    }

    /// The answer's JSON.
    pub(in crate::server) fn body(&self) -> Value {
        match &self.message {
            Some(message) => json!({ "__type": self.name, "message": message }),
            None => json!({ "__type": self.name }),
        }
    }
}

impl From<KeystoreError> for Fault {
    fn from(error: KeystoreError) -> Self {
        let name = error.aws_name();
        match name {
            // AWS gives no reason, which would help who guesses.
            "InvalidCiphertextException"
            | "KMSInvalidSignatureException"
            | "KMSInvalidMacException" => Self::bare(name),
            // The reason names files of this machine: it is for the log.
            "KMSInternalException" => {
                log::error!("{error}");
                Self::internal()
            }
            "DependencyTimeoutException" => {
                log::warn!("{error}");
                Self::new(name, "the keystore is held by another process; try again")
            }
            _ => Self::new(name, error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ciphertext_is_refused_without_a_reason() {
        let fault = Fault::from(KeystoreError::InvalidCiphertext);
        assert_eq!(fault.body(), json!({ "__type": "InvalidCiphertextException" }));
        assert_eq!(fault.status(), 400);
    }

    #[test]
    fn paths_of_the_machine_stay_in_the_log() {
        let fault = Fault::from(KeystoreError::Missing("/secret/place".into()));
        assert_eq!((fault.name(), fault.status()), ("KMSInternalException", 500));
        assert!(!fault.body().to_string().contains("secret"));
    }
}

//! Operations that make RSA keys: each takes a processor for seconds.
//!
//! They run beside the others, never in their slots, and each principal has its own queue: who
//! asks for many waits for those alone, and everybody else is served meanwhile.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::keystore::Principal;
use crate::server::config::Limits;

/// Who makes RSA keys now, and who waits.
#[derive(Debug)]
pub(in crate::server) struct Heavy {
    limits: Limits,
    all: Arc<Semaphore>,
    each: Mutex<HashMap<Principal, Arc<Semaphore>>>,
}

/// The right to begin, until it is dropped.
#[derive(Debug)]
pub(in crate::server) struct Turn {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Heavy {
    pub(in crate::server) fn new(limits: Limits) -> Self {
        Self { limits, all: Arc::new(Semaphore::new(limits.heavy)), each: Mutex::default() }
    }

    /// Waits for a turn of this principal. `None` if none comes in time.
    pub(in crate::server) async fn turn(&self, principal: &Principal) -> Option<Turn> {
        let own = self.queue_of(principal);
        let both = async {
            // In this order: who waits for the others of its principal keeps nobody else waiting.
            let own = own.acquire_owned().await.ok()?;
            let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
            Some(Turn { _own: own, _all: all })
        };
        timeout(self.limits.heavy_time, both).await.ok().flatten()
    }

    fn queue_of(&self, principal: &Principal) -> Arc<Semaphore> {
        let mut each = self.each.lock();
        // Those at work and those who wait hold theirs.
        each.retain(|_, queue| {
            Arc::strong_count(queue) > 1
                || queue.available_permits() < self.limits.heavy_per_principal
        });
        let new = || Arc::new(Semaphore::new(self.limits.heavy_per_principal));
        Arc::clone(each.entry(principal.clone()).or_insert_with(new))
    }
}

/// Will this request, if it is granted, make an RSA key?
pub(in crate::server) fn is_heavy(operation: &str, body: &[u8]) -> bool {
    let member = match operation {
        "CreateKey" => "KeySpec",
        "GenerateDataKeyPair" | "GenerateDataKeyPairWithoutPlaintext" => "KeyPairSpec",
        "GetParametersForImport" => return true,
        _ => return false,
    };
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
    let is_rsa =
        |member: &str| request[member].as_str().is_some_and(|spec| spec.starts_with("RSA"));
    is_rsa(member) || is_rsa("CustomerMasterKeySpec")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_rsa_keys_is_known_however_it_is_written() {
        for (operation, body, expected) in [
            ("GenerateDataKeyPair", r#"{"KeyPairSpec":"RSA_4096"}"#, true),
            ("GenerateDataKeyPairWithoutPlaintext", r#"{"KeyPairSpec":"\u0052SA_2048"}"#, true),
            ("GenerateDataKeyPair", r#"{"KeyPairSpec":"ECC_NIST_P256"}"#, false),
            ("GenerateDataKeyPair", r#"{"KeyPairSpec":"ECC","KeyPairSpec":"RSA_2048"}"#, true),
            ("CreateKey", r#"{"KeySpec":"RSA_3072"}"#, true),
            ("CreateKey", r#"{"CustomerMasterKeySpec":"RSA_3072"}"#, true),
            ("CreateKey", "{}", false),
            ("CreateKey", "", false),
            ("CreateKey", "[", false),
            ("GetParametersForImport", "{}", true),
            ("Encrypt", r#"{"KeySpec":"RSA_4096"}"#, false),
        ] {
            assert_eq!(is_heavy(operation, body.as_bytes()), expected, "{operation} {body}");
        }
    }

    #[test]
    fn one_principal_does_not_take_the_turns_of_another() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let brief = std::time::Duration::from_millis(20);
            let limits = Limits { heavy: 2, heavy_time: brief, ..Limits::default() };
            let heavy = Heavy::new(limits);
            let user = |name: &str| Principal::User(name.to_owned());
            let first = heavy.turn(&user("a")).await;
            assert!(first.is_some());
            assert!(heavy.turn(&user("a")).await.is_none(), "one at a time");
            let other = heavy.turn(&user("b")).await;
            assert!(other.is_some());
            assert!(heavy.turn(&user("c")).await.is_none(), "two in all");
            drop(first);
            assert!(heavy.turn(&user("a")).await.is_some());
            assert_eq!(heavy.each.lock().len(), 2, "those who are gone are forgotten");
        });
    }
}

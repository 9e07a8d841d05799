//! The connection to the endpoint, and whether anybody answers.

use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;

use crate::endpoint::{Endpoint, EndpointError};

/// While nobody answers, one call in this time is tried; the others fail at once, so that they do
/// not keep the threads which serve files that are open.
const PAUSE: Duration = Duration::from_millis(900);

#[derive(Debug)]
pub(super) struct Connection {
    endpoint: Endpoint,
    silent: Mutex<Option<Silent>>,
}

/// Nobody answers.
#[derive(Debug, Clone, Copy)]
struct Silent {
    since: Instant,
    tried: Instant,
}

impl Connection {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, silent: Mutex::default() }
    }

    /// For how long nobody has answered.
    pub(super) fn silence(&self) -> Option<Duration> {
        self.silent().map(|silent| silent.since.elapsed())
    }

    pub(super) fn call(&self, operation: &str, request: &Value) -> Result<Value, EndpointError> {
        if !self.may_try() {
            return Err(EndpointError::Unreachable {
                address: self.endpoint.address().to_string(),
                why: "it did not a moment ago".to_owned(),
            });
        }
        let began = Instant::now();
        let answer = self.endpoint.call(operation, request);
        self.note(began, answer.as_ref().err());
        answer
    }

    fn may_try(&self) -> bool {
        let mut silent = self.silent();
        match &mut *silent {
            Some(silent) if silent.tried.elapsed() < PAUSE => false,
            Some(silent) => {
                silent.tried = Instant::now();
                true
            }
            None => true,
        }
    }

    /// A service that refuses is there; one that is overwhelmed, or a proxy in front of it, says
    /// nothing about keys.
    fn note(&self, began: Instant, error: Option<&EndpointError>) {
        let answered = match error {
            None => true,
            Some(EndpointError::Refused { status, .. }) => *status < 500,
            Some(_) => false,
        };
        let mut silent = self.silent();
        match (answered, *silent) {
            (true, Some(_)) => {
                log::warn!("the KMS endpoint {} answers again", self.endpoint.address());
                *silent = None;
            }
            (false, None) => {
                let why = error.map(ToString::to_string).unwrap_or_default();
                log::warn!("{why}; what is open stays usable for a while");
                *silent = Some(Silent { since: began, tried: Instant::now() });
            }
            (false, Some(before)) => {
                *silent = Some(Silent { tried: Instant::now(), ..before });
            }
            (true, None) => {}
        }
    }

    fn silent(&self) -> MutexGuard<'_, Option<Silent>> {
        self.silent.lock()
    }
}

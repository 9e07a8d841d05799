//! Calls to a KMS endpoint, from threads: AWS JSON 1.1 over HTTP/1.1, signed with SigV4.
//!
//! A small runtime of its own drives the connections; callers block. What fails on the way, and
//! what the service itself asks to be repeated, is tried again with a fresh signature until the
//! caller's patience ends: a server that restarts is found again.

use std::error::Error as StdError;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use base64ct::{Base64, Encoding};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode};
use serde_json::Value;
use tokio::runtime::Runtime;
use zeroize::{Zeroize, Zeroizing};

use super::connection::{Connections, Taken};
use super::sigv4::{self, SERVICE, Scope, Signable};
use super::{
    Address, CONTENT_TYPE, Credentials, EndpointError, REQUEST_ID_HEADER, TARGET_HEADER,
    TARGET_PREFIX,
};
use crate::crypto::random;

/// A KMS endpoint. Several threads may call at once. A process that forks makes it afterwards:
/// it has a thread of its own.
pub struct Endpoint {
    address: Address,
    region: String,
    credentials: Option<Credentials>,
    connections: Connections,
    options: Options,
    runtime: Runtime,
}

/// How long a caller waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// For one try, with its connection.
    pub attempt: Duration,
    /// For all tries: none begins later.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { attempt: Duration::from_secs(5), patience: Duration::from_secs(15) }
    }
}

/// Why one try gave no result.
enum Failed {
    /// Another try may help.
    Again(EndpointError),
    /// An idle connection had been closed: the next try is made at once.
    Stale,
    /// Another try would fail as well.
    Finally(EndpointError),
}

impl Endpoint {
    /// Prepares calls to `address`; no connection is made yet. The region comes from the address,
    /// else from `region`, else it is `local`. `ca` names a PEM file with the certificates to
    /// trust instead of the system's. Without credentials requests are not signed.
    /// Errors: `File`, `System`.
    pub fn new(
        address: Address,
        region: Option<&str>,
        credentials: impl Into<Option<Credentials>>,
        ca: Option<&Path>,
        options: Options,
    ) -> Result<Self, EndpointError> {
        let region = region.or_else(|| address.region()).unwrap_or(LOCAL).to_owned();
        let connections = Connections::new(address.clone(), ca)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("kms-client")
            .enable_all()
            .build()
            .map_err(EndpointError::System)?;
        let credentials = credentials.into();
        Ok(Self { address, region, credentials, connections, options, runtime })
    }

    /// The endpoint's address.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The region that requests are signed for.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// One operation, as `Decrypt`, with its request and its answer as the AWS API names them.
    /// Errors: `Refused` by the service, `Unreachable`, `Protocol`.
    pub fn call(&self, operation: &str, request: &Value) -> Result<Value, EndpointError> {
        let body = Zeroizing::new(request.to_string());
        self.runtime.block_on(self.call_until(operation, &body))
    }

    async fn call_until(&self, operation: &str, body: &str) -> Result<Value, EndpointError> {
        let end = Instant::now() + self.options.patience;
        let mut pause = FIRST_PAUSE;
        loop {
            match self.attempt(operation, body).await {
                Ok(answer) => return Ok(answer),
                Err(Failed::Finally(error)) => return Err(error),
                Err(Failed::Stale) => continue,
                Err(Failed::Again(error)) => {
                    let wait = jittered(pause);
                    if Instant::now() + wait >= end {
                        return Err(error);
                    }
                    log::debug!("{error}: trying again");
                    tokio::time::sleep(wait).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    async fn attempt(&self, operation: &str, body: &str) -> Result<Value, Failed> {
        let request = self.signed(operation, body)?;
        let work = async {
            let taken = self.connections.take().await;
            let Taken { mut sender, used } = taken.map_err(|e| self.unreachable(&e))?;
            let response = sender
                .send_request(request)
                .await
                .map_err(|error| if used { Failed::Stale } else { self.unreachable(&error) })?;
            let answer = self.read(response).await?;
            self.connections.keep(sender);
            Ok(answer)
        };
        let (status, request_id, body) =
            tokio::time::timeout(self.options.attempt, work).await.map_err(|_| {
                self.unreachable(&io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))
            })??;
        self.understand(operation, status, request_id, &body)
    }

    fn signed(&self, operation: &str, body: &str) -> Result<Request<Full<Bytes>>, Failed> {
        let authority = self.address.authority();
        let target = format!("{TARGET_PREFIX}{operation}");
        let headers = vec![
            ("content-type", CONTENT_TYPE),
            ("host", authority.as_str()),
            (TARGET_HEADER, target.as_str()),
        ];
        let signable = Signable { method: "POST", target: "/", headers, body: body.as_bytes() };
        let scope = Scope { region: &self.region, service: SERVICE, at: SystemTime::now() };
        let sign = |credentials| {
            sigv4::sign(&signable, scope, credentials)
                .ok_or_else(|| self.protocol("its address cannot be signed"))
        };
        let added = self.credentials.as_ref().map(sign).transpose()?;
        let mut request = Request::post("/");
        for (name, value) in &signable.headers {
            request = request.header(*name, *value);
        }
        for (name, value) in added.into_iter().flatten() {
            request = request.header(name, value);
        }
        request
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
            .map_err(|_| self.protocol("the operation has no name that fits into a header"))
    }

    async fn read(
        &self,
        response: Response<Incoming>,
    ) -> Result<(StatusCode, Option<String>, Zeroizing<Vec<u8>>), Failed> {
        let status = response.status();
        let id = response.headers().get(REQUEST_ID_HEADER);
        let id = id.and_then(|id| id.to_str().ok()).map(str::to_owned);
        let collected = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await;
        let bytes = collected.map_err(|error| self.unreachable(error.as_ref()))?.to_bytes();
        let copy = Zeroizing::new(bytes.to_vec());
        // The only other copy that can be reached; those in the transport's buffers cannot.
        if let Ok(mut bytes) = bytes.try_into_mut() {
            bytes.zeroize();
        }
        Ok((status, id, copy))
    }

    fn understand(
        &self,
        operation: &str,
        status: StatusCode,
        request_id: Option<String>,
        body: &[u8],
    ) -> Result<Value, Failed> {
        let parsed: Option<Value> = match body {
            [] if status.is_success() => Some(Value::Object(serde_json::Map::new())),
            _ => serde_json::from_slice(body).ok(),
        };
        if status.is_success() {
            return parsed.ok_or_else(|| self.protocol("the answer is no JSON"));
        }
        let text = |name: &str| parsed.as_ref().and_then(|error| error[name].as_str());
        let Some(kind) = text("__type") else {
            let failed = self.protocol(&format!("it answers with HTTP status {status}"));
            return Err(match failed {
                Failed::Finally(error) if may_pass(status) => Failed::Again(error),
                failed => failed,
            });
        };
        let name = kind.rsplit('#').next().unwrap_or(kind).to_owned();
        let message = text("message").or_else(|| text("Message")).unwrap_or_default().to_owned();
        let operation = operation.to_owned();
        let broken = status.is_server_error();
        let status = status.as_u16();
        let error = EndpointError::Refused { operation, name, message, status, request_id };
        let again = broken || error.is_no_answer();
        Err(if again { Failed::Again(error) } else { Failed::Finally(error) })
    }

    fn unreachable(&self, error: &(dyn StdError + 'static)) -> Failed {
        let address = self.address.to_string();
        Failed::Again(EndpointError::Unreachable { address, why: chain(error) })
    }

    fn protocol(&self, what: &str) -> Failed {
        let address = self.address.to_string();
        Failed::Finally(EndpointError::Protocol { address, what: what.to_owned() })
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("address", &self.address)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

/// Takes a member with secret bytes out of an answer and wipes its text form.
/// Returns `None` if there is no such member, or it is not base64.
pub fn take_secret(answer: &mut Value, member: &str) -> Option<Zeroizing<Vec<u8>>> {
    let Value::String(text) = answer.get_mut(member)?.take() else { return None };
    let text = Zeroizing::new(text);
    Base64::decode_vec(&text).ok().map(Zeroizing::new)
}

/// An error with its causes: the outer ones say little.
pub(super) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.ends_with(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

/// Statuses of a service, or of a proxy in front of it, that another try may not get.
fn may_pass(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
}

/// Between half and the whole of a pause, so that many clients do not come back at once.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [0];
    // Without randomness the clients come back together: that is all.
    let _ = random::fill(&mut byte);
    pause / 2 + pause * u32::from(byte[0]) / 512
}

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The region of a keystore of one's own.
const LOCAL: &str = "local";
const LONGEST_ANSWER: usize = 1 << 20;

#[cfg(test)]
mod tests;

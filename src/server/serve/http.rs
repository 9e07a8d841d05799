//! One HTTP request: from its head and body to an operation, and the answer.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::SystemTime;

use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::Semaphore;
use zeroize::{Zeroize, Zeroizing};

use super::heavy::{Heavy, is_heavy};
use crate::crypto::random;
use crate::endpoint::{CONTENT_TYPE, REQUEST_ID_HEADER, Signable, TARGET_HEADER, TARGET_PREFIX};
use crate::server::config::Limits;
use crate::server::dispatch::{self, Answer};
use crate::server::identity::{Identities, NoSender, Sender};
use crate::server::keystores::Keystores;
use crate::server::transport::peer::Peer;
use crate::server::transport::slots::Connection;

/// What all requests share.
#[derive(Debug)]
pub(in crate::server) struct Shared {
    pub keystores: Arc<Keystores>,
    pub identities: Identities,
    pub region: String,
    pub limits: Limits,
    pub calls: Arc<Semaphore>,
    pub heavy: Heavy,
}

pub(in crate::server) type Reply = Response<Full<Bytes>>;

/// A refusal that HTTP itself words, before anybody knows who asks.
struct Refusal {
    status: StatusCode,
    name: &'static str,
    message: &'static str,
}

const NO_OPERATION: Refusal = refusal(StatusCode::NOT_FOUND, "UnknownOperationException", "");
const NOT_POST: Refusal = refusal(StatusCode::METHOD_NOT_ALLOWED, "UnknownOperationException", "");
const TOO_LARGE: Refusal = refusal(
    StatusCode::PAYLOAD_TOO_LARGE,
    "RequestEntityTooLargeException",
    "The request is larger than any operation takes.",
);
const TOO_SLOW: Refusal = refusal(
    StatusCode::REQUEST_TIMEOUT,
    "RequestTimeoutException",
    "The body of the request did not come in time.",
);
const CUT_OFF: Refusal =
    refusal(StatusCode::BAD_REQUEST, "SerializationException", "The request has no whole body.");
const BUSY: Refusal = refusal(
    StatusCode::SERVICE_UNAVAILABLE,
    "ServiceUnavailableException",
    "Too many requests at once: try again.",
);

/// Answers one request of a connection.
pub(in crate::server) async fn serve(
    request: Request<Incoming>,
    peer: Arc<Peer>,
    connection: Arc<Connection>,
    shared: Arc<Shared>,
) -> Result<Reply, Infallible> {
    let id = request_id();
    connection.head_came();
    let answer = handle(request, peer, &connection, shared, &id).await;
    connection.answered();
    let mut reply = match answer {
        Ok(answer) => reply(status(answer.status), answer.body),
        Err(refused) => {
            let answer = dispatch::refusal(refused.name, refused.message);
            let mut reply = reply(refused.status, answer.body);
            if refused.status == StatusCode::METHOD_NOT_ALLOWED {
                reply.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
            }
            // What is left of a body that was not read would be taken for the next request.
            last_of_its_connection(&mut reply);
            reply
        }
    };
    if let Ok(id) = HeaderValue::from_str(&id) {
        reply.headers_mut().insert(REQUEST_ID_HEADER, id);
    }
    Ok(reply)
}

/// Tells the client that no other request of this connection is answered.
pub(in crate::server) fn last_of_its_connection(reply: &mut Reply) {
    reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
}

async fn handle(
    request: Request<Incoming>,
    peer: Arc<Peer>,
    connection: &Connection,
    shared: Arc<Shared>,
    id: &str,
) -> Result<Answer, Refusal> {
    let (head, body) = request.into_parts();
    if head.uri.path() != "/" || head.uri.query().is_some() {
        return Err(NO_OPERATION);
    }
    if head.method != Method::POST {
        return Err(NOT_POST);
    }
    let operation = operation(&head.headers).ok_or(NO_OPERATION)?;
    let reading = read_body(body, shared.limits.body);
    let body =
        tokio::time::timeout(shared.limits.body_time, reading).await.map_err(|_| TOO_SLOW)??;
    // From here on nobody takes the slot of this connection.
    if !connection.begin() {
        return Err(BUSY);
    }
    let call = Call { shared, peer, headers: head.headers, operation, body, id: id.to_owned() };
    call.answer().await
}

/// One whole request.
struct Call {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    headers: HeaderMap,
    operation: String,
    body: Zeroizing<Vec<u8>>,
    id: String,
}

/// How far a call got in the shared queue.
enum Step {
    Answered(Answer),
    /// The rest takes long.
    Heavy(Sender),
}

impl Call {
    async fn answer(self) -> Result<Answer, Refusal> {
        let (limits, call) = (self.shared.limits, Arc::new(self));
        let waiting = Arc::clone(&call.shared.calls).acquire_owned();
        let permit = tokio::time::timeout(limits.queue_time, waiting)
            .await
            .map_err(|_| BUSY)?
            .map_err(|_| BUSY)?;
        let first = Arc::clone(&call);
        let step = work(move || {
            let _permit = permit;
            match first.sender() {
                Err(refused) => Step::Answered(refused),
                Ok(sender) if is_heavy(&first.operation, &first.body) => Step::Heavy(sender),
                Ok(sender) => Step::Answered(first.carry_out(sender)),
            }
        });
        let sender = match step.await? {
            Step::Answered(answer) => return Ok(answer),
            Step::Heavy(sender) => sender,
        };
        let turn = call.shared.heavy.turn(&sender.caller.principal).await.ok_or(BUSY)?;
        let answer = work(move || {
            let _turn = turn;
            call.carry_out(sender)
        });
        answer.await
    }

    /// Finds out who asks, or how they are refused.
    fn sender(&self) -> Result<Sender, Answer> {
        // A header that is not text cannot have been signed, so it is skipped.
        let headers = self
            .headers
            .iter()
            .filter_map(|(name, value)| {
                std::str::from_utf8(value.as_bytes()).ok().map(|value| (name.as_str(), value))
            })
            .collect();
        let request = Signable { method: "POST", target: "/", headers, body: &self.body };
        let shared = &self.shared;
        let now = SystemTime::now();
        match shared.identities.sender(&shared.keystores, &self.peer, &request, now) {
            Ok(sender) => Ok(sender),
            Err(NoSender::Signature(error)) => {
                let name = error.aws_name();
                log::info!("request {}, {}: {name}", self.id, self.operation);
                Err(dispatch::refusal(name, &error.to_string()))
            }
            Err(NoSender::Keystore(error)) => Err(dispatch::failure(error)),
        }
    }

    fn carry_out(&self, Sender { mut caller, region }: Sender) -> Answer {
        caller.request_id = Some(self.id.clone());
        let region = region.as_deref().unwrap_or(&self.shared.region);
        dispatch::call(&self.shared.keystores, Some(region), &self.operation, &self.body, caller)
    }
}

/// Runs what blocks. It goes on even if the client has gone: it may have begun to change something.
async fn work<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Refusal {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        name: "KMSInternalException",
        message: "the operation failed; the log of the server says where",
    })
}

/// The operation that the head names, if it is a request of this protocol.
fn operation(headers: &HeaderMap) -> Option<String> {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let kind = text(header::CONTENT_TYPE)?.split(';').next()?.trim();
    let target = text(header::HeaderName::from_static(TARGET_HEADER))?;
    let operation = target.strip_prefix(TARGET_PREFIX)?;
    kind.eq_ignore_ascii_case(CONTENT_TYPE).then(|| operation.to_owned())
}

/// The whole body. The pieces it came in are wiped where nobody else holds them.
async fn read_body(mut body: Incoming, limit: usize) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > limit {
        return Err(TOO_LARGE);
    }
    // As large as it will get: a vector that grows leaves copies behind.
    let known = body.size_hint().exact().is_some();
    let mut whole = Zeroizing::new(Vec::with_capacity(if known { announced } else { limit }));
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| CUT_OFF)?.into_data() else { continue };
        if whole.len() + data.len() > limit {
            return Err(TOO_LARGE);
        }
        whole.extend_from_slice(&data);
        if let Ok(mut data) = data.try_into_mut() {
            data.zeroize();
        }
    }
    Ok(whole)
}

fn reply(status: StatusCode, body: Vec<u8>) -> Reply {
    // Wiped when it has been sent: it may hold a data key.
    let body = Bytes::from_owner(Zeroizing::new(body));
    let mut reply = Response::new(Full::new(body));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// A random UUID (version 4). Without randomness all zeros: an id is no secret.
fn request_id() -> String {
    uuid::Builder::from_random_bytes(random::id16().unwrap_or_default()).into_uuid().to_string()
}

const fn refusal(status: StatusCode, name: &'static str, message: &'static str) -> Refusal {
    Refusal { status, name, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_uuids_of_version_four() {
        let id = request_id();
        assert_eq!(id.len(), 36);
        let digits: Vec<char> = id.chars().collect();
        assert_eq!((digits[8], digits[13], digits[14]), ('-', '-', '4'));
        assert!(matches!(digits[19], '8' | '9' | 'a' | 'b'), "{id}");
        assert_ne!(id, request_id());
    }

    #[test]
    fn only_this_protocol_names_an_operation() {
        let headers = |kind: &str, target: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("content-type", kind.parse().unwrap());
            headers.insert("x-amz-target", target.parse().unwrap());
            operation(&headers)
        };
        let named = headers("application/x-amz-json-1.1; charset=utf-8", "TrentService.Encrypt");
        assert_eq!(named.as_deref(), Some("Encrypt"));
        assert_eq!(headers("application/json", "TrentService.Encrypt"), None);
        assert_eq!(headers(CONTENT_TYPE, "DynamoDB_20120810.ListTables"), None);
        assert_eq!(operation(&HeaderMap::new()), None);
    }
}

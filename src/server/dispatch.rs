//! From an operation's name and JSON to one call of the keystore, and back.

use serde_json::{Map, Value};

use crate::keystore::{Caller, KeystoreError};
use crate::server::keystores::{Keystores, Region};
use crate::server::ops::call::{Call, Operation};
use crate::server::ops::table;
use crate::server::protocol::error::Fault;
use crate::server::protocol::shape;
use crate::server::protocol::wire::{Wiped, without_nulls};

/// All operations, by name.
pub fn operations() -> impl Iterator<Item = &'static Operation> {
    table::ALL.iter().copied().flatten()
}

/// The operation with this name.
pub fn operation(name: &str) -> Option<&'static Operation> {
    operations().find(|operation| operation.name == name)
}

/// What is sent back: an HTTP status and a JSON document.
#[derive(Debug)]
pub struct Answer {
    /// 200, or 400 and above for an error.
    pub status: u16,
    /// The document; empty for the operations that answer nothing.
    pub body: Vec<u8>,
    /// The exception's name, of an error.
    pub error: Option<&'static str>,
}

impl Answer {
    fn of_fault(fault: &Fault) -> Self {
        let body = fault.body().to_string().into_bytes();
        Self { status: fault.status(), body, error: Some(fault.name()) }
    }
}

/// An error that was found before any operation, in the same form. AWS gives some no message.
pub fn refusal(name: &'static str, message: &str) -> Answer {
    Answer::of_fault(&match message {
        "" => Fault::bare(name),
        _ => Fault::new(name, message),
    })
}

/// A failure of the keystore before any operation, in the same form.
pub(in crate::server) fn failure(error: KeystoreError) -> Answer {
    Answer::of_fault(&Fault::from(error))
}

/// Answers one request: `operation` by its name, in the region that the client signed for (`None`
/// of unsigned requests), on behalf of `caller`.
///
/// Members of the request that concern every operation are handled here: `GrantTokens` and
/// `DryRun` go to the caller, `Recipient` is refused.
pub fn call(
    keystores: &Keystores,
    region: Option<&str>,
    operation: &str,
    body: &[u8],
    caller: Caller,
) -> Answer {
    let region = match keystores.region(region) {
        Ok(region) => region,
        Err(fault) => return Answer::of_fault(&fault),
    };
    match answer(keystores, &region, operation, body, caller) {
        Ok(body) => Answer { status: 200, body, error: None },
        Err(fault) => Answer::of_fault(&fault.reword(|message| region.outward(&message))),
    }
}

fn answer(
    keystores: &Keystores,
    region: &Region<'_>,
    name: &str,
    body: &[u8],
    caller: Caller,
) -> Result<Vec<u8>, Fault> {
    let Some(operation) = operation(name) else {
        return Err(Fault::bare("UnknownOperationException"));
    };
    let request = Wiped(parse(body)?);
    let members = request.0.as_object().ok_or_else(|| Fault::wrong_type(&request.0, ""))?;
    shape::check(operation.members, members)?;
    if is_set(operation, members, "Recipient") {
        return Err(Fault::unsupported(
            "Recipient is not supported: there are no Nitro enclaves here",
        ));
    }
    let caller = completed(caller, operation, members);
    let now = caller.time();
    let keystore = region.keystore.acting_for(caller);
    let call =
        Call { operation: operation.name, keystores, region, keystore, now, request: &request.0 };
    let mut answer = Wiped((operation.run)(&call)?);
    if answer.0.is_null() {
        return Ok(Vec::new());
    }
    without_nulls(&mut answer.0);
    serde_json::to_vec(&answer.0).map_err(|error| {
        log::error!("{name}: {error}");
        Fault::internal()
    })
}

/// An empty body is an empty request.
fn parse(body: &[u8]) -> Result<Value, Fault> {
    if body.is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    serde_json::from_slice(body).map_err(|_| Fault::serialization("the request is not valid JSON"))
}

fn is_set(operation: &Operation, request: &Map<String, Value>, member: &str) -> bool {
    operation.members.iter().any(|known| known.name == member)
        && request.get(member).is_some_and(|value| !value.is_null())
}

/// The caller with what the request says about its authority.
fn completed(mut caller: Caller, operation: &Operation, request: &Map<String, Value>) -> Caller {
    if is_set(operation, request, "GrantTokens") {
        let tokens = request["GrantTokens"].as_array().into_iter().flatten();
        caller.grant_tokens = tokens.filter_map(Value::as_str).map(str::to_owned).collect();
    }
    if is_set(operation, request, "DryRun") {
        caller.dry_run = request["DryRun"].as_bool().unwrap_or(false);
    }
    caller
}

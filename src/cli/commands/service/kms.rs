//! `kmsfs kms`: every operation of the AWS KMS API, on this keystore or at an endpoint.

use serde_json::Value;

use crate::cli::args::Global;
use crate::cli::args::kms::KmsCommand;
use crate::cli::env::failure::NEEDS_ACCESS_KEY;
use crate::cli::env::keystore;
use crate::cli::report::exit::{CliError, Exit};
use crate::cli::report::output::Output;
use crate::endpoint::{Endpoint, EndpointError};
use crate::keystore::Caller;
use crate::server::dispatch;
use crate::server::keystores::Keystores;

/// Asks, and prints the answer as JSON.
pub(in crate::cli) fn run(
    command: &KmsCommand,
    global: &Global,
    output: Output,
) -> Result<Exit, CliError> {
    let request = command.request().map_err(|problem| CliError::new(Exit::Usage, problem))?;
    let answer = match command.kms.open_client()? {
        Some(endpoint) => there(&endpoint, command.operation.name, &request)?,
        None => here(command.operation.name, &request, global)?,
    };
    // What has nothing to tell prints nothing.
    if answer.as_object().is_some_and(|members| !members.is_empty()) {
        Output::Json.result(&answer, String::new);
    } else {
        output.result(&answer, String::new);
    }
    Ok(Exit::Ok)
}

/// The answer of the keystore on this machine, to its owner.
fn here(operation: &str, request: &Value, global: &Global) -> Result<Value, CliError> {
    let keystores = Keystores::new(keystore::open(global)?);
    let body = request.to_string();
    let answer = dispatch::call(&keystores, None, operation, body.as_bytes(), Caller::owner());
    let value = match answer.body.as_slice() {
        [] => Value::Object(serde_json::Map::new()),
        body => serde_json::from_slice(body)
            .map_err(|error| CliError::new(Exit::General, error.to_string()))?,
    };
    match answer.error {
        None => Ok(value),
        Some(name) => Err(refused(name, value["message"].as_str().unwrap_or(""))),
    }
}

/// The answer of a KMS at an endpoint, to the holder of the access key.
fn there(endpoint: &Endpoint, operation: &str, request: &Value) -> Result<Value, CliError> {
    endpoint.call(operation, request).map_err(|error| match &error {
        EndpointError::Refused { name, message, .. } => refused(name, message),
        _ => CliError::new(Exit::General, error.to_string()),
    })
}

/// An exception of the API as an exit code and a message.
fn refused(name: &str, message: &str) -> CliError {
    let what = if message.is_empty() { name.to_owned() } else { format!("{name}: {message}") };
    let failure = CliError::new(exit_of(name), what);
    match name {
        "MissingAuthenticationTokenException" => failure.advise(NEEDS_ACCESS_KEY),
        _ => failure,
    }
}

/// The exit code of an exception that a KMS answers with.
fn exit_of(name: &str) -> Exit {
    match name {
        "NotFoundException" | "CustomKeyStoreNotFoundException" => Exit::KeyUnknown,
        "DisabledException"
        | "KMSInvalidStateException"
        | "KeyUnavailableException"
        | "CustomKeyStoreInvalidStateException" => Exit::KeyUnusable,
        "ValidationException"
        | "SerializationException"
        | "InvalidArnException"
        | "InvalidAliasNameException"
        | "InvalidMarkerException"
        | "InvalidGrantIdException"
        | "InvalidGrantTokenException"
        | "MalformedPolicyDocumentException"
        | "TagException"
        | "UnknownOperationException" => Exit::Usage,
        "AccessDeniedException" => Exit::Refused,
        "MissingAuthenticationTokenException" => Exit::NoSecret,
        "KMSInvalidSignatureException" | "KMSInvalidMacException" => Exit::Damage,
        "DependencyTimeoutException" | "KMSInternalException" => Exit::KeystoreUnusable,
        _ => Exit::General,
    }
}

//! What the `Authorization` header of a request claims, and whether that is true.
//!
//! The order is AWS's: the header must be well formed, then its access key is looked up by the
//! caller, then [`Claim::verify`] checks what was signed, for whom, when, and the signature.

use std::time::{Duration, SystemTime};

use base16ct::lower::encode_string;

use super::sigv4::{self, SERVICE, Scope, Signable};
use super::{SignatureError, time};
use crate::crypto::{Secret, hash};

/// How far the clocks of client and server may be apart.
pub const SKEW: Duration = Duration::from_secs(5 * 60);

/// The claim of a request to come from the owner of an access key. Not yet verified.
#[derive(Debug)]
pub struct Claim {
    access_key_id: String,
    scope_date: String,
    region: String,
    service: String,
    terminator: String,
    signed_headers: Vec<String>,
    signature: Secret<32>,
    stamp: String,
    signed_at: SystemTime,
}

impl Claim {
    /// Reads the claim of a request from its headers, whose names are in lower case.
    /// Errors: `Missing` without an `Authorization` header, `Incomplete` for a malformed one.
    pub fn parse(headers: &[(&str, &str)]) -> Result<Self, SignatureError> {
        let header = single(headers, "authorization")?.ok_or(SignatureError::Missing)?;
        let parameters = header
            .strip_prefix(ALGORITHM)
            .and_then(|rest| rest.strip_prefix(' '))
            .ok_or_else(|| incomplete("Authorization header requires 'Credential' parameter."))?;
        let parameters = Parameters::parse(parameters)?;
        let stamp = single(headers, DATE)?.unwrap_or_default();
        let signed_at = time::parse(stamp).ok_or_else(|| incomplete(NO_DATE))?;
        let [access_key_id, scope_date, region, service, terminator] =
            scope_of(parameters.credential)?;
        Ok(Self {
            access_key_id,
            scope_date,
            region,
            service,
            terminator,
            signed_headers: parameters.signed_headers.split(';').map(str::to_owned).collect(),
            // A signature of another form is simply not the right one.
            signature: sigv4::parse(parameters.signature).ok_or(SignatureError::Mismatch)?,
            stamp: stamp.to_owned(),
            signed_at,
        })
    }

    /// The access key that is said to have signed.
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    /// The region that the request was signed for.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// When it was signed, to the second.
    pub fn signed_at(&self) -> SystemTime {
        self.signed_at
    }

    /// The signature, by which a request is known again.
    pub fn signature(&self) -> &[u8; 32] {
        self.signature.expose()
    }

    /// Checks that the request was signed with `secret`, not long ago, whole, and for KMS.
    /// Errors: `UnknownKey` when a session token came along (no access key here has one),
    /// `Invalid`, `Mismatch`.
    pub fn verify(
        &self,
        request: &Signable<'_>,
        secret: &str,
        now: SystemTime,
    ) -> Result<(), SignatureError> {
        if request.headers.iter().any(|(name, _)| *name == SESSION_TOKEN) {
            return Err(SignatureError::UnknownKey);
        }
        self.check_scope()?;
        self.check_headers(request)?;
        self.check_time(now)?;
        let headers = self.signed_of(&request.headers);
        let request = Signable { headers, ..request.clone() };
        let scope = Scope { region: &self.region, service: &self.service, at: self.signed_at };
        match sigv4::signature(&request, scope, secret) {
            Some(expected) if expected == self.signature => Ok(()),
            _ => Err(SignatureError::Mismatch),
        }
    }

    fn check_scope(&self) -> Result<(), SignatureError> {
        if self.terminator != TERMINATOR {
            return Err(invalid(format!(
                "Credential should be scoped with a valid terminator: '{TERMINATOR}', not '{}'.",
                self.terminator
            )));
        }
        if self.service != SERVICE {
            return Err(invalid(format!(
                "Credential should be scoped to correct service: '{SERVICE}'."
            )));
        }
        let day = self.stamp.get(..8).unwrap_or_default();
        if self.scope_date != day {
            return Err(invalid(format!(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date \
                 from HTTP: '{}' != '{day}', from '{}'.",
                self.scope_date, self.stamp
            )));
        }
        Ok(())
    }

    /// Everything that decides what a request does must be signed.
    fn check_headers(&self, request: &Signable<'_>) -> Result<(), SignatureError> {
        for (name, shown) in MUST_BE_SIGNED {
            if !self.signed_headers.iter().any(|signed| signed == name) {
                return Err(invalid(format!(
                    "'{shown}' must be a 'SignedHeader' in the AWS Authorization."
                )));
            }
        }
        let came = |signed: &String| request.headers.iter().any(|(name, _)| name == signed);
        if !self.signed_headers.iter().all(came) {
            return Err(SignatureError::Mismatch);
        }
        match single(&request.headers, CONTENT_HASH)? {
            Some(claimed) if claimed != encode_string(&hash::sha256(&[request.body])) => {
                Err(SignatureError::Mismatch)
            }
            _ => Ok(()),
        }
    }

    fn check_time(&self, now: SystemTime) -> Result<(), SignatureError> {
        let (past, future) = (now - SKEW, now + SKEW);
        let shown = (&self.stamp, time::stamp(now));
        if self.signed_at < past {
            return Err(invalid(format!(
                "Signature expired: {} is now earlier than {} ({} - 5 min.)",
                shown.0,
                time::stamp(past),
                shown.1
            )));
        }
        if self.signed_at > future {
            return Err(invalid(format!(
                "Signature not yet current: {} is still later than {} ({} + 5 min.)",
                shown.0,
                time::stamp(future),
                shown.1
            )));
        }
        Ok(())
    }

    /// The headers that were signed, in the order in which they came.
    fn signed_of<'a>(&self, headers: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let signed = |name: &str| self.signed_headers.iter().any(|signed| signed == name);
        headers.iter().copied().filter(|(name, _)| signed(name)).collect()
    }
}

/// The three parameters of the header.
struct Parameters<'a> {
    credential: &'a str,
    signed_headers: &'a str,
    signature: &'a str,
}

impl<'a> Parameters<'a> {
    fn parse(text: &'a str) -> Result<Self, SignatureError> {
        let (mut credential, mut signed_headers, mut signature) = (None, None, None);
        for pair in text.split(',').map(str::trim) {
            let (name, value) = pair.split_once('=').ok_or_else(|| {
                incomplete(
                    "not a valid key=value pair (missing equal-sign) in Authorization header.",
                )
            })?;
            let slot = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed_headers,
                "Signature" => &mut signature,
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return Err(incomplete(&format!(
                    "Authorization header requires one '{name}' parameter."
                )));
            }
        }
        let needed = |value: Option<&'a str>, name: &str| {
            value.filter(|value| !value.is_empty()).ok_or_else(|| {
                incomplete(&format!("Authorization header requires '{name}' parameter."))
            })
        };
        Ok(Self {
            credential: needed(credential, "Credential")?,
            signature: needed(signature, "Signature")?,
            signed_headers: needed(signed_headers, "SignedHeaders")?,
        })
    }
}

fn scope_of(credential: &str) -> Result<[String; 5], SignatureError> {
    let parts: Vec<String> = credential.split('/').map(str::to_owned).collect();
    parts.try_into().map_err(|_| {
        incomplete(&format!(
            "Credential must have exactly 5 slash-delimited elements, e.g. \
             keyid/date/region/service/term, got '{credential}'"
        ))
    })
}

/// The value of a header that may come once.
fn single<'a>(
    headers: &[(&'a str, &'a str)],
    name: &str,
) -> Result<Option<&'a str>, SignatureError> {
    let mut values = headers.iter().filter(|(found, _)| *found == name).map(|(_, value)| *value);
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(incomplete(&format!("The header '{name}' came more than once."))),
        (value, None) => Ok(value),
    }
}

fn incomplete(what: &str) -> SignatureError {
    SignatureError::Incomplete(what.to_owned())
}

fn invalid(what: String) -> SignatureError {
    SignatureError::Invalid(what)
}

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const TERMINATOR: &str = "aws4_request";
const DATE: &str = "x-amz-date";
const SESSION_TOKEN: &str = "x-amz-security-token";
const CONTENT_HASH: &str = "x-amz-content-sha256";
const NO_DATE: &str = "Authorization header requires existence of either a 'X-Amz-Date' or a \
                       'Date' header.";
const MUST_BE_SIGNED: [(&str, &str); 3] =
    [("host", "Host"), (DATE, "X-Amz-Date"), (super::TARGET_HEADER, "X-Amz-Target")];

#[cfg(test)]
mod tests;

//! AWS Signature Version 4: signing a request, and recomputing the signature of one.
//!
//! Both directions are the same computation of the `aws-sigv4` crate. To verify, exactly the
//! headers that the sender says it signed are signed again.

use std::time::SystemTime;

use aws_credential_types::Credentials as AwsCredentials;
use aws_sigv4::http_request::{
    self, PayloadChecksumKind, SignableBody, SignableRequest, SigningInstructions, SigningSettings,
};
use aws_sigv4::sign::v4;

use super::Credentials;
use crate::crypto::Secret;

/// The service whose requests these are.
pub const SERVICE: &str = "kms";

/// What of a request is signed.
#[derive(Debug, Clone)]
pub struct Signable<'a> {
    /// The HTTP method.
    pub method: &'a str,
    /// Path and query, as on the request line.
    pub target: &'a str,
    /// Headers in the order of the request, names in lower case.
    pub headers: Vec<(&'a str, &'a str)>,
    /// The whole body.
    pub body: &'a [u8],
}

/// For whom and when a request is signed.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// The region.
    pub region: &'a str,
    /// The service.
    pub service: &'a str,
    /// The time.
    pub at: SystemTime,
}

/// The headers to add to a request of a client: its time, its signature, and its session token if
/// it has one. `None` if a header cannot be signed, because it is no text.
pub fn sign(
    request: &Signable<'_>,
    scope: Scope<'_>,
    credentials: &Credentials,
) -> Option<Vec<(String, String)>> {
    let aws = AwsCredentials::new(
        credentials.access_key_id(),
        credentials.secret(),
        credentials.session_token().map(str::to_owned),
        None,
        "kmsfs",
    );
    let (instructions, _) = run(request, scope, aws)?;
    Some(instructions.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

/// The signature that `request` must have under `secret`. Comparing secrets takes constant time.
pub(super) fn signature(
    request: &Signable<'_>,
    scope: Scope<'_>,
    secret: &str,
) -> Option<Secret<32>> {
    let aws = AwsCredentials::new("", secret, None, None, "kmsfs");
    let (_, signature) = run(request, scope, aws)?;
    parse(&signature)
}

/// The bytes of a signature in its only form: 64 lower case hexadecimal digits.
pub(super) fn parse(text: &str) -> Option<Secret<32>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let pairs = text.as_bytes().chunks(2);
    let bytes: Option<Vec<u8>> = pairs
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect();
    Secret::from_slice(&bytes?)
}

fn run(
    request: &Signable<'_>,
    scope: Scope<'_>,
    credentials: AwsCredentials,
) -> Option<(SigningInstructions, String)> {
    let mut settings = SigningSettings::default();
    // The headers to sign were chosen by the caller: none is left out.
    settings.excluded_headers = None;
    settings.payload_checksum_kind = PayloadChecksumKind::NoHeader;
    let identity = credentials.into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(scope.region)
        .name(scope.service)
        .time(scope.at)
        .settings(settings)
        .build()
        .ok()?
        .into();
    let uri = format!("https://localhost{}", request.target);
    let headers = request.headers.iter().copied();
    let body = SignableBody::Bytes(request.body);
    let signable = SignableRequest::new(request.method, uri, headers, body).ok()?;
    http_request::sign(signable, &parameters).ok().map(aws_sigv4::SigningOutput::into_parts)
}

#[cfg(test)]
mod tests {
    use super::super::time;
    use super::*;

    /// Of the test suite that AWS publishes for SigV4: name, method, target, headers, body,
    /// signature; all with the access key `AKIDEXAMPLE` for us-east-1 and a service "service".
    type Vector = (
        &'static str,
        &'static str,
        &'static str,
        &'static [(&'static str, &'static str)],
        &'static [u8],
        &'static str,
    );

    const VECTORS: [Vector; 9] = [
        (
            "post-vanilla",
            "POST",
            "/",
            &[],
            b"",
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
        ),
        (
            "post-vanilla-query",
            "POST",
            "/?Param1=value1",
            &[],
            b"",
            "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11",
        ),
        (
            "post-header-key-sort",
            "POST",
            "/",
            &[("my-header1", "value1")],
            b"",
            "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
        ),
        (
            "post-header-value-case",
            "POST",
            "/",
            &[("my-header1", "VALUE1")],
            b"",
            "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d",
        ),
        (
            "post-x-www-form-urlencoded",
            "POST",
            "/",
            &[
                ("content-type", "application/x-www-form-urlencoded"),
                ("content-length", "13"),
                (
                    "x-amz-content-sha256",
                    "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e",
                ),
            ],
            b"Param1=value1",
            "d3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b",
        ),
        (
            "get-vanilla",
            "GET",
            "/",
            &[],
            b"",
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        ),
        (
            "get-header-key-duplicate",
            "GET",
            "/",
            &[("my-header1", "value2"), ("my-header1", "value2"), ("my-header1", "value1")],
            b"",
            "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea",
        ),
        (
            "get-header-value-trim",
            "GET",
            "/",
            &[("my-header1", " value1"), ("my-header2", " \"a   b   c\"")],
            b"",
            "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
        ),
        (
            "get-vanilla-query-order-key-case",
            "GET",
            "/?Param2=value2&Param1=value1",
            &[],
            b"",
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
    ];

    #[test]
    fn signatures_are_those_of_the_test_suite_of_aws() {
        let at = time::parse("20150830T123600Z").unwrap();
        let scope = Scope { region: "us-east-1", service: "service", at };
        for (name, method, target, extra, body, expected) in VECTORS {
            let host = ("host", "example.amazonaws.com");
            let headers = [host].into_iter().chain(extra.iter().copied()).collect();
            let request = Signable { method, target, headers, body };
            let found = signature(&request, scope, "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
            assert_eq!(found, parse(expected), "{name}");
            assert!(found.is_some(), "{name}");
        }
    }

    #[test]
    fn a_signature_has_one_form() {
        let good = "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b";
        assert!(parse(good).is_some());
        for wrong in ["", "5d", &good.to_uppercase(), &good[1..], &format!("{good}00"), "\u{e9}"] {
            assert!(parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_header_that_is_no_text_is_not_signed() {
        let at = time::parse("20150830T123600Z").unwrap();
        let scope = Scope { region: "local", service: SERVICE, at };
        let headers = vec![("host", "a\nb")];
        let request = Signable { method: "POST", target: "/", headers, body: b"" };
        assert!(signature(&request, scope, "secret").is_none());
    }
}

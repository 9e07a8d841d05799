use proptest::prelude::*;

use super::super::Credentials;
use super::*;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const STAMP: &str = "20261123T040000Z";

/// A signed request, to be spoilt.
#[derive(Clone)]
struct Request {
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    fn new(service: &str) -> Self {
        let at = time::parse(STAMP).unwrap();
        Self::signed(service, at, &[], SECRET)
    }

    fn signed(service: &str, at: SystemTime, extra: &[(&str, &str)], secret: &str) -> Self {
        let body = br#"{"KeyId":"alias/x"}"#.to_vec();
        let target = ("x-amz-target", "TrentService.DescribeKey");
        let headers: Vec<_> =
            [("host", "127.0.0.1:8080"), target].into_iter().chain(extra.iter().copied()).collect();
        let signable = Signable { method: "POST", target: "/", headers, body: &body };
        let credentials = Credentials::new("AKIDEXAMPLE", secret, None);
        let scope = Scope { region: "us-east-1", service, at };
        let added = sigv4::sign(&signable, scope, &credentials).unwrap();
        let mut headers: Vec<(String, String)> = signable
            .headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        headers.extend(added);
        headers.push(("user-agent".into(), "somebody".into()));
        Self { headers, body }
    }

    fn set(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(found, _)| found != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn edit_claim(self, from: &str, to: &str) -> Self {
        let header = self.header("authorization").to_owned();
        assert!(header.contains(from), "{header}");
        self.set("authorization", &header.replace(from, to))
    }

    fn header(&self, name: &str) -> &str {
        &self.headers.iter().find(|(found, _)| found == name).unwrap().1
    }

    fn check(&self) -> Result<(), SignatureError> {
        self.check_at(time::parse(STAMP).unwrap())
    }

    fn check_at(&self, now: SystemTime) -> Result<(), SignatureError> {
        let headers: Vec<_> = self.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let claim = Claim::parse(&headers)?;
        let request = Signable { method: "POST", target: "/", headers, body: &self.body };
        claim.verify(&request, SECRET, now)
    }

    #[track_caller]
    fn refused(&self, name: &str, part: &str) {
        let error = self.check().unwrap_err();
        assert_eq!(error.aws_name(), name, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
}

const INVALID: &str = "InvalidSignatureException";
const INCOMPLETE: &str = "IncompleteSignatureException";

#[test]
fn a_signed_request_is_accepted_with_headers_that_were_not_signed() {
    assert_eq!(Request::new("kms").check(), Ok(()));
    assert_eq!(Request::new("kms").set("user-agent", "a proxy").check(), Ok(()));
}

#[test]
fn whatever_was_signed_cannot_be_changed() {
    let good = Request::new("kms");
    let mut body = good.clone();
    body.body.push(b' ');
    body.refused(INVALID, "does not match the signature you provided");
    good.clone().set("host", "evil").refused(INVALID, "does not match");
    good.clone().set("x-amz-target", "TrentService.Decrypt").refused(INVALID, "does not match");
    good.clone().set("x-amz-date", "20261123T040001Z").refused(INVALID, "does not match");
    good.clone().edit_claim("us-east-1", "eu-west-1").refused(INVALID, "does not match");
    good.edit_claim("Signature=", "Signature=0").refused(INVALID, "does not match");
    Request::signed("kms", time::parse(STAMP).unwrap(), &[], "other").refused(INVALID, "does not");
}

#[test]
fn a_signature_for_another_service_or_day_is_refused() {
    Request::new("sts").refused(INVALID, "correct service: 'kms'");
    let good = Request::new("kms");
    good.clone().edit_claim("aws4_request", "aws5").refused(INVALID, "valid terminator");
    good.edit_claim("/20261123/", "/20261122/").refused(INVALID, "YYYYMMDD");
}

#[test]
fn host_time_and_operation_must_be_signed() {
    let good = Request::new("kms");
    for (name, shown) in MUST_BE_SIGNED {
        let listed = if name == "host" { "host;" } else { &format!(";{name}") };
        good.clone().edit_claim(listed, "").refused(INVALID, shown);
    }
}

#[test]
fn five_minutes_lie_between_the_clocks_at_most() {
    let request = Request::new("kms");
    let at = time::parse(STAMP).unwrap();
    let second = Duration::from_secs(1);
    assert_eq!(request.check_at(at + SKEW), Ok(()));
    assert_eq!(request.check_at(at - SKEW), Ok(()));
    let expired = request.check_at(at + SKEW + second).unwrap_err();
    assert_eq!(
        expired.to_string(),
        "Signature expired: 20261123T040000Z is now earlier than 20261123T040001Z \
         (20261123T040501Z - 5 min.)"
    );
    let early = request.check_at(at - SKEW - second).unwrap_err().to_string();
    assert!(early.starts_with("Signature not yet current: 20261123T040000Z"), "{early}");
}

#[test]
fn the_hash_of_the_body_is_right_or_absent() {
    let at = time::parse(STAMP).unwrap();
    for wrong in ["UNSIGNED-PAYLOAD", "e3b0c442", ""] {
        let extra = [("x-amz-content-sha256", wrong)];
        let request = Request::signed("kms", at, &extra, SECRET);
        request.refused(INVALID, "does not match");
    }
    let right = encode_string(&hash::sha256(&[br#"{"KeyId":"alias/x"}"#]));
    let extra = [("x-amz-content-sha256", right.as_str())];
    assert_eq!(Request::signed("kms", at, &extra, SECRET).check(), Ok(()));
}

#[test]
fn a_session_token_belongs_to_no_access_key_here() {
    let request = Request::new("kms").set("x-amz-security-token", "token");
    request.refused("UnrecognizedClientException", "security token included in the request");
}

#[test]
fn malformed_headers_are_named() {
    let good = Request::new("kms");
    for (header, part) in [
        ("Bearer abc", "requires 'Credential'"),
        ("AWS4-HMAC-SHA256", "requires 'Credential'"),
        ("AWS4-HMAC-SHA256 Credential", "missing equal-sign"),
        ("AWS4-HMAC-SHA256 Credential=a/b/c/d/e", "requires 'Signature'"),
        ("AWS4-HMAC-SHA256 Credential=a/b/c/d/e, Signature=0", "requires 'SignedHeaders'"),
        ("AWS4-HMAC-SHA256 Credential=a, Signature=0, SignedHeaders=host", "exactly 5"),
        ("AWS4-HMAC-SHA256 Credential=a, Credential=b", "requires one 'Credential'"),
    ] {
        good.clone().set("authorization", header).refused(INCOMPLETE, part);
    }
    good.clone().set("x-amz-date", "yesterday").refused(INCOMPLETE, "X-Amz-Date");
    let mut twice = good.clone();
    twice.headers.push(("authorization".into(), "AWS4-HMAC-SHA256 x".into()));
    twice.refused(INCOMPLETE, "more than once");
    let mut none = good;
    none.headers.retain(|(name, _)| name != "authorization");
    none.refused("MissingAuthenticationTokenException", "Missing Authentication Token");
}

#[test]
fn a_signed_header_that_did_not_come_is_a_mismatch() {
    let request = Request::new("kms").edit_claim("host;", "host;x-absent;");
    request.refused(INVALID, "does not match");
    let mut no_host = Request::new("kms");
    no_host.headers.retain(|(name, _)| name != "host");
    no_host.refused(INVALID, "does not match");
}

proptest! {
    #[test]
    fn no_header_makes_the_parser_panic(header in "\\PC*", date in "\\PC{0,20}") {
        let _ = Request::new("kms").set("authorization", &header).set("x-amz-date", &date).check();
    }

    #[test]
    fn no_claim_of_the_right_shape_verifies_without_the_secret(
        credential in "[a-z0-9/]{0,40}",
        signed in "[a-z;-]{0,60}",
        signature in "[0-9a-f]{62,66}",
    ) {
        let header = format!(
            "AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={signed}, Signature={signature}"
        );
        prop_assert!(Request::new("kms").set("authorization", &header).check().is_err());
    }
}

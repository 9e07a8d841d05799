//! The shapes that members of several operations share. Source: AWS KMS API, version 2014-11-01.

use super::shape::{Member, Pattern, Shape};

const fn text(least: usize, most: usize) -> Shape {
    Shape::Text { length: (least, most), pattern: None, secret: false }
}

const fn like(least: usize, most: usize, text: &'static str, matches: fn(&str) -> bool) -> Shape {
    let pattern = Some(Pattern { text, matches });
    Shape::Text { length: (least, most), pattern, secret: false }
}

const fn blob(most: usize) -> Shape {
    Shape::Blob { length: (1, most), secret: false }
}

const fn list(of: &'static Shape, least: usize, most: usize) -> Shape {
    Shape::List { of, length: (least, most) }
}

/// A key's id or ARN; for most operations an alias or its ARN too.
pub(in crate::server) const KEY_ID: Shape = text(1, 2048);
/// The name of an alias.
pub(in crate::server) const ALIAS_NAME: Shape = like(1, 256, "^[a-zA-Z0-9:/_-]+$", is_name);
/// Text about a key.
pub(in crate::server) const DESCRIPTION: Shape = text(0, 8192);
/// The pairs that a ciphertext is bound to.
pub(in crate::server) const CONTEXT: Shape = Shape::Pairs;
/// Tokens of grants.
pub(in crate::server) const GRANT_TOKENS: Shape = list(&GRANT_TOKEN, 0, 10);
/// One token.
pub(in crate::server) const GRANT_TOKEN: Shape = text(1, 8192);
/// True or false.
pub(in crate::server) const FLAG: Shape = Shape::Flag;
/// A point in time.
pub(in crate::server) const TIME: Shape = Shape::Time;
/// How many entries a list answers at most.
pub(in crate::server) const LIMIT: Shape = Shape::Integer { range: (1, 1000) };
/// Where a list goes on.
pub(in crate::server) const MARKER: Shape = like(1, 1024, r"[\u0020-\u00FF]*", is_latin);
/// A number of bytes to make.
pub(in crate::server) const NUMBER_OF_BYTES: Shape = Shape::Integer { range: (1, 1024) };
/// A plaintext or a message.
pub(in crate::server) const PLAINTEXT: Shape = Shape::Blob { length: (1, 4096), secret: true };
/// A ciphertext, a signature, a MAC.
pub(in crate::server) const CIPHERTEXT: Shape = blob(6144);
/// A public key in DER.
pub(in crate::server) const PUBLIC_KEY: Shape = blob(8192);
/// The enclave that an answer is for.
pub(in crate::server) const RECIPIENT: Shape = Shape::Structure(&[
    Member::optional("KeyEncryptionAlgorithm", &Shape::Choice(&["RSAES_OAEP_SHA_256"])),
    Member::optional("AttestationDocument", &Shape::Blob { length: (1, 262_144), secret: false }),
]);
/// What a dry run leaves out.
pub(in crate::server) const DRY_RUN_MODIFIERS: Shape =
    list(&Shape::Choice(&["IGNORE_CIPHERTEXT"]), 0, usize::MAX);
/// A key policy.
pub(in crate::server) const POLICY: Shape =
    like(1, 131_072, r"[\u0009\u000A\u000D\u0020-\u00FF]+", is_policy_text);
/// The name of a key policy.
pub(in crate::server) const POLICY_NAME: Shape = like(1, 128, r"[\w]+", is_word);
/// Tags.
pub(in crate::server) const TAGS: Shape = list(
    &Shape::Structure(&[
        Member::needed("TagKey", &TAG_KEY),
        Member::needed("TagValue", &text(0, 256)),
    ]),
    0,
    usize::MAX,
);
/// Keys of tags.
pub(in crate::server) const TAG_KEYS: Shape = list(&TAG_KEY, 0, usize::MAX);
const TAG_KEY: Shape = text(1, 128);
/// The id of a key material.
pub(in crate::server) const MATERIAL_ID: Shape = like(64, 64, "^[a-f0-9]+$", is_lower_hex);
/// Text about a key material.
pub(in crate::server) const MATERIAL_DESCRIPTION: Shape =
    like(0, 256, r"^[a-zA-Z0-9:/_\s.-]+$", is_material_description);
/// A principal's ARN.
pub(in crate::server) const PRINCIPAL: Shape = like(1, 256, r"^[\w+=,.@:/-]+$", is_principal);
/// A service's name, as in `kms.amazonaws.com`.
pub(in crate::server) const SERVICE_PRINCIPAL: Shape =
    like(1, 128, r"^([A-Za-z0-9\-]+)\.([A-Za-z0-9\-]+)(\.[A-Za-z0-9\-]+)+$", is_service_principal);
/// The ARN of what a service asks for.
pub(in crate::server) const SOURCE_ARN: Shape = text(20, 512);
/// The name of a grant.
pub(in crate::server) const GRANT_NAME: Shape = like(1, 256, "^[a-zA-Z0-9:/_-]+$", is_name);
/// The id of a grant.
pub(in crate::server) const GRANT_ID: Shape = text(1, 128);
/// A region.
pub(in crate::server) const REGION: Shape = like(1, 32, r"^([a-z]+-){2,3}\d+$", is_region);
/// The id of a custom key store.
pub(in crate::server) const KEY_STORE_ID: Shape = text(1, 64);
/// The name of a custom key store.
pub(in crate::server) const KEY_STORE_NAME: Shape = text(1, 256);
/// The PIN of a token.
pub(in crate::server) const KEY_STORE_PASSWORD: Shape =
    Shape::Text { length: (7, 32), pattern: None, secret: true };
/// A token, by label or serial number, in the place of a cluster's id. Labels have other forms than
/// ids of clusters, so that nothing is asked of them.
pub(in crate::server) const TOKEN: Shape = text(1, 64);
/// The path of a PKCS#11 module, in the place of a cluster's certificate.
pub(in crate::server) const TRUST_ANCHOR: Shape = text(1, 5000);
/// The id of a key in an external key store.
pub(in crate::server) const XKS_KEY_ID: Shape = like(1, 128, "^[a-zA-Z0-9-_.]+$", is_xks_key);
/// Algorithms of Encrypt and Decrypt.
pub(in crate::server) const ENCRYPTION_ALGORITHM: Shape =
    Shape::Choice(&["SYMMETRIC_DEFAULT", "RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256", "SM2PKE"]);
/// Algorithms of Sign and Verify.
pub(in crate::server) const SIGNING_ALGORITHM: Shape = Shape::Choice(&[
    "RSASSA_PSS_SHA_256",
    "RSASSA_PSS_SHA_384",
    "RSASSA_PSS_SHA_512",
    "RSASSA_PKCS1_V1_5_SHA_256",
    "RSASSA_PKCS1_V1_5_SHA_384",
    "RSASSA_PKCS1_V1_5_SHA_512",
    "ECDSA_SHA_256",
    "ECDSA_SHA_384",
    "ECDSA_SHA_512",
    "SM2DSA",
    "ML_DSA_SHAKE_256",
    "ED25519_SHA_512",
    "ED25519_PH_SHA_512",
]);
/// What a message is.
pub(in crate::server) const MESSAGE_TYPE: Shape = Shape::Choice(&["RAW", "DIGEST", "EXTERNAL_MU"]);
/// Algorithms of GenerateMac and VerifyMac.
pub(in crate::server) const MAC_ALGORITHM: Shape =
    Shape::Choice(&["HMAC_SHA_224", "HMAC_SHA_256", "HMAC_SHA_384", "HMAC_SHA_512"]);
/// Algorithms of Encapsulate and Decapsulate.
pub(in crate::server) const ENCAPSULATION_ALGORITHM: Shape = Shape::Choice(&["ML_KEM"]);
/// The one algorithm of DeriveSharedSecret.
pub(in crate::server) const KEY_AGREEMENT_ALGORITHM: Shape = Shape::Choice(&["ECDH"]);
/// Kinds of data keys.
pub(in crate::server) const DATA_KEY_SPEC: Shape = Shape::Choice(&["AES_256", "AES_128"]);
/// Kinds of data key pairs.
pub(in crate::server) const KEY_PAIR_SPEC: Shape = Shape::Choice(&[
    "RSA_2048",
    "RSA_3072",
    "RSA_4096",
    "ECC_NIST_P256",
    "ECC_NIST_P384",
    "ECC_NIST_P521",
    "ECC_SECG_P256K1",
    "SM2",
    "ECC_NIST_EDWARDS25519",
    "ML_KEM_512",
    "ML_KEM_768",
    "ML_KEM_1024",
]);

fn every(text: &str, allowed: impl Fn(char) -> bool) -> bool {
    !text.is_empty() && text.chars().all(allowed)
}

fn is_name(text: &str) -> bool {
    every(text, |c| c.is_ascii_alphanumeric() || ":/_-".contains(c))
}

/// Unlike the others this expression is not anchored and may match nothing, but AWS matches whole
/// texts.
fn is_latin(text: &str) -> bool {
    text.chars().all(|c| matches!(c, ' '..='\u{ff}'))
}

fn is_policy_text(text: &str) -> bool {
    every(text, |c| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{ff}'))
}

fn is_word(text: &str) -> bool {
    every(text, |c| c.is_ascii_alphanumeric() || c == '_')
}

fn is_xks_key(text: &str) -> bool {
    every(text, |c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

fn is_lower_hex(text: &str) -> bool {
    every(text, |c| matches!(c, 'a'..='f' | '0'..='9'))
}

fn is_material_description(text: &str) -> bool {
    every(text, |c| c.is_ascii_alphanumeric() || c.is_ascii_whitespace() || ":/_.-".contains(c))
}

fn is_principal(text: &str) -> bool {
    every(text, |c| c.is_ascii_alphanumeric() || "_+=,.@:/-".contains(c))
}

fn is_service_principal(text: &str) -> bool {
    let label = |part: &str| every(part, |c| c.is_ascii_alphanumeric() || c == '-');
    text.split('.').count() >= 3 && text.split('.').all(label)
}

fn is_region(text: &str) -> bool {
    let mut parts: Vec<&str> = text.split('-').collect();
    let number = parts.pop().unwrap_or("");
    (2..=3).contains(&parts.len())
        && every(number, |c| c.is_ascii_digit())
        && parts.iter().all(|part| every(part, |c| c.is_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_accept_and_refuse_what_the_expressions_do() {
        for (matches, good, bad) in [
            (is_name as fn(&str) -> bool, "alias/a:b_c-9", "alias/a b"),
            (is_policy_text, "{\t\"é\"}\r\n", "\u{7}"),
            (is_word, "default_1", "de-fault"),
            (is_lower_hex, "09af", "09AF"),
            (is_material_description, "made 2026-01", "a;b"),
            (is_principal, "arn:aws:iam::000000000000:user/unix/1000", "a b"),
            (is_service_principal, "kms.amazonaws.com", "kms.amazonaws"),
            (is_region, "us-gov-west-1", "local"),
        ] {
            assert!(matches(good), "{good}");
            assert!(!matches(bad), "{bad}");
            assert!(!matches(""), "empty");
        }
        assert!(is_latin(""));
        assert!(!is_latin("\u{100}"));
    }
}

//! A KMS at an endpoint as a volume's KMS: `kmsfs serve` on another host, or AWS.
//!
//! Ciphertexts of our own form are stored in their parts, so that the vault also opens with the
//! keystore itself; those of any other KMS are stored as they are (FORMAT section 3.2). The state
//! of every key in use is asked for every two seconds (`watch`).

mod line;
mod watch;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64ct::{Base64, Encoding};
use serde_json::{Value, json};

use super::local;
use super::service::{KeyHealth, KeyService};
use crate::crypto::hash::sha256;
use crate::crypto::secret::Secret;
use crate::endpoint::client::take_secret;
use crate::endpoint::{Endpoint, EndpointError};
use crate::envelope::{Opaque, Recipient, Wrapped};
use crate::id::{KeyId, MaterialId};
use crate::keystore::{CiphertextBlob, EncryptionContext, Keystore};
use crate::volume::model::error::{Result, VolumeError};
use line::Line;
use watch::Watch;

/// How long what was learnt of a key may be used without asking again.
const FRESH: Duration = Duration::from_secs(5);
const WRAPPED_KEY: &str = "wrapped key";

/// The keys of an endpoint.
#[derive(Debug)]
pub struct RemoteKeys {
    shared: Arc<Shared>,
    _watch: Watch,
}

/// What the requests and the thread that watches the keys share.
#[derive(Debug)]
struct Shared {
    line: Line,
    /// How long keys count as usable while the endpoint does not answer.
    grace: Duration,
    keys: Mutex<HashMap<KeyId, Known>>,
    /// What was learnt before is to be asked again before it is used.
    refreshed: Mutex<Option<Instant>>,
    watched: Mutex<HashSet<KeyId>>,
}

/// What the endpoint said of a key.
#[derive(Debug, Clone)]
struct Known {
    /// The id as the service spells it.
    name: String,
    usable: bool,
    material: MaterialId,
    at: Instant,
    /// Since when the endpoint answers without saying anything of the key: it throttles, fails, or
    /// is not the KMS at all.
    unclear_since: Option<Instant>,
}

impl RemoteKeys {
    /// Takes keys from `endpoint`. While it does not answer, keys that are in use stay so for
    /// `grace`.
    ///
    /// # Errors
    /// `Io` when the system has no thread left.
    pub fn new(endpoint: Endpoint, grace: Duration) -> Result<Self> {
        let shared = Arc::new(Shared {
            line: Line::new(endpoint),
            grace,
            keys: Mutex::default(),
            refreshed: Mutex::default(),
            watched: Mutex::default(),
        });
        let watch = Watch::start(&shared)?;
        Ok(Self { shared, _watch: watch })
    }
}

impl KeyService for RemoteKeys {
    fn generate(&self, key: KeyId, context: &EncryptionContext) -> Result<(Secret<32>, Recipient)> {
        let request = json!({
            "KeyId": self.shared.spelling(key)?,
            "KeySpec": "AES_256",
            "EncryptionContext": pairs(context),
        });
        let mut answer = self.shared.call("GenerateDataKey", &request, key)?;
        Ok((plaintext(&mut answer)?, recipient(&answer, key, "KeyMaterialId")?))
    }

    fn unwrap(&self, wrapped: &Recipient, context: &EncryptionContext) -> Result<Secret<32>> {
        let request = json!({
            "KeyId": self.shared.spelling(wrapped.key)?,
            "CiphertextBlob": Base64::encode_string(&ciphertext(wrapped)?),
            "EncryptionContext": pairs(context),
        });
        let mut answer = self.shared.call("Decrypt", &request, wrapped.key)?;
        check_key(&answer, wrapped.key)?;
        plaintext(&mut answer)
    }

    fn rewrap(&self, old: &Recipient, to: KeyId, context: &EncryptionContext) -> Result<Recipient> {
        let request = json!({
            "CiphertextBlob": Base64::encode_string(&ciphertext(old)?),
            "SourceKeyId": self.shared.spelling(old.key)?,
            "SourceEncryptionContext": pairs(context),
            "DestinationKeyId": self.shared.spelling(to)?,
            "DestinationEncryptionContext": pairs(context),
        });
        let answer = self.shared.call("ReEncrypt", &request, old.key)?;
        recipient(&answer, to, "DestinationKeyMaterialId")
    }

    fn current_material(&self, key: KeyId) -> Result<MaterialId> {
        self.shared.known(key).map(|known| known.material)
    }

    fn find_key(&self, name: &str) -> Result<KeyId> {
        let found = self.shared.describe(name);
        found.map(|(key, _)| key).map_err(|failed| match failed {
            Failed::Refused(error) if error.aws_name().is_some() && !error.is_no_answer() => {
                VolumeError::Kms(error.to_string())
            }
            failed => failed.about(KeyId::from_bytes([0; 16])),
        })
    }

    fn refresh(&self) -> Result<()> {
        *self.shared.refreshed() = Some(Instant::now());
        Ok(())
    }

    fn keystore(&self) -> Option<&Keystore> {
        None
    }

    fn health(&self, keys: &[KeyId]) -> Vec<(KeyId, KeyHealth)> {
        self.shared.watched().extend(keys);
        let over = |silence: Duration| silence >= self.shared.grace;
        if self.shared.line.silence().is_some_and(over) {
            return keys.iter().map(|key| (*key, KeyHealth::Unreachable)).collect();
        }
        let known = self.shared.keys();
        let health = |known: &Known| match known.unclear_since {
            _ if !known.usable => KeyHealth::Unusable,
            Some(since) if over(since.elapsed()) => KeyHealth::Unreachable,
            _ => KeyHealth::Usable,
        };
        keys.iter().filter_map(|key| Some((*key, health(known.get(key)?)))).collect()
    }
}

/// Why nothing was learnt of a key.
enum Failed {
    Refused(EndpointError),
    Strange,
}

impl Failed {
    fn is_missing_key(&self) -> bool {
        matches!(self, Self::Refused(error) if error.aws_name() == Some("NotFoundException"))
    }

    fn about(self, key: KeyId) -> VolumeError {
        match self {
            Self::Refused(error) => refused(key, error),
            Self::Strange => strange("DescribeKey gives no key id"),
        }
    }
}

impl Shared {
    /// A key as the service spells it. AWS has UUIDs and `mrk-` ids, and the 16 bytes of an id do
    /// not tell which.
    fn spelling(&self, key: KeyId) -> Result<String> {
        if let Some(known) = self.keys().get(&key) {
            return Ok(known.name.clone());
        }
        self.known(key).map(|known| known.name)
    }

    /// What is known of a key and no older than a few seconds.
    fn known(&self, key: KeyId) -> Result<Known> {
        let known = self.keys().get(&key).cloned();
        let refreshed = *self.refreshed();
        let fresh = |known: &Known| known.at.elapsed() < FRESH && Some(known.at) > refreshed;
        if let Some(known) = known.filter(fresh) {
            return Ok(known);
        }
        self.ask(key)
    }

    /// Asks the service about a key, whichever way it spells its id.
    fn ask(&self, key: KeyId) -> Result<Known> {
        let known = self.keys().get(&key).map(|known| known.name.clone());
        let name = known.unwrap_or_else(|| key.to_string());
        let found = match self.describe(&name) {
            Err(failed) if failed.is_missing_key() && !name.starts_with(MULTI_REGION) => {
                let digits: String = name.chars().filter(|letter| *letter != '-').collect();
                self.describe(&format!("{MULTI_REGION}{digits}"))
            }
            found => found,
        };
        match found.map_err(|failed| failed.about(key)) {
            Ok((found, known)) if found == key => Ok(known),
            Ok(_) => Err(VolumeError::KeyUnusable(key)),
            Err(error) => {
                if let Some(known) = self.keys().get_mut(&key) {
                    known.note(&error);
                }
                Err(error)
            }
        }
    }

    /// DescribeKey, and notes what it says.
    fn describe(&self, name: &str) -> Result<(KeyId, Known), Failed> {
        let answer = self.line.call("DescribeKey", &json!({ "KeyId": name }));
        let answer = answer.map_err(Failed::Refused)?;
        let metadata = &answer["KeyMetadata"];
        let text = |member: &str| metadata[member].as_str().unwrap_or_default();
        let key = text("KeyId").parse().map_err(|_| Failed::Strange)?;
        let known = Known {
            name: text("KeyId").to_owned(),
            usable: text("KeyState") == "Enabled",
            material: material(&metadata["CurrentKeyMaterialId"]),
            at: Instant::now(),
            unclear_since: None,
        };
        self.keys().insert(key, known.clone());
        Ok((key, known))
    }

    fn call(&self, operation: &str, request: &Value, key: KeyId) -> Result<Value> {
        self.line.call(operation, request).map_err(|error| refused(key, error))
    }

    fn keys(&self) -> MutexGuard<'_, HashMap<KeyId, Known>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refreshed(&self) -> MutexGuard<'_, Option<Instant>> {
        self.refreshed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watched(&self) -> MutexGuard<'_, HashSet<KeyId>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// DescribeKey gave an error instead of an answer.
    fn note(&mut self, error: &VolumeError) {
        match error {
            VolumeError::KeyUnusable(_) => self.usable = false,
            VolumeError::Kms(_) | VolumeError::KmsUnreachable(_) => {
                self.unclear_since.get_or_insert_with(Instant::now);
            }
            _ => {}
        }
    }
}

fn pairs(context: &EncryptionContext) -> Value {
    context.pairs().map(|(name, value)| (name.to_owned(), Value::from(value))).collect()
}

/// The ciphertext that the service once gave.
fn ciphertext(wrapped: &Recipient) -> Result<Vec<u8>> {
    Ok(match &wrapped.wrapped {
        Wrapped::Kms(_) => local::blob(wrapped)?.as_bytes().to_vec(),
        Wrapped::Opaque(opaque) => opaque.as_bytes().to_vec(),
    })
}

/// What an answer wraps, in the form in which headers store it.
fn recipient(answer: &Value, key: KeyId, material_member: &str) -> Result<Recipient> {
    check_key(answer, key)?;
    let bytes = answer["CiphertextBlob"].as_str().and_then(|text| Base64::decode_vec(text).ok());
    let bytes = bytes.ok_or_else(|| strange("the answer has no CiphertextBlob"))?;
    let ours = CiphertextBlob::parse(&bytes).ok().filter(|blob| blob.key_id() == key);
    if let Some(Ok(recipient)) = ours.map(|blob| local::recipient(&blob)) {
        return Ok(recipient);
    }
    let wrapped = Wrapped::Opaque(Opaque::new(bytes)?);
    Ok(Recipient { key, material: material(&answer[material_member]), wrapped })
}

/// The 16 bytes that stand for a material's name: its own ones if it is a keystore of ours, which
/// writes them before 32 zeros; else a part of the name's hash; zeros if the service tells none.
fn material(name: &Value) -> MaterialId {
    let Some(name) = name.as_str() else { return MaterialId::from_bytes([0; 16]) };
    let own = name.split_at_checked(32).filter(|(_, rest)| *rest == "0".repeat(32));
    if let Some(Ok(id)) = own.map(|(digits, _)| digits.parse()) {
        return id;
    }
    let [id @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = sha256(&[name.as_bytes()]);
    MaterialId::from_bytes(id)
}

/// The service answers for the key that was asked about, or not at all.
fn check_key(answer: &Value, key: KeyId) -> Result<()> {
    let arn = answer["KeyId"].as_str().unwrap_or_default();
    let id = arn.rsplit('/').next().unwrap_or_default();
    if id.parse() == Ok(key) { Ok(()) } else { Err(strange("the answer is about another key")) }
}

fn plaintext(answer: &mut Value) -> Result<Secret<32>> {
    let bytes = take_secret(answer, "Plaintext").ok_or_else(|| strange("no Plaintext came"))?;
    Secret::from_slice(&bytes).ok_or(VolumeError::Tampered(WRAPPED_KEY))
}

fn strange(what: &str) -> VolumeError {
    VolumeError::Kms(what.to_owned())
}

fn refused(key: KeyId, error: EndpointError) -> VolumeError {
    match error.aws_name() {
        // Not about the key: it counts as silence.
        _ if error.is_no_answer() => VolumeError::KmsUnreachable(error.to_string()),
        None => VolumeError::KmsUnreachable(error.to_string()),
        Some(
            "NotFoundException"
            | "DisabledException"
            | "KMSInvalidStateException"
            | "KeyUnavailableException",
        ) => VolumeError::KeyUnusable(key),
        Some("InvalidCiphertextException" | "IncorrectKeyException") => {
            VolumeError::Tampered(WRAPPED_KEY)
        }
        Some(
            "AccessDeniedException"
            | "UnrecognizedClientException"
            | "InvalidSignatureException"
            | "ExpiredTokenException",
        ) => VolumeError::KmsDenied(error.to_string()),
        Some(_) => VolumeError::Kms(error.to_string()),
    }
}

const MULTI_REGION: &str = "mrk-";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn material_names_become_16_bytes() {
        let own = format!("{}{}", "0123456789abcdef".repeat(2), "0".repeat(32));
        assert_eq!(material(&own.into()), "0123456789abcdef".repeat(2).parse().unwrap());
        let foreign = material(&"material-1".into());
        assert_eq!(foreign.as_bytes()[..], sha256(&[b"material-1"])[..16]);
        assert!(material(&Value::Null).is_zero());
        assert_ne!(material(&"é".repeat(16).into()), foreign);
    }

    #[test]
    fn an_answer_about_another_key_is_refused() {
        let key = KeyId::from_bytes([7; 16]);
        for name in [key.to_string(), format!("arn:aws:kms:eu-west-1:111122223333:key/{key}")] {
            assert!(check_key(&json!({ "KeyId": name }), key).is_ok(), "{name}");
        }
        for answer in [json!({}), json!({ "KeyId": KeyId::from_bytes([8; 16]).to_string() })] {
            assert!(check_key(&answer, key).is_err(), "{answer}");
        }
    }

    #[test]
    fn only_our_own_form_under_the_same_key_is_taken_apart() {
        let (key, other) = (KeyId::from_bytes([7; 16]), KeyId::from_bytes([8; 16]));
        let answer = |blob: &[u8]| json!({ "KeyId": key.to_string(), "CiphertextBlob": Base64::encode_string(blob) });
        let of = |key| CiphertextBlob::from_parts(key, MaterialId::from_bytes([1; 16]), &[3; 72]);
        let ours = recipient(&answer(of(key).unwrap().as_bytes()), key, "KeyMaterialId").unwrap();
        assert_eq!(ours.wrapped, Wrapped::Kms([3; 72]));
        for blob in [of(other).unwrap().as_bytes(), &[1; 184]] {
            let foreign = recipient(&answer(blob), key, "KeyMaterialId").unwrap();
            assert!(matches!(foreign.wrapped, Wrapped::Opaque(_)));
            assert_eq!(ciphertext(&foreign).unwrap(), blob);
        }
        assert!(recipient(&answer(&[1; 301]), key, "KeyMaterialId").is_err());
        assert!(recipient(&json!({ "KeyId": key.to_string() }), key, "KeyMaterialId").is_err());
    }
}

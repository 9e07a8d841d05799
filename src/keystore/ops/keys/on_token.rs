//! Keys of key stores: made on the token, destroyed on it.

use crate::id::KeyId;
use crate::keystore::custom_store::token_key::{TokenKey, connected};
use crate::keystore::engine::Keystore;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::key_store::KeyStoreId;
use crate::keystore::model::spec::{KeySpec, Origin};
use crate::keystore::model::time::UnixTime;
use crate::keystore::ops::keys::deletion::{self, ClockTrust};
use crate::keystore::ops::keys::manage::CreateKey;
use crate::keystore::records::key::KeyRecord;
use crate::keystore::storage::sealed::Writer;

impl Keystore {
    /// Makes the key on the token that `request` asks for; `None` if it asks for no token.
    /// Errors: `Validation`, `UnsupportedOperation`, `KeyStore`, `Token`.
    pub(in crate::keystore) fn make_on_token(
        &self,
        request: &CreateKey,
    ) -> Result<Option<TokenKey>, KeystoreError> {
        let Some(store) = checked_store(request)? else { return Ok(None) };
        let link = self.read(|reader| {
            connected(reader, store)?;
            self.key_stores().link(reader, store)
        })?;
        TokenKey::make(store, link).map(Some)
    }

    /// Destroys on their tokens the keys whose waiting period is over at `now`. Gives those back
    /// whose token does not answer: their rows must stay, or nobody would know what is left there.
    pub(in crate::keystore) fn destroy_on_tokens(
        &self,
        now: UnixTime,
        trust: ClockTrust,
    ) -> Result<Vec<KeyId>, KeystoreError> {
        let doomed = self.read(|reader| {
            let keys = deletion::doomed(reader, now, trust)?;
            let mut found = Vec::new();
            for key in keys {
                let record = KeyRecord::find(reader, key)?;
                if let Some(store) = record.key_store {
                    let link = self.key_stores().link(reader, store)?;
                    found.push((key, record.current, record.made_on, link));
                }
            }
            Ok(found)
        })?;
        let mut left = Vec::new();
        for (key, material, made_on, link) in doomed {
            let destroyed = link.destroy(material, made_on.as_ref());
            if let Err(error) = destroyed {
                log::warn!("key {key} waits for its token to be destroyed: {error}");
                left.push(key);
            }
        }
        Ok(left)
    }
}

/// The key store that is asked for, if the rest of the request goes with one.
fn checked_store(request: &CreateKey) -> Result<Option<KeyStoreId>, KeystoreError> {
    let origin = request.origin.unwrap_or(match request.key_store {
        Some(_) => Origin::AwsCloudHsm,
        None => Origin::AwsKms,
    });
    let problem = match (origin, request.key_store) {
        (Origin::AwsCloudHsm, None) => "the origin AWS_CLOUDHSM needs a CustomKeyStoreId",
        (Origin::AwsCloudHsm, Some(_)) if !is_symmetric(request) => {
            return Err(KeystoreError::UnsupportedOperation(
                "key stores have symmetric encryption keys only".to_owned(),
            ));
        }
        (Origin::AwsCloudHsm, store) => return Ok(store),
        (_, Some(_)) => "keys of a key store have the origin AWS_CLOUDHSM",
        (_, None) => return Ok(None),
    };
    Err(KeystoreError::Validation(problem.to_owned()))
}

fn is_symmetric(request: &CreateKey) -> bool {
    request.spec.is_none_or(|spec| spec == KeySpec::SymmetricDefault) && !request.multi_region
}

/// How many keys belong to a key store.
pub(in crate::keystore) fn count(
    writer: &Writer<'_>,
    id: KeyStoreId,
) -> Result<usize, KeystoreError> {
    let keys = writer.all::<KeyRecord>()?;
    Ok(keys.iter().filter(|key| key.record.key_store == Some(id)).count())
}

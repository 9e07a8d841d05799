//! Access keys: what users of the network endpoint sign their requests with.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64ct::{Base64, Encoding};
use zeroize::Zeroizing;

use crate::crypto::{Secret, random};
use crate::keystore::access::decision::authorise_account;
use crate::keystore::engine::Keystore;
use crate::keystore::error::KeystoreError;
use crate::keystore::error::access::AccessError;
use crate::keystore::model::action::Action;
use crate::keystore::model::caller::Principal;
use crate::keystore::model::time::UnixTime;
use crate::keystore::records::access_key::{AccessKeyEntry, AccessKeyRecord, AccessKeyStatus};
use crate::keystore::storage::rows::Table;

/// What an access key is made for.
#[derive(Debug, Clone, Default)]
pub struct CreateAccessKey {
    /// The user; the root of the account if none is named.
    pub user: Option<String>,
    /// It may make ciphertexts with the encryption contexts of volumes: a volume on another
    /// machine takes its keys with it.
    pub for_volumes: bool,
    /// When it ends.
    pub expires: Option<SystemTime>,
}

/// A new access key. The secret is shown this once.
pub struct NewAccessKey {
    /// Its id: `AKIA` and 16 more letters and digits.
    pub id: String,
    /// Its secret: 40 characters.
    pub secret: Zeroizing<String>,
}

/// Whom a request that is signed with an access key comes from.
pub struct AccessKeyLogin {
    /// The principal.
    pub principal: Principal,
    /// It may use the encryption contexts of volumes.
    pub volume_context: bool,
    /// What the signature is checked with.
    pub secret: Zeroizing<String>,
}

impl Keystore {
    /// Makes an access key for a user, or for the root of the account.
    /// Errors: `Validation`, `AccessDenied`.
    pub fn create_access_key(
        &self,
        request: &CreateAccessKey,
        now: SystemTime,
    ) -> Result<NewAccessKey, KeystoreError> {
        request.user.as_deref().map_or(Ok(()), check_user)?;
        let (id, secret) = (new_id()?, new_secret()?);
        let record = AccessKeyRecord {
            id: id.clone(),
            user: request.user.clone(),
            secret: secret.clone(),
            status: AccessKeyStatus::Active,
            created: now.into(),
            last_used: None,
            expires: request.expires.map(UnixTime::from),
            for_volumes: request.for_volumes,
        };
        if !record.is_valid(record.created) {
            let problem = "an access key does not end before it begins".to_owned();
            return Err(KeystoreError::Validation(problem));
        }
        self.of_account(Action::CreateAccessKey, |writer| {
            let row = writer.root().lookup(&id);
            writer.put(&row, None, &record)
        })?;
        log::info!("created access key {id}");
        Ok(NewAccessKey { id, secret })
    }

    /// All access keys, oldest first, without their secrets.
    /// Errors: `AccessDenied`.
    pub fn list_access_keys(&self) -> Result<Vec<AccessKeyEntry>, KeystoreError> {
        let stored = self.operate(Action::ListAccessKeys, None, |_| {
            authorise_account(self.caller(), Action::ListAccessKeys)?;
            self.read(|reader| reader.all::<AccessKeyRecord>())
        })?;
        let mut entries: Vec<_> = stored.iter().map(|stored| stored.record.entry()).collect();
        entries.sort_by(|a, b| {
            (a.create_date, &a.access_key_id).cmp(&(b.create_date, &b.access_key_id))
        });
        Ok(entries)
    }

    /// Switches an access key on or off.
    /// Errors: `AccessKeyNotFound`, `AccessDenied`.
    pub fn update_access_key(
        &self,
        id: &str,
        status: AccessKeyStatus,
    ) -> Result<(), KeystoreError> {
        self.of_account(Action::UpdateAccessKey, |writer| {
            let record = AccessKeyRecord { status, ..AccessKeyRecord::find(writer, id)? };
            let row = writer.root().lookup(id);
            writer.put(&row, None, &record)
        })?;
        log::info!("access key {id} is {status:?}");
        Ok(())
    }

    /// Removes an access key for good.
    /// Errors: `AccessKeyNotFound`, `AccessDenied`.
    pub fn delete_access_key(&self, id: &str) -> Result<(), KeystoreError> {
        self.of_account(Action::DeleteAccessKey, |writer| {
            writer.meta.served_hosts |= AccessKeyRecord::find(writer, id)?.for_volumes;
            writer.meta.scrub_due = true;
            let row = writer.root().lookup(id);
            writer.delete(Table::AccessKey, &row)
        })?;
        log::info!("access key {id} is deleted");
        self.scrub_if_due();
        Ok(())
    }

    /// True if a host has taken keys for a volume from here, or may have: with an access key that is
    /// deleted now, or is another keystore's which the same endpoint serves.
    /// Errors: `Tampered`, `Database`.
    pub fn has_served_hosts(&self) -> Result<bool, KeystoreError> {
        Ok(self.read(|reader| reader.meta())?.served_hosts)
    }

    /// Notes durably, before a host gets its first key for a volume, that there is one. The access key that
    /// it has may be another keystore's.
    /// Errors: `Tampered`, `Database`.
    pub(in crate::keystore) fn note_served_host(&self) -> Result<(), KeystoreError> {
        let noted = self.remembered(
            |known| known.served_hosts,
            |reader| Ok(reader.meta()?.served_hosts),
            |known, noted| known.served_hosts = Some(noted),
        )?;
        if noted {
            return Ok(());
        }
        self.write(|writer| {
            writer.meta.served_hosts = true;
            Ok(())
        })
    }

    /// Whom requests signed with this access key come from; `None` if there is no such key, or it
    /// is inactive or has ended. From memory after the first call; policies do not apply.
    /// Errors: `Tampered`, `Database`.
    pub fn access_key(&self, id: &str) -> Result<Option<AccessKeyLogin>, KeystoreError> {
        let record = match self.known_access_key(id) {
            Err(KeystoreError::Access(AccessError::AccessKeyNotFound(_))) => return Ok(None),
            found => found?,
        };
        if !record.is_valid(self.caller().time().into()) {
            return Ok(None);
        }
        let principal = record.user.clone().map_or(Principal::Root, Principal::User);
        let secret = record.secret.clone();
        Ok(Some(AccessKeyLogin { principal, volume_context: record.for_volumes, secret }))
    }

    /// Notes that a request with a good signature came, at most once an hour.
    /// Errors: `Database`.
    pub fn note_access_key_use(&self, id: &str, now: SystemTime) -> Result<(), KeystoreError> {
        let now = UnixTime::from(now);
        let is_noted = |record: &AccessKeyRecord| {
            record
                .last_used
                .is_some_and(|last| now.since(last) < NOTE_EVERY.as_secs().cast_signed())
        };
        if is_noted(&*self.known_access_key(id)?) {
            return Ok(());
        }
        self.write(|writer| {
            let record =
                AccessKeyRecord { last_used: Some(now), ..AccessKeyRecord::find(writer, id)? };
            let row = writer.root().lookup(id);
            writer.put(&row, None, &record)
        })
    }

    /// Errors: `AccessKeyNotFound`.
    fn known_access_key(&self, id: &str) -> Result<Arc<AccessKeyRecord>, KeystoreError> {
        self.remembered(
            |known| known.access_keys.get(id).cloned(),
            |reader| AccessKeyRecord::find(reader, id).map(Arc::new),
            |known, record| drop(known.access_keys.insert(id.to_owned(), record)),
        )
    }
}

/// A name without a slash: those with one belong to the users of this machine.
fn check_user(name: &str) -> Result<(), KeystoreError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
    if (1..=64).contains(&name.len()) && name.chars().all(allowed) {
        return Ok(());
    }
    Err(KeystoreError::Validation(
        "a user name has 1 to 64 of a-z A-Z 0-9 _ + = , . @ -".to_owned(),
    ))
}

/// True for an id of the form that keystores give out, whether or not there is, or was, such a key.
pub fn is_access_key_id(id: &str) -> bool {
    let letters = id.strip_prefix(PREFIX).map(str::as_bytes);
    letters.is_some_and(|rest| rest.len() == 16 && rest.iter().all(|byte| BASE32.contains(byte)))
}

/// `AKIA` and 16 of `A-Z 2-7`: five random bits each.
fn new_id() -> Result<String, KeystoreError> {
    let letter = |byte: &u8| char::from(BASE32[usize::from(byte % 32)]);
    Ok(PREFIX.chars().chain(random::id16()?.iter().map(letter)).collect())
}

/// 30 random bytes in base64.
fn new_secret() -> Result<Zeroizing<String>, KeystoreError> {
    let bytes = Secret::<30>::random()?;
    Ok(Zeroizing::new(Base64::encode_string(bytes.expose())))
}

const PREFIX: &str = "AKIA";

const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

const NOTE_EVERY: Duration = Duration::from_secs(60 * 60);

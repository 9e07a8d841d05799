//! CreateKey, DescribeKey, ListKeys, EnableKey, DisableKey, descriptions and tags.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use zeroize::Zeroizing;

use crate::crypto::random;
use crate::id::KeyId;
use crate::keystore::access::lockout::{self, LockoutCheck};
use crate::keystore::access::request::RequestContext;
use crate::keystore::access::rules::Subject;
use crate::keystore::access::{self};
use crate::keystore::custom_store::token_key::TokenKey;
use crate::keystore::engine::Keystore;
use crate::keystore::error::{KeystoreError, Quota};
use crate::keystore::model::action::Action;
use crate::keystore::model::id::{AliasName, KeyRef};
use crate::keystore::model::key_store::KeyStoreId;
use crate::keystore::model::region::DEFAULT_REGION;
use crate::keystore::model::spec::{KeySpec, KeyUsage, Origin};
use crate::keystore::model::state::KeyState;
use crate::keystore::model::time::UnixTime;
use crate::keystore::policy::Fact;
use crate::keystore::records::alias::AliasRecord;
use crate::keystore::records::key::{KeyMetadata, KeyRecord, Operation, key_id};
use crate::keystore::records::material::{self, MaterialOrigin};
use crate::keystore::records::regions::Regions;
use crate::keystore::records::transfer;
use crate::keystore::storage::rows::Table;
use crate::keystore::storage::sealed::{Reader, Writer};

/// What CreateKey is told. The default is a symmetric key without description and tags.
#[derive(Debug, Clone, Default)]
pub struct CreateKey {
    /// The kind of its material; symmetric if none is named.
    pub spec: Option<KeySpec>,
    /// What it is for. Only a symmetric key may leave it out.
    pub usage: Option<KeyUsage>,
    /// Where its material comes from; from this keystore if nothing else is said.
    pub origin: Option<Origin>,
    /// The key store whose token shall make and keep the material.
    pub key_store: Option<KeyStoreId>,
    /// May it be replicated to other keystores?
    pub multi_region: bool,
    /// Free text, at most 8192 characters.
    pub description: String,
    /// At most 50 tags.
    pub tags: BTreeMap<String, String>,
    /// Its key policy; the default one if none is given.
    pub policy: Option<String>,
    /// May the policy take from the caller the right to change it?
    pub lockout: LockoutCheck,
}

impl CreateKey {
    /// What policies may ask about the request.
    fn request_context(&self) -> RequestContext<'_> {
        let (spec, usage) =
            kind(self).unwrap_or((KeySpec::SymmetricDefault, KeyUsage::EncryptDecrypt));
        let request_context = self.lockout.request_context().with(Fact::KeySpec, spec.as_str());
        let request_context = request_context.with(Fact::KeyUsage, usage.as_str());
        let of_store = self.key_store.is_some();
        let usual = if of_store { Origin::AwsCloudHsm } else { Origin::AwsKms };
        let origin = self.origin.unwrap_or(usual);
        let request_context =
            request_context.with(Fact::MultiRegion, self.multi_region.to_string());
        let kind = self.multi_region.then_some("PRIMARY");
        let request_context = request_context.with_any(Fact::MultiRegionKeyType, kind);
        RequestContext {
            tags: Some(&self.tags),
            ..request_context.with(Fact::KeyOrigin, origin.as_str())
        }
    }
}

impl Keystore {
    /// Makes a key with its first material, enabled; one whose material is to be imported waits
    /// for it.
    /// Errors: `Validation`, `Tag`, `LimitExceeded`, `UnsupportedOperation`.
    pub fn create_key(
        &self,
        request: CreateKey,
        now: SystemTime,
    ) -> Result<KeyMetadata, KeystoreError> {
        check_description(&request.description)?;
        check_tags(&request.tags)?;
        let (spec, _) = kind(&request)?;
        let made = self.operate(Action::CreateKey, None, |details| {
            let wanted = request.clone();
            let request_context = wanted.request_context();
            let authorise = |reader: &Reader<'_>| {
                access::authorise(
                    reader,
                    self.subject(),
                    Action::CreateKey,
                    None,
                    request_context.clone(),
                )?;
                may_tag(reader, self.subject(), None, &wanted.tags)
            };
            self.read(authorise)?;
            self.stop_if_dry()?;
            // Outside of the transaction: an RSA key, and a token, take their time.
            let mut first = match checked_store(&request)? {
                Some(store) => First::OnToken(self.make_on_token(store)?),
                None if request.origin == Some(Origin::External) => First::Imported,
                None => First::Bytes(material::fresh(spec)?),
            };
            let made = self.write(|writer| {
                authorise(writer)?;
                create(writer, self.subject(), request, &first, now.into())
            })?;
            if let First::OnToken(key) = &mut first {
                key.keep();
            }
            details.key = Some(made.key_id);
            Ok(made)
        })?;
        log::info!("created key {}", made.key_id);
        Ok(made)
    }

    /// The key that `alias/kmsfs/default` names. Made, with its alias, if there is none.
    pub fn ensure_default_key(&self, now: SystemTime) -> Result<KeyId, KeystoreError> {
        let alias = AliasName::default_key();
        match self.resolve(&KeyRef::Alias(alias.clone())) {
            Err(KeystoreError::AliasNotFound(_)) => {}
            found => return found,
        }
        self.operate(Action::CreateKey, None, |details| {
            let key = self.write(|writer| {
                // Another process may have made it since.
                if let Ok(key) = AliasRecord::target(writer, &alias) {
                    return Ok(key);
                }
                let description = "default key of kmsfs volumes".to_owned();
                let request = CreateKey { description, ..CreateKey::default() };
                let first = First::Bytes(material::fresh(KeySpec::SymmetricDefault)?);
                let key = create(writer, self.subject(), request, &first, now.into())?.key_id;
                AliasRecord::create(writer, &alias, key, now.into())?;
                Ok(key)
            })?;
            details.key = Some(key);
            details.detail = Some(alias.to_string());
            Ok(key)
        })
    }

    /// Everything about a key but its material, tags and aliases.
    /// Errors: `KeyNotFound`, `AliasNotFound`.
    pub fn describe_key(&self, key: &KeyRef) -> Result<KeyMetadata, KeystoreError> {
        let now = self.caller().time().into();
        let mut shown = self.view(Action::DescribeKey, key, |_, key, mut record| {
            // Imported material ends on time, before it is deleted.
            record.state = record.state_at(now);
            Ok(record.metadata(key))
        })?;
        self.complete(&mut shown)?;
        Ok(shown)
    }

    /// All keys, oldest first.
    pub fn list_keys(&self) -> Result<Vec<KeyMetadata>, KeystoreError> {
        let mut keys = self.view_all(Action::ListKeys, |reader| {
            let stored = reader.all::<KeyRecord>()?.into_iter();
            stored
                .map(|key| Ok(key.record.metadata(key_id(&key.id)?)))
                .collect::<Result<Vec<_>, _>>()
        })?;
        keys.sort_by_key(|key| (key.creation_date, key.key_id));
        keys.iter_mut().try_for_each(|key| self.complete(key))?;
        Ok(keys)
    }

    /// What only the connection of a key store knows.
    fn complete(&self, shown: &mut KeyMetadata) -> Result<(), KeystoreError> {
        if shown.custom_key_store_id.is_some() {
            let live = self.live(shown.key_id)?;
            shown.key_state = live.state(self.caller().time().into());
            shown.enabled = shown.key_state == KeyState::Enabled;
            shown.cloud_hsm_cluster_id = live.link.as_ref().map(|link| link.token_name());
            self.note_refused_pins();
        }
        Ok(())
    }

    /// Makes a disabled key usable again. Of an enabled key: nothing.
    /// Errors: `KeyNotFound`, `InvalidState`.
    pub fn enable_key(&self, key: &KeyRef) -> Result<(), KeystoreError> {
        self.toggle(Action::EnableKey, key, KeyState::Enabled)
    }

    /// Makes a key unusable until it is enabled again. Of a disabled key: nothing.
    /// Errors: `KeyNotFound`, `InvalidState`.
    pub fn disable_key(&self, key: &KeyRef) -> Result<(), KeystoreError> {
        self.toggle(Action::DisableKey, key, KeyState::Disabled)
    }

    /// Replaces a key's description.
    /// Errors: `KeyNotFound`, `InvalidState`, `Validation`.
    pub fn update_key_description(
        &self,
        key: &KeyRef,
        description: &str,
    ) -> Result<(), KeystoreError> {
        check_description(description)?;
        self.edit(Action::UpdateKeyDescription, key, Operation::Metadata, |_, _, record| {
            description.clone_into(&mut record.description);
            Ok(())
        })
    }

    /// Adds tags to a key, replacing those with the same keys.
    /// Errors: `KeyNotFound`, `InvalidState`, `Tag`.
    pub fn tag_resource(
        &self,
        key: &KeyRef,
        tags: BTreeMap<String, String>,
    ) -> Result<(), KeystoreError> {
        let request_context = RequestContext { tags: Some(&tags), ..RequestContext::default() };
        let action = Action::TagResource;
        self.edit_with(action, key, Operation::Metadata, request_context, |_, _, record| {
            record.tags.extend(tags.clone());
            check_tags(&record.tags)
        })
    }

    /// Takes tags from a key. Those it does not have are ignored.
    /// Errors: `KeyNotFound`, `InvalidState`.
    pub fn untag_resource(&self, key: &KeyRef, tag_keys: &[&str]) -> Result<(), KeystoreError> {
        let request_context =
            RequestContext { untagged: Some(tag_keys), ..RequestContext::default() };
        let action = Action::UntagResource;
        self.edit_with(action, key, Operation::Metadata, request_context, |_, _, record| {
            record.tags.retain(|tag, _| !tag_keys.contains(&tag.as_str()));
            Ok(())
        })
    }

    /// A key's tags.
    /// Errors: `KeyNotFound`, `AliasNotFound`.
    pub fn list_resource_tags(
        &self,
        key: &KeyRef,
    ) -> Result<BTreeMap<String, String>, KeystoreError> {
        self.view(Action::ListResourceTags, key, |_, _, record| Ok(record.tags))
    }

    fn toggle(&self, action: Action, key: &KeyRef, state: KeyState) -> Result<(), KeystoreError> {
        let key = self.edit(action, key, Operation::Toggle, |_, key, record| {
            record.state = state;
            Ok(key)
        })?;
        log::info!("key {key} is now {}", state.in_words());
        Ok(())
    }
}

/// Who makes a key with tags has to be allowed to tag it, as in AWS; so has who replicates one.
/// Errors: `AccessDenied`.
pub(in crate::keystore) fn may_tag(
    reader: &Reader<'_>,
    subject: Subject<'_>,
    key: Option<(KeyId, &KeyRecord)>,
    tags: &BTreeMap<String, String>,
) -> Result<(), KeystoreError> {
    if tags.is_empty() {
        return Ok(());
    }
    let request_context = RequestContext { tags: Some(tags), ..RequestContext::default() };
    access::authorise(reader, subject, Action::TagResource, key, request_context)
}

/// The first material of a key.
enum First {
    /// These bytes, kept here.
    Bytes(Zeroizing<Vec<u8>>),
    /// To come from outside.
    Imported,
    /// On a token.
    OnToken(TokenKey),
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

/// Is there room for another key?
/// Errors: `LimitExceeded`.
pub(in crate::keystore) fn check_quota(reader: &Reader<'_>) -> Result<(), KeystoreError> {
    let quota = Quota::Keys;
    if reader.rows().count(Table::Key)? >= quota.limit() {
        return Err(KeystoreError::LimitExceeded(quota));
    }
    Ok(())
}

fn create(
    writer: &mut Writer<'_>,
    subject: Subject<'_>,
    request: CreateKey,
    first: &First,
    now: UnixTime,
) -> Result<KeyMetadata, KeystoreError> {
    check_quota(writer)?;
    let (spec, usage) = kind(&request)?;
    let region = writer.meta.region.clone().unwrap_or_else(|| DEFAULT_REGION.to_owned());
    let id = random::id16()?;
    let key = if request.multi_region { KeyId::multi_region(id) } else { KeyId::single_region(id) };
    let mut record = KeyRecord {
        state: KeyState::Enabled,
        usage,
        spec,
        origin: request.origin.unwrap_or(Origin::AwsKms),
        description: request.description,
        created: now,
        current: crate::id::MaterialId::from_bytes([0; 16]),
        tags: request.tags,
        deletion: None,
        rotation: None,
        on_demand_rotations: 0,
        key_store: None,
        made_on: None,
        policy: None,
        valid_to: None,
        expiry: None,
        regions: request
            .multi_region
            .then(|| Regions::primary_in(region, transfer::identity(writer.root()))),
        programs: BTreeSet::new(),
        shared: BTreeSet::new(),
    };
    if let Some(policy) = &request.policy {
        lockout::set(writer, subject, key, &mut record, policy, request.lockout)?;
    }
    // The key's row first: the others refer to it.
    record.save(writer, key)?;
    material::create_wrapping(writer, key)?;
    match first {
        First::Bytes(bytes) => {
            record.current = material::create(writer, key, bytes, MaterialOrigin::Created, now)?;
        }
        First::Imported => record.state = KeyState::PendingImport,
        First::OnToken(made) => {
            made.check(writer)?;
            record.origin = Origin::AwsCloudHsm;
            (record.current, record.key_store) = (made.material(), Some(made.store()));
            record.made_on = made.made_on().cloned();
        }
    }
    record.save(writer, key)?;
    Ok(record.metadata(key))
}

/// What kind of key is asked for, and for which use.
/// Errors: `Validation`, in AWS's words.
fn kind(request: &CreateKey) -> Result<(KeySpec, KeyUsage), KeystoreError> {
    let spec = request.spec.unwrap_or(KeySpec::SymmetricDefault);
    let usage = match (request.usage, spec.usages()) {
        (Some(usage), _) => usage,
        (None, [only]) if spec == KeySpec::SymmetricDefault => *only,
        (None, _) => {
            return Err(KeystoreError::Validation(format!(
                "You must specify a KeyUsage value for all KMS keys except for symmetric encryption \
                 keys; {spec} keys take one of: {}",
                spec.usages().iter().map(|usage| usage.as_str()).collect::<Vec<_>>().join(", ")
            )));
        }
    };
    if spec.usages().contains(&usage) {
        Ok((spec, usage))
    } else {
        let problem = format!("KeyUsage {usage} is not compatible with KeySpec {spec}");
        Err(KeystoreError::Validation(problem))
    }
}

/// Errors: `Validation`.
pub(in crate::keystore) fn check_description(description: &str) -> Result<(), KeystoreError> {
    const MAX: usize = 8192;
    let len = description.chars().count();
    if len <= MAX {
        Ok(())
    } else {
        Err(KeystoreError::Validation(format!("a description has {MAX} characters, not {len}")))
    }
}

/// Source: AWS KMS quotas and "Tag naming limits".
/// Errors: `Tag`.
pub(in crate::keystore) fn check_tags(
    tags: &BTreeMap<String, String>,
) -> Result<(), KeystoreError> {
    const MAX: usize = 50;
    let problem = |what: String| Err(KeystoreError::Tag(what));
    if tags.len() > MAX {
        return problem(format!("a key has at most {MAX} tags, not {}", tags.len()));
    }
    for (key, value) in tags {
        if key.is_empty() || key.chars().count() > 128 {
            return problem("a tag key has 1 to 128 characters".to_owned());
        }
        if key.to_ascii_lowercase().starts_with("aws:") {
            return problem(format!("the tag key '{key}' is reserved: it starts with 'aws:'"));
        }
        if value.chars().count() > 256 {
            return problem(format!("the value of tag '{key}' has more than 256 characters"));
        }
    }
    Ok(())
}

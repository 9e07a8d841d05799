//! Rank 1: the embedded KMS.
//!
//! [`Keystore`] is a handle that acts for one [`Caller`]. It has one method per KMS verb, spelled
//! as in the AWS API (`ops`); each asks whether the caller may (`access`), checks the key's state,
//! acts, is durable before it returns, and is written down (`engine::frame`). Time is always an
//! argument. Imports of the crate: [`crate::crypto`] and [`crate::id`] only.
//!
//! Imports go down this list, and those of one line do not see each other: `model`, `token`;
//! `policy`; `error`; `storage`; `records`; `audit`, `unlock`, `custom_store`; `access`; `engine`;
//! `ops`. `tests/layering.rs` refuses everything else. Nothing below `engine` knows [`Keystore`].
//!
//! **Keys protect keys**: an unlock slot (passphrase, key file, credential) seals the root key;
//! the root key seals one wrapping key per KMS key; that seals the key's materials; a material
//! wraps data keys. Invariants:
//!
//! - In the file, everything but random ids and unlock parameters is sealed, and authenticated
//!   together with its place; the set of rows is authenticated as a whole (`storage::sealed`).
//! - What a deleted row held is overwritten in the file and gone from the WAL (`storage::rows`).
//! - Wrapping and unwrapping work from memory. A change by this process is felt at once, one by
//!   another process after [`Keystore::poll_changes`], and within milliseconds by whatever wraps: a
//!   rotation returns when nobody wraps under the old material any more.
//! - Locks: the store's mutex first, then the cache's lock, and never a call out of this module
//!   under either. A process that forks must open its keystore afterwards.

mod access;
pub mod audit;
mod custom_store;
mod engine;
mod error;
mod model;
mod ops;
pub mod policy;
mod records;
mod storage;
mod token;
mod unlock;

pub use access::decision::Decision;
pub use access::lockout::LockoutCheck;
pub use access::table::{SuppliedKey, is_about_a_key, supplied_keys};
pub use engine::Keystore;
pub use error::access::AccessError;
pub use error::custom_store::KeyStoreError;
pub use error::replica::ReplicaError;
pub use error::{ExportProblem, InUse, KeyFileProblem, KeystoreError, Quota, SecondName};
pub use model::action::Action;
pub use model::blob::{BLOB_OVERHEAD, CiphertextBlob, MAX_PLAINTEXT};
pub use model::caller::{
    ACCOUNT, Caller, Principal, Source, UNKNOWN_PROCESS, ViaService, group_arn,
};
pub use model::context;
pub use model::context::EncryptionContext;
pub use model::id::{AliasName, GrantId, KeyArn, KeyRef};
pub use model::key_store::ConnectionErrorCode;
pub use model::key_store::ConnectionState;
pub use model::key_store::KeyStoreId;
pub use model::plaintext::Plaintext;
pub use model::region::DEFAULT_REGION;
pub use model::slot::SlotId;
pub use model::slot::SlotKind;
pub use model::spec::{
    EncryptionAlgorithm, ExpirationModel, GrantOperation, ImportState, ImportType, KeySpec,
    KeyUsage, MacAlgorithm, MessageType, Origin, SigningAlgorithm, UnknownName, WrappingAlgorithm,
    WrappingKeySpec,
};
pub use model::state::KeyState;
pub use model::time::UnixTime;
pub use ops::access_keys::{AccessKeyLogin, CreateAccessKey, NewAccessKey, is_access_key_id};
pub use ops::crypto::asymmetric::{PublicKeyInfo, SharedSecret, Signed};
pub use ops::crypto::data_key::{DataKey, RandomDataKey};
pub use ops::crypto::data_key_pair::DataKeyPair;
pub use ops::crypto::encrypt::{Decrypted, Encrypted};
pub use ops::crypto::mac::Mac;
pub use ops::crypto::re_encrypt::{ReEncryptDestination, ReEncryptSource, ReEncrypted};
pub use ops::custom_key_stores::{CreateKeyStore, UpdateKeyStore};
pub use ops::grants::{CreateGrant, CreatedGrant, GrantEntry, GrantFilter};
pub use ops::keys::deletion::{ClockTrust, Expired, ReferenceReport, ScheduledDeletion};
pub use ops::keys::import::{ImportRequest, ImportedMaterial};
pub use ops::keys::manage::CreateKey;
pub use ops::keys::rotation::{MaterialState, Rotation, RotationStatus};
pub use ops::replicas::receive::{Received, Trust};
pub use ops::replicas::send::{ReplicaPolicy, ReplicaProperties};
pub use ops::verify::{RepairReport, VerifyReport};
pub use policy::{DEFAULT_POLICY_NAME, default_key_policy};
pub use records::access_key::{AccessKeyEntry, AccessKeyStatus};
pub use records::alias::AliasEntry;
pub use records::grant::Constraints;
pub use records::import_key::ImportParameters;
pub use records::key::KeyMetadata;
pub use records::key_store::KeyStoreEntry;
pub use records::material::MaterialOrigin;
pub use records::principal::PrincipalEntry;
pub use records::regions::{MultiRegionConfiguration, RelatedKey};
pub use records::transfer::{Transfer, TransferKey, TransferKind};
pub use records::volume::{
    AnchoredDirPolicy, AnchoredPlace, KnownVolume, VolumeAnchor, VolumeNeed, VolumeScan,
};
pub use storage::lease::LeasedDir;
pub use token::{Pin, TokenError, TokenRef};
pub use unlock::slot::{SlotInfo, TokenSlot};
pub use unlock::{CREDENTIAL, PIN_CREDENTIAL, Unlock, create_key_file};

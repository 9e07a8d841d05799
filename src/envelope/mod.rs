//! Rank 1: the on-disk format as bytes in, bytes out.
//!
//! Nothing here opens a file, asks a KMS or reads a clock. `docs/FORMAT.md` holds every byte table;
//! the code cites its sections.

mod counted;
mod directory;
mod error;
mod file_keys;
mod header;
pub mod layout;
mod link;
mod name;
mod places;
mod recipient;
mod record;
mod session;
mod spill;
mod state;
mod times;
mod undo;
mod unit;
mod volume;
mod xattr;

pub use counted::Counted;
pub use directory::{
    CrossMode, DIR_FILE, DIR_XATTR, DirDescriptor, DirKeys, META_DIR, TEMP_PREFIX, may_be_encoded,
};
pub use error::EnvelopeError;
pub use file_keys::FileKeys;
pub use header::{FileHeader, HeaderFlags, Seal, UnverifiedHeader};
pub use link::{LINK_TEXT_MAX, LongLink, TARGET_MAX, link_target_len};
pub use name::{
    EncodedName, FOREIGN_PREFIX, ForeignName, LONG_PREFIX, NAME_MAX, SIDECAR_SUFFIX, foreign_name,
    is_hidden, is_name, is_sidecar,
};
pub use places::{DirPlace, Places};
pub use recipient::{OPAQUE_MAX, Opaque, Recipient, Recipients, WRAPPED_LEN, Wrapped};
pub use record::RECORD_LEN;
pub use session::{Intents, SessionWord};
pub use spill::{Entry, EntryState, SpillPage};
pub use state::{Cursor, STATE_SLOT, StateRecord, UNRECOVERED, Unrecovered, WAITING, WORDS};
pub use times::{Kept, ShownTime, TimesKey};
pub use undo::{UNDO_HEADER, UndoRecord};
pub use unit::{
    Nonces, Opened, SEALED_UNIT_HEADER, UnitCipher, UnitKind, UnitPlace, binding_of, claimed_length,
};
pub use volume::{UnverifiedVolume, VolumeDescriptor, VolumeFeatures, VolumeKeys};
pub use xattr::{XATTR_PREFIX, XattrKeys};

/// The format number that this code reads and writes.
pub const FORMAT: u16 = 1;
/// Suite 1: XAES-256-GCM units and wraps, HKDF-SHA-256, HMAC-SHA-256, AES-256-SIV names.
pub const SUITE: u16 = 1;
/// Header slots in page 0 of a file.
pub const HEADER_SLOTS: usize = 2;

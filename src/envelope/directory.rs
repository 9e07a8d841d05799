//! Directories: the descriptor, encrypted names and symbolic links (FORMAT section 7).

use base64ct::{Base64UrlUnpadded, Encoding};

use super::EnvelopeError;
use super::name::{EncodedName, LONG_PREFIX, NAME_MAX, SIDECAR_SUFFIX, is_name};
use super::places::{DirPlace, Places};
use super::recipient::Recipient;
use super::record::{RECORD_LEN, RecordReader, RecordWriter, verify_mac};
use super::xattr::XattrKeys;
use crate::crypto::hash::{Label, derive, sha256};
use crate::crypto::secret::Secret;
use crate::crypto::siv::SivKey;
use crate::id::{DirId, KeyId};

/// The file in every directory that holds its descriptor.
pub const DIR_FILE: &str = ".kmsfs.dir";
/// The extended attribute that mirrors it.
pub const DIR_XATTR: &str = "user.kmsfs.dir";
/// The directory in the root of the vault that holds what belongs to the volume as a whole.
pub const META_DIR: &str = ".kmsfs";
/// What temporary names start with; a mount removes what a crash left of them.
pub const TEMP_PREFIX: &str = ".kmsfs.tmp.";

const MAGIC: &[u8; 8] = b"KMSFSd1\0";
const WHAT: &str = "directory descriptor";
const LINK: &str = "symbolic link";
const NAME: &str = "name";
const FLAG_INHERITED: u8 = 1;
const MAX_PREVIOUS: usize = 3;
/// The format of a descriptor that says where its directory belongs; those before it have format 1.
const PLACED: u16 = 2;
/// Bytes that the previous keys and the recipient of such a descriptor have together.
const PLACED_ROOM: usize = 352;

/// What a rename or link into a directory of another key does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CrossMode {
    /// The header is re-wrapped for the directory's key.
    #[default]
    Rewrap,
    /// Refused with EXDEV, so that tools copy.
    Exdev,
    /// The file keeps its key.
    Keep,
}

/// What a directory says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirDescriptor {
    /// The directory's id, bound into every name in it.
    pub dir: DirId,
    /// Higher is newer.
    pub sequence: u64,
    /// The KMS key of new files.
    pub policy: KeyId,
    /// True if the policy came from the parent, so that a change there reaches this one too.
    pub inherited: bool,
    /// What happens to files that come from directories of another key.
    pub cross: CrossMode,
    /// Keys that files may still have while they move to `policy` (at most 3).
    pub previous: Vec<KeyId>,
    /// The directory key, wrapped.
    pub recipient: Recipient,
    /// Where the directory belongs; `None` in a descriptor from before places were written down.
    pub places: Option<Places>,
    /// Counts the changes of what it says of keys, so that an older policy is known as one.
    pub policy_sequence: u32,
}

impl DirDescriptor {
    /// The descriptor's bytes, for the file and for the attribute. *Shape*: the caller has asked
    /// [`Self::fits`].
    pub fn encode(&self, keys: &DirKeys) -> [u8; RECORD_LEN] {
        let flags = if self.inherited { FLAG_INHERITED } else { 0 };
        let cross = match self.cross {
            CrossMode::Rewrap => 0,
            CrossMode::Exdev => 1,
            CrossMode::Keep => 2,
        };
        let previous = &self.previous;
        let count = previous.len().min(MAX_PREVIOUS);
        let format = if self.places.is_some() { PLACED } else { super::FORMAT };
        let mut record = RecordWriter::of_format(MAGIC, format);
        record.put(&[flags, cross, u8::try_from(count).expect("at most three"), 0]);
        record.put(&self.sequence.to_le_bytes());
        record.put(self.dir.as_bytes());
        record.put(&keys.commitment);
        record.put(self.policy.as_bytes());
        if let Some(places) = &self.places {
            record.put(places.from.as_bytes());
            record.put(places.to.as_bytes());
            record.put(&self.policy_sequence.to_le_bytes());
        }
        // With places, only the previous keys that there are take room.
        let slots = if self.places.is_some() { count } else { MAX_PREVIOUS };
        for at in 0..slots {
            record.put(previous.get(at).map_or(&[0; 16], |key| key.as_bytes()));
        }
        record.put_recipient(&self.recipient);
        record.finish(&keys.mac)
    }

    /// True if the record has room for all of it: a long opaque wrap leaves less for previous keys.
    pub fn fits(&self) -> bool {
        self.previous.len() <= MAX_PREVIOUS
            && 16 * self.previous.len() + self.recipient.encoded_len() <= PLACED_ROOM
    }

    /// Reads a descriptor without any key: its claims, to be held against [`Self::verify`].
    ///
    /// # Errors
    /// `Malformed` for damage or foreign bytes, `Newer` for a later format.
    pub fn parse(bytes: &[u8; RECORD_LEN]) -> Result<Self, EnvelopeError> {
        let mut reader = RecordReader::up_to(PLACED, WHAT, MAGIC, bytes)?;
        let placed = reader.format() == PLACED;
        let [flags, cross, count, reserved] = reader.array()?;
        if placed && (flags & !FLAG_INHERITED != 0 || reserved != 0) {
            return Err(reader.newer());
        }
        let count = usize::from(count);
        let cross = match cross {
            0 => CrossMode::Rewrap,
            1 => CrossMode::Exdev,
            2 => CrossMode::Keep,
            _ => return Err(reader.malformed()),
        };
        let sequence = reader.u64()?;
        let dir = DirId::from_bytes(reader.array()?);
        let _commitment: [u8; 32] = reader.array()?;
        let policy = KeyId::from_bytes(reader.array()?);
        if dir.is_zero() || count > MAX_PREVIOUS {
            return Err(reader.malformed());
        }
        let (places, policy_sequence) = match placed {
            true => {
                let from = DirPlace::from_bytes(reader.array()?);
                let to = DirPlace::from_bytes(reader.array()?);
                (Some(Places { from, to }), reader.u32()?)
            }
            false => (None, 0),
        };
        let mut previous = Vec::new();
        for at in 0..if placed { count } else { MAX_PREVIOUS } {
            let key = KeyId::from_bytes(reader.array()?);
            if at < count {
                previous.push(key);
            }
        }
        let recipient = reader.recipient()?;
        let inherited = flags & FLAG_INHERITED != 0;
        Ok(Self {
            dir,
            sequence,
            policy,
            inherited,
            cross,
            previous,
            recipient,
            places,
            policy_sequence,
        })
    }

    /// True if the directory may be at `place`. One from before places may be anywhere.
    pub fn belongs_at(&self, place: DirPlace) -> bool {
        self.places.is_none_or(|places| places.include(place))
    }

    /// Holds the bytes that [`Self::parse`] read against the directory's keys.
    ///
    /// # Errors
    /// `NotAuthentic` when these keys did not make them.
    pub fn verify(bytes: &[u8; RECORD_LEN], keys: &DirKeys) -> Result<Self, EnvelopeError> {
        let descriptor = Self::parse(bytes)?;
        let committed = bytes.get(40..72) == Some(&keys.commitment[..]);
        if descriptor.dir != keys.dir || !committed {
            return Err(EnvelopeError::NotAuthentic(WHAT));
        }
        verify_mac(WHAT, bytes, &keys.mac)?;
        Ok(descriptor)
    }

    /// True if a file under `key` may be opened in this directory (R9).
    pub fn accepts(&self, key: KeyId) -> bool {
        self.policy == key || self.previous.contains(&key)
    }
}

/// True for a backing name that some directory may have made: what is not, is foreign for sure.
pub fn may_be_encoded(name: &[u8]) -> bool {
    const SYNTHETIC_IV: usize = 16;
    name.starts_with(LONG_PREFIX.as_bytes())
        || std::str::from_utf8(name)
            .ok()
            .and_then(|text| Base64UrlUnpadded::decode_vec(text).ok())
            .is_some_and(|sealed| sealed.len() > SYNTHETIC_IV)
}

/// The keys of one directory: for its names, its attributes and its descriptor.
pub struct DirKeys {
    dir: DirId,
    commitment: [u8; 32],
    mac: Secret<32>,
    names: SivKey,
    links: SivKey,
    xattrs: XattrKeys,
}

impl std::fmt::Debug for DirKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DirKeys").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl DirKeys {
    /// The keys that the directory key gives for `dir`.
    pub fn new(dir: DirId, key: &Secret<32>) -> Self {
        let salt = dir.as_bytes();
        Self {
            dir,
            commitment: *derive::<32>(key, salt, Label::DirCommit).expose(),
            mac: derive(key, salt, Label::DirDescriptor),
            names: SivKey::new(&derive(key, salt, Label::DirName)),
            links: SivKey::new(&derive(key, salt, Label::DirLink)),
            xattrs: XattrKeys::new(
                *salt,
                derive(key, salt, Label::DirXattrName),
                derive(key, salt, Label::DirXattrValue),
            ),
        }
    }

    /// The keys for the directory's own extended attributes.
    pub fn xattrs(&self) -> &XattrKeys {
        &self.xattrs
    }

    /// The backing form of `name`.
    pub fn encode_name(&self, name: &[u8]) -> EncodedName {
        let sealed = self.names.seal(&[self.dir.as_bytes(), b"name"], name);
        let contents = Base64UrlUnpadded::encode_string(&sealed);
        if contents.len() <= NAME_MAX {
            return EncodedName::Inline(contents);
        }
        let hash = Base64UrlUnpadded::encode_string(&sha256(&[contents.as_bytes()]));
        let entry = format!("{LONG_PREFIX}{hash}");
        EncodedName::Long { sidecar: format!("{entry}{SIDECAR_SUFFIX}"), entry, contents }
    }

    /// The name that the encrypted text (an inline name, or a sidecar's contents) stands for.
    ///
    /// # Errors
    /// `NotAuthentic` for text that this directory did not make.
    pub fn decode_name(&self, text: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
        self.decode(&self.names, b"name", NAME, text)
    }

    /// The name that an entry of the directory stands for; `sidecar` reads the text of a long one.
    /// `None` for a foreign entry.
    pub fn name_of(
        &self,
        entry: &[u8],
        sidecar: impl FnOnce() -> Option<Vec<u8>>,
    ) -> Option<Vec<u8>> {
        let name = if entry.starts_with(LONG_PREFIX.as_bytes()) {
            self.decode_name(&sidecar()?).ok()?
        } else {
            self.decode_name(entry).ok()?
        };
        // The sidecar must be this entry's own, and nobody can have made a name like these.
        let made = is_name(&name) && self.encode_name(&name).entry().as_bytes() == entry;
        made.then_some(name)
    }

    /// The backing form of a symbolic link's target.
    pub fn encode_link(&self, target: &[u8]) -> String {
        Base64UrlUnpadded::encode_string(&self.links.seal(&[self.dir.as_bytes(), b"link"], target))
    }

    /// The target that the backing form stands for.
    ///
    /// # Errors
    /// `NotAuthentic` for text that was not made with these keys.
    pub fn decode_link(&self, text: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
        self.decode(&self.links, b"link", LINK, text)
    }

    fn decode(
        &self,
        key: &SivKey,
        purpose: &[u8],
        what: &'static str,
        text: &[u8],
    ) -> Result<Vec<u8>, EnvelopeError> {
        let bad = EnvelopeError::NotAuthentic(what);
        let text = std::str::from_utf8(text).map_err(|_| bad)?;
        let sealed = Base64UrlUnpadded::decode_vec(text).map_err(|_| bad)?;
        key.open(&[self.dir.as_bytes(), purpose], &sealed).map_err(|_| bad)
    }
}

//! The header slot of a file (FORMAT section 3.1).

use super::EnvelopeError;
use super::file_keys::FileKeys;
use super::recipient::{MAX_RECIPIENTS, Recipients};
use super::record::{RECORD_LEN, RecordReader, RecordWriter, verify_mac};
use super::session::SessionWord;
use crate::id::FileId;

const MAGIC: &[u8; 8] = b"KMSFSv1\0";
const WHAT: &str = "file header";
const LAYOUT_STANDARD: u8 = 1;
const FLAG_SPARSE: u16 = 1;
const FLAG_XATTRS: u16 = 2;
const FLAG_OPEN: u16 = 4;

/// What the header says of the whole file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeaderFlags {
    /// Pages may be holes. In a file without it an all-zero page is an integrity error.
    pub sparse: bool,
    /// The file has (or had) encrypted extended attributes, so its key outlives a truncation to 0.
    pub xattrs: bool,
    /// The session that the seal names made the file and has not sealed it since: if that session
    /// ends in a crash, the file may be as the crash left it.
    pub open: bool,
}

/// A lower bound of the file's size that was durable when it was written (R7).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seal {
    /// Plaintext bytes that were durable.
    pub size: u64,
    /// The session that wrote the seal.
    pub session: SessionWord,
    /// The backing file's mtime then, in nanoseconds since 1970: another one means written since.
    pub mtime: i64,
}

/// One slot's contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileHeader {
    /// The file's id: new with every new file key.
    pub file: FileId,
    /// Higher is newer.
    pub sequence: u64,
    /// Properties of the whole file.
    pub flags: HeaderFlags,
    /// What is known to have been durable.
    pub seal: Seal,
    /// The file key, wrapped.
    pub recipients: Recipients,
}

impl FileHeader {
    /// The bytes of a slot.
    pub fn encode(&self, keys: &FileKeys) -> [u8; RECORD_LEN] {
        let mut flags = 0;
        if self.flags.sparse {
            flags |= FLAG_SPARSE;
        }
        if self.flags.xattrs {
            flags |= FLAG_XATTRS;
        }
        if self.flags.open {
            flags |= FLAG_OPEN;
        }
        let mut record = RecordWriter::new(MAGIC);
        record.put(&[LAYOUT_STANDARD, self.recipients.count()]);
        record.put(&u16::to_le_bytes(flags));
        record.put(&self.sequence.to_le_bytes());
        record.put(self.file.as_bytes());
        record.put(keys.commitment());
        record.put(&self.seal.size.to_le_bytes());
        record.put(&self.seal.session.bits().to_le_bytes());
        record.put(&self.seal.mtime.to_le_bytes());
        for recipient in self.recipients.iter() {
            record.put_recipient(recipient);
        }
        record.finish(keys.header_mac())
    }
}

/// A slot whose form and CRC are right; nobody has vouched for its contents yet.
#[derive(Debug, Clone)]
pub struct UnverifiedHeader {
    bytes: [u8; RECORD_LEN],
    commitment: [u8; 32],
    header: FileHeader,
}

impl UnverifiedHeader {
    /// Reads a slot without any key.
    ///
    /// # Errors
    /// `Malformed` for damage or foreign bytes, `Newer` for a later format.
    pub fn parse(bytes: &[u8; RECORD_LEN]) -> Result<Self, EnvelopeError> {
        let mut reader = RecordReader::new(WHAT, MAGIC, bytes)?;
        let (layout, count) = (reader.u8()?, usize::from(reader.u8()?));
        let flags = reader.u16()?;
        if layout != LAYOUT_STANDARD || flags & !(FLAG_SPARSE | FLAG_XATTRS | FLAG_OPEN) != 0 {
            return Err(EnvelopeError::Newer(WHAT));
        }
        let sequence = reader.u64()?;
        let file = FileId::from_bytes(reader.array()?);
        let commitment = reader.array()?;
        let (size, session) = (reader.u64()?, SessionWord::from_bits(reader.i64()?));
        let seal = Seal { size, session, mtime: reader.i64()? };
        if file.is_zero() || !(1..=MAX_RECIPIENTS).contains(&count) {
            return Err(reader.malformed());
        }
        let recipients = (0..count).map(|_| reader.recipient()).collect::<Result<_, _>>()?;
        let recipients = Recipients::new(recipients).map_err(|_| reader.malformed())?;
        let flags = HeaderFlags {
            sparse: flags & FLAG_SPARSE != 0,
            xattrs: flags & FLAG_XATTRS != 0,
            open: flags & FLAG_OPEN != 0,
        };
        let header = FileHeader { file, sequence, flags, seal, recipients };
        Ok(Self { bytes: *bytes, commitment, header })
    }

    /// What the slot claims: good for choosing a key and for reports, not for trust.
    pub fn claims(&self) -> &FileHeader {
        &self.header
    }

    /// The header, if `keys` made it.
    ///
    /// # Errors
    /// `NotAuthentic` when the commitment or the MAC is not that of these keys.
    pub fn verify(&self, keys: &FileKeys) -> Result<FileHeader, EnvelopeError> {
        // The commitment is public in the header, so comparing it reveals nothing.
        if keys.file() != self.header.file || self.commitment != *keys.commitment() {
            return Err(EnvelopeError::NotAuthentic(WHAT));
        }
        verify_mac(WHAT, &self.bytes, keys.header_mac())?;
        Ok(self.header.clone())
    }
}

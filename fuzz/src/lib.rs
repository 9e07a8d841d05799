//! What the fuzz targets share: fixed keys, records sealed with them, and a bound on memory.
//!
//! The fuzzer plays whoever writes to the vault. What it makes is tried as it stands, and must not
//! be believed; then with a good CRC, so that it gets to the parsers; then sealed with the right key,
//! to get past the MAC too. The bytes of FORMAT are written down here once more, so that a target
//! does not ask the code that it tests.

mod memory;
pub mod sparse;

use kmsfs::crypto::hash::hmac_sha256;
use kmsfs::crypto::secret::Secret;
use kmsfs::envelope::RECORD_LEN;

pub use memory::within;

/// Bytes of a record that its MAC covers.
const SIGNED: usize = RECORD_LEN - 4 - 32;
/// Where the id of a file, directory or volume stands, and the commitment behind it.
pub const ID_AT: usize = 24;
const COMMITMENT_AT: usize = 40;

/// The key that everything of the owner's is made with.
pub fn key() -> Secret<32> {
    Secret::filled(|key| key.fill(5))
}

/// The key of somebody else.
pub fn other_key() -> Secret<32> {
    Secret::filled(|key| key.fill(6))
}

/// A record out of the fuzzer's bytes.
pub fn record(input: &[u8]) -> [u8; RECORD_LEN] {
    let mut record = [0; RECORD_LEN];
    record.iter_mut().zip(input).for_each(|(to, from)| *to = *from);
    record
}

/// The same with a good CRC.
pub fn with_crc(mut record: [u8; RECORD_LEN]) -> [u8; RECORD_LEN] {
    let crc = crc32fast::hash(&record[..RECORD_LEN - 4]);
    record[RECORD_LEN - 4..].copy_from_slice(&crc.to_le_bytes());
    record
}

/// The same with magic, commitment, MAC and CRC as the owner of the keys would make them.
pub fn sealed(
    mut record: [u8; RECORD_LEN],
    magic: &[u8; 8],
    commitment: &[u8; 32],
    mac_key: &Secret<32>,
) -> [u8; RECORD_LEN] {
    record[..8].copy_from_slice(magic);
    record[COMMITMENT_AT..COMMITMENT_AT + 32].copy_from_slice(commitment);
    let mac = hmac_sha256(mac_key, &[&record[..SIGNED]]);
    record[SIGNED..SIGNED + 32].copy_from_slice(&mac);
    with_crc(record)
}

/// The id in a record.
pub fn id(record: &[u8; RECORD_LEN]) -> [u8; 16] {
    let mut id = [0; 16];
    id.copy_from_slice(&record[ID_AT..ID_AT + 16]);
    id
}

/// Text with one character changed, or `None` if the input puts there what is there.
pub fn one_byte_off(text: &[u8], input: &[u8]) -> Option<Vec<u8>> {
    let (byte, rest) = input.split_last()?;
    let mut changed = text.to_vec();
    // At the end as often as elsewhere: the last character of base64 text has bits to spare.
    let at = rest.last().map_or(0, |at| usize::from(at / 2) * usize::from(at % 2));
    *changed.iter_mut().rev().nth(at % text.len().max(1))? = *byte;
    (changed != text).then_some(changed)
}

/// A record with one bit changed, and a good CRC again. The input says which bit.
pub fn one_bit_off(mut record: [u8; RECORD_LEN], input: &[u8]) -> [u8; RECORD_LEN] {
    let bit = input.iter().fold(0_usize, |sum, byte| sum.wrapping_mul(31) + usize::from(*byte));
    let bit = bit % (8 * (RECORD_LEN - 4));
    record[bit / 8] ^= 1 << (bit % 8);
    with_crc(record)
}

//! What a file says of itself on the disk: without a key, and without opening it here.

use std::os::fd::AsFd;

use rustix::fs::Stat;
use rustix::io::pread;

use crate::envelope::layout::{PAGE, PAGE_LEN, PageNo, plain_size};
use crate::envelope::{FileHeader, HEADER_SLOTS, RECORD_LEN, UnverifiedHeader, claimed_length};
use crate::volume::model::error::Result;

/// The header slots of a file that can be read without a key; none for an empty file.
pub(in crate::volume) fn read_slots(fd: impl AsFd) -> Result<Vec<FileHeader>> {
    let mut area = [0; HEADER_SLOTS * RECORD_LEN];
    let got = pread(fd, &mut area, 0)?;
    let area = area.get(..got).unwrap_or_default();
    let slots = area.chunks_exact(RECORD_LEN).filter_map(|slot| {
        UnverifiedHeader::parse(slot.try_into().ok()?).ok().map(|slot| slot.claims().clone())
    });
    Ok(slots.collect())
}

/// True if the length of the file is not the one that its only page claims. Such a file is never
/// announced, and no time says when that came about: clocks are set, and vaults are copied.
pub(in crate::volume) fn has_odd_size(stat: &Stat, page: &[u8; PAGE_LEN]) -> bool {
    let Ok(length) = u64::try_from(stat.st_size) else { return false };
    length / PAGE == 1 && claimed_length(PageNo(0), page) as u64 != plain_size(length).0
}

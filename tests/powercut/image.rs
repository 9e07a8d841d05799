//! The contents of a disk: sparse, and copied only where two images differ.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// What a disk writes whole, unless it tears: the piece that a cut keeps or loses.
pub(crate) const PIECE: usize = 4096;

/// A disk's contents. Cloning costs a pointer for each piece.
#[derive(Clone)]
pub(crate) struct Image {
    pieces: Vec<Option<Arc<[u8; PIECE]>>>,
}

impl Image {
    /// Zeros. Units: bytes, a multiple of the piece.
    pub(crate) fn zeros(size: u64) -> Self {
        Self { pieces: vec![None; place(size).0] }
    }

    /// Units: bytes.
    pub(crate) fn size(&self) -> u64 {
        (self.pieces.len() * PIECE) as u64
    }

    /// As much of `len` bytes from `offset` as the disk has.
    pub(crate) fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let end = (offset + len as u64).min(self.size());
        let mut out = Vec::with_capacity(len);
        let mut at = offset;
        while at < end {
            let (piece, from) = place(at);
            let take = (PIECE - from).min(usize::try_from(end - at).unwrap());
            match &self.pieces[piece] {
                Some(bytes) => out.extend_from_slice(&bytes[from..from + take]),
                None => out.resize(out.len() + take, 0),
            }
            at += take as u64;
        }
        out
    }

    /// Writes `bytes` at `offset`; false when they reach beyond the end.
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) -> bool {
        if offset + bytes.len() as u64 > self.size() {
            return false;
        }
        for (at, bytes) in split(offset, bytes, PIECE) {
            let (piece, from) = place(at);
            let zero = bytes.iter().all(|byte| *byte == 0);
            match &mut self.pieces[piece] {
                place if zero && bytes.len() == PIECE => *place = None,
                None if zero => {}
                place => {
                    let piece = place.get_or_insert_with(|| Arc::new([0; PIECE]));
                    Arc::make_mut(piece)[from..from + bytes.len()].copy_from_slice(bytes);
                }
            }
        }
        true
    }

    /// Keeps the image as a sparse file, which `losetup` and `mount -o loop` take.
    pub(crate) fn save(&self, path: &Path) -> io::Result<()> {
        let file = File::create(path)?;
        file.set_len(self.size())?;
        for (number, piece) in self.pieces.iter().enumerate() {
            if let Some(bytes) = piece {
                file.write_all_at(&bytes[..], (number * PIECE) as u64)?;
            }
        }
        Ok(())
    }
}

/// The parts of a write that lie in one unit of `size` bytes each, with their offsets.
pub(crate) fn split(offset: u64, bytes: &[u8], size: usize) -> impl Iterator<Item = (u64, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = offset + at as u64;
        let room = size - usize::try_from(start % size as u64).unwrap();
        let part = bytes.get(at..bytes.len().min(at + room)).filter(|part| !part.is_empty())?;
        at += part.len();
        Some((start, part))
    })
}

fn place(offset: u64) -> (usize, usize) {
    let offset = usize::try_from(offset).unwrap();
    (offset / PIECE, offset % PIECE)
}

#[test]
fn an_image_reads_what_was_written_and_shares_nothing_that_changes() {
    let mut image = Image::zeros(4 * PIECE as u64);
    assert!(image.write(4000, &[7; 5000]));
    let copy = image.clone();
    assert!(image.write(4096, &[0; PIECE]));
    assert!(copy.read(4000, 5000).iter().all(|byte| *byte == 7));
    assert_eq!(image.read(4095, 3), [7, 0, 0]);
    assert_eq!(image.read(8192, 900)[807..810], [7, 0, 0]);
    assert!(!image.write(4 * PIECE as u64 - 1, &[1; 2]));
    let parts: Vec<_> = split(500, &[1; 1000], 512).map(|(at, part)| (at, part.len())).collect();
    assert_eq!(parts, [(500, 12), (512, 512), (1024, 476)]);
}

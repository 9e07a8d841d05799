//! What a power cut leaves of a recording.

use crate::device::Event;
use crate::image::{Image, PIECE, split};
use crate::random::Random;

/// What of the writes since the last flush reached the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    None,
    All,
    /// All but one piece, which the seed chooses.
    AllButOne,
    /// What looks like data: a file's bytes are random here, a filesystem's own are not.
    Data,
    /// What does not look like data.
    Metadata,
    /// Any subset.
    Some,
}

/// The size of what is written whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// 4096 bytes, as the format assumes of a disk.
    Piece,
    /// 512 bytes: blocks tear.
    Sector,
}

/// The image after a cut before event `at`: the base, everything up to the last flush, and what is
/// kept of the rest, in the order of the writes where several meet one place.
pub(crate) fn cut(
    base: &Image,
    events: &[Event],
    at: usize,
    kept: Kept,
    unit: Unit,
    random: &mut Random,
) -> Image {
    let events = &events[..at];
    let flushed = events.iter().rposition(|event| matches!(event, Event::Flush)).unwrap_or(0);
    let mut image = base.clone();
    for event in &events[..flushed] {
        apply(&mut image, event);
    }
    let size = if unit == Unit::Sector { 512 } else { PIECE };
    let pending: Vec<(u64, &[u8])> = events[flushed..]
        .iter()
        .filter_map(|event| match event {
            Event::Write { offset, bytes } => Some(split(*offset, bytes, size)),
            Event::Flush | Event::Mark(_) => None,
        })
        .flatten()
        .collect();
    let lost = random.index(pending.len().max(1));
    let odds = [5, 30, 50, 70, 95][random.index(5)];
    for (number, (offset, bytes)) in pending.into_iter().enumerate() {
        let keep = match kept {
            Kept::None => false,
            Kept::All => true,
            Kept::AllButOne => number != lost,
            Kept::Data => is_data(bytes),
            Kept::Metadata => !is_data(bytes),
            Kept::Some => random.below(100) < odds,
        };
        if keep {
            image.write(offset, bytes);
        }
    }
    image
}

fn apply(image: &mut Image, event: &Event) {
    if let Event::Write { offset, bytes } = event {
        image.write(*offset, bytes);
    }
}

/// Random bytes have nearly all values that there are; an inode table or a directory has few.
fn is_data(bytes: &[u8]) -> bool {
    let mut seen = [false; 256];
    for byte in bytes {
        seen[usize::from(*byte)] = true;
    }
    let distinct = seen.iter().filter(|seen| **seen).count();
    distinct * 10 > bytes.len().min(256) * 7
}

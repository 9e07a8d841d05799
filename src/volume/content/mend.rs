//! What a crash left odd is made whole before the file is sealed again (R7, R10).
//!
//! Residue is served because a crash since the last seal explains it. A new seal ends that: the
//! same oddness would then be tampering. So the first seal after a crash looks at every block.

use super::read::Soundness;
use super::{Content, State};
use crate::envelope::layout::{Block, PAGE_LEN, last_block};
use crate::volume::error::{Result, VolumeError};

/// Files longer than this keep the seal from before the crash: looking would take too long.
const MENDED_UP_TO: u64 = 64 * 1024 * 1024;

impl Content {
    /// True if nothing in the file needs a crash to explain it: because there was none since the
    /// last seal and no change failed, or because every block was looked at and what was odd is
    /// written anew and synced.
    pub(super) fn mend(&self, state: &mut State) -> Result<bool> {
        let crashed = self.shared.crashed_since(state.ready()?.header.seal.session);
        if !(crashed || state.marks.unsure) {
            return Ok(true);
        }
        if state.size > MENDED_UP_TO {
            return Ok(false);
        }
        let Some((last, last_length)) = last_block(state.size) else { return Ok(true) };
        if state.marks.unsure {
            // What counts is what the disk holds, not what memory remembers of it.
            self.forget_spills(state);
        }
        let mut bytes = zeroize::Zeroizing::new([0; PAGE_LEN]);
        let mut mended = false;
        for block in (0..=last.0).map(Block) {
            if block == block.group().first_block() {
                mended |= self.owes_spill(state, block.group())?;
            }
            match self.read_block(state, block, &mut bytes[..]) {
                Ok(Soundness::Sound) => {}
                Ok(Soundness::Residue) => {
                    let length = if block == last { last_length } else { PAGE_LEN };
                    let held = bytes.get(..length).unwrap_or_default();
                    self.write_range(state, block.start(), held)?;
                    mended = true;
                }
                Err(VolumeError::Lost(_) | VolumeError::Tampered(_)) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        if mended {
            self.sync_locked(state)?;
        }
        Ok(true)
    }
}

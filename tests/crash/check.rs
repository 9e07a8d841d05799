//! What a file may hold after a power cut, given what was synced and what was done since.

use std::sync::Arc;

use kmsfs::envelope::Intents;
use kmsfs::envelope::layout::{Block, PageNo, PageRole};
use kmsfs::volume::VolumeError;
use kmsfs::volume::content::Content;

use crate::disk::{Disk, Image, Torn, Unwritten};
use crate::ops::{Crash, Op, When, contents, open, open_after};
use crate::states::Dice;

const BLOCK: usize = 4096;

/// How much of a page a cut may spoil.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Pages are whole.
    Clean,
    /// One page that was on its way is a mixture.
    Torn,
    /// The same, and pages that were durable are in a journal: nothing is spoiled.
    Journaled,
}

/// The models since the sync: the first is what was durable, the last what was done.
pub(crate) struct History<'a> {
    pub(crate) models: &'a [Vec<u8>],
    pub(crate) cut: Cut,
    /// The cuts, the last of which is looked at.
    pub(crate) crashes: Vec<Crash>,
    /// The page that is torn.
    pub(crate) torn: Option<usize>,
}

type Checked<T> = Result<T, String>;

impl History<'_> {
    /// Opens what the cut left and holds it against the history; then the file must work again.
    pub(crate) fn check(&self, image: Image, dice: &mut Dice) -> Checked<()> {
        let unwritten = if dice.roll(2) == 0 { Unwritten::Holes } else { Unwritten::Data };
        let disk = Disk::left_by(image, Intents::default(), unwritten);
        let disk =
            Arc::new(if self.cut == Cut::Journaled { disk.journaled(Torn::Some) } else { disk });
        let content = match open_after(&disk, &self.crashes) {
            Ok(content) => content,
            // The first page of a file that was never synced is all there is of it: half a header
            // excuses nothing (FORMAT section 12.3).
            Err(VolumeError::Tampered(_)) if self.may_lose_all() && self.torn == Some(0) => {
                return Ok(());
            }
            Err(error) => return Err(format!("does not open: {error:?}")),
        };
        let blocks = contents(&content).or_else(|error| self.explain(&content, &error))?;
        self.sizes(&content)?;
        for (number, block) in blocks.iter().enumerate() {
            self.block(number, block.as_deref())?;
        }
        drop(content);
        match blocks.into_iter().collect::<Option<Vec<_>>>() {
            // One file in four, since this costs more than everything before it.
            Some(blocks) if dice.roll(4) == 0 => {
                follow_up(&disk, &self.crashes, blocks.concat(), dice)
            }
            _ => Ok(()),
        }
    }

    /// Holds an open file against the history and returns what it has.
    pub(crate) fn live(&self, content: &Content) -> Checked<Vec<u8>> {
        let blocks = contents(content).map_err(|error| format!("cannot be read: {error:?}"))?;
        self.sizes(content)?;
        for (number, block) in blocks.iter().enumerate() {
            self.block(number, block.as_deref())?;
        }
        let whole = blocks.into_iter().collect::<Option<Vec<_>>>();
        whole.map(|blocks| blocks.concat()).ok_or_else(|| "cannot be read whole".to_owned())
    }

    /// Torn pages are not authentic, so reading block by block may say so where it may.
    fn explain(&self, content: &Content, error: &VolumeError) -> Checked<Vec<Option<Vec<u8>>>> {
        if self.cut != Cut::Torn {
            return Err(format!("read: {error:?}"));
        }
        let size = usize::try_from(content.size()).unwrap();
        Ok((0..size)
            .step_by(BLOCK)
            .map(|start| {
                let mut block = vec![0; BLOCK.min(size - start)];
                content.read(start as u64, &mut block).ok().map(|_| block)
            })
            .collect())
    }

    /// True if the file had no contents at some moment since the sync.
    fn may_lose_all(&self) -> bool {
        self.models.iter().any(Vec::is_empty)
    }

    fn sizes(&self, content: &Content) -> Checked<()> {
        let size = usize::try_from(content.size()).unwrap();
        let least = self.models.iter().map(Vec::len).min().unwrap();
        let most = self.models.iter().map(Vec::len).max().unwrap();
        // A torn last page does not say how long its block is.
        let most = if self.cut == Cut::Torn { most.next_multiple_of(BLOCK) } else { most };
        match (least..=most).contains(&size) {
            true => Ok(()),
            false => Err(format!("size {size}, but it was {least} to {most} since the sync")),
        }
    }

    fn block(&self, number: usize, found: Option<&[u8]>) -> Checked<()> {
        let start = number * BLOCK;
        let part = |model: &Vec<u8>| {
            let end = model.len().min(start + BLOCK);
            model.get(start..end).unwrap_or_default().to_vec()
        };
        let parts: Vec<Vec<u8>> = self.models.iter().map(part).collect();
        // Bytes may have been written over with the same bytes.
        let torn = self.torn.map(|page| PageNo(page as u64).role());
        let torn = torn == Some(PageRole::Data(Block(number as u64)));
        let changed = torn || parts.iter().any(|part| *part != parts[0]);
        let Some(found) = found else {
            let gone = parts.iter().any(Vec::is_empty);
            return match gone || (self.cut == Cut::Torn && changed) {
                true => Ok(()),
                false => Err(format!("block {number} cannot be read")),
            };
        };
        if !changed && found == parts[0] {
            return Ok(());
        }
        let strict = self.cut != Cut::Torn || !changed;
        for (at, byte) in found.iter().enumerate() {
            let zero_was_legal = !strict || parts.iter().any(|p| p.get(at).is_none_or(|b| *b == 0));
            let known = parts.iter().any(|part| part.get(at) == Some(byte));
            let legal_zero = *byte == 0 && zero_was_legal;
            if !known && !legal_zero {
                let legal: Vec<_> = parts.iter().map(|part| part.get(at).copied()).collect();
                return Err(format!("byte {} is {byte}, legal is {legal:?}", start + at));
            }
        }
        Ok(())
    }
}

/// After a crash the file is used on: it must behave like any other, and seal without a complaint.
fn follow_up(
    disk: &Arc<Disk>,
    crashes: &[Crash],
    mut model: Vec<u8>,
    dice: &mut Dice,
) -> Checked<()> {
    let opened = open_after(disk, crashes).map_err(|error| format!("reopen: {error:?}"))?;
    let mut content = Some(opened);
    let size = model.len() as u64;
    let mut done = Vec::new();
    for tag in [8, 9] {
        let op = match dice.roll(8) {
            0 => Op::Append(10),
            1 => Op::Append(5000),
            2 => Op::Write(dice.roll(model.len() + 1) as u64, 300),
            3 => Op::Truncate(dice.roll(model.len() + 1) as u64),
            4 => Op::Truncate(size + dice.roll(9000) as u64),
            5 => Op::Punch(0, size / 2),
            6 => Op::Sync,
            _ => Op::Reopen,
        };
        op.run(&mut content, tag).map_err(|error| format!("then {op:?}: {error:?}"))?;
        op.apply(&mut model, tag, None);
        done.push(op);
    }
    for op in [Op::Sync, Op::Seal, Op::Sync] {
        op.run(&mut content, 0).map_err(|error| format!("at the end {op:?}: {error:?}"))?;
    }
    drop(content);
    // Everything is mended and sealed: nothing is excused any more.
    let content = open(disk, When::Later).map_err(|error| format!("next session: {error:?}"))?;
    let mut found = vec![0; usize::try_from(content.size()).unwrap()];
    content.read(0, &mut found).map_err(|error| format!("next session reads: {error:?}"))?;
    match found == model {
        true => Ok(()),
        false => {
            let at = found.iter().zip(&model).position(|(a, b)| a != b);
            let sizes = (found.len(), model.len());
            Err(format!("{done:?}, then the next session differs at {at:?}, sizes {sizes:?}"))
        }
    }
}

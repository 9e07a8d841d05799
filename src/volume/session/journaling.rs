//! Whether a session journals pages before it writes over them, and what earlier ones left.

use std::os::fd::OwnedFd;

use crate::volume::backing::beneath::BackingName;
use crate::volume::content::Shared;
use crate::volume::journal::files;
use crate::volume::model::error::Result;
use crate::volume::model::options::{Options, PageJournaling};

/// Takes up the journals of crashed sessions, and begins one for this session if it is to have one.
/// Returns the files that nobody needs; they are removed if the vault may change.
///
/// `is_small`: the blocks of the backing filesystem are smaller than a page. `is_lost`: the record of
/// sessions is lost, so nobody knows which of them crashed.
pub(in crate::volume) fn begin(
    meta: &OwnedFd,
    shared: Shared,
    options: &Options,
    (is_small, is_lost): (bool, bool),
) -> Result<(Shared, Vec<BackingName>)> {
    let is_needed = |word| is_lost || shared.is_unrecovered(word);
    let files::Found { journals, strays } = files::find(meta, is_needed)?;
    let wanted = match options.page_journal {
        PageJournaling::Auto => is_small,
        PageJournaling::On => true,
        PageJournaling::Off => false,
    };
    let begins = !options.read_only && (wanted || !journals.is_empty());
    shared.set_crashed_journals(journals);
    if options.read_only {
        return Ok((shared, strays));
    }
    files::remove_all(meta, strays.iter().cloned());
    if !begins {
        return Ok((shared, strays));
    }
    let session = shared.session();
    let journal = files::begin(meta, session).or_else(|error| {
        // On a disk that is full a mount is what makes room.
        log::error!("no page is written over until its journal can be made: {error}");
        files::begin_late(meta, session)
    })?;
    Ok((shared.journaling(journal), strays))
}

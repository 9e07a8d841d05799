//! What programs do on a filesystem, and what they know to be safe when.

mod apps;
mod contents;
mod files;
mod names;
mod sizes;

pub(crate) use apps::{Git, Rsync, Sqlite};
pub(crate) use contents::{Appends, Cells, Holes, Sync};
pub(crate) use files::{Maildir, NeverSynced, NewDirectories, Replace, Then, Tree};
pub(crate) use names::{
    HardLinks, LongNames, LongNamesInBetween, Metadata, NamesOfSynced, Still, Symlinks, Touched,
};
pub(crate) use sizes::Sizes;

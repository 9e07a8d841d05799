//! How a volume is opened.

use std::path::PathBuf;

/// How a volume is opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Nothing in the vault may change.
    pub read_only: bool,
    /// Set-user-id programs and file capabilities are honoured by the mount.
    pub suid: bool,
    /// Other users may enter the vault, and its root may be opened to them. For a mount a person has
    /// to say so; whoever serves nobody else need not care.
    pub open_vault: bool,
    /// Others change the vault while it is mounted, from other machines too: nothing is kept of a file that
    /// is closed.
    pub shared: bool,
    /// A directory of this machine's, out of reach of whoever writes to the vault: what must be
    /// remembered of the volume goes there when no keystore takes it.
    pub anchors: Option<PathBuf>,
    /// The vault was put back on purpose: what its record excuses after a crash is believed.
    pub restored: bool,
    /// The record of the sessions was lost: whatever may be the trace of a crash is taken for one.
    pub accept_residue: bool,
    /// Changes may be made even if nothing outside the vault remembers the session.
    pub unanchored: bool,
    /// Inodes are also reached by their numbers, through file handles.
    pub export: bool,
    /// When pages go to a journal before they are written over.
    pub page_journal: PageJournaling,
    /// Which accesses are noted.
    pub access_times: AccessTimes,
}

/// Which accesses are noted. None are on a volume that is read only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AccessTimes {
    /// The first after each change of a file, and one a day.
    #[default]
    Relative,
    /// Each.
    Strict,
    /// None.
    Never,
}

/// When pages go to a journal before they are written over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PageJournaling {
    /// Where the blocks of the backing filesystem are smaller than a page.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never, but for a session in which a journal is left of a crash: what is in it must not become
    /// older than what is durable.
    Off,
}

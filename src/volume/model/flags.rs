//! Flags of an inode (chattr(1)), as far as they can be kept.

/// Those that a vault's files and directories can have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InodeFlags {
    /// Nothing of it may change, nor may its names.
    pub immutable: bool,
    /// dump(8) leaves it out: that of the vault.
    pub no_dump: bool,
    /// Reading it is no access.
    pub no_atime: bool,
}

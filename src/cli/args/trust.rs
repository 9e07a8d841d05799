//! What a command believes of a vault's own records.

use clap::Args;

/// Options of commands that open a vault to change it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Args)]
pub(in crate::cli) struct TrustArgs {
    /// The vault was put back on purpose: believe what its own records excuse after a crash
    ///
    /// Needed once, and only when a mount says so: the vault is older than what the keystore
    /// remembers of it, or a copy that went its own way, and some files were being written when it
    /// was copied. Without it such files give an error where they are half written. Or another vault
    /// is expected at this path; or the backup is from before the volume was brought up to date.
    #[arg(long)]
    pub restored: bool,
    /// Change the vault even if neither the keystore nor a file of this machine can remember it
    #[arg(long)]
    pub unanchored: bool,
}

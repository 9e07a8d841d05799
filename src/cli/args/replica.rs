//! The arguments of the commands that carry keys between keystores.

use std::path::PathBuf;

use clap::Args;

/// `kmsfs key replicate`, `sync` and `update-primary`.
#[derive(Debug, Args)]
pub(in crate::cli) struct SendArgs {
    /// Key id, ARN or alias/NAME
    pub key: String,
    /// The transfer key that the other keystore made
    #[arg(long, value_name = "FILE")]
    pub to: PathBuf,
    /// Write the sealed key to FILE, which must not exist
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    #[command(flatten)]
    pub other: Other,
}

/// `kmsfs key receive`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ReceiveArgs {
    /// The file that the other keystore sealed
    pub file: PathBuf,
    #[command(flatten)]
    pub other: Other,
}

/// How the other keystore is recognised.
#[derive(Debug, Args)]
pub(in crate::cli) struct Other {
    /// What `kmsfs keystore identity` shows there; without it, somebody is asked to compare
    #[arg(long, value_name = "FINGERPRINT")]
    pub fingerprint: Option<String>,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

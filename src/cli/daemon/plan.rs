//! What a mount is to be.

use std::path::PathBuf;

use crate::cli::args::kms_source::KmsArgs;
use crate::cli::args::options::MountOptions;
use crate::cli::args::trust::TrustArgs;

/// Everything that is decided before anything is opened.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Plan {
    /// The encrypted directory.
    pub vault: PathBuf,
    /// Where the plaintext view appears, for people: what is mounted on is held.
    pub mountpoint: PathBuf,
    /// The keystore file: not used if the keys come from an endpoint.
    pub keystore: PathBuf,
    /// The endpoint that the keys come from, if they do.
    pub kms: KmsArgs,
    /// Refuse every change.
    pub read_only: bool,
    /// What `-o` asked for.
    pub options: MountOptions,
    /// What is believed of the vault's own records.
    pub trust: TrustArgs,
}

//! Which KMS a vault takes its keys from, as the command line says it.

use std::path::PathBuf;

use clap::Args;

/// Options of every command that opens a vault by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(in crate::cli) struct KmsArgs {
    /// Take data keys from a KMS at URL, not from the keystore on this machine
    ///
    /// https://HOST[:PORT], http://127.0.0.1:PORT or unix:/PATH: another kmsfs (kmsfs serve), or
    /// AWS KMS itself.
    #[arg(long = "kms", value_name = "URL")]
    pub url: Option<String>,
    /// The access key for it: a file as ~/.aws/credentials, readable by its owner only
    #[arg(long = "kms-credentials", value_name = "FILE", requires = "url")]
    pub credentials: Option<PathBuf>,
    /// The certificates to trust for it, instead of the system's
    #[arg(long = "kms-ca", value_name = "FILE", requires = "url")]
    pub ca: Option<PathBuf>,
    /// The AWS region; host names of AWS contain it
    #[arg(long = "kms-region", value_name = "REGION", requires = "url")]
    pub region: Option<String>,
    /// Seconds for which open files stay usable while the KMS does not answer, or the keystore
    /// cannot be read
    #[arg(long = "kms-grace", value_name = "SECONDS")]
    pub grace: Option<u64>,
}

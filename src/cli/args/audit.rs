//! The argument tree below `audit`, and that of `metrics` and `doctor`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// `kmsfs audit`.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum AuditCommand {
    /// Show what was done, by whom, with which key, and what came of it
    #[command(after_help = "Examples:
  kmsfs audit list --last 20
  kmsfs audit list --since 2d --result AccessDeniedException
  kmsfs audit list --principal unix/1000 --operation Decrypt --json")]
    List {
        #[command(flatten)]
        filter: FilterArgs,
        /// Only the last N that match
        #[arg(long, value_name = "N")]
        last: Option<usize>,
    },
    /// Write the log as JSON lines, which can be checked without any secret
    #[command(after_help = "Examples:
  kmsfs audit export > audit.jsonl && kmsfs audit key > audit.pem
  kmsfs audit verify --file audit.jsonl --public-key audit.pem

An export of chosen records shows that each is genuine, not that none is missing.")]
    Export {
        #[command(flatten)]
        filter: FilterArgs,
    },
    /// Check that no record was changed or removed
    Verify {
        /// Check this export instead, which takes no keystore
        #[arg(long, value_name = "FILE", requires = "public_key")]
        file: Option<PathBuf>,
        /// The public key for it, from `kmsfs audit key`
        #[arg(long, value_name = "FILE", requires = "file")]
        public_key: Option<PathBuf>,
    },
    /// Show the public key that checks the log's signatures: keep it somewhere else
    Key,
    /// Refuse operations that cannot be written down, or do not
    ///
    /// With `on`, every operation and every first open of a file waits for the disk.
    Require {
        /// on or off
        mode: Switch,
    },
    /// Remove old records; the rest can still be checked
    #[command(after_help = "Examples:
  kmsfs audit export --until 365d > audit-2025.jsonl && kmsfs audit prune --before 365d")]
    Prune {
        /// Records before this: 2026-01-31, 2026-01-31T12:00:00Z or 90d
        #[arg(long, value_name = "TIME")]
        before: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

/// Which records.
#[derive(Debug, Default, Clone, Args)]
pub(in crate::cli) struct FilterArgs {
    /// Not before this: 2026-01-31, 2026-01-31T12:00:00Z, or 7d, 12h, 30m ago
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Before this
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// By this user or access key: an ARN, or its end, as in unix/1000
    #[arg(long, value_name = "ARN")]
    pub principal: Option<String>,
    /// Of this operation, as in Decrypt
    #[arg(long, value_name = "NAME")]
    pub operation: Option<String>,
    /// With this key: its id or ARN
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// With this result: Success, or the name of an error
    #[arg(long, value_name = "RESULT")]
    pub result: Option<String>,
    /// From this source
    #[arg(long, value_parser = ["cli", "mount", "socket", "network"])]
    pub source: Option<String>,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Switch {
    /// From now on.
    On,
    /// No longer.
    Off,
}

/// `kmsfs metrics`.
#[derive(Debug, Args)]
pub(in crate::cli) struct MetricsArgs {
    /// A mounted vault or its mountpoint: what its daemon counted; without it, what the keystore
    /// itself knows
    pub target: Option<PathBuf>,
}

/// `kmsfs keystore maintain`.
#[derive(Debug, Args)]
pub(in crate::cli) struct MaintainArgs {
    /// Do not look into the vaults
    #[arg(long)]
    pub no_scan: bool,
}

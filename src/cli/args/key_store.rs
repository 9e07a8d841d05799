//! The argument tree below `key-store`.

use std::path::PathBuf;

use clap::Subcommand;

/// `kmsfs key-store`.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum KeyStoreCommand {
    /// Make a key store of a token
    ///
    /// Its keys are made on the token and never leave it. The PIN is stored sealed in the
    /// keystore, so that daemons can log in.
    #[command(after_help = "Examples:
  kmsfs key-store create safe --store-module /usr/lib/softhsm/libsofthsm2.so --store-token safe
  kmsfs key-store connect safe
  kmsfs key create --key-store safe --alias alias/finance")]
    Create {
        /// Its name
        name: String,
        /// The PKCS#11 module, a shared library
        #[arg(long, value_name = "MODULE")]
        store_module: PathBuf,
        /// The token's label or serial number
        #[arg(long, value_name = "LABEL")]
        store_token: String,
        /// Read the token's PIN from file descriptor N; default: a prompt
        #[arg(long, value_name = "N")]
        store_pin_fd: Option<u32>,
    },
    /// Log in to the token and let the keys be used
    Connect {
        /// Name or id
        store: String,
    },
    /// Make the keys unavailable; live mounts stop using them within a second
    Disconnect {
        /// Name or id
        store: String,
    },
    /// List the key stores
    List,
    /// Change a disconnected key store
    Update {
        /// Name or id
        store: String,
        /// Another name
        #[arg(long)]
        name: Option<String>,
        /// Another label or serial number of the token
        #[arg(long, value_name = "LABEL")]
        store_token: Option<String>,
        /// Read the PIN that the token has now from file descriptor N
        #[arg(long, value_name = "N")]
        store_pin_fd: Option<u32>,
    },
    /// Remove a disconnected key store that no key belongs to
    ///
    /// Says first which keys belong to it, and how many files of which known vaults need them.
    Delete {
        /// Name or id
        store: String,
        /// A vault to look into besides those the keystore knows; may be given several times
        #[arg(long = "vault", value_name = "VAULT")]
        vaults: Vec<PathBuf>,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

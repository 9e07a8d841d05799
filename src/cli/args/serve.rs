//! The options of `kmsfs serve`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

/// `kmsfs serve`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ServeArgs {
    /// Where to listen: unix:PATH, ADDRESS:PORT or HOST:PORT; may be given several times
    ///
    /// Port 0 lets the system choose; the addresses are printed when clients can connect. Sockets
    /// that systemd passes are served as well.
    #[arg(long, value_name = "PLACE")]
    pub listen: Vec<String>,

    /// Certificate with its chain, in PEM form; needed where others than this machine can connect
    ///
    /// SIGHUP reads certificate and key anew.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// Private key of the certificate, in PEM form, mode 0600
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// The region of requests that name none; the others get the region they were signed for
    #[arg(long, value_name = "REGION", default_value = "local")]
    pub region: String,

    /// Serve another keystore for requests of REGION; may be given several times
    ///
    /// Multi-Region keys are replicated between the keystores of one server. All are opened with
    /// the same kind of secret.
    #[arg(long, value_name = "REGION=KEYSTORE")]
    pub replica: Vec<String>,

    /// Accept requests that no known access key has signed, from this machine only
    ///
    /// On a Unix socket they act for the user of the process (for the account's root if that is
    /// the server's user), on loopback for the account's root: for tests, and for sockets whose
    /// mode says who may connect.
    #[arg(long)]
    pub allow_unsigned: bool,

    /// Permissions of a Unix socket; connecting needs the right to write
    #[arg(long, value_name = "MODE", default_value = "600")]
    pub socket_mode: String,

    /// Group of a Unix socket, by name or number
    #[arg(long, value_name = "GROUP")]
    pub socket_group: Option<String>,

    /// Serve metrics for Prometheus at http://ADDRESS:PORT/metrics, on loopback only
    ///
    /// They name keys and volumes by their ids and need no signature.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics: Option<SocketAddr>,

    /// How many clients may be connected at once
    ///
    /// If there is one more, one that waits for a request is closed. One user on Unix sockets, or one
    /// address on TCP, has at most three quarters of them.
    #[arg(long, value_name = "N", default_value_t = 1024,
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub max_connections: u32,
}

pub(in crate::cli) const EXAMPLES: &str = "Examples:
  kmsfs access-key create --root                                prints the key and its secret once
  kmsfs serve --listen 127.0.0.1:8350
  kmsfs serve --listen unix:/run/kmsfs/kms.sock --socket-mode 660 --socket-group kms
  kmsfs serve --listen 0.0.0.0:8443 --tls-cert kms.pem --tls-key kms.key
  kmsfs serve --listen 127.0.0.1:8350 --replica eu-west-1=second.db

  aws --endpoint-url http://127.0.0.1:8350 kms list-keys";

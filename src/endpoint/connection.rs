//! Connections to an endpoint: made when needed, kept while they are good.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::{Mutex, MutexGuard};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::address::{self, Address, Transport};
use super::error::FileProblem;
use super::{EndpointError, client, peer};

/// The end of a connection on which requests are sent.
pub(super) type Sender = SendRequest<Full<Bytes>>;

/// Makes connections to one endpoint and keeps those that are idle.
pub(super) struct Connections {
    address: Address,
    tls: Option<TlsConnector>,
    idle: Mutex<Vec<(Sender, Instant)>>,
}

/// A connection, and whether it served a request before.
pub(super) struct Taken {
    pub sender: Sender,
    pub used: bool,
}

impl Connections {
    /// Errors: `File` for a CA file that cannot be used.
    pub(super) fn new(address: Address, ca: Option<&Path>) -> Result<Self, EndpointError> {
        let tls = match &address.transport {
            Transport::Tls { .. } => Some(TlsConnector::from(Arc::new(trust(ca)?))),
            Transport::Loopback { .. } | Transport::Unix(_) => None,
        };
        Ok(Self { address, tls, idle: Mutex::default() })
    }

    /// An idle connection, or a new one.
    pub(super) async fn take(&self) -> io::Result<Taken> {
        loop {
            let kept = self.lock().pop();
            match kept {
                None => break,
                Some((mut sender, since)) if since.elapsed() < KEEP => {
                    // The task of the connection may still be at the end of the last answer.
                    if sender.ready().await.is_ok() {
                        return Ok(Taken { sender, used: true });
                    }
                }
                Some(_) => {}
            }
        }
        Ok(Taken { sender: self.connect().await?, used: false })
    }

    /// Keeps a connection whose answer was read to its end.
    pub(super) fn keep(&self, sender: Sender) {
        let mut idle = self.lock();
        if idle.len() < MOST_IDLE && !sender.is_closed() {
            idle.push((sender, Instant::now()));
        }
    }

    async fn connect(&self) -> io::Result<Sender> {
        match (&self.address.transport, &self.tls) {
            (Transport::Unix(path), _) => start(peer::connect_unix(path).await?).await,
            (Transport::Tls { host, port }, Some(tls)) => {
                let host = address::bare(host);
                let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
                let stream = tcp(host, *port).await?;
                start(tls.connect(name, stream).await?).await
            }
            (Transport::Loopback { host, port } | Transport::Tls { host, port }, _) => {
                let stream = tcp(address::bare(host), *port).await?;
                peer::check_loopback(&stream).await?;
                start(stream).await
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Sender, Instant)>> {
        self.idle.lock()
    }
}

async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn start<S>(stream: S) -> io::Result<Sender>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            log::debug!("connection to the KMS endpoint: {}", client::chain(&error));
        }
    });
    Ok(sender)
}

/// TLS that trusts the certificates of `ca`, or those of the system.
fn trust(ca: Option<&Path>) -> Result<ClientConfig, EndpointError> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => add_file(&mut roots, path)?,
        None => {
            let found = rustls_native_certs::load_native_certs();
            for error in &found.errors {
                log::warn!("certificates of the system: {error}");
            }
            roots.add_parsable_certificates(found.certs);
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| EndpointError::System(io::Error::other(error)))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), EndpointError> {
    let refuse = |problem| EndpointError::File { path: path.to_owned(), problem };
    let pem = std::fs::read(path).map_err(|error| refuse(FileProblem::Io(error)))?;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|_| refuse(FileProblem::BadCertificate))?;
        roots.add(certificate).map_err(|_| refuse(FileProblem::BadCertificate))?;
    }
    if roots.is_empty() { Err(refuse(FileProblem::NoCertificate)) } else { Ok(()) }
}

/// Shorter than servers keep an idle connection, so that it is rarely closed under a request.
const KEEP: Duration = Duration::from_secs(15);
const MOST_IDLE: usize = 16;

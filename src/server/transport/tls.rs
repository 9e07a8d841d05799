//! TLS 1.2 and 1.3 for listeners that others can reach.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use crate::server::config::{ServerError, TlsFiles};

/// The server's identity, which can be read anew while connections are served.
#[derive(Debug)]
pub(in crate::server) struct Tls {
    files: TlsFiles,
    current: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads certificate and key.
    /// Errors: `Exposed`, `Tls`, `Io`.
    pub(in crate::server) fn load(files: &TlsFiles) -> Result<Self, ServerError> {
        let current = RwLock::new(Arc::new(read(files)?));
        Ok(Self { files: files.clone(), current })
    }

    /// Reads certificate and key again, for new connections. What fails leaves the old ones.
    pub(in crate::server) fn reload(&self) -> Result<(), ServerError> {
        let fresh = Arc::new(read(&self.files)?);
        *self.current.write() = fresh;
        Ok(())
    }

    /// Greets one connection.
    pub(in crate::server) fn acceptor(&self) -> TlsAcceptor {
        let current = self.current.read();
        TlsAcceptor::from(Arc::clone(&current))
    }
}

fn read(files: &TlsFiles) -> Result<ServerConfig, ServerError> {
    let chain = certificates(&files.certificate)?;
    let key = private_key(&files.key)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let refuse = |path: &Path, error: rustls::Error| ServerError::Tls {
        path: path.to_owned(),
        why: error.to_string(),
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| refuse(&files.certificate, error))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| refuse(&files.key, error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ServerError> {
    let pem = fs::read(path).map_err(ServerError::io(format!("read '{}'", path.display())))?;
    let refuse = |why: &str| ServerError::Tls { path: path.to_owned(), why: why.to_owned() };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err(refuse("it holds no certificate in PEM form")),
        Ok(chain) => Ok(chain),
        Err(_) => Err(refuse("a certificate in it is malformed")),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, ServerError> {
    let failed = || ServerError::io(format!("read '{}'", path.display()));
    let file = File::open(path).map_err(failed())?;
    let mode = file.metadata().map_err(failed())?.mode();
    if mode & 0o077 != 0 {
        return Err(ServerError::Exposed { path: path.to_owned(), mode });
    }
    let pem = Zeroizing::new(fs::read(path).map_err(failed())?);
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| ServerError::Tls {
        path: path.to_owned(),
        why: "it holds no private key in PEM form".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::*;

    fn files(name: &str) -> TlsFiles {
        let dir = std::env::temp_dir().join(format!("kmsfs-{}-tls-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let files = TlsFiles { certificate: dir.join("cert.pem"), key: dir.join("key.pem") };
        fs::write(&files.certificate, made.cert.pem()).unwrap();
        fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        fs::set_permissions(&files.key, PermissionsExt::from_mode(0o600)).unwrap();
        files
    }

    fn remove(files: &TlsFiles) {
        fs::remove_dir_all(files.key.parent().unwrap_or(&PathBuf::new())).unwrap();
    }

    #[test]
    fn a_good_pair_is_taken_and_a_bad_reload_keeps_it() {
        let files = files("good");
        let tls = Tls::load(&files).unwrap();
        fs::write(&files.certificate, "nothing").unwrap();
        let error = tls.reload().unwrap_err().to_string();
        assert!(error.contains("no certificate"), "{error}");
        let _ = tls.acceptor();
        remove(&files);
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let files = files("exposed");
        fs::set_permissions(&files.key, PermissionsExt::from_mode(0o640)).unwrap();
        assert!(matches!(Tls::load(&files), Err(ServerError::Exposed { .. })));
        remove(&files);
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let (files, other) = (files("pair"), files("other"));
        fs::copy(&other.key, &files.key).unwrap();
        assert!(matches!(Tls::load(&files), Err(ServerError::Tls { .. })));
        remove(&files);
        remove(&other);
    }
}

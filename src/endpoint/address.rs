//! Where an endpoint is.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use hyper::Uri;

use super::EndpointError;

/// The address of an endpoint: `http://` on loopback, `https://` anywhere, or `unix:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    text: String,
    pub(super) transport: Transport,
}

/// How an endpoint is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Transport {
    /// Plain TCP to a loopback address.
    Loopback { host: String, port: u16 },
    /// TLS over TCP.
    Tls { host: String, port: u16 },
    /// A Unix socket.
    Unix(PathBuf),
}

impl Address {
    /// The region that is part of the host's name, as in `kms.eu-west-1.amazonaws.com`.
    pub fn region(&self) -> Option<&str> {
        let Transport::Tls { host, .. } = &self.transport else { return None };
        let labels: Vec<&str> = host.split('.').collect();
        let service = labels.iter().position(|label| matches!(*label, "kms" | "kms-fips"))?;
        let known = ["amazonaws.com", "amazonaws.com.cn", "api.aws", "vpce.amazonaws.com"];
        let domain = labels.get(service + 2..)?.join(".");
        known.contains(&domain.as_str()).then(|| labels.get(service + 1).copied()).flatten()
    }

    /// Does it stay on this machine? There a server may take requests without a signature.
    pub fn is_local(&self) -> bool {
        matches!(self.transport, Transport::Loopback { .. } | Transport::Unix(_))
    }

    /// The port, if it is reached by TCP.
    pub fn port(&self) -> Option<u16> {
        match self.transport {
            Transport::Loopback { port, .. } | Transport::Tls { port, .. } => Some(port),
            Transport::Unix(_) => None,
        }
    }

    /// What the `Host` header says.
    pub(super) fn authority(&self) -> String {
        let (host, port, usual) = match &self.transport {
            Transport::Loopback { host, port } => (host, *port, 80),
            Transport::Tls { host, port } => (host, *port, 443),
            Transport::Unix(_) => return "localhost".to_owned(),
        };
        if port == usual { host.clone() } else { format!("{host}:{port}") }
    }
}

impl FromStr for Address {
    type Err = EndpointError;

    /// Errors: `Address`.
    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let refuse = |expected| EndpointError::Address { text: text.to_owned(), expected };
        let transport = if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if !path.starts_with('/') {
                return Err(refuse("unix: is followed by an absolute path"));
            }
            Transport::Unix(PathBuf::from(path))
        } else {
            let uri: Uri = text.parse().map_err(|_| refuse(EXPECTED))?;
            if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
                return Err(refuse("nothing follows the host and the port"));
            }
            let host = uri.host().ok_or_else(|| refuse(EXPECTED))?.to_ascii_lowercase();
            match uri.scheme_str() {
                Some("https") => Transport::Tls { host, port: uri.port_u16().unwrap_or(443) },
                Some("http") if is_loopback(&host) => {
                    Transport::Loopback { host, port: uri.port_u16().unwrap_or(80) }
                }
                Some("http") => return Err(refuse("http:// is for loopback, use https://")),
                _ => return Err(refuse(EXPECTED)),
            }
        };
        Ok(Self { text: text.to_owned(), transport })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A host as it stands in an address, without the brackets of IPv6.
pub(super) fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Only literal addresses: what a name resolves to, others decide.
fn is_loopback(host: &str) -> bool {
    bare(host).parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

const EXPECTED: &str = "https://HOST[:PORT], http://127.0.0.1:PORT or unix:/PATH is expected";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Address, EndpointError> {
        text.parse()
    }

    #[test]
    fn the_three_kinds_are_read() {
        let loopback = parse("http://127.0.0.1:8080").unwrap();
        assert_eq!(
            loopback.transport,
            Transport::Loopback { host: "127.0.0.1".into(), port: 8080 }
        );
        assert_eq!(loopback.authority(), "127.0.0.1:8080");
        assert_eq!(parse("https://Kms.Example/").unwrap().authority(), "kms.example");
        assert_eq!(parse("http://[::1]:8080").unwrap().authority(), "[::1]:8080");
        for unix in ["unix:/run/kms.sock", "unix:///run/kms.sock"] {
            assert_eq!(parse(unix).unwrap().transport, Transport::Unix("/run/kms.sock".into()));
        }
    }

    #[test]
    fn plain_http_goes_to_loopback_only() {
        for wrong in ["http://10.0.0.1:80", "http://localhost:80", "http://127.0.0.1.evil:80"] {
            let error = parse(wrong).unwrap_err().to_string();
            assert!(error.contains("use https://"), "{error}");
        }
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        for wrong in
            ["", "kms", "ftp://x", "unix:kms.sock", "https://x/path", "https://x/?q", "https://"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_region_is_part_of_the_name_at_aws() {
        for (url, region) in [
            ("https://kms.eu-west-1.amazonaws.com", Some("eu-west-1")),
            ("https://kms-fips.us-east-2.amazonaws.com", Some("us-east-2")),
            ("https://kms.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
            ("https://kms.eu-west-1.api.aws", Some("eu-west-1")),
            ("https://vpce-0a1b.kms.eu-west-1.vpce.amazonaws.com", Some("eu-west-1")),
            ("https://kms.example.com", None),
            ("https://kms", None),
            ("http://127.0.0.1:1", None),
        ] {
            assert_eq!(parse(url).unwrap().region(), region, "{url}");
        }
    }
}

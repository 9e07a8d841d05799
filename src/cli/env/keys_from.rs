//! Where a vault's data keys come from: the keystore on this machine, or a KMS at an endpoint.
//!
//! The vault does not say: it is portable, and the same vault opens with the keystore itself, with
//! an endpoint that serves it, and with that of another host which has the keys.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::failure::{self, NEEDS_ACCESS_KEY};
use super::{keystore, paths};
use crate::cli::args::Global;
use crate::cli::args::kms_source::KmsArgs;
use crate::cli::report::exit::{CliError, Exit};
use crate::endpoint::{Address, Credentials, Endpoint, EndpointError, Options as Patience};
use crate::keystore::Keystore;
use crate::volume::remote::RemoteKeys;
use crate::volume::{KeyService, LocalKeys, VolumeError};

/// The source of a vault's keys, open.
pub(in crate::cli) enum KeysFrom {
    /// The keystore on this machine.
    Keystore(Arc<Keystore>),
    /// A KMS at an endpoint.
    Endpoint(Arc<RemoteKeys>),
}

impl KmsArgs {
    /// The endpoint as a source of data keys, if one is named: not connected yet.
    pub(in crate::cli) fn open_endpoint(&self) -> Result<Option<Arc<RemoteKeys>>, CliError> {
        let Some(endpoint) = self.open_client()? else { return Ok(None) };
        let keys = RemoteKeys::new(endpoint, self.grace())
            .map_err(|error| CliError::new(Exit::General, error.to_string()))?;
        Ok(Some(Arc::new(keys)))
    }

    /// Where the endpoint is, if one is named.
    pub(in crate::cli) fn address(&self) -> Result<Option<Address>, CliError> {
        self.url.as_ref().map(|url| url.parse().map_err(|error| unusable(&error))).transpose()
    }

    /// How long keys stay usable while nothing can be learned of them.
    pub(in crate::cli) fn grace(&self) -> Duration {
        self.grace.map_or(GRACE, Duration::from_secs)
    }

    /// A client of the endpoint, if one is named: not connected yet.
    pub(in crate::cli) fn open_client(&self) -> Result<Option<Endpoint>, CliError> {
        let (Some(url), Some(address)) = (&self.url, self.address()?) else { return Ok(None) };
        let credentials = self.credentials().map_err(|error| unusable(&error))?;
        if credentials.is_none() && !address.is_local() {
            let what = format!("no access key for the KMS at {url}");
            return Err(CliError::new(Exit::NoSecret, what).advise(NEEDS_ACCESS_KEY));
        }
        let region = self.region.as_deref();
        let endpoint = Endpoint::new(address, region, credentials, self.ca.as_deref(), PATIENCE);
        endpoint.map(Some).map_err(|error| unusable(&error))
    }

    /// The same with paths that do not depend on the current directory.
    pub(in crate::cli) fn absolute(&self) -> Result<Self, CliError> {
        let absolute = |path: &Option<PathBuf>| path.as_deref().map(paths::absolute).transpose();
        Ok(Self {
            credentials: absolute(&self.credentials)?,
            ca: absolute(&self.ca)?,
            ..self.clone()
        })
    }

    /// The arguments that tell another kmsfs the same.
    pub(in crate::cli) fn words(&self) -> Vec<std::ffi::OsString> {
        let text = |text: &Option<String>| text.clone().map(Into::into);
        let path = |path: &Option<PathBuf>| path.clone().map(Into::into);
        let all = [
            ("--kms", text(&self.url)),
            ("--kms-credentials", path(&self.credentials)),
            ("--kms-ca", path(&self.ca)),
            ("--kms-region", text(&self.region)),
            ("--kms-grace", self.grace.map(|grace| grace.to_string().into())),
        ];
        let said = all.into_iter().filter_map(|(name, value)| Some([name.into(), value?]));
        said.flatten().collect()
    }

    fn credentials(&self) -> Result<Option<Credentials>, EndpointError> {
        if let Some(path) = &self.credentials {
            return Credentials::from_file(path, PROFILE).map(Some);
        }
        let systemd = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let systemd = systemd.filter(|dir| dir.join(SYSTEMD_NAME).is_file());
        systemd.map(|dir| Credentials::from_systemd(&dir)).transpose()
    }
}

impl KeysFrom {
    /// Opens what the command names: an endpoint, else the keystore.
    pub(in crate::cli) fn open(kms: &KmsArgs, global: &Global) -> Result<Self, CliError> {
        match kms.open_endpoint()? {
            Some(keys) => Ok(Self::Endpoint(keys)),
            None => Ok(Self::Keystore(Arc::new(keystore::open(global)?))),
        }
    }

    /// As a volume uses it.
    pub(in crate::cli) fn service(&self) -> Arc<dyn KeyService> {
        self.service_with(GRACE)
    }

    /// As a mounted volume uses it: its keys outlive a silence of the keystore by `grace`. An endpoint
    /// knows that already.
    pub(in crate::cli) fn service_with(&self, grace: Duration) -> Arc<dyn KeyService> {
        match self {
            Self::Keystore(keystore) => Arc::new(LocalKeys::new(keystore.clone(), grace)),
            Self::Endpoint(keys) => keys.clone(),
        }
    }

    /// A failure of a volume with keys from here, as one about the vault or the file.
    pub(in crate::cli) fn failed(&self, what: &Path, error: &VolumeError) -> CliError {
        failure::volume_of(self.keystore().map(AsRef::as_ref), what, error)
    }

    /// The keystore, when it is on this machine.
    pub(in crate::cli) fn keystore(&self) -> Option<&Arc<Keystore>> {
        match self {
            Self::Keystore(keystore) => Some(keystore),
            Self::Endpoint(_) => None,
        }
    }
}

fn unusable(error: &EndpointError) -> CliError {
    let exit = match error {
        EndpointError::Address { .. } => Exit::Usage,
        EndpointError::File { .. } => Exit::NoSecret,
        _ => Exit::General,
    };
    CliError::new(exit, error.to_string())
}

/// Shown where the path of a keystore would be.
pub(in crate::cli) fn describe(kms: &KmsArgs, keystore: &Path) -> (&'static str, String) {
    match &kms.url {
        Some(url) => ("kms", url.clone()),
        None => ("keystore", keystore.to_string_lossy().into_owned()),
    }
}

/// How long one call may take: requests of the kernel wait for it.
const PATIENCE: Patience =
    Patience { attempt: Duration::from_secs(3), patience: Duration::from_secs(4) };
const GRACE: Duration = Duration::from_secs(60);
const PROFILE: &str = "default";
const SYSTEMD_NAME: &str = crate::endpoint::credentials::CREDENTIAL;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_are_handed_on_as_they_were_given() {
        let kms = KmsArgs {
            url: Some("unix:/run/kms.sock".into()),
            credentials: Some("/etc/aws".into()),
            grace: Some(5),
            ..KmsArgs::default()
        };
        let words = ["--kms", "unix:/run/kms.sock", "--kms-credentials", "/etc/aws"];
        assert_eq!(kms.words(), [&words[..], &["--kms-grace", "5"]].concat());
        assert!(KmsArgs::default().words().is_empty());
    }

    #[test]
    fn an_endpoint_needs_an_access_key_and_an_address() {
        let open = |url: &str| {
            let kms = KmsArgs { url: Some(url.into()), ..KmsArgs::default() };
            kms.open_endpoint().err().unwrap().exit
        };
        assert_eq!(open("https://kms.example"), Exit::NoSecret);
        assert_eq!(open("http://kms.example"), Exit::Usage);
    }

    /// A server on this machine may take requests without a signature.
    #[test]
    fn regression_an_endpoint_on_this_machine_is_asked_without_an_access_key() {
        for url in ["unix:/run/kms.sock", "http://127.0.0.1:8350"] {
            let kms = KmsArgs { url: Some(url.into()), ..KmsArgs::default() };
            assert!(kms.open_client().unwrap().is_some(), "{url}");
        }
        assert!(KmsArgs::default().open_endpoint().unwrap().is_none());
    }
}

//! Access keys of a client, from a file in the form of AWS's shared credentials.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use zeroize::Zeroizing;

use super::EndpointError;
use super::error::FileProblem;

/// The name of the file among systemd's credentials, in `$CREDENTIALS_DIRECTORY`.
pub const CREDENTIAL: &str = "kmsfs.aws";

/// An access key with its secret, which is wiped when dropped.
pub struct Credentials {
    access_key_id: String,
    secret: Zeroizing<String>,
    session_token: Option<Zeroizing<String>>,
}

impl Credentials {
    /// These credentials; a session token comes with temporary ones.
    pub fn new(access_key_id: &str, secret: &str, session_token: Option<&str>) -> Self {
        let secret_text = |text: &str| Zeroizing::new(text.to_owned());
        Self {
            access_key_id: access_key_id.to_owned(),
            secret: secret_text(secret),
            session_token: session_token.map(secret_text),
        }
    }

    /// Reads a profile from a file like `~/.aws/credentials`, which only its owner may read.
    /// Errors: `File`.
    pub fn from_file(path: &Path, profile: &str) -> Result<Self, EndpointError> {
        Self::read(path, profile, Exposure::Refused)
    }

    /// Reads the profile `default` of the file [`CREDENTIAL`] in systemd's directory.
    /// Errors: `File`.
    pub fn from_systemd(directory: &Path) -> Result<Self, EndpointError> {
        // systemd decides who reads its credentials, by access lists that look like a group.
        Self::read(&directory.join(CREDENTIAL), "default", Exposure::Accepted)
    }

    /// The id of the access key, which is no secret.
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    pub(super) fn secret(&self) -> &str {
        &self.secret
    }

    pub(super) fn session_token(&self) -> Option<&str> {
        self.session_token.as_ref().map(|token| token.as_str())
    }

    fn read(path: &Path, profile: &str, exposure: Exposure) -> Result<Self, EndpointError> {
        let problem = |problem| EndpointError::File { path: path.to_owned(), problem };
        let text = read_private(path, exposure).map_err(problem)?;
        parse(&text, profile).map_err(problem)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

#[derive(PartialEq, Eq)]
enum Exposure {
    Refused,
    Accepted,
}

fn read_private(path: &Path, exposure: Exposure) -> Result<Zeroizing<String>, FileProblem> {
    let mut file = File::open(path).map_err(FileProblem::Io)?;
    let metadata = file.metadata().map_err(FileProblem::Io)?;
    if exposure == Exposure::Refused && metadata.is_file() && metadata.mode() & 0o077 != 0 {
        return Err(FileProblem::Exposed(metadata.mode()));
    }
    // Read into a buffer that never grows, so that no copy stays behind unwiped.
    let mut text = Zeroizing::new(String::with_capacity(LONGEST + 1));
    let most = u64::try_from(LONGEST + 1).unwrap_or(u64::MAX);
    file.by_ref().take(most).read_to_string(&mut text).map_err(FileProblem::Io)?;
    if text.len() > LONGEST { Err(FileProblem::Long) } else { Ok(text) }
}

/// Source: the AWS SDK reference, "Shared config and credentials files".
fn parse(text: &str, profile: &str) -> Result<Credentials, FileProblem> {
    let lacks = |lacks| FileProblem::Profile { name: profile.to_owned(), lacks };
    let (mut inside, mut found) = (false, false);
    let (mut id, mut secret, mut token) = (None, None, None);
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            inside = section.trim() == profile;
            found |= inside;
        } else if let (true, Some((name, value))) = (inside, line.split_once('=')) {
            match name.trim() {
                "aws_access_key_id" => id = Some(value.trim()),
                "aws_secret_access_key" => secret = Some(value.trim()),
                "aws_session_token" => token = Some(value.trim()),
                _ => {}
            }
        }
    }
    if !found {
        return Err(lacks(None));
    }
    let id = id.ok_or_else(|| lacks(Some("aws_access_key_id")))?;
    let secret = secret.ok_or_else(|| lacks(Some("aws_secret_access_key")))?;
    Ok(Credentials::new(id, secret, token))
}

const LONGEST: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const FILE: &str = "# of the machine
[default]
aws_access_key_id = AKIDONE
aws_secret_access_key = first/secret=

[other]
aws_access_key_id=AKIDTWO
aws_secret_access_key=second
aws_session_token=token
region=eu-west-1

[half]
aws_access_key_id=AKIDTHREE
";

    #[test]
    fn the_profile_that_is_named_is_taken() {
        let first = parse(FILE, "default").unwrap();
        assert_eq!((first.access_key_id(), first.secret()), ("AKIDONE", "first/secret="));
        assert_eq!(first.session_token(), None);
        let second = parse(FILE, "other").unwrap();
        assert_eq!(second.session_token(), Some("token"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let none = parse(FILE, "nobody").unwrap_err().to_string();
        assert_eq!(none, "it has no profile [nobody]");
        let half = parse(FILE, "half").unwrap_err().to_string();
        assert_eq!(half, "its profile [half] has no aws_secret_access_key");
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_and_debug_shows_no_secret() {
        let path = std::env::temp_dir().join(format!("kmsfs-{}-credentials", std::process::id()));
        fs::write(&path, FILE).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        let exposed = Credentials::from_file(&path, "default").unwrap_err().to_string();
        assert!(exposed.contains("mode 0640"), "{exposed}");
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        let read = Credentials::from_file(&path, "default").unwrap();
        assert!(!format!("{read:?}").contains("first"));
        fs::remove_file(&path).unwrap();
    }
}

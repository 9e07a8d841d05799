//! Where the secret that opens the keystore comes from, and where a new one comes from.
//!
//! Order: `--key-file`, `--passphrase-fd`, `--token`, `KMSFS_KEY_FILE`, a systemd credential named
//! `kmsfs.key`, a prompt. Never an argument, never the value of a variable.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::prompt::{self, Passphrase};
use crate::cli::args::Global;
use crate::cli::args::keys::NewSecret;
use crate::cli::report::exit::{CliError, Exit};
use crate::cli::report::output::Output;
use crate::keystore::{
    self, CREDENTIAL, KeyFileProblem, KeystoreError, PIN_CREDENTIAL, Pin, TokenRef, Unlock,
};
use crate::sys;

/// The source that a secret is taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) enum Source {
    /// A file that holds the secret.
    KeyFile(PathBuf),
    /// A file descriptor from which a passphrase is read.
    Descriptor(u32),
    /// The credential directory of a systemd unit.
    Credentials(PathBuf),
    /// A token, and the file descriptor from which its PIN is read.
    Token(TokenRef, Option<u32>),
    /// The terminal.
    Prompt,
}

impl Source {
    /// Picks the source for this command.
    ///
    /// Errors: `NoSecret` when nothing is given and nobody can be asked.
    pub(in crate::cli) fn choose(global: &Global) -> Result<Self, CliError> {
        if let Some(path) = &global.key_file {
            return Ok(Self::KeyFile(path.clone()));
        }
        if let Some(descriptor) = global.passphrase_fd {
            return Ok(Self::Descriptor(descriptor));
        }
        if let (Some(module), Some(token)) = (&global.pkcs11_module, &global.token) {
            return Ok(Self::Token(TokenRef::new(module, token), global.pin_fd));
        }
        if let Some(path) = std::env::var_os("KMSFS_KEY_FILE") {
            return Ok(Self::KeyFile(PathBuf::from(path)));
        }
        if let Some(dir) = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from)
            && dir.join(CREDENTIAL).is_file()
        {
            return Ok(Self::Credentials(dir));
        }
        if prompt::has_terminal() {
            return Ok(Self::Prompt);
        }
        Err(CliError::new(Exit::NoSecret, "no secret for the keystore, and no terminal to ask at")
            .advise(
                "add --key-file FILE (with mount --create it is made when missing), \
                 --passphrase-fd N, or --pkcs11-module MODULE --token LABEL --pin-fd N",
            ))
    }

    /// Takes the secret of a keystore that is there.
    pub(in crate::cli) fn take(&self, keystore: &Path) -> Result<Unlock, CliError> {
        match self {
            Self::KeyFile(path) => existing_key_file(path, OTHER_SECRET),
            Self::Descriptor(descriptor) => Ok(Unlock::Passphrase(read_descriptor(*descriptor)?)),
            Self::Credentials(dir) => Ok(Unlock::Credentials(dir.clone())),
            Self::Token(token_ref, descriptor) => {
                Ok(Unlock::Token(token_ref.clone(), pin(token_ref, *descriptor, "--pin-fd")?))
            }
            Self::Prompt => {
                let question = format!("passphrase for {}", keystore.display());
                Ok(Unlock::Passphrase(prompt::passphrase(&question)?))
            }
        }
    }

    /// Takes the secret for what `make` makes. A key file that is made for it stays even if that fails:
    /// somebody may use it by then, the failure may come after a commit, and the next attempt uses the
    /// file.
    pub(in crate::cli) fn with_new<T>(
        &self,
        missing: MissingKeyFile,
        what: &str,
        output: Output,
        make: impl FnOnce(&Unlock) -> Result<T, CliError>,
    ) -> Result<(T, Unlock), CliError> {
        let fresh = self.make_key_file(missing)?;
        let unlock = self.take_new(what)?;
        let made = make(&unlock);
        if let Some(path) = fresh {
            let use_ = match made {
                Ok(_) => format!("it opens {what}, back it up elsewhere"),
                Err(_) => "it stays, and the next try takes it".to_owned(),
            };
            output.note(&format!("made the key file {}: {use_}", path.display()));
        }
        Ok((made?, unlock))
    }

    /// Makes the key file if it is missing and `missing` says so. Gives it back if it did.
    fn make_key_file(&self, missing: MissingKeyFile) -> Result<Option<&Path>, CliError> {
        let Self::KeyFile(path) = self else { return Ok(None) };
        if missing == MissingKeyFile::Refuse || exists(path) {
            return Ok(None);
        }
        match keystore::create_key_file(path) {
            Ok(()) => Ok(Some(path)),
            // Another process has made it since, and it is complete.
            Err(KeystoreError::KeyFile { problem: KeyFileProblem::Io(error), .. })
                if error.kind() == io::ErrorKind::AlreadyExists =>
            {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the secret for something that is about to be made. A prompt asks twice.
    fn take_new(&self, what: &str) -> Result<Unlock, CliError> {
        match self {
            Self::Prompt => Ok(Unlock::Passphrase(prompt::new_passphrase(what)?)),
            Self::Descriptor(descriptor) => {
                let passphrase = read_descriptor(*descriptor)?;
                if passphrase.is_empty() {
                    return Err(empty_passphrase(*descriptor));
                }
                Ok(Unlock::Passphrase(passphrase))
            }
            Self::KeyFile(path) => existing_key_file(path, "'--create-key-file' makes it"),
            Self::Credentials(dir) => Ok(Unlock::Credentials(dir.clone())),
            Self::Token(token_ref, descriptor) => {
                Ok(Unlock::Token(token_ref.clone(), pin(token_ref, *descriptor, "--pin-fd")?))
            }
        }
    }
}

/// The PIN of a token: from a descriptor, systemd's credential, or the terminal.
/// `option` names the descriptor on the command line.
pub(in crate::cli) fn pin(
    token_ref: &TokenRef,
    descriptor: Option<u32>,
    option: &str,
) -> Result<Pin, CliError> {
    if let Some(descriptor) = descriptor {
        return read_descriptor(descriptor).map(Pin::new);
    }
    if let Some(dir) = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from)
        && let Ok(mut file) = File::open(dir.join(PIN_CREDENTIAL))
    {
        let mut text = Zeroizing::new(Vec::with_capacity(LONGEST));
        let read = read_line(&mut file, &mut text);
        read.map_err(|error| CliError::io("cannot read the credential kmsfs.pin", &error))?;
        return Ok(Pin::new(text));
    }
    if prompt::has_terminal() {
        return prompt::passphrase(&format!("PIN of {token_ref}")).map(Pin::new);
    }
    Err(CliError::new(Exit::NoSecret, format!("no PIN for {token_ref}, and no terminal to ask at"))
        .advise(format!("add {option} N, or pass the credential kmsfs.pin")))
}

/// What to do about a key file that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum MissingKeyFile {
    /// Make it with a random secret, mode 0600.
    Make,
    /// Say that it is missing.
    Refuse,
}

/// Where the secret for a slot comes from.
pub(in crate::cli) fn new_secret(args: &NewSecret, what: &str) -> Result<Source, CliError> {
    if let (Some(module), Some(token)) = (&args.new_pkcs11_module, &args.new_token) {
        return Ok(Source::Token(TokenRef::new(module, token), args.new_pin_fd));
    }
    match (&args.new_key_file, args.new_passphrase_fd) {
        (Some(path), _) => Ok(Source::KeyFile(path.clone())),
        (None, Some(descriptor)) => Ok(Source::Descriptor(descriptor)),
        (None, None) if prompt::has_terminal() => Ok(Source::Prompt),
        (None, None) => Err(CliError::new(Exit::NoSecret, format!("no new secret for {what}"))
            .advise("add --new-key-file FILE, --new-passphrase-fd N or --new-token LABEL")),
    }
}

/// Reads a passphrase from an open file descriptor, up to the first newline.
///
/// Each call goes on where the last one ended, whatever kind of file it is.
pub(in crate::cli) fn read_descriptor(descriptor: u32) -> Result<Passphrase, CliError> {
    let name = || format!("cannot read a passphrase from file descriptor {descriptor}");
    let mut text = Zeroizing::new(Vec::with_capacity(LONGEST));
    let number = i32::try_from(descriptor).unwrap_or(-1);
    let copy = sys::copy_of(number).map_err(io::Error::from);
    let read = copy.and_then(|copy| read_line(&mut Unbuffered(copy.as_fd()), &mut text));
    read.map_err(|error| CliError::io(name(), &error))?;
    Ok(text)
}

/// A descriptor as it is. The standard library keeps what it reads from stdin in a buffer that lives
/// as long as the process.
struct Unbuffered<'a>(BorrowedFd<'a>);

impl Read for Unbuffered<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(self.0, into)?)
    }
}

fn read_line(from: &mut impl Read, into: &mut Passphrase) -> io::Result<()> {
    let mut byte = [0];
    while from.read(&mut byte)? == 1 && byte != *b"\n" {
        if into.len() == LONGEST {
            return Err(io::Error::other("the passphrase is longer than 4096 bytes"));
        }
        into.extend_from_slice(&byte);
    }
    Ok(())
}

fn existing_key_file(path: &Path, advice: &str) -> Result<Unlock, CliError> {
    match File::open(path) {
        Ok(_) => Ok(Unlock::KeyFile(path.to_owned())),
        Err(error) => {
            let text = format!("cannot read the key file {}", path.display());
            let mut failure = CliError::io(text, &error);
            failure.exit = Exit::NoSecret;
            Err(failure.advise(advice))
        }
    }
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn empty_passphrase(descriptor: u32) -> CliError {
    CliError::new(Exit::NoSecret, format!("file descriptor {descriptor} gives an empty passphrase"))
}

const LONGEST: usize = 4096;
const OTHER_SECRET: &str =
    "only a secret of the keystore opens it: its key file, or that of another slot";

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    /// A file was read from its beginning each time: the new passphrase was the old one.
    #[test]
    fn regression_a_descriptor_gives_one_line_after_the_other() {
        let path = std::env::temp_dir().join(format!("kmsfs-lines-{}", std::process::id()));
        std::fs::write(&path, "old\nnew\n").unwrap();
        let file = File::open(&path).unwrap();
        let number = u32::try_from(file.as_raw_fd()).unwrap();
        for expected in ["old", "new", ""] {
            assert_eq!(read_descriptor(number).unwrap().as_slice(), expected.as_bytes());
        }
        std::fs::remove_file(path).unwrap();
        assert!(read_descriptor(u32::MAX).is_err());
    }

    #[test]
    fn a_passphrase_ends_at_the_newline() {
        let mut text = Zeroizing::new(Vec::new());
        read_line(&mut &b"open sesame\nrest"[..], &mut text).unwrap();
        assert_eq!(&**text, b"open sesame");
    }

    #[test]
    fn an_endless_passphrase_is_refused() {
        let mut text = Zeroizing::new(Vec::new());
        assert!(read_line(&mut io::repeat(b'x'), &mut text).is_err());
    }

    #[test]
    fn the_key_file_option_wins() {
        let global = Global { key_file: Some("k".into()), ..Global::default() };
        assert_eq!(Source::choose(&global).unwrap(), Source::KeyFile("k".into()));
    }
}

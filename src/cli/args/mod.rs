//! The argument tree: every command, its options and the help with examples.

pub(in crate::cli) mod access;
pub(in crate::cli) mod audit;
pub(in crate::cli) mod helper;
pub(in crate::cli) mod key_store;
pub(in crate::cli) mod keys;
pub(in crate::cli) mod kms;
pub(in crate::cli) mod kms_source;
pub(in crate::cli) mod kms_value;
pub(in crate::cli) mod options;
pub(in crate::cli) mod replica;
pub(in crate::cli) mod serve;
pub(in crate::cli) mod trust;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use access::{AccessKeyCommand, GrantCommand, PrincipalCommand};
use audit::{AuditCommand, MetricsArgs};
use key_store::KeyStoreCommand;
use keys::{AliasCommand, KeyCommand, KeystoreCommand};
use kms::KmsCommand;
use kms_source::KmsArgs;
use options::OPTIONS;
use serve::ServeArgs;
use trust::TrustArgs;

/// Encrypted directories with an embedded key management service.
///
/// Every file is encrypted under its own data key; every data key is wrapped by a named key of
/// the keystore, which can be rotated, disabled and replaced while the files stay where they are.
#[derive(Debug, Parser)]
#[command(name = "kmsfs", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub(in crate::cli) struct Cli {
    /// Options that every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes.
#[derive(Debug, Clone, Default, Args)]
pub(in crate::cli) struct Global {
    /// The keystore file
    ///
    /// Default: $XDG_DATA_HOME/kmsfs/keystore.db (or ~/.local/share/...); for root
    /// /var/lib/kmsfs/keystore.db.
    #[arg(
        long,
        value_name = "FILE",
        env = "KMSFS_KEYSTORE",
        global = true,
        hide_env_values = true
    )]
    pub keystore: Option<PathBuf>,

    /// Unlock the keystore with the secret in FILE [env: KMSFS_KEY_FILE]
    #[arg(long, value_name = "FILE", global = true, conflicts_with = "passphrase_fd")]
    pub key_file: Option<PathBuf>,

    /// Read the passphrase from file descriptor N, up to the first newline
    #[arg(long, value_name = "N", global = true)]
    pub passphrase_fd: Option<u32>,

    /// Unlock the keystore with a key on a token, reached through this PKCS#11 module
    #[arg(
        long,
        value_name = "MODULE",
        global = true,
        requires = "token",
        conflicts_with_all = ["key_file", "passphrase_fd"]
    )]
    pub pkcs11_module: Option<PathBuf>,

    /// The token's label or serial number
    #[arg(long, value_name = "LABEL", global = true, requires = "pkcs11_module")]
    pub token: Option<String>,

    /// Read the token's PIN from file descriptor N; default: credential kmsfs.pin, or a prompt
    #[arg(long, value_name = "N", global = true, requires = "token")]
    pub pin_fd: Option<u32>,

    /// Print results, and errors, as JSON
    #[arg(long, global = true)]
    pub json: bool,

    /// Say more on stderr; twice for more still
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Make an empty vault
    #[command(after_help = "Examples:
  kmsfs init ~/vault
  kmsfs init /srv/vault --key alias/finance --key-file /etc/kmsfs.key")]
    Init(InitArgs),

    /// Mount a vault; returns when the mount is usable
    #[command(after_help = "Examples:
  kmsfs mount --create ~/vault ~/private        first time: makes all that is missing
  kmsfs mount ~/vault ~/private
  kmsfs mount --read-only ~/vault ~/view        for backup programs
  kmsfs mount -o allow_other,noatime --key-file /etc/kmsfs.key /srv/vault /srv/data
  kmsfs mount --kms https://kms.example:8443 --kms-credentials /etc/kmsfs.aws /srv/vault /srv/data")]
    Mount(MountArgs),

    /// Unmount, and return when the vault is released
    #[command(after_help = "Examples:
  kmsfs umount ~/private
  kmsfs umount --lazy ~/private                 vanish now, end with the last open file")]
    Umount(UmountArgs),

    /// Show mounted vaults, or one vault
    #[command(after_help = "Examples:
  kmsfs status
  kmsfs status ~/private --json")]
    Status(StatusArgs),

    /// Keys: create, list, rotate, disable, retire old material, schedule deletion
    #[command(subcommand)]
    Key(KeyCommand),

    /// Tokens that make and keep keys: create, connect, disconnect, list, update, delete
    #[command(subcommand)]
    KeyStore(KeyStoreCommand),

    /// Let somebody use a key for some operations, for some time
    #[command(subcommand)]
    Grant(GrantCommand),

    /// What the account lets users and groups do
    #[command(subcommand)]
    Principal(PrincipalCommand),

    /// Access keys, with which requests over the network are signed
    #[command(subcommand)]
    AccessKey(AccessKeyCommand),

    /// Names for keys
    #[command(subcommand)]
    Alias(AliasCommand),

    /// The keystore itself: unlock slots, backup, check
    #[command(subcommand)]
    Keystore(KeystoreCommand),

    /// Any operation of the AWS KMS API, spelled as in the AWS CLI; prints the answer as JSON
    #[command(
        subcommand,
        after_help = "Examples:
  kmsfs kms create-key --key-spec RSA_2048 --key-usage SIGN_VERIFY
  kmsfs kms encrypt --key-id alias/a --plaintext fileb://secret --encryption-context k=v,k2=v2
  kmsfs kms create-grant --cli-input-json grant.json --dry-run

These do what the API does, at once: kms schedule-key-deletion neither asks nor counts files, as
'kmsfs key schedule-deletion' does."
    )]
    Kms(KmsCommand),

    /// The log of every operation: list, export, verify, retention
    #[command(subcommand)]
    Audit(AuditCommand),

    /// Counters and durations in the text form of Prometheus
    #[command(after_help = "Examples:
  kmsfs metrics ~/private                       what the daemon of this mount counted
  kmsfs metrics                                 keys, overdue rotations, files per key")]
    Metrics(MetricsArgs),

    /// Look for what endangers keys and files, and say what to do about it
    #[command(after_help = "Examples:
  kmsfs doctor
  kmsfs doctor --json

Exit code 15 if there is an error among the findings.")]
    Doctor,

    /// Wrap data keys anew: after a rotation, or to move files to another key
    ///
    /// Only headers are written; contents stay, and so do the times that a mount shows. Works on a
    /// mounted vault too, and may be stopped and started again at any time.
    #[command(after_help = "Examples:
  kmsfs key rotate alias/kmsfs/default && kmsfs rewrap ~/private
  kmsfs rewrap ~/vault --key alias/old --to alias/new  what is under one key
  kmsfs rewrap ~/vault --to alias/new                  everything
  kmsfs rewrap ~/vault --changed-list changed.txt      ciphertext paths, for rsync --files-from")]
    Rewrap(RewrapArgs),

    /// Which key new files of a directory get
    #[command(subcommand)]
    Policy(PolicyCommand),

    /// Take in a directory that was put into a vault from outside
    ///
    /// A directory counts only in the place that it was made for, with the policy that it had
    /// last: what is exchanged, copied or put back from an old backup can be listed and removed, and
    /// nothing else. This says that it is meant to be where it is.
    #[command(after_help = "Examples:
  kmsfs adopt ~/private/restored")]
    Adopt(AdoptArgs),

    /// Check a vault that is not mounted, and repair it
    #[command(after_help = "Examples:
  kmsfs fsck ~/vault
  kmsfs fsck ~/vault --repair")]
    Fsck(FsckArgs),

    /// Write one file of a vault to stdout, without mounting
    #[command(after_help = "Examples:
  kmsfs cat ~/vault notes/todo.txt
  kmsfs cat ~/vault backup.tar | tar -x")]
    Cat(CatArgs),

    /// Serve the keystore to clients of AWS KMS: boto3, the AWS CLI, the AWS SDKs
    #[command(after_help = crate::cli::args::serve::EXAMPLES)]
    Serve(ServeArgs),
}

/// `kmsfs init`.
#[derive(Debug, Args)]
pub(in crate::cli) struct InitArgs {
    /// The directory to make into a vault: missing or empty
    pub vault: PathBuf,
    /// The key for its files
    #[arg(long, value_name = "KEY", default_value = DEFAULT_ALIAS)]
    pub key: String,
    /// Where data keys come from
    #[command(flatten)]
    pub kms: KmsArgs,
}

/// `kmsfs mount`.
#[derive(Debug, Default, Args)]
pub(in crate::cli) struct MountArgs {
    /// Make what is missing: key file, keystore, default key, vault, mountpoint
    #[arg(long)]
    pub create: bool,
    /// Stay in the foreground and log to stderr
    #[arg(short, long)]
    pub foreground: bool,
    /// Refuse every change
    #[arg(short, long)]
    pub read_only: bool,
    /// Mount a vault that other users may enter
    ///
    /// Whoever owns a directory in it can then exchange, replace and remove what others keep there.
    #[arg(long)]
    pub allow_open_vault: bool,
    /// Mount options, as in fstab(5)
    #[arg(short, long = "options", value_name = "OPTIONS", long_help = OPTIONS)]
    pub options: Vec<String>,
    /// What is believed of the vault's own records
    #[command(flatten)]
    pub trust: TrustArgs,
    /// Where data keys come from
    #[command(flatten)]
    pub kms: KmsArgs,
    /// The encrypted directory
    pub vault: PathBuf,
    /// Where the plaintext view appears
    pub mountpoint: PathBuf,
    /// Started by another kmsfs, which waits on stdout
    #[arg(long, hide = true)]
    pub detached: bool,
}

/// `kmsfs umount`.
#[derive(Debug, Args)]
pub(in crate::cli) struct UmountArgs {
    /// The mountpoint
    pub mountpoint: PathBuf,
    /// Detach now; the daemon ends when the last open file is closed
    #[arg(long)]
    pub lazy: bool,
    /// Cut off a daemon that hangs: what was not synced may be lost
    #[arg(long)]
    pub force: bool,
    /// It is no error if nothing is mounted there
    #[arg(long)]
    pub if_mounted: bool,
    /// Seconds to wait until the vault is released
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub timeout: u64,
}

/// `kmsfs status`.
#[derive(Debug, Args)]
pub(in crate::cli) struct StatusArgs {
    /// A vault or a mountpoint; without it, all mounts of kmsfs
    pub target: Option<PathBuf>,
}

/// `kmsfs rewrap`.
#[derive(Debug, Args)]
pub(in crate::cli) struct RewrapArgs {
    /// A vault or a mountpoint
    pub target: PathBuf,
    /// Only files under this key
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Move to this key: what is under --key, or everything
    #[arg(long, value_name = "KEY")]
    pub to: Option<String>,
    /// Also files under a key that their directory does not accept
    ///
    /// Somebody put such a file there behind the back of the mount, and the re-wrap reports it. With
    /// this it gets the key of the directory, whose users can then read it.
    #[arg(long)]
    pub take_in: bool,
    /// Write the ciphertext path of each changed file to FILE
    #[arg(long, value_name = "FILE")]
    pub changed_list: Option<PathBuf>,
    /// Where data keys come from
    #[command(flatten)]
    pub kms: KmsArgs,
}

/// `kmsfs adopt`.
#[derive(Debug, Args)]
pub(in crate::cli) struct AdoptArgs {
    /// A directory inside a mount
    pub dir: PathBuf,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// `kmsfs policy`.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum PolicyCommand {
    /// Give a directory its own key; subdirectories made later inherit it
    ///
    /// Files that are there already keep their key: `kmsfs rewrap` moves them to their directory's.
    #[command(after_help = "Examples:
  kmsfs policy set ~/private/finance --key alias/finance")]
    Set {
        /// A directory inside a mount
        dir: PathBuf,
        /// The key
        #[arg(long, value_name = "KEY")]
        key: String,
        /// What happens to a file that is moved here from a directory with another key: its header is
        /// re-wrapped, the move is refused (and mv copies), or it keeps its key
        #[arg(long, value_parser = ["rewrap", "exdev", "keep"])]
        cross: Option<String>,
    },
    /// Show the key of a directory and where it comes from
    Show {
        /// A directory inside a mount
        dir: PathBuf,
    },
}

/// `kmsfs fsck`.
#[derive(Debug, Args)]
pub(in crate::cli) struct FsckArgs {
    /// The vault
    pub vault: PathBuf,
    /// Repair what has a second copy, and remove what a crash left unfinished
    #[arg(long)]
    pub repair: bool,
    /// The record of the vault's sessions was lost, or a backup mounted without --restored: believe
    /// what is half written
    ///
    /// The last resort. With --repair, whatever looks like the trace of a crash is taken for one
    /// and written anew, in every file; and whoever could write to the vault may have made it look
    /// so. Files whose bytes are not authentic stay unreadable.
    #[arg(long, requires = "repair")]
    pub accept_residue: bool,
    /// What is believed of the vault's own records
    #[command(flatten)]
    pub trust: TrustArgs,
    /// Where data keys come from
    #[command(flatten)]
    pub kms: KmsArgs,
}

/// `kmsfs cat`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CatArgs {
    /// The vault
    pub vault: PathBuf,
    /// The plaintext path inside it
    pub path: PathBuf,
    /// Where data keys come from
    #[command(flatten)]
    pub kms: KmsArgs,
}

const EXAMPLES: &str = "Examples:
  kmsfs mount --create ~/vault ~/private      make everything and mount it
  kmsfs umount ~/private
  kmsfs key rotate alias/kmsfs/default        new key material for new files
  kmsfs rewrap ~/vault                        and for all the files that are there
  kmsfs keystore export backup.kmsfs          without the keystore the files are lost: back it up

Secrets come from --key-file, KMSFS_KEY_FILE (which names a file), --passphrase-fd,
--pkcs11-module with --pin-fd, systemd credentials (kmsfs.key, kmsfs.pin) or a prompt;
the secret itself never stands in an argument or a variable.";

/// The key of a vault for which no other was named.
pub(in crate::cli) const DEFAULT_ALIAS: &str = "alias/kmsfs/default";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_tree_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_stand_before_or_after_the_command() {
        for line in [
            "kmsfs --json --key-file k mount --create v m",
            "kmsfs mount --create v m --json --key-file k",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert!(cli.global.json);
            assert_eq!(cli.global.key_file, Some(PathBuf::from("k")));
        }
    }

    /// The first command for clients of AWS KMS was refused.
    #[test]
    fn regression_every_example_of_help_and_documents_is_a_command() {
        let mut texts: Vec<String> = [
            include_str!("../../../README.md"),
            include_str!("../../../docs/AUDIT.md"),
            include_str!("../../../docs/KMS_API.md"),
            include_str!("../../../docs/OPERATIONS.md"),
            include_str!("../../../docs/REFERENCE.md"),
            include_str!("../../../docs/SEMANTICS.md"),
        ]
        .map(blocks_of_code)
        .into();
        collect_help(&Cli::command(), &mut texts);
        let (mut seen, mut wrong) = (0, Vec::new());
        for line in texts.iter().flat_map(|text| text.lines()) {
            let Some(words) = words_of_example(line) else { continue };
            seen += 1;
            if let Err(error) = Cli::try_parse_from(&words) {
                wrong.push(format!("{line}\n{error}"));
            }
        }
        assert!(seen > 80, "only {seen} examples were found");
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    fn blocks_of_code(page: &str) -> String {
        page.split("```").skip(1).step_by(2).collect()
    }

    fn collect_help(command: &clap::Command, texts: &mut Vec<String>) {
        texts.extend(command.get_after_help().map(ToString::to_string));
        command.get_subcommands().for_each(|command| collect_help(command, texts));
    }

    /// The words of a line that calls kmsfs, without the remark after it and what a shell does.
    fn words_of_example<'a>(line: &'a str) -> Option<Vec<&'a str>> {
        let line = line.trim();
        let call = line.starts_with("kmsfs ").then_some(line)?;
        let call = call.split("  ").next()?.split(" #").next()?;
        let unquoted = |(n, part): (usize, &'a str)| match n % 2 {
            0 => part.split_ascii_whitespace().collect(),
            _ => vec![part],
        };
        let words = call.split('\'').enumerate().flat_map(unquoted);
        let of_the_shell = |word: &str| word.ends_with(['<', '>', '|', '&', '\\']);
        Some(words.take_while(|word| !of_the_shell(word)).collect())
    }

    #[test]
    fn two_secrets_at_once_are_refused() {
        let line = "kmsfs status --key-file k --passphrase-fd 3";
        assert!(Cli::try_parse_from(line.split(' ')).is_err());
    }
}

//! The argument tree below `key`, `alias` and `keystore`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::access::KeyPolicyCommand;
use super::audit::{MaintainArgs, Switch};
use super::replica::{ReceiveArgs, SendArgs};

/// `kmsfs key`.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum KeyCommand {
    /// Make a key
    #[command(after_help = "Examples:
  kmsfs key create --alias alias/finance --description 'books 2026'
  kmsfs key create --alias alias/hr --tag team=people --rotate-every 180")]
    Create(CreateKeyArgs),
    /// List keys, their states and aliases
    List,
    /// Show one key, its material and its tags
    Describe {
        /// Key id, ARN or alias/NAME
        key: String,
    },
    /// Let a disabled key be used again; live mounts get their files back
    Enable {
        /// Key id, ARN or alias/NAME
        key: String,
    },
    /// Forbid every use; live mounts notice within a second
    Disable {
        /// Key id, ARN or alias/NAME
        key: String,
    },
    /// Make new material now; old material stays for reading until it is retired
    #[command(after_help = "Files keep their old material until they are re-wrapped:
  kmsfs key rotate alias/kmsfs/default && kmsfs rewrap ~/vault")]
    Rotate {
        /// Key id, ARN or alias/NAME
        key: String,
    },
    /// Show or set automatic rotation
    Rotation {
        /// Key id, ARN or alias/NAME
        key: String,
        /// Rotate every DAYS days (90 to 2560)
        #[arg(long, value_name = "DAYS", conflicts_with = "disable")]
        every: Option<u32>,
        /// Stop automatic rotation
        #[arg(long)]
        disable: bool,
    },
    /// Who may do what with a key
    #[command(subcommand)]
    Policy(KeyPolicyCommand),
    /// Destroy a key, and with it every file that needs it, after a waiting period
    ///
    /// Says how many files of which known vaults would be lost, and which access keys may have made
    /// vaults on other hosts, which nobody here knows; then it asks. From now on the key cannot be
    /// used; `cancel-deletion` brings it back until the period is over.
    #[command(after_help = "Examples:
  kmsfs key schedule-deletion alias/finance
  kmsfs key schedule-deletion alias/finance --days 7 --vault /mnt/stick/vault")]
    ScheduleDeletion(DeletionArgs),
    /// Take back a scheduled deletion; the key is disabled afterwards
    CancelDeletion {
        /// Key id, ARN or alias/NAME
        key: String,
    },
    /// Destroy the keys whose waiting period is over
    ///
    /// Mounts do this by themselves once an hour. When the clock has moved by more than two days since
    /// it was last seen, that time does not count: keys wait that much longer, unless somebody confirms
    /// the clock.
    #[command(after_help = "Examples:
  kmsfs key delete-expired
  kmsfs key delete-expired --confirm-clock")]
    DeleteExpired {
        /// The clock of this machine is right
        #[arg(long)]
        confirm_clock: bool,
    },
    /// Seal a multi-Region key for another keystore, which gets a replica
    #[command(after_help = "Examples:
  kmsfs key replicate alias/finance --to transfer-key --output sealed")]
    Replicate(SendArgs),
    /// Seal the material of a multi-Region key for one of its replicas, after a rotation
    #[command(after_help = "Examples:
  there:  kmsfs keystore transfer-key to-there
  here:   kmsfs key sync alias/finance --to to-there --output sealed
  there:  kmsfs key receive sealed")]
    Sync(SendArgs),
    /// Make the replica in another keystore the primary key
    UpdatePrimary(SendArgs),
    /// Take a key that another keystore sealed for this one
    #[command(after_help = "Examples:
  kmsfs key receive sealed                                shows who sealed it, and asks
  kmsfs key receive sealed --fingerprint 1a2b-3c4d")]
    Receive(ReceiveArgs),
    /// Note that a replica is gone, so that the deletion of its primary key does not wait for it
    ForgetReplica {
        /// Key id, ARN or alias/NAME
        key: String,
        /// The Region of the replica
        #[arg(long)]
        region: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Destroy old material that no file needs any more
    ///
    /// Scans every vault that the keystore knows and refuses while a header still refers to the
    /// material. Vaults on other hosts, with keys from here over --kms, are not known: while an
    /// access key for volumes exists, or did, it refuses too, unless --other-hosts-checked says that
    /// they were re-wrapped. What programs have encrypted with the material is not known either:
    /// then it takes --ciphertexts-checked. After 'keystore repair' it takes all three, and
    /// --lost-vaults-checked: vaults may be forgotten. So may copies, once a vault was seen at more than
    /// 128 other paths.
    #[command(after_help = "Examples:
  kmsfs key rotate alias/finance && kmsfs rewrap ~/vault && kmsfs key retire alias/finance
  kmsfs key retire alias/finance --vault /mnt/stick/vault
  kmsfs key retire alias/finance --other-hosts-checked")]
    Retire(RetireArgs),
}

/// `kmsfs key create`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CreateKeyArgs {
    /// A name for it: alias/NAME
    #[arg(long, value_name = "ALIAS")]
    pub alias: Option<String>,
    /// What it is for
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub description: String,
    /// A tag; may be given several times
    #[arg(long = "tag", value_name = "KEY=VALUE")]
    pub tags: Vec<String>,
    /// Rotate every DAYS days (90 to 2560)
    #[arg(long, value_name = "DAYS")]
    pub rotate_every: Option<u32>,
    /// Make it on the token of this key store, by name or id
    #[arg(long, value_name = "STORE", conflicts_with = "rotate_every")]
    pub key_store: Option<String>,
    /// Let it be replicated to other keystores
    #[arg(long)]
    pub multi_region: bool,
}

/// `kmsfs key schedule-deletion`.
#[derive(Debug, Args)]
pub(in crate::cli) struct DeletionArgs {
    /// Key id, ARN or alias/NAME
    pub key: String,
    /// Days until it is destroyed (7 to 30)
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    pub days: u32,
    /// A vault to look into besides those the keystore knows; may be given several times
    #[arg(long = "vault", value_name = "VAULT")]
    pub vaults: Vec<PathBuf>,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

/// `kmsfs key retire`.
#[derive(Debug, Args)]
pub(in crate::cli) struct RetireArgs {
    /// Key id, ARN or alias/NAME
    pub key: String,
    /// Only this material; default: all but the current
    #[arg(long, value_name = "ID")]
    pub material: Option<String>,
    /// A vault to look into besides those the keystore knows; may be given several times
    #[arg(long = "vault", value_name = "VAULT")]
    pub vaults: Vec<PathBuf>,
    /// No vault on another host needs it: vaults with keys from here over --kms are not known here
    #[arg(long)]
    pub other_hosts_checked: bool,
    /// No program needs it: what was encrypted with it over the KMS's API is not known here
    #[arg(long)]
    pub ciphertexts_checked: bool,
    /// No vault or copy needs it that the keystore may have forgotten, as 'keystore status' tells
    #[arg(long)]
    pub lost_vaults_checked: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

/// `kmsfs alias`.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum AliasCommand {
    /// Give a key a name
    Create {
        /// alias/NAME
        alias: String,
        /// Key id or ARN
        key: String,
    },
    /// Let a name mean another key; files keep the key they have
    Update {
        /// alias/NAME
        alias: String,
        /// Key id or ARN
        key: String,
    },
    /// Remove a name; the key stays
    Delete {
        /// alias/NAME
        alias: String,
    },
    /// List names
    List,
}

/// `kmsfs keystore`.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum KeystoreCommand {
    /// Make an empty keystore
    #[command(after_help = "Examples:
  kmsfs keystore init                                     asks for a passphrase
  kmsfs keystore init --key-file /etc/kmsfs.key --create-key-file")]
    Init {
        /// Make the key file, mode 0600, when it is missing
        #[arg(long)]
        create_key_file: bool,
        /// The Region that it is, for keys that several keystores have
        #[arg(long, value_name = "NAME")]
        region: Option<String>,
    },
    /// Show what other keystores know this one by
    Identity,
    /// Make a key that another keystore can seal one KMS key for, within a day
    #[command(after_help = "Examples:
  here:   kmsfs keystore transfer-key to-here
  there:  kmsfs key replicate alias/finance --to to-here --output sealed
  here:   kmsfs key receive sealed")]
    TransferKey {
        /// The file to write; must not exist
        file: PathBuf,
    },
    /// Show where it is, what is in it, and which vaults it knows
    Status,
    /// Unlock slots: passphrases and key files that open the keystore
    #[command(subcommand)]
    Slots(SlotsCommand),
    /// Write an encrypted copy of everything, under a passphrase of its own
    #[command(after_help = "Examples:
  kmsfs keystore export kmsfs-backup                      asks for the passphrase of the copy
  kmsfs keystore export kmsfs-backup --export-passphrase-fd 3 3< passphrase")]
    Export {
        /// The file to write; must not exist
        file: PathBuf,
        /// Read the passphrase of the copy from file descriptor N
        #[arg(long, value_name = "N")]
        export_passphrase_fd: Option<u32>,
    },
    /// Make a keystore from an exported copy
    ///
    /// The usual options name the secret of the new keystore; a key file that is missing is made.
    #[command(after_help = "Examples:
  kmsfs keystore import kmsfs-backup                      asks for the passphrase of the copy
  kmsfs keystore import kmsfs-backup --key-file /etc/kmsfs.key --export-passphrase-fd 3 3< passphrase")]
    Import {
        /// The exported file
        file: PathBuf,
        /// Read the passphrase of the copy from file descriptor N
        #[arg(long, value_name = "N")]
        export_passphrase_fd: Option<u32>,
    },
    /// Forget a vault that is gone for good: it does not hold back `key retire` any more
    #[command(after_help = "Examples:
  kmsfs keystore status                                   shows the volumes
  kmsfs keystore forget 0123456789abcdef0123456789abcdef")]
    Forget {
        /// The volume, as `keystore status` shows it
        volume: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Say that the keystore knows every vault, and every copy of one, again
    ///
    /// After 'keystore repair', or once a vault was seen at more paths than are remembered, 'key retire'
    /// takes --lost-vaults-checked. Mount every vault, and every copy that is to be readable, once: that
    /// makes it known. This looks into all that are known, shows them, and ends it.
    ConfirmVaults {
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Do what is due by date, look into the vaults, sign the audit log: for a timer
    ///
    /// Rotates keys whose date has come, destroys those whose waiting period is over, counts which
    /// files need which key, and re-wraps the vaults that are set to it.
    Maintain(MaintainArgs),
    /// Let the files of a vault follow every rotation of their key, or not
    ///
    /// The daemon of its mount does it, or `kmsfs keystore maintain`.
    RewrapAfterRotate {
        /// A vault that this keystore knows, or its mountpoint
        vault: PathBuf,
        /// on or off
        mode: Switch,
    },
    /// Check every row
    Verify,
    /// Accept a keystore that was damaged or tampered with, without what is not authentic
    ///
    /// The last resort when there is no backup: names, vaults, slots, grants, access keys
    /// and policies of users that are not authentic are removed; everything else is taken as it is now.
    /// A user or group whose policies are removed is refused everything, until 'kmsfs principal policy
    /// delete WHO lost-in-a-repair'. What is gone altogether is not missed, also if it was a Deny.
    #[command(after_help = "Examples:
  kmsfs keystore verify                                   what is wrong
  cp keystore.db keystore.damaged && kmsfs keystore repair")]
    Repair {
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

/// `kmsfs keystore slots`.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum SlotsCommand {
    /// List the slots
    List,
    /// Add a way to unlock
    #[command(after_help = "Examples:
  kmsfs keystore slots add                                asks for the new passphrase
  kmsfs keystore slots add --new-key-file /media/stick/kmsfs.key
  kmsfs keystore slots add --new-pkcs11-module /usr/lib/softhsm/libsofthsm2.so --new-token safe")]
    Add(NewSecret),
    /// Remove a way to unlock; never the last one
    #[command(after_help = "Examples:
  kmsfs keystore slots list                               shows the numbers
  kmsfs keystore slots remove 2")]
    Remove {
        /// The number of the slot
        slot: i64,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Replace a slot by a new secret in one step: how to change a passphrase
    #[command(after_help = "Examples:
  kmsfs keystore slots change 1                           asks for the new passphrase
  kmsfs keystore slots change 1 --new-key-file /etc/kmsfs.new.key")]
    Change {
        /// The number of the slot to replace
        slot: i64,
        #[command(flatten)]
        secret: NewSecret,
    },
}

/// Where a new secret comes from; a prompt that asks twice when nothing is given.
#[derive(Debug, Default, Clone, Args)]
pub(in crate::cli) struct NewSecret {
    /// The new secret is this key file; made with mode 0600 when missing
    #[arg(long, value_name = "FILE", conflicts_with = "new_passphrase_fd")]
    pub new_key_file: Option<PathBuf>,
    /// Read the new passphrase from file descriptor N
    #[arg(long, value_name = "N")]
    pub new_passphrase_fd: Option<u32>,
    /// The new secret is a key that is made on a token, reached through this PKCS#11 module
    #[arg(
        long,
        value_name = "MODULE",
        requires = "new_token",
        conflicts_with_all = ["new_key_file", "new_passphrase_fd"]
    )]
    pub new_pkcs11_module: Option<PathBuf>,
    /// The label or serial number of that token
    #[arg(long, value_name = "LABEL", requires = "new_pkcs11_module")]
    pub new_token: Option<String>,
    /// Read the PIN of that token from file descriptor N; default: a prompt
    #[arg(long, value_name = "N", requires = "new_token")]
    pub new_pin_fd: Option<u32>,
}

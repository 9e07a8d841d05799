//! The argument tree of who may do what: key policies, grants, principals, access keys.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::keystore::GrantOperation;

/// `kmsfs key policy`.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum KeyPolicyCommand {
    /// Print the policy of a key
    Show {
        /// Key id, ARN or alias/NAME
        key: String,
    },
    /// Give a key another policy; live mounts notice within a second
    #[command(after_help = "Examples:
  kmsfs key policy show alias/hr > hr.json && $EDITOR hr.json
  kmsfs key policy set alias/hr hr.json
  kmsfs key policy set alias/hr --default               what a new key has")]
    Set {
        /// Key id, ARN or alias/NAME
        key: String,
        /// The policy, as JSON in AWS's policy language; - reads it from stdin
        #[arg(required_unless_present = "default", conflicts_with = "default")]
        file: Option<PathBuf>,
        /// Go back to the policy of a new key
        #[arg(long)]
        default: bool,
    },
}

/// `kmsfs grant`.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum GrantCommand {
    /// Let somebody use a key for some operations
    #[command(after_help = WHO_HELP)]
    Create(CreateGrantArgs),
    /// List the grants of a key, or those that somebody may retire
    #[command(after_help = "Examples:
  kmsfs grant list alias/hr
  kmsfs grant list alias/hr --to backup
  kmsfs grant list --retirable-by uid:1000")]
    List {
        /// Key id, ARN or alias/NAME
        #[arg(required_unless_present = "retirable_by")]
        key: Option<String>,
        /// Only those for this principal
        #[arg(long, value_name = "WHO", conflicts_with = "retirable_by")]
        to: Option<String>,
        /// Those of all keys that this principal may retire because they say so
        #[arg(long, value_name = "WHO", conflicts_with = "key")]
        retirable_by: Option<String>,
    },
    /// Take back a grant; live mounts notice within a second
    Revoke {
        /// Key id, ARN or alias/NAME
        key: String,
        /// The id of the grant, as `grant list` shows it
        grant: String,
    },
    /// Give back a grant that is not needed any more, by its id or its token
    #[command(after_help = "Examples:
  kmsfs grant retire alias/hr 3f0c...
  kmsfs grant retire --token AbC...")]
    Retire {
        /// Key id, ARN or alias/NAME
        #[arg(required_unless_present = "token", requires = "grant")]
        key: Option<String>,
        /// The id of the grant, as `grant list` shows it
        grant: Option<String>,
        /// The token that `grant create` printed
        #[arg(long, value_name = "TOKEN", conflicts_with = "key")]
        token: Option<String>,
    },
}

/// `kmsfs grant create`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CreateGrantArgs {
    /// Key id, ARN or alias/NAME
    pub key: String,
    /// Whom it is for
    #[arg(long, value_name = "WHO")]
    pub to: String,
    /// What it allows, separated by commas; read and write are short for what a mount needs
    #[arg(long, value_name = "OPERATIONS", value_delimiter = ',', required = true,
        value_parser = operations)]
    pub operations: Vec<Operations>,
    /// A pair that the encryption context must have; may be given several times
    #[arg(long = "context", value_name = "KEY=VALUE")]
    pub context: Vec<String>,
    /// The context must have these pairs and no others
    #[arg(long, requires = "context")]
    pub exact: bool,
    /// Who may retire it
    #[arg(long, value_name = "WHO")]
    pub retiring: Option<String>,
    /// A name: running the same command again makes no second grant
    #[arg(long)]
    pub name: Option<String>,
    /// When it ends: after 30d, 12h or 90m, or at 2026-12-31 or 2026-12-31T18:00:00Z
    #[arg(long, value_name = "WHEN")]
    pub expires: Option<String>,
}

/// One word of `--operations`.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Operations(pub Vec<GrantOperation>);

/// `kmsfs principal`.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum PrincipalCommand {
    /// List users and groups that have policies
    List,
    /// Policies of a user or group: what the account lets them do
    #[command(subcommand)]
    Policy(PrincipalPolicyCommand),
}

/// `kmsfs principal policy`.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum PrincipalPolicyCommand {
    /// Give a user or group a policy, or replace the one with the same name
    #[command(after_help = "Examples:
  kmsfs principal policy put uid:1000 use-hr use-hr.json
  kmsfs principal policy put gid:27 list - < list.json

The policy is JSON in AWS's policy language, without Principal. It counts for keys whose own
policy names the account (arn:aws:iam::000000000000:root), as that of a new key does.")]
    Put {
        /// root, user:NAME, uid:N, gid:N, an ARN, or a user of this machine
        who: String,
        /// The name of the policy
        name: String,
        /// The policy; - reads it from stdin
        file: PathBuf,
    },
    /// Print a policy
    Get {
        /// root, user:NAME, uid:N, gid:N, an ARN, or a user of this machine
        who: String,
        /// The name of the policy
        name: String,
    },
    /// Remove a policy
    Delete {
        /// root, user:NAME, uid:N, gid:N, an ARN, or a user of this machine
        who: String,
        /// The name of the policy
        name: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// List the policies of a user or group
    List {
        /// root, user:NAME, uid:N, gid:N, an ARN, or a user of this machine
        who: String,
    },
}

/// `kmsfs access-key`.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum AccessKeyCommand {
    /// Make an access key, and show its secret this once
    #[command(after_help = "Examples:
  kmsfs access-key create --user ci
  kmsfs access-key create --user ci --credentials-file ci.aws     AWS_SHARED_CREDENTIALS_FILE
  kmsfs access-key create --user host2 --for-volumes --expires 90d")]
    Create(CreateAccessKeyArgs),
    /// List access keys, without their secrets
    List,
    /// Let an access key be used again
    Enable {
        /// Its id
        id: String,
    },
    /// Refuse an access key until it is enabled again
    Disable {
        /// Its id
        id: String,
    },
    /// Remove an access key for good
    Delete {
        /// Its id
        id: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

/// `kmsfs access-key create`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CreateAccessKeyArgs {
    /// The user who signs with it; policies name arn:aws:iam::000000000000:user/NAME
    #[arg(long, value_name = "NAME", required_unless_present = "root")]
    pub user: Option<String>,
    /// It acts for the root of the account
    #[arg(long, conflicts_with = "user")]
    pub root: bool,
    /// A volume on another machine takes its keys with it
    #[arg(long)]
    pub for_volumes: bool,
    /// When it ends: after 30d, 12h or 90m, or at 2026-12-31 or 2026-12-31T18:00:00Z
    #[arg(long, value_name = "WHEN")]
    pub expires: Option<String>,
    /// Write id and secret to this new file, mode 0600, as AWS's tools read it
    #[arg(long, value_name = "FILE")]
    pub credentials_file: Option<PathBuf>,
}

/// The operations that a word means.
fn operations(word: &str) -> Result<Operations, String> {
    use GrantOperation::{Decrypt, DescribeKey, GenerateDataKey, ReEncryptFrom, ReEncryptTo};
    let meant = match word {
        "read" => vec![Decrypt, DescribeKey],
        "write" => vec![Decrypt, DescribeKey, GenerateDataKey, ReEncryptFrom, ReEncryptTo],
        name => {
            vec![name.parse().map_err(|_| format!("use read, write, or some of: {}", names()))?]
        }
    };
    Ok(Operations(meant))
}

fn names() -> String {
    let names: Vec<&str> = GrantOperation::ALL.iter().map(|operation| operation.as_str()).collect();
    names.join(", ")
}

const WHO_HELP: &str = "WHO is one of:
  backup        a user of this machine
  uid:1000      a user of this machine, by number
  gid:27        a group of this machine, by number
  user:ci       a user with an access key
  root          the account
  arn:aws:iam::000000000000:user/...

Examples:
  kmsfs grant create alias/hr --to backup --operations read --expires 8h
  kmsfs grant create alias/app --to user:ci --operations Encrypt,Decrypt --context app=web";

//! Keys that several keystores have: `kmsfs keystore transfer-key`, `kmsfs key replicate`,
//! `receive`, `sync`, `update-primary`, `forget-replica`.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::SystemTime;

use serde_json::json;

use crate::cli::args::replica::{Other, ReceiveArgs, SendArgs};
use crate::cli::env::keystore::key_id;
use crate::cli::env::mounts::mountinfo::text;
use crate::cli::env::prompt;
use crate::cli::report::exit::{CliError, Exit};
use crate::cli::report::output::{Output, to_value};
use crate::keystore::{
    KeyRef, Keystore, KeystoreError, ReplicaProperties, Transfer, TransferKey, TransferKind, Trust,
};

/// Shows what other keystores know this one by.
pub(in crate::cli) fn identity(keystore: &Keystore, output: Output) -> Result<(), CliError> {
    let (region, fingerprint) = (keystore.region()?, keystore.fingerprint());
    let value = json!({
        "region": region, "fingerprint": fingerprint, "identity": keystore.identity(),
    });
    output.result(&value, || format!("region {region}, identity {fingerprint}"));
    Ok(())
}

/// Writes a key that one KMS key can be sealed for.
pub(in crate::cli) fn transfer_key(
    keystore: &Keystore,
    file: &Path,
    output: Output,
) -> Result<(), CliError> {
    let key = keystore.create_transfer_key(SystemTime::now())?;
    write(file, &key.to_string())?;
    output.result(&json!({ "file": text(file), "fingerprint": key.fingerprint() }), || {
        format!(
            "wrote {}: one key can be sealed for it, within a day; its identity is {}",
            file.display(),
            key.fingerprint()
        )
    });
    Ok(())
}

/// Seals a key for another keystore.
pub(in crate::cli) fn send(
    keystore: &Keystore,
    kind: TransferKind,
    args: &SendArgs,
    output: Output,
) -> Result<(), CliError> {
    let id = key_id(keystore, &args.key)?;
    let to: TransferKey = read(&args.to)?.parse()?;
    compare(&args.other, &to.fingerprint(), &format!("the keystore of Region {}", to.region))?;
    if args.output.symlink_metadata().is_ok() {
        return Err(KeystoreError::Exists(args.output.clone()).into());
    }
    let transfer = match kind {
        TransferKind::Replica => keystore.replicate_key(id, &to, ReplicaProperties::default()),
        TransferKind::Sync => keystore.sync_replica(id, &to),
        TransferKind::Primary => keystore.update_primary_region(id, &to),
    }?;
    write(&args.output, &transfer.to_string())?;
    output.result(&json!({ "KeyId": id.to_string(), "file": text(&args.output) }), || {
        format!(
            "sealed key {id} for Region {} in {}: 'kmsfs key receive' opens it there, once",
            to.region,
            args.output.display()
        )
    });
    Ok(())
}

/// Takes a key that another keystore sealed.
pub(in crate::cli) fn receive(
    keystore: &Keystore,
    args: &ReceiveArgs,
    output: Output,
) -> Result<(), CliError> {
    let transfer: Transfer = read(&args.file)?.parse()?;
    let trust = match (transfer.kind, &args.other.fingerprint) {
        // Who it is was compared when the replica was made.
        (TransferKind::Sync | TransferKind::Primary, None) => Trust::Known,
        _ => {
            let whose = format!("the keystore of Region {}", transfer.from);
            compare(&args.other, &transfer.fingerprint(), &whose)?;
            Trust::Compared
        }
    };
    let received = keystore.receive_key(&transfer, &trust, SystemTime::now())?;
    output.result(&to_value(&received.metadata)?, || {
        let what = match received.kind {
            TransferKind::Replica => "is here now, as a replica",
            TransferKind::Sync => "has the material of its primary key",
            TransferKind::Primary => "is the primary key now",
        };
        format!("key {} {what}", received.metadata.key_id)
    });
    Ok(())
}

/// Notes that a replica is gone.
pub(in crate::cli) fn forget(
    keystore: &Keystore,
    named: &str,
    region: &str,
    yes: bool,
    output: Output,
) -> Result<(), CliError> {
    let id = key_id(keystore, named)?;
    let warning = format!("the deletion of key {id} will not wait for a replica in {region}");
    prompt::confirm(&warning, yes)?;
    keystore.forget_replica(id, region, SystemTime::now())?;
    let shown = keystore.describe_key(&KeyRef::Id(id))?;
    output.result(&to_value(&shown)?, || format!("key {id} is {}", shown.key_state));
    Ok(())
}

/// Is the other keystore the one that is meant?
fn compare(other: &Other, found: &str, whose: &str) -> Result<(), CliError> {
    match &other.fingerprint {
        Some(expected) if expected.trim() == found => Ok(()),
        Some(_) => Err(CliError::new(
            Exit::Refused,
            format!("{whose} has the identity {found}, not the expected one"),
        )),
        None => {
            let warning = format!(
                "{whose} has the identity {found}: compare it with what 'kmsfs keystore identity' \
                 shows there"
            );
            prompt::confirm(&warning, other.yes)
        }
    }
}

fn read(file: &Path) -> Result<String, CliError> {
    fs::read_to_string(file)
        .map_err(|error| CliError::io(format!("cannot read {}", file.display()), &error))
}

/// Both kinds of files are safe to show, and still nobody's business.
fn write(file: &Path, contents: &str) -> Result<(), CliError> {
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).and_then(
        |mut open| {
            writeln!(open, "{contents}")?;
            open.sync_all()
        },
    );
    written.map_err(|error| CliError::io(format!("cannot write {}", file.display()), &error))
}

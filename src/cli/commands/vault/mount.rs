//! `kmsfs mount`: checks, creation of what is missing, and then the daemon.

use std::path::PathBuf;
use std::process::Command;

use rustix::mount::MountFlags;

use super::{create, preflight};
use crate::cli::args::kms_source::KmsArgs;
use crate::cli::args::options::MountOptions;
use crate::cli::args::{Global, MountArgs};
use crate::cli::daemon;
use crate::cli::daemon::background::{self, Started};
use crate::cli::daemon::plan::Plan;
use crate::cli::env::keys_from::KeysFrom;
use crate::cli::env::mounts::mountinfo::Mounted;
use crate::cli::env::mounts::mountpoint::{Missing, Mountpoint};
use crate::cli::env::mounts::second;
use crate::cli::env::paths;
use crate::cli::env::unlock::Source;
use crate::cli::report::exit::{CliError, Exit};
use crate::cli::report::output::Output;
use crate::keystore::Unlock;
use crate::volume::AccessTimes;

/// Mounts a vault, in the background unless `--foreground`.
pub(in crate::cli) fn run(
    args: &MountArgs,
    global: &Global,
    output: Output,
) -> Result<Exit, CliError> {
    let mut options = MountOptions::parse(&args.options)?;
    options.allow_open_vault |= args.allow_open_vault;
    preflight::permissions(&options)?;
    let global = effective(global, &options)?;
    let detached = args.detached.then(background::detach).transpose()?;
    preflight::fuse()?;
    let vault = paths::real(&args.vault)?;
    preflight::handles(&options, &vault)?;
    preflight::apart(&vault, &paths::real(&args.mountpoint)?)?;
    let read_only = args.read_only || options.read_only == Some(true);
    if !options.allow_open_vault {
        preflight::closed(&vault)?;
    }
    // A daemon of its own cannot have the vault as well. One in the foreground is to last, and none would.
    if !args.foreground
        && let Some(first) = second::first(&vault)?
    {
        return bind(args, &first, (flags(read_only, &options), options.nonempty));
    }
    let kms = chosen(&args.kms, &options.kms)?;
    // Without a secret nothing is made, not even the mountpoint.
    let source = if kms.url.is_some() { None } else { Some(Source::choose(&global)?) };
    let missing = if args.create { Missing::Make } else { Missing::Refuse };
    let mountpoint = Mountpoint::find(&args.mountpoint, missing, options.nonempty)?;
    preflight::apart(&vault, mountpoint.path())?;
    let plan = Plan {
        vault,
        mountpoint: mountpoint.path().to_owned(),
        keystore: if kms.url.is_some() { PathBuf::new() } else { paths::keystore(&global)? },
        kms,
        read_only,
        options,
        trust: args.trust,
    };
    // Before this process knows a secret.
    let keeper = if args.foreground { Some(daemon::run::keeper(&plan, mountpoint)?) } else { None };
    let unlock = match &source {
        Some(source) => Some(secret(args, source, &plan, output)?),
        None if args.create => {
            create::vault(&plan, &KeysFrom::open(&plan.kms, &global)?, output)?;
            None
        }
        None => None,
    };
    if let Some(keeper) = keeper {
        return daemon::run::run(&plan, unlock, keeper, detached);
    }
    in_background(args, &global, &plan, unlock)
}

/// Shows a vault that is mounted at a second place. Whoever may do that has it open already, so no secret
/// is asked for.
fn bind(
    args: &MountArgs,
    first: &Mounted,
    (flags, nonempty): (MountFlags, bool),
) -> Result<Exit, CliError> {
    let missing = if args.create { Missing::Make } else { Missing::Refuse };
    let mountpoint = Mountpoint::find(&args.mountpoint, missing, nonempty)?;
    preflight::apart(&first.vault, mountpoint.path())?;
    let (from, to) = (first.mountpoint.display(), mountpoint.path().display());
    second::bind(first, &mountpoint, flags).map_err(|error| {
        CliError::io(format!("the vault is mounted at {from}, and cannot be shown at {to}"), &error)
    })?;
    log::info!("the vault is mounted at {from} already: {to} shows that mount, with its options");
    Ok(Exit::Ok)
}

/// What the options forbid at one place.
fn flags(read_only: bool, options: &MountOptions) -> MountFlags {
    let all = [
        (read_only, MountFlags::RDONLY),
        (options.suid != Some(true), MountFlags::NOSUID),
        (options.dev != Some(true), MountFlags::NODEV),
        (options.exec == Some(false), MountFlags::NOEXEC),
        (options.atime == Some(AccessTimes::Never), MountFlags::NOATIME),
        (options.nosymfollow, MountFlags::NOSYMFOLLOW),
    ];
    let set = all.into_iter().filter(|(on, _)| *on);
    set.fold(MountFlags::empty(), |flags, (_, flag)| flags | flag)
}

/// What opens the keystore, which is made with all that is missing if the command says so.
fn secret(
    args: &MountArgs,
    source: &Source,
    plan: &Plan,
    output: Output,
) -> Result<Unlock, CliError> {
    preflight::keystore_outside(&plan.keystore, &plan.mountpoint)?;
    if args.create {
        if let Source::KeyFile(path) = source {
            preflight::opener_outside(path, plan)?;
        }
        preflight::opener_outside(&plan.keystore, plan)?;
    }
    if args.create { create::everything(plan, source, output) } else { source.take(&plan.keystore) }
}

/// The endpoint of the command or of its mount options.
fn chosen(args: &KmsArgs, options: &KmsArgs) -> Result<KmsArgs, CliError> {
    // The grace is for a keystore on this machine too.
    let grace = args.grace.or(options.grace);
    let bare = KmsArgs { grace: None, ..options.clone() } == KmsArgs::default();
    let chosen = match (&args.url, &options.url) {
        (Some(_), Some(_)) => {
            return Err(CliError::new(Exit::Usage, "two endpoints: --kms and -o kms"));
        }
        (Some(_), None) if !bare => {
            let what = "-o kms-... belongs to -o kms=URL, not to --kms";
            return Err(CliError::new(Exit::Usage, what));
        }
        (None, None) if !bare => {
            return Err(CliError::new(Exit::Usage, "-o kms-... without -o kms=URL"));
        }
        (Some(_), None) => args.absolute()?,
        (None, _) => options.absolute()?,
    };
    Ok(KmsArgs { grace, ..chosen })
}

/// Options of `-o` that stand for options of the command.
fn effective(global: &Global, options: &MountOptions) -> Result<Global, CliError> {
    if options.key_file.is_some() && global.passphrase_fd.is_some() {
        return Err(CliError::new(Exit::Usage, "two secrets: --passphrase-fd and -o key-file"));
    }
    let mut global = global.clone();
    global.keystore = options.keystore.clone().or(global.keystore);
    global.key_file = options.key_file.clone().or(global.key_file);
    Ok(global)
}

fn in_background(
    args: &MountArgs,
    global: &Global,
    plan: &Plan,
    unlock: Option<Unlock>,
) -> Result<Exit, CliError> {
    let program = std::env::current_exe()
        .map_err(|error| CliError::io("cannot find the program itself", &error))?;
    let mut command = Command::new(program);
    if plan.kms.url.is_none() {
        command.arg("--keystore").arg(&plan.keystore);
    }
    let passphrase = match unlock {
        Some(Unlock::Passphrase(passphrase)) => {
            command.args(["--passphrase-fd", "0"]);
            Some(passphrase)
        }
        Some(Unlock::KeyFile(path)) => {
            command.arg("--key-file").arg(path);
            None
        }
        Some(Unlock::Token(place, pin)) => {
            command.arg("--pkcs11-module").arg(place.module).arg("--token").arg(place.token);
            command.args(["--pin-fd", "0"]);
            Some(pin.into_inner())
        }
        // Found by the child in the same way.
        Some(Unlock::Credentials(_)) | None => None,
    };
    command.args((0..global.verbose).map(|_| "-v"));
    command.args(global.json.then_some("--json"));
    command.args(["mount", "--foreground", "--detached"]);
    command.args(plan.read_only.then_some("--read-only"));
    command.args(args.allow_open_vault.then_some("--allow-open-vault"));
    let named = args.kms.url.is_some();
    let kms = KmsArgs { grace: args.kms.grace, ..KmsArgs::default() };
    command.args(if named { plan.kms.words() } else { kms.words() });
    command.args(plan.trust.restored.then_some("--restored"));
    command.args(plan.trust.unanchored.then_some("--unanchored"));
    for options in &args.options {
        command.arg("-o").arg(options);
    }
    command.arg("--").arg(&plan.vault).arg(&plan.mountpoint);
    match background::start(&mut command, passphrase)? {
        Started::Ready => Ok(Exit::Ok),
        Started::Failed(code) => Ok(Exit::from_code(code)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_the_mount_win_over_those_of_the_command() {
        let options = MountOptions::parse(&["key-file=/a,keystore=/b".into()]).unwrap();
        let global = Global { keystore: Some("/c".into()), ..Global::default() };
        let global = effective(&global, &options).unwrap();
        assert_eq!(global.key_file, Some(PathBuf::from("/a")));
        assert_eq!(global.keystore, Some(PathBuf::from("/b")));
    }
}

//! Checks before a mount: the vault and the mountpoint beside each other, and what FUSE needs.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::Access;

use crate::cli::args::options::MountOptions;
use crate::cli::daemon::plan::Plan;
use crate::cli::env::mounts::{inside, mountinfo};
use crate::cli::env::{failure, paths, process};
use crate::cli::report::exit::{CliError, Exit};
use crate::sys;
use crate::volume::{Volume, VolumeError, exposure};

/// Refuses a vault whose directory other users may enter, before a secret is asked for or anything is
/// made. An early check only: [`Volume::open_vault`] decides.
///
/// Errors: `Refused`.
pub(in crate::cli) fn closed(vault: &Path) -> Result<(), CliError> {
    if Volume::peek(vault).is_err() {
        return Ok(());
    }
    match exposure(vault).map_err(|error| failure::volume(vault, &error))? {
        Some(exposed) => Err(failure::volume(vault, &VolumeError::OpenVault(exposed))),
        None => Ok(()),
    }
}

/// Refuses to leave permissions unchecked where anybody but root may enter.
///
/// Errors: `Usage`.
pub(in crate::cli) fn permissions(options: &MountOptions) -> Result<(), CliError> {
    if options.no_xattrs && options.allow_other {
        // Without its ACL a file may let more people in.
        let what = "-o noxattr leaves ACLs unchecked: it does not go with allow_other";
        return Err(CliError::new(Exit::Usage, what));
    }
    if !options.no_default_permissions || (process::is_root() && !options.allow_other) {
        return Ok(());
    }
    let what = "-o no_default_permissions is for a mount that root alone uses";
    Err(CliError::new(Exit::Usage, what)
        .advise("leave it out, or mount as root without allow_other"))
}

/// Refuses to give out file handles that would not tell a file from the next one with its number.
///
/// Errors: `Usage`.
pub(in crate::cli) fn handles(options: &MountOptions, vault: &Path) -> Result<(), CliError> {
    // A vault that is about to be made is on the filesystem of the directory above it.
    let dirs = [Some(vault), vault.parent()];
    let dir = dirs.into_iter().flatten().find_map(|dir| File::open(dir).ok());
    match dir.filter(|_| options.nfs_export).map(|dir| sys::handle_sum(dir.as_fd())) {
        None | Some(Ok(_)) => Ok(()),
        Some(Err(error)) => {
            let what =
                format!("-o nfs_export: the filesystem of the vault has no handles: {error}");
            Err(CliError::new(Exit::Usage, what).advise("leave the option out"))
        }
    }
}

/// Vault and mountpoint must not lie in each other: the daemon would wait for itself.
pub(in crate::cli) fn apart(vault: &Path, mountpoint: &Path) -> Result<(), CliError> {
    if vault.starts_with(mountpoint) || mountpoint.starts_with(vault) {
        return Err(CliError::new(
            Exit::Mountpoint,
            format!(
                "the vault {} and the mountpoint {} lie in each other",
                vault.display(),
                mountpoint.display()
            ),
        )
        .advise("use two directories side by side"));
    }
    Ok(())
}

/// A daemon that had to read its own keystore through itself would wait for ever.
pub(in crate::cli) fn keystore_outside(keystore: &Path, mountpoint: &Path) -> Result<(), CliError> {
    let keystore = paths::real(keystore)?;
    if !keystore.starts_with(mountpoint) && mountinfo::holding(&keystore)?.is_none() {
        return Ok(());
    }
    Err(CliError::new(
        Exit::Mountpoint,
        format!("the keystore {} lies on a kmsfs mount", keystore.display()),
    )
    .advise("keep it outside: it is needed to open what is inside"))
}

/// Refuses a keystore or key file inside the vault or mountpoint that is about to be made; a new one also
/// inside any other vault.
///
/// Errors: `Refused`, before anything is made.
pub(in crate::cli) fn opener_outside(opener: &Path, plan: &Plan) -> Result<(), CliError> {
    if opener.symlink_metadata().is_err() {
        inside::refuse_vaults(opener, "the new file")?;
    }
    let opener = paths::real(opener)?;
    for (dir, what) in [(&plan.vault, "vault"), (&plan.mountpoint, "mountpoint")] {
        if opener.starts_with(dir) {
            let what = format!("{} would lie in the {what} {}", opener.display(), dir.display());
            return Err(CliError::new(Exit::Refused, what)
                .advise("name a place outside: it is needed to open what is inside"));
        }
    }
    Ok(())
}

/// `/dev/fuse` can be opened, and who is not root has `fusermount3`.
pub(in crate::cli) fn fuse() -> Result<(), CliError> {
    let refuse =
        |what: &str, advice: &str| Err(CliError::new(Exit::FuseMissing, what).advise(advice));
    let device = Path::new("/dev/fuse");
    let wanted = rustix::fs::makedev(FUSE_MAJOR, FUSE_MINOR);
    if !std::fs::metadata(device).is_ok_and(|meta| meta.rdev() == wanted) {
        return refuse(
            "/dev/fuse is missing",
            "load the module (modprobe fuse); a container needs the device (--device /dev/fuse)",
        );
    }
    if rustix::fs::access(device, Access::READ_OK | Access::WRITE_OK).is_err() {
        return refuse("/dev/fuse may not be used by this user", "its usual mode is 0666");
    }
    if !process::is_root() && !on_path("fusermount3") && !on_path("fusermount") {
        return refuse("fusermount3 is missing", "install the package fuse3, or mount as root");
    }
    Ok(())
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    std::env::split_paths(&path)
        .any(|dir| rustix::fs::access(dir.join(program), Access::EXEC_OK).is_ok())
}

/// /dev/fuse: character device 10:229. Source: admin-guide/devices.txt.
const FUSE_MAJOR: u32 = 10;
const FUSE_MINOR: u32 = 229;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_shares_a_mount_that_checks_less() {
        let refused = |text: &str| permissions(&MountOptions::parse(&[text.to_owned()]).unwrap());
        for text in ["no_default_permissions,allow_other", "allow_other,noxattr"] {
            assert_eq!(refused(text).unwrap_err().exit, Exit::Usage, "{text}");
        }
        let lifted = "no_default_permissions,default_permissions,allow_other";
        assert!([lifted, "noxattr", "allow_other"].into_iter().all(|text| refused(text).is_ok()));
        assert_eq!(refused("no_default_permissions").is_ok(), process::is_root());
    }

    #[test]
    fn a_mountpoint_inside_the_vault_is_refused() {
        assert!(apart(Path::new("/a/vault"), Path::new("/a/vault/m")).is_err());
        assert!(apart(Path::new("/a/m/vault"), Path::new("/a/m")).is_err());
        assert!(apart(Path::new("/a/vault"), Path::new("/a/vault2")).is_ok());
    }
}

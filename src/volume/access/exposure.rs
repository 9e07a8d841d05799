//! Whether other users may enter the vault's own directory.
//!
//! Whoever may enter it, and owns a directory in the mount, also owns its ciphertext, and can exchange,
//! replace and remove what others keep there, behind the back of the mount. The vault's root has the
//! owner and the mode that the root of the mount has: a mount that others use must have its vault below
//! a directory that they may not enter.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, Stat, fstat, openat};
use rustix::process::geteuid;

use crate::volume::backing::root::open_root;
use crate::volume::model::error::Result;
use crate::volume::model::exposure::Exposure;

/// The bits by which a directory can be entered by others than its owner.
const ENTER: u32 = 0o011;
/// All that a vault grants to others than its owner.
pub(in crate::volume) const OTHERS: u32 = 0o077;

/// How other users may enter the vault in `path`; `None` if they may not.
///
/// # Errors
/// Those of the backing filesystem.
pub fn exposure(path: &Path) -> Result<Option<Exposure>> {
    exposure_of(open_root(path)?.as_fd())
}

/// The same of the open directory.
pub(in crate::volume) fn exposure_of(root: BorrowedFd<'_>) -> Result<Option<Exposure>> {
    let stat = fstat(root)?;
    let exposed = if is_strangers(&stat) {
        Exposure::Owner(stat.st_uid)
    } else if stat.st_mode & OTHERS != 0 {
        Exposure::Mode(stat.st_mode & 0o7777)
    } else {
        return Ok(None);
    };
    Ok((!is_sheltered(root)?).then_some(exposed))
}

/// True for an ACL, as the kernel takes it, that grants nothing to anybody but the owner. Its mask is
/// the group's part of the mode, so that has to be empty too.
pub(in crate::volume) fn is_owners_alone(acl: &[u8]) -> bool {
    let Some((version, entries)) = acl.split_first_chunk::<4>() else { return false };
    let grants = |entry: &[u8]| match *entry {
        [tag, 0, perm, 0, ..] => u16::from(tag) != ACL_OWNER && perm != 0,
        _ => true,
    };
    u32::from_le_bytes(*version) == ACL_VERSION
        && entries.len().is_multiple_of(ACL_ENTRY)
        && !entries.chunks(ACL_ENTRY).any(grants)
}

/// Of `linux/posix_acl_xattr.h`: a version, and entries of a tag, permissions and an id.
const ACL_VERSION: u32 = 2;
const ACL_ENTRY: usize = 8;
const ACL_OWNER: u16 = 1;

/// Lets nobody but its owner into the directory of a new vault, if that is us.
pub(in crate::volume) fn close(root: impl AsFd) -> Result<()> {
    let stat = fstat(&root)?;
    if stat.st_mode & OTHERS != 0 && stat.st_uid == geteuid().as_raw() {
        rustix::fs::fchmod(root, Mode::from_raw_mode(stat.st_mode & 0o7777 & !OTHERS))?;
    }
    Ok(())
}

/// True if one of the directories above keeps others out.
pub(in crate::volume) fn is_sheltered(root: BorrowedFd<'_>) -> Result<bool> {
    let upwards = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let (mut dir, mut stat) = (openat(root, "..", upwards, Mode::empty())?, fstat(root)?);
    loop {
        let above = fstat(&dir)?;
        if (above.st_dev, above.st_ino) == (stat.st_dev, stat.st_ino) {
            return Ok(false);
        }
        if !is_strangers(&above) && above.st_mode & ENTER == 0 {
            return Ok(true);
        }
        stat = above;
        dir = openat(&dir, "..", upwards, Mode::empty())?;
    }
}

fn is_strangers(stat: &Stat) -> bool {
    stat.st_uid != 0 && stat.st_uid != geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_acl_for_the_owner_alone_is_told_from_others() {
        let acl = |entries: &[[u8; 3]]| {
            let mut bytes = vec![2, 0, 0, 0];
            for [tag, perm, id] in entries {
                bytes.extend([*tag, 0, *perm, 0, *id, 0, 0, 0]);
            }
            bytes
        };
        let none = u8::MAX;
        assert!(is_owners_alone(&acl(&[[1, 7, none], [4, 0, none], [32, 0, none]])));
        let named = [[1, 7, none], [2, 0, 9], [4, 0, none], [16, 0, none], [32, 0, none]];
        assert!(is_owners_alone(&acl(&named)));
        for at in 1..named.len() {
            let mut wider = named;
            wider[at][1] = 1;
            assert!(!is_owners_alone(&acl(&wider)), "{at}");
        }
        let minimal = acl(&[[1, 7, none], [4, 0, none], [32, 0, none]]);
        assert!(!is_owners_alone(&minimal[..minimal.len() - 1]));
        assert!(!is_owners_alone(&[3, 0, 0, 0]) && !is_owners_alone(&[]));
    }

    #[test]
    fn a_vault_is_open_to_others_unless_a_directory_above_keeps_them_out() {
        let name = format!("kmsfs-exposure-{}", std::process::id());
        let above = std::env::temp_dir().join(name);
        let vault = above.join("between/vault");
        fs::create_dir_all(&vault).unwrap();
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(&above, 0o755);
        mode(&above.join("between"), 0o755);
        for (bits, expected) in
            [(0o700, None), (0o1700, None), (0o755, Some(0o755)), (0o710, Some(0o710))]
        {
            mode(&vault, bits);
            assert_eq!(exposure(&vault).unwrap(), expected.map(Exposure::Mode), "{bits:o}");
        }
        mode(&above, 0o700);
        assert_eq!(exposure(&vault).unwrap(), None);
        close(open_root(&vault).unwrap()).unwrap();
        mode(&above, 0o755);
        assert_eq!(exposure(&vault).unwrap(), None);
        fs::remove_dir_all(&above).unwrap();
    }
}

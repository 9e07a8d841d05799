//! Extended attributes.
//!
//! `user.*` is encrypted, names and values, under the keys of the file or directory. ACLs pass
//! through, because the backing filesystem and the kernel act on them; so do `trusted.*` and
//! `security.*`, which belong to root. `user.kmsfs.*` is the vault's own and is never shown.

use std::sync::Arc;

use rustix::fs::{
    XattrFlags, getxattr, lgetxattr, listxattr, llistxattr, lremovexattr, lsetxattr, removexattr,
    setxattr,
};
use rustix::io::Errno;

use super::Volume;
use super::attr::FileKind;
use super::content::Access;
use super::dir::Dir;
use super::error::{Result, VolumeError};
use super::open::Briefly;
use super::place::Place;
use super::privilege::drop_setgid;
use super::tree::Caller;
use crate::envelope::{XATTR_PREFIX, XattrKeys};

const USER: &[u8] = b"user.";
const TRUSTED: &[u8] = b"trusted.";
const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";
const SECURITY: &[u8] = b"security.";
const CAPABILITY: &[u8] = b"security.capability";
/// The kernel's limits.
const NAME_MAX: usize = 255;
const SIZE_MAX: usize = 65_536;

/// What to do if the attribute is there already, or is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetMode {
    /// Either way.
    Any,
    /// Fail if it is there.
    Create,
    /// Fail if it is not.
    Replace,
}

/// The keys of one inode's attributes, and what holds them.
enum Owner<'a> {
    Dir(Arc<Dir>),
    File(Box<XattrKeys>, #[expect(dead_code, reason = "keeps the file open")] Briefly<'a>),
}

impl Owner<'_> {
    fn keys(&self) -> Result<&XattrKeys> {
        match self {
            Self::Dir(dir) => Ok(dir.keys()?.xattrs()),
            Self::File(keys, _) => Ok(keys),
        }
    }
}

impl Volume {
    /// The value of an attribute.
    ///
    /// # Errors
    /// `Io(NODATA)` if there is none, `Io(OPNOTSUPP)` for a namespace that is not kept; `Tampered`,
    /// `KeyUnusable`; `Denied` as for opening the file.
    pub fn xattr(&self, ino: u64, name: &[u8], caller: Caller) -> Result<Vec<u8>> {
        self.check_name(name)?;
        if !name.starts_with(USER) {
            return get(&self.place(ino)?, name);
        }
        if !self.may_have_user_xattrs(ino)? {
            return Err(Errno::NODATA.into());
        }
        let owner = self.xattr_owner(ino, Access::ReadOnly, caller)?;
        let keys = owner.keys()?;
        let sealed = get(&self.place(ino)?, keys.encode_name(name).as_bytes())?;
        Ok(keys.open_value(name, &sealed)?)
    }

    /// Sets an attribute.
    ///
    /// # Errors
    /// `Io(EXIST)` and `Io(NODATA)` as `mode` says; `Io(NOSPC)` where the backing inode is full.
    pub fn set_xattr(
        &self,
        ino: u64,
        name: &[u8],
        value: &[u8],
        mode: SetMode,
        caller: Caller,
    ) -> Result<()> {
        self.tree.writable()?;
        self.check_name(name)?;
        let flags = match mode {
            SetMode::Any => XattrFlags::empty(),
            SetMode::Create => XattrFlags::CREATE,
            SetMode::Replace => XattrFlags::REPLACE,
        };
        if !name.starts_with(USER) {
            let place = self.place(ino)?;
            set(&place, name, value, flags)?;
            if name == ACL_ACCESS {
                drop_setgid(&place, caller)?;
            }
            drop(place);
            self.acl_changed(ino, name);
            return Ok(());
        }
        if mode == SetMode::Replace && !self.may_have_user_xattrs(ino)? {
            return Err(Errno::NODATA.into());
        }
        let owner = self.xattr_owner(ino, Access::ReadWrite, caller)?;
        let keys = owner.keys()?;
        let sealed = keys.seal_value(name, value)?;
        set(&self.place(ino)?, backing_name(keys, name)?.as_bytes(), &sealed, flags)
    }

    /// Removes an attribute.
    ///
    /// # Errors
    /// `Io(NODATA)` if there is none.
    pub fn remove_xattr(&self, ino: u64, name: &[u8], caller: Caller) -> Result<()> {
        self.tree.writable()?;
        self.check_name(name)?;
        if !name.starts_with(USER) {
            remove(&self.place(ino)?, name)?;
            self.acl_changed(ino, name);
            return Ok(());
        }
        if !self.may_have_user_xattrs(ino)? {
            return Err(Errno::NODATA.into());
        }
        let owner = self.xattr_owner(ino, Access::ReadOnly, caller)?;
        remove(&self.place(ino)?, owner.keys()?.encode_name(name).as_bytes())
    }

    /// The names of all attributes that `caller` may see, each followed by a zero byte.
    ///
    /// # Errors
    /// Those of the backing filesystem, `KeyUnusable`. Names that cannot be read are left out.
    pub fn xattr_names(&self, ino: u64, caller: Caller) -> Result<Vec<u8>> {
        let backing = list(&self.place(ino)?)?;
        let mut owner = None;
        let mut names = Vec::new();
        for name in backing.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            if let Some(encoded) = encrypted(name) {
                let owner = match &owner {
                    Some(owner) => owner,
                    None => owner.insert(self.readable_owner(ino, caller)?),
                };
                let keys = owner.as_ref().map(Owner::keys).transpose()?;
                let Some(Ok(plain)) = keys.map(|keys| keys.decode_name(encoded)) else { continue };
                names.extend(plain);
            } else if self.is_listed(name, caller) {
                names.extend(name);
            } else {
                continue;
            }
            names.push(0);
        }
        Ok(names)
    }

    /// Parents whose default ACL changed give their children other modes; a changed ACL may also
    /// take the setgid bit away.
    fn acl_changed(&self, ino: u64, name: &[u8]) {
        if (name == ACL_DEFAULT || name == ACL_ACCESS)
            && let Some(dir) = self.tree.dirs.find(ino)
        {
            dir.forget_rules();
        }
    }

    fn is_listed(&self, name: &[u8], caller: Caller) -> bool {
        !name.starts_with(USER)
            && (caller.uid == 0 || !name.starts_with(TRUSTED))
            && (name != CAPABILITY || self.tree.options.suid)
    }

    fn check_name(&self, name: &[u8]) -> Result<()> {
        if name.len() > NAME_MAX {
            return Err(Errno::RANGE.into());
        }
        if name == CAPABILITY && !self.tree.options.suid {
            return Err(Errno::NODATA.into());
        }
        let kept = name.starts_with(USER)
            || name.starts_with(TRUSTED)
            || name.starts_with(SECURITY)
            || name == ACL_ACCESS
            || name == ACL_DEFAULT;
        if kept { Ok(()) } else { Err(Errno::OPNOTSUPP.into()) }
    }

    /// A file without a header has no key and so no encrypted attributes (FORMAT section 8).
    fn may_have_user_xattrs(&self, ino: u64) -> Result<bool> {
        let stat = self.place(ino)?.stat()?;
        match FileKind::from_mode(stat.st_mode) {
            Some(FileKind::Regular) => Ok(stat.st_size > 0),
            Some(FileKind::Directory) => Ok(true),
            _ => Err(Errno::PERM.into()),
        }
    }

    /// `None` for a user who may not open the file: its names are left out.
    fn readable_owner(&self, ino: u64, caller: Caller) -> Result<Option<Owner<'_>>> {
        match self.xattr_owner(ino, Access::ReadOnly, caller) {
            Err(VolumeError::Denied(_)) => Ok(None),
            owner => owner.map(Some),
        }
    }

    fn xattr_owner(&self, ino: u64, access: Access, caller: Caller) -> Result<Owner<'_>> {
        let stat = self.place(ino)?.stat()?;
        match FileKind::from_mode(stat.st_mode) {
            Some(FileKind::Directory) => Ok(Owner::Dir(self.dir(ino)?)),
            Some(FileKind::Regular) => {
                let opened = self.open_briefly(ino)?;
                self.allow_use(opened.file(), access, caller)?;
                let keys = opened.file().xattr_keys(access)?.ok_or(Errno::NODATA)?;
                Ok(Owner::File(Box::new(keys), opened))
            }
            _ => Err(Errno::PERM.into()),
        }
    }
}

fn encrypted(name: &[u8]) -> Option<&str> {
    std::str::from_utf8(name).ok().filter(|name| name.starts_with(XATTR_PREFIX))
}

/// The backing name, unless encryption makes the name longer than the kernel takes.
fn backing_name(keys: &XattrKeys, name: &[u8]) -> Result<String> {
    let encoded = keys.encode_name(name);
    if encoded.len() > NAME_MAX { Err(Errno::RANGE.into()) } else { Ok(encoded) }
}

fn get(place: &Place<'_>, name: &[u8]) -> Result<Vec<u8>> {
    let path = place.path();
    let read = |value: &mut Vec<u8>| {
        if place.follows() {
            getxattr(&*path, name, &mut value[..])
        } else {
            lgetxattr(&*path, name, &mut value[..])
        }
    };
    grow(512, read)
}

fn list(place: &Place<'_>) -> Result<Vec<u8>> {
    let path = place.path();
    let read = |names: &mut Vec<u8>| {
        if place.follows() {
            listxattr(&*path, &mut names[..])
        } else {
            llistxattr(&*path, &mut names[..])
        }
    };
    match grow(512, read) {
        Err(VolumeError::Io(Errno::OPNOTSUPP)) => Ok(Vec::new()),
        other => other,
    }
}

/// Tries with a small buffer first, which is nearly always enough, and then with the largest.
fn grow(
    first: usize,
    mut read: impl FnMut(&mut Vec<u8>) -> Result<usize, Errno>,
) -> Result<Vec<u8>> {
    let mut buffer = vec![0; first];
    let length = match read(&mut buffer) {
        Err(Errno::RANGE) => {
            buffer.resize(SIZE_MAX, 0);
            read(&mut buffer)?
        }
        other => other?,
    };
    buffer.truncate(length);
    Ok(buffer)
}

fn set(place: &Place<'_>, name: &[u8], value: &[u8], flags: XattrFlags) -> Result<()> {
    let path = place.path();
    let done = if place.follows() {
        setxattr(&*path, name, value, flags)
    } else {
        lsetxattr(&*path, name, value, flags)
    };
    done.map_err(VolumeError::from)
}

fn remove(place: &Place<'_>, name: &[u8]) -> Result<()> {
    let path = place.path();
    let done = if place.follows() { removexattr(&*path, name) } else { lremovexattr(&*path, name) };
    done.map_err(VolumeError::from)
}

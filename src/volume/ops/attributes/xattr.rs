//! Extended attributes.
//!
//! `user.*` is encrypted, names and values, under the keys of the file or directory. ACLs pass
//! through, because the backing filesystem and the kernel act on them; so do `trusted.*` and
//! `security.*`, which belong to root. `user.kmsfs.*` is the vault's own and is never shown.

use std::sync::Arc;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::envelope::{XATTR_PREFIX, XattrKeys};
use crate::volume::access::privileges::drop_setgid;
use crate::volume::backing::handle::Handle;
use crate::volume::content::Access;
use crate::volume::engine::Volume;
use crate::volume::model::attr::FileKind;
use crate::volume::model::caller::Caller;
use crate::volume::model::error::{Result, VolumeError};
use crate::volume::namespace::dir::Dir;
use crate::volume::ops::reach::file::Briefly;

const USER: &[u8] = b"user.";
const TRUSTED: &[u8] = b"trusted.";
const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";
const SECURITY: &[u8] = b"security.";
const CAPABILITY: &[u8] = b"security.capability";
/// Where SELinux runs, the kernel has the labels, and asks for none.
const LABEL: &[u8] = b"security.selinux";
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
    /// `Io(NODATA)` if there is none, `Io(OPNOTSUPP)` for a namespace that is not kept, and if there is
    /// no label; `Tampered`, `KeyUnusable`; `Denied` as for opening the file.
    pub fn xattr(&self, ino: u64, name: &[u8], caller: Caller) -> Result<Vec<u8>> {
        self.check_name(name)?;
        let held = self.hold(ino)?;
        if !name.starts_with(USER) {
            return match get(&held, name) {
                // `ls -l` asks for the label of each file, until it hears that there are none.
                Err(VolumeError::Io(Errno::NODATA)) if name == LABEL => {
                    Err(Errno::OPNOTSUPP.into())
                }
                value => value,
            };
        }
        if !may_have_user_xattrs(&held)? {
            return Err(Errno::NODATA.into());
        }
        let owner = self.xattr_owner(ino, &held, Access::ReadOnly, caller)?;
        let keys = owner.keys()?;
        let sealed = get(&held, keys.encode_name(name).as_bytes())?;
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
        let held = self.hold(ino)?;
        if !name.starts_with(USER) {
            let _still = self.times.hold(ino);
            if name == ACL_ACCESS {
                self.keep_closed_to_acl(ino, value)?;
            }
            held.set_xattr(name, value, flags)?;
            if name == ACL_ACCESS {
                drop_setgid(&held, caller)?;
            }
            self.acl_changed(ino, name);
            return Ok(());
        }
        if mode == SetMode::Replace && !may_have_user_xattrs(&held)? {
            return Err(Errno::NODATA.into());
        }
        let owner = self.xattr_owner(ino, &held, Access::ReadWrite, caller)?;
        let keys = owner.keys()?;
        let sealed = keys.seal_value(name, value)?;
        Ok(held.set_xattr(backing_name(keys, name)?.as_bytes(), &sealed, flags)?)
    }

    /// Removes an attribute.
    ///
    /// # Errors
    /// `Io(NODATA)` if there is none.
    pub fn remove_xattr(&self, ino: u64, name: &[u8], caller: Caller) -> Result<()> {
        self.tree.writable()?;
        self.check_name(name)?;
        let held = self.hold(ino)?;
        if !name.starts_with(USER) {
            let _still = self.times.hold(ino);
            held.remove_xattr(name)?;
            self.acl_changed(ino, name);
            return Ok(());
        }
        if !may_have_user_xattrs(&held)? {
            return Err(Errno::NODATA.into());
        }
        let owner = self.xattr_owner(ino, &held, Access::ReadOnly, caller)?;
        Ok(held.remove_xattr(owner.keys()?.encode_name(name).as_bytes())?)
    }

    /// The names of all attributes that `caller` may see, each followed by a zero byte.
    ///
    /// # Errors
    /// Those of the backing filesystem, `KeyUnusable`. Names that cannot be read are left out.
    pub fn xattr_names(&self, ino: u64, caller: Caller) -> Result<Vec<u8>> {
        let held = self.hold(ino)?;
        let backing = list(&held)?;
        let mut owner = None;
        let mut names = Vec::new();
        for name in backing.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            if let Some(encoded) = encrypted(name) {
                let owner = match &owner {
                    Some(owner) => owner,
                    None => owner.insert(self.readable_owner(ino, &held, caller)?),
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

    /// `None` for a user who may not open the file, and for a file without a key that a crash has left
    /// with encrypted attributes: these names are left out.
    fn readable_owner(&self, ino: u64, held: &Handle, caller: Caller) -> Result<Option<Owner<'_>>> {
        match self.xattr_owner(ino, held, Access::ReadOnly, caller) {
            Err(VolumeError::Denied(_) | VolumeError::Io(Errno::NODATA)) => Ok(None),
            owner => owner.map(Some),
        }
    }

    fn xattr_owner(
        &self,
        ino: u64,
        held: &Handle,
        access: Access,
        caller: Caller,
    ) -> Result<Owner<'_>> {
        match FileKind::from_mode(held.found().st_mode) {
            Some(FileKind::Directory) => Ok(Owner::Dir(self.dir(ino)?)),
            Some(FileKind::Regular) => {
                let opened = self.open_briefly(ino)?;
                self.allow_use(opened.file(), access, caller)?;
                let changes = access == Access::ReadWrite;
                let _writing = changes.then(|| self.writing(opened.file(), caller));
                let keys = opened.file().xattr_keys(access)?.ok_or(Errno::NODATA)?;
                Ok(Owner::File(Box::new(keys), opened))
            }
            _ => Err(Errno::PERM.into()),
        }
    }
}

/// How many of an inode's attributes are not those that were set under these keys.
///
/// # Errors
/// Those of the backing filesystem.
pub(in crate::volume) fn damaged_attributes(held: &Handle, keys: &XattrKeys) -> Result<usize> {
    let names = list(held)?;
    let encoded = names.split(|byte| *byte == 0).filter_map(encrypted);
    let mut damaged = 0;
    for name in encoded {
        let sealed = match get(held, name.as_bytes()) {
            Err(VolumeError::Io(Errno::NODATA)) => continue,
            other => other?,
        };
        let opened = keys.decode_name(name).and_then(|plain| keys.open_value(&plain, &sealed));
        damaged += usize::from(opened.is_err());
    }
    Ok(damaged)
}

fn encrypted(name: &[u8]) -> Option<&str> {
    std::str::from_utf8(name).ok().filter(|name| name.starts_with(XATTR_PREFIX))
}

/// The backing name, unless encryption makes the name longer than the kernel takes.
fn backing_name(keys: &XattrKeys, name: &[u8]) -> Result<String> {
    let encoded = keys.encode_name(name);
    if encoded.len() > NAME_MAX { Err(Errno::RANGE.into()) } else { Ok(encoded) }
}

/// A file without a header has no key and so no encrypted attributes (FORMAT section 8).
fn may_have_user_xattrs(held: &Handle) -> Result<bool> {
    let found = held.found();
    match FileKind::from_mode(found.st_mode) {
        Some(FileKind::Regular) => Ok(found.st_size > 0),
        Some(FileKind::Directory) => Ok(true),
        _ => Err(Errno::PERM.into()),
    }
}

fn get(held: &Handle, name: &[u8]) -> Result<Vec<u8>> {
    grow(512, |value| held.xattr(name, value))
}

fn list(held: &Handle) -> Result<Vec<u8>> {
    match grow(512, |names| held.xattr_names(names)) {
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

//! Keeps the root of the mount closed to others if opening it would open the vault.

use rustix::process::geteuid;

use crate::volume::access::exposure::{OTHERS, is_owners_alone, is_sheltered};
use crate::volume::engine::Volume;
use crate::volume::model::attr::AttrChange;
use crate::volume::model::error::{Result, VolumeError};
use crate::volume::namespace::inode::ROOT;

impl Volume {
    /// Checks a change of attributes of the mount's root, which are those of the vault's root.
    ///
    /// # Errors
    /// `WouldOpenVault` if other users could then enter the vault.
    pub(in crate::volume) fn keep_closed(&self, ino: u64, change: &AttrChange) -> Result<()> {
        let opens = change.mode.is_some_and(|mode| mode & OTHERS != 0)
            || change.uid.is_some_and(|uid| uid != 0 && uid != geteuid().as_raw());
        if ino != ROOT || !opens { Ok(()) } else { self.must_be_sheltered() }
    }

    /// The same before the root gets an access ACL. `cp -a` makes an ACL that lets only the owner in
    /// from a mode.
    ///
    /// # Errors
    /// `WouldOpenVault`.
    pub(in crate::volume) fn keep_closed_to_acl(&self, ino: u64, acl: &[u8]) -> Result<()> {
        if ino != ROOT || is_owners_alone(acl) { Ok(()) } else { self.must_be_sheltered() }
    }

    fn must_be_sheltered(&self) -> Result<()> {
        if self.options.open_vault || is_sheltered(self.tree.root())? {
            Ok(())
        } else {
            Err(VolumeError::WouldOpenVault)
        }
    }
}

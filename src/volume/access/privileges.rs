//! Removes setuid and setgid where POSIX and Linux do so.
//!
//! The kernel leaves this to us (`HANDLE_KILLPRIV_V2`), which spares it a question about the
//! file's capabilities before every single write. It says with a write whether the writer may keep
//! the bits; for the other changes of contents everybody but root loses them. File capabilities
//! and the bits at a change of owner are taken away by the backing filesystem itself.

use crate::volume::backing::handle::Handle;
use crate::volume::backing::lender;
use crate::volume::model::caller::Caller;
use crate::volume::model::error::Result;

const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
const GROUP_EXEC: u32 = 0o010;

impl Caller {
    /// True if the caller may keep setuid and setgid on a file that it changes.
    pub fn keeps_privileges(self) -> bool {
        self.uid == 0
    }

    /// True if the caller may set setgid on a file of group `gid`.
    fn may_set_setgid(self, gid: u32) -> bool {
        self.uid == 0 || self.is_in_group(gid)
    }

    fn is_in_group(self, gid: u32) -> bool {
        self.gid == gid || supplementary_groups(self.pid).contains(&gid)
    }
}

/// Takes setuid and setgid from a file that is not open and that `caller` changes.
pub(in crate::volume) fn drop_at(held: &Handle, caller: Caller) -> Result<()> {
    let stat = held.stat()?;
    match without_privileges(lender::without_loan(&stat).0, stat.st_gid, caller) {
        Some(without) => Ok(held.set_mode(without)?),
        None => Ok(()),
    }
}

/// After an ACL was set: as for chmod, only members of the file's group may leave it setgid.
pub(in crate::volume) fn drop_setgid(held: &Handle, caller: Caller) -> Result<()> {
    let stat = held.stat()?;
    if stat.st_mode & SETGID != 0 && !caller.may_set_setgid(stat.st_gid) {
        held.set_mode(lender::without_loan(&stat).0 & 0o7777 & !SETGID)?;
    }
    Ok(())
}

/// The permission bits of a file of group `gid` without what `caller` may not leave on it, if there is
/// anything. Setgid without group execution stays if the caller is in the group.
pub(in crate::volume) fn without_privileges(mode: u32, gid: u32, caller: Caller) -> Option<u32> {
    let mut taken = mode & SETUID;
    if has_setgid(mode) && (mode & GROUP_EXEC != 0 || !caller.is_in_group(gid)) {
        taken |= SETGID;
    }
    (taken != 0).then_some(mode & 0o7777 & !taken)
}

/// True if setgid is among these bits.
pub(in crate::volume) fn has_setgid(mode: u32) -> bool {
    mode & SETGID != 0
}

/// The groups of a process, which the kernel does not tell; none if it cannot be asked.
fn supplementary_groups(pid: u32) -> Vec<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    groups.split_whitespace().filter_map(|gid| gid.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setgid_without_group_execution_stays_with_those_of_the_group() {
        let by = |mode, gid| without_privileges(mode, gid, Caller { uid: 7, gid: 8, pid: 0 });
        for (mode, in_group, others) in [
            (0o100_644, None, None),
            (0o104_755, Some(0o755), Some(0o755)),
            (0o106_755, Some(0o755), Some(0o755)),
            (0o102_745, None, Some(0o745)),
            (0o106_745, Some(0o2745), Some(0o745)),
        ] {
            assert_eq!((by(mode, 8), by(mode, 9)), (in_group, others), "{mode:o}");
        }
    }

    /// As on Linux, where the capability counts and not the user.
    #[test]
    fn root_without_the_capability_loses_setgid_like_everybody() {
        let root = Caller { uid: 0, gid: 0, pid: 0 };
        assert_eq!(without_privileges(0o102_644, 9, root), Some(0o644));
        assert_eq!(without_privileges(0o102_644, 0, root), None);
    }
}

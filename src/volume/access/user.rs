//! A user of the mount, as policies and grants see one.

use std::sync::OnceLock;

use crate::volume::model::caller::Caller;
use crate::{keystore, process};

/// The process that made a request, and on demand the groups it is in.
#[derive(Debug)]
pub(in crate::volume) struct User {
    caller: Caller,
    groups: OnceLock<Option<Vec<u32>>>,
}

impl User {
    pub(in crate::volume) fn new(caller: Caller) -> Self {
        Self { caller, groups: OnceLock::new() }
    }

    pub(in crate::volume) fn uid(&self) -> u32 {
        self.caller.uid
    }

    /// All groups of the user, sorted. The request brings only one of them along: the others are
    /// read from /proc, and kept. `None` if nobody can tell who the process is.
    pub(in crate::volume) fn groups(&self) -> Option<&[u32]> {
        self.groups.get_or_init(|| read_groups(self.caller)).as_deref()
    }

    /// The groups, if they had to be read.
    pub(in crate::volume) fn known_groups(&self) -> &[u32] {
        self.groups.get().and_then(|groups| groups.as_deref()).unwrap_or_default()
    }

    /// The user as the keystore's caller.
    pub(in crate::volume) fn as_caller(&self, groups: Vec<u32>) -> keystore::Caller {
        keystore::Caller::on_mount(self.caller.uid, groups)
    }
}

fn read_groups(caller: Caller) -> Option<Vec<u32>> {
    let mut groups = process::groups_of(caller.pid, caller.uid)?;
    groups.push(caller.gid);
    groups.sort_unstable();
    groups.dedup();
    Some(groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_groups_of_this_process_are_found() {
        let uid = rustix::process::geteuid().as_raw();
        let caller = Caller { uid, gid: 4242, pid: std::process::id() };
        let user = User::new(caller);
        assert!(user.known_groups().is_empty());
        let groups = user.groups().unwrap();
        assert!(groups.contains(&4242) && groups.is_sorted());
        assert_eq!(user.known_groups(), groups);
        assert_eq!(User::new(Caller { pid: 0, ..caller }).groups(), None);
    }
}

//! A user of the mount, as policies and grants see one.

use std::sync::OnceLock;

use crate::keystore;
use crate::volume::model::caller::Caller;

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
    /// read from /proc, and kept. `None` when that is not possible any more, when the process is
    /// another user's by now, or when it is in another user namespace: with the help of newgidmap(1),
    /// any user can give groups up in one, and a Deny with them.
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
    if caller.pid == 0 {
        return None;
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", caller.pid)).ok()?;
    parse(&status, caller).filter(|_| is_of_our_namespace(caller.pid))
}

/// True for a process in the user namespace of this one. In another, that of an unprivileged user,
/// not all groups have a number, or other numbers. Kernels without such namespaces have no map.
fn is_of_our_namespace(pid: u32) -> bool {
    let map = |process: &str| std::fs::read(format!("/proc/{process}/gid_map")).ok();
    map(&pid.to_string()) == map("self")
}

/// The groups that /proc/PID/status shows of a process that acts for this user.
fn parse(status: &str, caller: Caller) -> Option<Vec<u32>> {
    let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let numbers = |text: &str| -> Option<Vec<u32>> {
        text.split_whitespace().map(|number| number.parse().ok()).collect()
    };
    // Real, effective, saved, filesystem: the last is the one that opens files.
    let uids = numbers(line("Uid:")?)?;
    if uids.get(3) != Some(&caller.uid) {
        return None;
    }
    let mut groups = numbers(line("Groups:")?)?;
    groups.push(caller.gid);
    groups.sort_unstable();
    groups.dedup();
    Some(groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str =
        "Name:\tcat\nUid:\t1000\t1000\t1000\t1001\nGid:\t100\t100\t100\t100\nGroups:\t27 4 100 \n";

    #[test]
    fn groups_are_those_of_the_process_that_asked() {
        let caller = Caller { uid: 1001, gid: 50, pid: 1 };
        assert_eq!(parse(STATUS, caller), Some(vec![4, 27, 50, 100]));
    }

    #[test]
    fn a_process_of_another_user_says_nothing() {
        assert_eq!(parse(STATUS, Caller { uid: 1000, gid: 50, pid: 1 }), None);
        assert_eq!(parse("Uid:\tx\n", Caller { uid: 1000, gid: 50, pid: 1 }), None);
        assert_eq!(User::new(Caller { uid: 1000, gid: 50, pid: 0 }).groups(), None);
    }

    /// It had given up the group that a Deny was about.
    #[test]
    fn regression_the_groups_of_a_process_in_another_user_namespace_are_unknown() {
        let sleep = ["--user", "--map-root-user", "sleep", "60"];
        let mut other = std::process::Command::new("unshare").args(sleep).spawn().unwrap();
        let name = format!("/proc/{}/comm", other.id());
        while std::fs::read_to_string(&name).unwrap() != "sleep\n" {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        let status = std::fs::read_to_string(format!("/proc/{}/status", other.id())).unwrap();
        let caller = Caller { uid, gid, pid: other.id() };
        let (shown, groups) = (parse(&status, caller), read_groups(caller));
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(shown.is_some());
        assert_eq!(groups, None);
    }

    #[test]
    fn the_groups_of_this_process_are_found() {
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        let user = User::new(Caller { uid, gid, pid: std::process::id() });
        assert!(user.groups().unwrap().contains(&gid));
    }
}

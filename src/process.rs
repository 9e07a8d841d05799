//! Rank 0: who another process is, as far as `/proc` tells.

use std::fs;
use std::io::ErrorKind;
use std::sync::OnceLock;

use parking_lot::Mutex;

/// The groups of a process that acts for this user, if both say who it is: the supplementary ones, and
/// all that it can make its effective one.
///
/// `None` if nobody can tell: the process has ended, is another user's by now, is out of sight
/// (another pid namespace, `/proc` with `hidepid`), or is in another user namespace, where users give
/// up groups with the help of newgidmap(1). Nor for subordinate users (subuid(5)): whoever has some
/// becomes them, there with newuidmap(1), and here by a setuid file that was made there.
pub(crate) fn groups_of(pid: u32, uid: u32) -> Option<Vec<u32>> {
    // Others have no number here, and `/proc/0` is nobody.
    if pid == 0 {
        return None;
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let groups = parse(&status, uid)?;
    let is_at_home = NamespaceMaps::of(&pid.to_string()) == NamespaceMaps::of("self");
    (is_at_home && !is_in(&subordinates(), uid)).then_some(groups)
}

/// True if `uid`, as the kernel reported it, is this process's user.
pub(crate) fn is_own_user(uid: u32) -> bool {
    uid == rustix::process::geteuid().as_raw() && !is_everybody(uid)
}

/// True if `uid` identifies nobody: in a user namespace the overflow uid stands for every unmapped user.
pub(crate) fn is_everybody(uid: u32) -> bool {
    let shared = UNMAPPED.get_or_init(|| {
        let overflow = fs::read_to_string("/proc/sys/kernel/overflowuid").ok();
        let overflow = overflow.and_then(|text| text.trim().parse().ok()).unwrap_or(OVERFLOW_UID);
        match fs::read_to_string("/proc/self/uid_map") {
            Ok(map) if is_initial_map(&map) => None,
            // A kernel without such namespaces.
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            _ => Some(overflow),
        }
    });
    *shared == Some(uid)
}

/// True of the map of the initial user namespace.
fn is_initial_map(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// The number that users without one have here, if there may be any.
static UNMAPPED: OnceLock<Option<u32>> = OnceLock::new();

/// The default of /proc/sys/kernel/overflowuid.
const OVERFLOW_UID: u32 = 65534;

/// Looks at who has subordinate users, while this process may: one that is confined cannot open the
/// file that takes the place of the one it knows.
pub(crate) fn learn_subordinates() {
    subordinates();
}

fn subordinates() -> Vec<UserRange> {
    let mut known = SUBORDINATES.lock();
    match fs::read_to_string(SUBUID) {
        Ok(text) => *known = text.lines().filter_map(UserRange::parse).collect(),
        Err(error) if error.kind() == ErrorKind::NotFound => known.clear(),
        Err(error) => {
            log::debug!("{SUBUID} cannot be read, the ranges known before are kept: {error}")
        }
    }
    known.clone()
}

fn is_in(ranges: &[UserRange], uid: u32) -> bool {
    ranges.iter().any(|range| range.holds(uid))
}

/// Users who belong to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct UserRange {
    first: u64,
    count: u64,
}

impl UserRange {
    /// Reads `owner:first:count`, numbers as newuidmap(1) does: with strtol(3), which takes `0x10` and
    /// `020` for 16.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split(':').skip(1).map(number);
        Some(Self { first: fields.next()??, count: fields.next()?? })
    }

    fn holds(self, uid: u32) -> bool {
        u64::from(uid).checked_sub(self.first).is_some_and(|after| after < self.count)
    }
}

fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    let text = text.strip_prefix('+').unwrap_or(text);
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hexadecimal) => u64::from_str_radix(hexadecimal, 16),
        None if text.starts_with('0') => u64::from_str_radix(text, 8),
        None => text.parse(),
    }
    .ok()
}

/// As they were read last.
static SUBORDINATES: Mutex<Vec<UserRange>> = Mutex::new(Vec::new());

const SUBUID: &str = "/etc/subuid";

/// How a process's user namespace maps ids, which anybody may read. No user can make a namespace that
/// maps all ids as the initial one does.
#[derive(PartialEq, Eq)]
struct NamespaceMaps {
    users: Option<Vec<u8>>,
    groups: Option<Vec<u8>>,
}

impl NamespaceMaps {
    /// Kernels without such namespaces have no maps.
    fn of(process: &str) -> Self {
        let map = |name: &str| fs::read(format!("/proc/{process}/{name}")).ok();
        Self { users: map("uid_map"), groups: map("gid_map") }
    }
}

/// The groups that `/proc/PID/status` shows of a process that acts for this user.
fn parse(status: &str, uid: u32) -> Option<Vec<u32>> {
    let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let numbers = |text: &str| -> Option<Vec<u32>> {
        text.split_whitespace().map(|number| number.parse().ok()).collect()
    };
    // Real, effective, saved, filesystem: the last is the one that opens files.
    if numbers(line("Uid:")?)?.get(3) != Some(&uid) {
        return None;
    }
    let mut groups = numbers(line("Groups:")?)?;
    // A setgid program keeps the user's group as its real gid only.
    groups.extend(numbers(line("Gid:")?)?);
    groups.sort_unstable();
    groups.dedup();
    Some(groups)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::process::{Child, Command};
    use std::time::Duration;

    use super::*;

    const STATUS: &str =
        "Name:\tcat\nUid:\t1000\t1000\t1000\t1001\nGid:\t7\t5\t5\t100\nGroups:\t27 4 100 \n";

    #[test]
    fn groups_are_those_of_a_process_of_the_user() {
        assert_eq!(parse(STATUS, 1001), Some(vec![4, 5, 7, 27, 100]));
        assert_eq!(parse(STATUS, 1000), None);
        assert_eq!(parse("Uid:\tx\n", 1000), None);
    }

    #[test]
    fn a_map_of_some_users_leaves_others_without_a_number() {
        assert!(is_initial_map("         0          0 4294967295\n"));
        for map in ["", "0 100000 65536\n", "0 0 4294967294\n", "0 0 1\n1 1 4294967294\n"] {
            assert!(!is_initial_map(map), "{map}");
        }
        assert!(is_own_user(own_uid()) && !is_own_user(own_uid() + 1));
    }

    #[test]
    fn who_is_not_there_or_out_of_sight_is_unknown() {
        let mut gone = Command::new("true").spawn().unwrap();
        gone.wait().unwrap();
        for pid in [0, gone.id()] {
            assert_eq!(groups_of(pid, own_uid()), None);
        }
    }

    #[test]
    fn this_process_is_known() {
        assert!(groups_of(std::process::id(), own_uid()).is_some());
        assert_eq!(groups_of(std::process::id(), own_uid() + 1), None);
    }

    #[test]
    fn subordinate_users_are_those_of_the_ranges() {
        let range = UserRange::parse("ann:100000:65536").unwrap();
        for (uid, holds) in
            [(99_999, false), (100_000, true), (165_535, true), (165_536, false), (0, false)]
        {
            assert_eq!(range.holds(uid), holds, "{uid}");
        }
        for line in ["", "ann", "ann:1", "ann:x:1", "ann:1:-1", "# ann"] {
            assert_eq!(UserRange::parse(line), None, "{line}");
        }
        assert!(is_in(&[UserRange { first: 0, count: 1 }, range], 100_000));
        let same = ["ann:100000:65536", "ann:0x186a0:0X10000", "ann: 0303240:+65536"];
        assert!(same.iter().all(|line| UserRange::parse(line) == Some(range)));
        let endless = UserRange::parse("1000:1:18446744073709551615").unwrap();
        assert!(endless.holds(u32::MAX) && !endless.holds(0));
    }

    /// They give up the groups that a Deny is about, and become subordinate users.
    #[test]
    fn regression_who_is_in_another_user_namespace_is_unknown() {
        for map in ["--map-root-user", "--map-current-user"] {
            let mut other = Sleeping::start(map);
            let status = fs::read_to_string(format!("/proc/{}/status", other.0.id())).unwrap();
            let known = groups_of(other.0.id(), own_uid());
            other.0.kill().unwrap();
            assert!(parse(&status, own_uid()).is_some(), "{status}");
            assert_eq!(known, None, "{map}");
        }
    }

    fn own_uid() -> u32 {
        fs::metadata("/proc/self").unwrap().uid()
    }

    /// A process in a user namespace of its own.
    struct Sleeping(Child);

    impl Sleeping {
        fn start(map: &str) -> Self {
            let words = ["--user", map, "sleep", "60"];
            let started = Self(Command::new("unshare").args(words).spawn().unwrap());
            let name = format!("/proc/{}/comm", started.0.id());
            while fs::read_to_string(&name).unwrap() != "sleep\n" {
                std::thread::sleep(Duration::from_millis(5));
            }
            started
        }
    }

    impl Drop for Sleeping {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

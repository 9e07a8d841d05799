//! Who keeps a mount busy: the processes with something of it open.

use std::path::Path;

use super::mountinfo::Mounted;
use crate::cli::report::printable::printable;

/// A process that holds a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Holder {
    /// Its number.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// How it holds the mount: its working directory, an open file, a mapping.
    pub how: &'static str,
}

/// The processes that hold anything on a mount.
///
/// Processes of other users are seen only by root. No file of any process is touched, only what the
/// kernel says of them: a filesystem somewhere else that hangs must not hang this as well.
pub(in crate::cli) fn holders(mount: &Mounted) -> Vec<Holder> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| holder(pid, mount))
        .collect()
}

/// The holders as one line each, at most ten.
pub(in crate::cli) fn describe(holders: &[Holder]) -> String {
    let mut lines: Vec<String> = holders
        .iter()
        .take(SHOWN)
        .map(|holder| format!("{} ({}) has {}", holder.name, holder.pid, holder.how))
        .collect();
    if holders.len() > SHOWN {
        lines.push(format!("and {} more", holders.len() - SHOWN));
    }
    lines.join("\n  ")
}

fn holder(pid: u32, mount: &Mounted) -> Option<Holder> {
    let process = Path::new("/proc").join(pid.to_string());
    let leads_there = |link: &str| {
        std::fs::read_link(process.join(link)).is_ok_and(|to| to.starts_with(&mount.mountpoint))
    };
    let how = if leads_there("cwd") {
        "its working directory there"
    } else if has_open(&process, mount) {
        "a file open"
    } else if has_mapped(&process, mount) {
        "a file mapped"
    } else if leads_there("root") {
        "its root directory there"
    } else {
        return None;
    };
    let name = std::fs::read_to_string(process.join("comm")).unwrap_or_default();
    Some(Holder { pid, name: printable(name.trim()).into_owned(), how })
}

/// Source: proc_pid_fdinfo(5).
fn has_open(process: &Path, mount: &Mounted) -> bool {
    let Ok(entries) = std::fs::read_dir(process.join("fdinfo")) else { return false };
    let of_mount = |text: String| {
        let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:"));
        id.is_some_and(|id| id.trim().parse() == Ok(mount.id))
    };
    entries.flatten().any(|entry| std::fs::read_to_string(entry.path()).is_ok_and(of_mount))
}

/// Source: proc_pid_maps(5): the device is the fourth field, in hexadecimal.
fn has_mapped(process: &Path, mount: &Mounted) -> bool {
    let (major, minor) = mount.device;
    let device = format!("{major:02x}:{minor:02x}");
    std::fs::read(process.join("maps")).is_ok_and(|maps| {
        let mut lines = maps.split(|byte| *byte == b'\n');
        lines.any(|line| line.split(|byte| *byte == b' ').nth(3) == Some(device.as_bytes()))
    })
}

const SHOWN: usize = 10;

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn this_process_holds_its_own_working_directory() {
        let mount = Mounted {
            vault: "/nowhere".into(),
            mountpoint: std::env::current_dir().unwrap(),
            options: "rw".into(),
            device: (0, 0),
            id: 0,
            parent: 0,
            user: 0,
            read_only: false,
        };
        let found = holders(&mount);
        let own = found.iter().find(|holder| holder.pid == std::process::id()).unwrap();
        assert_eq!(own.how, "its working directory there");
    }

    #[test]
    fn open_and_mapped_files_are_found_without_a_look_at_them() {
        let program = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
        let own = Path::new("/proc/self");
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd()));
        let id =
            info.unwrap().lines().find_map(|l| Some(l.strip_prefix("mnt_id:")?.trim().parse()));
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let name = std::env::current_exe().unwrap();
        let line = maps.lines().find(|line| line.ends_with(name.to_str().unwrap())).unwrap();
        let (major, minor) = line.split(' ').nth(3).unwrap().split_once(':').unwrap();
        let hex = |digits| u32::from_str_radix(digits, 16).unwrap();
        let mount = Mounted {
            vault: "/nowhere".into(),
            mountpoint: "/nowhere".into(),
            options: "rw".into(),
            device: (hex(major), hex(minor)),
            id: id.unwrap().unwrap(),
            parent: 0,
            user: 0,
            read_only: false,
        };
        assert!(has_open(own, &mount) && has_mapped(own, &mount));
        let other = Mounted { id: u64::MAX, device: (9999, 9999), ..mount };
        assert!(!has_open(own, &other) && !has_mapped(own, &other));
    }

    #[test]
    fn a_long_list_is_cut() {
        let many: Vec<Holder> =
            (0..12).map(|pid| Holder { pid, name: "cat".into(), how: "a file open" }).collect();
        assert!(describe(&many).ends_with("and 2 more"));
    }
}

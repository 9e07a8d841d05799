//! Who keeps a mount busy: the processes with something of it open.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A process that holds a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    /// Its number.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// How it holds the mount: its working directory, an open file, a mapping.
    pub how: &'static str,
}

/// The processes that hold anything on the filesystem mounted at `mountpoint`.
///
/// Processes of other users are seen only by root. The mountpoint itself is not touched beyond
/// one `stat`: a daemon that hangs must not hang this as well.
pub(super) fn holders(mountpoint: &Path) -> Vec<Holder> {
    let Ok(device) = std::fs::metadata(mountpoint).map(|meta| meta.dev()) else {
        return Vec::new();
    };
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| holder(pid, device))
        .collect()
}

/// The holders as one line each, at most ten.
pub(super) fn describe(holders: &[Holder]) -> String {
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

fn holder(pid: u32, device: u64) -> Option<Holder> {
    let process = Path::new("/proc").join(pid.to_string());
    let on_device = |path: &Path| std::fs::metadata(path).is_ok_and(|meta| meta.dev() == device);
    let any_in = |folder: &str| {
        std::fs::read_dir(process.join(folder))
            .is_ok_and(|entries| entries.flatten().any(|entry| on_device(&entry.path())))
    };
    let how = if on_device(&process.join("cwd")) {
        "its working directory there"
    } else if any_in("fd") {
        "a file open"
    } else if any_in("map_files") || on_device(&process.join("exe")) {
        "a file mapped"
    } else if on_device(&process.join("root")) {
        "its root directory there"
    } else {
        return None;
    };
    let name = std::fs::read_to_string(process.join("comm")).unwrap_or_default();
    Some(Holder { pid, name: name.trim().to_owned(), how })
}

const SHOWN: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_holds_its_own_working_directory() {
        let here = std::env::current_dir().unwrap();
        let found = holders(&here);
        assert!(found.iter().any(|holder| holder.pid == std::process::id()));
    }

    #[test]
    fn a_long_list_is_cut() {
        let many: Vec<Holder> =
            (0..12).map(|pid| Holder { pid, name: "cat".into(), how: "a file open" }).collect();
        assert!(describe(&many).ends_with("and 2 more"));
    }
}

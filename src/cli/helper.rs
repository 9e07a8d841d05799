//! `mount.kmsfs` and `mount.fuse.kmsfs`: the program under the names that mount(8) looks for.
//!
//! With a link of that name in /sbin, a line of fstab(5) mounts a vault:
//! `VAULT MOUNTPOINT fuse.kmsfs key-file=/etc/kmsfs.key,allow_other,nofail 0 0`.
//! mount(8) calls it as `mount.kmsfs VAULT MOUNTPOINT [-sfnv] [-o OPTIONS] [-t TYPE]`.

use std::ffi::{OsStr, OsString};
use std::path::Path;

/// True when the program was called as a mount helper.
pub(super) fn is_helper(program: &OsStr) -> bool {
    let name = Path::new(program).file_name().and_then(OsStr::to_str).unwrap_or_default();
    matches!(name, "mount.kmsfs" | "mount.fuse.kmsfs" | "mount.fuse3.kmsfs")
}

/// The same request as the words of `kmsfs mount`; `None` for `-f`, which mounts nothing.
pub(super) fn translate(words: &[OsString]) -> Option<Vec<OsString>> {
    let mut line: Vec<OsString> = vec!["kmsfs".into(), "mount".into()];
    let mut places = Vec::new();
    let mut words = words.iter().skip(1);
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("-o") => {
                line.push("-o".into());
                line.extend(words.next().cloned());
            }
            Some("-t" | "-N") => {
                words.next();
            }
            Some(flags) if is_flags(flags) => {
                if flags.contains('f') {
                    return None;
                }
                if flags.contains('v') {
                    line.push("-v".into());
                }
                if flags.contains('r') {
                    line.push("--read-only".into());
                }
            }
            Some(option) if option.starts_with("-o") => line.push(word.clone()),
            _ => places.push(word.clone()),
        }
    }
    line.push("--".into());
    line.extend(places);
    Some(line)
}

/// A group of the single-letter flags that mount(8) passes on.
fn is_flags(word: &str) -> bool {
    word.len() > 1
        && word
            .strip_prefix('-')
            .is_some_and(|letters| letters.chars().all(|c| "sfnvrw".contains(c)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(line: &str) -> Option<String> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let line = translate(&words)?;
        Some(line.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn what_mount_says_becomes_a_mount_command() {
        assert_eq!(
            translated("/sbin/mount.fuse.kmsfs /v /m -o rw,allow_other -t fuse.kmsfs").unwrap(),
            "kmsfs mount -o rw,allow_other -- /v /m"
        );
        assert_eq!(translated("mount.kmsfs /v /m -nv").unwrap(), "kmsfs mount -v -- /v /m");
    }

    #[test]
    fn a_fake_mount_does_nothing() {
        assert_eq!(translated("mount.kmsfs /v /m -f"), None);
    }

    #[test]
    fn only_the_helper_names_are_helpers() {
        assert!(is_helper(OsStr::new("/usr/sbin/mount.fuse.kmsfs")));
        assert!(!is_helper(OsStr::new("/usr/bin/kmsfs")));
    }
}

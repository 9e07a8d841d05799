//! `mount.kmsfs`, `mount.fuse.kmsfs` and the `umount.` twins: the program under the names that
//! mount(8) and umount(8) look for.
//!
//! With links of these names in /sbin, a line of fstab(5) mounts a vault:
//! `VAULT MOUNTPOINT fuse.kmsfs key-file=/etc/kmsfs.key,allow_other,nofail 0 0`, and umount(8)
//! returns only when the vault is released. They are called as
//! `mount.kmsfs VAULT MOUNTPOINT [-sfnv] [-o OPTIONS] [-t TYPE]` and
//! `umount.kmsfs MOUNTPOINT [-flnrv] [-t TYPE]`.

use std::ffi::{OsStr, OsString};
use std::path::Path;

/// What the program was called as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum CalledAs {
    /// Itself.
    Program,
    /// The helper of mount(8).
    Mount,
    /// The helper of umount(8).
    Umount,
}

impl CalledAs {
    /// Looks at the name of the program.
    pub(in crate::cli) fn of(program: &OsStr) -> Self {
        let name = Path::new(program).file_name().and_then(OsStr::to_str).unwrap_or_default();
        match name {
            "mount.kmsfs" | "mount.fuse.kmsfs" => Self::Mount,
            "umount.kmsfs" | "umount.fuse.kmsfs" => Self::Umount,
            _ => Self::Program,
        }
    }

    /// The same request as a command line of kmsfs; `None` for `mount -f`, which mounts nothing.
    pub(in crate::cli) fn translate(self, words: Vec<OsString>) -> Option<Vec<OsString>> {
        match self {
            Self::Program => Some(words),
            Self::Mount => mount(&words),
            Self::Umount => Some(umount(&words)),
        }
    }
}

fn mount(words: &[OsString]) -> Option<Vec<OsString>> {
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

fn umount(words: &[OsString]) -> Vec<OsString> {
    let mut line: Vec<OsString> = vec!["kmsfs".into(), "umount".into()];
    let mut places = Vec::new();
    let mut words = words.iter().skip(1);
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("-t" | "-N" | "-o") => {
                words.next();
            }
            Some(flags) if is_flags(flags) => {
                for (flag, option) in [('l', "--lazy"), ('f', "--force")] {
                    if flags.contains(flag) {
                        line.push(option.into());
                    }
                }
            }
            _ => places.push(word.clone()),
        }
    }
    line.push("--".into());
    line.extend(places);
    line
}

/// A group of the single-letter flags that mount(8) passes on.
fn is_flags(word: &str) -> bool {
    word.len() > 1
        && word
            .strip_prefix('-')
            .is_some_and(|letters| letters.chars().all(|c| "sfnvrwl".contains(c)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(line: &str) -> Option<String> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let line = CalledAs::of(&words[0]).translate(words)?;
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
    fn what_umount_says_becomes_an_umount_command() {
        assert_eq!(
            translated("/sbin/umount.fuse.kmsfs /m -l -t fuse.kmsfs").unwrap(),
            "kmsfs umount --lazy -- /m"
        );
    }

    #[test]
    fn a_fake_mount_does_nothing() {
        assert_eq!(translated("mount.kmsfs /v /m -f"), None);
    }

    #[test]
    fn only_the_helper_names_are_helpers() {
        assert_eq!(CalledAs::of(OsStr::new("/usr/sbin/mount.fuse.kmsfs")), CalledAs::Mount);
        assert_eq!(CalledAs::of(OsStr::new("/usr/bin/kmsfs")), CalledAs::Program);
    }
}

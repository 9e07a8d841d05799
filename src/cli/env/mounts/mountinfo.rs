//! The system's mounts: which vault is mounted where.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::cli::report::exit::CliError;
use crate::control::VaultDir;
use crate::process;

/// One mount of a vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Mounted {
    /// The vault: the source of the mount.
    pub vault: PathBuf,
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// The options of this mountpoint.
    pub options: String,
    /// The device number, whose minor part names the connection below /sys/fs/fuse.
    pub device: (u32, u32),
    /// The number of the mount in this namespace.
    pub id: u64,
    /// That of the mount which it lies on.
    pub parent: u64,
    /// The user who mounted it, as the kernel knows him.
    pub user: u32,
    /// Nothing can be written by it, wherever it is mounted.
    pub read_only: bool,
}

impl Mounted {
    /// The device number in words.
    pub(in crate::cli) fn device_text(&self) -> String {
        format!("{}:{}", self.device.0, self.device.1)
    }

    /// True if the mountpoint has this option.
    pub(in crate::cli) fn has_option(&self, name: &str) -> bool {
        self.options.split(',').any(|option| option == name)
    }

    /// True if the source is what it says: any user may mount something that calls itself a kmsfs
    /// mount of a vault that is not theirs.
    pub(in crate::cli) fn is_believable(&self) -> bool {
        self.is_trusted() || self.source().is_some()
    }

    /// The path of the vault, if the source may be believed.
    pub(in crate::cli) fn believed_vault(&self) -> Option<&Path> {
        self.is_believable().then_some(&*self.vault)
    }

    /// The vault, if the source may be believed. The path may lead elsewhere a moment later: use what
    /// this has found to ask about the vault.
    pub(in crate::cli) fn source(&self) -> Option<VaultDir> {
        // The path had no link in it when the vault was mounted.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = rustix::fs::open(&self.vault, flags, Mode::empty()).ok()?;
        let found = VaultDir::of(dir).ok()?;
        (self.is_trusted() || found.owner() == self.user).then_some(found)
    }

    /// True if root or this user has mounted it.
    pub(in crate::cli) fn is_trusted(&self) -> bool {
        self.user == 0 || process::is_own_user(self.user)
    }
}

/// All mounts of kmsfs that this process can see, oldest first.
pub(in crate::cli) fn all() -> Result<Vec<Mounted>, CliError> {
    read().map_err(|error| CliError::io(MOUNTINFO, &error))
}

/// The same.
pub(in crate::cli) fn read() -> io::Result<Vec<Mounted>> {
    let text = std::fs::read(MOUNTINFO)?;
    Ok(text.split(|byte| *byte == b'\n').filter_map(parse).collect())
}

/// The topmost mount of kmsfs at exactly this mountpoint.
pub(in crate::cli) fn at(mountpoint: &Path) -> Result<Option<Mounted>, CliError> {
    let found = all()?.into_iter().rfind(|mount| mount.mountpoint == mountpoint);
    Ok(found)
}

/// The newest mount of the filesystem with this device number: of all of it, or, as bind mounts are,
/// of a part.
pub(in crate::cli) fn of_device(device: u64) -> Result<Option<Mounted>, CliError> {
    let device = (rustix::fs::major(device), rustix::fs::minor(device));
    Ok(all()?.into_iter().rfind(|mount| mount.device == device))
}

/// The mount of kmsfs that holds this path, or would hold it if it were made.
pub(in crate::cli) fn holding(path: &Path) -> Result<Option<Mounted>, CliError> {
    let mounts = all()?;
    let found = mounts
        .into_iter()
        .filter(|mount| path.starts_with(&mount.mountpoint))
        .max_by_key(|mount| mount.mountpoint.as_os_str().len());
    let Some(mount) = found else { return Ok(None) };
    // Another filesystem may be mounted below it.
    let there = path.ancestors().find_map(|above| rustix::fs::stat(above).ok());
    let device = there.map(|stat| (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev)));
    Ok(device.is_none_or(|device| device == mount.device).then_some(mount))
}

/// The mount of this vault.
pub(in crate::cli) fn of_vault(vault: &Path) -> Result<Option<Mounted>, CliError> {
    Ok(all()?.into_iter().rfind(|mount| mount.vault == vault && mount.is_believable()))
}

/// True when `path` is where the mount `id`, of whatever filesystem, is mounted.
pub(in crate::cli) fn is_root(id: u64, path: &Path) -> io::Result<bool> {
    let text = std::fs::read(MOUNTINFO)?;
    Ok(text.split(|byte| *byte == b'\n').any(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let is_it = fields.next().and_then(number) == Some(id);
        is_it && fields.nth(3).is_some_and(|field| unescape(field) == path)
    }))
}

/// Source: proc_pid_mountinfo(5). Lines of other filesystems give `None`.
fn parse(line: &[u8]) -> Option<Mounted> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let device = fields.next()?;
    let mountpoint = unescape(fields.nth(1)?);
    let options = String::from_utf8_lossy(fields.next()?).into_owned();
    let mut tail = fields.skip_while(|field| *field != b"-").skip(1);
    let kind = tail.next()?;
    if kind != FSTYPE.as_bytes() {
        return None;
    }
    let mut parts = device.splitn(2, |byte| *byte == b':');
    let device = (number(parts.next()?)?, number(parts.next()?)?);
    let vault = unescape(tail.next()?);
    let mut of_filesystem = tail.next()?.split(|byte| *byte == b',');
    let read_only = of_filesystem.clone().any(|option| option == b"ro");
    let user = number(of_filesystem.find_map(|option| option.strip_prefix(b"user_id="))?)?;
    Some(Mounted { vault, mountpoint, options, device, id, parent, user, read_only })
}

fn number<N: std::str::FromStr>(digits: &[u8]) -> Option<N> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Blanks and backslashes are written as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = (byte == b'\\').then(|| after.get(..3).and_then(octal)).flatten();
        if let Some(value) = octal {
            plain.push(value);
            rest = after.get(3..).unwrap_or_default();
        } else {
            plain.push(byte);
            rest = after;
        }
    }
    PathBuf::from(OsString::from_vec(plain))
}

fn octal(digits: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(digits).ok()?;
    u8::from_str_radix(text, 8).ok()
}

/// The type that `fuse` and the subtype `kmsfs` make together.
pub(in crate::cli) const FSTYPE: &str = "fuse.kmsfs";

const MOUNTINFO: &str = "/proc/self/mountinfo";

/// The bytes of a path, for comparing and for JSON that has to be text.
pub(in crate::cli) fn text(path: &Path) -> String {
    String::from_utf8_lossy(path.as_os_str().as_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_with_blanks_in_its_names_is_read() {
        let line = b"36 35 0:61 / /mnt/my\\040files rw,nosuid shared:1 - fuse.kmsfs /srv/my\\040vault rw,user_id=7";
        let mount = parse(line).unwrap();
        assert_eq!(mount.mountpoint, Path::new("/mnt/my files"));
        assert_eq!(mount.vault, Path::new("/srv/my vault"));
        assert_eq!((mount.options.as_str(), mount.device), ("rw,nosuid", (0, 61)));
        assert_eq!((mount.id, mount.parent, mount.user), (36, 35, 7));
        assert!(!mount.read_only);
        let view = b"36 35 0:61 / /mnt rw - fuse.kmsfs /srv/vault ro,user_id=7";
        assert!(parse(view).unwrap().read_only);
    }

    /// Root was led from a user's mount to the daemon of root's own vault.
    #[test]
    fn regression_a_link_in_the_place_of_a_vault_leads_to_none() {
        let dir = std::env::temp_dir().join(format!("kmsfs-{}-source", std::process::id()));
        std::fs::create_dir_all(dir.join("vault")).unwrap();
        std::os::unix::fs::symlink("vault", dir.join("link")).unwrap();
        let user = rustix::process::geteuid().as_raw();
        let of = |name: &str, user| Mounted {
            vault: dir.join(name),
            mountpoint: PathBuf::new(),
            options: String::new(),
            device: (0, 1),
            id: 1,
            parent: 1,
            user,
            read_only: false,
        };
        assert!(of("vault", user).source().is_some());
        assert!(of("link", user).source().is_none());
        assert!(of("vault", user + 1).source().is_none(), "it is not that user's");
        assert!(!of("vault", user + 1).is_believable());
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn other_filesystems_are_passed_over() {
        assert_eq!(parse(b"22 1 254:0 / / rw - ext4 /dev/vda rw"), None);
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn a_lone_backslash_stays() {
        assert_eq!(unescape(b"a\\b"), Path::new("a\\b"));
    }
}

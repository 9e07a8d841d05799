//! Nothing that was written in the clear may be found in the vault, the keystore or the log.

use std::fs;
use std::os::unix::fs::symlink;

use rustix::fs::{XattrFlags, setxattr};

use crate::harness::{Vault, contains, files_below};

/// Planted in contents, names, link targets and attributes; nothing else contains it.
const MARK: &str = "Plaintext0Marker";

#[test]
fn planted_plaintext_is_nowhere_outside_the_mount() {
    let vault = Vault::new("secrecy");
    let mount = vault.mount_with(&["--create", "-vv"]);
    let dir = mount.path(format!("{MARK} directory"));
    fs::create_dir(&dir).unwrap();
    let text = MARK.repeat(1000);
    fs::write(dir.join(format!("{MARK} file")), &text).unwrap();
    fs::write(dir.join(format!("{MARK}{}", "n".repeat(200))), MARK).unwrap();
    symlink(format!("/{MARK}/target"), dir.join("link")).unwrap();
    setxattr(&dir, format!("user.{MARK}"), MARK.as_bytes(), XattrFlags::CREATE).unwrap();
    setxattr(
        dir.join(format!("{MARK} file")),
        format!("user.{MARK}"),
        MARK.as_bytes(),
        XattrFlags::CREATE,
    )
    .unwrap();
    fs::write(dir.join("short"), MARK).unwrap();
    fs::write(dir.join("shrinks"), &text).unwrap();
    fs::OpenOptions::new().write(true).open(dir.join("shrinks")).unwrap().set_len(20).unwrap();
    fs::rename(dir.join("short"), dir.join(format!("{MARK} renamed"))).unwrap();
    assert!(fs::read_to_string(dir.join(format!("{MARK} missing"))).is_err());
    assert!(fs::write(dir.join("x".repeat(256)), MARK).is_err());
    vault.kmsfs(["key", "rotate", "alias/kmsfs/default"]);
    vault.kmsfs(["rewrap", mount.root().to_str().unwrap()]);
    mount.unmount();

    let mark = MARK.as_bytes();
    let needles = [&mark[..12], &mark[4..]];
    for needle in needles {
        for file in files_below(vault.store()) {
            let shown = file.to_string_lossy();
            assert!(!contains(shown.as_bytes(), needle), "the name {shown} is in the clear");
            assert!(!contains(&fs::read(&file).unwrap(), needle), "{shown} holds plaintext");
        }
        for file in files_below(&vault.outside("")) {
            assert!(
                !contains(&fs::read(&file).unwrap(), needle),
                "{} holds plaintext",
                file.display()
            );
        }
        let attributes = crate::harness::Shell::new(vault.store())
            .run("getfattr -R -h -d -m - . ; find . -printf '%p %l\n'");
        assert!(!contains(attributes.as_bytes(), needle), "an attribute or link is in the clear");
    }
}

#[test]
fn the_secret_files_are_for_their_owner_alone() {
    use std::os::unix::fs::MetadataExt;
    let vault = Vault::new("modes600");
    vault.mount().unmount();
    for file in [vault.keystore(), vault.outside("key")] {
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o077, 0, "{}", file.display());
    }
}

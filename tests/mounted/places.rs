//! Directories that somebody exchanges in the vault are of no use until a person takes them in.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::harness::{Shell, Vault};

/// The directory of the vault that is shown under `path`.
fn backing(store: &Path, path: &Path) -> PathBuf {
    let ino = fs::metadata(path).unwrap().ino();
    let mut dirs = fs::read_dir(store).unwrap().map(|entry| entry.unwrap());
    dirs.find(|entry| entry.metadata().unwrap().ino() == ino).unwrap().path()
}

#[test]
fn an_exchanged_directory_is_refused_removed_or_adopted() {
    let vault = Vault::new("places");
    let mount = vault.mount();
    Shell::new(mount.root()).run(
        "mkdir finance public old; echo secret > finance/report; echo known > public/page
         mkdir -p old/sub; echo x > old/sub/y",
    );
    let [finance, public, old] =
        ["finance", "public", "old"].map(|name| backing(vault.store(), &mount.path(name)));
    mount.unmount();
    let flags = rustix::fs::RenameFlags::EXCHANGE;
    let cwd = rustix::fs::CWD;
    rustix::fs::renameat_with(cwd, &finance, cwd, &public, flags).unwrap();
    fs::rename(&old, old.with_file_name("abcdefghijklmnopqrstuvwxyzabcdefghij")).unwrap();

    let mount = vault.mount();
    for name in ["finance", "public"] {
        let made = fs::write(mount.path(name).join("new"), "x").unwrap_err();
        assert_eq!(made.raw_os_error(), Some(libc::EBADMSG), "{name}: {made}");
    }
    // What is there can be removed as it is.
    let shell = Shell::new(mount.root());
    shell.run("rm -r kmsfs.foreign.*");
    // Back in its place, one is good again; the other is taken in where it is.
    shell
        .run("mv finance aside; mv public finance; cat finance/report; mkdir public; rmdir public");
    let aside = mount.path("aside");
    let place = aside.to_str().unwrap();
    let asked = vault.command().args(["adopt", place]).output().unwrap();
    assert_eq!(asked.status.code(), Some(14), "{asked:?}");
    vault.kmsfs(["adopt", place, "--yes"]);
    assert_eq!(fs::read_to_string(aside.join("page")).unwrap(), "known\n");
    let again = vault.kmsfs(["adopt", place, "--json"]);
    assert!(again.contains(r#""misplaced": null"#), "{again}");
    assert!(vault.log().contains("it was made for another place"), "{}", vault.log());
    mount.unmount();
    vault.kmsfs(["fsck", vault.store().to_str().unwrap()]);
}

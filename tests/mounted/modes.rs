//! Files and directories whose own mode keeps their owner out.
//!
//! For root no mode is in the way; the ordinary user's run of this suite is the one that counts.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use crate::harness::{Mount, Shell, Vault, check_headers, is_root};

const DEFAULT: &str = "alias/kmsfs/default";
/// What a user may have made of a file and of a directory.
const FILES: [u32; 7] = [0o444, 0o400, 0o200, 0o000, 0o044, 0o111, 0o600];
const DIRS: [u32; 5] = [0o555, 0o000, 0o300, 0o400, 0o111];

#[test]
fn a_rewrap_reaches_files_and_directories_that_keep_their_owner_out() {
    let vault = Vault::new("closed");
    let mount = vault.mount();
    make_tree(&mount);
    let before = shown(&mount.root());
    vault.kmsfs(["key", "rotate", DEFAULT]);
    vault.kmsfs(["rewrap", mount.root().to_str().unwrap()]);
    let after = shown(&mount.root());
    assert_eq!(before, after, "modes and change times are as before");
    mount.unmount();
    let mount = vault.mount_with(&[]);
    assert_eq!(shown(&mount.root()), before, "also after a remount");
    mount.unmount();
    assert_current_only(&vault);
    assert_contents(&vault.mount_with(&[]));
}

#[test]
fn an_offline_rewrap_reaches_them_too() {
    let vault = Vault::new("closed");
    let mount = vault.mount();
    make_tree(&mount);
    let before = shown(&mount.root());
    mount.unmount();
    vault.kmsfs(["key", "rotate", DEFAULT]);
    vault.kmsfs(["rewrap", vault.store().to_str().unwrap()]);
    let mount = vault.mount_with(&[]);
    assert_eq!(shown(&mount.root()), before);
    mount.unmount();
    assert_current_only(&vault);
    assert_contents(&vault.mount_with(&[]));
}

/// Every object of a repository has mode 0444: its old material could never be retired.
#[test]
fn old_material_of_a_git_repository_can_be_retired() {
    let vault = Vault::new("retire");
    let mount = vault.mount();
    Shell::new(mount.root()).run(
        "git init -q r; cd r; for i in 1 2 3 4 5; do echo $i > f$i; done
         git add .; git commit -qm one; chmod 0 f1; chmod 200 f2",
    );
    vault.kmsfs(["key", "rotate", DEFAULT]);
    vault.kmsfs(["rewrap", mount.root().to_str().unwrap()]);
    vault.kmsfs(["key", "retire", DEFAULT, "--yes"]);
    let out =
        Shell::new(mount.path("r")).run("git fsck --full; git status --short; stat -c %a f1 f2");
    assert_eq!(out.lines().rev().take(2).collect::<Vec<_>>(), ["200", "0"], "{out}");
    mount.unmount();
    let mount = vault.mount_with(&[]);
    Shell::new(mount.path("r")).run("git fsck --full; chmod 600 f1; cat f1");
}

#[test]
fn a_directory_of_closed_files_changes_its_key() {
    let vault = Vault::new("policy");
    let mount = vault.mount();
    make_tree(&mount);
    let before = shown(&mount.root());
    vault.kmsfs(["key", "create", "--alias", "alias/other"]);
    vault.kmsfs(["policy", "set", mount.root().to_str().unwrap(), "--key", "alias/other"]);
    vault.kmsfs(["rewrap", mount.root().to_str().unwrap()]);
    assert_eq!(shown(&mount.root()), before);
    vault.kmsfs(["key", "disable", DEFAULT]);
    mount.unmount();
    let mount = vault.mount_with(&[]);
    assert_contents(&mount);
}

#[test]
fn a_check_reads_closed_files_and_leaves_their_modes() {
    let vault = Vault::new("check");
    let mount = vault.mount();
    make_tree(&mount);
    let before = shown(&mount.root());
    mount.unmount();
    let report = fsck(&vault, &["--repair"]);
    assert_eq!(report["problems"], Value::Array(vec![]), "{report}");
    assert_eq!(report["complete"], true);
    let mount = vault.mount_with(&[]);
    assert_eq!(shown(&mount.root()), before);
    mount.unmount();
    // One slot of each header is damaged: a repair writes to the file.
    for file in closed_files(&vault) {
        damage_second_slot(&file);
    }
    fsck(&vault, &["--repair"]);
    for file in closed_files(&vault) {
        assert_ne!(bytes_of(&file)[600..620], [0xa5; 20], "{}", file.display());
    }
    assert_contents(&vault.mount_with(&[]));
}

#[test]
fn a_check_that_repairs_nothing_changes_nothing() {
    let vault = Vault::new("look");
    let mount = vault.mount();
    make_files(&mount);
    mount.unmount();
    let before = shown(vault.store());
    let report = fsck(&vault, &[]);
    assert_eq!(shown(vault.store()), before, "not even for a moment");
    let closed = report["problems"].as_array().unwrap();
    assert_eq!(closed.is_empty(), is_root(), "{report}");
    for problem in closed {
        let said = problem["what"].as_str().unwrap();
        assert!(said.contains("denied") || said.contains("cannot be read"), "{report}");
    }
}

/// The kernel takes these bits when anybody but root writes, and the seal at the end is a write.
#[test]
fn setuid_and_setgid_stay_when_a_header_is_written() {
    let vault = Vault::new("special");
    let mount = vault.mount();
    let modes = [0o4755, 0o2755, 0o6755, 0o2644, 0o4444];
    for mode in modes {
        let path = mount.path(format!("{mode:o}"));
        fs::write(&path, "contents").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }
    mount.unmount();
    vault.kmsfs(["key", "rotate", DEFAULT]);
    let mount = vault.mount_with(&[]);
    vault.kmsfs(["rewrap", mount.root().to_str().unwrap()]);
    mount.unmount();
    let mount = vault.mount_with(&[]);
    for mode in modes {
        let found = fs::metadata(mount.path(format!("{mode:o}"))).unwrap().mode() & 0o7777;
        assert_eq!(found, mode, "{found:o}");
    }
}

/// The list of shown times is renamed into place, which the mode of the vault's own directory denied:
/// the session did not end, and the next mount took it for a crash.
#[test]
fn regression_a_session_ends_in_a_vault_that_is_read_only_for_its_owner() {
    let vault = Vault::new("readonly");
    let mount = vault.mount();
    fs::write(mount.path("file"), "contents").unwrap();
    let long = "x".repeat(3000);
    Shell::new(vault.store()).run("chmod -R a-w .");
    vault.kmsfs(["key", "rotate", DEFAULT]);
    vault.kmsfs(["rewrap", mount.root().to_str().unwrap()]);
    Shell::new(mount.root()).run("chmod u+w .; mkdir dir; echo new > new");
    std::os::unix::fs::symlink(&long, mount.path("long")).unwrap();
    mount.unmount();
    let mount = vault.mount_with(&[]);
    assert_eq!(fs::read_link(mount.path("long")).unwrap(), Path::new(&long));
    assert!(!vault.log().contains("did not end cleanly"), "{}", vault.log());
    assert!(!vault.log().contains("not saved"), "{}", vault.log());
    assert_eq!(fs::metadata(vault.store().join(".kmsfs")).unwrap().mode() & 0o7777, 0o500);
}

/// The kernel goes by the modes that it knows: some calls were lent the owner's access, others not.
#[test]
fn regression_what_the_kernel_allowed_is_done_in_a_directory_that_its_owner_has_closed_since() {
    let vault = Vault::new("lent");
    let mount = vault.mount();
    let shell = Shell::new(mount.root());
    shell.run("mkdir -p a/sub b; echo f > a/f");
    let dirs = "find . -mindepth 1 -maxdepth 1 -type d ! -name .kmsfs";
    for change in [
        "mkdir a/new",
        "mkfifo a/pipe",
        "ln -s to a/link",
        "ln a/f a/again",
        "mv a/f a/g",
        "mv a/g b/g",
        "mv a/sub b/sub",
        "rmdir b/sub",
        "rm a/again",
    ] {
        shell.run("chmod 700 a b; stat a b > /dev/null");
        Shell::new(vault.store()).run(&format!("{dirs} -exec chmod 500 {{}} +"));
        shell.run(change);
        let modes = Shell::new(vault.store()).run(&format!("{dirs} -exec stat -c %a {{}} +"));
        assert_eq!(modes.split_whitespace().collect::<Vec<_>>(), ["500", "500"], "{change}");
    }
    shell.run("chmod 700 a b");
    assert_eq!(fs::read_to_string(mount.path("b/g")).unwrap(), "f\n");
}

#[test]
fn a_closed_directory_can_be_removed_and_one_that_is_not_empty_stays_closed() {
    let vault = Vault::new("rmdir");
    let mount = vault.mount();
    let out = Shell::new(mount.root()).run(
        "mkdir empty full; touch full/f; chmod 0 empty full
         rmdir empty; rmdir full 2>/dev/null || stat -c %a full; chmod 700 full; ls full",
    );
    assert_eq!(out.split_whitespace().collect::<Vec<_>>(), ["0", "f"]);
}

/// Many threads open the same closed file: none may put back a mode that another has lent.
#[test]
fn the_mode_survives_opens_at_the_same_time() {
    let vault = Vault::new("race");
    let mount = vault.mount();
    for name in 0..4 {
        let path = mount.path(format!("f{name}"));
        fs::write(&path, "contents").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o444)).unwrap();
    }
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..300 {
                    let path = mount.path(format!("f{}", round % 4));
                    assert_eq!(fs::read(&path).unwrap(), b"contents");
                    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o444);
                }
            });
        }
    });
    mount.unmount();
    for file in closed_files(&vault) {
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o444, "{}", file.display());
    }
}

/// Files and directories of every mode; some of the files are in the directories.
fn make_tree(mount: &Mount<'_>) {
    make_files(mount);
    for mode in DIRS {
        let dir = mount.path(format!("dir-{mode:o}"));
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("inside"), "inside").unwrap();
        fs::write(dir.join("x".repeat(200)), "long").unwrap();
        fs::set_permissions(dir.join("inside"), Permissions::from_mode(0o444)).unwrap();
        fs::set_permissions(&dir, Permissions::from_mode(mode)).unwrap();
    }
}

fn make_files(mount: &Mount<'_>) {
    for mode in FILES {
        let path = mount.path(format!("file-{mode:o}"));
        fs::write(&path, format!("contents {mode:o}")).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }
}

/// Modes and change times of what [`make_tree`] made.
fn shown(root: &Path) -> BTreeMap<PathBuf, (u32, i64, i64)> {
    let entries = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let stat = |path: PathBuf| {
        let meta = fs::symlink_metadata(&path).unwrap();
        (path, (meta.mode(), meta.ctime(), meta.ctime_nsec()))
    };
    entries.map(stat).collect()
}

fn assert_contents(mount: &Mount<'_>) {
    for mode in FILES {
        let path = mount.path(format!("file-{mode:o}"));
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("contents {mode:o}"));
    }
    for mode in DIRS {
        let dir = mount.path(format!("dir-{mode:o}"));
        fs::set_permissions(&dir, Permissions::from_mode(0o700)).unwrap();
        assert_eq!(fs::read_to_string(dir.join("inside")).unwrap(), "inside");
        assert_eq!(fs::read_to_string(dir.join("x".repeat(200))).unwrap(), "long");
    }
}

/// Lets the owner in everywhere, looks, and puts the modes at the top of the vault back.
fn opened<T>(vault: &Vault, look: impl FnOnce() -> T) -> T {
    let top = fs::read_dir(vault.store()).unwrap().map(|entry| entry.unwrap().path());
    let before: Vec<_> =
        top.map(|path| (fs::metadata(&path).unwrap().mode() & 0o7777, path)).collect();
    Shell::new(vault.store()).run("chmod -R u+rwX .");
    let result = look();
    for (mode, path) in before {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
    result
}

fn assert_current_only(vault: &Vault) {
    opened(vault, || check_headers(vault, DEFAULT));
}

fn closed_files(vault: &Vault) -> Vec<PathBuf> {
    let store = vault.store();
    let top = fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path());
    top.filter(|path| path.is_file() && !path.ends_with(".kmsfs.dir")).collect()
}

fn damage_second_slot(file: &Path) {
    let mut bytes = bytes_of(file);
    bytes[600..620].fill(0xa5);
    let mode = fs::metadata(file).unwrap().mode();
    fs::set_permissions(file, Permissions::from_mode(0o600)).unwrap();
    fs::write(file, bytes).unwrap();
    fs::set_permissions(file, Permissions::from_mode(mode)).unwrap();
}

fn bytes_of(file: &Path) -> Vec<u8> {
    let mode = fs::metadata(file).unwrap().mode();
    fs::set_permissions(file, Permissions::from_mode(0o600)).unwrap();
    let bytes = fs::read(file).unwrap();
    fs::set_permissions(file, Permissions::from_mode(mode)).unwrap();
    bytes
}

fn fsck(vault: &Vault, options: &[&str]) -> Value {
    let Output { stdout, stderr, .. } =
        vault.command().args(["--json", "fsck"]).args(options).arg(vault.store()).output().unwrap();
    serde_json::from_slice(&stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&stderr)))
}

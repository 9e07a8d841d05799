//! The cases of this suite once more as an ordinary user, who mounts through `fusermount3`.
//!
//! Run as root, the test program starts itself again with a uid, a home and a directory of its own:
//! a FUSE mount of an ordinary user is closed to root as well, so nothing can be looked at from
//! here. What needs root, or tests nothing that depends on who mounts, is left out by name.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;

use crate::harness::{Sandbox, binary, is_root, program};

/// `nobody`: fusermount3 wants a user who has a name.
const USER: u32 = 65_534;

/// What an ordinary user does not run, by the beginning of its name, and why.
const LEFT_OUT: &[(&str, &str)] = &[
    ("user::every_case", "is what starts the others"),
    ("access::", "turns into other users"),
    ("metadata::several_users", "turns into other users"),
    ("escape::names_that_are_exchanged", "turns into another user"),
    ("escape::regression_an_open_that_would_make_a_file", "turns into another user"),
    ("escape::what_is_mounted_inside", "mounts a directory inside the vault"),
    ("flags::an_immutable", "makes files immutable"),
    ("flags::regression_a_crash", "makes files immutable"),
    ("flags::a_rewrap", "makes files immutable"),
    ("handles::handles_lead", "opens files by their handles"),
    ("handles::a_large_tree", "opens files by their handles"),
    ("backup::regression_an_ordinary_user", "gives files to another user"),
    ("memory::", "reads the memory of a daemon, which hides it from its own user"),
    ("requests::", "reads the trace of the kernel"),
    ("pjdfstest::", "owners and devices are what most of it is about"),
    ("compare::", "drops caches, and mounts as root"),
    ("remote::", "makes network namespaces"),
    ("mountpoint::with_nosymfollow", "the mount helper of Debian 12 does not know the option"),
    ("token::", "the token's tools keep their files in the build directory"),
    ("durable::", "mounts an ext4"),
    ("stacked::", "mounts other filesystems"),
    ("fsx::", "reads and writes only: the same for everybody"),
    ("model::", "reads and writes only: the same for everybody"),
    ("apps::cargo_builds", "the toolchain is in the home of whoever installed it"),
];

#[test]
fn every_case_as_an_ordinary_user() {
    assert!(
        is_root(),
        "this starts the suite again as an ordinary user, which takes root; to run it as yourself, \
         add `-- --skip user::every_case` and the names in tests/mounted/user.rs"
    );
    fuse_is_open();
    let sandbox = Sandbox::new("user");
    let [programs, home, work] = ["bin", "home", "work"].map(|name| sandbox.dir(name));
    // The build may be in a directory that is root's alone.
    let [suite, kmsfs] = ["suite", "kmsfs"].map(|name| programs.join(name));
    fs::copy(std::env::current_exe().unwrap(), &suite).unwrap();
    fs::copy(binary(), &kmsfs).unwrap();
    for dir in [&home, &work] {
        chown(dir, Some(USER), Some(USER)).unwrap();
    }
    let left_out = LEFT_OUT.iter().flat_map(|(name, _)| ["--skip", name]);
    let output = Command::new(program("setpriv"))
        .args([format!("--reuid={USER}"), format!("--regid={USER}")])
        .arg("--clear-groups")
        .arg(&suite)
        .args(left_out)
        .current_dir(&home)
        .env_clear()
        .envs(
            ["PATH", "KMSFS_TEST_SEED"]
                .iter()
                .filter_map(|name| Some((name, std::env::var_os(name)?))),
        )
        .env("HOME", &home)
        .env("TMPDIR", &work)
        .env("KMSFS_BIN", &kmsfs)
        .env("KMSFS_TEST_DIR", &work)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{said}{errors}", output.status);
    println!("{said}");
}

/// Ordinary users need the device: whoever set up this machine must have opened it.
fn fuse_is_open() {
    let device = fs::metadata("/dev/fuse").expect("/dev/fuse is missing: run `modprobe fuse`");
    let mode = device.permissions().mode() & 0o777;
    assert!(
        mode & 0o006 == 0o006,
        "/dev/fuse has mode {mode:o}, so ordinary users cannot mount: run `chmod 0666 /dev/fuse`, \
         which is its usual mode"
    );
}

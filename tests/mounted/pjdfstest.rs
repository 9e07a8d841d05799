//! The pjdfstest suite over a mount, compared with the same suite on the backing filesystem.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Sandbox, Shell, Vault, is_root, program, tool};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Ok,
    Failed,
    Skipped,
}

/// What each case of the suite did, by name.
type Results = BTreeMap<String, Outcome>;

/// A filesystem of its own for the vault and for the comparison (a loop-mounted ext4, so that
/// the cases that remount read-only can run there too), and a second one for the cases that
/// cross filesystems. Without root or without loop devices: plain directories.
struct Disks {
    sandbox: Sandbox,
    mounted: Vec<PathBuf>,
}

impl Disks {
    fn new() -> Self {
        let mut disks = Self { sandbox: Sandbox::new("pjd"), mounted: Vec::new() };
        disks.add("backing", "1G");
        disks.add("second", "64M");
        for program in ["mount", "umount"] {
            disks.without_helper(program);
        }
        disks
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.sandbox.path(relative)
    }

    /// True when the comparison has a filesystem of its own, which can be remounted.
    fn own_filesystem(&self) -> bool {
        self.mounted.contains(&self.path("backing"))
    }

    fn add(&mut self, name: &str, size: &str) {
        let dir = self.sandbox.dir(name);
        if !is_root() {
            return;
        }
        program("mkfs.ext4");
        let script = format!(
            "truncate -s {size} {name}.img && mkfs.ext4 -q -F {name}.img && mount -o loop {name}.img {name}"
        );
        let output = Shell::new(self.sandbox.path("")).output(&script);
        if output.status.success() {
            self.mounted.push(dir);
        } else {
            eprintln!("no loop device here, using a plain directory for {name}");
        }
    }

    /// The suite remounts with `mount -o remount,ro`, and mount(8) hands that to the helper of
    /// the filesystem, as if it were a new mount. `-i` goes straight to the kernel.
    fn without_helper(&self, name: &str) {
        let shim = self.sandbox.dir("bin").join(name);
        let real = program(name);
        fs::write(&shim, format!("#!/bin/sh\nexec {} -i \"$@\"\n", real.display())).unwrap();
        Shell::new(self.sandbox.path("")).run(&format!("chmod 755 bin/{name}"));
    }

    fn search_path(&self) -> String {
        format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap())
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        for dir in &self.mounted {
            let _ = Command::new("umount").arg(dir).status();
        }
    }
}

#[test]
fn pjdfstest_has_no_failure_that_the_backing_filesystem_does_not_have() {
    let disks = Disks::new();
    let plain = disks.path("backing/plain");
    fs::create_dir_all(&plain).unwrap();
    let expected = run(&disks, &plain, disks.own_filesystem());

    let private = disks.path("backing/private");
    fs::create_dir(&private).unwrap();
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).unwrap();
    let vault = Vault::at("pjd", private.join("vault"));
    let mount = match is_root() {
        true => vault.mount_with(&["--create", "-o", "allow_other,suid,dev"]),
        false => vault.mount(),
    };
    Shell::new(mount.root()).run("chmod 755 .");
    let actual = run(&disks, &mount.root(), is_root());

    println!("pjdfstest on the backing filesystem: {}", totals(&expected));
    println!("pjdfstest on kmsfs:                  {}", totals(&actual));
    let worse: Vec<&String> = actual
        .iter()
        .filter(|(name, outcome)| {
            **outcome == Outcome::Failed && expected.get(*name) != Some(&Outcome::Failed)
        })
        .map(|(name, _)| name)
        .collect();
    assert!(
        worse.is_empty(),
        "these cases pass on the backing filesystem and fail here: {worse:?}"
    );
    assert_eq!(actual.len(), expected.len(), "not every case was run");
    assert!(actual.len() >= 398, "the suite is not complete: {} cases", actual.len());
}

/// The whole suite in `dir`. The cases that remount run in a process of their own: a descriptor
/// that an earlier case left open makes the remount busy.
fn run(disks: &Disks, dir: &Path, remountable: bool) -> Results {
    let mut results = run_part(disks, dir, false, &[]);
    if remountable {
        results.extend(run_part(disks, dir, true, &["erofs"]));
    }
    results
}

fn run_part(disks: &Disks, dir: &Path, remount: bool, cases: &[&str]) -> Results {
    let config = disks.path("pjdfstest.toml");
    fs::write(&config, configuration(remount)).unwrap();
    let output = Command::new("timeout")
        .args(["-k", "10", "600"])
        .arg(tool("pjdfstest"))
        .arg("-c")
        .arg(&config)
        .arg("-p")
        .arg(dir)
        .arg("-s")
        .arg(disks.path("second"))
        .args(cases)
        .env("PATH", disks.search_path())
        .env("NO_COLOR", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let results = parse(&text);
    assert!(
        text.contains("Summary"),
        "pjdfstest ended early with {}:\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    print_failures(dir, &text);
    results
}

/// Each failed case with the line that says why.
fn print_failures(dir: &Path, text: &str) {
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.ends_with("FAILED") {
            println!("{}: {line} {}", dir.display(), lines.next().unwrap_or_default());
        }
    }
}

/// Every feature that a Linux filesystem can have; the flags of BSD are not among them.
fn configuration(remount: bool) -> String {
    format!(
        "[features]\nposix_fallocate = {{}}\nrename_ctime = {{}}\nstat_st_birthtime = {{}}\n\
         utime_now = {{}}\nutimensat = {{}}\n\
         [settings]\nnaptime = 0.01\nallow_remount = {remount}\n\
         [dummy_auth]\nentries = [[\"nobody\", \"{}\"], [\"daemon\", \"daemon\"]]\n",
        group_of_nobody()
    )
}

/// `nogroup` on Debian, `nobody` elsewhere.
fn group_of_nobody() -> &'static str {
    let groups = fs::read_to_string("/etc/group").unwrap();
    if groups.lines().any(|line| line.starts_with("nogroup:")) { "nogroup" } else { "nobody" }
}

fn parse(text: &str) -> Results {
    text.lines()
        .filter(|line| !line.starts_with('\t'))
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let name = words.next()?;
            let outcome = match (words.next()?, words.next()) {
                ("ok", None) => Outcome::Ok,
                ("FAILED", None) => Outcome::Failed,
                ("skipped", None) => Outcome::Skipped,
                _ => return None,
            };
            Some((name.to_owned(), outcome))
        })
        .collect()
}

fn totals(results: &Results) -> String {
    let count = |wanted| results.values().filter(|outcome| **outcome == wanted).count();
    format!(
        "{} passed, {} failed, {} skipped, {} cases",
        count(Outcome::Ok),
        count(Outcome::Failed),
        count(Outcome::Skipped),
        results.len()
    )
}

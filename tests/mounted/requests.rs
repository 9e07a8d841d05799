//! What the kernel asks the daemon: the trace of the kernel counts the requests of one mount.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::Dir;

use crate::harness::{Mount, Shell, Vault, files_below};

/// The key of a vault that was made without naming one.
const DEFAULT: &str = "alias/kmsfs/default";
/// Longer than a change of a directory counts as fresh.
const SETTLED: Duration = Duration::from_millis(300);
/// A revoked key is felt within a second; a debug build on a busy machine gets more.
const FELT: Duration = Duration::from_secs(5);

/// The requests of one mount, recorded by an instance of the kernel's trace that is ours alone.
struct Trace {
    tracefs: PathBuf,
    instance: PathBuf,
}

impl Trace {
    fn of(mount: &Mount<'_>, vault: &Vault) -> Self {
        let tracefs = vault.outside_dir("trace");
        let mounted = Command::new("mount").args(["-t", "tracefs", "none"]).arg(&tracefs).status();
        assert!(mounted.unwrap().success(), "tracefs is what these tests read");
        let name = format!("kmsfs-{}-{}", std::process::id(), mount.pid().as_raw_nonzero());
        let trace = Self { instance: tracefs.join("instances").join(name), tracefs };
        fs::create_dir(&trace.instance).unwrap();
        let event = trace.instance.join("events/fuse/fuse_request_send");
        assert!(event.exists(), "the kernel traces requests of FUSE since 6.11");
        let connection = rustix::fs::minor(fs::metadata(mount.root()).unwrap().dev());
        fs::write(event.join("filter"), format!("connection == {connection}")).unwrap();
        fs::write(event.join("enable"), "1").unwrap();
        trace
    }

    /// What the kernel asks while `work` runs.
    fn during(&self, work: impl FnOnce()) -> Vec<String> {
        let trace = self.instance.join("trace");
        fs::write(&trace, "").unwrap();
        work();
        let lines = fs::read_to_string(&trace).unwrap();
        let names = lines.lines().filter_map(|line| line.split_once("opcode ")?.1.split_once('('));
        names.filter_map(|(_, rest)| Some(rest.split_once(')')?.0.to_owned())).collect()
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.instance);
        let _ = Command::new("umount").arg(&self.tracefs).status();
    }
}

fn list(dir: impl AsRef<Path>) -> BTreeSet<OsString> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < FELT, "not in time: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_new_file_takes_few_requests() {
    let vault = Vault::new("requests");
    let asked = |options: &str| {
        let mount = vault.mount_with(&["--create", "-o", options]);
        let trace = Trace::of(&mount, &vault);
        fs::write(mount.path(format!("before {options}")), "contents").unwrap();
        trace.during(|| fs::write(mount.path(format!("file {options}")), "contents").unwrap())
    };
    let usual = asked("rw");
    let few = asked("noxattr,no_default_permissions");
    let settled = |asked: &[String]| -> Vec<String> {
        // The kernel releases a file in the background.
        asked.iter().filter(|name| *name != "FUSE_RELEASE").cloned().collect()
    };
    let (getxattr, getattr) = ("FUSE_GETXATTR".to_owned(), "FUSE_GETATTR".to_owned());
    assert!(usual.contains(&getxattr), "{usual:?}");
    assert!(usual.contains(&getattr), "{usual:?}");
    assert_eq!(settled(&few), ["FUSE_LOOKUP", "FUSE_CREATE", "FUSE_WRITE"]);
}

#[test]
fn a_listing_that_the_kernel_keeps_is_not_asked_for_again() {
    let vault = Vault::new("kept");
    let mount = vault.mount();
    for name in ["a", "b", "c"] {
        fs::write(mount.path(name), name).unwrap();
    }
    thread::sleep(SETTLED);
    let trace = Trace::of(&mount, &vault);
    let first = list(mount.root());
    // Whoever opens a directory asks for its attributes once after it was read.
    list(mount.root());
    let asked = trace.during(|| assert_eq!(list(mount.root()), first));
    assert_eq!(asked, ["FUSE_OPENDIR", "FUSE_RELEASEDIR"]);
    fs::rename(mount.path("a"), mount.path("d")).unwrap();
    assert_eq!(list(mount.root()), ["b", "c", "d"].map(OsString::from).into());
    fs::remove_file(mount.path("b")).unwrap();
    assert_eq!(list(mount.root()), ["c", "d"].map(OsString::from).into());
}

/// The vault is the daemon's while it is mounted, and a listing still shows what is there.
#[test]
fn a_change_behind_the_mount_shows_in_a_listing_that_was_kept() {
    let vault = Vault::new("behind");
    let mount = vault.mount();
    fs::create_dir(mount.path("dir")).unwrap();
    for number in 0..3 {
        fs::write(mount.path(format!("dir/{number}")), "").unwrap();
    }
    thread::sleep(SETTLED);
    for _ in 0..2 {
        assert_eq!(list(mount.path("dir")).len(), 3);
    }
    let ino = fs::metadata(mount.path("dir/1")).unwrap().ino();
    let files = files_below(vault.store());
    let of_it = files.iter().find(|file| fs::metadata(file).unwrap().ino() == ino).unwrap();
    fs::remove_file(of_it).unwrap();
    assert_eq!(list(mount.path("dir")), ["0", "2"].map(OsString::from).into());
}

#[test]
fn a_listing_that_was_kept_goes_dark_with_its_key_and_comes_back() {
    let vault = Vault::new("dark");
    let mount = vault.mount();
    fs::create_dir(mount.path("dir")).unwrap();
    fs::write(mount.path("dir/secret plans"), "").unwrap();
    thread::sleep(SETTLED);
    let shown = BTreeSet::from([OsString::from("secret plans")]);
    for _ in 0..2 {
        assert_eq!(list(mount.path("dir")), shown);
    }
    let mut open = Dir::new(File::open(mount.path("dir")).unwrap()).unwrap();
    let mut rewound = || {
        open.rewind();
        let names = open.by_ref().map(|entry| entry.unwrap().file_name().to_bytes().to_vec());
        let names = names.filter(|name| *name != *b"." && *name != *b"..");
        names.map(|name| std::ffi::OsStr::from_bytes(&name).to_owned()).collect::<BTreeSet<_>>()
    };
    assert_eq!(rewound(), shown);
    vault.kmsfs(["key", "disable", DEFAULT]);
    wait_until("a listing shows no names", || list(mount.path("dir")) != shown);
    assert_ne!(rewound(), shown, "a directory that was open shows names");
    vault.kmsfs(["key", "enable", DEFAULT]);
    wait_until("a listing shows names again", || list(mount.path("dir")) == shown);
    assert_eq!(rewound(), shown, "a directory that was open shows no names");
}

/// It asks each file for an ACL and a label. The kernel remembers that there is no ACL.
#[test]
fn a_long_listing_asks_little_of_each_file() {
    let vault = Vault::new("long");
    let mount = vault.mount();
    Shell::new(mount.root()).run("mkdir dir; cd dir; for i in $(seq 100); do echo $i > $i; done");
    mount.unmount();
    thread::sleep(SETTLED);
    let mount = vault.mount();
    let trace = Trace::of(&mount, &vault);
    let listed = || trace.during(|| drop(Shell::new(mount.path("dir")).run("ls -l")));
    let count = |asked: &[String], what: &str| asked.iter().filter(|name| *name == what).count();
    let cold = listed();
    assert!(count(&cold, "FUSE_GETXATTR") < 110, "{cold:?}");
    assert!(count(&cold, "FUSE_LOOKUP") < 10, "{cold:?}");
    let warm = listed();
    assert!(warm.len() < 10, "{warm:?}");
    let shell = Shell::new(mount.path("dir"));
    let label = "getfattr --only-values -n security.selinux 1";
    assert_eq!(shell.run(&format!("setfattr -n security.selinux -v label 1; {label}")), "label");
}

/// Modes, ACLs, what is inherited and what may be run.
const PERMISSIONS: &str = r#"
    set +e; umask 027; mkdir dir; touch file; stat -c '%n %a' dir file
    setfacl -m u:daemon:rwx,g:daemon:r-x file; stat -c %a file; getfacl -cn file
    setfacl -b file; stat -c %a file; getfacl -cn file
    setfacl -d -m u:daemon:rx,g::rx,o::- dir; umask 0; touch dir/file; mkdir dir/sub; stat -c %a dir/file dir/sub
    getfacl -cn dir dir/file dir/sub
    echo 'echo ran' > run; ./run; echo $?; test -x run; echo $?; test -x dir; echo $?
    chmod 700 run; ./run; test -x run; echo $?; chmod 0 run dir; cat run; ls dir; test -w run; echo $?
    chmod 4755 run; chown 1:1 run; stat -c '%u %g %a' run; chmod 2755 run; echo >> run; stat -c %a run
    chmod 1777 dir; chown 1:1 dir; rm run; (cd dir && pwd | wc -l); rmdir dir/sub; ls
    touch -d @0 file; stat -c %Y file; ln -s file link; chown -h 2:2 link; stat -c '%u %g' link
"#;

#[test]
fn without_default_permissions_root_sees_no_difference() {
    let run = |name: &str, options: &str| {
        let vault = Vault::new(name);
        let mount = vault.mount_with(&["--create", "-o", options]);
        let out = Shell::new(mount.root()).run(&format!("{{ {PERMISSIONS} }} 2>&1"));
        mount.unmount();
        let mount = vault.mount();
        out + &Shell::new(mount.root())
            .run("getfacl -cnR . | sort; find . -printf '%p %m %U %G\n' | sort")
    };
    assert_eq!(run("unchecked", "suid,no_default_permissions"), run("checked", "suid"));
}

/// What a kernel that checks permissions refuses, and is let through without.
#[test]
fn a_process_of_root_without_capabilities_is_bound_by_modes() {
    let read = r#"setpriv --bounding-set=-all --inh-caps=-all cat file 2>/dev/null || echo no"#;
    let vault = Vault::new("bound");
    for (options, seen) in [("rw", "no\n"), ("no_default_permissions", "contents\n")] {
        let mount = vault.mount_with(&["--create", "-o", options]);
        let shell = Shell::new(mount.root());
        shell.run("echo contents > file; chmod 600 file; chown 1:1 file");
        assert_eq!(shell.run(read), seen, "{options}");
    }
}

#[test]
fn without_attributes_there_are_none() {
    let vault = Vault::new("noxattr");
    let set = "setfattr -n user.a -v 1 file; setfacl -m u:daemon:r file";
    let mount = vault.mount();
    Shell::new(mount.root()).run(&format!("umask 022; echo contents > file; {set}"));
    mount.unmount();
    let mount = vault.mount_with(&["-o", "noxattr"]);
    let shell = Shell::new(mount.root());
    let refused = shell.run("setfattr -n user.b -v 1 file 2>&1 || echo no; ! getfattr -d file");
    assert!(refused.contains("not supported") && refused.contains("no"), "{refused}");
    assert!(!shell.run("getfacl -c file 2>&1").contains("daemon"));
    assert_eq!(
        shell.run("cat file; echo new > new; cp -a file copy; cat new copy"),
        "contents\nnew\ncontents\n"
    );
    mount.unmount();
    let mount = vault.mount();
    let shell = Shell::new(mount.root());
    assert!(
        shell.run("getfattr --only-values -n user.a file; getfacl -c file").starts_with("1user")
    );
    assert!(shell.run("getfacl -c file").contains("daemon"));
}

//! What names, attributes, links, times, owners and attributes promise.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use rustix::fs::{
    AtFlags, CWD, Dir, Mode, RenameFlags, Timespec, Timestamps, XattrFlags, fchmod, fsetxattr,
    fstat, futimens, getxattr, mkdirat, renameat_with, setxattr, utimensat,
};

use crate::harness::{Shell, Vault, is_root, program};

#[test]
fn an_unlinked_file_stays_usable_while_it_is_open() {
    let vault = Vault::new("unlinked");
    let mount = vault.mount();
    let path = mount.path("gone");
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    file.write_all_at(&[5; 9000], 0).unwrap();
    fs::remove_file(&path).unwrap();
    file.write_all_at(b"later", 20_000).unwrap();
    file.sync_all().unwrap();
    fchmod(&file, Mode::from_raw_mode(0o640)).unwrap();
    let times = times(1_000_000, 5);
    futimens(&file, &times).unwrap();
    fsetxattr(&file, "user.k", b"v", XattrFlags::CREATE).unwrap();
    let stat = fstat(&file).unwrap();
    assert_eq!((stat.st_nlink, stat.st_size, stat.st_mode & 0o7777), (0, 20_005, 0o640));
    assert_eq!((stat.st_mtime, stat.st_mtime_nsec), (1_000_000, 5));

    let again = format!("/proc/self/fd/{}", file.as_raw_fd());
    let mut reopened = OpenOptions::new().read(true).write(true).open(again).unwrap();
    let mut bytes = Vec::new();
    reopened.read_to_end(&mut bytes).unwrap();
    assert_eq!((bytes.len(), &bytes[20_000..]), (20_005, &b"later"[..]));
    reopened.set_len(3).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 3);
    assert!(!path.exists() && fs::read_dir(mount.root()).unwrap().next().is_none());
}

#[test]
fn a_removed_directory_can_still_be_looked_at() {
    let vault = Vault::new("removeddir");
    let mount = vault.mount();
    fs::create_dir(mount.path("d")).unwrap();
    let dir = File::open(mount.path("d")).unwrap();
    fs::remove_dir(mount.path("d")).unwrap();
    let stat = fstat(&dir).unwrap();
    assert_eq!(stat.st_mode & 0o170_000, 0o040_000);
    assert!(mkdirat(dir.as_fd(), "sub", Mode::RWXU).is_err());
}

#[test]
fn names_may_have_255_bytes_of_any_kind() {
    let vault = Vault::new("names");
    let mount = vault.mount();
    let mut names: BTreeSet<Vec<u8>> = BTreeSet::new();
    for len in [1, 2, 15, 16, 17, 100, 150, 170, 171, 172, 175, 176, 177, 180, 190, 200, 254, 255] {
        names.insert(vec![b'n'; len]);
        names.insert(
            (0..len).map(|i| 1 + u8::try_from((i * 7) % 254).unwrap()).map(not_slash).collect(),
        );
    }
    names.extend([b"-rf".to_vec(), b"a\nb".to_vec(), b" ".to_vec(), "ünï".into(), b"...".to_vec()]);
    names.extend([b".kmsfs".to_vec(), b".kmsfs.dir".to_vec(), b"kn.x".to_vec()]);
    for name in &names {
        fs::write(mount.path(as_path(name)), name).unwrap();
        fs::create_dir_all(mount.path("dirs").join(as_path(name))).unwrap();
    }
    let check = |root: &Path| {
        let listed: BTreeSet<Vec<u8>> =
            list(root).into_iter().filter(|name| name != b"dirs").collect();
        assert!(listed == names, "the listing differs");
        assert!(list(&root.join("dirs")).into_iter().collect::<BTreeSet<_>>() == names);
        for name in &names {
            assert_eq!(&fs::read(root.join(as_path(name))).unwrap(), name);
        }
    };
    check(&mount.root());
    let too_long = fs::write(mount.path("n".repeat(256)), "").unwrap_err();
    assert_eq!(too_long.raw_os_error(), Some(libc::ENAMETOOLONG));
    mount.unmount();
    let mount = vault.mount();
    check(&mount.root());
    for name in &names {
        let long = mount.path("dirs").join(as_path(name));
        fs::rename(mount.path(as_path(name)), long.join("moved")).unwrap();
        fs::rename(long.join("moved"), mount.path(as_path(name))).unwrap();
        fs::remove_file(mount.path(as_path(name))).unwrap();
        fs::remove_dir(long).unwrap();
    }
    assert_eq!(list(&mount.root()), [b"dirs".to_vec()]);
}

/// The smallest number of seconds was negated, and the mount ended.
#[test]
fn regression_no_time_ends_a_mount() {
    let vault = Vault::new("ages");
    let mount = vault.mount();
    // On the filesystem of the vault, which takes each time as it can.
    let (path, twin) = (mount.path("file"), vault.outside("file"));
    for path in [&path, &twin] {
        fs::write(path, "x").unwrap();
    }
    for seconds in [i64::MIN, i64::MIN + 1, -(1 << 31), 1 << 34, i64::MAX - 1, i64::MAX] {
        for nanos in [0, 1, 999_999_999] {
            let shown = [&path, &twin].map(|path| {
                utimensat(CWD, path, &times(seconds, nanos), AtFlags::empty()).unwrap();
                let meta = fs::metadata(path).unwrap();
                (meta.mtime(), meta.mtime_nsec(), meta.atime(), meta.atime_nsec())
            });
            assert_eq!(shown[0], shown[1], "{seconds} {nanos}");
        }
    }
    assert_eq!(fs::read(&path).unwrap(), b"x");
    fs::write(&path, "more").unwrap();
    mount.unmount();
    let mount = vault.mount();
    assert_eq!(fs::read(mount.path("file")).unwrap(), b"more");
}

#[test]
fn times_keep_nanoseconds_also_before_1970() {
    let vault = Vault::new("times");
    let mount = vault.mount();
    let moments =
        [(0, 0), (-1, 999_999_999), (-1_000_000, 500_000_001), (4_102_444_800, 7), (1, 1)];
    for (number, (seconds, nanos)) in moments.into_iter().enumerate() {
        let path = mount.path(format!("f{number}"));
        fs::write(&path, "x").unwrap();
        utimensat(CWD, &path, &times(seconds, nanos), AtFlags::empty()).unwrap();
        let link = mount.path(format!("l{number}"));
        symlink("nowhere", &link).unwrap();
        utimensat(CWD, &link, &times(seconds, nanos), AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
    let check = |root: &Path| {
        for (number, (seconds, nanos)) in moments.into_iter().enumerate() {
            for kind in ["f", "l"] {
                let meta = fs::symlink_metadata(root.join(format!("{kind}{number}"))).unwrap();
                assert_eq!((meta.mtime(), meta.mtime_nsec()), (seconds, nanos), "{kind}{number}");
                assert_eq!((meta.atime(), meta.atime_nsec()), (seconds, nanos), "{kind}{number}");
            }
        }
    };
    check(&mount.root());
    mount.unmount();
    let mount = vault.mount();
    check(&mount.root());
}

#[test]
fn a_listing_can_be_resumed_while_the_directory_changes() {
    let vault = Vault::new("seekdir");
    let mount = vault.mount();
    let names: Vec<String> = (0..400).map(|number| format!("entry {number}")).collect();
    for name in &names {
        fs::write(mount.path(name), "").unwrap();
    }
    let mut dir = Dir::read_from(File::open(mount.root()).unwrap()).unwrap();
    let mut seen = Vec::new();
    for _ in 0..150 {
        let entry = dir.read().unwrap().unwrap();
        seen.push((entry.file_name().to_str().unwrap().to_owned(), entry.offset()));
    }
    let (_, resume) = seen[100];
    for (name, _) in seen.iter().skip(2).take(50).filter(|(name, _)| !name.starts_with('.')) {
        fs::remove_file(mount.path(name)).unwrap();
    }
    for number in 0..100 {
        fs::write(mount.path(format!("new {number}")), "").unwrap();
    }
    dir.seek(resume).unwrap();
    let after: Vec<String> = std::iter::from_fn(|| dir.read())
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned())
        .collect();
    let known: Vec<&String> = after.iter().filter(|name| name.starts_with("entry")).collect();
    let before: Vec<&String> = seen[101..].iter().map(|(name, _)| name).collect();
    assert_eq!(known[..before.len()], before, "the listing goes on elsewhere after the seek");
    let unique: BTreeSet<&String> = after.iter().collect();
    assert_eq!(unique.len(), after.len(), "an entry came twice");
    let earlier: BTreeSet<&String> = seen[..=100].iter().map(|(name, _)| name).collect();
    for name in names.iter().filter(|name| !earlier.contains(name)) {
        assert!(unique.contains(name), "{name} is missing after the seek");
    }
    assert!(
        !after.iter().any(|name| earlier.contains(name)),
        "an entry before the seek came again"
    );
}

#[test]
fn links_share_everything_and_show_the_right_size_at_once() {
    let vault = Vault::new("links");
    let mount = vault.mount();
    fs::write(mount.path("a"), vec![1; 12_345]).unwrap();
    fs::hard_link(mount.path("a"), mount.path("b")).unwrap();
    let (a, b) = (fs::metadata(mount.path("a")).unwrap(), fs::metadata(mount.path("b")).unwrap());
    assert_eq!((b.len(), b.nlink(), b.ino()), (12_345, 2, a.ino()));
    fs::write(mount.path("b"), "short").unwrap();
    assert_eq!(fs::read(mount.path("a")).unwrap(), b"short");
    fs::remove_file(mount.path("a")).unwrap();
    let left = fs::metadata(mount.path("b")).unwrap();
    assert_eq!((left.nlink(), left.len()), (1, 5));
}

#[test]
fn long_symlink_targets_come_back() {
    let vault = Vault::new("symlinks");
    let mount = vault.mount();
    for len in [1, 255, 1000, 2500, 3000] {
        let target = "t".repeat(len);
        let link = mount.path(format!("l{len}"));
        symlink(&target, &link).unwrap();
        assert_eq!(fs::read_link(&link).unwrap().to_str().unwrap(), target);
        assert_eq!(fs::symlink_metadata(&link).unwrap().len(), len as u64, "st_size of a link");
    }
}

#[test]
fn rename_obeys_its_flags() {
    let vault = Vault::new("rename");
    let mount = vault.mount();
    let rename = |from: &str, to: &str, flags| {
        renameat_with(CWD, mount.path(from), CWD, mount.path(to), flags)
            .map_err(|e| e.raw_os_error())
    };
    fs::write(mount.path("a"), "a").unwrap();
    fs::create_dir_all(mount.path("d/sub")).unwrap();
    fs::write(mount.path("d/x"), "x").unwrap();
    assert_eq!(rename("a", "d", RenameFlags::NOREPLACE), Err(libc::EEXIST));
    rename("a", "d", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(fs::read(mount.path("d")).unwrap(), b"a");
    assert_eq!(fs::read(mount.path("a/x")).unwrap(), b"x");
    rename("a", "e", RenameFlags::NOREPLACE).unwrap();
    assert_eq!(rename("e", "e/sub/inside", RenameFlags::empty()), Err(libc::EINVAL));
    if is_root() {
        rename("d", "f", RenameFlags::WHITEOUT).unwrap();
        let white = fs::metadata(mount.path("d")).unwrap();
        assert_eq!((white.mode() & 0o170_000, white.rdev()), (0o020_000, 0));
    }
}

#[test]
fn attributes_have_room_and_obey_their_flags() {
    let vault = Vault::new("xattrs");
    let mount = vault.mount();
    let path = mount.path("f");
    fs::write(&path, "contents").unwrap();
    for number in 0..30 {
        setxattr(&path, format!("user.name{number}"), b"value", XattrFlags::CREATE).unwrap();
    }
    let again = setxattr(&path, "user.name0", b"", XattrFlags::CREATE).unwrap_err();
    assert_eq!(again.raw_os_error(), libc::EEXIST);
    let missing = setxattr(&path, "user.none", b"", XattrFlags::REPLACE).unwrap_err();
    assert_eq!(missing.raw_os_error(), libc::ENODATA);
    let other = mount.path("g");
    fs::write(&other, "").unwrap();
    setxattr(&other, "user.large", &[7; 3000], XattrFlags::empty()).unwrap();
    setxattr(&other, "user.empty", &[], XattrFlags::empty()).unwrap();
    mount.unmount();
    let mount = vault.mount();
    let mut value = [0; 4000];
    let len = getxattr(mount.path("g"), "user.large", &mut value).unwrap();
    assert!(value[..len] == [7; 3000]);
    assert_eq!(getxattr(mount.path("g"), "user.empty", &mut value).unwrap(), 0);
    let listed = Shell::new(mount.root()).run("getfattr -d f | grep -c '^user.name.*=\"value\"$'");
    assert_eq!(listed.trim(), "30");
    assert_eq!(fs::read(mount.path("f")).unwrap(), b"contents");
}

#[test]
fn modes_are_exact_in_the_first_answer() {
    let vault = Vault::new("modes");
    let mount = vault.mount();
    let out = Shell::new(mount.root()).run(
        "umask 0; mkdir -m 0151 d; mkdir open; touch open/f; stat -c %a d open open/f; umask 027; mkdir e; touch f; stat -c %a e f
         mkdir g; setfacl -d -m u::rwx,g::r-x,o::--- g; umask 0; touch g/f; mkdir g/d; stat -c %a g/f g/d",
    );
    assert_eq!(
        out.split_whitespace().collect::<Vec<_>>(),
        ["151", "777", "666", "750", "640", "640", "750"]
    );
}

#[test]
fn inode_numbers_and_link_counts_stay_the_same_after_a_remount() {
    let vault = Vault::new("inodes");
    let mount = vault.mount();
    Shell::new(mount.root()).run(
        "mkdir -p a/b/c d; echo x > a/f; ln a/f a/b/hard; ln -s f a/soft; mkfifo d/p
         for i in $(seq 50); do echo $i > d/$i; done",
    );
    let list = |root: &Path| Shell::new(root).run("find . -printf '%P %i %n %s %T@ %C@\n' | sort");
    let before = list(&mount.root());
    mount.unmount();
    let mount = vault.mount();
    assert_eq!(list(&mount.root()), before);
}

#[test]
fn locks_exclude_each_other_between_processes() {
    let vault = Vault::new("locks");
    let mount = vault.mount();
    let out = Shell::new(mount.root()).run(
        r#"touch l; exec 9<l; flock -n 9; flock -n l true && echo both || echo excluded
           exec 9<&-; flock -n l echo free
           python3 - <<'P'
import fcntl, os, sys
a = open('r', 'w+'); a.write('0123456789'); a.flush()
fcntl.lockf(a, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 0)
def attempt(start):
    pid = os.fork()
    if pid == 0:
        b = open('r', 'r+')
        try: fcntl.lockf(b, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, start)
        except OSError: os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(attempt(2), attempt(5))
fcntl.lockf(a, fcntl.LOCK_UN, 5, 0)
print(attempt(2))
P"#,
    );
    assert_eq!(out.split_whitespace().collect::<Vec<_>>(), ["excluded", "free", "1", "0", "0"]);
}

#[test]
fn several_users_own_what_they_make_and_nothing_else() {
    assert!(is_root(), "this turns into other users: run it as root, or skip it by name");
    program("setpriv");
    let vault = Vault::new("users");
    let mount = vault.mount_with(&["--create", "-o", "allow_other,suid,dev"]);
    let out = Shell::new(mount.root()).run(
        r#"chmod 1777 .
           as() { setpriv --reuid=$1 --regid=$1 --clear-groups bash -c "$2"; }
           as 1 'echo one > one; chmod 600 one; mkdir dir; umask 077; touch secret'
           stat -c '%u %g %a' one dir secret
           as 2 'cat one' 2>/dev/null && echo leak; as 2 'rm -f one' 2>/dev/null && echo removed
           as 2 'echo x > dir/f' 2>/dev/null && echo wrote
           setfacl -m u:2:r one; as 2 'cat one'
           mkdir -m 2777 team; chown 0:3 team; chmod g+s team; as 1 'touch team/f'; stat -c %g team/f
           cp /bin/true suid; chmod 6755 suid; stat -c %a suid
           chown 1:1 suid; chmod 6777 suid; as 2 'echo >> suid'; stat -c %a suid
           chmod 6755 suid; chown 1:1 suid; stat -c %a suid
           mknod null c 1 3; echo gone > null; stat -c '%t %T' null; mkfifo fifo
           ( echo through > fifo & ) ; cat fifo
           as 1 'id -u' "#,
    );
    let expected =
        ["1 1 644", "1 1 755", "1 1 600", "one", "3", "6755", "777", "755", "1 3", "through", "1"];
    let adjusted: Vec<&str> = out.lines().collect();
    assert_eq!(adjusted[1..], expected[1..], "{out}");
    assert_eq!(adjusted[0], "1 1 600");
}

/// It stayed on a file without group execution, whoever changed the contents.
#[test]
fn several_users_keep_setgid_only_in_its_group() {
    assert!(is_root(), "this turns into other users: run it as root, or skip it by name");
    program("setpriv");
    let vault = Vault::new("setgid");
    let mount = vault.mount_with(&["--create", "-o", "allow_other,suid,dev"]);
    let ways = [
        "fallocate -l 9000 f",
        "fallocate -p -o 0 -l 4096 f",
        "fallocate -z -o 0 -l 4096 f",
        "printf x >> f",
        ": > f",
        "truncate -s 9 f",
        "perl -e 'truncate(q(f), 5) or die'",
    ];
    // Who changes the contents, and what stays of 2666, 2676 and 6666.
    let callers = [
        ("--reuid=1 --regid=1 --clear-groups", ["666", "676", "666"]),
        ("--reuid=1 --regid=3 --clear-groups", ["2666", "676", "2666"]),
        ("--reuid=1 --regid=1 --groups=2,3", ["2666", "676", "2666"]),
    ];
    let change = |dir: &Path, who: &str, mode: &str, way: &str| {
        let script = format!(
            "printf %9000s x > f; chown 0:3 f; chmod {mode} f
             setpriv {who} bash -c \"{way}\"; stat -c %a f; rm f"
        );
        Shell::new(dir).run(&script).trim().to_owned()
    };
    let other = vault.outside_dir("twin");
    for dir in [&other, &mount.root()] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).unwrap();
    }
    // Linux has the rule since 6.2.
    let twin = (change(&other, callers[0].0, "2666", ways[3]) == "666").then_some(&other);
    for (who, left) in callers {
        for (mode, left) in ["2666", "2676", "6666"].into_iter().zip(left) {
            for way in ways {
                for dir in twin.into_iter().chain([&mount.root()]) {
                    let found = change(dir, who, mode, way);
                    assert_eq!(found, left, "{mode} of {}: {way}, {who}", dir.display());
                }
            }
        }
    }
}

#[test]
fn statfs_shows_the_backing_filesystem() {
    let vault = Vault::new("statfs");
    let mount = vault.mount();
    let here = rustix::fs::statvfs(mount.root()).unwrap();
    let there = rustix::fs::statvfs(vault.store()).unwrap();
    assert_eq!(here.f_blocks * here.f_frsize, there.f_blocks * there.f_frsize);
    assert_eq!(here.f_namemax, 255);
    assert!(here.f_bavail > 0 && here.f_files > 0);
}

#[test]
fn the_vault_shows_no_entries_of_its_own() {
    let vault = Vault::new("own");
    let mount = vault.mount();
    assert!(list(&mount.root()).is_empty(), "a new mount is not empty: {:?}", list(&mount.root()));
    fs::create_dir(mount.path("d")).unwrap();
    assert!(list(&mount.path("d")).is_empty());
    assert_eq!(fs::metadata(mount.path("d")).unwrap().nlink(), 2);
    let status = Command::new("rmdir").arg(mount.path("d")).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_program_runs_and_cannot_be_written_meanwhile() {
    let vault = Vault::new("exec");
    let mount = vault.mount();
    fs::copy("/bin/sleep", mount.path("s")).unwrap();
    fs::set_permissions(mount.path("s"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut running = Command::new(mount.path("s")).arg("30").spawn().unwrap();
    let busy = OpenOptions::new().write(true).open(mount.path("s")).unwrap_err();
    running.kill().unwrap();
    running.wait().unwrap();
    assert_eq!(busy.raw_os_error(), Some(libc::ETXTBSY));
    OpenOptions::new().append(true).open(mount.path("s")).unwrap().write_all(b"x").unwrap();
}

fn times(seconds: i64, nanos: i64) -> Timestamps {
    let moment = Timespec { tv_sec: seconds, tv_nsec: nanos };
    Timestamps { last_access: moment, last_modification: moment }
}

fn list(dir: &Path) -> Vec<Vec<u8>> {
    use std::os::unix::ffi::OsStringExt;
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_vec()).collect()
}

fn as_path(name: &[u8]) -> &Path {
    use std::os::unix::ffi::OsStrExt;
    Path::new(std::ffi::OsStr::from_bytes(name))
}

fn not_slash(byte: u8) -> u8 {
    if byte == b'/' { b'_' } else { byte }
}

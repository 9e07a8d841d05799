//! Flags of inodes: chattr(1), lsattr(1).

use std::fs;
use std::time::{Duration, Instant};

use crate::harness::{Mount, Shell, Vault, is_root};

/// How long a mount may take over what a crash left.
const RECOVERY_LIMIT: Duration = Duration::from_secs(20);

fn shell(mount: &Mount<'_>) -> Shell {
    Shell::new(mount.root())
}

/// What lsattr shows of it, without what is not set.
fn flags(shell: &Shell, name: &str) -> String {
    let shown = shell.run(&format!("lsattr -d '{name}' | cut -d' ' -f1"));
    shown.trim().replace('-', "")
}

#[test]
fn flags_are_set_and_kept_and_those_that_cannot_be_kept_are_refused() {
    let vault = Vault::new("flags");
    let mount = vault.mount();
    let at = shell(&mount);
    at.run("echo one >file; mkdir dir; chattr +dA file; chattr +d dir; echo two >dir/new");
    for (name, set) in [("file", "dA"), ("dir", "d"), ("dir/new", "d"), (".", "")] {
        assert_eq!(flags(&at, name), set, "{name}");
    }
    at.run("! chattr +c file 2>said; grep 'not supported' said; ! chattr +a file; ! chattr +S dir");
    assert_eq!(flags(&at, "file"), "dA");
    // The form of XFS says the same, and sets no project.
    at.run(
        "python3 - <<'P'\n\
         import fcntl, os\n\
         file = os.open('file', os.O_RDONLY)\n\
         shown = fcntl.ioctl(file, 0x801c581f, bytes(28))\n\
         assert shown == (0xc0).to_bytes(4, 'little') + bytes(24), shown\n\
         fcntl.ioctl(file, 0x401c5820, (0x40).to_bytes(4, 'little') + bytes(24))\n\
         try:\n    \
             fcntl.ioctl(file, 0x401c5820, bytes(12) + (7).to_bytes(4, 'little') + bytes(12))\n\
         except OSError as error: assert error.errno == 95, error\n\
         else: assert False\n\
         P",
    );
    mount.unmount();
    let mount = vault.mount();
    assert_eq!(flags(&shell(&mount), "file"), "A");
    assert_eq!(fs::read(mount.path("file")).unwrap(), b"one\n");
    mount.unmount();
}

#[test]
fn an_immutable_file_refuses_every_change_and_can_be_changed_again() {
    assert!(is_root(), "this test makes files immutable: run it as root, or skip it by name");
    let vault = Vault::new("immutable");
    let mount = vault.mount();
    let at = shell(&mount);
    // It is open for writing, and changed through a mapping, when that comes.
    let opened = "python3 - <<'P'\n\
         import mmap, os, subprocess\n\
         open('file', 'wb').write(b'a' * 300000)\n\
         file = os.open('file', os.O_RDWR)\n\
         pages = mmap.mmap(file, 0)\n\
         pages[200000:200004] = b'kept'\n\
         subprocess.run(['chattr', '+i', 'file'], check=True)\n\
         def refused(call, *given):\n    \
             try: call(*given)\n    \
             except OSError as error: assert error.errno == 1, error\n    \
             else: assert False, call\n\
         refused(os.pwrite, file, b'lost', 0)\n\
         refused(os.ftruncate, file, 0)\n\
         refused(os.posix_fallocate, file, 0, 1 << 20)\n\
         pages[100000:100004] = b'lost'\n\
         refused(pages.flush)\n\
         P";
    at.run(opened);
    let refused = |script: &str| {
        let said = at.output(script);
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.contains("Operation not permitted"), "{script}: {said}");
    };
    for script in [
        "echo more >>file",
        "rm -f file",
        "mv file other",
        "ln file other",
        "chmod 600 file",
        "chown 1 file",
        "touch file",
        "truncate -s 0 file",
        "setfattr -n user.name -v value file",
        "echo new >new; mv -f new file",
    ] {
        refused(script);
    }
    let lasts = |at: &Shell| {
        at.run(
            "python3 - <<'P'\n\
             found = open('file', 'rb').read()\n\
             wanted = b'a' * 200000 + b'kept' + b'a' * 99996\n\
             assert found == wanted, (found[100000:100004], found[200000:200004], len(found))\n\
             P",
        );
    };
    // The page that was refused goes, within moments.
    let begun = Instant::now();
    while at.output("! grep -q lost file").status.code() != Some(0) {
        assert!(begun.elapsed() < RECOVERY_LIMIT, "the kernel shows what is not there");
    }
    lasts(&at);
    mount.unmount();
    let mount = vault.mount();
    let at = shell(&mount);
    assert_eq!(flags(&at, "file"), "i");
    lasts(&at);
    // Whoever has it open does not keep it from being changed, once it may be.
    at.run("exec 3<file; for round in $(seq 20); do chattr -i file; echo x >>file; chattr +i file; done");
    at.run("chattr -i file; truncate -s 300000 file");
    lasts(&at);
    at.run("rm file");
    mount.unmount();
}

#[test]
fn an_immutable_directory_keeps_its_entries() {
    assert!(is_root(), "this test makes directories immutable: run it as root, or skip it by name");
    let vault = Vault::new("immutabledir");
    let mount = vault.mount();
    let at = shell(&mount);
    let long = "n".repeat(250);
    at.run(&format!(
        "mkdir -p dir/below other; echo one >dir/file; echo two >dir/{long}; chattr +i dir"
    ));
    for script in [
        "touch dir/new",
        "mkdir dir/new",
        "rm dir/file",
        &format!("rm dir/{long}"),
        "rmdir dir/below",
        "mv dir/file other",
        "mv dir/below other",
        "mv other dir",
        "mv dir moved",
        "setfattr -n user.name -v value dir",
    ] {
        let said = at.output(script);
        assert!(!said.status.success(), "{script}");
    }
    let entries =
        |at: &Shell| at.run("ls dir | cut -c-9; echo three >dir/file; cat dir/file; ls dir/below");
    let listed = "below\nfile\nnnnnnnnnn\nthree\n";
    assert_eq!(entries(&at), listed);
    mount.unmount();
    let mount = vault.mount();
    let at = shell(&mount);
    assert_eq!(entries(&at), listed);
    at.run("chattr -i dir; mv dir moved; touch moved/new; rm -r moved other");
    mount.unmount();
}

/// Recovery had to be able to write, so a crash was never mended while there was such a file.
#[test]
fn regression_a_crash_is_mended_in_spite_of_an_immutable_file() {
    assert!(is_root(), "this test makes files immutable: run it as root, or skip it by name");
    let vault = Vault::new("immutablecrash");
    let mount = vault.mount();
    let at = shell(&mount);
    at.run("head -c 3000000 /dev/zero >old");
    mount.unmount();
    let mount = vault.mount();
    let at = shell(&mount);
    let written = "printf changed | dd of=old bs=1 seek=2000000 conv=notrunc status=none; \
         head -c 300000 /dev/zero >new; truncate -s 30000000 sparse; echo end >>sparse; \
         chattr +i old new sparse; echo more >other";
    at.run(written);
    let sums = at.run("sha256sum old new sparse");
    mount.kill();
    let mount = vault.mount();
    let begun = Instant::now();
    while !vault
        .kmsfs(["status", mount.root().to_str().unwrap()])
        .contains("crashes to mend         0")
    {
        assert!(begun.elapsed() < RECOVERY_LIMIT, "{}", vault.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    let at = shell(&mount);
    assert_eq!(at.run("sha256sum old new sparse"), sums);
    mount.unmount();
    vault.kmsfs(["fsck", vault.store().to_str().unwrap()]);
    let mount = vault.mount();
    shell(&mount).run("chattr -i old new sparse; rm old new sparse other");
    mount.unmount();
}

#[test]
fn a_rewrap_tells_what_is_immutable_and_takes_it_along_later() {
    assert!(is_root(), "this test makes files immutable: run it as root, or skip it by name");
    let vault = Vault::new("immutablerewrap");
    let mount = vault.mount();
    let at = shell(&mount);
    at.run("mkdir dir; echo one >dir/file; echo two >file; echo three >other; chattr +i dir file");
    vault.kmsfs(["key", "rotate", "alias/kmsfs/default"]);
    let root = mount.root();
    let rewrap = || {
        let done = vault.command().arg("rewrap").arg(&root).output().unwrap();
        let said = [done.stdout, done.stderr].concat();
        (done.status.success(), String::from_utf8_lossy(&said).into_owned())
    };
    let (complete, said) = rewrap();
    assert!(!complete && said.contains("chattr -i"), "{said}");
    assert_eq!(at.run("cat file other dir/file"), "two\nthree\none\n");
    at.run("chattr -i dir file");
    let (complete, said) = rewrap();
    assert!(complete, "{said}");
    mount.unmount();
}

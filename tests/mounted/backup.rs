//! Backup programs see a steady tree: through a read-only mount, across remounts and re-wraps, and
//! in the vault itself.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::harness::{Shell, Vault, binary, program};

/// Makes a tree, then remounts read-only, backs up, re-wraps, remounts and backs up again.
fn twice(name: &str, backup: impl Fn(&Shell) -> String) -> [String; 2] {
    let vault = Vault::new(name);
    let mount = vault.mount();
    Shell::new(mount.root()).run(
        "mkdir -p a/b c; for i in $(seq 80); do head -c $((i * 531)) /dev/urandom > a/f$i; done
         ln a/f1 a/b/hard; ln -s f2 a/soft; touch -d 2001-02-03 a/f3; setfattr -n user.x -v y a/f4
         truncate -s 3M c/sparse; echo end >> c/sparse; sleep 0.1; touch newest",
    );
    mount.unmount();
    let shell = Shell::new(vault.outside("")).var("MNT", vault.mountpoint());
    let mount = vault.mount_with(&["--read-only"]);
    assert!(fs::write(mount.path("no"), "").is_err(), "a read-only mount took a write");
    let first = listing(&mount.root());
    let one = backup(&shell);
    mount.unmount();
    vault.kmsfs(["key", "rotate", "alias/kmsfs/default"]);
    vault.kmsfs(["rewrap", vault.store().to_str().unwrap()]);
    let mount = vault.mount_with(&["--read-only"]);
    assert_eq!(listing(&mount.root()), first, "inode numbers, mtimes or ctimes changed");
    let two = backup(&shell);
    mount.unmount();
    [one, two]
}

fn listing(root: &Path) -> String {
    Shell::new(root).run("find . -printf '%P %i %n %s %T@ %C@\n' | sort")
}

#[test]
fn rsync_sees_no_change_the_second_time() {
    program("rsync");
    let [first, second] =
        twice("backuprsync", |shell| shell.run(r#"rsync -aHAX --itemize-changes "$MNT/" copy/"#));
    assert!(first.lines().count() > 80);
    assert_eq!(second, "");
}

#[test]
fn restic_sees_no_change_the_second_time() {
    program("restic");
    let [_, second] = twice("backuprestic", |shell| {
        shell.run(
            r#"export RESTIC_PASSWORD=test RESTIC_REPOSITORY=$PWD/restic RESTIC_CACHE_DIR=$PWD/cache
               [ -d restic ] || restic -q init
               restic backup "$MNT" 2>&1"#,
        )
    });
    assert!(second.contains("0 new,     0 changed"), "{second}");
}

#[test]
fn borg_sees_no_change_the_second_time() {
    program("borg");
    let [_, second] = twice("backupborg", |shell| {
        shell.run(
            r#"export BORG_BASE_DIR=$PWD/borgbase BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes
               [ -d borg ] || borg init -e none borg
               cd "$MNT" && borg create --list --filter AME "$OLDPWD/borg::$(date +%s%N)" . 2>&1"#,
        )
    });
    // Borg reads the files with the newest time again by design.
    let again: Vec<&str> = second.lines().filter(|line| *line != "A newest").collect();
    assert!(again.is_empty(), "borg read these again: {again:?}");
}

#[test]
fn a_copied_vault_opens_and_needs_nothing_but_its_files() {
    program("rsync");
    let vault = Vault::new("copied");
    let mount = vault.mount();
    Shell::new(mount.root()).run(
        "mkdir -p d/e; echo text > d/e/f; ln -s e d/l; echo x > d/$(printf 'n%.0s' $(seq 250))",
    );
    let before = Shell::new(mount.root()).run("find . -type f -exec sha256sum {} +");
    mount.unmount();
    // No owners, no times, no attributes, no hard links: only names and bytes.
    Shell::new(vault.store().parent().unwrap())
        .run("rsync -rl --whole-file vault/ copy/ && mv vault old && mv copy vault");
    let mount = vault.mount_with(&[]);
    assert_eq!(Shell::new(mount.root()).run("find . -type f -exec sha256sum {} +"), before);
    assert_eq!(fs::read(mount.path("d/l/f")).unwrap(), b"text\n");
}

/// A re-wrap changed neither sizes nor times, so the backup kept the old headers, and was lost with the
/// old material.
#[test]
fn regression_a_backup_by_size_and_time_takes_a_rewrap_along() {
    program("rsync");
    let vault = Vault::new("backupvault");
    let mount = vault.mount();
    Shell::new(mount.root()).run(
        "mkdir -p a/b; for i in $(seq 40); do head -c $((i * 531)) /dev/urandom > a/f$i; done
         ln a/f1 a/b/hard; ln -s f2 a/soft; touch -d 2001-02-03 a/f3; sleep 1.1",
    );
    let contents = Shell::new(mount.root()).run("find . -type f -exec sha256sum {} + | sort");
    let shown = listing(&mount.root());
    let beside = Shell::new(vault.store().parent().unwrap());
    mount.unmount();
    beside.run("rsync -a vault/ copy/");
    let mount = vault.mount();
    vault.kmsfs(["key", "rotate", "alias/kmsfs/default"]);
    vault.kmsfs(["rewrap", mount.root().to_str().unwrap()]);
    assert_eq!(listing(&mount.root()), shown, "times changed");
    mount.unmount();
    beside.run("rsync -a vault/ copy/");
    vault.kmsfs(["key", "retire", "alias/kmsfs/default", "--yes"]);
    beside.run("mv vault old && mv copy vault");
    let mount = vault.mount_with(&[]);
    let read = Shell::new(mount.root()).run("find . -type f -exec sha256sum {} + | sort");
    assert_eq!(read, contents);
}

/// Only its owner sets the times of a file: the re-wrap wrote the header and then failed.
#[test]
fn regression_an_ordinary_user_rewraps_the_file_of_another() {
    let vault = Vault::new("backupothers");
    let mount = vault.mount();
    Shell::new(mount.root()).run("echo one > f; touch -d 2001-02-03 f");
    let shown = listing(&mount.root());
    mount.unmount();
    vault.kmsfs(["key", "rotate", "alias/kmsfs/default"]);
    fs::copy(binary(), vault.outside("kmsfs")).unwrap();
    let beside = Shell::new(vault.outside("")).var("KEYSTORE", vault.keystore());
    let said = beside.run(
        r#"chown -R 65534:65534 . && file=$(find private/vault -maxdepth 1 -type f ! -name '.*')
           chown root "$file" && chmod 666 "$file"
           HOME=$PWD setpriv --reuid=65534 --regid=65534 --clear-groups \
               ./kmsfs --keystore "$KEYSTORE" --key-file key rewrap private/vault
           stat -c %Y "$file"; chown -R 0:0 . && chmod 644 "$file""#,
    );
    let newer = said.lines().last().unwrap().parse::<u64>().unwrap();
    assert!(newer > 1_700_000_000, "a backup does not see the re-wrap: {said}");
    vault.kmsfs(["key", "retire", "alias/kmsfs/default", "--yes"]);
    let mount = vault.mount();
    let mtime = |listing: &str| listing.split(' ').nth(4).map(str::to_owned);
    let file = |listing: &str| listing.lines().find(|line| line.starts_with("f ")).and_then(mtime);
    assert_eq!(file(&listing(&mount.root())), file(&shown), "the time from before is shown");
    assert_eq!(fs::read(mount.path("f")).unwrap(), b"one\n");
}

/// An ACL that says what the mode says was refused on the root, which is kept closed to others.
#[test]
fn regression_a_directory_is_copied_onto_the_root_with_its_mode() {
    let vault = Vault::new("copied");
    // Nothing above it keeps others out.
    let open = vault.store().parent().unwrap();
    fs::set_permissions(open, fs::Permissions::from_mode(0o755)).unwrap();
    let mount = vault.mount();
    let shell = Shell::new(vault.outside("")).var("MNT", vault.mountpoint());
    for mode in ["700", "500", "1700"] {
        shell.run(&format!(
            r#"if test -d from; then chmod 700 from; rm -r from; fi
               mkdir from; echo {mode} > from/file; chmod {mode} from
               chmod 700 "$MNT"; cp -a from/. "$MNT"
               test $(stat -c %a "$MNT") = {mode}; test "$(cat "$MNT/file")" = {mode}"#
        ));
    }
    shell.run(r#"setfacl -m u:77:--- "$MNT"; setfacl -b "$MNT"; chmod 700 "$MNT""#);
    for wider in ["u:77:x", "g::x", "o::x", "u:77:---,m::x"] {
        let refused = shell.output(&format!(r#"setfacl -m {wider} "$MNT""#));
        assert!(!refused.status.success(), "{wider}");
    }
    let mode = fs::metadata(vault.store()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o700);
    mount.unmount();
}

//! Backup programs see a steady tree: through a read-only mount, across remounts and re-wraps, and
//! in the vault itself.

use std::fs;
use std::path::Path;

use crate::harness::{Shell, Vault, program};

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

//! Programs that people run on a filesystem, run on a mount.

use crate::harness::{Mount, Shell, Vault, assert_same, is_root, program, snapshot};

#[test]
fn git_clones_commits_checks_and_packs() {
    program("git");
    let vault = Vault::new("git");
    let mount = vault.mount();
    let shell = Shell::new(vault.outside("")).var("MNT", mount.root());
    shell.run(
        r#"git init -q -b main origin && cd origin
           mkdir -p src/deep/er docs
           for i in $(seq 1 150); do seq 1 $((i * 7)) > "src/file $i.txt"; done
           head -c 3000000 /dev/urandom > big.bin
           ln -s ../docs src/link; echo '#!/bin/sh' > run.sh; chmod +x run.sh
           git add -A && git commit -qm first
           for i in $(seq 1 12); do echo $i >> "src/file $i.txt"; git commit -qam "change $i"; done"#,
    );
    shell.run(
        r#"git clone -q --no-local origin "$MNT/clone" && cd "$MNT/clone"
           git fsck --full --strict
           test -x run.sh && test "$(readlink src/link)" = ../docs
           git checkout -q -b topic
           for i in $(seq 20 40); do echo topic >> "src/file $i.txt"; done
           git mv src/deep moved 2>/dev/null || mkdir moved
           echo new > moved/new && git add -A && git commit -qm topic
           git checkout -q main && git merge -q --no-ff -m merge topic
           git rebase -q topic && git stash list
           echo dirty >> run.sh && git stash -q && git stash pop -q && git checkout -q run.sh
           git worktree add -q ../tree topic && git worktree remove ../tree
           git repack -qad && git gc -q --aggressive --prune=now
           git fsck --full --strict
           test -z "$(git status --porcelain)"
           git push -q origin topic && git -C ../../origin log -1 topic >/dev/null 2>&1 || true
           git bundle create -q ../all.bundle --all"#,
    );
    mount.unmount();
    let mount = vault.mount();
    Shell::new(mount.path("clone")).run(
        r#"git fsck --full --strict
           test -z "$(git status --porcelain)"
           git bundle verify -q ../all.bundle
           git log --oneline | wc -l"#,
    );
}

#[test]
fn sqlite_keeps_its_integrity_in_every_journal_mode() {
    program("sqlite3");
    let vault = Vault::new("sqlite");
    let mount = vault.mount();
    let shell = Shell::new(mount.root());
    for mode in ["delete", "truncate", "persist", "wal", "memory"] {
        shell.run(&format!(
            r#"db={mode}.db
               test "$(sqlite3 $db 'pragma journal_mode={mode}')" = {mode}
               sqlite3 $db 'create table t(id integer primary key, v blob)'
               for round in 1 2 3 4 5; do
                   sqlite3 $db "pragma journal_mode={mode}; begin;
                       with recursive n(i) as (select 1 union all select i+1 from n where i < 400)
                       insert into t(v) select randomblob(200 + i % 3000) from n; commit;
                       delete from t where id % 7 = $round; update t set v = zeroblob(100) where id % 11 = $round;" >/dev/null
               done
               for i in $(seq 1 30); do sqlite3 $db "insert into t(v) values('single')"; done
               sqlite3 $db 'vacuum'
               test "$(sqlite3 $db 'pragma integrity_check')" = ok
               test "$(sqlite3 $db "select count(*) from t where v = 'single'")" = 30"#
        ));
    }
    mount.unmount();
    let mount = vault.mount();
    let shell = Shell::new(mount.root());
    let sound = shell.run(
        "for db in *.db; do sqlite3 $db 'pragma integrity_check'; sqlite3 $db 'select count(*) from t' >&2; done",
    );
    assert_eq!(sound.lines().filter(|line| *line == "ok").count(), 5, "{sound}");
}

#[test]
fn sqlite_serves_two_writers_at_once() {
    program("sqlite3");
    let vault = Vault::new("sqlite2");
    let mount = vault.mount();
    let shell = Shell::new(mount.root());
    for mode in ["delete", "wal"] {
        let count = shell.run(&format!(
            r#"db=both-{mode}.db
               sqlite3 $db 'pragma journal_mode={mode}; create table t(who, n)' >/dev/null
               writer() {{ for n in $(seq 1 60); do
                   sqlite3 -cmd '.timeout 60000' $db "insert into t values($1, $n)"; done; }}
               writer 1 & one=$!; writer 2 & two=$!
               wait $one; wait $two
               test "$(sqlite3 $db 'pragma integrity_check')" = ok
               sqlite3 $db 'select count(*) from t'"#
        ));
        assert_eq!(count.trim(), "120", "{mode}");
    }
}

/// A tree with one of everything: hard links, symlinks, fifos, modes, owners, times, ACLs,
/// attributes, a sparse file, awkward names.
const TREE: &str = r#"
    mkdir -p tree/dir/sub tree/acl "tree/with space" tree/empty && cd tree
    for i in $(seq 1 60); do head -c $((i * 997)) /dev/urandom > dir/f$i; done
    : > dir/nothing
    ln dir/f1 dir/sub/hard; ln -s ../dir/f2 dir/sub/soft; ln -s /nowhere dangling
    mkfifo dir/fifo
    chmod 4755 dir/f3; chmod 2755 dir/f4; chmod 1777 empty; chmod 2775 acl
    touch -d '1960-03-04 05:06:07.123456789Z' dir/f6; touch -d '2100-01-01Z' dir/f7
    setfattr -n user.plain -v value dir/f8; setfattr -n user.binary -v 0x00ff10 dir/f8
    setfattr -n user.dir -v d dir
    setfacl -m u:daemon:rwx,g:daemon:r-x dir/f9; setfacl -d -m u:daemon:rx,g::rx,o::- acl
    setfacl -m u:nobody:x acl; touch acl/inherits; mkdir acl/sub
    truncate -s 9M dir/sparse; printf middle | dd of=dir/sparse bs=1 seek=5000000 conv=notrunc status=none
    touch "with space/$(printf 'tab\there')" "with space/-dash" "with space/ünï"
    touch "with space/$(head -c 255 /dev/zero | tr '\0' n)"
    [ "$(id -u)" != 0 ] || { chmod 0 dir/f5; chown daemon:daemon dir/f10; mknod dir/null c 1 3; }
"#;

/// Root makes device nodes where the mount has them.
fn mount_for_devices(vault: &Vault) -> Mount<'_> {
    if is_root() { vault.mount_with(&["--create", "-o", "dev"]) } else { vault.mount() }
}

#[test]
fn tar_keeps_everything_both_ways() {
    program("tar");
    let vault = Vault::new("tar");
    let mount = mount_for_devices(&vault);
    let shell = Shell::new(vault.outside("")).var("MNT", mount.root());
    shell.run(TREE);
    shell.run(
        r#"flags="--acls --xattrs --xattrs-include=user.* --sparse --numeric-owner"
           tar $flags -cf in.tar tree && tar $flags -xpf in.tar -C "$MNT"
           tar $flags -cf out.tar -C "$MNT" tree && mkdir back && tar $flags -xpf out.tar -C back"#,
    );
    let original = snapshot(&vault.outside("tree"));
    assert_same(&snapshot(&mount.path("tree")), &original, "into the mount");
    assert_same(&snapshot(&vault.outside("back/tree")), &original, "out of the mount");
    mount.unmount();
    let mount = vault.mount();
    assert_same(&snapshot(&mount.path("tree")), &original, "after a remount");
}

#[test]
fn rsync_transfers_nothing_the_second_time() {
    program("rsync");
    let vault = Vault::new("rsync");
    let mount = mount_for_devices(&vault);
    let shell = Shell::new(vault.outside("")).var("MNT", mount.root());
    shell.run(TREE);
    shell.run(r#"rsync -aHAX tree/ "$MNT/copy/""#);
    let again = shell.run(r#"rsync -aHAX --itemize-changes tree/ "$MNT/copy/""#);
    assert_eq!(again, "", "the second run transferred");
    let contents = shell.run(r#"rsync -aHAXc --itemize-changes tree/ "$MNT/copy/""#);
    assert_eq!(contents, "", "contents differ");
    mount.unmount();
    let mount = vault.mount();
    let shell = Shell::new(vault.outside("")).var("MNT", mount.root());
    let remounted = shell.run(r#"rsync -aHAX --itemize-changes tree/ "$MNT/copy/""#);
    assert_eq!(remounted, "", "a run after a remount transferred");
    let back = shell.run(
        r#"rsync -aHAX "$MNT/copy/" back/ && rsync -aHAXc --itemize-changes tree/ back/
           echo more >> tree/dir/f2 && rsync -aHAX --inplace --no-whole-file tree/ "$MNT/copy/"
           rsync -aHAXc --itemize-changes tree/ "$MNT/copy/""#,
    );
    assert_eq!(back, "", "the copy of the copy differs");
}

#[test]
fn cargo_builds_and_runs_inside_a_mount() {
    let vault = Vault::new("cargo");
    let mount = vault.mount();
    let shell = Shell::new(mount.root()).var("CARGO_TARGET_DIR", mount.path("project/target"));
    let out = shell.run(
        r#"mkdir -p project/src && cd project
           printf '[package]\nname = "inside"\nversion = "0.1.0"\nedition = "2021"\n' > Cargo.toml
           printf 'pub mod a;\npub fn answer() -> u32 { a::half() * 2 }\n#[test]\nfn t() { assert_eq!(answer(), 42); }\n' > src/lib.rs
           printf 'pub fn half() -> u32 { 21 }\n' > src/a.rs
           printf 'fn main() { println!("{}", inside::answer()); }\n' > src/main.rs
           cargo build -q --offline && cargo test -q --offline >/dev/null
           ./target/debug/inside
           cargo build --offline --message-format short 2>&1 | grep -c Compiling || true
           sed -i s/21/50/ src/a.rs && cargo run -q --offline"#,
    );
    assert_eq!(out.split_whitespace().collect::<Vec<_>>(), ["42", "0", "100"]);
}

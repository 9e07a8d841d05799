//! File handles: name_to_handle_at(2), open_by_handle_at(2), and what NFS makes of them.

use std::fs;
use std::path::Path;

use crate::harness::{Mount, Shell, Vault, is_root};

const EXPORT: [&str; 3] = ["--create", "-o", "nfs_export"];

/// `handles.py save LIST NAME...` writes handles down, `read LIST ROOT` opens them one by one and shows
/// what it finds.
const SCRIPT: &str = r#"
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def save(list, *names):
    with open(list, 'a') as out:
        for name in names:
            handle, mount = ctypes.create_string_buffer(136), ctypes.c_int()
            handle[0:4] = (128).to_bytes(4, 'little')
            if libc.name_to_handle_at(-100, os.fsencode(name), handle, ctypes.byref(mount), 0):
                sys.exit(name + ': ' + os.strerror(ctypes.get_errno()))
            out.write(handle.raw.hex() + '\n')
def read(list, root):
    at = os.open(root, os.O_RDONLY)
    for line in open(list):
        handle = ctypes.create_string_buffer(bytes.fromhex(line), 136)
        file = libc.open_by_handle_at(at, handle, os.O_RDONLY)
        if file < 0: print(os.strerror(ctypes.get_errno()))
        elif os.path.isdir('/proc/self/fd/%d' % file): print(' '.join(sorted(os.listdir(file))))
        else: print(os.read(file, 100).decode())
globals()[sys.argv[1]](*sys.argv[2:])
"#;

fn handles(vault: &Vault, mount: &Mount<'_>, words: &str) -> String {
    let (script, list) = (vault.outside("handles.py"), vault.outside("list"));
    fs::write(&script, SCRIPT).unwrap();
    let words = words.replace("LIST", list.to_str().unwrap());
    Shell::new(mount.root()).run(&format!("python3 '{}' {words}", script.display()))
}

#[test]
fn handles_lead_to_the_same_files_after_a_remount_and_never_to_others() {
    assert!(is_root(), "opening by handle takes root: run this test so, or skip it by name");
    let vault = Vault::new("nfs_export");
    let mount = vault.mount_with(&EXPORT);
    let at = Shell::new(mount.root());
    at.run(
        "mkdir -p a/b/c other; printf one >a/b/c/file; printf two >a/b/link; ln a/b/link a/linked",
    );
    at.run("printf gone >other/gone; printf moved >a/moved; printf replaced >a/replaced");
    let names = "a/b/c/file a/b/link other/gone a/moved a/replaced a/b/c .";
    handles(&vault, &mount, &format!("save LIST {names}"));
    let found = "one\ntwo\ngone\nmoved\nreplaced\nfile\na other\n";
    assert_eq!(handles(&vault, &mount, "read LIST ."), found);
    mount.unmount();

    let mount = vault.mount_with(&EXPORT);
    assert_eq!(handles(&vault, &mount, "read LIST ."), found, "nothing was looked up by name");
    let at = Shell::new(mount.root());
    at.run("rm a/b/link; rm other/gone; mv a/moved other; mv a/b a/d");
    // As soon as its number is free, another file has it.
    at.run(
        "number=$(stat -c %i a/replaced); rm a/replaced; for try in $(seq 200); do \
            printf wrong >a/new$try; [ $(stat -c %i a/new$try) != $number ] || exit 0; done",
    );
    let later = "one\ntwo\nStale file handle\nmoved\nStale file handle\nfile\na other\n";
    assert_eq!(handles(&vault, &mount, "read LIST ."), later);
    mount.unmount();

    let mount = vault.mount_with(&EXPORT);
    assert_eq!(handles(&vault, &mount, "read LIST ."), later, "after another remount");
    check_paths(&vault, &mount);
    mount.unmount();
}

/// What is reached by a handle can be used like any other, also where nobody knows its directories.
fn check_paths(vault: &Vault, mount: &Mount<'_>) {
    let script = r#"
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
at = os.open('.', os.O_RDONLY)
lines = open(sys.argv[1]).read().split()
def opened(line, flags):
    handle = ctypes.create_string_buffer(bytes.fromhex(line), 136)
    return libc.open_by_handle_at(at, handle, flags)
file = opened(lines[0], os.O_RDWR)
os.pwrite(file, b'changed', 0)
os.fsync(file)
os.setxattr(file, 'user.name', b'value')
dir = opened(lines[5], os.O_RDONLY)
open('made', 'w', opener=lambda name, flags: os.open(name, flags, dir_fd=dir)).write('new')
os.rename('made', 'renamed', src_dir_fd=dir, dst_dir_fd=dir)
assert os.getxattr('a/d/c/file', 'user.name') == b'value'
assert os.path.realpath('/proc/self/fd/%d' % dir).endswith('/a/d/c')
"#;
    let path = vault.outside("use.py");
    fs::write(&path, script).unwrap();
    let run = |dir: &Path| {
        let list = vault.outside("list");
        Shell::new(dir).run(&format!("python3 '{}' '{}'", path.display(), list.display()))
    };
    run(&mount.root());
    assert_eq!(fs::read(mount.path("a/d/c/file")).unwrap(), b"changed");
    assert_eq!(fs::read(mount.path("a/d/c/renamed")).unwrap(), b"new");
}

/// They would become stale whenever the kernel forgets an inode.
#[test]
fn without_the_option_no_handles_are_given_out() {
    let vault = Vault::new("handles");
    let mount = vault.mount();
    fs::write(mount.path("file"), "").unwrap();
    let script = vault.outside("handles.py");
    fs::write(&script, SCRIPT).unwrap();
    let refused = Shell::new(mount.root()).output(&format!(
        "python3 '{}' save '{}' file",
        script.display(),
        vault.outside("list").display()
    ));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("file: Operation not supported"), "{said}");
    mount.unmount();
}

#[test]
fn a_large_tree_is_searched_while_others_are_answered() {
    assert!(is_root(), "opening by handle takes root: run this test so, or skip it by name");
    let vault = Vault::new("nfs_search");
    let mount = vault.mount_with(&EXPORT);
    let at = Shell::new(mount.root());
    at.run("for a in $(seq 30); do mkdir -p d$a/e; touch d$a/f{1..30} d$a/e/g{1..30}; done; printf end >d30/e/last");
    handles(&vault, &mount, "save LIST d30/e/last d1/e");
    mount.unmount();
    let mount = vault.mount_with(&EXPORT);
    // Directories move all the time, the one that is wanted too.
    let at = Shell::new(mount.root());
    let (script, list) = (vault.outside("handles.py"), vault.outside("list"));
    fs::write(&script, SCRIPT).unwrap();
    let read = format!("python3 '{}' read '{}' .", script.display(), list.display());
    let moving = "while [ -e d30 -o -e m ]; do mv d30 m; mv m d30; done >/dev/null 2>&1 & mover=$!; \
         trap 'kill $mover' EXIT";
    let said = at.run(&format!(
        "{moving}; {read} >one & one=$!; {read} >two & two=$!; wait $one; wait $two; cat one two"
    ));
    let last = said.lines().filter(|line| *line == "end").count();
    assert_eq!((last, said.lines().count()), (2, 4), "{said}");
    mount.unmount();
}

//! Policies and grants of the keystore bind the users of a mount.
//!
//! Turning into other users takes root: without it there is nobody to refuse, and these fail.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::foreign_process::ForeignUser;
use crate::harness::{Mount, Vault, binary, is_root, program};

const DEFAULT: &str = "alias/kmsfs/default";
const ANN: u32 = 61_001;
const BOB: u32 = 61_002;
/// The promise is a second. The margin is for a loaded machine.
const FELT: Duration = Duration::from_millis(2500);

#[test]
fn a_user_without_a_permission_gets_no_file_open_and_the_audit_says_so() {
    let vault = vault("denied");
    let mount = shared(&vault);
    write(&mount, "secret plans", "contents");
    write(&mount, "empty", "");
    allow(&vault, DEFAULT, &[0, ANN]);
    wait_until("Bob is refused", || run(BOB, &mount, "cat 'secret plans'").is_err());
    for script in [
        "cat 'secret plans'",
        "cat empty",
        "echo more >> 'secret plans'",
        "truncate -s 3 'secret plans'",
        "sh 'secret plans'",
        "getfattr -n user.note 'secret plans'",
        "echo new > new",
    ] {
        let refused = run(BOB, &mount, script).unwrap_err();
        assert!(refused.contains("Permission denied"), "{script}: {refused}");
    }
    run(BOB, &mount, "stat 'secret plans' && ls && mkdir dir && ln -s x link && rmdir dir")
        .unwrap();
    assert_eq!(run(ANN, &mount, "cat 'secret plans'").unwrap(), "contents");
    run(ANN, &mount, "echo mine > hers && cat hers").unwrap();
    let log = vault.log();
    let line = format!("user {BOB} is denied kms:Decrypt on KMS key ");
    assert!(log.contains(&line), "{log}");
    assert!(!log.contains("secret plans"), "{log}");
    let bob = format!("user/unix/{BOB}");
    let opens =
        audited(&vault, |event| event["principal"].as_str().is_some_and(|who| who.ends_with(&bob)));
    let results: Vec<_> =
        opens.iter().map(|event| (&event["operation"], &event["result"])).collect();
    let denied = json!("AccessDeniedException");
    assert!(results.contains(&(&json!("Decrypt"), &denied)), "{opens:?}");
    assert!(results.contains(&(&json!("GenerateDataKey"), &denied)), "{opens:?}");
    let ann = format!("user/unix/{ANN}");
    audited(&vault, |event| {
        event["principal"].as_str().is_some_and(|who| who.ends_with(&ann))
            && event["operation"] == "Decrypt"
            && event["result"] == "Success"
            && event["file"].is_string()
            && event["source"] == "mount"
    });
}

#[test]
fn a_revoked_grant_is_felt_on_open_handles() {
    let vault = vault("revoked");
    let mount = shared(&vault);
    write(&mount, "file", &"long".repeat(1000));
    allow(&vault, DEFAULT, &[0, ANN]);
    let grant = grant(&vault, BOB, None);
    let mut bob = Holder::read(BOB, &mount.path("file"));
    let mut ann = Holder::read(ANN, &mount.path("file"));
    assert_eq!((bob.acts(), ann.acts()), (Ok(()), Ok(())));
    vault.kmsfs(["grant", "revoke", DEFAULT, &grant]);
    wait_until("the open handle is refused", || bob.acts() == Err(libc::EACCES));
    assert!(run(BOB, &mount, "cat file").is_err());
    let again = self::grant(&vault, BOB, None);
    wait_until("the same handle works again", || bob.acts() == Ok(()));
    vault.kmsfs(["grant", "revoke", DEFAULT, &again]);
    wait_until("and is refused again", || bob.acts() == Err(libc::EACCES));
    assert_eq!(ann.acts(), Ok(()), "somebody else's handle goes on");
}

/// The bits went before anybody had asked whether the write is allowed.
#[test]
fn regression_a_refused_write_leaves_the_setuid_bit() {
    let vault = vault("setuid");
    let mount = shared(&vault);
    write(&mount, "tool", "contents");
    allow(&vault, DEFAULT, &[0]);
    let grant = grant(&vault, BOB, None);
    let mut bob = Holder::append(BOB, &mount.path("tool"));
    assert_eq!(bob.acts(), Ok(()));
    vault.kmsfs(["grant", "revoke", DEFAULT, &grant]);
    wait_until("the open handle is refused", || bob.acts() == Err(libc::EACCES));
    fs::set_permissions(mount.path("tool"), fs::Permissions::from_mode(0o4777)).unwrap();
    assert_eq!(bob.acts(), Err(libc::EACCES));
    let mode = fs::metadata(mount.path("tool")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o4777);
}

#[test]
fn a_grant_that_expires_ends_by_itself() {
    let vault = vault("expires");
    let mount = shared(&vault);
    write(&mount, "file", &"long".repeat(1000));
    allow(&vault, DEFAULT, &[0]);
    let mut end = Command::new("date");
    end.args(["-u", "-d", "+4 seconds", "+%Y-%m-%dT%H:%M:%SZ"]);
    let end = String::from_utf8(end.output().unwrap().stdout).unwrap();
    grant(&vault, BOB, Some(end.trim()));
    let start = Instant::now();
    let mut bob = Holder::read(BOB, &mount.path("file"));
    assert_eq!(bob.acts(), Ok(()));
    while bob.acts() == Ok(()) {
        assert!(start.elapsed() < Duration::from_secs(4) + FELT, "it never ended");
        thread::sleep(Duration::from_millis(50));
    }
    assert!(start.elapsed() > Duration::from_secs(2), "it ended too soon");
    assert!(run(BOB, &mount, "cat file").is_err());
}

#[test]
fn a_move_to_another_key_gets_nobody_around_the_policy() {
    let vault = vault("move");
    let mount = shared(&vault);
    kms_key(&vault, "alias/open");
    let dir = mount.path("open");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
    vault.kmsfs(["policy", "set", dir.to_str().unwrap(), "--key", "alias/open"]);
    write(&mount, "file", "contents");
    allow(&vault, DEFAULT, &[0, ANN]);
    wait_until("Bob is refused", || run(BOB, &mount, "cat file").is_err());
    for (script, why) in [
        ("mv -T file open/mine", "Permission denied"),
        ("ln file open/mine", "Invalid cross-device link"),
    ] {
        let refused = run(BOB, &mount, script).unwrap_err();
        assert!(refused.contains(why), "{script}: {refused}");
    }
    run(ANN, &mount, "mv file open/file").unwrap();
    assert_eq!(run(BOB, &mount, "cat open/file").unwrap(), "contents");
}

#[test]
fn groups_of_the_calling_process_count() {
    let vault = vault("groups");
    let mount = shared(&vault);
    write(&mount, "file", "contents");
    let group = "arn:aws:iam::000000000000:group/unix/61009";
    put_policy(&vault, DEFAULT, &[group.to_owned(), user(0)]);
    wait_until("without the group", || run(BOB, &mount, "cat file").is_err());
    let output = setpriv(BOB, &["--groups=61009"], &mount, "cat file");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "contents");
}

/// Everybody with subordinate ids becomes one of these users in a user namespace of their own, whom no Deny
/// names, and gives up groups there.
#[test]
fn regression_no_deny_is_passed_from_another_user_namespace() {
    let vault = vault("subordinate");
    let mount = shared(&vault);
    write(&mount, "file", "contents");
    let path = mount.path("file");
    let read = |map: &str, becomes| {
        let user = ForeignUser { uid: BOB, groups: &[BOB, 61009], map, becomes };
        user.output(&["cat", path.to_str().unwrap()])
    };
    let without_the_group = || read(&format!("{BOB} {BOB} 1"), BOB);
    let as_subordinate = || read("0 100000 1000", 0);
    // Nothing to evade: containers read as they did.
    for output in [without_the_group(), as_subordinate()] {
        assert_eq!(output.stdout, b"contents", "{output:?}");
    }
    for who in ["group/unix/61009".to_owned(), format!("user/unix/{BOB}")] {
        deny(&vault, &format!("arn:aws:iam::000000000000:{who}"));
        wait_until(&who, || !as_subordinate().status.success());
        for output in [without_the_group(), as_subordinate()] {
            assert!(output.stdout.is_empty(), "{who}: {output:?}");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(said.contains("Permission denied"), "{who}: {said}");
        }
        assert_eq!(run(ANN, &mount, "cat file").unwrap(), "contents");
    }
    let log = vault.log();
    assert!(log.contains("nobody can say who the process is"), "{log}");
}

/// A setuid file of a subordinate user, which is made in such a namespace, makes its owner that user
/// outside as well. In a mount namespace of its own, so that the machine keeps its ranges.
#[test]
fn regression_no_deny_is_passed_by_a_setuid_file_of_a_subordinate_user() {
    let script = r#"
        echo ann:100000:65536 > ranges
        mount --bind ranges /etc/subuid
        trap 'umount --lazy mnt' EXIT
        "$@" mount --create -o allow_other private/vault mnt 2>&1
        echo contents > mnt/file
        chmod 755 mnt && chmod 644 mnt/file
        cp "$(command -v setpriv)" become && chown 100000 become && chmod 4755 become
        as() { setpriv --reuid "$1" --regid "$1" --clear-groups "${@:2}" sh -c 'id -u; cat mnt/file' 2>&1; }
        ann() { as 12345 ./become --ruid 100000; }
        ann
        "$@" key policy set alias/kmsfs/default policy.json > /dev/null
        for _ in {1..100}; do ann > said || break; sleep 0.1; done
        cat said
        as 54321
    "#;
    let words = ["unshare", "--mount", "--propagation", "private", "bash", "-euc", script, "bash"];
    let vault = vault("setuid").within(words.map(str::to_owned).into());
    let (everybody, ann) = ("*", user(12345));
    let statement = |effect, who: &str| json!({ "Effect": effect, "Principal": { "AWS": who }, "Action": "kms:*", "Resource": "*" });
    let policy = json!({ "Version": "2012-10-17", "Statement": [
        statement("Allow", everybody), statement("Deny", &ann)
    ]});
    fs::write(vault.outside("policy.json"), policy.to_string()).unwrap();
    let mut command = vault.command();
    let output = command.current_dir(vault.outside("")).env("LC_ALL", "C").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let (before, after) = said.split_once("100000\ncontents\n").expect(&said);
    assert!(!before.contains("cat:"), "{said}");
    assert_eq!(
        after,
        "100000\ncat: mnt/file: Permission denied\n54321\ncontents\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A vault whose mount other users enter.
fn vault(name: &str) -> Vault {
    assert!(
        is_root(),
        "this turns into other users: run it as root (add `-- --skip access::` else)"
    );
    Vault::new(name)
}

/// A mount whose root directory everybody may write to.
fn shared(vault: &Vault) -> Mount<'_> {
    let mount = vault.mount_with(&["--create", "-o", "allow_other"]);
    fs::set_permissions(mount.root(), fs::Permissions::from_mode(0o777)).unwrap();
    mount
}

fn write(mount: &Mount<'_>, name: &str, contents: &str) {
    fs::write(mount.path(name), contents).unwrap();
    fs::set_permissions(mount.path(name), fs::Permissions::from_mode(0o666)).unwrap();
}

fn user(uid: u32) -> String {
    format!("arn:aws:iam::000000000000:user/unix/{uid}")
}

/// Lets these users of mounts use a key, and nobody else.
fn allow(vault: &Vault, key: &str, users: &[u32]) {
    let users: Vec<String> = users.iter().map(|uid| user(*uid)).collect();
    put_policy(vault, key, &users);
}

fn put_policy(vault: &Vault, key: &str, principals: &[String]) {
    let root = "arn:aws:iam::000000000000:root";
    let policy = json!({ "Version": "2012-10-17", "Statement": [
        { "Effect": "Allow", "Principal": { "AWS": root }, "Action": "kms:*", "Resource": "*" },
        { "Effect": "Allow", "Principal": { "AWS": principals }, "Resource": "*",
          "Action": ["kms:Decrypt", "kms:GenerateDataKey", "kms:ReEncrypt*"],
          "Condition": { "StringEquals": { "kms:ViaService": "kmsfs" } } },
    ]});
    let file = vault.outside("policy.json");
    fs::write(&file, policy.to_string()).unwrap();
    vault.kmsfs(["key", "policy", "set", key, file.to_str().unwrap()]);
}

/// Lets everybody use the default key through mounts, but not this one.
fn deny(vault: &Vault, principal: &str) {
    let shown = vault.command().args(["key", "policy", "show", DEFAULT]).output().unwrap();
    let mut policy: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let statements = policy["Statement"].as_array_mut().unwrap();
    statements.retain(|statement| statement["Effect"] == "Allow");
    statements.push(json!({
        "Effect": "Deny", "Principal": { "AWS": principal }, "Action": "kms:*", "Resource": "*"
    }));
    let file = vault.outside("policy.json");
    fs::write(&file, policy.to_string()).unwrap();
    vault.kmsfs(["key", "policy", "set", DEFAULT, file.to_str().unwrap()]);
}

/// A grant for Decrypt; its id.
fn grant(vault: &Vault, uid: u32, expires: Option<&str>) -> String {
    let (key, who) = (key_id(vault, DEFAULT), user(uid));
    let mut words =
        vec!["--json", "grant", "create", &key, "--to", &who, "--operations", "Decrypt"];
    if let Some(expires) = expires {
        words.extend(["--expires", expires]);
    }
    let made = output(vault, &words);
    made["GrantId"].as_str().unwrap().to_owned()
}

fn kms_key(vault: &Vault, alias: &str) {
    vault.kmsfs(["key", "create", "--alias", alias]);
}

fn key_id(vault: &Vault, key: &str) -> String {
    let shown = output(vault, &["--json", "key", "describe", key]);
    shown["KeyId"].as_str().unwrap().to_owned()
}

fn output(vault: &Vault, words: &[&str]) -> Value {
    let output = vault.command().args(words).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The records of the audit log that match, as soon as there are some.
fn audited(vault: &Vault, matches: impl Fn(&Value) -> bool) -> Vec<Value> {
    let start = Instant::now();
    loop {
        let output = vault.command().args(["audit", "export"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let events = lines.map(|mut line| line["record"]["event"].take());
        let found: Vec<Value> = events.filter(&matches).collect();
        if !found.is_empty() {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(90), "no such record:\n{text}");
        thread::sleep(Duration::from_millis(500));
    }
}

/// Runs a script inside the mount as another user; its output, or what it said on stderr.
fn run(uid: u32, mount: &Mount<'_>, script: &str) -> Result<String, String> {
    let output = setpriv(uid, &["--clear-groups"], mount, script);
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

fn setpriv(uid: u32, groups: &[&str], mount: &Mount<'_>, script: &str) -> Output {
    Command::new(program("setpriv"))
        .args([format!("--reuid={uid}"), format!("--regid={uid}")])
        .args(groups)
        .args(["sh", "-c", script])
        .current_dir(mount.root())
        .env("LC_ALL", "C")
        .output()
        .unwrap()
}

/// A process of another user that keeps a file open and reads or appends a byte on demand.
struct Holder {
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Holder {
    fn read(uid: u32, path: &Path) -> Self {
        Self::start(uid, path, r#"exec 3<"$1"; act() { dd bs=1 count=1 2>&1 >/dev/null <&3; }"#)
    }

    fn append(uid: u32, path: &Path) -> Self {
        Self::start(uid, path, r#"exec 3>>"$1"; act() { printf x | dd bs=1 2>&1 >&3; }"#)
    }

    fn start(uid: u32, path: &Path, act: &str) -> Self {
        let script = format!(
            r#"{act}; while read order; do
                said=$(act) && echo ok || echo "$said" | head -n 1
            done"#
        );
        let mut process = Command::new(program("setpriv"))
            .args([format!("--reuid={uid}"), format!("--regid={uid}")])
            .args(["--clear-groups", "sh", "-c", &script, "sh"])
            .arg(path)
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        Self { process, orders, answers }
    }

    /// Reads or appends a byte; the errno if that fails.
    fn acts(&mut self) -> Result<(), i32> {
        self.orders.write_all(b"act\n").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        match line.trim() {
            "ok" => Ok(()),
            said if said.ends_with("Permission denied") => Err(libc::EACCES),
            said => panic!("dd: {said}"),
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < FELT, "{what}: not within {FELT:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A vault of somebody else's that is mounted on the machine was one that could not be looked into, and
/// kept all material of everybody.
#[test]
fn regression_a_mount_that_a_user_may_not_look_into_keeps_none_of_their_material() {
    let vault = vault("others");
    let mount = shared(&vault);
    write(&mount, "file", "contents");
    // Bob's keystore and program are his own.
    let home = vault.outside_dir("bob");
    fs::set_permissions(vault.outside(""), fs::Permissions::from_mode(0o711)).unwrap();
    fs::copy(binary(), home.join("kmsfs")).unwrap();
    std::os::unix::fs::chown(&home, Some(BOB), Some(BOB)).unwrap();
    let bob = |script: &str| {
        let output = Command::new(program("setpriv"))
            .args([format!("--reuid={BOB}"), format!("--regid={BOB}")])
            .args(["--clear-groups", "bash", "-euc", script])
            .current_dir(&home)
            .env("HOME", &home)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{script}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let kmsfs = "./kmsfs --keystore store --key-file key";
    bob(&format!("{kmsfs} keystore init --create-key-file; {kmsfs} key create --alias {DEFAULT}"));
    bob(&format!("{kmsfs} init vault"));
    bob(&format!("{kmsfs} key rotate {DEFAULT}; {kmsfs} rewrap vault"));
    let mounts = bob("cat /proc/self/mounts");
    assert!(mounts.contains(vault.store().to_str().unwrap()), "{mounts}");
    let retired = bob(&format!("{kmsfs} key retire {DEFAULT} --yes"));
    assert!(retired.contains("destroyed"), "{retired}");
}

//! What can be found in the memory of a daemon, by root, while it serves and when it should have
//! forgotten.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use kmsfs::crypto::hash::{Label, derive};
use kmsfs::crypto::{Secret, xaes};
use kmsfs::envelope::layout::Block;
use kmsfs::envelope::{FileHeader, UnverifiedHeader};
use kmsfs::keystore::{EncryptionContext, Keystore, Unlock};
use kmsfs::volume::{KeyService, Volume};
use serde_json::Value;

use crate::harness::{Mount, Vault, files_below};
use crate::process_memory::Memory;

/// Within this time a disabled key is felt.
const FELT: Duration = Duration::from_secs(1);
const DEFAULT: &str = "alias/kmsfs/default";
/// Planted in contents: nothing else contains it.
const MARK: &[u8; 16] = b"Contents0Marker!";
const PASSPHRASE: &str = "Correct Horse 0 Battery";

/// The passphrase stayed twice: in what the command line had read, and in the buffer of stdin.
#[test]
fn the_passphrase_is_gone_once_the_keystore_is_open() {
    let vault = Vault::new("memory-passphrase");
    vault.mount().unmount();
    run(vault.command().args(["keystore", "slots", "add", "--new-passphrase-fd", "0"]));
    for foreground in [true, false] {
        let mut mount = Command::new(crate::harness::binary());
        mount.arg("--keystore").arg(vault.keystore()).args(["--passphrase-fd", "0", "mount"]);
        mount.args(foreground.then_some("--foreground"));
        let mut command = given(mount.arg(vault.store()).arg(vault.mountpoint()), foreground);
        if !foreground {
            assert!(command.wait().unwrap().success());
        }
        let pid = wait_for_mount(&vault);
        assert_eq!(Memory::of(pid).count(PASSPHRASE.as_bytes()), 0, "foreground: {foreground}");
        let told = fs::read(format!("/proc/{pid}/environ")).unwrap();
        assert!(!crate::harness::contains(&told, PASSPHRASE.as_bytes()));
        vault.kmsfs(["umount", vault.mountpoint().to_str().unwrap()]);
        command.wait().unwrap();
    }
}

/// 4,026 copies of a marker were found three seconds after its key was disabled.
#[test]
fn contents_and_their_keys_are_gone_within_a_second_of_the_disabling_of_their_key() {
    let (vault, mut secrets) = (Vault::new("memory-disable"), Vec::new());
    let mount = vault.mount();
    let held = plant(&vault, &mount, &mut secrets);
    vault.kmsfs(["key", "disable", DEFAULT]);
    thread::sleep(FELT);
    assert_forgotten(&mount, &secrets);
    drop(held);
}

#[test]
fn contents_and_their_keys_are_gone_with_the_last_close_of_their_file() {
    let (vault, mut secrets) = (Vault::new("memory-close"), Vec::new());
    let mount = vault.mount();
    drop(plant(&vault, &mount, &mut secrets));
    // The kernel tells of the close later.
    thread::sleep(Duration::from_millis(200));
    let (keys, contents): (Vec<_>, Vec<_>) =
        secrets.into_iter().partition(|(name, _)| name.contains("key"));
    assert!(!keys.is_empty() && !contents.is_empty());
    assert_forgotten(&mount, &contents);
    // The files idle with their keys, and nobody opens them again.
    thread::sleep(Duration::from_secs(6));
    assert_forgotten(&mount, &keys);
}

/// It had 70 MiB, most of it for records of the audit log that waited.
#[test]
fn twenty_thousand_new_files_take_less_than_forty_mebibytes() {
    let vault = Vault::new("memory-files");
    let mount = vault.mount();
    for number in 0..20_000 {
        if number % 500 == 0 {
            fs::create_dir(mount.path(format!("{}", number / 500))).unwrap();
        }
        let path = mount.path(format!("{}/file {number}", number / 500));
        fs::write(path, &[7; 2000][..100 + number % 1900]).unwrap();
    }
    let status = fs::read_to_string(format!("/proc/{}/status", mount.pid().as_raw_nonzero()));
    let status = status.unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kib < 40 * 1024, "{kib} KiB");
}

/// Writes and reads whole pages, parts of pages, long and short, by several threads; the files stay
/// open. Adds what must not be found later.
fn plant(
    vault: &Vault,
    mount: &Mount<'_>,
    secrets: &mut Vec<(&'static str, Vec<u8>)>,
) -> Vec<File> {
    let text = MARK.repeat(1 << 16);
    let open = |name: &str| {
        File::options().read(true).write(true).create_new(true).open(mount.path(name)).unwrap()
    };
    let held: Vec<File> = (0..4).map(|number| open(&number.to_string())).collect();
    thread::scope(|scope| {
        for file in &held {
            let text = &text;
            scope.spawn(move || {
                file.write_all_at(text, 0).unwrap();
                file.write_all_at(&text[..1000], 5000).unwrap();
                file.write_all_at(MARK, 77_777).unwrap();
                file.sync_all().unwrap();
                rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
                let mut read = vec![0; text.len()];
                file.read_exact_at(&mut read, 0).unwrap();
            });
        }
    });
    let pid = mount.pid().as_raw_nonzero().get();
    secrets.push(("contents", MARK.to_vec()));
    secrets.extend(keys(vault));
    let found = secrets.iter().filter(|(_, bytes)| Memory::of(pid).count(bytes) > 0).count();
    assert!(found > 0, "the search finds nothing that is there");
    held
}

/// The keys of the largest file: the one in its header, and what is derived from it for its pages.
fn keys(vault: &Vault) -> Vec<(&'static str, Vec<u8>)> {
    let keystore =
        Keystore::open(&vault.keystore(), &Unlock::KeyFile(vault.outside("key"))).unwrap();
    let volume = Volume::peek(vault.store()).unwrap().volume;
    let largest = files_below(vault.store())
        .into_iter()
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap();
    let bytes = fs::read(largest).unwrap();
    let slot = UnverifiedHeader::parse(bytes[..512].try_into().unwrap()).unwrap();
    let header: &FileHeader = slot.claims();
    let context = EncryptionContext::new()
        .with("kmsfs:format", "1")
        .with("kmsfs:volume", volume.to_string())
        .with("kmsfs:file", header.file.to_string());
    let recipient = header.recipients.iter().next().unwrap();
    let dek = keystore.unwrap(recipient, &context).unwrap();
    let unit: Secret<32> = derive(&dek, header.file.as_bytes(), Label::FileUnit);
    let start = Block(0).data_page().unit_start();
    let page = xaes::derive_key(&unit, bytes[start..start + 12].try_into().unwrap());
    let named = [("file key", dek), ("key of pages", unit), ("derived key of pages", page)];
    named.into_iter().map(|(name, key)| (name, key.expose().to_vec())).collect()
}

fn assert_forgotten(mount: &Mount<'_>, secrets: &[(&'static str, Vec<u8>)]) {
    let memory = Memory::of(mount.pid().as_raw_nonzero().get());
    for (name, bytes) in secrets {
        assert_eq!(memory.count(bytes), 0, "{name}: {:?}", memory.places(bytes));
    }
}

/// Starts a command that reads the passphrase from stdin.
fn given(command: &mut Command, stays: bool) -> std::process::Child {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(if stays { Stdio::null() } else { Stdio::inherit() })
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(format!("{PASSPHRASE}\n").as_bytes()).unwrap();
    child
}

fn run(command: &mut Command) {
    assert!(given(command, false).wait().unwrap().success());
}

/// The daemon's process id, once the vault is mounted.
fn wait_for_mount(vault: &Vault) -> i32 {
    let start = Instant::now();
    loop {
        let status: Value = serde_json::from_str(&vault.kmsfs([
            "--json",
            "status",
            vault.store().to_str().unwrap(),
        ]))
        .unwrap();
        if let (Some(true), Some(pid)) = (status["mounted"].as_bool(), status["pid"].as_i64()) {
            return pid.try_into().unwrap();
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{status}");
        thread::sleep(Duration::from_millis(20));
    }
}

//! Processors that do not sleep while requests come.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Mount, Vault};

const DEVICE: &str = "/dev/cpu_dma_latency";
/// Long enough for a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn processors_are_kept_awake_while_requests_come_and_no_longer() {
    let vault = Vault::new("awake");
    let mount = vault.mount_with(&["--create", "-o", "keep-awake=on"]);
    if let Err(error) = File::options().write(true).open(DEVICE) {
        // As for an ordinary user without the rule: a mount is slower for it, and works.
        fs::write(mount.path("file"), "x").unwrap();
        let (state, _) = state(&vault, &mount);
        assert_eq!(state, format!("no: {DEVICE}: {error}"));
        return;
    }
    let done = AtomicBool::new(false);
    let file = mount.path("file");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                fs::write(&file, "x").unwrap();
                fs::remove_file(&file).unwrap();
            }
        });
        // The kernel tells the smallest wish of all programs: ours, if it stood before and after.
        let held = eventually(|| {
            let before = state(&vault, &mount);
            let wish = kernels_wish();
            before.0 == "now" && state(&vault, &mount) == before && wish == [0; 4]
        });
        done.store(true, Ordering::Relaxed);
        assert!(held, "{:?}", state(&vault, &mount));
    });
    assert!(
        eventually(|| state(&vault, &mount).0 == "when requests come densely"),
        "{:?}",
        state(&vault, &mount)
    );
    assert!(state(&vault, &mount).1 > 0);
    assert!(has_device_open(&mount));
}

#[test]
fn a_mount_that_is_told_to_leaves_processors_alone() {
    let vault = Vault::new("asleep");
    let mount = vault.mount_with(&["--create", "-o", "keep-awake=off"]);
    for _ in 0..100 {
        fs::write(mount.path("file"), "x").unwrap();
        fs::remove_file(mount.path("file")).unwrap();
    }
    assert_eq!(state(&vault, &mount), ("no: keep-awake=off".to_owned(), 0));
    assert!(!has_device_open(&mount));
}

/// What `status` says, and how often they were kept awake so far.
fn state(vault: &Vault, mount: &Mount<'_>) -> (String, u64) {
    let status = vault.kmsfs(["--json", "status", mount.root().to_str().unwrap()]);
    let status: Value = serde_json::from_str(&status).unwrap();
    let state = status["keeps_processors_awake"].as_str().unwrap().to_owned();
    (state, status["times_kept_awake"].as_u64().unwrap())
}

/// *Units*: microseconds, in the byte order of this machine.
fn kernels_wish() -> [u8; 4] {
    let mut wish = [0xff; 4];
    File::open(DEVICE).unwrap().read_exact(&mut wish).unwrap();
    wish
}

/// True if a daemon's descriptors, as far as they can be looked at, have the device among them.
fn has_device_open(mount: &Mount<'_>) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{}/fd", mount.pid().as_raw_nonzero()));
    let leads =
        descriptors.into_iter().flatten().flatten().map(|entry| fs::read_link(entry.path()));
    leads.flatten().any(|path| path == Path::new(DEVICE))
}

fn eventually(holds: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if holds() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

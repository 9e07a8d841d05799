//! The checks of `kmsfs doctor` that are about the machine: files, swap, core dumps, clock.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use rustix::process::{DumpableBehavior, Resource};

use super::findings::{Findings, Severity};
use crate::cli::daemon::{calls, confine};
use crate::keystore::{Keystore, UnixTime};

/// Makes all of them.
pub(in crate::cli) fn check(keystore: &Keystore, key_file: Option<&Path>, findings: &mut Findings) {
    files(keystore, key_file, findings);
    swap(findings);
    confinement(findings);
    core_dumps(findings);
    clock(keystore, findings);
}

fn files(keystore: &Keystore, key_file: Option<&Path>, findings: &mut Findings) {
    let own = rustix::process::geteuid().as_raw();
    for path in [Some(keystore.path()), Some(keystore.audit_path()), key_file].into_iter().flatten()
    {
        let Ok(there) = fs::metadata(path) else { continue };
        let place = path.display();
        if there.mode() & 0o077 != 0 {
            let mode = there.mode() & 0o7777;
            let what = format!("{place} is open to other users (mode {mode:04o})");
            findings.add(Severity::Error, "files", what, format!("chmod 600 {place}"));
        }
        if there.uid() != own && there.uid() != 0 {
            let what = format!("{place} belongs to another user ({})", there.uid());
            findings.add(Severity::Error, "files", what, "take it back with chown");
        }
    }
    let Some(dir) = keystore.path().parent() else { return };
    if fs::metadata(dir).is_ok_and(|dir| dir.mode() & 0o022 != 0 && dir.mode() & 0o1000 == 0) {
        let place = dir.display();
        let what = format!("others can exchange the files in {place}");
        findings.add(Severity::Error, "files", what, format!("chmod go-w {place}"));
    }
}

fn swap(findings: &mut Findings) {
    let Ok(swaps) = fs::read_to_string("/proc/swaps") else { return };
    for area in swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next()) {
        if is_encrypted_swap(Path::new(area)) {
            continue;
        }
        findings.add(
            Severity::Warning,
            "swap",
            format!("memory may be written in the clear to the swap area {area}"),
            "encrypt it (crypttab(5), option swap), use zram, or let the daemons lock their memory \
             (CAP_IPC_LOCK)",
        );
    }
}

/// True for memory, and for block devices of dm-crypt.
fn is_encrypted_swap(area: &Path) -> bool {
    let real = area.canonicalize().unwrap_or_else(|_| area.to_owned());
    let Some(name) = real.file_name().and_then(|name| name.to_str()) else { return false };
    let uuid = fs::read_to_string(format!("/sys/block/{name}/dm/uuid")).unwrap_or_default();
    name.starts_with("zram") || uuid.starts_with("CRYPT-")
}

fn confinement(findings: &mut Findings) {
    if !confine::is_possible() {
        findings.add(
            Severity::Note,
            "confinement",
            "this kernel cannot keep the daemons of mounts to their files",
            "Linux 5.19 with Landlock can: 'landlock' in the kernel's parameter lsm=",
        );
    }
    if !calls::is_possible() {
        findings.add(
            Severity::Note,
            "confinement",
            "this kernel cannot refuse system calls to the daemons of mounts",
            "it was built without CONFIG_SECCOMP_FILTER",
        );
    }
}

fn core_dumps(findings: &mut Findings) {
    let limit = rustix::process::getrlimit(Resource::Core);
    let dumpable = rustix::process::dumpable_behavior();
    let off =
        limit.current == Some(0) && dumpable.is_ok_and(|is| is == DumpableBehavior::NotDumpable);
    if !off {
        findings.add(
            Severity::Error,
            "core-dumps",
            "this system lets kmsfs write its memory, with keys, into a core dump",
            "ulimit -c 0, and LimitCORE=0 in the unit",
        );
    }
}

fn clock(keystore: &Keystore, findings: &mut Findings) {
    let now = UnixTime::from(SystemTime::now());
    if let Ok(seen) = keystore.latest_time()
        && seen.seconds() - now.seconds() > MINUTE
    {
        findings.add(
            Severity::Error,
            "clock",
            format!(
                "it is {now} here, and the keystore was used on {seen}: the clock was set back"
            ),
            "set the clock; if it was wrong before, 'kmsfs key delete-expired --confirm-clock'",
        );
    }
    let synchronised = SYNCHRONISED.iter().any(|mark| Path::new(mark).exists());
    if !synchronised {
        findings.add(
            Severity::Note,
            "clock",
            "no time service says that the clock is synchronised",
            "rotation, deletion and the audit log go by it: run systemd-timesyncd or chrony",
        );
    }
}

/// What time services leave behind once they agree with the world.
const SYNCHRONISED: [&str; 3] =
    ["/run/systemd/timesync/synchronized", "/var/lib/chrony/drift", "/var/lib/ntpsec/ntp.drift"];
const MINUTE: i64 = 60;

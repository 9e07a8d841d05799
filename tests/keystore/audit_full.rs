//! The audit log on a disk that is full: a small filesystem in memory, which takes root.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use kmsfs::id::{FileId, KeyId};
use kmsfs::keystore::audit::{AuditMode, FileOpen};
use kmsfs::keystore::{
    Action, Caller, CreateKey, EncryptionContext, KeyState, Keystore, KeystoreError, Unlock,
    create_key_file,
};

use crate::audit::{all, of, records};
use crate::fixture::{TempDir, by_id, day};

/// A filesystem of its own, with a keystore in it.
pub(crate) struct SmallDisk(pub(crate) TempDir);

impl SmallDisk {
    pub(crate) fn new(size: &str) -> Self {
        let dir = TempDir::new();
        let options = format!("size={size},mode=0700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "kmsfs-test"])
            .arg(dir.path())
            .status();
        assert!(mounted.unwrap().success(), "this test mounts a tmpfs: run it as root");
        create_key_file(&dir.join("key")).unwrap();
        Keystore::create(&dir.join("store.db"), &Unlock::KeyFile(dir.join("key")), day(0)).unwrap();
        Self(dir)
    }

    pub(crate) fn open(&self) -> Keystore {
        let unlock = Unlock::KeyFile(self.0.join("key"));
        Keystore::open(&self.0.join("store.db"), &unlock).unwrap()
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Leaves no page free.
    pub(crate) fn fill(&self) {
        let mut filler = OpenOptions::new().create(true).append(true).open(self.filler()).unwrap();
        for size in [1 << 20, 4096, 1] {
            let chunk = vec![0; size];
            let full = std::iter::repeat_with(|| filler.write_all(&chunk)).find_map(Result::err);
            assert_eq!(full.unwrap().kind(), ErrorKind::StorageFull);
        }
    }

    /// Leaves so much free. Units: KiB.
    pub(crate) fn fill_but(&self, free: u64) {
        self.fill();
        let filler = OpenOptions::new().write(true).open(self.filler()).unwrap();
        filler.set_len(filler.metadata().unwrap().len().saturating_sub(free << 10)).unwrap();
    }

    pub(crate) fn make_room(&self) {
        fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a test that failed may have files open in it.
        Command::new("umount").arg("-l").arg(self.0.path()).status().ok();
    }
}

/// Its WAL has an index that processes share, for which a full disk has no room.
#[test]
fn regression_a_keystore_on_a_full_disk_can_be_read() {
    let disk = SmallDisk::new("4m");
    let key = disk.open().create_key(CreateKey::default(), day(1)).unwrap().key_id;
    disk.fill();
    let keystore = disk.open();
    assert_eq!(keystore.describe_key(&by_id(key)).unwrap().key_state, KeyState::Enabled);
    let refused = keystore.disable_key(&by_id(key)).unwrap_err();
    assert!(matches!(refused, KeystoreError::NoRoom { .. }), "{refused:?}");
    let unlock = Unlock::KeyFile(disk.0.join("key"));
    let second = Keystore::open(&disk.0.join("store.db"), &unlock).map(drop).unwrap_err();
    assert!(matches!(second, KeystoreError::Locked(_)), "one process at a time: {second:?}");
    drop(keystore);
    disk.make_room();
    let (one, other) = (disk.open(), disk.open());
    one.disable_key(&by_id(key)).unwrap();
    assert_eq!(other.describe_key(&by_id(key)).unwrap().key_state, KeyState::Disabled);
}

fn open_of(key: KeyId, file: u64) -> FileOpen {
    let file = Some(FileId::from_bytes(u128::from(file).to_be_bytes()));
    FileOpen { action: Action::Decrypt, key, material: None, file }
}

fn is_whole(keystore: &Keystore) {
    let report = keystore.verify_audit().unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert!(keystore.verify().unwrap().is_clean());
}

fn lost(keystore: &Keystore) -> u64 {
    let gaps = records(keystore, &of("kmsfs:AuditGap"));
    assert!(gaps.iter().all(|gap| gap.event.result == "RecordsLost"), "{gaps:?}");
    gaps.iter().map(|gap| gap.event.count).sum()
}

fn log_bytes(dir: &Path) -> u64 {
    let sizes = ["store.db.audit", "store.db.audit-wal"].map(|name| fs::metadata(dir.join(name)));
    sizes.into_iter().flatten().map(|file| file.len()).sum()
}

#[test]
fn a_required_log_on_a_full_disk_refuses_everything_and_changes_nothing() {
    let disk = SmallDisk::new("8m");
    let keystore = disk.open();
    let context = EncryptionContext::new();
    let key = keystore.create_key(Default::default(), day(0)).unwrap().key_id;
    keystore.set_audit_mode(AuditMode::Required).unwrap();
    let blob = keystore.encrypt(&by_id(key), b"x", &context).unwrap();
    let operations: [&dyn Fn() -> Result<(), KeystoreError>; 5] = [
        &|| keystore.decrypt(&blob, &context, None).map(drop),
        &|| keystore.encrypt(&by_id(key), b"x", &context).map(drop),
        &|| keystore.disable_key(&by_id(key)).map(drop),
        &|| keystore.set_audit_mode(AuditMode::BestEffort),
        &|| keystore.record_open(&open_of(key, 1)),
    ];
    for operation in operations {
        // Each time: after a failure the log is closed, and SQLite makes room by removing its WAL.
        disk.fill();
        let error = operation().unwrap_err();
        assert!(matches!(error, KeystoreError::AuditUnwritable(_)), "{error}");
        assert_eq!(error.aws_name(), "KMSInternalException");
        let said = error.to_string();
        assert!(said.starts_with("the audit log cannot be written: "), "{said}");
        assert!(said.contains("make room"), "{said}");
    }
    disk.make_room();
    assert_eq!(keystore.audit_mode(), AuditMode::Required);
    assert_eq!(keystore.describe_key(&by_id(key)).unwrap().key_state, KeyState::Enabled);
    keystore.decrypt(&blob, &context, None).unwrap();
    assert_eq!(lost(&keystore), 5);
    assert_eq!(records(&keystore, &of("DisableKey")).len(), 0);
    is_whole(&keystore);
    drop(keystore);
    let again = disk.open();
    assert_eq!(again.audit_mode(), AuditMode::Required);
    again.decrypt(&blob, &context, None).unwrap();
    is_whole(&again);
}

/// More happens than fits into memory: what does not is counted, and the rest is written late. What
/// was just being written did not count towards what may wait.
#[test]
fn on_a_full_disk_operations_go_on_and_what_was_lost_is_written_down() {
    const MANY: u64 = 70_000;
    let disk = SmallDisk::new("160m");
    let keystore = disk.open();
    let context = EncryptionContext::new();
    let key = keystore.create_key(Default::default(), day(0)).unwrap().key_id;
    keystore.flush_audit().unwrap();
    let before = all(&keystore).len() as u64;
    disk.fill();
    let size = log_bytes(disk.0.path());
    let blob = keystore.encrypt(&by_id(key), b"x", &context).unwrap();
    let plaintext = keystore.decrypt(&blob, &context, None).unwrap();
    assert_eq!(plaintext.plaintext.expose(), b"x");
    let error = keystore.flush_audit().unwrap_err().to_string();
    assert!(error.contains("full") && error.contains("make room"), "{error}");
    let user = keystore.acting_for(Caller::on_mount(1000, vec![]));
    for file in 0..MANY {
        user.record_refused_open(&open_of(key, file), &KeystoreError::Disabled(key)).unwrap();
    }
    keystore.flush_audit().unwrap_err();
    assert!(log_bytes(disk.0.path()) < size + 65_536, "nothing got through");
    disk.make_room();
    keystore.flush_audit().unwrap();
    let written = all(&keystore).len() as u64 - before;
    let gone = lost(&keystore);
    assert!(gone >= MANY - 65_536, "{gone}");
    // Encrypt, Decrypt, the refused opens, and the record that tells of those that are lost.
    assert_eq!(written + gone, MANY + 3);
    assert_eq!(records(&keystore, &of("Encrypt")).len(), 1);
    is_whole(&keystore);
    assert_eq!(keystore.verify_audit().unwrap().lost, gone);
}

/// What waited in memory is gone with the process; the files are not the worse for it.
#[test]
fn a_process_that_ends_on_a_full_disk_leaves_a_whole_log() {
    let disk = SmallDisk::new("8m");
    let keystore = disk.open();
    let key = keystore.create_key(Default::default(), day(0)).unwrap().key_id;
    keystore.flush_audit().unwrap();
    disk.fill();
    keystore.describe_key(&by_id(key)).unwrap();
    // Its rows may fit into the WAL, whose pages are used again once they are in the file.
    let state = match keystore.disable_key(&by_id(key)) {
        Ok(_) => KeyState::Disabled,
        Err(_) => KeyState::Enabled,
    };
    drop(keystore);
    disk.make_room();
    let again = disk.open();
    assert_eq!(again.describe_key(&by_id(key)).unwrap().key_state, state);
    again.flush_audit().unwrap();
    // The first is there only if what the process gave up at its end made room enough.
    assert!((1..=2).contains(&records(&again, &of("DescribeKey")).len()));
    is_whole(&again);
}

/// The thread was not told of the opens that came to the queue all at once: they waited for up to a minute,
/// and when 65,536 did, the log lost the rest though its disk was well.
#[test]
fn regression_many_opens_are_written_before_their_minute_is_over() {
    const MANY: u64 = 80_000;
    let f = crate::fixture::Fixture::new();
    let key = f.key();
    let user = f.keystore.acting_for(Caller::on_mount(1000, vec![]));
    let began = std::time::Instant::now();
    let written = || {
        let text = f.keystore.metrics_text(day(0)).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix("kmsfs_audit_records_total "));
        value.unwrap().parse::<u64>().unwrap()
    };
    for file in 0..MANY {
        user.record_open(&open_of(key, file)).unwrap();
        // Faster than anybody opens files: the log may take a moment.
        while file > 20_000 && written() + 30_000 < file {
            assert!(began.elapsed().as_secs() < 55, "{} of {file}", written());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
    assert_eq!(lost(&f.keystore), 0);
    let opened = records(&f.keystore, &of("Decrypt"));
    assert_eq!(opened.len() as u64, MANY);
    is_whole(&f.keystore);
}

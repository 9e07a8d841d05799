//! Vaults whose data keys a foreign KMS makes: one with ciphertexts of its own form, as AWS.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod foreign;
mod vault;

use std::fs;
use std::time::{Duration, Instant};

use foreign::ForeignKms;
use kmsfs::volume::{Options, Origin, ROOT, References, RewrapJob, VolumeError};
use vault::{Remote, no_news};

#[test]
fn a_vault_lives_on_ciphertexts_that_only_the_service_can_read() {
    let kms = ForeignKms::start();
    let key = kms.create_key("11111111-2222-4333-8444-555555555555");
    let remote = Remote::new(&kms, key);
    remote.write("file", "contents");
    assert_eq!(remote.read("file").unwrap(), "contents");
    let remote = remote.reopen();
    assert_eq!(remote.read("file").unwrap(), "contents");
    let (_, found) = References::scan(&remote.path()).unwrap();
    assert_eq!((found.of_key(key).files, found.unreadable), (1, 0));
    assert!(kms.count("Decrypt") >= 3, "volume, directory and file");
}

/// No keystore of this machine knows the volume, so a file does; and nothing in the vault can make
/// it forget.
#[test]
fn a_vault_whose_keys_are_elsewhere_is_remembered_by_a_file() {
    let kms = ForeignKms::start();
    let key = kms.create_key("11111111-2222-4333-8444-555555555555");
    let mut remote = Remote::new(&kms, key);
    let old = remote.path().join(".kmsfs/state");
    let open = fs::read(&old).unwrap();
    remote.write("file", "contents");
    remote.end();
    let anchored = Options { anchors: Some(remote.anchors()), ..Options::default() };
    fs::write(&old, open).unwrap();
    let volume = remote.open_vault(anchored).unwrap();
    assert_eq!(volume.rollbacks(), 1, "an open record was put back after a clean end");
    assert!(volume.unrecovered()[0].withheld);
    volume.end().unwrap();
    drop(volume);
    let nowhere = remote.open_vault(Options::default());
    assert!(matches!(nowhere, Err(VolumeError::Unanchored(_))), "{nowhere:?}");
    let anyway = remote.open_vault(Options { unanchored: true, ..Options::default() });
    anyway.unwrap().end().unwrap();
    let reading = remote.open_vault(Options { read_only: true, ..Options::default() });
    drop(reading.unwrap());
}

#[test]
fn a_file_with_an_opaque_wrap_does_not_follow_into_another_keys_directory() {
    let kms = ForeignKms::start();
    let key = kms.create_key("11111111-2222-4333-8444-555555555555");
    let other = kms.create_key("66666666-7777-4888-9999-aaaaaaaaaaaa");
    let remote = Remote::new(&kms, key);
    remote.write("file", "contents");
    remote.mkdir_under("dir", other);
    assert!(matches!(remote.rename("file", "dir"), Err(VolumeError::CrossPolicy)));
    assert_eq!(remote.read("file").unwrap(), "contents");
    remote.write("empty", "");
    remote.rename("empty", "dir").unwrap();
}

#[test]
fn a_rewrap_moves_opaque_wraps_to_another_key() {
    let kms = ForeignKms::start();
    let key = kms.create_key("11111111-2222-4333-8444-555555555555");
    let other = kms.create_key("66666666-7777-4888-9999-aaaaaaaaaaaa");
    let remote = Remote::new(&kms, key);
    remote.write("file", "contents");
    let job = RewrapJob { from: Some(key), to: Some(other), ..RewrapJob::default() };
    let report = remote.volume().rewrap(job, &mut no_news, &mut |_| {});
    let report = report.unwrap();
    assert!(report.complete && report.failed.is_empty(), "{report:?}");
    let (_, found) = References::scan(&remote.path()).unwrap();
    assert_eq!((found.of_key(key).files, found.of_key(other).files), (0, 1));
    kms.set_state(key, "Disabled");
    assert_eq!(remote.reopen().read("file").unwrap(), "contents");
}

#[test]
fn new_material_at_the_service_is_noticed_by_a_rewrap() {
    let kms = ForeignKms::start();
    let key = kms.create_key("11111111-2222-4333-8444-555555555555");
    let remote = Remote::new(&kms, key);
    remote.write("file", "contents");
    let rewrap = || {
        remote.volume().keyring().service().refresh().unwrap();
        let job = RewrapJob::default();
        remote.volume().rewrap(job, &mut no_news, &mut |_| {}).unwrap().rewrapped
    };
    assert_eq!(rewrap(), 0);
    kms.rotate(key);
    assert_eq!((rewrap(), rewrap()), (1, 0));
}

#[test]
fn a_multi_region_key_is_found_under_its_own_spelling() {
    let kms = ForeignKms::start();
    let key = kms.create_key("mrk-1234abcd12ab34cd56ef1234567890ab");
    let remote = Remote::new(&kms, key);
    remote.write("file", "contents");
    assert_eq!(remote.reopen().read("file").unwrap(), "contents");
}

#[test]
fn a_key_that_is_disabled_at_the_service_is_felt_on_open_files() {
    let kms = ForeignKms::start();
    let key = kms.create_key("11111111-2222-4333-8444-555555555555");
    let remote = Remote::new(&kms, key);
    remote.write("file", "contents");
    let handle = remote.open("file").unwrap();
    kms.set_state(key, "Disabled");
    let disabled = Instant::now();
    let refused = remote.eventually(|| handle.file.read(0, &mut [0; 8]).err());
    assert!(matches!(refused, VolumeError::KeyUnusable(lost) if lost == key), "{refused}");
    assert!(disabled.elapsed() < Duration::from_secs(4));
    assert!(matches!(remote.open("file"), Err(VolumeError::KeyUnusable(_))));
    kms.set_state(key, "Enabled");
    remote.eventually(|| handle.file.read(0, &mut [0; 8]).ok());
}

#[test]
fn open_files_outlive_a_restart_of_the_service() {
    let mut kms = ForeignKms::start();
    let key = kms.create_key("11111111-2222-4333-8444-555555555555");
    let remote = Remote::new(&kms, key);
    remote.write("file", "contents");
    remote.write("other", "contents");
    let handle = remote.open("file").unwrap();
    kms.stop();
    assert!(matches!(remote.open("other"), Err(VolumeError::KmsUnreachable(_))));
    let quick = Instant::now();
    assert!(matches!(remote.open("other"), Err(VolumeError::KmsUnreachable(_))));
    assert!(quick.elapsed() < Duration::from_millis(500), "nobody waits again and again");
    remote.volume().watch_keys();
    assert_eq!(handle.file.read(0, &mut [0; 8]).unwrap(), 8);
    kms.restart();
    remote.eventually(|| remote.read("other").ok());
    assert_eq!(handle.file.read(0, &mut [0; 8]).unwrap(), 8);
}

/// Once, the file was made, its first write was refused, and it stayed, empty.
#[test]
fn regression_a_silent_service_refuses_the_opening_of_a_new_file_and_not_its_first_write() {
    let mut kms = ForeignKms::start();
    let key = kms.create_key("11111111-2222-4333-8444-555555555555");
    let remote = Remote::new(&kms, key);
    remote.write("empty", "");
    remote.write("file", "contents");
    let ready = remote.create("ready").unwrap();
    let kept = remote.open("file").unwrap();
    kms.stop();
    assert_eq!(ready.write(0, b"first", Origin::Caller).unwrap(), 5, "it was open before");
    assert!(matches!(remote.create("new"), Err(VolumeError::KmsUnreachable(_))));
    assert!(remote.volume().lookup(ROOT, b"new").unwrap().is_none(), "nothing is left of it");
    assert!(matches!(remote.open_for_writing("empty"), Err(VolumeError::KmsUnreachable(_))));
    let cut = remote.cut("file");
    assert!(matches!(cut, Err(VolumeError::KmsUnreachable(_))), "{cut:?}");
    assert_eq!(kept.file.read(0, &mut [0; 8]).unwrap(), 8, "its contents are not given up");
    kms.restart();
    remote.eventually(|| remote.cut("file").ok());
    assert_eq!(remote.read("file").unwrap(), "");
}

#[test]
fn after_the_grace_a_silent_service_counts_as_a_revocation() {
    let mut kms = ForeignKms::start();
    let key = kms.create_key("11111111-2222-4333-8444-555555555555");
    let remote = Remote::with_grace(&kms, key, Duration::from_secs(1));
    remote.write("file", "contents");
    let handle = remote.open("file").unwrap();
    kms.stop();
    let refused = remote.eventually(|| handle.file.read(0, &mut [0; 8]).err());
    assert!(matches!(refused, VolumeError::KeyUnusable(_)), "{refused}");
    kms.restart();
    remote.eventually(|| handle.file.read(0, &mut [0; 8]).ok());
}

/// An endpoint that answers every question about a key with an error was no silent one, and its
/// keys stayed usable for ever.
#[test]
fn regression_the_grace_also_ends_when_all_answers_are_errors() {
    let kms = ForeignKms::start();
    let key = kms.create_key("11111111-2222-4333-8444-555555555555");
    for exception in ["ThrottlingException", "KMSInternalException"] {
        let remote = Remote::with_grace(&kms, key, Duration::from_secs(1));
        remote.write("file", "contents");
        let handle = remote.open("file").unwrap();
        kms.fail_describe(Some(exception));
        remote.volume().keyring().service().refresh().unwrap();
        let refused = remote.eventually(|| handle.file.read(0, &mut [0; 8]).err());
        assert!(matches!(refused, VolumeError::KeyUnusable(_)), "{exception}: {refused}");
        kms.fail_describe(None);
        remote.eventually(|| handle.file.read(0, &mut [0; 8]).ok());
    }
}

/// A service whose connections were all taken answers with status 503: that says nothing of a key.
#[test]
fn a_service_that_is_overwhelmed_is_not_taken_for_one_that_revokes() {
    let kms = ForeignKms::start();
    let key = kms.create_key("11111111-2222-4333-8444-555555555555");
    let remote = Remote::new(&kms, key);
    remote.write("file", "contents");
    remote.write("other", "contents");
    let handle = remote.open("file").unwrap();
    kms.overwhelm(true);
    let asked = kms.count("DescribeKey");
    remote.eventually(|| {
        assert_eq!(handle.file.read(0, &mut [0; 8]).unwrap(), 8);
        (kms.count("DescribeKey") >= asked + 5).then_some(())
    });
    assert!(matches!(remote.open("other"), Err(VolumeError::KmsUnreachable(_))));
    kms.overwhelm(false);
    remote.eventually(|| remote.read("other").ok());
    assert_eq!(handle.file.read(0, &mut [0; 8]).unwrap(), 8);
}

#[test]
fn a_service_that_denies_or_lies_is_refused() {
    let kms = ForeignKms::start();
    let key = kms.create_key("11111111-2222-4333-8444-555555555555");
    let other = kms.create_key("66666666-7777-4888-9999-aaaaaaaaaaaa");
    let remote = Remote::new(&kms, key);
    remote.write("file", "contents");
    kms.answer_next_decrypt_as(foreign::Lie::AboutKey(other));
    assert!(matches!(remote.open("file"), Err(VolumeError::Kms(_))));
    kms.answer_next_decrypt_as(foreign::Lie::Denied);
    let denied = remote.open("file").map(drop).unwrap_err();
    assert!(matches!(&denied, VolumeError::KmsDenied(words) if words.contains("not authorized")));
    // One for each header slot: the other one is tried when the newer does not open.
    kms.answer_next_decrypt_as(foreign::Lie::ShortPlaintext);
    kms.answer_next_decrypt_as(foreign::Lie::ShortPlaintext);
    assert!(matches!(remote.open("file"), Err(VolumeError::Tampered(_))));
    assert_eq!(remote.read("file").unwrap(), "contents");
}

//! What users of a mount do with keys is in the audit log, however short they do it.

use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;

use kmsfs::keystore::audit::{AuditFilter, AuditMode, Event};
use kmsfs::volume::attr::AttrChange;
use kmsfs::volume::content::Reserve;
use kmsfs::volume::{Allocate, FileHandle, OpenFor, Origin, ROOT, SetMode};

use crate::fixture::{Fixture, caller, new_node};
use crate::sessions::ciphertext;

/// The events of this operation that are about files.
fn events(fixture: &Fixture, operation: &str) -> Vec<Event> {
    fixture.keystore.flush_audit().unwrap();
    let filter = AuditFilter { operation: Some(operation.into()), ..AuditFilter::default() };
    let mut found = Vec::new();
    let seen = fixture.keystore.audit_records(&filter, |record| {
        found.extend(Some(record.event).filter(|event| event.file.is_some()));
        ControlFlow::Continue(())
    });
    seen.unwrap();
    found
}

fn made(fixture: &Fixture) -> Vec<Event> {
    events(fixture, "GenerateDataKey")
}

fn create(fixture: &Fixture, name: &str) -> FileHandle {
    let made =
        fixture.volume().create_file(ROOT, name.as_bytes(), &new_node(0o644), OpenFor::Writing);
    made.unwrap().1
}

/// The attack: a file that was made, written and closed in one go left no record.
#[test]
fn a_file_that_is_made_and_closed_at_once_is_written_down() {
    let fixture = Fixture::new();
    for number in 0..100 {
        let handle = create(&fixture, &number.to_string());
        handle.write(0, b"contents", Origin::Caller).unwrap();
        fixture.volume().close(handle);
    }
    let found = made(&fixture);
    let files: BTreeSet<_> = found.iter().map(|event| event.file.clone()).collect();
    assert_eq!((found.len(), files.len()), (100, 100));
    let user = format!("arn:aws:iam::000000000000:user/unix/{}", caller().uid);
    for event in found {
        assert_eq!((event.count, event.result.as_ref()), (1, "Success"));
        assert_eq!((event.principal.as_ref(), event.source.as_ref()), (user.as_str(), "mount"));
        assert!(event.key.is_some() && event.material.is_some());
    }
}

/// Each of these makes the key of a file.
#[test]
fn whatever_makes_the_key_of_a_file_is_written_down() {
    let fixture = Fixture::new();
    let volume = fixture.volume();
    let sized = |ino, size| {
        let change = AttrChange { size: Some(size), ..Default::default() };
        volume.set_attr(ino, &change, caller()).unwrap();
    };
    let mut before = 0;
    let mut one_more = |what: &str| {
        let now = made(&fixture).len();
        assert_eq!(now, before + 1, "{what}");
        before = now;
    };
    let grown = create(&fixture, "grown by its name");
    sized(grown.ino, 10);
    one_more("truncate");
    let reserved = create(&fixture, "reserved");
    let how = Allocate::Reserve(Reserve::Grow);
    volume.allocate(&reserved, how, 0, 10).unwrap();
    one_more("fallocate");
    let noted = create(&fixture, "with an attribute");
    volume.set_xattr(noted.ino, b"user.a", b"1", SetMode::Any, caller()).unwrap();
    one_more("setxattr");
    let copied = create(&fixture, "copied");
    let source = volume.open_as(grown.ino, OpenFor::Reading, caller()).unwrap().handle;
    volume.copy_range((&source, 0), (&copied, 0), 10).unwrap();
    one_more("copy_file_range");
    copied.write(0, b"more", Origin::Caller).unwrap();
    assert_eq!(made(&fixture).len(), 4, "an open is written down once");
    sized(copied.ino, 0);
    copied.write(0, b"anew", Origin::Caller).unwrap();
    one_more("written anew under a new key");
    for handle in [grown, reserved, noted, copied, source] {
        volume.close(handle);
    }
}

/// Whoever writes to the vault put another file's id, or another wrap, into a header. The file was
/// opened to be cut to nothing, and the log said that the other one was read.
#[test]
fn regression_a_damaged_file_is_not_written_down_as_the_one_that_it_claims_to_be() {
    // FORMAT section 3.1: the file id, the wrapped key, and the sealed size, which no wrap vouches for.
    for damaged in [24, 132, 72] {
        let mut fixture = Fixture::new();
        fixture.file(ROOT, "file", &"contents".repeat(50_000)).unwrap();
        fixture.volume().end().unwrap();
        fixture.close();
        let path = ciphertext(&fixture);
        let mut bytes = fs::read(&path).unwrap();
        for slot in [0, 512] {
            let slot = &mut bytes[slot..slot + 512];
            slot[damaged] ^= 1;
            let crc = crc32fast::hash(&slot[..508]);
            slot[508..].copy_from_slice(&crc.to_le_bytes());
        }
        fs::write(&path, bytes).unwrap();
        fixture.reopen();
        let before = events(&fixture, "Decrypt").len();
        let ino = fixture.find("file").unwrap();
        let handle = fixture.volume().open_as(ino, OpenFor::Both, caller()).unwrap().handle;
        assert!(handle.file.read(0, &mut [0; 8]).is_err(), "at {damaged}");
        fixture.volume().close(handle);
        let found = events(&fixture, "Decrypt");
        assert_eq!(found.len(), before, "at {damaged}: {:?}", found.last());
    }
}

#[test]
fn a_file_gets_no_key_that_a_required_log_cannot_tell_of() {
    let fixture = Fixture::new();
    fixture.keystore.set_audit_mode(AuditMode::Required).unwrap();
    let (before, refused) = (create(&fixture, "before"), create(&fixture, "refused"));
    before.write(0, b"contents", Origin::Caller).unwrap();
    // Something else stands in its place: it can be neither opened nor made.
    let log = fixture.keystore.audit_path().to_owned();
    let aside = log.with_extension("aside");
    fs::rename(&log, &aside).unwrap();
    fs::create_dir(&log).unwrap();
    let error = refused.write(0, b"contents", Origin::Caller).unwrap_err();
    assert!(error.to_string().contains("audit log cannot be written"), "{error}");
    assert_eq!((refused.file.size(), refused.file.key()), (0, None));
    fs::remove_dir(&log).unwrap();
    fs::rename(&aside, &log).unwrap();
    refused.write(0, b"contents", Origin::Caller).unwrap();
    assert_eq!(made(&fixture).len(), 2);
    fixture.volume().close(before);
    fixture.volume().close(refused);
}

//! Recovery: what a crash excuses ends with it, file by file, and nothing honest is refused.
//!
//! Dropping a volume without ending it is what a killed daemon leaves.

use std::fs::{self, OpenOptions};
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use rustix::process::{Uid, geteuid};
use rustix::thread::set_thread_res_uid;

use kmsfs::id::KeyId;
use kmsfs::volume::content::Access;
use kmsfs::volume::{Options, Origin};

use crate::fixture::{Fixture, REPLACE, ROOT};
use crate::sessions::{
    PAGE, check, ciphertext, is_tampered, page, pattern, put_page, read, recover, sealed, state,
    write,
};

/// As many small files as make a session announce every file.
const MANY: usize = 130;

/// Files of a few pages, sealed by a session that ended cleanly.
fn many(fixture: &Fixture) {
    for number in 0..MANY {
        fixture.file(ROOT, &format!("small {number}"), "").unwrap();
        write(fixture, &format!("small {number}"), 0, &pattern(9000, number)).unwrap();
    }
}

/// Changes all of [`many`], so that this session has announced every file.
fn change_many(fixture: &Fixture) {
    for number in 0..MANY {
        write(fixture, &format!("small {number}"), 0, b"changed").unwrap();
    }
}

/// Block by block, a sparse file that anybody could make kept a crash alive for weeks.
#[test]
fn regression_recovery_passes_over_holes_of_any_size() {
    const FAR: u64 = 4 << 40;
    let mut fixture = Fixture::new();
    fixture.file(ROOT, "large", "").unwrap();
    let ino = fixture.find("large").unwrap();
    let handle = fixture.volume().open_handle(ino, Access::ReadWrite).unwrap().handle;
    handle.file.truncate(2 * FAR).unwrap();
    handle.file.write(FAR, &pattern(PAGE, 1), Origin::Caller).unwrap();
    fixture.volume().close(handle);
    fixture.reopen();
    let mut steps = 0;
    let report = fixture.volume().recover(&mut |_| {
        steps += 1;
        if steps < 100 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    assert!(report.as_ref().is_ok_and(|report| report.complete), "{report:?} after {steps} steps");
    assert!(fixture.volume().unrecovered().is_empty());
    let ino = fixture.find("large").unwrap();
    let handle = fixture.volume().open_handle(ino, Access::ReadOnly).unwrap().handle;
    assert_eq!(handle.file.size(), 2 * FAR);
    let mut page = [0; PAGE];
    handle.file.read(FAR, &mut page).unwrap();
    assert_eq!(page[..], pattern(PAGE, 1)[..]);
    fixture.volume().close(handle);
}

#[test]
fn what_is_changed_below_the_place_of_an_interrupted_recovery_is_excused_again() {
    const AT: u64 = 40 * PAGE as u64;
    let mut fixture = Fixture::new();
    many(&fixture);
    fixture.file(ROOT, "large", "").unwrap();
    let ino = fixture.find("large").unwrap();
    let handle = fixture.volume().open_handle(ino, Access::ReadWrite).unwrap().handle;
    handle.file.truncate(300 << 20).unwrap();
    handle.file.write(0, &pattern(60 * PAGE, 1), Origin::Caller).unwrap();
    // Where nothing is, there is nothing to look at.
    for at in (1..600).map(|number| number * (1 << 19)) {
        handle.file.write(at, b"x", Origin::Caller).unwrap();
    }
    fixture.volume().close(handle);
    fixture.volume().end().unwrap();
    fixture.reopen();
    write(&fixture, "large", 0, &pattern(PAGE, 2)).unwrap();
    // Killed. Its recovery has come so far that the place was noted, and is stopped.
    fixture.reopen();
    let before = fs::read(state(&fixture)).unwrap();
    let noted = fixture.volume().recover(&mut |_| {
        if fs::read(state(&fixture)).unwrap() == before {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    });
    assert!(!noted.unwrap().complete, "the place was not noted");
    // Every file is announced, the large one is changed, and the daemon is killed between two pages.
    change_many(&fixture);
    let file = ciphertext(&fixture);
    let number = AT / PAGE as u64 + 4;
    let old = page(&file, number);
    write(&fixture, "large", AT, &pattern(PAGE, 3)).unwrap();
    assert!(page(&file, number) != old);
    put_page(&file, number, &old);
    fixture.reopen();
    let ino = fixture.find("large").unwrap();
    let handle = fixture.volume().open_handle(ino, Access::ReadOnly).unwrap().handle;
    handle.file.read(AT, &mut [0; PAGE]).unwrap();
    fixture.volume().close(handle);
}

/// What is left of the last block if the daemon is killed between the two page writes of a change.
fn half_changed(fixture: &Fixture, name: &str, offset: u64, salt: usize) {
    let file = ciphertext(fixture);
    let number = offset / PAGE as u64 + 2;
    let old = page(&file, number);
    write(fixture, name, offset, &pattern(PAGE, salt)).unwrap();
    assert!(page(&file, number) != old);
    put_page(&file, number, &old);
}

/// A vault that its keystore does not know, whose record is gone or from before the file was sealed.
fn without_a_history(fixture: &mut Fixture, older: Option<&[u8]>) {
    fixture.volume().end().unwrap();
    fixture.keystore.forget_volume(fixture.volume().id()).unwrap();
    match older {
        Some(older) => fs::write(state(fixture), older).unwrap(),
        None => fs::remove_file(state(fixture)).unwrap(),
    }
    fixture.reopen();
}

#[test]
fn a_crash_is_excused_where_sessions_are_counted_anew() {
    for lost in ["record", "newer record"] {
        let (mut fixture, mut contents) = sealed();
        let older = fs::read(state(&fixture)).unwrap();
        for salt in 2..6 {
            fixture.reopen();
            write(&fixture, "file", 0, &pattern(PAGE, salt)).unwrap();
            contents[..PAGE].copy_from_slice(&pattern(PAGE, salt));
            fixture.volume().end().unwrap();
        }
        without_a_history(&mut fixture, (lost == "newer record").then_some(&older[..]));
        assert_eq!(read(&fixture, "file").unwrap(), contents);
        half_changed(&fixture, "file", 5 * PAGE as u64, 9);
        // Killed between the two pages of the change.
        fixture.reopen();
        let found = read(&fixture, "file").unwrap_or_else(|error| panic!("{lost}: {error}"));
        assert!(found[..5 * PAGE] == contents[..5 * PAGE], "{lost}");
        assert!(found[6 * PAGE..] == contents[6 * PAGE..], "{lost}");
        let report = recover(&fixture);
        assert!(report.complete && report.spoiled.is_empty(), "{lost}: {report:?}");
        fixture.volume().end().unwrap();
        fixture.reopen();
        assert_eq!(read(&fixture, "file").unwrap(), found, "{lost}");
    }
}

#[test]
fn residue_is_accepted_by_consent_where_nothing_tells_of_the_crash() {
    let (mut fixture, _) = sealed();
    for salt in 2..6 {
        fixture.reopen();
        write(&fixture, "file", 0, &pattern(PAGE, salt)).unwrap();
        fixture.volume().end().unwrap();
    }
    fixture.reopen();
    half_changed(&fixture, "file", 5 * PAGE as u64, 9);
    fixture.keystore.forget_volume(fixture.volume().id()).unwrap();
    fs::remove_file(state(&fixture)).unwrap();
    fixture.reopen();
    is_tampered(read(&fixture, "file"));
    assert!(!check(&fixture).is_clean());
    fixture.reopen_with(Options { accept_residue: true, ..Options::default() });
    assert!(recover(&fixture).complete);
    fixture.volume().end().unwrap();
    fixture.reopen();
    read(&fixture, "file").unwrap();
}

/// The two slots of a file's header.
fn slots(file: &Path) -> Vec<u8> {
    page(file, 0)[..1024].to_vec()
}

fn put_slots(file: &Path, slots: &[u8]) {
    OpenOptions::new().write(true).open(file).unwrap().write_all_at(slots, 0).unwrap();
}

/// Damages the slot that counts.
fn spoil_newest_slot(file: &Path) {
    let mut slots = slots(file);
    let sequence = |at: usize| u64::from_le_bytes(slots[at + 16..at + 24].try_into().unwrap());
    let newest = if sequence(0) > sequence(512) { 0 } else { 512 };
    slots[newest + 300] ^= 1;
    put_slots(file, &slots);
}

/// A crash of a session that announced every file, but changed neither of the two below.
struct Crash {
    fixture: Fixture,
    /// Of the file "file".
    contents: Vec<u8>,
    /// Its data page 7, from an earlier session.
    older: Vec<u8>,
    /// The key of "dir/inside".
    other: KeyId,
}

fn crash_of_many() -> Crash {
    let (mut fixture, mut contents) = sealed();
    let older = page(&ciphertext(&fixture), 7);
    fixture.reopen();
    many(&fixture);
    let other = fixture.new_key();
    let dir = fixture.mkdir(ROOT, "dir").unwrap().ino;
    fixture.volume().set_dir_policy(dir, other, None).unwrap();
    fixture.file(dir, "inside", "").unwrap();
    write(&fixture, "dir/inside", 0, &pattern(9 * PAGE, 4)).unwrap();
    contents[5 * PAGE..6 * PAGE].copy_from_slice(&pattern(PAGE, 9));
    write(&fixture, "file", 5 * PAGE as u64, &contents[5 * PAGE..6 * PAGE]).unwrap();
    fixture.volume().end().unwrap();
    fixture.reopen();
    change_many(&fixture);
    // Killed.
    fixture.reopen();
    assert!(fixture.volume().unrecovered()[0].intents.is_all());
    Crash { fixture, contents, older, other }
}

#[test]
fn a_record_from_before_the_end_of_a_recovery_brings_nothing_back() {
    for what in ["record", "record and header"] {
        let Crash { mut fixture, contents, older, .. } = crash_of_many();
        let file = ciphertext(&fixture);
        let (record, header) = (fs::read(state(&fixture)).unwrap(), slots(&file));
        assert!(recover(&fixture).complete);
        assert!(fixture.volume().unrecovered().is_empty());
        // Killed as well, having announced nothing. The record of its begin is put back.
        fixture.close();
        fs::write(state(&fixture), &record).unwrap();
        let newest = page(&file, 7);
        put_page(&file, 7, &older);
        if what == "record and header" {
            put_slots(&file, &header);
        }
        fixture.reopen();
        is_tampered(read(&fixture, "file"));
        assert_eq!(check(&fixture).withheld, 2, "{what}");
        put_page(&file, 7, &newest);
        assert_eq!(read(&fixture, "file").unwrap(), contents, "{what}");
    }
}

#[test]
fn the_record_of_a_session_that_recovered_and_crashed_is_no_older_one() {
    let Crash { mut fixture, contents, .. } = crash_of_many();
    assert!(recover(&fixture).complete);
    half_changed(&fixture, "file", 9 * PAGE as u64, 3);
    fixture.reopen();
    assert_eq!((fixture.volume().unrecovered().len(), fixture.volume().rollbacks()), (1, 0));
    assert_eq!(read(&fixture, "file").unwrap()[10 * PAGE..], contents[10 * PAGE..]);
    assert!(recover(&fixture).complete);
}

#[test]
fn a_damaged_slot_brings_back_no_excuse() {
    let (mut fixture, mut contents) = sealed();
    let file = ciphertext(&fixture);
    let older = page(&file, 7);
    fixture.reopen();
    contents[..20 * PAGE].copy_from_slice(&pattern(20 * PAGE, 9));
    write(&fixture, "file", 0, &contents[..20 * PAGE]).unwrap();
    // Killed. The next session does not recover, but changes and seals the file.
    fixture.reopen();
    contents[..PAGE].copy_from_slice(&pattern(PAGE, 4));
    write(&fixture, "file", 0, &contents[..PAGE]).unwrap();
    fixture.volume().end().unwrap();
    let newest = page(&file, 7);
    put_page(&file, 7, &older);
    for _ in 0..3 {
        spoil_newest_slot(&file);
        fixture.reopen();
        assert_eq!(fixture.volume().unrecovered().len(), 1);
        is_tampered(read(&fixture, "file"));
        fixture.volume().end().unwrap();
        // The slot was written anew, and does not say less than the damaged one.
        fixture.reopen();
        is_tampered(read(&fixture, "file"));
        fixture.volume().end().unwrap();
    }
    put_page(&file, 7, &newest);
    fixture.reopen();
    assert_eq!(read(&fixture, "file").unwrap(), contents);
    assert!(recover(&fixture).complete);
    assert_eq!(read(&fixture, "file").unwrap(), contents);
}

#[test]
fn a_recovery_that_cannot_end_leaves_no_excuse_where_it_has_been() {
    let Crash { mut fixture, contents, older, .. } = crash_of_many();
    let file = ciphertext(&fixture);
    let all = fixture.backing(|name| !name.starts_with(".kmsfs"));
    let own = fixture.vault().join(".kmsfs");
    let all = all.iter().filter(|path| path.is_file() && !path.starts_with(&own)).count() as u64;
    // It is interrupted after the last file.
    let mut seen = 0;
    let report = fixture.volume().recover(&mut |report| {
        seen = report.scanned;
        if seen < all { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    assert_eq!(seen, all);
    assert!(!report.unwrap().complete);
    assert_eq!(fixture.volume().unrecovered().len(), 1, "the crash is alive");
    let newest = page(&file, 7);
    put_page(&file, 7, &older);
    for _ in 0..3 {
        fixture.reopen();
        assert!(!fixture.volume().unrecovered().is_empty());
        is_tampered(read(&fixture, "file"));
        spoil_newest_slot(&file);
    }
    put_page(&file, 7, &newest);
    assert_eq!(read(&fixture, "file").unwrap(), contents);
}

/// The daemon of an ordinary user could not look into it, ever.
#[test]
fn regression_a_file_of_somebody_elses_keeps_no_crash_alive() {
    let (root, nobody) = (Uid::ROOT, Uid::from_raw(65534));
    if !geteuid().is_root() {
        eprintln!("not root: nothing is tried as another user");
        return;
    }
    // Only this thread is another user, and can be root again.
    let user = std::thread::spawn(move || {
        set_thread_res_uid(nobody, nobody, root).unwrap();
        let (mut fixture, _) = sealed();
        fixture.reopen();
        write(&fixture, "file", 5 * PAGE as u64, &pattern(PAGE, 9)).unwrap();
        // Killed.
        fixture.reopen();
        set_thread_res_uid(nobody, root, root).unwrap();
        let stray = fixture.vault().join("stray");
        fs::write(&stray, "root's").unwrap();
        fs::set_permissions(&stray, fs::Permissions::from_mode(0o600)).unwrap();
        set_thread_res_uid(nobody, nobody, root).unwrap();
        assert_eq!(fixture.volume().unrecovered().len(), 1);
        let report = recover(&fixture);
        assert!(report.complete && fixture.volume().unrecovered().is_empty(), "{report:?}");
        let [(path, _)] = &report.spoiled[..] else { panic!("{report:?}") };
        assert_eq!(path, Path::new("stray"));
    });
    user.join().unwrap();
}

/// Who takes entries away from outside kept the crash alive, and what it excuses.
#[test]
fn entries_that_vanish_keep_no_crash_alive() {
    let Crash { fixture, .. } = crash_of_many();
    for name in ["planted 0", "planted 1"] {
        fs::write(fixture.vault().join(name), "foreign").unwrap();
    }
    // Of the two it has seen one at most.
    let report = fixture.volume().recover(&mut |_| {
        for name in ["planted 0", "planted 1"] {
            let _ = fs::remove_file(fixture.vault().join(name));
        }
        ControlFlow::Continue(())
    });
    assert!(report.unwrap().complete);
    assert!(fixture.volume().unrecovered().is_empty());
}

#[test]
fn files_that_recovery_has_seen_are_excused_once_more_only_by_a_change_of_their_own() {
    let Crash { mut fixture, contents, .. } = crash_of_many();
    let ino = fixture.find("file").unwrap();
    let handle = fixture.volume().open_handle(ino, Access::ReadWrite).unwrap().handle;
    handle.file.write(20 * PAGE as u64, b"before", Origin::Caller).unwrap();
    assert!(recover(&fixture).complete);
    handle.file.write(21 * PAGE as u64, b"after", Origin::Caller).unwrap();
    fixture.volume().close(handle);
    half_changed(&fixture, "file", 9 * PAGE as u64, 3);
    fixture.reopen();
    let found = read(&fixture, "file").unwrap();
    assert_eq!(found[20 * PAGE..][..6], *b"before");
    assert_eq!(found[21 * PAGE..][..5], *b"after");
    assert_eq!(found[22 * PAGE..], contents[22 * PAGE..]);
    let report = recover(&fixture);
    assert!(report.complete && report.spoiled.is_empty(), "{report:?}");
}

#[test]
fn a_lease_does_not_keep_recovery_from_a_file() {
    let (mut fixture, contents) = sealed();
    fixture.reopen();
    half_changed(&fixture, "file", 5 * PAGE as u64, 9);
    fixture.reopen();
    // Whoever is asked to give the lease back by a signal, and does not expect it, ends.
    let lease = "import fcntl, os, sys, time\n\
        file = os.open(sys.argv[1], os.O_RDWR)\n\
        fcntl.fcntl(file, fcntl.F_SETLEASE, int(sys.argv[2]))\n\
        print('held', flush=True)\n\
        time.sleep(1000)";
    let mut holder = std::process::Command::new("python3")
        .args(["-c", lease])
        .arg(ciphertext(&fixture))
        .arg("1")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [0; 5];
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut said).unwrap();
    assert!(recover(&fixture).complete);
    holder.wait().unwrap();
    fixture.volume().end().unwrap();
    fixture.reopen();
    assert!(fixture.volume().unrecovered().is_empty());
    assert_eq!(read(&fixture, "file").unwrap()[6 * PAGE..], contents[6 * PAGE..]);
}

#[test]
fn what_a_planted_file_claims_keeps_no_crash_alive() {
    let Crash { mut fixture, contents, older, other } = crash_of_many();
    let file = ciphertext(&fixture);
    let length = kmsfs::envelope::layout::backing_len(9 * PAGE as u64);
    let inside = fixture.backing(|name| !name.starts_with(".kmsfs"));
    let inside = inside.into_iter().find(|f| fs::metadata(f).unwrap().len() == length).unwrap();
    fixture.close();
    // The header of the file under attack, with the key of another directory beside its own.
    let (taken, mut planted) = (slots(&inside), slots(&file)[..512].to_vec());
    planted[13] = 2;
    planted.copy_within(96..204, 204);
    planted[96..204].copy_from_slice(&taken[96..204]);
    let crc = crc32fast::hash(&planted[..508]).to_le_bytes();
    planted[508..].copy_from_slice(&crc);
    let planted = [planted.clone(), planted, vec![0; 20_000]].concat();
    fs::write(inside.with_file_name("planted"), planted).unwrap();
    fixture.disable(other);
    fixture.reopen();
    let report = recover(&fixture);
    assert!(report.complete && report.waiting == [other.to_string()], "{report:?}");
    let left = fixture.volume().unrecovered();
    assert!(left.iter().any(|crash| crash.intents.ids().len() == 2), "{left:?}");
    for crash in &left {
        assert_eq!(crash.waiting.as_deref(), Some(&[other][..]), "the key that was refused");
        assert!(crash.listed && !crash.intents.is_all());
    }
    fixture.volume().end().unwrap();
    let newest = page(&file, 7);
    put_page(&file, 7, &older);
    fixture.reopen();
    is_tampered(read(&fixture, "file"));
    put_page(&file, 7, &newest);
    fixture.enable(other);
    fixture.reopen();
    assert_eq!(read(&fixture, "file").unwrap(), contents);
    assert_eq!(read(&fixture, "dir/inside").unwrap(), pattern(9 * PAGE, 4));
    let report = recover(&fixture);
    assert!(report.complete && report.spoiled.len() == 1, "{report:?}");
    assert!(fixture.volume().unrecovered().is_empty());
}

#[test]
fn an_old_header_is_not_excused_by_what_recovery_left() {
    let Crash { mut fixture, contents, older, other } = crash_of_many();
    let file = ciphertext(&fixture);
    let header = slots(&file);
    fixture.disable(other);
    assert!(recover(&fixture).complete);
    fixture.volume().end().unwrap();
    put_slots(&file, &header);
    let newest = page(&file, 7);
    put_page(&file, 7, &older);
    fixture.reopen();
    assert_eq!(fixture.volume().unrecovered().len(), 1);
    is_tampered(read(&fixture, "file"));
    put_page(&file, 7, &newest);
    assert_eq!(read(&fixture, "file").unwrap(), contents);
    fixture.volume().end().unwrap();
    fixture.enable(other);
    fixture.reopen();
    assert!(recover(&fixture).complete);
    assert!(fixture.volume().unrecovered().is_empty());
    assert_eq!(read(&fixture, "dir/inside").unwrap(), pattern(9 * PAGE, 4));
}

#[test]
fn a_file_that_moves_to_another_key_keeps_its_excuse() {
    let (mut fixture, _) = sealed();
    let other = fixture.new_key();
    fixture.reopen();
    let dir = fixture.mkdir(ROOT, "dir").unwrap().ino;
    fixture.volume().set_dir_policy(dir, other, None).unwrap();
    fixture.file(dir, "inside", "").unwrap();
    let contents = pattern(50 * PAGE, 4);
    write(&fixture, "dir/inside", 0, &contents).unwrap();
    fixture.volume().end().unwrap();
    fixture.reopen();
    half_changed(&fixture, "dir/inside", 5 * PAGE as u64, 9);
    // Killed, and recovery waits for the key. It comes back, and the file goes before recovery does.
    fixture.disable(other);
    fixture.reopen();
    assert_eq!(recover(&fixture).waiting, [other.to_string()]);
    fixture.enable(other);
    fixture.reopen();
    let dir = fixture.find("dir").unwrap();
    let found = read(&fixture, "dir/inside").unwrap();
    fixture.rename((dir, "inside"), (ROOT, "inside"), REPLACE).unwrap();
    fixture.volume().end().unwrap();
    fixture.reopen();
    assert!(read(&fixture, "inside").unwrap() == found);
    let report = recover(&fixture);
    assert!(report.complete && report.spoiled.is_empty(), "{report:?}");
    assert!(read(&fixture, "inside").unwrap() == found);
}

#[test]
fn working_before_a_restored_vault_is_believed_spoils_nothing() {
    let (mut fixture, contents) = sealed();
    fixture.reopen();
    half_changed(&fixture, "file", 5 * PAGE as u64, 9);
    // Killed. The vault goes on, and is then put back to this moment.
    let backup = fs::read(state(&fixture)).unwrap();
    fixture.reopen();
    fixture.volume().end().unwrap();
    fs::write(state(&fixture), backup).unwrap();
    fixture.reopen();
    is_tampered(read(&fixture, "file"));
    write(&fixture, "file", 20 * PAGE as u64, &pattern(PAGE, 3)).unwrap();
    fixture.volume().end().unwrap();
    fixture.reopen_with(Options { restored: true, ..Options::default() });
    let found = read(&fixture, "file").unwrap();
    assert!(found[..5 * PAGE] == contents[..5 * PAGE]);
    assert!(found[20 * PAGE..21 * PAGE] == pattern(PAGE, 3));
    let report = recover(&fixture);
    assert!(report.complete && report.spoiled.is_empty(), "{report:?}");
    fixture.volume().end().unwrap();
    fixture.reopen();
    assert!(read(&fixture, "file").unwrap() == found);
}

//! Listings: offsets, lookups, and changes while one is under way.

use std::collections::BTreeSet;

use kmsfs::volume::{Detail, Listing, Sink};

use crate::fixture::{Fixture, ROOT};

#[test]
fn a_listing_goes_on_at_any_offset_that_it_gave() {
    let fixture = Fixture::new();
    let names: BTreeSet<String> = (0..500).map(|i| format!("file{i}")).collect();
    for name in &names {
        fixture.file(ROOT, name, "").unwrap();
    }
    let volume = fixture.volume();
    let stream = volume.open_dir_stream(ROOT).unwrap();
    let mut order = Vec::new();
    let listed = volume.read_dir(&stream, 0, Detail::Names, |entry| {
        order.push((entry.name.clone(), entry.next));
        Sink::Taken
    });
    listed.unwrap();
    assert_eq!(order.len(), names.len() + 2);
    for at in [0, 1, 77, 300, 499] {
        let mut next = None;
        let again = volume.read_dir(&stream, order[at].1, Detail::Names, |entry| {
            next = Some(entry.name.clone());
            Sink::Full
        });
        again.unwrap();
        assert_eq!(next.as_ref(), order.get(at + 1).map(|(name, _)| name), "after {at}");
    }
}

#[test]
fn small_answers_lose_and_repeat_nothing() {
    let fixture = Fixture::new();
    for i in 0..300 {
        fixture.file(ROOT, &format!("file{i}"), "").unwrap();
    }
    let volume = fixture.volume();
    let stream = volume.open_dir_stream(ROOT).unwrap();
    let (mut seen, mut offset) = (Vec::new(), 0);
    loop {
        let mut room = 7;
        let before = seen.len();
        let listed = volume.read_dir(&stream, offset, Detail::Attributes, |entry| {
            if room == 0 {
                return Sink::Full;
            }
            room -= 1;
            offset = entry.next;
            seen.push(entry.name.clone());
            Sink::Taken
        });
        listed.unwrap();
        if seen.len() == before {
            break;
        }
    }
    assert_eq!(seen.len(), 302);
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 302);
}

#[test]
fn each_entry_with_attributes_is_one_lookup() {
    let fixture = Fixture::new();
    let ino = fixture.file(ROOT, "f", "").unwrap().ino;
    let volume = fixture.volume();
    volume.forget(ino, 1);
    assert!(volume.attr(ino).is_err());
    let stream = volume.open_dir_stream(ROOT).unwrap();
    let mut lookups = 0;
    let listed = volume.read_dir(&stream, 0, Detail::Attributes, |entry| {
        lookups += u64::from(entry.attr.is_some());
        Sink::Taken
    });
    listed.unwrap();
    assert_eq!(lookups, 1, "the dots are none");
    volume.attr(ino).unwrap();
    volume.forget(ino, 1);
    assert!(volume.attr(ino).is_err());
}

#[test]
fn an_entry_that_did_not_fit_is_no_lookup() {
    let fixture = Fixture::new();
    let ino = fixture.file(ROOT, "f", "").unwrap().ino;
    let volume = fixture.volume();
    volume.forget(ino, 1);
    let stream = volume.open_dir_stream(ROOT).unwrap();
    let listed = volume.read_dir(&stream, 0, Detail::Attributes, |entry| {
        if entry.attr.is_some() { Sink::Full } else { Sink::Taken }
    });
    listed.unwrap();
    assert!(volume.attr(ino).is_err());
}

#[test]
fn a_listing_from_the_start_shows_what_was_made_since() {
    let fixture = Fixture::new();
    let stream = fixture.volume().open_dir_stream(ROOT).unwrap();
    let count = || {
        let mut count = 0;
        let listed = fixture.volume().read_dir(&stream, 0, Detail::Names, |_| {
            count += 1;
            Sink::Taken
        });
        listed.unwrap();
        count
    };
    assert_eq!(count(), 2);
    fixture.file(ROOT, "new", "").unwrap();
    assert_eq!(count(), 3);
}

/// Opens `ino` as a kernel that keeps listings does, lists it, and says whether it had it.
fn listed(fixture: &Fixture, ino: u64, detail: Detail) -> Listing {
    let volume = fixture.volume();
    let (stream, listing) = volume.open_listing(ino).unwrap();
    let mut told = Vec::new();
    let taken = volume.read_dir(&stream, 0, detail, |entry| {
        told.extend(entry.attr.map(|attr| attr.ino));
        Sink::Taken
    });
    taken.unwrap();
    // Each was one lookup more.
    told.into_iter().filter(|_| listing == Listing::Kept).for_each(|ino| volume.forget(ino, 1));
    listing
}

/// Waits until a directory counts as settled.
fn settle() {
    std::thread::sleep(std::time::Duration::from_millis(150));
}

#[test]
fn a_listing_is_kept_until_the_directory_changes_even_behind_the_mount() {
    let fixture = Fixture::new();
    let dir = fixture.mkdir(ROOT, "dir").unwrap().ino;
    fixture.file(dir, "a", "").unwrap();
    let of_dir = || listed(&fixture, dir, Detail::Attributes);
    assert_eq!(of_dir(), Listing::Passing, "it has just changed");
    settle();
    assert_eq!([of_dir(), of_dir(), of_dir()], [Listing::New, Listing::Kept, Listing::Kept]);
    let inside = std::fs::read_dir(fixture.vault()).unwrap().map(|entry| entry.unwrap().path());
    let backing = inside
        .filter(|path| path.is_dir())
        .find(|path| std::os::unix::fs::MetadataExt::ino(&path.metadata().unwrap()) == dir);
    std::fs::write(backing.unwrap().join("foreign"), "").unwrap();
    assert_eq!(of_dir(), Listing::Passing);
    settle();
    assert_eq!([of_dir(), of_dir()], [Listing::New, Listing::Kept]);
}

#[test]
fn a_listing_that_would_save_no_lookups_is_asked_for_again() {
    let fixture = Fixture::new();
    let ino = fixture.file(ROOT, "file", "").unwrap().ino;
    settle();
    let of_root = |detail| listed(&fixture, ROOT, detail);
    assert_eq!(of_root(Detail::Names), Listing::New);
    assert_eq!(of_root(Detail::Attributes), Listing::New, "it got names alone");
    assert_eq!(of_root(Detail::Attributes), Listing::Kept);
    fixture.volume().forget(ino, u64::MAX);
    assert_eq!(of_root(Detail::Attributes), Listing::New, "it has forgotten a file");
}

#[test]
fn no_listing_is_kept_of_a_directory_without_its_key_and_all_go_with_a_key() {
    let fixture = Fixture::new();
    let dir = fixture.mkdir(ROOT, "dir").unwrap().ino;
    fixture.file(dir, "a", "").unwrap();
    settle();
    let of_dir = || listed(&fixture, dir, Detail::Attributes);
    assert_eq!([of_dir(), of_dir()], [Listing::New, Listing::Kept]);
    let (volume, kernel) = (fixture.volume(), fixture.kernel());
    fixture.disable(fixture.key());
    volume.watch_keys();
    assert!(kernel.take().contains(&dir));
    volume.watch_keys();
    assert!(kernel.take().contains(&dir), "an answer may have been under way");
    assert_eq!([of_dir(), of_dir()], [Listing::Passing; 2]);
    fixture.enable(fixture.key());
    volume.watch_keys();
    assert_eq!([of_dir(), of_dir()], [Listing::New, Listing::Kept]);
}

/// Opened while its key was there, and listed afterwards.
#[test]
fn names_that_were_told_without_a_key_are_dropped_soon() {
    let fixture = Fixture::new();
    fixture.file(ROOT, "a", "").unwrap();
    settle();
    let (volume, kernel) = (fixture.volume(), fixture.kernel());
    let (stream, _) = volume.open_listing(ROOT).unwrap();
    fixture.disable(fixture.key());
    volume.watch_keys();
    volume.watch_keys();
    kernel.take();
    volume.read_dir(&stream, 0, Detail::Attributes, |_| Sink::Taken).unwrap();
    volume.watch_keys();
    assert_eq!(kernel.take(), [ROOT]);
}

//! Listings: offsets, lookups, and changes while one is under way.

use std::collections::BTreeSet;

use kmsfs::volume::{Detail, Sink};

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

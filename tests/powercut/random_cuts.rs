//! Cuts at random moments, of which any subset of the pending writes is kept.

use crate::attempt::attempt;
use crate::backing::{BTRFS, Backing, JOURNAL, ORDERED, SMALL, WRITEBACK, XFS};
use crate::cut::{Kept, Unit};
use crate::device::Event;
use crate::machine::Journal;
use crate::oracle::Found;
use crate::random::Random;
use crate::record::{Recording, Scenario, record};
use crate::scenarios::ALL;
use crate::tools::need_root;

/// Cuts of one recording: the recording costs as much as a few cuts.
const CUTS_OF_ONE: usize = 8;

#[test]
fn random_cuts_of_ext4() {
    campaign(&ORDERED, 64);
}

#[test]
fn random_cuts_of_ext4_writeback() {
    campaign(&WRITEBACK, 24);
}

#[test]
fn random_cuts_of_ext4_data_journal() {
    campaign(&JOURNAL, 16);
}

#[test]
fn random_cuts_of_ext4_with_small_blocks() {
    campaign(&SMALL, 24);
}

#[test]
fn random_cuts_of_xfs() {
    campaign(&XFS, 40);
}

#[test]
fn random_cuts_of_btrfs() {
    campaign(&BTRFS, 32);
}

/// What was seen of one filesystem.
#[derive(Default)]
struct Tally {
    cuts: usize,
    claims: usize,
    bare: usize,
    unreadable: usize,
    failures: Vec<String>,
}

/// `share` of 200 cuts, or of as many as the environment asks for.
fn campaign(backing: &'static Backing, share: usize) {
    need_root();
    let cuts = number("KMSFS_POWERCUT_CUTS").map_or(share, |all| all * share / 200);
    let seed = number("KMSFS_TEST_SEED").unwrap_or(8) as u64;
    let name = backing.name.bytes().fold(0u64, |sum, byte| sum.rotate_left(9) ^ u64::from(byte));
    let mut random = Random::new(seed ^ name);
    let scenarios = scenarios();
    let mut tally = Tally::default();
    let first = random.index(scenarios.len());
    for scenario in scenarios.iter().cycle().skip(first) {
        if tally.cuts >= cuts {
            break;
        }
        let most = (cuts - tally.cuts).min(CUTS_OF_ONE);
        one(backing, scenario, random.next(), most, &mut tally);
    }
    println!(
        "{}: {} cuts, {} claims, {} files unreadable that were never synced; the backing \
         filesystem lost {}; seed {seed}",
        backing.name, tally.cuts, tally.claims, tally.unreadable, tally.bare
    );
    assert!(tally.failures.is_empty(), "{}", tally.failures.join("\n"));
}

/// All, or the one that the environment names.
fn scenarios() -> Vec<&'static Scenario> {
    let only = std::env::var("KMSFS_POWERCUT_SCENARIO").ok();
    let wanted = |scenario: &Scenario| only.as_ref().is_none_or(|only| only == scenario.name);
    ALL.iter().copied().filter(|scenario| wanted(scenario)).collect()
}

/// Whether pages are journaled: one recording in three, or as the environment says.
fn journal(seed: u64) -> Journal {
    match std::env::var("KMSFS_POWERCUT_JOURNAL").as_deref() {
        Ok("on") => Journal::On,
        Ok("auto") => Journal::Auto,
        _ if seed.is_multiple_of(3) => Journal::On,
        _ => Journal::Auto,
    }
}

fn one(backing: &'static Backing, scenario: &Scenario, seed: u64, cuts: usize, tally: &mut Tally) {
    let recording = match record(backing, scenario, seed, journal(seed)) {
        Ok(recording) => recording,
        Err(error) => {
            tally.cuts += cuts;
            return tally.failures.push(format!(
                "{} {} seed {seed}: the recording failed: {error}",
                backing.name, scenario.name
            ));
        }
    };
    for number in 0..cuts {
        let (found, what) = cut_once(backing, scenario, &recording, number);
        tally.cuts += 1;
        tally.claims += found.claims;
        tally.bare += found.bare.len();
        tally.unreadable += found.unreadable;
        if !found.losses.is_empty() {
            tally.failures.push(format!("{what}\n  {}", found.losses.join("\n  ")));
        }
    }
}

fn cut_once(
    backing: &'static Backing,
    scenario: &Scenario,
    recording: &Recording,
    number: usize,
) -> (Found, String) {
    let mut random = Random::new(recording.seed ^ ((number as u64 + 1) << 32));
    let at = moment(recording, &mut random);
    let torn = recording.tears && random.one_in(2);
    let unit = if torn { Unit::Sector } else { Unit::Piece };
    let how = match random.below(8) {
        0 => Kept::None,
        1 => Kept::All,
        2 => Kept::AllButOne,
        _ => Kept::Some,
    };
    attempt(backing, scenario, recording, (at, how, unit), &mut random)
}

/// When the power fails: anywhere, and as often as not right after somebody was told something.
fn moment(recording: &Recording, random: &mut Random) -> usize {
    let events = &recording.events;
    let at = random.index(events.len());
    if random.one_in(2) {
        return at + 1;
    }
    let mark = events[at..].iter().position(|event| matches!(event, Event::Mark(_)));
    mark.map_or(events.len(), |mark| at + mark + 1)
}

fn number(variable: &str) -> Option<usize> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text}")))
}

//! One cut of a recording, and what came of it.

use crate::backing::Backing;
use crate::cut::{Kept, Unit, cut};
use crate::machine::{Keys, Off};
use crate::oracle::{Found, interrupted, judge, standing};
use crate::random::Random;
use crate::record::{Recording, Scenario};
use crate::tools::kept;

/// Cuts, once in five times again during the recovery, and looks. With what was found comes what a
/// failure has to say: which cut it was, and where the image is kept.
pub(crate) fn attempt(
    backing: &'static Backing,
    scenario: &Scenario,
    recording: &Recording,
    (at, how, unit): (usize, Kept, Unit),
    random: &mut Random,
) -> (Found, String) {
    let at = if scenario.keys == Keys::Apart { recording.events.len() } else { at };
    let image = cut(&recording.base, &recording.events, at, how, unit, random);
    let mut off = Off { image, apart: recording.apart.clone() };
    let torn = unit == Unit::Sector && !recording.journaled;
    let twice = random.one_in(5);
    let again =
        if twice { interrupted(backing, scenario.keys, &off, random) } else { Ok(off.clone()) };
    let found = match again {
        Ok(again) => {
            off = again;
            judge(backing, scenario.keys, &off, &standing(recording, at), torn)
        }
        Err(error) => Found { losses: vec![error], ..Found::default() },
    };
    let mut what = format!(
        "{} {} seed {}: cut at event {at} of {}, {how:?} kept by {unit:?}{}",
        backing.name,
        scenario.name,
        recording.seed,
        recording.events.len(),
        if twice { ", and again during the recovery" } else { "" }
    );
    if !found.losses.is_empty() {
        let path = kept(&format!("{}-{}-{}-{at}.img", backing.name, scenario.name, recording.seed));
        off.image.save(&path).unwrap();
        what += &format!("\n  image {}", path.display());
    }
    (found, what)
}

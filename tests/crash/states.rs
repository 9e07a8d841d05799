//! The files that a power cut can leave, one after the other.

use crate::disk::{Change, Epoch, Image, PAGE, Page, SECTOR};

/// A small generator: a failure is repeated by its seed alone.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 16) % below.max(1) as u64).unwrap()
    }
}

/// A page of which several versions may be on the disk, oldest first.
struct Racing {
    number: usize,
    versions: Vec<Option<Page>>,
}

/// A file with one prefix of its length changes and punches.
struct Prefix {
    base: Image,
    racing: Vec<Racing>,
}

/// At most this many combinations of page versions are tried one by one.
const ALL_UP_TO: usize = 1024;
/// Otherwise this many are drawn.
const DRAWN: usize = 160;
/// And this many where only some are wanted.
const SOME: usize = 2;

/// Shows `visit` every file that a cut within the epoch can leave, with the choices that made it.
pub(crate) fn whole_pages(epoch: &Epoch, dice: &mut Dice, mut visit: impl FnMut(Image, &str)) {
    for kept in 0..=structural(epoch) {
        let prefix = Prefix::new(epoch, kept);
        prefix.choices(dice, |choice| {
            visit(prefix.image(choice), &format!("{kept} size changes, versions {choice:?}"));
        });
    }
}

/// The same with one page torn: a mixture of the sectors of two of its versions.
pub(crate) fn torn_page(epoch: &Epoch, dice: &mut Dice, mut visit: impl FnMut(Image, usize, &str)) {
    for kept in 0..=structural(epoch) {
        let prefix = Prefix::new(epoch, kept);
        for racing in &prefix.racing {
            let (old, new) = (dice.roll(racing.versions.len() - 1), racing.versions.len() - 1);
            for mask in [0x0f, 0xf0, 1 << dice.roll(8)] {
                let torn = mix(&racing.versions[old], &racing.versions[new], mask);
                let drawn: Vec<usize> =
                    prefix.racing.iter().map(|r| dice.roll(r.versions.len())).collect();
                let newest: Vec<usize> =
                    prefix.racing.iter().map(|r| r.versions.len() - 1).collect();
                for choice in [drawn, newest] {
                    let mut image = prefix.image(&choice);
                    image.set(racing.number, Some(torn.clone()));
                    let page = racing.number;
                    let torn = format!("page {page} torn from {old} to {new} by {mask:#x}");
                    visit(
                        image,
                        page,
                        &format!("{kept} size changes, versions {choice:?}, {torn}"),
                    );
                }
            }
        }
    }
}

/// Shows `visit` some of the files that [`whole_pages`] shows: few, for where there are many epochs.
pub(crate) fn some_pages(epoch: &Epoch, dice: &mut Dice, mut visit: impl FnMut(Image, &str)) {
    let all = structural(epoch);
    let mut drawn = vec![0, all, dice.roll(all + 1)];
    drawn.dedup();
    for kept in drawn {
        let prefix = Prefix::new(epoch, kept);
        let counts: Vec<usize> = prefix.racing.iter().map(|racing| racing.versions.len()).collect();
        let mut choices = vec![vec![0; counts.len()], counts.iter().map(|c| c - 1).collect()];
        for _ in 0..SOME {
            choices.push(counts.iter().map(|count| dice.roll(*count)).collect());
        }
        choices.dedup();
        for choice in choices {
            visit(prefix.image(&choice), &format!("{kept} size changes, versions {choice:?}"));
        }
    }
}

fn structural(epoch: &Epoch) -> usize {
    epoch.log.iter().filter(|change| !matches!(change, Change::Write(..))).count()
}

fn mix(old: &Option<Page>, new: &Option<Page>, mask: u8) -> Page {
    let zeros = [0; PAGE];
    let (old, new) = (old.as_deref().unwrap_or(&zeros), new.as_deref().unwrap_or(&zeros));
    let mut page = *old;
    for sector in (0..PAGE / SECTOR).filter(|sector| mask >> sector & 1 == 1) {
        let range = sector * SECTOR..(sector + 1) * SECTOR;
        page[range.clone()].copy_from_slice(&new[range]);
    }
    page.into()
}

impl Prefix {
    /// Only the first `kept` changes of length and punches happened.
    fn new(epoch: &Epoch, kept: usize) -> Self {
        let mut base = epoch.base.clone();
        let dropped = epoch.dropped.iter().map(|(number, old)| {
            let versions = vec![old.clone(), epoch.base.page(*number).cloned()];
            Racing { number: *number, versions }
        });
        let mut written: Vec<Racing> = dropped.collect();
        let (mut happened, mut unborn) = (0, Vec::new());
        for change in &epoch.log {
            match change {
                // It went to a page that replaced one whose removal did not happen.
                Change::Write(number, _)
                    if unborn.iter().any(|(from, to)| (*from..*to).contains(number)) => {}
                Change::Write(number, page) => {
                    let old = base.page(*number).cloned();
                    match written.iter_mut().find(|racing| racing.number == *number) {
                        Some(racing) => racing.versions.push(Some(page.clone())),
                        None => written.push(Racing {
                            number: *number,
                            versions: vec![old, Some(page.clone())],
                        }),
                    }
                }
                Change::Length(length) => {
                    let first = usize::try_from(length / PAGE as u64).unwrap();
                    match happened < kept {
                        true => {
                            base.cut(*length);
                            written.retain(|racing| racing.number < first);
                        }
                        false => unborn.push((first, usize::MAX)),
                    }
                    happened += 1;
                }
                Change::Punch(first, end) => {
                    match happened < kept {
                        true => {
                            (*first..*end).for_each(|page| base.set(page, None));
                            written.retain(|racing| !(*first..*end).contains(&racing.number));
                        }
                        false => unborn.push((*first, *end)),
                    }
                    happened += 1;
                }
            }
        }
        let whole = usize::try_from(base.length / PAGE as u64).unwrap();
        written.retain(|racing| racing.number < whole);
        Self { base, racing: written }
    }

    fn image(&self, choice: &[usize]) -> Image {
        let mut image = self.base.clone();
        for (racing, version) in self.racing.iter().zip(choice) {
            image.set(racing.number, racing.versions[*version].clone());
        }
        image.cut(self.base.length);
        image
    }

    fn choices(&self, dice: &mut Dice, mut visit: impl FnMut(&[usize])) {
        let counts: Vec<usize> = self.racing.iter().map(|racing| racing.versions.len()).collect();
        let all = counts.iter().try_fold(1_usize, |product, count| product.checked_mul(*count));
        let newest: Vec<usize> = counts.iter().map(|count| count - 1).collect();
        if let Some(all) = all.filter(|all| *all <= ALL_UP_TO) {
            for mut number in 0..all {
                let choice: Vec<usize> = counts
                    .iter()
                    .map(|count| {
                        let version = number % count;
                        number /= count;
                        version
                    })
                    .collect();
                visit(&choice);
            }
            return;
        }
        visit(&vec![0; counts.len()]);
        visit(&newest);
        for at in 0..counts.len() {
            let mut only = vec![0; counts.len()];
            only[at] = newest[at];
            visit(&only);
            let mut but = newest.clone();
            but[at] = 0;
            visit(&but);
        }
        for _ in 0..DRAWN {
            let choice: Vec<usize> = counts.iter().map(|count| dice.roll(*count)).collect();
            visit(&choice);
        }
    }
}

//! Looking into the memory of a process from outside, as root.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

/// The writable memory of a process.
pub(crate) struct Memory(Vec<(String, Vec<u8>)>);

impl Memory {
    /// A copy of it now.
    pub(crate) fn of(pid: i32) -> Self {
        let memory = File::open(format!("/proc/{pid}/mem"))
            .expect("only root may look into the memory of kmsfs: run this test as root");
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let region = |line: &str| {
            let (range, _) = line.split_once(' ').unwrap();
            let (start, end) = range.split_once('-').unwrap();
            let number = |text| u64::from_str_radix(text, 16).unwrap();
            let mut bytes = vec![0; usize::try_from(number(end) - number(start)).unwrap()];
            memory.read_exact_at(&mut bytes, number(start)).ok()?;
            Some((line.to_owned(), bytes))
        };
        Self(maps.lines().filter(|line| line.contains(" rw")).filter_map(region).collect())
    }

    /// How often `needle` is in it.
    pub(crate) fn count(&self, needle: &[u8]) -> usize {
        self.0.iter().map(|(_, bytes)| occurrences(bytes, needle).count()).sum()
    }

    /// Where it is: regions and offsets, a few of each.
    pub(crate) fn places(&self, needle: &[u8]) -> Vec<(&str, Vec<usize>)> {
        let places = self.0.iter().map(|(line, bytes)| {
            (line.as_str(), occurrences(bytes, needle).take(5).collect::<Vec<_>>())
        });
        places.filter(|(_, at)| !at.is_empty()).collect()
    }
}

fn occurrences<'a>(bytes: &'a [u8], needle: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let first = needle[0];
    let at = bytes.iter().enumerate().filter(move |(_, byte)| **byte == first).map(|(at, _)| at);
    at.filter(move |at| bytes[*at..].starts_with(needle))
}

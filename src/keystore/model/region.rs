//! Regions: each keystore is one.

/// The Region of a keystore for which no other was named.
pub const DEFAULT_REGION: &str = "local";

/// True of the name of a Region. Like those of AWS: 1 to 32 of a-z 0-9 -.
pub(in crate::keystore) fn is_region(name: &str) -> bool {
    let letters = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let fine = |letter: char| letters(letter) || letter == '-';
    (1..=32).contains(&name.len()) && name.chars().all(fine) && name.starts_with(letters)
}

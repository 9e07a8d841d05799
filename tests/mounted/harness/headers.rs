//! Looking into the ciphertext from outside.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Vault;

/// Every file under a directory, links not followed.
pub(crate) fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            if meta.is_dir() {
                waiting.push(path);
            } else if meta.is_file() {
                found.push(path);
            }
        }
    }
    found
}

/// True when `needle` occurs in `bytes`.
pub(crate) fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

/// Asserts that no file of the vault names old material of the key any more, in any header slot,
/// and that some name the current one. Returns how many do.
pub(crate) fn check_headers(vault: &Vault, key: &str) -> usize {
    let (old, current) = materials(vault, key);
    let mut on_current = 0;
    for file in files_below(vault.store()) {
        let bytes = fs::read(&file).unwrap();
        let head = &bytes[..bytes.len().min(8192)];
        for id in &old {
            assert!(!contains(head, id), "{} still names old material", file.display());
        }
        on_current += usize::from(contains(head, &current));
    }
    assert!(on_current > 0, "no header names the current material");
    on_current
}

/// The old and the current material ids of a key, as bytes.
fn materials(vault: &Vault, key: &str) -> (Vec<Vec<u8>>, Vec<u8>) {
    let shown: Value =
        serde_json::from_str(&vault.kmsfs(["--json", "key", "describe", key])).unwrap();
    let (mut old, mut current) = (Vec::new(), None);
    for material in shown["Materials"].as_array().unwrap() {
        let id = from_hex(material["KeyMaterialId"].as_str().unwrap());
        match material["KeyMaterialState"].as_str().unwrap() {
            "CURRENT" => current = Some(id),
            _ => old.push(id),
        }
    }
    (old, current.expect("a key has current material"))
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: String = text.chars().filter(|letter| *letter != '-').collect();
    (0..digits.len() / 2)
        .map(|at| u8::from_str_radix(&digits[at * 2..at * 2 + 2], 16).unwrap())
        .collect()
}

//! Pages that a crash tore, where they are journaled.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Vault, files_below};

const ON: &[&str] = &["--create", "-o", "page-journal=on"];
const SIZE: usize = 5 * 4096;
/// Where block 1 lies in its backing file: behind page 0 and two pages of tails.
const PAGE_OF_BLOCK_1: u64 = 3 * 4096;

fn journals(vault: &Vault) -> Vec<PathBuf> {
    let names = fs::read_dir(vault.store().join(".kmsfs")).unwrap();
    let mut found: Vec<_> = names.map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with("undo-"));
    found
}

/// The backing file of the only file of this size.
fn backing(vault: &Vault) -> PathBuf {
    let is_it = |path: &PathBuf| {
        let in_vault = !path.starts_with(vault.store().join(".kmsfs"));
        in_vault && fs::metadata(path).unwrap().len() > SIZE as u64
    };
    files_below(vault.store()).into_iter().find(is_it).unwrap()
}

fn write_synced(path: &PathBuf, byte: u8) {
    let mut file = File::create(path).unwrap();
    file.write_all(&vec![byte; SIZE]).unwrap();
    file.sync_all().unwrap();
}

#[test]
fn a_journal_is_there_while_it_is_asked_for_and_gone_after_a_clean_end() {
    let vault = Vault::new("journal-clean");
    let mount = vault.mount();
    assert!(journals(&vault).is_empty(), "whole pages need none");
    mount.unmount();
    let mount = vault.mount_with(ON);
    assert_eq!(journals(&vault).len(), 2);
    let path = mount.path("file");
    write_synced(&path, 1);
    let file = File::options().write(true).open(&path).unwrap();
    for number in 0..20 {
        file.write_all_at(&[number; 100], 5000).unwrap();
        file.sync_all().unwrap();
    }
    let longest = journals(&vault).iter().map(|path| fs::metadata(path).unwrap().len()).max();
    assert!((4096..9000).contains(&longest.unwrap()), "its room is used again: {longest:?}");
    drop(file);
    mount.unmount();
    assert!(journals(&vault).is_empty());
    assert!(vault.kmsfs(["fsck", vault.store().to_str().unwrap()]).contains("all well"));
}

#[test]
fn a_page_that_a_crash_tore_comes_back_from_the_journal() {
    let vault = Vault::new("journal-torn");
    let mount = vault.mount_with(ON);
    write_synced(&mount.path("file"), 1);
    mount.unmount();
    let mount = vault.mount_with(ON);
    let file = File::options().write(true).open(mount.path("file")).unwrap();
    file.write_all_at(&[2; 8192], 0).unwrap();
    // The daemon has it when that returns, and no disk was asked for anything.
    drop(file);
    mount.kill();
    assert_eq!(journals(&vault).len(), 2);
    let torn = File::options().write(true).open(backing(&vault)).unwrap();
    torn.write_all_at(&[0x55; 2048], PAGE_OF_BLOCK_1 + 2048).unwrap();

    let store = vault.store().to_str().unwrap();
    let said = vault.kmsfs(["fsck", store]);
    assert!(said.contains("1 page was torn by a crash and in its journal"), "{said}");
    let mount = vault.mount_with(&["-o", "page-journal=off"]);
    let mut bytes = Vec::new();
    File::open(mount.path("file")).unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len(), SIZE);
    assert!(bytes[4096..4096 + 4052].iter().all(|byte| *byte == 1), "as it was synced");
    assert!(bytes[..4096].iter().all(|byte| *byte == 2), "its neighbour is not concerned");
    assert!(bytes[8192..].iter().all(|byte| *byte == 1));
    let start = Instant::now();
    while journals(&vault).len() > 2 {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "recovery does not end: {}",
            vault.log()
        );
        thread::sleep(Duration::from_millis(50));
    }
    mount.unmount();
    assert!(journals(&vault).is_empty());
    let said = vault.kmsfs(["fsck", store]);
    assert!(said.contains("all well") && !said.contains("torn by"), "{said}");
}

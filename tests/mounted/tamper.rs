//! Someone changes the vault: a read gives an error or the right bytes, never wrong ones.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::harness::{Vault, files_below};
use crate::random::{Random, seed};

/// Sizes around the edges of the layout: inside the first page, at its end, several groups.
const SIZES: [usize; 7] = [1, 900, 3000, 4096, 20_000, 131_072, 700_000];

/// What an attacker does to one ciphertext file; `other` is another file of the vault.
type Attack = fn(file: &Path, other: &Path, random: &mut Random) -> io::Result<()>;

const ATTACKS: [(&str, Attack); 8] = [
    ("one bit flipped", flip),
    ("a page zeroed", zero_page),
    ("a page taken from elsewhere in the file", swap_pages),
    ("a page taken from another file", foreign_page),
    ("the header taken from another file", foreign_header),
    ("cut at a page", cut),
    ("bytes appended", append),
    ("replaced by another file", replace),
];

#[test]
fn changed_ciphertext_gives_errors_and_never_wrong_bytes() {
    let vault = Vault::new("tamper");
    let contents =
        |number: usize| Random::new(77 + number as u64).bytes(SIZES[number % SIZES.len()]);
    let seed = seed("tamper");
    let mut random = Random::new(seed);
    let mount = vault.mount();
    for number in 0..SIZES.len() * 2 {
        fs::write(mount.path(format!("file {number}")), contents(number)).unwrap();
    }
    mount.unmount();
    let pristine = vault.outside("pristine");
    copy(vault.store(), &pristine);
    let targets: Vec<PathBuf> = ciphertexts(vault.store());
    assert_eq!(targets.len(), SIZES.len() * 2);

    let (mut refused, mut attempts) = (0, 0);
    for (name, attack) in ATTACKS {
        for (index, target) in targets.iter().enumerate() {
            let other = &targets[(index + 1 + random.index(targets.len() - 1)) % targets.len()];
            if attack(target, other, &mut random).is_err() {
                copy_file(&pristine, vault.store(), target);
            }
        }
        let mount = vault.mount();
        for number in 0..targets.len() {
            attempts += 1;
            match fs::read(mount.path(format!("file {number}"))) {
                Err(error) => {
                    let errno = error.raw_os_error();
                    assert!(
                        [Some(libc::EIO), Some(libc::EBADMSG)].contains(&errno),
                        "seed {seed}, {name}, file {number}: {error}"
                    );
                    refused += 1;
                }
                // A file put whole in the place of another of its directory is not noticed: the
                // threat model says so. Anything in between would be.
                Ok(bytes) => assert!(
                    (0..targets.len()).any(|other| bytes == contents(other)),
                    "seed {seed}, {name}: file {number} reads {} wrong bytes",
                    bytes.len()
                ),
            }
        }
        fs::write(mount.path("still usable"), name).unwrap();
        fs::remove_file(mount.path("still usable")).unwrap();
        mount.unmount();
        targets.iter().for_each(|target| copy_file(&pristine, vault.store(), target));
    }
    assert!(refused * 2 > attempts, "only {refused} of {attempts} changed files were refused");
    let log = vault.log();
    assert!(log.lines().count() > 3, "nothing was logged");
    let mount = vault.mount();
    for number in 0..targets.len() {
        assert!(fs::read(mount.path(format!("file {number}"))).unwrap() == contents(number));
    }
}

/// A program that appends finds the end of what is there, and not the one that the kernel remembers:
/// zeros that nobody wrote lay between.
#[test]
fn regression_an_append_goes_to_the_end_of_the_state_that_was_put_in_place() {
    for (before, after) in [(10_000, 40_000), (3_010_000, 5_000)] {
        let vault = Vault::new("another-size");
        let mount = vault.mount();
        let name = mount.path("file");
        let old = Random::new(6).bytes(before);
        fs::write(&name, &old).unwrap();
        mount.unmount();
        let file = ciphertexts(vault.store()).pop().unwrap();
        let bytes = fs::read(&file).unwrap();
        let mount = vault.mount();
        OpenOptions::new().write(true).open(&name).unwrap().set_len(after).unwrap();
        mount.unmount();
        let mount = vault.mount();
        assert_eq!(fs::metadata(&name).unwrap().len(), after);
        fs::write(&file, &bytes).unwrap();
        let mut open = OpenOptions::new().append(true).open(&name).unwrap();
        io::Write::write_all(&mut open, b"APPENDED").unwrap();
        drop(open);
        assert!(fs::read(&name).unwrap() == [&old[..], b"APPENDED"].concat());
        mount.unmount();
    }
}

/// Once, a file whose backing mtime had moved was taken for one that a crash had left odd, and a
/// zeroed spill page made zeros of the tails of its blocks. Tampering moves the mtime too.
#[test]
fn regression_no_single_page_can_be_zeroed_or_flipped_unnoticed() {
    let vault = Vault::new("everypage");
    let mount = vault.mount();
    let contents = Random::new(5).bytes(450_000);
    fs::write(mount.path("file"), &contents).unwrap();
    mount.unmount();
    let file = ciphertexts(vault.store()).pop().unwrap();
    let good = fs::read(&file).unwrap();
    for page in (0..pages(&file).unwrap()).filter(|page| *page < 4 || *page % 9 == 0 || *page > 95)
    {
        let at = usize::try_from(page * 4096).unwrap();
        for bytes in [vec![0; 4096], good[at..at + 4096].iter().map(|byte| byte ^ 16).collect()] {
            OpenOptions::new()
                .write(true)
                .open(&file)
                .unwrap()
                .write_all_at(&bytes, page * 4096)
                .unwrap();
            let mount = vault.mount();
            let read = fs::read(mount.path("file"));
            assert!(read.is_err() || read.unwrap() == contents, "page {page} gives wrong bytes");
            mount.unmount();
            fs::write(&file, &good).unwrap();
        }
    }
}

/// Once, the file had to be opened before the kernel could say that it should be cut.
#[test]
fn regression_a_damaged_file_is_cut_to_nothing_by_an_open_that_says_so() {
    let vault = Vault::new("cutdamaged");
    let mount = vault.mount();
    for (number, size) in SIZES.into_iter().enumerate() {
        fs::write(mount.path(format!("file {number}")), vec![7; size]).unwrap();
    }
    mount.unmount();
    for (number, file) in ciphertexts(vault.store()).into_iter().enumerate() {
        let file = OpenOptions::new().write(true).open(file).unwrap();
        match number % 3 {
            0 => file.write_all_at(&[0; 4096], 0).unwrap(),
            1 => file.write_all_at(&[9; 4096], 0).unwrap(),
            _ => file.set_len(file.metadata().unwrap().len() / 2).unwrap(),
        }
    }
    let mount = vault.mount();
    for number in 0..SIZES.len() {
        let path = mount.path(format!("file {number}"));
        assert!(fs::read(&path).is_err(), "file {number}");
        let opened = OpenOptions::new().read(true).write(true).open(&path);
        if let Ok(file) = opened {
            assert!(file.read_at(&mut [0; 10], 0).is_err(), "file {number}");
            assert!(file.write_at(&[1; 10], 0).is_err(), "file {number}");
        }
        fs::write(&path, format!("new {number}")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("new {number}"));
    }
    mount.unmount();
    let mount = vault.mount();
    for number in 0..SIZES.len() {
        let path = mount.path(format!("file {number}"));
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("new {number}"));
    }
}

#[test]
fn a_file_with_damaged_headers_can_be_removed_and_the_rest_works() {
    let vault = Vault::new("badheader");
    let mount = vault.mount();
    fs::create_dir(mount.path("d")).unwrap();
    fs::write(mount.path("d/good"), "good").unwrap();
    fs::write(mount.path("d/bad"), "bad").unwrap();
    mount.unmount();
    let before = ciphertexts(vault.store());
    let mount = vault.mount();
    fs::remove_file(mount.path("d/good")).unwrap();
    mount.unmount();
    let bad = ciphertexts(vault.store());
    assert_eq!((before.len(), bad.len()), (2, 1));
    OpenOptions::new().write(true).open(&bad[0]).unwrap().write_all_at(&[0; 4096], 0).unwrap();
    let mount = vault.mount();
    fs::write(mount.path("d/good"), "good").unwrap();
    assert_eq!(fs::read(mount.path("d/bad")).unwrap_err().raw_os_error(), Some(libc::EIO));
    assert_eq!(fs::read(mount.path("d/good")).unwrap(), b"good");
    fs::rename(mount.path("d/bad"), mount.path("worse")).unwrap();
    fs::remove_file(mount.path("worse")).unwrap();
}

#[test]
fn a_directory_with_a_broken_descriptor_does_not_hide_its_neighbours() {
    let vault = Vault::new("baddir");
    let mount = vault.mount();
    fs::create_dir_all(mount.path("broken")).unwrap();
    fs::write(mount.path("broken/inside"), "x").unwrap();
    mount.unmount();
    let descriptor = files_below(vault.store())
        .into_iter()
        .find(|file| file.ends_with(".kmsfs.dir") && file.parent() != Some(vault.store()))
        .expect("a directory has a descriptor file");
    fs::write(&descriptor, [0xff; 512]).unwrap();
    let dir = descriptor.parent().unwrap();
    let mount = vault.mount();
    assert_eq!(fs::read(mount.path("broken/inside")).unwrap(), b"x", "the mirror was not used");
    mount.unmount();
    fs::write(&descriptor, [0xff; 512]).unwrap();
    let _ = rustix::fs::removexattr(dir, "user.kmsfs.dir");
    let mount = vault.mount();
    fs::write(mount.path("neighbour"), "fine").unwrap();
    assert_eq!(fs::read_dir(mount.root()).unwrap().count(), 2, "the parent cannot be listed");
    assert!(fs::read(mount.path("broken/inside")).is_err());
    assert_eq!(fs::read(mount.path("neighbour")).unwrap(), b"fine");
}

/// The kernel went by the length that it was told before: the rest of the file was not read.
#[test]
fn regression_a_small_file_is_read_whole_whatever_length_the_kernel_was_told() {
    let vault = Vault::new("hint");
    let mount = vault.mount();
    fs::write(mount.path("file"), [7; 900]).unwrap();
    mount.unmount();
    let target = ciphertexts(vault.store()).remove(0);
    for told in [10, 2000] {
        OpenOptions::new().write(true).open(&target).unwrap().set_len(4096 + told).unwrap();
        let mount = vault.mount();
        assert_eq!(fs::metadata(mount.path("file")).unwrap().len(), told);
        assert_eq!(fs::read(mount.path("file")).unwrap(), [7; 900]);
        assert_eq!(fs::metadata(mount.path("file")).unwrap().len(), 900);
        mount.unmount();
    }
}

fn flip(file: &Path, _: &Path, random: &mut Random) -> io::Result<()> {
    let len = fs::metadata(file)?.len();
    let at = random.below(len.min(1 << 20));
    let file = OpenOptions::new().read(true).write(true).open(file)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[byte[0] ^ (1 << random.below(8))], at)
}

fn zero_page(file: &Path, _: &Path, random: &mut Random) -> io::Result<()> {
    let page = random.below(pages(file)?);
    OpenOptions::new().write(true).open(file)?.write_all_at(&[0; 4096], page * 4096)
}

fn swap_pages(file: &Path, _: &Path, random: &mut Random) -> io::Result<()> {
    let count = pages(file)?;
    let (one, two) = (random.below(count), random.below(count));
    copy_page(file, one, file, two)
}

fn foreign_page(file: &Path, other: &Path, random: &mut Random) -> io::Result<()> {
    let page = random.below(pages(file)?.min(pages(other)?));
    copy_page(other, page, file, page)
}

fn foreign_header(file: &Path, other: &Path, _: &mut Random) -> io::Result<()> {
    copy_page(other, 0, file, 0)
}

fn cut(file: &Path, _: &Path, random: &mut Random) -> io::Result<()> {
    let page = 1 + random.below(pages(file)?.max(2) - 1);
    OpenOptions::new().write(true).open(file)?.set_len(page * 4096)
}

fn append(file: &Path, _: &Path, random: &mut Random) -> io::Result<()> {
    let len = fs::metadata(file)?.len();
    let bytes = random.bytes(5000);
    OpenOptions::new().write(true).open(file)?.write_all_at(&bytes, len)
}

fn replace(file: &Path, other: &Path, _: &mut Random) -> io::Result<()> {
    fs::copy(other, file).map(|_| ())
}

fn pages(file: &Path) -> io::Result<u64> {
    Ok((fs::metadata(file)?.len() / 4096).max(1))
}

fn copy_page(from: &Path, from_page: u64, to: &Path, to_page: u64) -> io::Result<()> {
    let mut page = [0; 4096];
    fs::File::open(from)?.read_exact_at(&mut page, from_page * 4096)?;
    OpenOptions::new().write(true).open(to)?.write_all_at(&page, to_page * 4096)
}

/// The ciphertext files of user files: everything but the volume's own.
fn ciphertexts(store: &Path) -> Vec<PathBuf> {
    let own = |file: &PathBuf| {
        file.components().any(|part| part.as_os_str().to_string_lossy().starts_with(".kmsfs"))
    };
    let mut files: Vec<PathBuf> = files_below(store);
    files.retain(|file| !own(&file.strip_prefix(store).unwrap().to_owned()));
    files.sort();
    files
}

fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

fn copy_file(pristine: &Path, store: &Path, target: &Path) {
    fs::copy(pristine.join(target.strip_prefix(store).unwrap()), target).unwrap();
}

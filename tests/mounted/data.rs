//! What reading and writing promise: sharing, appending, holes, sizes, mapping, direct I/O.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::thread;

use rustix::fs::{FallocateFlags, SeekFrom as Whence, copy_file_range, fallocate, seek};

use crate::harness::{Shell, Vault, program};
use crate::random::{Random, seed};

fn open_all(path: impl AsRef<std::path::Path>) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

/// Files that were just closed stay open for a while, and took all descriptors that there were.
#[test]
fn regression_files_that_are_closed_leave_descriptors_for_others() {
    let prlimit = program("prlimit").to_string_lossy().into_owned();
    let prefix = vec![prlimit, "--nofile=200:200".to_owned(), "--".to_owned()];
    let vault = Vault::new("descriptors").within(prefix);
    let mount = vault.mount();
    for number in 0..400 {
        fs::write(mount.path(number.to_string()), "contents").unwrap();
    }
    for number in 0..400 {
        assert_eq!(fs::read(mount.path(number.to_string())).unwrap(), b"contents");
    }
}

#[test]
fn shared_and_private_mappings() {
    let vault = Vault::new("mmap");
    let mount = vault.mount();
    let script = r"
import mmap, os
size = 50000
open('m', 'wb').write(bytes(range(256)) * (size // 256) + b'x' * (size % 256))
fd = os.open('m', os.O_RDWR)
shared, other = mmap.mmap(fd, size), mmap.mmap(fd, size)
private = mmap.mmap(fd, size, flags=mmap.MAP_PRIVATE)
shared[4090:4100] = b'0123456789'
assert other[4090:4100] == b'0123456789'
assert os.pread(fd, 10, 4090) == b'0123456789', 'read does not see the mapping'
private[0:4] = b'mine'
assert shared[0:4] != b'mine' and os.pread(fd, 4, 0) != b'mine'
os.pwrite(fd, b'written', 20000)
assert shared[20000:20007] == b'written', 'the mapping does not see the write'
shared[size - 3:size] = b'end'
shared.flush()
os.ftruncate(fd, size + 9000)
assert os.pread(fd, 9003, size - 3) == b'end' + bytes(9000), 'bytes past the old end show up'
shared.close(); other.close(); private.close(); os.close(fd)
again = open('m', 'rb').read()
assert again[4090:4100] == b'0123456789' and again[size - 3:size] == b'end' and again[:4] == bytes([0, 1, 2, 3])
";
    fs::write(mount.path("map.py"), script).unwrap();
    Shell::new(mount.root()).run("python3 map.py");
    let before = fs::read(mount.path("m")).unwrap();
    mount.unmount();
    let mount = vault.mount();
    assert!(fs::read(mount.path("m")).unwrap() == before, "the mapping's writes are lost");
}

/// The kernel does not drop the pages that it has cached of the range when such a write is done.
#[test]
fn regression_asynchronous_direct_writes_leave_no_old_bytes_in_the_cache() {
    let vault = Vault::new("direct");
    let mount = vault.mount();
    fs::write(vault.outside("direct.py"), include_str!("direct.py")).unwrap();
    let script = vault.outside("direct.py");
    Shell::new(mount.root()).var("SCRIPT", script).run("python3 \"$SCRIPT\" file 3000");
}

#[test]
fn direct_io_reads_and_writes_what_cached_io_sees() {
    let vault = Vault::new("direct");
    let mount = vault.mount();
    let shell = Shell::new(mount.root());
    shell.run(
        "head -c 3000000 /dev/urandom > ../in
         dd if=../in of=a bs=64k oflag=direct status=none; cmp ../in a
         dd if=a of=../out bs=128k iflag=direct status=none; cmp ../in ../out
         dd if=../in of=b bs=4096 oflag=direct status=none; dd if=b bs=4096 iflag=direct status=none | cmp ../in
         dd if=/dev/zero of=a bs=4096 seek=3 count=2 oflag=direct conv=notrunc status=none
         dd if=/dev/zero of=../in bs=4096 seek=3 count=2 conv=notrunc status=none; cmp ../in a",
    );
}

#[test]
fn appends_from_several_handles_never_overwrite_each_other() {
    let vault = Vault::new("append");
    let mount = vault.mount();
    let path = mount.path("log");
    let writers: Vec<_> = (0..4u8)
        .map(|id| {
            let path = path.clone();
            thread::spawn(move || {
                let mut log = OpenOptions::new().append(true).create(true).open(path).unwrap();
                for line in 0..250 {
                    log.write_all(format!("{id} {line:04} {}\n", "x".repeat(line % 90)).as_bytes())
                        .unwrap();
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 1000);
    for id in 0..4u8 {
        let own: Vec<&str> = text.lines().filter(|l| l.starts_with(&format!("{id} "))).collect();
        assert_eq!(own.len(), 250, "lines of writer {id}");
        assert!(own.is_sorted(), "the lines of writer {id} are out of order");
    }
}

#[test]
fn two_handles_see_each_others_writes_and_truncations() {
    let vault = Vault::new("handles");
    let mount = vault.mount();
    let one = open_all(mount.path("f"));
    let two = open_all(mount.path("f"));
    one.write_all_at(&[7; 10_000], 0).unwrap();
    let mut seen = vec![0; 10_000];
    two.read_exact_at(&mut seen, 0).unwrap();
    assert!(seen.iter().all(|byte| *byte == 7));
    two.set_len(5000).unwrap();
    assert_eq!(one.metadata().unwrap().len(), 5000);
    assert_eq!(one.read_at(&mut seen, 4000).unwrap(), 1000);
    one.write_all_at(b"far", 6000).unwrap();
    two.read_exact_at(&mut seen[..1003], 5000).unwrap();
    assert!(seen[..1000].iter().all(|byte| *byte == 0), "the gap is not zero");
    assert_eq!(&seen[1000..1003], b"far");
}

#[test]
fn sparse_files_beyond_4_gib_cost_no_space() {
    let vault = Vault::new("sparse");
    let mount = vault.mount();
    let file = open_all(mount.path("big"));
    let spots = [0u64, 4096, (1 << 32) - 3, (1 << 32) + 12_345, (5 << 32) + 7, (1 << 40) + 1];
    for spot in spots {
        file.write_all_at(format!("at {spot}").as_bytes(), spot).unwrap();
    }
    file.sync_all().unwrap();
    let meta = file.metadata().unwrap();
    assert_eq!(meta.len(), (1 << 40) + 1 + format!("at {}", (1u64 << 40) + 1).len() as u64);
    assert!(meta.blocks() * 512 < 4 << 20, "{} blocks are not sparse", meta.blocks());
    drop(file);
    mount.unmount();
    let mount = vault.mount();
    let file = File::open(mount.path("big")).unwrap();
    for spot in spots {
        let mut seen = vec![0; format!("at {spot}").len()];
        file.read_exact_at(&mut seen, spot).unwrap();
        assert_eq!(String::from_utf8_lossy(&seen), format!("at {spot}"));
    }
    let mut gap = [1; 5000];
    file.read_exact_at(&mut gap, 1 << 39).unwrap();
    assert!(gap.iter().all(|byte| *byte == 0));
}

#[test]
fn holes_and_data_are_found_by_seeking() {
    let vault = Vault::new("seek");
    let mount = vault.mount();
    let file = open_all(mount.path("f"));
    let data = 8u64 << 20;
    file.write_all_at(&[1; 4096], data).unwrap();
    file.set_len(16 << 20).unwrap();
    file.sync_all().unwrap();
    let found = seek(&file, Whence::Data(0)).unwrap();
    assert!(found <= data && found > 0, "data found at {found}");
    let hole = seek(&file, Whence::Hole(data)).unwrap();
    assert!(hole > data && hole < 16 << 20, "hole found at {hole}");
    assert_eq!(seek(&file, Whence::Hole(0)).unwrap(), 0);
    assert!(seek(&file, Whence::Data(16 << 20)).is_err(), "data past the end");
}

#[test]
fn fallocate_reserves_punches_and_zeroes() {
    let vault = Vault::new("fallocate");
    let mount = vault.mount();
    let file = open_all(mount.path("f"));
    let mut expected = Random::new(1).bytes(900_000);
    file.write_all_at(&expected, 0).unwrap();
    let keep = FallocateFlags::KEEP_SIZE;
    fallocate(&file, keep, 900_000, 500_000).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 900_000);
    for (offset, len) in [(0, 10), (4000, 300), (8192, 4096), (100_001, 400_000), (899_000, 5000)] {
        fallocate(&file, FallocateFlags::PUNCH_HOLE | keep, offset, len).unwrap();
        let (start, end) =
            (usize::try_from(offset).unwrap(), usize::try_from(offset + len).unwrap());
        expected[start..end.min(900_000)].fill(0);
    }
    fallocate(&file, FallocateFlags::ZERO_RANGE, 895_000, 10_000).unwrap();
    expected[895_000..].fill(0);
    expected.resize(905_000, 0);
    fallocate(&file, FallocateFlags::empty(), 905_000, 45_000).unwrap();
    expected.resize(950_000, 0);
    fallocate(&file, FallocateFlags::ZERO_RANGE | keep, 600_000, 1_000_000).unwrap();
    expected[600_000..].fill(0);
    file.sync_all().unwrap();
    assert!(fs::read(mount.path("f")).unwrap() == expected);
    let blocks = file.metadata().unwrap().blocks() * 512;
    assert!(blocks < 2 << 20, "punched ranges still use {blocks} bytes");
    drop(file);
    mount.unmount();
    let mount = vault.mount();
    assert!(fs::read(mount.path("f")).unwrap() == expected, "after a remount");
}

#[test]
fn copy_file_range_copies_within_and_between_files() {
    let vault = Vault::new("copyrange");
    let mount = vault.mount();
    let from = open_all(mount.path("from"));
    let to = open_all(mount.path("to"));
    let bytes = Random::new(2).bytes(300_000);
    from.write_all_at(&bytes, 0).unwrap();
    let (mut source, mut target) = (1000, 77);
    while source < 250_000 {
        let left = usize::try_from(250_000 - source).unwrap();
        assert!(
            copy_file_range(&from, Some(&mut source), &to, Some(&mut target), left).unwrap() > 0
        );
    }
    let copied = fs::read(mount.path("to")).unwrap();
    assert!(copied[77..] == bytes[1000..250_000]);
    assert!(copied[..77].iter().all(|byte| *byte == 0));
}

#[test]
fn truncating_and_growing_again_shows_zeros() {
    let vault = Vault::new("truncate");
    let mount = vault.mount();
    let path = mount.path("f");
    let mut random = Random::new(seed("truncate"));
    let file = open_all(&path);
    let mut model: Vec<u8> = Vec::new();
    for _ in 0..150 {
        let len = random.index(20_000);
        match random.below(3) {
            0 => model.resize(len, 0),
            1 => {
                let bytes = random.bytes(len.min(6000));
                let at = random.index(20_000);
                model.resize(model.len().max(at + bytes.len()), 0);
                model[at..at + bytes.len()].copy_from_slice(&bytes);
                file.write_all_at(&bytes, at as u64).unwrap();
            }
            _ => {
                model.truncate(random.index(model.len() + 1));
            }
        }
        file.set_len(model.len() as u64).unwrap();
        assert_eq!(file.metadata().unwrap().len(), model.len() as u64);
        if random.one_in(8) {
            drop_caches(&vault);
        }
        assert!(fs::read(&path).unwrap() == model, "contents after a change of size");
    }
}

/// Makes the kernel forget what it cached, as far as this user may.
fn drop_caches(vault: &Vault) {
    let _ = fs::write("/proc/sys/vm/drop_caches", "1");
    let _ = vault;
}

#[test]
fn a_file_opened_with_o_trunc_is_empty_and_usable() {
    let vault = Vault::new("otrunc");
    let mount = vault.mount();
    let path = mount.path("f");
    fs::write(&path, Random::new(3).bytes(100_000)).unwrap();
    let reader = File::open(&path).unwrap();
    let mut writer = OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
    assert_eq!(reader.metadata().unwrap().len(), 0);
    writer.write_all(b"new").unwrap();
    let mut text = String::new();
    (&reader).read_to_string(&mut text).unwrap();
    assert_eq!(text, "new");
    writer.seek(SeekFrom::Start(10)).unwrap();
    writer.write_all(b"er").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new\0\0\0\0\0\0\0er");
}

#[test]
fn o_sync_and_o_dsync_writes_work() {
    let vault = Vault::new("osync");
    let mount = vault.mount();
    for (name, flag) in [("sync", libc::O_SYNC), ("dsync", libc::O_DSYNC)] {
        let path = mount.path(name);
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(flag)
            .open(&path)
            .unwrap();
        for _ in 0..20 {
            file.write_all(&[9; 1000]).unwrap();
        }
        assert_eq!(fs::read(&path).unwrap(), vec![9; 20_000]);
    }
}

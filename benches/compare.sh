#!/usr/bin/env bash
# Compares kmsfs with gocryptfs and the plain backing directory: the same workloads, one after the
# other in interleaved rounds, so that what else the machine does hits all of them alike. Prints
# the median of each and the ratio to gocryptfs. Needs root (it drops caches), fuse3, python3 and,
# for the comparison, gocryptfs; without it only kmsfs and the plain directory are measured.
#
#   cargo build --release && benches/compare.sh [DIRECTORY] [ROUNDS]
set -euo pipefail
cd "$(dirname "$0")/.."
kmsfs="${KMSFS_BIN:-$PWD/target/release/kmsfs}"
[ -x "$kmsfs" ] || { echo "compare: build first: cargo build --release" >&2; exit 1; }
work="$(mktemp -d "${1:-/var/tmp}/kmsfs-bench.XXXXXX")"
rounds="${2:-5}"
peers=(plain kmsfs)
command -v gocryptfs >/dev/null && peers+=(gocryptfs)

mkdir -p "$work"/{plain,kmsfs,gocryptfs,gocryptfs.store}
cleanup() {
    "$kmsfs" --keystore "$work/keystore.db" umount "$work/kmsfs" 2>/dev/null || true
    mountpoint -q "$work/gocryptfs" && fusermount3 -u "$work/gocryptfs"
    rm -rf "$work"
}
trap cleanup EXIT
"$kmsfs" --keystore "$work/keystore.db" --key-file "$work/key" \
    mount --create "$work/kmsfs.store" "$work/kmsfs" 2>/dev/null
if [ ${#peers[@]} = 3 ]; then
    echo bench >"$work/password"
    gocryptfs -q -init -passfile "$work/password" "$work/gocryptfs.store"
    gocryptfs -q -passfile "$work/password" "$work/gocryptfs.store" "$work/gocryptfs"
fi

cat >"$work/workload.py" <<'PYTHON'
"""One workload in one directory: prints a rate; higher is better."""
import os, random, shutil, sys, time

name, directory = sys.argv[1:3]
MIB = 1 << 20
SIZE, FILES, RANDOM, OPENS = 512 * MIB, 4000, 4000, 10000
path = lambda *parts: os.path.join(directory, *parts)

def cold():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as control:
        control.write("3")

def small(number):
    return path("small", str(number % 40), str(number))

def seq_write():
    block = os.urandom(MIB)
    start = time.perf_counter()
    with open(path("big"), "wb", buffering=0) as file:
        for _ in range(SIZE // MIB):
            file.write(block)
        os.fsync(file.fileno())
    return SIZE / MIB / (time.perf_counter() - start)

def seq_read_cold():
    cold()
    return read_all()

def seq_read_warm():
    read_all()
    return read_all()

def read_all():
    start = time.perf_counter()
    with open(path("big"), "rb", buffering=0) as file:
        while file.read(MIB):
            pass
    return SIZE / MIB / (time.perf_counter() - start)

def create_small():
    shutil.rmtree(path("small"), ignore_errors=True)
    for number in range(40):
        os.makedirs(path("small", str(number)))
    data = os.urandom(4096)
    start = time.perf_counter()
    for number in range(FILES):
        with open(small(number), "wb", buffering=0) as file:
            file.write(data)
    return FILES / (time.perf_counter() - start)

def read_small_cold():
    cold()
    start = time.perf_counter()
    for number in range(FILES):
        with open(small(number), "rb", buffering=0) as file:
            file.read()
    return FILES / (time.perf_counter() - start)

def stat_cold():
    cold()
    start = time.perf_counter()
    count = sum(len(files) for _, _, files in os.walk(path("small")))
    for number in range(FILES):
        os.stat(small(number))
    return count / (time.perf_counter() - start)

def random_write_fsync():
    data = os.urandom(4096)
    rng = random.Random(7)
    with open(path("big"), "r+b", buffering=0) as file:
        start = time.perf_counter()
        for number in range(RANDOM):
            file.seek(rng.randrange(SIZE // 4096) * 4096)
            file.write(data)
            if number % 32 == 31:
                os.fsync(file.fileno())
        os.fsync(file.fileno())
        return RANDOM / (time.perf_counter() - start)

def random_read_cold():
    cold()
    rng = random.Random(8)
    with open(path("big"), "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        start = time.perf_counter()
        for _ in range(RANDOM):
            os.pread(file.fileno(), 4096, rng.randrange(SIZE // 4096) * 4096)
        return RANDOM / (time.perf_counter() - start)

def open_read_close():
    name = small(7)
    start = time.perf_counter()
    for _ in range(OPENS):
        file = os.open(name, os.O_RDONLY)
        os.read(file, 4096)
        os.close(file)
    return OPENS / (time.perf_counter() - start)

def remove_small():
    start = time.perf_counter()
    shutil.rmtree(path("small"))
    return FILES / (time.perf_counter() - start)

print(globals()[name]())
PYTHON

# Order matters: later workloads use the files of earlier ones.
workloads=(seq_write seq_read_cold seq_read_warm random_read_cold random_write_fsync
    create_small read_small_cold stat_cold open_read_close remove_small)
for ((round = 0; round < rounds; round++)); do
    for workload in "${workloads[@]}"; do
        for ((turn = 0; turn < ${#peers[@]}; turn++)); do
            peer="${peers[(turn + round) % ${#peers[@]}]}"
            printf '%s %s %s\n' "$workload" "$peer" \
                "$(python3 "$work/workload.py" "$workload" "$work/$peer")" >>"$work/results"
        done
    done
    echo "round $((round + 1)) of $rounds done" >&2
done

python3 - "$work/results" <<'PYTHON'
import statistics, sys
results, order = {}, []
for line in open(sys.argv[1]):
    workload, peer, rate = line.split()
    if workload not in order:
        order.append(workload)
    results.setdefault((workload, peer), []).append(float(rate))
units = {"seq": "MiB/s", "random": "ops/s", "open": "opens/s"}
peers = ["plain", "kmsfs", "gocryptfs"]
print(f"{'median (min-max)':22}" + "".join(f"{peer:>26}" for peer in peers) + "  kmsfs/gocryptfs")
for workload in order:
    cells, medians = "", {}
    for peer in peers:
        rates = results.get((workload, peer))
        if rates:
            medians[peer] = statistics.median(rates)
            cells += f"{medians[peer]:>10.0f} ({min(rates):.0f}-{max(rates):.0f})".rjust(26)
        else:
            cells += "-".rjust(26)
    ratio = medians["kmsfs"] / medians["gocryptfs"] if "gocryptfs" in medians else float("nan")
    unit = units.get(workload.split("_")[0], "files/s")
    print(f"{workload + ' ' + unit:22.22}{cells}  {ratio:.2f}")
PYTHON

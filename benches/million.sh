#!/usr/bin/env bash
# Makes a million files (or COUNT) through a mount, looks at each of them, and prints the rates and
# the daemon's memory. Not part of the tests: it takes minutes and a gigabyte of disk.
#
#   cargo build --release && benches/million.sh [DIRECTORY] [COUNT]
set -euo pipefail
cd "$(dirname "$0")/.."
kmsfs="${KMSFS_BIN:-$PWD/target/release/kmsfs}"
[ -x "$kmsfs" ] || { echo "million: build first: cargo build --release" >&2; exit 1; }
work="$(mktemp -d "${1:-/var/tmp}/kmsfs-million.XXXXXX")"
count="${2:-1000000}"
cleanup() {
    kill "$daemon" 2>/dev/null && wait "$daemon" || true
    rm -rf "$work"
}
mkdir "$work/mnt"
"$kmsfs" --keystore "$work/keystore.db" --key-file "$work/key" \
    mount --create --foreground "$work/vault" "$work/mnt" 2>"$work/log" &
daemon=$!
trap cleanup EXIT
until mountpoint -q "$work/mnt"; do sleep 0.1; done

memory() {
    awk -v what="$1" '/^VmRSS|^VmHWM/ { printf "%s %s %.1f MiB\n", what, $1, $2 / 1024 }' \
        "/proc/$daemon/status"
    printf '%s open descriptors: %s\n' "$1" "$(ls "/proc/$daemon/fd" | wc -l)"
}
memory "mounted:"
python3 - "$work/mnt" "$count" <<'PYTHON'
import os, sys, time
root, count = sys.argv[1], int(sys.argv[2])
PER_DIRECTORY = 1000
start = time.perf_counter()
for number in range(count):
    if number % PER_DIRECTORY == 0:
        directory = os.path.join(root, f"directory {number // PER_DIRECTORY}")
        os.mkdir(directory)
    os.close(os.open(os.path.join(directory, f"file {number}"), os.O_CREAT | os.O_WRONLY))
print(f"created {count} files: {count / (time.perf_counter() - start):.0f} per second")
start = time.perf_counter()
for number in range(count):
    os.stat(os.path.join(root, f"directory {number // PER_DIRECTORY}", f"file {number}"))
print(f"looked at {count} files: {count / (time.perf_counter() - start):.0f} per second")
start = time.perf_counter()
seen = sum(1 for entry in os.scandir(root) for file in os.scandir(entry.path) if file.stat())
print(f"listed {seen} files with attributes: {seen / (time.perf_counter() - start):.0f} per second")
PYTHON
memory "after $count files:"
echo 2 >/proc/sys/vm/drop_caches 2>/dev/null && sleep 2 && memory "after the kernel forgot them:"

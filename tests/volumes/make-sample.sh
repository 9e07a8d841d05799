#!/usr/bin/env bash
# Makes a sample volume with the program of today: make-sample.sh KMSFS DIRECTORY
set -euo pipefail
kmsfs=$(realpath "$1")
out=$2
mkdir -p "$out"
out=$(realpath "$out")
mnt=$(mktemp -d)
export KMSFS_KEYSTORE="$out/keystore.db" KMSFS_KEY_FILE="$out/key"
"$kmsfs" mount --create "$out/vault" "$mnt"
fill() { # fill SIZE FILE: bytes that can be computed again
    python3 -c 'import sys; n = int(sys.argv[1]); sys.stdout.buffer.write(bytes((i * 7 + (i >> 8)) & 255 for i in range(n)))' "$1" >"$2"
}
for size in 0 1 3028 3029 4052 4096 4097 147456 147457 200000; do
    fill "$size" "$mnt/size-$size"
done
"$kmsfs" key create --alias alias/second >/dev/null
mkdir "$mnt/second"
"$kmsfs" policy set "$mnt/second" --key alias/second >/dev/null
fill 5000 "$mnt/second/under-another-key"
fill 10 "$mnt/$(printf 'long-%.0s' {1..48})"
ln -s "a target that nobody may read" "$mnt/link"
python3 - "$mnt/sparse" <<'PY'
import sys
with open(sys.argv[1], "wb") as f:
    f.write(b"start")
    f.seek(300000)
    f.write(b"end")
PY
"$kmsfs" key rotate alias/kmsfs/default >/dev/null
fill 4096 "$mnt/after-rotation"
"$kmsfs" umount "$mnt"
rmdir "$mnt"
rm -f "$out"/keystore.db-wal "$out"/keystore.db-shm
chmod 600 "$out/key" "$out/keystore.db"

#!/usr/bin/env bash
# Runs a suite of others on a mount of its own, as root, and checks the vault afterwards:
#
#   tests/suites.sh stress-ng [SECONDS]     the filesystem stressors, one after the other, each so long (5)
#   tests/suites.sh xfstests [TEST...]      -g quick of the generic ones, or these
#   tests/suites.sh ltp [TAG...]            those of runtest/fs that look at a filesystem, or these
#
# stress-ng is a package. The two others are built already: $XFSTESTS is the tree of xfstests-dev after
# make, with a user fsgqa, and $LTP is where LTP was installed, at least of its testcases/kernel/fs,
# testcases/kernel/io/writetest, testcases/lib and runtest. $KMSFS_BIN is another binary than target/debug/kmsfs, $KMSFS_SUITE_OPTIONS are
# options of the mount. The vaults are on an ext4 of their own, since tests fill it: 16 GiB at most of
# $KMSFS_SUITE_DIR (/var/tmp). What fails is printed last; it is an
# error unless docs/SEMANTICS.md knows of it (KNOWN below).
set -euo pipefail
cd "$(dirname "$0")/.."

# In mounts of its own: another mount namespace that is made meanwhile would hold on to them.
if [ -z "${KMSFS_SUITE_ALONE:-}" ]; then
    KMSFS_SUITE_ALONE=1 exec unshare --mount --propagation private "$0" "$@"
fi
suite=${1:?usage: tests/suites.sh stress-ng|xfstests|ltp [...]}
shift
kmsfs=$(realpath "${KMSFS_BIN:-target/debug/kmsfs}")
options=allow_other,suid,dev${KMSFS_SUITE_OPTIONS:+,$KMSFS_SUITE_OPTIONS}
work=$(mktemp -d "${KMSFS_SUITE_DIR:-/var/tmp}/kmsfs-suite.XXXXXX")
export KMSFS_KEYSTORE=$work/keystore
helpers=(/sbin/mount.fuse.kmsfs /sbin/umount.fuse.kmsfs)

finish() {
    for place in test scratch; do
        mountpoint -q "$work/$place" && "$kmsfs" umount --lazy "$work/$place"
    done
    ! mountpoint -q "$work/disk" || umount --lazy "$work/disk"
    [ ! -e "$work/linked" ] || rm -f "${helpers[@]}"
    rm -rf "$work"
}
trap finish EXIT

# Other users reach the mounts, and not the vaults.
chmod 711 "$work"
mkdir "$work/disk" "$work/test" "$work/scratch"
truncate -s 16G "$work/image"
mkfs.ext4 -q -F "$work/image"
mount -o loop "$work/image" "$work/disk"
mkdir -m 700 "$work/disk/private"
(umask 077; head -c 32 /dev/urandom | base64 >"$work/key")
for place in test scratch; do
    "$kmsfs" --key-file "$work/key" mount --create -o "$options" "$work/disk/private/$place" "$work/$place"
    # As the vault's directory is then, in one that nobody else may enter.
    chmod 755 "$work/$place"
    "$kmsfs" umount "$work/$place"
done
mounted() {
    "$kmsfs" --key-file "$work/key" mount -o "$options" "$work/disk/private/test" "$work/test"
}

stress() {
    mounted
    # Without these: they mount, or look at other filesystems.
    local result=0
    stress-ng --class filesystem --sequential 1 --timeout "${1:-5}" --verify --temp-path "$work/test" \
        --exclude bind-mount,binderfs >"$work/out" 2>&1 || result=$?
    grep -E 'fail:|error:|skipping|run completed' "$work/out" || true
    sed -n 's/.*\(fail\|error\): *\[[0-9]*\] \([a-z-]*\):.*/\2/p' "$work/out" | sort -u >"$work/failed"
    [ $result = 0 ] || [ -s "$work/failed" ] || echo "stress-ng itself ($result)" >"$work/failed"
}

xfstests() {
    if [ ! -e "${helpers[0]}" ]; then
        touch "$work/linked"
        # mount(8) keeps suid and dev to itself, which are its defaults.
        printf '#!/bin/bash\nexec -a "$0" %s "$@" %s\n' "$kmsfs" '-o suid,dev' >"${helpers[0]}"
        chmod +x "${helpers[0]}"
        ln -sf "$kmsfs" "${helpers[1]}"
    fi
    # It takes a filesystem of FUSE for one of that type alone, and unmounts by the source, which is no
    # directory there.
    mkdir "$work/bin"
    printf '#!/bin/sh\n%s "$@" | sed "s/ fuse[.]kmsfs / fuse /"\n' "$(command -v df)" >"$work/bin/df"
    cat >"$work/bin/umount" <<UMOUNT
#!/bin/bash
for word; do
    [[ \$word != $work/disk/private/* ]] || word=$work/\${word##*/}
    words+=("\$word")
done
exec $(command -v umount) "\${words[@]}"
UMOUNT
    chmod +x "$work"/bin/*
    cat >"$work/config" <<CONFIG
export FSTYP=fuse FUSE_SUBTYP=.kmsfs
export TEST_DEV=$work/disk/private/test TEST_DIR=$work/test
export SCRATCH_DEV=$work/disk/private/scratch SCRATCH_MNT=$work/scratch
export MOUNT_OPTIONS="-o key-file=$work/key,$options"
export TEST_FS_MOUNT_OPTS="-o key-file=$work/key,$options"
CONFIG
    local tests=("$@")
    [ $# -gt 0 ] || tests=(-g quick)
    (cd "${XFSTESTS:?the tree of xfstests}" && RESULT_BASE=$work/results HOST_OPTIONS=$work/config \
        PATH=$work/bin:$PATH ./check -fuse "${tests[@]}") | tee "$work/out" || true
    sed -nE '/\[not run\]/d; s/^(generic\/[0-9]+) .*(mismatch|\[failed|timed out).*/\1/p' "$work/out" \
        >"$work/failed"
    grep -q '^Passed all\|^Failed [0-9]* of' "$work/out" || echo "the run itself" >>"$work/failed"
    "$kmsfs" umount "$work/test" "$work/scratch" 2>/dev/null || true
}

ltp() {
    mounted
    local tag command passed=0 skipped=0
    export LTPROOT=${LTP:?where LTP is installed} TMPDIR=$work/test
    export PATH=$PATH:$LTPROOT/testcases/bin
    : >"$work/failed"
    while read -r tag command; do
        [ $# -eq 0 ] || [[ " $* " == *" $tag "* ]] || continue
        local result=0
        (cd "$TMPDIR" && timeout -k 5 300 bash -c "$command") </dev/null >"$work/out" 2>&1 || result=$?
        case $result in
            0) passed=$((passed + 1)) ;;
            32) skipped=$((skipped + 1)) ;;
            *) echo "$tag" >>"$work/failed"; echo "--- $tag: $result"; tail -n 5 "$work/out" ;;
        esac
    done < <(grep -vE '^(#|$|proc01|read_all|quota|isofs|binfmt|squashfs|fs_fill)' "$LTPROOT/runtest/fs")
    unset TMPDIR
    echo "$passed passed, $skipped skipped"
}

# What is known to fail, and stands in docs/SEMANTICS.md or is the machine's.
declare -A known=(
    [stress-ng]=''
    [xfstests]='generic/020 generic/394 generic/424 generic/452 generic/564'
    [ltp]=''
)

case $suite in
    stress-ng) stress "$@" ;;
    xfstests) xfstests "$@" ;;
    ltp) ltp "$@" ;;
    *) echo "suites: no such suite: $suite" >&2; exit 2 ;;
esac

for place in test scratch; do
    ! mountpoint -q "$work/$place" || "$kmsfs" umount --timeout 120 "$work/$place"
    "$kmsfs" --key-file "$work/key" fsck "$work/disk/private/$place"
done
new=$(grep -vxF "$(tr ' ' '\n' <<<"${known[$suite]:-none}")" "$work/failed" || true)
[ -z "$new" ] || { echo "suites: these failed:" $new >&2; exit 1; }
echo "suites: nothing failed that is not known to"

#!/usr/bin/env bash
# Boots a Debian tree in a container, with systemd as its init, and sees that kmsfs@.service mounts
# a vault at boot, that a file is there, that a restart keeps it, and that stopping is clean; the same
# for a line of fstab, through the mount helper; and that kmsfs-kms.socket starts the endpoint for a
# vault that takes its keys from there, and kmsfs-maintain.timer the maintenance.
#
# Needs root, debootstrap and systemd-container. Usage: tests/boot.sh [path of the kmsfs binary]
# The tree is kept in $KMSFS_BOOT_TREE (default: below /var/tmp) and used again the next time.
set -euo pipefail
cd "$(dirname "$0")/.."

kmsfs=$(realpath "${1:-target/debug/kmsfs}")
tree=${KMSFS_BOOT_TREE:-/var/tmp/kmsfs-boot-tree}
work=$(mktemp -d /var/tmp/kmsfs-boot.XXXXXX)
trap 'rm -rf "$work"' EXIT

fail() {
    echo "boot test: $*" >&2
    echo "--- console" >&2; tail -n 40 "$work/console" >&2 || true
    echo "--- results" >&2; cat "$tree/results" >&2 || true
    exit 1
}

# A command of the tree, with /proc.
inside() {
    unshare --mount sh -c 'mount --bind /proc "$0/proc" && exec chroot "$0" "$@"' "$tree" "$@"
}

# The machine's own Debian archive and release, as apt has them.
if [ ! -x "$tree/usr/lib/systemd/systemd" ]; then
    release=$(. /etc/os-release && echo "$VERSION_CODENAME")
    mirror=$(apt-get indextargets --format '$(SITE) $(CODENAME)' \
        | awk -v release="$release" '$2 == release { print $1; exit }')
    debootstrap --variant=minbase --include=systemd,systemd-sysv,fuse3 "$release" "$tree" "$mirror"
fi

# A vault, its keystore and its key, as an administrator would prepare them.
rm -rf "$tree"/srv/vault* "$tree"/srv/data* "$tree"/var/lib/kmsfs "$tree"/etc/kmsfs "$tree"/results
install -m 755 "$kmsfs" "$tree/usr/bin/kmsfs"
install -d -m 700 "$tree/etc/kmsfs"
install -d "$tree/srv/data" "$tree/srv/data2"
ln -sf /usr/bin/kmsfs "$tree/sbin/mount.fuse.kmsfs"
echo "/srv/vault2 /srv/data2 fuse.kmsfs key-file=/etc/kmsfs/data.key,allow_other,nofail 0 0" \
    > "$tree/etc/fstab"
cat > "$tree/etc/kmsfs/data.conf" <<'CONF'
VAULT=/srv/vault
MOUNTPOINT=/srv/data
OPTIONS=allow_other
CONF
inside /usr/bin/kmsfs --key-file /etc/kmsfs/data.key keystore init --create-key-file
inside /usr/bin/kmsfs --key-file /etc/kmsfs/data.key init /srv/vault
inside /usr/bin/kmsfs --key-file /etc/kmsfs/data.key init /srv/vault2
for name in kms keystore; do
    install -m 600 "$tree/etc/kmsfs/data.key" "$tree/etc/kmsfs/$name.key"
done
inside /usr/bin/kmsfs --key-file /etc/kmsfs/data.key access-key create --root \
    --for-volumes --credentials-file /etc/kmsfs/kms.aws
# The drop-in for keys from an endpoint is the one that the unit file shows.
install -m 600 "$tree/etc/kmsfs/kms.aws" "$tree/etc/kmsfs/remote.aws"
echo "OPTIONS=--listen 127.0.0.1:18350" > "$tree/etc/kmsfs/kms.conf"
cat > "$tree/etc/kmsfs/remote.conf" <<'CONF'
VAULT=/srv/vault4
MOUNTPOINT=/srv/data4
OPTIONS=kms=http://127.0.0.1:18350
CONF
install -d "$tree/etc/systemd/system/kmsfs@remote.service.d" "$tree/srv/data4"
sed -n '/^#     \[Unit\]/,/AF_INET6$/s/^#     //p' "systemd/kmsfs@.service" \
    > "$tree/etc/systemd/system/kmsfs@remote.service.d/kms.conf"
chroot "$tree" groupadd --system --force kmsfs
install -m 644 systemd/kmsfs* "$tree/etc/systemd/system/"
units=$(cd systemd && printf '/etc/systemd/system/%s ' kmsfs*)
# shellcheck disable=SC2086 # one word for each unit
complaints=$(chroot "$tree" systemd-analyze verify $units 2>&1 || true)
[ -z "$complaints" ] || { echo "$complaints" >&2; exit 1; }
# A tree that never booted asks for its first settings otherwise.
echo boot-test > "$tree/etc/hostname"
systemd-machine-id-setup --root="$tree" >/dev/null 2>&1 || true

# What a service on the volume sees; it ends the test by switching the machine off.
cat > "$tree/usr/local/bin/boot-test" <<'TEST'
#!/bin/bash
exec > /results 2>&1
mounted() { grep -q ' /srv/data .*- fuse.kmsfs /srv/vault ' /proc/self/mountinfo; }
check() { if "${@:2}"; then echo "ok $1"; else echo "FAIL $1"; fi; }
state() { systemctl show -P "$1" kmsfs@data; }
check "mounted at boot" mounted
check "unit is active" test "$(state ActiveState)" = active
echo "kept over a restart" > /srv/data/file && sync
check "stop succeeds" systemctl stop kmsfs@data
check "stop is clean" test "$(state Result)" = success
check "unmounted after stop" eval '! mounted'
check "mountpoint is empty after stop" test -z "$(ls -A /srv/data)"
check "nothing in the clear" eval '! grep -rq "kept over" /srv/vault'
check "start succeeds" systemctl start kmsfs@data
check "file is there again" test "$(cat /srv/data/file)" = "kept over a restart"
kill -9 "$(state MainPID)"
for _ in $(seq 50); do sleep 0.2; mounted && [ -s /srv/data/file ] && break; done
check "comes back after kill -9" test "$(cat /srv/data/file)" = "kept over a restart"
check "fstab mounted at boot" grep -q ' /srv/data2 .*- fuse.kmsfs ' /proc/self/mountinfo
echo "by fstab" > /srv/data2/file
check "fstab unmounts" umount -i /srv/data2
check "fstab mounts again at once" mount /srv/data2
ln -s /usr/bin/kmsfs /sbin/umount.fuse.kmsfs
check "umount helper unmounts" umount /srv/data2
rm /sbin/umount.fuse.kmsfs
check "fstab mounts again" mount /srv/data2
check "file of fstab is there" test "$(cat /srv/data2/file)" = "by fstab"
kms=(--kms unix:/run/kmsfs-kms/kms.sock --kms-credentials /etc/kmsfs/kms.aws)
property() { systemctl show -P "$2" "$1"; }
check "socket of the endpoint is there" test "$(property kmsfs-kms.socket ActiveState)" = active
check "endpoint waits to be needed" test "$(property kmsfs-kms ActiveState)" = inactive
check "a vault takes its keys there" kmsfs init "${kms[@]}" /srv/vault3
check "endpoint was started" test "$(property kmsfs-kms ActiveState)" = active
mkdir -p /srv/data3
check "vault with such keys is mounted" kmsfs mount "${kms[@]}" /srv/vault3 /srv/data3
echo "by endpoint" > /srv/data3/file
tcp=(--kms http://127.0.0.1:18350 --kms-credentials /etc/kmsfs/kms.aws)
check "a vault takes its keys over the network" kmsfs init "${tcp[@]}" /srv/vault4
check "unit with such keys starts" systemctl start kmsfs@remote
echo "by network" > /srv/data4/file
check "unit with such keys stops" systemctl stop kmsfs@remote
check "unit with such keys starts again" systemctl start kmsfs@remote
check "its file is there" test "$(cat /srv/data4/file)" = "by network"
check "it stops" systemctl stop kmsfs@remote
check "endpoint reloads" systemctl reload kmsfs-kms
kill -9 "$(property kmsfs-kms MainPID)"
for _ in $(seq 50); do sleep 0.2; [ "$(property kmsfs-kms NRestarts)" = 1 ] && break; done
check "endpoint comes back after kill -9" test "$(property kmsfs-kms NRestarts)" = 1
check "endpoint stops" systemctl stop kmsfs-kms
check "endpoint stops cleanly" test "$(property kmsfs-kms Result)" = success
check "such a vault unmounts" kmsfs umount /srv/data3
check "the socket starts it again" kmsfs mount "${kms[@]}" /srv/vault3 /srv/data3
check "file under its keys is there" test "$(cat /srv/data3/file)" = "by endpoint"
check "it unmounts again" kmsfs umount /srv/data3
check "timer of maintenance waits" test "$(property kmsfs-maintain.timer ActiveState)" = active
check "maintenance is done" systemctl start kmsfs-maintain
check "maintenance succeeds" test "$(property kmsfs-maintain Result)" = success
journalctl -u kmsfs@data -u kmsfs@remote -u kmsfs-kms -u kmsfs-maintain --no-pager | tail -n 60
systemctl poweroff --no-block
TEST
chmod 755 "$tree/usr/local/bin/boot-test"
cat > "$tree/etc/systemd/system/boot-test.service" <<'UNIT'
[Unit]
Wants=kmsfs@data.service
After=kmsfs@data.service srv-data2.mount kmsfs-kms.socket
[Service]
Type=oneshot
TimeoutStartSec=90
ExecStart=/usr/local/bin/boot-test
[Install]
WantedBy=multi-user.target
UNIT
for unit in kmsfs@data.service boot-test.service kmsfs-kms.socket kmsfs-maintain.timer; do
    ln -sf "/etc/systemd/system/${unit/@data/@}" \
        "$tree/etc/systemd/system/multi-user.target.wants/$unit"
done

SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 timeout -k 10 180 systemd-nspawn --quiet --boot \
    --directory="$tree" --bind=/dev/fuse --capability=CAP_MKNOD,CAP_SYS_ADMIN \
    --register=no --keep-unit --console=read-only < /dev/null > "$work/console" 2>&1 \
    || fail "the container did not end by itself"

[ -s "$tree/results" ] || fail "the test inside the container did not run"
grep -E '^(ok|FAIL) ' "$tree/results"
grep -q '^FAIL ' "$tree/results" && fail "see above"
# The last stop was the poweroff: the vault must be whole and free.
read_back() { inside /usr/bin/kmsfs --key-file /etc/kmsfs/data.key cat "/srv/$1" file; }
read_back vault | grep -q "kept over a restart" || fail "the file is lost after poweroff"
read_back vault2 | grep -q "by fstab" || fail "the file of fstab is lost after poweroff"
echo "boot test: all well"

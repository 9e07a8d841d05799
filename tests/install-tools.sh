#!/usr/bin/env bash
# Installs what `.ci/run` and the tests drive: programs from the distribution (Debian or Ubuntu),
# Rust and Python programs at pinned versions, which go into target/tools. Does nothing where everything is
# there.
set -euo pipefail
cd "$(dirname "$0")/.."

# program:package
wanted=(
    fusermount3:fuse3 setfacl:acl setfattr:attr sqlite3:sqlite3 rsync:rsync git:git tar:tar
    python3:python3 mkfs.ext4:e2fsprogs mkfs.xfs:xfsprogs
    mkfs.btrfs:btrfs-progs losetup:mount setpriv:util-linux mount:mount restic:restic
    borg:borgbackup fio:fio openssl:openssl strace:strace softhsm2-util:softhsm2 pkcs11-tool:opensc
    ip:iproute2 nsenter:util-linux curl:curl
)
python3 -c 'import ensurepip' 2>/dev/null || wanted+=(no-such-program:python3-venv)
missing=()
for entry in "${wanted[@]}"; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "${entry%%:*}" >/dev/null || missing+=("${entry##*:}")
done

if [ ${#missing[@]} -gt 0 ]; then
    if ! command -v apt-get >/dev/null; then
        echo "install-tools: install these with your package manager: ${missing[*]}" >&2
        exit 1
    fi
    root=()
    [ "$(id -u)" = 0 ] || root=(sudo)
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null
fi

tools="${CARGO_TARGET_DIR:-target}/tools"
install_crate() { # crate version [option...]
    grep -qs "^\"$1 $2 " "$tools/.crates.toml" && return
    # A target directory of its own: they share nothing with the project's build.
    CARGO_PROFILE_DEV_DEBUG=0 cargo install "$1" --version "$2" --locked --quiet "${@:3}" \
        --root "$tools" --target-dir "$tools/build"
}
install_crate pjdfstest 0.2.2
install_crate fsx 0.3.2
# It runs for seconds: optimising it would take longer.
install_crate cargo-deny 0.20.2 --debug
rm -rf "$tools/build"

# Python, in an environment of its own. moto stands in for AWS KMS; the others are its clients.
packages=(
    'moto[server]==5.2.1'
    'boto3==1.44.5' 'botocore==1.44.5' 'awscli==1.46.3' 'aws-encryption-sdk[MPL]==4.0.7'
    'cryptography==50.0.2'
)
if [ "$(cat "$tools/venv/packages" 2>/dev/null)" != "${packages[*]}" ]; then
    python3 -m venv "$tools/venv"
    "$tools/venv/bin/pip" install --quiet --disable-pip-version-check "${packages[@]}"
    echo "${packages[*]}" > "$tools/venv/packages"
fi

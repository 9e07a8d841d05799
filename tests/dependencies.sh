#!/usr/bin/env bash
# Everything that the program is built from: bans, licences and sources always; known
# vulnerabilities where their database can be fetched, or was once.
set -euo pipefail
cd "$(dirname "$0")/.."
deny=("${CARGO_TARGET_DIR:-target}/tools/bin/cargo-deny" --locked)

"${deny[@]}" check --hide-inclusion-graph bans licenses sources

fetched=yes
timeout 120 "${deny[@]}" fetch db >/dev/null 2>&1 || fetched=no
databases=("${CARGO_HOME:-$HOME/.cargo}"/advisory-dbs/*/)
if [ ! -d "${databases[0]}" ]; then
    echo "ADVISORIES WERE NOT CHECKED: there is no database of them here, and none could be fetched"
    exit 0
fi
if [ $fetched = no ]; then
    echo "the advisories could not be brought up to date: those of" \
        "$(git -C "${databases[0]}" log -1 --format=%cs) are checked"
fi
"${deny[@]}" --offline check --hide-inclusion-graph advisories

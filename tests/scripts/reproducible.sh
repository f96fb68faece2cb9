#!/usr/bin/env bash
# Builds the static programs in a second folder, from a copy of the last commit, and compares their digests with those of this folder:
# what is handed out can be made again by whoever has the source and the same compilers.
#
#   tests/scripts/reproducible.sh [--target TRIPLE]     default: x86_64-unknown-linux-gnu
#
# Uncommitted changes would be a difference: it refuses them. About as long as two release builds, less if this folder's is there; 1 GB of disk.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

target=x86_64-unknown-linux-gnu
if [ "${1:-}" = --target ]; then target=$2; fi
[ -z "$(git status --porcelain)" ] || { echo "reproducible.sh: there are changes that are not committed" >&2; exit 1; }

other=$(mktemp -d "${TMPDIR:-/tmp}/another place.XXXXXX")
trap 'rm -rf "$other"' EXIT
git archive HEAD | tar --extract --directory "$other"
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH

deploy/release.sh binaries --target "$target"
here=$(cd "${CARGO_TARGET_DIR:-target}/dist/$target" && sha256sum woolly-coordinator woolly-worker)
(unset CARGO_TARGET_DIR && cd "$other" && deploy/release.sh binaries --target "$target")
there=$(cd "$other/target/dist/$target" && sha256sum woolly-coordinator woolly-worker)
printf '%s\n' "$here"
[ "$here" = "$there" ] || { printf 'reproducible.sh: in %s they are others:\n%s\n' "$other" "$there" >&2; exit 1; }
echo "the same in two folders"

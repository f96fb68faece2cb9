#!/usr/bin/env bash
# Fails if a release binary holds the name of a failpoint. Needs both builds: debug binaries hold them all, which shows that they are found.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

list=protocol/src/failpoint/config.rs
target=$(cargo metadata --format-version 1 --no-deps | python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
mapfile -t names < <(sed -n '/^const \(VARIABLE\|HITS\|BUGS\)/,/;$/p' "$list" | grep -o '"[^"]*"' | tr -d '"')
[ "${#names[@]}" -ge 6 ] || { echo "no_failpoints.sh: only ${#names[@]} names were found in $list" >&2; exit 1; }

failed=no
for name in "${names[@]}"; do
  for program in woolly-worker woolly-coordinator; do
    if grep -aqF -- "$name" "$target/release/$program"; then
      echo "no_failpoints.sh: release/$program holds $name" >&2
      failed=yes
    fi
  done
  if ! grep -aqF -- "$name" "$target/debug/woolly-worker" "$target/debug/woolly-coordinator"; then
    echo "no_failpoints.sh: no debug binary holds $name: is it still reached?" >&2
    failed=yes
  fi
done
[ "$failed" = no ]
echo "none of ${#names[@]} names of failpoints is in a release binary"

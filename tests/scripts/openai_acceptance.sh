#!/usr/bin/env bash
# The openai Python package, unchanged, against a coordinator with one local worker.
# Installs the package into target/openai.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$top"

if [ "${WOOLLY_WITHOUT_OPENAI:-}" = 1 ]; then echo "left out, as WOOLLY_WITHOUT_OPENAI asks"; exit 0; fi

# Settings of the caller's own clusters must not reach this one.
for name in $(compgen -e | grep '^WOOLLY_' | grep -vx 'WOOLLY_FIXTURES\|WOOLLY_LOG' || true); do unset "$name"; done

cargo build --quiet --workspace
target=$(cargo metadata --format-version 1 --no-deps |
  python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')

packages=$target/openai
if ! PYTHONPATH=$packages python3 -c 'import openai' 2>/dev/null; then
  if ! python3 -m pip install --quiet --disable-pip-version-check --target "$packages" 'openai>=2,<4'; then
    echo "openai_acceptance.sh: the openai package cannot be installed; WOOLLY_WITHOUT_OPENAI=1 leaves this check out" >&2
    exit 1
  fi
fi

model=$(tests/scripts/fetch_model.sh)
http=$(python3 deploy/demo.py address)
state=$(mktemp -d "${TMPDIR:-/tmp}/woolly-openai.XXXXXX")
"$target/debug/woolly-coordinator" serve --model "$model" --http "$http" --listen 127.0.0.1:0 \
  --state-dir "$state/coordinator" --shutdown-timeout 2s >"$state/stdout" 2>"$state/stderr" &
coordinator=$!
cleanup() {
  local status=$?
  kill -TERM "$coordinator" 2>/dev/null || true
  wait "$coordinator" 2>/dev/null || true
  [ "$status" -eq 0 ] || tail -n 20 "$state/stderr" >&2
  rm -rf "$state"
  exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

python3 deploy/demo.py wait "$http" "$coordinator"
PYTHONPATH=$packages python3 tests/scripts/openai_client.py "http://$http/v1"

#!/usr/bin/env bash
# The openai Python package, unchanged, against a coordinator with one local worker.
# Installs the package into target/openai.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$top"

if [ "${WOOLLY_WITHOUT_OPENAI:-}" = 1 ]; then echo "left out, as WOOLLY_WITHOUT_OPENAI asks"; exit 0; fi

source tests/scripts/serving.sh
build_programs debug

packages=$target/openai
if ! PYTHONPATH=$packages python3 -c 'import openai' 2>/dev/null; then
  if ! python3 -m pip install --quiet --disable-pip-version-check --target "$packages" 'openai>=2,<4'; then
    echo "openai_acceptance.sh: the openai package cannot be installed; WOOLLY_WITHOUT_OPENAI=1 leaves this check out" >&2
    exit 1
  fi
fi

model=$(tests/scripts/fetch_model.sh)
start_coordinator openai "$model"

python3 deploy/demo.py wait "$http" "${processes[@]}"
PYTHONPATH=$packages python3 tests/scripts/openai_client.py "http://$http/v1"

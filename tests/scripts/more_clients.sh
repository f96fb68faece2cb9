#!/usr/bin/env bash
# More clients, unchanged, against a coordinator with one local worker: openai (asynchronous), LiteLLM, OpenAI's agents, DSPy, smolagents,
# Haystack, llm, LlamaIndex, aider and Vercel's ai. Installs the packages into target/more_clients and, those that want openai's package below
# version 3, into target/older_clients, in the versions of *_clients_requirements.txt and more_clients_package.json.
#
# guidellm is left out: it wants torch, which from the package index brings 5 GB of libraries for graphics cards with it.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$top"

source tests/scripts/serving.sh
build_programs release

more=$target/more_clients
tests/scripts/install_clients.sh more_clients "$more"
tests/scripts/install_clients.sh older_clients "$target/older_clients"
if ! cmp --silent tests/scripts/more_clients_package.json "$more/package.json"; then
  cp tests/scripts/more_clients_package.json "$more/package.json"
  (cd "$more" && npm install --silent --no-audit --no-fund) || { rm "$more/package.json"; exit 1; }
fi

model=$(tests/scripts/fetch_model.sh)
start_coordinator more-clients "$model"

python3 deploy/demo.py wait "$http" "${processes[@]}"
failed=0
# They write what they think of themselves to the standard error; it is shown if one of them failed.
clients() {
  "$@" 2>"$state/clients.log" || { failed=1; cat "$state/clients.log" >&2; }
}
clients "$more/bin/python" tests/scripts/more_clients.py "$http" openai_async litellm_chat litellm_other_doors agents_sdk dspy_predict \
  smol_agents haystack_generators llm_command
clients "$target/older_clients/bin/python" tests/scripts/more_clients.py "$http" llama_index aider
cp tests/scripts/more_clients.mjs "$more/more_clients.mjs"
clients node "$more/more_clients.mjs" "$http"
# A client may get over a refusal by asking in another way.
refused=$(grep 'status=[45]' "$state/stderr" || true)
if [ -n "$refused" ]; then
  printf 'more_clients.sh: these were refused:\n%s\n' "$refused" >&2
  exit 1
fi
exit "$failed"

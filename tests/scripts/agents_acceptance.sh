#!/usr/bin/env bash
# Clients with tools, structured output and their own APIs, unchanged, against a coordinator with two workers, one of which is killed in the
# middle: openai (Python and Node), anthropic, ollama, LangChain, instructor, pydantic-ai, and lm-eval with the server's tokenizer. Installs the
# packages into target/agents and target/lm_eval, in the versions of agents_requirements.txt, agents_package.json and lm_eval_requirements.txt.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$top"

if [ "${WOOLLY_WITHOUT_CLIENTS:-}" = 1 ]; then echo "left out, as WOOLLY_WITHOUT_CLIENTS asks"; exit 0; fi

source tests/scripts/serving.sh
build_programs debug

agents=$target/agents
lm_eval=$target/lm_eval
tests/scripts/install_clients.sh lm_eval "$lm_eval" &
installing=$!
if ! tests/scripts/install_clients.sh agents "$agents" || ! wait "$installing"; then
  echo "agents_acceptance.sh: the clients cannot be installed; WOOLLY_WITHOUT_CLIENTS=1 leaves this check out" >&2
  exit 1
fi
if command -v npm >/dev/null && ! cmp --silent tests/scripts/agents_package.json "$agents/package.json"; then
  cp tests/scripts/agents_package.json "$agents/package.json"
  (cd "$agents" && npm install --silent --no-audit --no-fund) || { rm "$agents/package.json"; exit 1; }
fi

model=$(tests/scripts/fetch_model.sh)
start_coordinator agents "$model" --workers 2 --local-workers 0

join=
while [ -z "$join" ]; do
  kill -0 "${processes[0]}" || exit 1
  sleep 0.1
  join=$(grep -m 1 '^woolly-worker join' "$state/stdout" || true)
done
for worker in 1 2; do
  # shellcheck disable=SC2086
  "$programs/"$join --listen 127.0.0.1:0 --threads 1 --name "worker-$worker" --state-dir "$state/worker-$worker" \
    >"$state/worker-$worker.log" 2>&1 &
  processes+=($!)
done
python3 deploy/demo.py wait "$http" "${processes[@]}"

"$lm_eval/bin/python" tests/scripts/lm_eval_tasks.py "$model" "$state/tasks"
"$agents/bin/python" tests/scripts/agents.py "$http" &
clients=$!
# It says much that matters to nobody unless it fails.
"$lm_eval/bin/python" tests/scripts/lm_eval_client.py "$http" "$state/tasks" 2>"$state/lm_eval.log" &
scores=$!
node=
if [ -d "$agents/node_modules" ]; then
  cp tests/scripts/agents.mjs "$agents/agents.mjs"
  node "$agents/agents.mjs" "$http" &
  node=$!
else
  echo "agents_acceptance.sh: without npm, openai-node is left out"
fi
# When some of them are in the middle of an answer.
while kill -0 "$clients" 2>/dev/null; do
  generated=$(curl -sf "http://$http/metrics" | awk '/^woolly_completion_tokens_total/ { print int($2) }')
  if [ "${generated:-0}" -ge 200 ]; then break; fi
  sleep 0.1
done
kill -KILL "${processes[2]}"
echo "worker-2 was killed after $generated tokens"
wait "$clients"
[ -z "$node" ] || wait "$node"
wait "$scores" || { tail -n 40 "$state/lm_eval.log" >&2; exit 1; }
lost=$(curl -sf "http://$http/metrics" | awk '/^woolly_failovers_total/ { print int($2) }')
if [ "${lost:-0}" -lt 1 ]; then
  echo "agents_acceptance.sh: no plan was lost: the worker was killed too late" >&2
  exit 1
fi
echo "agents_acceptance.sh: all passed, with a worker killed in the middle"

#!/usr/bin/env bash
# openai, LangChain, LiteLLM and lm-eval, unchanged, against a coordinator with one local worker. Installs the packages into
# target/clients, in the versions of clients_requirements.txt.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$top"

source tests/scripts/serving.sh
build_programs release

clients=$target/clients
python=$clients/bin/python
tests/scripts/install_clients.sh clients "$clients"

model=$(tests/scripts/fetch_model.sh)
start_coordinator clients "$model"

python3 deploy/demo.py wait "$http" "${processes[@]}"
"$python" tests/scripts/openai_client.py "http://$http/v1"
# This one asks wrong requests too; nobody after it does.
asked=$(wc -l <"$state/stderr")
"$python" tests/scripts/clients.py "http://$http/v1"

"$python" tests/scripts/lm_eval_tasks.py "$model" "$state/tasks"
name=$(curl -sf "http://$http/v1/models" | python3 -c 'import json, sys; print(json.load(sys.stdin)["data"][0]["id"])')
export OPENAI_API_KEY=none HF_HUB_OFFLINE=1 HF_DATASETS_CACHE="$state/datasets"
# With its own tokenizer; agents_acceptance.sh holds the server's against it.
local=tokenizer_backend=huggingface,tokenizer=$state/tasks/tokenizer
evaluate() {
  "$clients/bin/lm_eval" run --model "$1" --tasks "$2" --include_path "$state/tasks" --batch_size "$3" \
    --model_args "model=$name,base_url=http://$http/v1/$4,num_concurrent=2,max_retries=1,$local$5" "${@:6}" |
    grep -v '^$'
}
evaluate local-completions few_choices,few_words,few_texts 1 completions ""
evaluate local-completions few_choices,few_words,few_texts 4 completions ",tokenized_requests=False"
evaluate local-chat-completions few_words 1 chat/completions "" --apply_chat_template
refused=$(tail -n "+$((asked + 1))" "$state/stderr" | grep 'status=[45]' |
  grep -v 'reason="context_length_exceeded"' || true)
if [ -n "$refused" ]; then
  printf 'clients_acceptance.sh: these were refused:\n%s\n' "$refused" >&2
  exit 1
fi
echo "clients_acceptance.sh: nothing was refused but a prompt beyond the context"

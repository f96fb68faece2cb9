#!/usr/bin/env python3
"""lm-eval, unchanged, against a running server: the server's tokenizer has to give the scores of the model's own.

    lm_eval_client.py HOST:PORT DIR        DIR is what lm_eval_tasks.py made

Scores given texts (log-likelihoods), scores rolling ones and generates, three times: with the tokenizer in DIR, with the server's
(`tokenizer_backend=remote`), and with the server's and prompts as text, for which tokens go to the server to become text again. Every
log-likelihood and every answer has to be the same to the last bit. Fails too if anything was refused.
"""
import json
import os
import sys
import time
import urllib.request

# Nothing may be fetched, and nothing of the caller's is read or written.
FOLDER = os.path.abspath(sys.argv[2])
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_CACHE=FOLDER + "/datasets", OPENAI_API_KEY="none")

import lm_eval  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

TASKS = ["few_choices", "few_words", "few_texts"]
BACKENDS = {
    "the model's tokenizer": {"tokenizer_backend": "huggingface", "tokenizer": FOLDER + "/tokenizer"},
    "the server's tokenizer": {"tokenizer_backend": "remote"},
    "the server's tokenizer, prompts as text": {"tokenizer_backend": "remote", "tokenized_requests": False},
}


def evaluate(base, model, tasks, backend):
    """What lm-eval heard for every question, and its scores. It raises if it was refused: it asks once."""
    settings = {"model": model, "base_url": base + "/v1/completions", "num_concurrent": 2, "max_retries": 1, **backend}
    found = lm_eval.simple_evaluate(
        model="local-completions", model_args=settings, tasks=TASKS, task_manager=tasks, batch_size=4, verbosity="ERROR")
    heard = {name: [(sample["doc"], sample["resps"]) for sample in samples] for name, samples in found["samples"].items()}
    return heard, found["results"]


def main():
    base = "http://" + sys.argv[1]
    model = json.load(urllib.request.urlopen(base + "/v1/models"))["data"][0]["id"]
    tasks = TaskManager(include_path=FOLDER, include_defaults=False)
    expected = None
    for name, backend in BACKENDS.items():
        begun = time.monotonic()
        heard, scores = evaluate(base, model, tasks, backend)
        assert all(len(heard[task]) == 4 for task in TASKS), heard
        # Even a small model knows what sheep give: other scores would be the same with and without a tokenizer's mistake.
        assert scores["few_choices"]["acc,none"] == 1.0, scores
        expected = expected or heard
        assert heard == expected, f"with {name}:\n{heard}\ninstead of\n{expected}"
        print(f"lm-eval with {name}: passed after {time.monotonic() - begun:.1f} s", flush=True)


main()

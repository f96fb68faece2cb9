#!/usr/bin/env python3
"""Write golden files: what llama.cpp computes from a model, for the tests to hold Woolly against.

    python3 -m pip install numpy llama-cpp-python==0.3.36
    tests/scripts/make_tiny_golden.py tests/fixtures/golden tests/fixtures/models/tiny-*.gguf

For each MODEL.gguf and text: MODEL.TEXT.json with the fields that fixtures/README.md explains. Texts are long enough that
rope scaling matters; the `chat` one is parsed with special tokens.
"""
import argparse
import json
from pathlib import Path

import numpy as np
from llama_cpp import Llama

PROSE = (
    "The lighthouse keeper counted the ships every evening before the lamp was lit. There were never more than nine, and on the "
    "nights when there were fewer he wrote the number down in red. By the end of the winter the red numbers had filled a page, and "
    "he began to ask himself where the others had gone. Nobody in the town could tell him; the harbour master said that ships come "
    "and go, and that the sea keeps no books."
)
UNICODE = (
    "Prices: 12,50 € → 1 234 567 ¥; naïve café, Ωμέγα, 東京タワー, привет мир, 🦙🚀. Isn't it?\n\n\tint x = 0x1F;  // don't\n"
    "  we've   they'LL 'S 'tis…\r\nﬁne ½ ② á\u0301\u0301 עברית हिन्दी"
)
CHATS = {
    "<|im_start|>": "<|im_start|>system\nYou count things.<|im_end|>\n<|im_start|>user\nHow many boats came down the river, and "
                    "how many of them came back?<|im_end|>\n<|im_start|>assistant\n",
    "[INST]": "[INST] How many boats came down the river, and how many of them came back? [/INST] Seven, and five.</s>"
              "[INST] Count again. [/INST]",
}
GREEDY_TOKENS = 16


def log_probabilities(scores):
    scores = scores.astype(np.float64)
    top = scores.max()
    return scores - (top + np.log(np.exp(scores - top).sum()))


def evaluate(model, tokens):
    """Logits after each of the tokens."""
    model.reset()
    model.eval(tokens)
    return np.array(model.scores[:len(tokens)])


def greedy(model, tokens, logits):
    """Continuation by the likeliest token, up to the end of generation; the smallest gap to the second on the way."""
    out, margin = [], np.inf
    for _ in range(GREEDY_TOKENS):
        second, first = np.sort(logits)[-2:]
        margin = min(margin, first - second)
        out.append(int(np.argmax(logits)))
        if out[-1] == model.token_eos():
            break
        model.eval(out[-1:])
        logits = np.array(model.scores[model.n_tokens - 1])
    return out, float(margin)


def golden(model, text, special):
    tokens = model.tokenize(text.encode(), add_bos=True, special=special)
    logits = evaluate(model, tokens)
    positions = []
    for i, row in enumerate(logits):
        probabilities = log_probabilities(row)
        best = np.argsort(-probabilities, kind="stable")[:10]
        positions.append({"top": [[int(t), round(float(probabilities[t]), 5)] for t in best]})
        if i + 1 < len(tokens):
            positions[-1]["next"] = round(float(probabilities[tokens[i + 1]]), 5)
    continuation, margin = greedy(model, tokens, logits[-1])
    return {
        "text": text, "tokens": tokens, "positions": positions,
        "mean_nll": round(-float(np.mean([p["next"] for p in positions[:-1]])), 6),
        "greedy": continuation, "greedy_text": model.detokenize(continuation).decode(errors="replace"),
        "greedy_min_margin": round(margin, 4),
    }


def to_json(data):
    dump = lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    fields = [f'"{key}":' + ("[\n" + ",\n".join(map(dump, value)) + "]" if key == "positions" else dump(value))
              for key, value in data.items()]
    return "{" + ",\n".join(fields) + "}\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    args = parser.parse_args()
    for path in args.models:
        model = Llama(str(path), n_ctx=512, n_threads=2, n_threads_batch=2, logits_all=True, verbose=False)
        texts = {"prose": PROSE, "unicode": UNICODE}
        for marker, chat in CHATS.items():
            if len(model.tokenize(marker.encode(), add_bos=False, special=True)) == 1:
                texts["chat"] = chat
        for name, text in texts.items():
            data = golden(model, text, special=name == "chat")
            (args.out / f"{path.stem}.{name}.json").write_text(to_json(data))
            margins = [p["top"][0][1] - p["top"][1][1] for p in data["positions"]]
            print(f"{path.stem}.{name}: {len(data['tokens'])} tokens, mean nll {data['mean_nll']:.3f}, "
                  f"{np.mean(np.array(margins) > 0.7):.0%} of first tokens clear, greedy {data['greedy_text']!r}")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Write golden files: what llama.cpp computes from a model, for the tests to hold Woolly against.

    python3 -m pip install numpy gguf==0.19.0 llama-cpp-python==0.3.36
    tests/scripts/make_tiny_golden.py [--truth] tests/fixtures/golden tests/fixtures/models/tiny-*.gguf

For each MODEL.gguf and text: MODEL.TEXT.json with the fields that fixtures/README.md explains. Texts are long enough that
rope scaling matters; the `chat` one is parsed with special tokens. A MODEL-f32.gguf is computed with a KV cache in F32.

With --truth also MODEL.TEXT.f32.json: the same from a copy of the file in F32. With --text NAME=FILE:CHARACTERS a text more, the
first so many characters of a file.
"""
import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from llama_cpp import GGML_TYPE_F16, GGML_TYPE_F32, Llama

import tiny_f32
from tiny_texts import texts_of, tokens_of

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
    tokens = tokens_of(model, text, special)
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


def read_text(argument):
    """NAME=FILE:CHARACTERS as name, text, and whether special tokens are parsed in it."""
    name, _, rest = argument.partition("=")
    path, _, count = rest.rpartition(":")
    return name, Path(path).read_text()[:int(count)], False


def write_golden(path, out, suffix, more):
    """The golden files of one model: NAME.TEXT and the suffix."""
    name = path.stem if suffix == ".json" else path.stem.removesuffix("-f32")
    kv = GGML_TYPE_F32 if path.stem.endswith("-f32") else GGML_TYPE_F16
    model = Llama(str(path), n_ctx=1024, n_threads=2, n_threads_batch=2, type_k=kv, type_v=kv, logits_all=True, verbose=False)
    for text_name, text, special in texts_of(model) + more:
        data = golden(model, text, special)
        (out / f"{name}.{text_name}{suffix}").write_text(to_json(data))
        margins = [p["top"][0][1] - p["top"][1][1] for p in data["positions"]]
        print(f"{name}.{text_name}{suffix}: {len(data['tokens'])} tokens, mean nll {data['mean_nll']:.3f}, "
              f"{np.mean(np.array(margins) > 0.7):.0%} of first tokens clear, greedy {data['greedy_text']!r}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--truth", action="store_true")
    parser.add_argument("--text", type=read_text, action="append", default=[])
    parser.add_argument("out", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    args = parser.parse_args()
    for path in args.models:
        write_golden(path, args.out, ".json", args.text)
        if args.truth and not path.stem.endswith("-f32"):
            with tempfile.TemporaryDirectory() as folder:
                f32 = tiny_f32.write(path, Path(folder) / f"{path.stem}-f32.gguf")
                write_golden(f32, args.out, ".f32.json", args.text)


if __name__ == "__main__":
    main()

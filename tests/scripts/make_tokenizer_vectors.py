#!/usr/bin/env python3
"""Turn llama.cpp's tokenizer test vectors into fixtures.

    make_tokenizer_vectors.py LLAMA_CPP [OUT]

LLAMA_CPP: a llama.cpp source tree (vendor/llama.cpp in the source package of llama-cpp-python 0.3.36).
OUT: the folder for the fixtures, default tests/fixtures/tokenizer.

For each vocabulary llama.cpp ships NAME.gguf.inp (texts) and NAME.gguf.out (their tokens, without special tokens added or
parsed). The vocabularies themselves are too large to commit: scripts/fetch_vocabs.sh fetches them.
"""

import json
import pathlib
import sys

SEPARATOR = "\n__ggml_vocab_test__\n"
NAMES = [
    "command-r",
    "deepseek-coder",
    "deepseek-llm",
    "falcon",
    "gpt-2",
    "llama-bpe",
    "llama-spm",
    "mpt",
    "phi-3",
    "qwen2",
    "qwen35",
    "refact",
    "starcoder",
]


def vectors(path):
    raw = path.with_name(path.name + ".inp").read_bytes().decode("utf-8")
    # The last text ends with the file, even if that is empty.
    texts = raw.split(SEPARATOR)
    if texts[-1] == "":
        texts.pop()
    lines = path.with_name(path.name + ".out").read_text("utf-8").splitlines()
    if len(texts) != len(lines):
        sys.exit(f"{path}: {len(texts)} texts, but {len(lines)} lines of tokens")
    return [
        {"text": text, "tokens": [int(token) for token in line.split()]}
        for text, line in zip(texts, lines)
    ]


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    top = pathlib.Path(__file__).resolve().parents[2]
    out = pathlib.Path(sys.argv[2]) if len(sys.argv) == 3 else top / "tests/fixtures/tokenizer"
    out.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        found = vectors(pathlib.Path(sys.argv[1]) / "models" / f"ggml-vocab-{name}.gguf")
        lines = ",\n".join(json.dumps(vector, ensure_ascii=False) for vector in found)
        (out / f"{name}.json").write_text(f"[\n{lines}\n]\n", "utf-8")
        print(f"{name}: {len(found)} vectors")


if __name__ == "__main__":
    main()

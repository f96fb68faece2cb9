#!/usr/bin/env python3
"""Turn llama.cpp's tokenizer test vectors into fixtures.

    make_tokenizer_vectors.py LLAMA_CPP [OUT]
    make_tokenizer_vectors.py --model NAME FILE [OUT]

LLAMA_CPP: a llama.cpp source tree (vendor/llama.cpp in the source package of llama-cpp-python 0.3.36).
OUT: the folder for the fixtures, default tests/fixtures/tokenizer.

For each vocabulary llama.cpp ships NAME.gguf.inp (texts) and NAME.gguf.out (their tokens, without special tokens added or
parsed). The vocabularies themselves are too large to commit: scripts/fetch_vocabs.sh fetches them.

With --model the texts of llama-spm.json are given to llama.cpp (llama-cpp-python 0.3.36) with the vocabulary of FILE; its tokens
are written to NAME.json.
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


def vectors_of_model(path, out):
    from llama_cpp import Llama

    model = Llama(path, vocab_only=True, verbose=False)
    texts = [vector["text"] for vector in json.loads((out / "llama-spm.json").read_text("utf-8"))]
    return [{"text": text, "tokens": model.tokenize(text.encode(), add_bos=False, special=False)} for text in texts]


def write(out, name, found):
    lines = ",\n".join(json.dumps(vector, ensure_ascii=False) for vector in found)
    (out / f"{name}.json").write_text(f"[\n{lines}\n]\n", "utf-8")
    print(f"{name}: {len(found)} vectors")


def main():
    arguments = sys.argv[1:]
    of_model = arguments[1:3] if arguments[:1] == ["--model"] else None
    rest = arguments[3:] if of_model else arguments[1:]
    if not arguments or len(rest) > 1 or (of_model is not None and len(of_model) != 2):
        sys.exit(__doc__)
    top = pathlib.Path(__file__).resolve().parents[2]
    out = pathlib.Path(rest[0]) if rest else top / "tests/fixtures/tokenizer"
    out.mkdir(parents=True, exist_ok=True)
    if of_model:
        write(out, of_model[0], vectors_of_model(of_model[1], out))
        return
    for name in NAMES:
        write(out, name, vectors(pathlib.Path(arguments[0]) / "models" / f"ggml-vocab-{name}.gguf"))


if __name__ == "__main__":
    main()

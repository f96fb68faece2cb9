#!/usr/bin/env python3
"""Write what pre-tokenizers make of awkward texts, by the patterns that the models' own tokenizers publish.

    make_piece_vectors.py [OUT]

OUT: default tests/fixtures/pieces.json. Needs the Python package regex, which has the constructs (possessive quantifiers,
look-ahead, set operations) that the published patterns use. The patterns are those of the tokenizer.json or tokenization files of the
models that llama.cpp names so; each splits the pieces of the one before, and what lies between matches is kept.
"""

import json
import pathlib
import sys

import regex

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
UPPER = r"[[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]&&[^\p{Han}]]"
LOWER = r"[[\p{Ll}\p{Lm}\p{Lo}\p{M}]&&[^\p{Han}]]"
FAMILIES = {
    "seed-coder": [
        CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
    ],
    "bailingmoe": [
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
    ],
    "exaone-moe": [
        CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
    ],
    "kimi-k2": [
        rf"[\p{{Han}}]+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{CONTRACTIONS}?|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{CONTRACTIONS}?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ],
    "superbpe": [r"\p{N}+", r"(?=([0-9]{3})+(?![0-9]))"],
    "bloom": [r" ?[^(\s|.,!?…。，、।۔،)]+"],
    "viking": [r" ?[^(\s|.,!?…。，、।۔،)]+", r"\p{N}"],
}
TEXTS = [
    "",
    " ",
    "   ",
    "\n",
    "\n\n \n",
    " \t\n  x",
    "Hello, World! It's 3 o'clock; I'LL they've we're'd",
    "1 12 123 1234 1234567 12345678901 ½1234 ٣٤٥٦ Ⅷ 1,234,567.89",
    "camelCaseWordsABC HTTPServer iPhone ÀÉÎõü ǅ",
    "  leading and trailing  ",
    "tabs\tand\t\ttabs \n newline\r\nwindows\r\n\r\n",
    "媽媽說：「你好，世界。」漢字かなカナ混じり文 abc漢字def",
    "한국어 문장입니다. 가 나 다",
    "สวัสดีครับ ภาษาไทย",
    "नमस्ते दुनिया। हिन्दी",
    "e\u0301 a\u0308o\u0308 \u0301x",
    "🤗🤗 emoji 👩‍👩‍👧 flags🇫🇮!",
    "def f(x):\n    return x ** 2  # comment\n\n\nprint(f(3))",
    "a/b/c ../path \\back {json: [1, 2]} <|im_end|>",
    "…!!! ??? ،؟ «quotes» “curly” — dash",
    "a b c d e f",
    "x\u3000y\u00a0z",
]


def split(patterns, text):
    pieces = [text] if text else []
    for pattern in patterns:
        compiled = regex.compile("(?V1)" + pattern) if "&&" in pattern or "(?i" in pattern else regex.compile("(?V0)" + pattern)
        next_pieces = []
        for piece in pieces:
            at = 0
            for match in compiled.finditer(piece):
                if match.start() > at:
                    next_pieces.append(piece[at : match.start()])
                if match.end() > match.start():
                    next_pieces.append(match.group())
                at = max(at, match.end())
            if at < len(piece):
                next_pieces.append(piece[at:])
        pieces = next_pieces
    return pieces


def main():
    top = pathlib.Path(__file__).resolve().parents[2]
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else top / "tests/fixtures/pieces.json"
    vectors = {
        name: [{"text": text, "pieces": split(patterns, text)} for text in TEXTS] for name, patterns in FAMILIES.items()
    }
    lines = ",\n".join(
        f"{json.dumps(name)}: [\n" + ",\n".join(json.dumps(v, ensure_ascii=False) for v in list_) + "\n]"
        for name, list_ in vectors.items()
    )
    out.write_text("{\n" + lines + "\n}\n", "utf-8")
    for name, list_ in vectors.items():
        assert all("".join(v["pieces"]) == v["text"] for v in list_), name
        print(f"{name}: {len(list_)} texts")


if __name__ == "__main__":
    main()

"""Small made-up vocabularies, trained on a few paragraphs: byte-level BPE and SPM."""
import re
from collections import Counter

CORPUS = """
The river runs past the old mill, and the miller counts the boats that come down from the hills. In spring the water is high
and brown; in summer the children walk across it on the stones. There were seven boats this morning, then five, then none.
"Where do they go?" asked the girl. "To the sea," he said, "and some of them come back." She did not believe that anything
could come back from the sea, because the sea was further away than anything she had seen, further than the hills and the town.
A machine that counts things must know three things: what to count, when to begin, and when to stop. The first is hard, the
second is harder, and the third is what the other two are for. for (int i = 0; i < n; i++) { total += values[i]; } return total;
def count(values): return sum(1 for value in values if value is not None)  # 1234567890, 10.5, 2024-06-01
Der Fluss ist tief, und das Wasser ist kalt. La rivière est profonde et l'eau est froide. It isn't, I've, they'll, we're, you'd.
"""
WORDS = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[A-Za-zÀ-ÿ]+| ?[0-9]| ?[^\sA-Za-zÀ-ÿ0-9]+|\s+")


def byte_alphabet():
    """GPT-2's printable stand-ins of the 256 bytes, by byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table, extra = {}, 256
    for byte in range(256):
        if byte in plain:
            table[byte] = chr(byte)
        else:
            table[byte] = chr(extra)
            extra += 1
    return table


def train(words, merges_count):
    """The most frequent pairs of symbols, most frequent first (ties: the smaller pair)."""
    merges = []
    for _ in range(merges_count):
        pairs = Counter()
        for symbols, count in words.items():
            for pair in zip(symbols, symbols[1:]):
                pairs[pair] += count
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        if pairs[best] < 2:
            break
        merges.append(best)
        words = merge_all(words, best)
    return merges


def merge_all(words, pair):
    out = Counter()
    for symbols, count in words.items():
        merged, i = [], 0
        while i < len(symbols):
            if symbols[i:i + 2] == pair:
                merged.append(symbols[i] + symbols[i + 1])
                i += 2
            else:
                merged.append(symbols[i])
                i += 1
        out[tuple(merged)] += count
    return out


def byte_bpe(merges_count):
    """Tokens (without special ones) and merges of a byte-level BPE vocabulary."""
    table = byte_alphabet()
    words = Counter(tuple(table[b] for b in word.encode()) for word in WORDS.findall(CORPUS))
    merges = train(words, merges_count)
    tokens = [table[b] for b in range(256)]
    tokens += sorted({a + b for a, b in merges} - set(tokens))
    return tokens, [f"{a} {b}" for a, b in merges]


def spm(merges_count, special):
    """Tokens, scores and token types of an SPM vocabulary with byte tokens."""
    words = Counter(tuple(word.replace(" ", "▁")) for word in WORDS.findall(CORPUS.replace("\n", " ")))
    pieces = [a + b for a, b in train(words, merges_count)]
    pieces = list(dict.fromkeys(pieces))
    letters = sorted({letter for word in words for letter in word} - set(pieces))
    tokens = ["<unk>", "<s>", "</s>", *special] + [f"<0x{b:02X}>" for b in range(256)] + pieces + letters
    types = [2, 3, 3] + [3] * len(special) + [6] * 256 + [1] * (len(pieces) + len(letters))
    scores = [0.0] * (3 + len(special) + 256) + [-float(rank) for rank in range(len(pieces) + len(letters))]
    return tokens, scores, types

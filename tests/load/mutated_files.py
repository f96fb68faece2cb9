#!/usr/bin/env python3
"""Damaged models through serve, and one request to each that it accepts.

    tests/load/mutated_files.py [MODEL...] [--count 1800] [--seed 1]

Each file is a copy of a model with one to four changes in its header or anywhere: bytes, flipped bits, stretches that
are cut out, doubled, zeroed or overwritten by others. Right is a clear error (exit code 5 or 2), or an answer below 500, or
`model_numerics`. Wrong is a panic, a signal, another status, a server that is neither ready nor ended in time, and a
fault that is tried again and again. A wrong file is kept beside the script's output.
"""
import argparse
import collections
import concurrent.futures
import json
import os
import pathlib
import random
import struct
import tempfile

from server import TOP, Server

READY_SECONDS = 20


def mutated(data, header, seed):
    """A copy with some damage, most of it in the first `header` bytes."""
    chance = random.Random(seed)
    data = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        end = header if chance.random() < 0.9 else len(data)
        at = chance.randrange(end)
        kind = chance.randrange(7)
        length = chance.choice((1, 2, 4, 8, 64))
        if kind == 0:
            data[at] = chance.randrange(256)
        elif kind == 1:
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 2:
            del data[at : at + length]
        elif kind == 3:
            data[at:at] = data[at : at + length]
        elif kind == 4:
            data[at : at + length] = bytes(min(length, len(data) - at))
        elif kind == 5:
            value = chance.choice((0, 1, 31, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, (1 << 64) - 1))
            data[at : at + 8] = struct.pack("<Q", value)
        else:
            other = chance.randrange(end)
            data[at : at + length] = data[other : other + length]
    return bytes(data)


def changed_numbers(data, seed):
    """A copy in which one number of the metadata is another one: what fits the format and not the tensors."""
    chance = random.Random(seed)
    key = chance.choice((b".feed_forward_length", b".embedding_length", b".block_count", b".head_count", b".head_count_kv",
                         b".context_length", b".rope.dimension_count", b"_token_id", b".layer_norm_rms_epsilon"))
    at = data.find(key)
    if at < 0:
        return mutated(data, len(data), seed)
    at += len(key) + 4
    value = chance.choice((0, 1, 2, 3, 31, 63, 64, 128, 4096, 1 << 20, 0xFFFFFFFF))
    return data[:at] + struct.pack("<I", value) + data[at + 4 :]


def judge(data, folder, name):
    """What became of one file: a word, and a text if it is wrong."""
    path = pathlib.Path(folder) / f"{name}.gguf"
    path.write_bytes(data)
    with Server(path) as server:
        is_ready = server.is_ready(READY_SECONDS)
        code = server.process.poll()
        if "panicked" in server.log():
            return "wrong", "a panic: " + server.log()[-600:]
        if code is not None:
            path.unlink()
            return (f"refused, exit code {code}", "") if code in (2, 5) else ("wrong", f"exit code {code}: {server.log()[-600:]}")
        if not is_ready:
            return "wrong", "never ready: " + server.log()[-600:]
        status, _, text = server.ask("POST", "/v1/completions", {"prompt": "hello", "max_tokens": 4})
        code = json.loads(text).get("error", {}).get("code")
        if "panicked" in server.log() or server.process.poll() is not None:
            return "wrong", "a panic or the end: " + server.log()[-600:]
    if status < 500 or code == "model_numerics":
        path.unlink()
        return (f"answered {status}" if status < 500 else "model_numerics"), ""
    return "wrong", f"answered {status}: {text}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=[TOP / "tests/fixtures/models/granite-tiny.gguf",
                                                       TOP / "tests/fixtures/models/tiny-qwen3.gguf"])
    parser.add_argument("--count", type=int, default=1800)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    models = [pathlib.Path(model).read_bytes() for model in args.models]
    folder = tempfile.mkdtemp(prefix="woolly-mutated.")

    def one(number):
        seed, data = args.seed * 1_000_000 + number, models[number % len(models)]
        # The names of the last tensors stand at the end of the header.
        header = data.rfind(b".weight") + 64
        changed = changed_numbers(data, seed) if number % 6 == 0 else mutated(data, header, seed)
        return judge(changed, folder, f"{seed}")

    found, wrong = collections.Counter(), 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for number, (word, text) in enumerate(pool.map(one, range(args.count))):
            found[word] += 1
            if word == "wrong":
                wrong += 1
                print(f"{folder}/{args.seed * 1_000_000 + number}.gguf: {text}", flush=True)
    for word, count in sorted(found.items()):
        print(f"{count:5} {word}")
    if not wrong:
        os.rmdir(folder)
    raise SystemExit(int(wrong > 0))


main()

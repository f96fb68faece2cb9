#!/usr/bin/env python3
"""64 streams, none and then half of them under a grammar, in turns: what does the grammar cost those who decode?

    tests/load/streams.py MODEL [--streams 64] [--tokens 96] [--rounds 3]

Prints for each the tokens per second from the moment in which every stream has its first token until the first one ends, those of a stream
without a grammar, the CPU time that the coordinator (a process of its own: workers count for nothing) spends per token, and the bytes of masks
per microbatch. Fails if with grammars there are fewer than 95 % of the tokens per second, or if a token takes the coordinator more than 0.15 ms.
"""
import argparse
import asyncio
import json
import os
import statistics
import sys
import time

from server import Answer, Server, message

# Keys, enums, patterns and numbers: masks of all three forms, and text that the grammar forces.
SCHEMA = {
    "type": "array",
    "minItems": 400,
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 20},
            "code": {"type": "string", "pattern": "^[A-Z]{2,4}-[0-9]{3}$"},
            "kind": {"enum": ["brick", "plate", "tile", "slope"]},
            "size": {"type": "integer", "minimum": 1, "maximum": 9999},
        },
        "required": ["name", "code", "kind", "size"],
        "additionalProperties": False,
    },
}


async def stream(port, index, tokens, constrained):
    """When how many tokens were there, and whether it went well."""
    body = {"messages": [{"role": "user", "content": f"List number {index} of bricks, please."}], "stream": True, "temperature": 1,
            "seed": index, "max_tokens": tokens, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    body |= {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}} if constrained else {"ignore_eos": True}
    answer = await Answer.of(port, message("POST", "/v1/chat/completions", body))
    if answer.status != 200:
        raise SystemExit(f"status {answer.status}: {await answer.body()}")
    seen = []
    while line := await answer.reader.readline():
        if line.startswith(b"data: {"):
            part = json.loads(line[6:])
            if "error" in part:
                raise SystemExit(part["error"])
            seen.append((time.monotonic(), part["usage"]["completion_tokens"]))
    answer.close()
    return seen


def tokens_at(seen, moment):
    return max((count for at, count in seen if at <= moment), default=0)


def cpu_seconds(process):
    fields = open(f"/proc/{process.pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def counters(server):
    rows = (line.split() for line in server.ask("GET", "/metrics")[2].splitlines() if not line.startswith("#"))
    return {row[0]: float(row[1]) for row in rows}


async def load(server, streams, tokens, constrained):
    before, cpu = counters(server), cpu_seconds(server.process)
    seen = await asyncio.gather(*(stream(server.port, index, tokens, index % 2 == 1 and constrained) for index in range(streams)))
    cpu, after = cpu_seconds(server.process) - cpu, counters(server)
    begun = max(next(at for at, count in one if count > 0) for one in seen)
    ended = min(one[-1][0] for one in seen)
    of = lambda chosen: sum(tokens_at(one, ended) - tokens_at(one, begun) for one in chosen) / (ended - begun)  # noqa: E731
    forwards = 'woolly_stage_forwards_total{stage="0"}'
    # Workers tell once a second: the first load may end before.
    steps = max(1, after.get(forwards, 0) - before.get(forwards, 0))
    return {
        "all": of(seen),
        "free": of(seen[::2]) / len(seen[::2]),
        "cpu_ms": 1e3 * cpu / sum(one[-1][1] for one in seen),
        "mask_bytes": (after["woolly_mask_bytes_total"] - before["woolly_mask_bytes_total"]) / steps,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    results = {False: [], True: []}
    with Server(given.model, "--ctx-size", "1024", "--prefix-cache", "off") as server:
        if not server.is_ready(300):
            raise SystemExit(server.log())
        asyncio.run(load(server, 4, 8, True))
        for _ in range(given.rounds):
            for constrained, found in results.items():
                found.append(asyncio.run(load(server, given.streams, given.tokens, constrained)))
        after = counters(server)
    middle = {kind: {name: statistics.median(one[name] for one in found) for name in found[0]} for kind, found in results.items()}
    for kind, name in ((False, "none"), (True, "half")):
        one = middle[kind]
        print(f"{name} of {given.streams} streams constrained: {one['all']:.1f} tokens/s, {one['free']:.2f} of one without a grammar, "
              f"{one['cpu_ms']:.3f} ms of the coordinator's CPU per token, {one['mask_bytes']:.0f} bytes of masks per microbatch")
    mask_us = 1e6 * after["woolly_mask_seconds_sum"] / after["woolly_mask_seconds_count"]
    ratio = middle[True]["all"] / middle[False]["all"]
    print(f"{ratio:.3f} times as many tokens per second; {mask_us:.0f} us until a mask is there")
    sys.exit(ratio < 0.95 or middle[False]["cpu_ms"] > 0.15)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""200 random JSON schemas at temperature 1: is what ends valid, how many end, and how fast is it?

    tests/load/schemas.py MODEL [--count 200] [--tokens 1024] [--clients 4]

Nested objects and arrays, enums, constants, bounded strings, arrays and numbers, patterns, formats, $ref and anyOf, drawn from a seed.
Prints how many answers ended by themselves, how many of those the package jsonschema calls valid, how many were compact JSON, and tokens per
second against the same prompts without a schema, to the same number of tokens, in turns. Fails if an answer that ended is not valid, if fewer than
95 % ended, or if constrained answers are slower than 95 %. Installs jsonschema into target/schemas.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import random
import subprocess
import sys
import time

from server import TOP, Server

SEED = 2026
WORDS = "name colour size age city price title state kind note owner level code unit"
DEFINITIONS = {
    "point": {"type": "object", "properties": {"x": {"type": "integer", "minimum": -99, "maximum": 99}, "y": {"$ref": "#/$defs/small"}},
              "required": ["x", "y"], "additionalProperties": False},
    "small": {"type": "integer", "minimum": 0, "maximum": 1000},
    "tree": {"type": "object", "properties": {"v": {"type": "boolean"},
                                              "down": {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 1}},
             "required": ["v"], "additionalProperties": False},
}


def schema(draw, depth):
    leaves = [
        lambda: {"type": "string", "maxLength": draw.randint(1, 30)},
        lambda: {"type": "string", "minLength": 2, "maxLength": 12, "pattern": "^[a-z]+(-[0-9]{1,3})?$"},
        lambda: {"type": "string", "pattern": draw.choice(["^[A-Z]{2,4}$", "^\\d{3}-\\d{4}$", "^(yes|no|maybe)$", "^#[0-9a-f]{6}$"])},
        lambda: {"type": "string", "format": draw.choice(["date", "time", "date-time", "uuid", "ipv4"])},
        lambda: {"type": "integer", "minimum": -50, "maximum": draw.randint(0, 5000)},
        lambda: {"type": "number", "minimum": 0, "exclusiveMaximum": 10},
        lambda: {"type": "boolean"},
        lambda: {"type": "null"},
        lambda: {"enum": draw.sample(WORDS.split(), 4) + [draw.randint(0, 9), None]},
        lambda: {"const": draw.choice([7, "fixed \"text\"", {"a": [1, 2]}, True])},
        lambda: {"$ref": "#/$defs/" + draw.choice(list(DEFINITIONS))},
        lambda: {"type": ["string", "null"], "maxLength": 8},
    ]
    if depth == 0 or draw.random() < 0.35:
        return draw.choice(leaves)()
    inner = lambda: schema(draw, depth - 1)  # noqa: E731
    kind = draw.random()
    if kind < 0.5:
        names = draw.sample(WORDS.split(), draw.randint(1, 4))
        return {"type": "object", "properties": {name: inner() for name in names}, "required": names[: draw.randint(0, len(names))],
                "additionalProperties": False}
    if kind < 0.7:
        return {"type": "array", "items": inner(), "minItems": draw.randint(0, 2), "maxItems": draw.randint(2, 4)}
    if kind < 0.8:
        return {"type": "array", "prefixItems": [inner(), inner()], "items": False, "minItems": 2}
    return {"anyOf": [inner(), inner()]}


def schemas(count):
    for index in range(count):
        draw = random.Random(SEED * 1000 + index)
        names = draw.sample(WORDS.split(), draw.randint(1, 4))
        yield {"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": DEFINITIONS, "type": "object",
               "properties": {name: schema(draw, 2) for name in names}, "required": names, "additionalProperties": False}


def validator():
    folder = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", TOP / "target")) / "schemas"
    if not list(folder.glob("jsonschema")):
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), "jsonschema[format]"], check=True)
    sys.path.insert(0, str(folder))
    import jsonschema

    return jsonschema


def ask(server, index, asked, tokens, **more):
    text = "Write a JSON object that this schema accepts: " + json.dumps({k: v for k, v in asked.items() if k not in ("$defs", "$schema")})
    body = {"messages": [{"role": "user", "content": text[:1200]}], "temperature": 1, "seed": index, "max_tokens": tokens} | more
    begun = time.monotonic()
    status, _, answer = server.ask("POST", "/v1/chat/completions", body, timeout=600)
    if status != 200:
        raise SystemExit(f"schema {index} was answered {status}: {answer}\n{json.dumps(asked)}")
    return json.loads(answer), time.monotonic() - begun


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--clients", type=int, default=4)
    given = parser.parse_args()
    jsonschema = validator()
    all_schemas = list(schemas(given.count))
    ended, broken, endless, spent, free_spent, tokens = 0, [], [], 0.0, 0.0, 0
    with Server(given.model, "--ctx-size", "4096", "--prefix-cache", "off") as server, concurrent.futures.ThreadPoolExecutor(given.clients) as pool:
        if not server.is_ready(120):
            raise SystemExit(server.log())
        ask(server, 0, all_schemas[0], 8, response_format={"type": "json_object"})
        for first in range(0, given.count, 2 * given.clients):
            batch = list(enumerate(all_schemas))[first : first + 2 * given.clients]
            begun = time.monotonic()
            constrained = list(pool.map(lambda job: ask(server, job[0], job[1], given.tokens, response_format={
                "type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": job[1]}})[0], batch))
            spent += time.monotonic() - begun
            counts = [answer["usage"]["completion_tokens"] for answer in constrained]
            tokens += sum(counts)
            begun = time.monotonic()
            list(pool.map(lambda job: ask(server, job[0][0], job[0][1], job[1], ignore_eos=True), zip(batch, counts)))
            free_spent += time.monotonic() - begun
            for (index, asked), answer in zip(batch, constrained):
                choice = answer["choices"][0]
                if choice["finish_reason"] != "stop":
                    endless.append((index, choice["message"]["content"]))
                    continue
                ended += 1
                text = choice["message"]["content"]
                try:
                    value = json.loads(text)
                    jsonschema.Draft202012Validator(asked, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER).validate(value)
                except (ValueError, jsonschema.ValidationError) as error:
                    broken.append((index, text, str(error).splitlines()[0]))
        masks = server.ask("GET", "/metrics")[2]
    line = {row.split()[0]: float(row.split()[1]) for row in masks.splitlines() if row.startswith("woolly_mask_seconds_")
            and "{" not in row}
    mean = 1e6 * line["woolly_mask_seconds_sum"] / line["woolly_mask_seconds_count"]
    ratio = free_spent / spent
    print(f"{given.count} schemas, {tokens} tokens: {ended} ended, {ended - len(broken)} of those valid; {tokens / spent:.1f} tokens/s, "
          f"{ratio:.2f} times as many as without a schema; {line['woolly_mask_seconds_count']:.0f} masks, {mean:.0f} us each")
    for index, text, error in broken[:5]:
        print(f"  schema {index}: {error}: {text[:300]}")
    for index, text in endless:
        print(f"  schema {index} did not end: {text[:100]} ... {text[-100:]}")
    sys.exit(bool(broken) or ended < 0.95 * given.count or ratio < 0.95)


if __name__ == "__main__":
    main()

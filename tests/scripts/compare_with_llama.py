#!/usr/bin/env python3
"""What Woolly and llama.cpp make of the same model file: compare_with_llama.sh runs this and explains the flags.

llama.cpp goes first and is gone before Woolly starts, so that the model is in memory once.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys

import jinja2
import numpy as np
from llama_cpp import Llama
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "load")]
import server  # noqa: E402
from tiny_texts import LONG, UNICODE  # noqa: E402

CODE = (
    "#include <stdio.h>\n\n/* Counts boats. */\nint main(void)\n{\n\tint total = 0;\n\tfor (int i = 0; i < 10; i++) {\n"
    "\t\ttotal += i * 0x1F;  // not done\n\t}\n\tprintf(\"%d boats\\n\", total);\n\treturn 0;\n}\n\n"
    "def boats(names: list[str]) -> dict[str, int]:\n    return {name: len(name) for name in sorted(set(names)) if name != ''}\n"
)
SCRIPTS = (
    "Корабли приходят и уходят. 船が来て、また去っていく。배가 왔다가 떠난다. Τα πλοία έρχονται. السفن تأتي وتذهب. הספינות באות. "
    "जहाज आते हैं। เรือมาแล้วก็ไป 船来了又走了。 Ça coûte 3,50 €, señor Müller — “já?” 👩‍🚀🏴‍☠️🇸🇯 1234567890 x² ½"
)
TEXTS = {"long": LONG, "unicode": UNICODE, "code": CODE, "scripts": SCRIPTS}
ODD = {"spaces": "  two  spaces\n\n\n\tand tabs \r\n end ", "digits": "1 12 123 1234 12345 3.14159 1e-9", "empty": "", "one": "x",
       "marks": "<|im_start|>user [INST] </s> <start_of_turn> <|eot_id|>"}
PROMPTS = ["The capital of France is", "def fibonacci(n):\n", "Once upon a time there was a keeper of a lighthouse who", "1, 2, 3, 4, 5,"]
MESSAGES = [
    {"role": "user", "content": "How many boats came down the river?"},
    {"role": "assistant", "content": "Seven."},
    {"role": "user", "content": "And how many came back? 🚀"},
]
GREEDY_TOKENS = 32
CLEAR_MARGIN = 0.7
RANDOM_FLIPS = 0.02
SPARE_BYTES = 512 << 20


def leave(text):
    print(f"compare_with_llama: {text}", file=sys.stderr)
    raise SystemExit(2)


def available_bytes():
    with open("/proc/meminfo") as lines:
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))


def inspected(args):
    """What `inspect` says; ends here if the model is not served or does not fit."""
    words = [server.program("woolly-coordinator"), "inspect", str(args.model), "--json", "--ctx-size", str(args.ctx)]
    found = subprocess.run(words, capture_output=True, text=True)
    try:
        report = json.loads(found.stdout)
    except ValueError:
        leave(found.stderr.strip())
    if not report["is_supported"]:
        leave("Woolly does not serve this model:\n  " + "\n  ".join(report["not_supported"]))
    cache = report["memory"]["cache"][0]
    vocabulary = report["tokenizer"]["count"]
    theirs = report["memory"]["weights"] + cache["bytes_per_sequence"] + args.ctx * vocabulary * 4 * 2
    needed, there = max(theirs, cache["bytes_in_all"]) + SPARE_BYTES, available_bytes()
    if needed > there:
        leave(f"the model needs {needed >> 20} MiB with {args.ctx} positions, and {there >> 20} MiB of memory are free")
    return report


def log_probabilities(scores):
    scores = scores.astype(np.float64)
    top = scores.max()
    return scores - (top + np.log(np.exp(scores - top).sum()))


def written(data):
    """A token's bytes as Woolly writes them."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


class LlamaSide:
    """What llama.cpp says."""

    def __init__(self, args):
        self.args = args
        threads = len(os.sched_getaffinity(0))
        self.model = Llama(str(args.model), n_ctx=args.ctx, n_batch=args.ctx, n_threads=threads, n_threads_batch=threads,
                           logits_all=True, verbose=False)

    def tokens(self, text, special=False, add=True):
        return self.model.tokenize(text.encode(), add_bos=add, special=special)

    def piece(self, token):
        return written(self.model.detokenize([token], special=True))

    def scores(self, tokens):
        """Of each token but the first its log-probability; before it the likeliest token and its margin over the second."""
        self.model.reset()
        self.model.eval(tokens)
        found = []
        for index in range(len(tokens) - 1):
            row = log_probabilities(np.array(self.model.scores[index]))
            second, first = np.argsort(row, kind="stable")[-2:]
            first = int(np.argmax(row))
            margin = float(row[first] - row[second])
            found.append((float(row[tokens[index + 1]]), first, self.piece(first), margin))
        return found

    def greedy(self, tokens):
        """Tokens one after the other, each with its margin over the second."""
        self.model.reset()
        self.model.eval(tokens)
        found = []
        for _ in range(GREEDY_TOKENS):
            row = np.array(self.model.scores[self.model.n_tokens - 1])
            second, first = np.sort(row)[-2:]
            token = int(np.argmax(row))
            found.append((token, float(first - second)))
            if token == self.model.token_eos():
                break
            self.model.eval([token])
        return found

    def template(self):
        """The tokens of a conversation, and why there are none."""
        source = self.model.metadata.get("tokenizer.chat_template")
        if not source:
            return None, "the file has no template"
        text = lambda token: self.model.detokenize([token], special=True).decode(errors="replace") if token >= 0 else ""
        bos = text(self.model.token_bos())
        try:
            formatter = Jinja2ChatFormatter(source, eos_token=text(self.model.token_eos()), bos_token=bos)
            prompt = formatter(messages=MESSAGES).prompt
        except (jinja2.TemplateError, TypeError, AttributeError) as error:
            return None, f"Python's jinja2 cannot render it: {error}"
        add = not (bos and prompt.startswith(bos)) and self.model.metadata.get("tokenizer.ggml.add_bos_token") == "true"
        tokens = self.tokens(prompt, special=True, add=False)
        return ([self.model.token_bos()] if add else []) + tokens, prompt


def scored_texts(llama, args):
    """Tokens of texts until there are as many positions as were asked for, each text within the context."""
    found, positions = {}, 0
    more = (HERE.parents[1] / "docs" / "glossary.md").read_text()
    pieces = [(f"glossary {at // 1200}", more[at:at + 1200]) for at in range(0, len(more), 1200)]
    for name, text in [*TEXTS.items(), *pieces]:
        if name.startswith("glossary") and positions >= args.tokens:
            break
        found[name] = llama.tokens(text)[:args.ctx - 1]
        positions += max(0, len(found[name]) - 1)
    return found


class WoollySide:
    """What Woolly says, through its API."""

    def __init__(self, serving):
        self.serving = serving

    def post(self, path, body):
        status, _, text = self.serving.ask("POST", path, body, timeout=600)
        if status != 200:
            raise SystemExit(f"{path}: {status} {text}")
        return json.loads(text)

    def tokens(self, text):
        return self.post("/tokenize", {"prompt": text, "parse_special": False})["tokens"]

    def conversation(self):
        status, _, text = self.serving.ask("POST", "/tokenize", {"messages": MESSAGES})
        return (json.loads(text)["tokens"], "") if status == 200 else (None, text)

    def scores(self, tokens):
        body = {"prompt": tokens, "max_tokens": 0, "echo": True, "logprobs": 2}
        found = self.post("/v1/completions", body)["choices"][0]["logprobs"]
        best = [sorted(top.items(), key=lambda pair: -pair[1]) for top in found["top_logprobs"][1:]]
        return list(zip(found["token_logprobs"][1:], best, found["tokens"][1:]))

    def greedy(self, tokens):
        body = {"prompt": tokens, "max_tokens": GREEDY_TOKENS, "temperature": 0, "logprobs": 2}
        choice = self.post("/v1/completions", body)["choices"][0]
        found = choice["logprobs"]
        margins = []
        for top in found["top_logprobs"]:
            values = sorted(top.values(), reverse=True)
            margins.append(values[0] - values[1] if len(values) > 1 else 0.0)
        return found["tokens"], margins, choice["finish_reason"]


def from_llama(args):
    llama = LlamaSide(args)
    said = {"tokens": {name: llama.tokens(text) for name, text in {**TEXTS, **ODD}.items()}}
    said["scored"] = {name: (tokens, llama.scores(tokens)) for name, tokens in scored_texts(llama, args).items()}
    said["greedy"] = []
    for prompt in PROMPTS:
        tokens = llama.tokens(prompt)
        found = llama.greedy(tokens)
        said["greedy"].append((prompt, tokens, [llama.piece(token) for token, _ in found], [margin for _, margin in found]))
    said["template"] = llama.template()
    del llama.model
    return said


def compare_tokens(woolly, said, rows):
    wrong = []
    for name, text in {**TEXTS, **ODD}.items():
        ours, theirs = woolly.tokens(text), said["tokens"][name]
        if ours != theirs:
            at = next((i for i, pair in enumerate(zip(ours, theirs)) if pair[0] != pair[1]), min(len(ours), len(theirs)))
            wrong.append(f"{name}: token {at} of {len(theirs)}: {ours[at:at + 4]} and {theirs[at:at + 4]}")
    total = sum(map(len, said["tokens"].values()))
    rows.append(("token ids", f"{len(said['tokens'])} texts, {total} tokens", "equal" if not wrong else "; ".join(wrong), not wrong))


def compare_scores(woolly, said, args, rows):
    distances, clear, other = [], 0, []
    for name, (tokens, theirs) in said["scored"].items():
        if len(tokens) < 2:
            continue
        for at, (ours, their) in enumerate(zip(woolly.scores(tokens), theirs)):
            (value, best, actual), (their_value, their_first, piece, their_margin) = ours, their
            distances.append(abs(value - their_value))
            margin = best[0][1] - best[1][1] if len(best) > 1 else 0.0
            # The API names tokens by their text: where the actual token is written like the first, it hides it.
            hidden = actual == piece and tokens[at + 1] != their_first
            if margin > CLEAR_MARGIN and their_margin > CLEAR_MARGIN and not hidden:
                clear += 1
                if best[0][0] != piece:
                    other.append(f"{name} {at}: {best[0][0]!r} and {piece!r} (margins {margin:.2f}, {their_margin:.2f})")
    mean, most = float(np.mean(distances)), float(np.max(distances))
    rows.append(("log-probabilities", f"{len(distances)} positions", f"mean |Δ| {mean:.4f}, max {most:.3f}, 99 % below "
                 f"{np.quantile(distances, 0.99):.3f}; accepted is a mean of {args.bound:g}", mean <= args.bound))
    said_of = "the same" if not other else f"{len(other)} differ: " + "; ".join(other[:4])
    fine = len(other) <= clear * (RANDOM_FLIPS if args.random else 0)
    rows.append(("first tokens", f"{clear} positions where both margins exceed {CLEAR_MARGIN}", said_of, fine))


def compare_greedy(woolly, said, args, rows):
    for prompt, tokens, theirs, their_margins in said["greedy"]:
        ours, margins, _ = woolly.greedy(tokens)
        same = next((i for i, pair in enumerate(zip(ours, theirs)) if pair[0] != pair[1]), min(len(ours), len(theirs)))
        name = f"{prompt.strip()[:24]!r}"
        if same == min(len(ours), len(theirs)):
            rows.append(("greedy", name, f"{same} tokens, the same", True))
            continue
        ours_by, theirs_by = margins[same], their_margins[same]
        fine = args.random or not (ours_by > CLEAR_MARGIN and theirs_by > CLEAR_MARGIN)
        rows.append(("greedy", name, f"token {same} differs: {ours[same]!r} by {ours_by:.3f}, {theirs[same]!r} by {theirs_by:.3f}", fine))


def compare_template(woolly, said, rows):
    theirs, why = said["template"]
    if theirs is None:
        rows.append(("chat template", "left out", why, None))
        return
    ours, error = woolly.conversation()
    same = ours == theirs
    detail = "equal" if same else f"{error or ours} and {theirs} of {why!r}"
    rows.append(("chat template", f"{len(theirs)} tokens of a conversation", detail, same))


def parsed():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--programs", type=pathlib.Path, required=True)
    parser.add_argument("--ctx", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=300)
    parser.add_argument("--bound", type=float)
    parser.add_argument("--random", action="store_true")
    args = parser.parse_args()
    if not 64 <= args.ctx <= 4096 or not 1 <= args.tokens <= 100_000:
        parser.error("--ctx is 64 to 4096, --tokens 1 to 100000")
    args.bound = args.bound if args.bound is not None else 0.3 if args.random else 0.15
    return args


def main():
    args = parsed()
    server.program = lambda name: str(args.programs.resolve() / name)
    report = inspected(args)
    args.ctx = min(args.ctx, report["context"]["trained"])
    print(f"{report['name']} ({report['architecture']}, {report['quantisation']}): llama.cpp computes ...", file=sys.stderr)
    said = from_llama(args)
    print("Woolly computes ...", file=sys.stderr)
    rows = []
    with server.Server(args.model, "--ctx-size", str(args.ctx)) as serving:
        if not serving.is_ready(600):
            leave("Woolly does not start:\n" + serving.log())
        woolly = WoollySide(serving)
        compare_tokens(woolly, said, rows)
        compare_scores(woolly, said, args, rows)
        compare_greedy(woolly, said, args, rows)
        compare_template(woolly, said, rows)
    for what, where, found, fine in rows:
        print(f"{'--' if fine is None else 'ok' if fine else 'NO':<3} {what:<18} {where}: {found}")
    agree = all(fine is not False for _, _, _, fine in rows)
    print(f"{args.model.name}: Woolly and llama.cpp {'agree' if agree else 'do NOT agree'}")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())

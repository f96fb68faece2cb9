#!/usr/bin/env python3
"""Hold the forward pass in numpy against llama.cpp on the tiny models in F32, and say what errors would cost.

    tests/scripts/check_tiny_forward.py tests/fixtures/models/tiny-*-f32.gguf

Prints for each model the mean and the greatest difference of the log-probability of the next token: of the pass in f64 to
llama.cpp, of llama.cpp with a cache in F16 to one in F32 (flash attention off), and of the pass with one thing left out to
the pass as it is.
"""
import sys
from pathlib import Path

import numpy as np
from llama_cpp import GGML_TYPE_F16, GGML_TYPE_F32, Llama

import tiny_forward
from tiny_catalog import MODELS
from tiny_texts import texts_of, tokens_of


def next_probabilities(logits, tokens):
    top = logits.max(-1, keepdims=True)
    probabilities = logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))
    return probabilities[np.arange(len(tokens) - 1), tokens[1:]]


def by_llama(path, kv):
    model = Llama(str(path), n_ctx=512, n_threads=2, n_threads_batch=2, type_k=kv, type_v=kv, logits_all=True, verbose=False)
    texts, out = [tokens_of(model, text, special) for _, text, special in texts_of(model)], []
    for tokens in texts:
        model.reset()
        model.eval(tokens)
        out.append(next_probabilities(np.array(model.scores[:len(tokens)], np.float64), tokens))
    return texts, np.concatenate(out)


def by_numpy(w, model, texts):
    logits = tiny_forward.forward(w, model, tiny_forward.Batch(texts), lambda name, x: w[name])
    ends = np.cumsum([len(text) for text in texts])[:-1]
    return np.concatenate([next_probabilities(rows, text) for rows, text in zip(np.split(logits, ends), texts)])


def without(w, ending):
    return {name: np.zeros_like(values) if name.endswith(ending) else values for name, values in w.items()}


def errors(w, model):
    """Name, weights and model of each thing that an engine may do wrong with this model."""
    experts = model["experts"]
    changed = lambda **of: (w, model | of)
    choice = lambda **of: (w, model | dict(experts=experts | of))
    yield "rope of the other pairs", *changed(by_halves=not model["by_halves"])
    if "blk.0.ffn_gate.weight" not in w and "blk.0.ffn_up.weight" in w:
        swapped = lambda name, v: np.roll(v, len(v) // 2, axis=0) if "ffn_up" in name else v
        yield "gate and up swapped", {name: swapped(name, v) for name, v in w.items()}, model
    if model["sinks"]:
        yield "no sinks", {name: values for name, values in w.items() if "sinks" not in name}, model
    if model["window"]:
        yield "no window", *changed(window=None)
        yield "window one longer", *changed(window=model["window"] + 1)
        yield "windows in the other layers", *changed(window_pattern=model["window_pattern"] + 1)
    if model["rope"]:
        yield "no rope scaling", *changed(rope=None)
    if model["rope_dim"] < model["head_dim"]:
        yield "all of a head turned", *changed(rope_dim=model["head_dim"])
    if model["window_theta"]:
        yield "one rope base", *changed(window_theta=None)
    for ending in ("attn_q.bias", "attn_v.bias", "attn_output.bias", "ffn_gate_inp.bias", "gate_exps.bias", "up_exps.bias",
                   "down_exps.bias", "exp_probs_b.bias", "down_shexp.weight"):
        if any(name.endswith(ending) for name in w):
            yield f"no {ending}", without(w, ending), model
    if model["qk_norm"] == "head":
        yield "norm of q and k on the other side of rope", *changed(norm_after_rope=not model["norm_after_rope"])
    if model["qk_norm"] == "row":
        by_head = lambda name, v: v.reshape(-1, model["head_dim"]) if name.endswith(("q_norm.weight", "k_norm.weight")) else v
        yield "q and k normalised by head", {name: by_head(name, v) for name, v in w.items()}, model | dict(qk_norm="head")
    if model["activation"] != "silu":
        yield "silu", *changed(activation="silu")
    if model["activation"] == "clamped":
        yield "not clamped", *changed(clamp=np.inf)
    if model["activation"] == "looked_up_gelu":
        yield "gelu that is not looked up by halves", *changed(activation="gelu")
    if model["softcap"]:
        yield "no softcap", *changed(softcap=None)
    if not experts:
        return
    yield "one expert less", *choice(used=experts["used"] - 1)
    if experts["gating"] == "chosen":
        yield "shares of all, not normalised", *choice(gating="softmax")
    elif experts["normalised"]:
        yield "not normalised", *choice(normalised=False)
    if experts["choice_bias"]:
        yield "choice's bias in the shares", *choice(biased_shares=True)
    if experts["scale"]:
        yield "shares not scaled", *choice(scale=None)
    if experts["groups"]:
        yield "no groups", *choice(groups=None)


def main():
    for path in map(Path, sys.argv[1:]):
        model, w = MODELS[path.stem.removesuffix("-f32")], tiny_forward.weights(path)
        texts, exact = by_llama(path, GGML_TYPE_F32)
        _, halves = by_llama(path, GGML_TYPE_F16)
        ours = by_numpy(w, model, texts)
        show = lambda what, a, b: print(f"  {what:44} mean {np.abs(a - b).mean():.6f} max {np.abs(a - b).max():.6f}")
        print(path.name, f"{len(exact)} positions, mean nll {-exact.mean():.3f}")
        show("f64 to llama.cpp", ours, exact)
        show("llama.cpp with an F16 cache to F32", halves, exact)
        for what, other, changed in errors(w, model):
            show(what, by_numpy(other, changed, texts), ours)


if __name__ == "__main__":
    main()

"""The random tensors of the tiny models."""
import numpy as np
from gguf import GGMLQuantizationType as T

from tiny_catalog import context_factors, has_experts, llama3_factors
from tiny_weights import Tensors

LOGIT_SIGMA = 3.0           # spread of the logits
BIAS_SIGMA = .5
ROUTER_SIGMA = 1.5          # spread of a router's logits
SINK = (1.0, 1.0)           # mean and spread of the attention sinks
GAINS = dict(gate=1.5, up=1.5, down=1.5)


def in_layer(ty, i):
    """The format in layer `i`, where it changes from layer to layer."""
    return ty[i % len(ty)] if isinstance(ty, tuple) else ty


def draw_projections(t, model, blk, qk_sigma):
    hidden, types = model["hidden"], model["types"]
    q, kv = model["heads"] * model["head_dim"], model["kv_heads"] * model["head_dim"]
    v_sigma = 1.5 / np.sqrt(hidden)
    if model["fused"]:
        t.stack(blk + "attn_qkv.weight", types["q"], [(q + kv, qk_sigma), (kv, v_sigma)], hidden)
    else:
        t.put(blk + "attn_q.weight", types["q"], q, hidden, qk_sigma)
        t.put(blk + "attn_k.weight", types["k"], kv, hidden, qk_sigma)
        t.put(blk + "attn_v.weight", types["v"], kv, hidden, v_sigma)
    t.put(blk + "attn_output.weight", types["o"], hidden, q, 1.5 / np.sqrt(q))
    lengths = dict(q=q, k=kv, v=kv, output=hidden)
    for part in model["biases"]:
        t.vector(f"{blk}attn_{part}.bias", 0, BIAS_SIGMA, lengths[part])


def draw_attention(t, model, blk):
    score_sigma = model["score_sigma"]
    t.norm(blk + "attn_norm.weight", model["hidden"], 1.0)
    draw_projections(t, model, blk, (1.0 if model["qk_norm"] else score_sigma) / np.sqrt(model["hidden"]))
    for part, heads in (("q", model["heads"]), ("k", model["kv_heads"])) if model["qk_norm"] else ():
        t.norm(f"{blk}attn_{part}_norm.weight", model["head_dim"] * (heads if model["qk_norm"] == "row" else 1), score_sigma)
    if model["sinks"]:
        t.vector(blk + "attn_sinks.weight", *SINK, model["heads"])
    if model["post_norms"]:
        t.norm(blk + "post_attention_norm.weight", model["hidden"], 1.0)


def draw_network(t, model, blk, suffix, types, width, count=None):
    """Gate, up and down, each of `count` experts."""
    hidden, gains = model["hidden"], GAINS | model["gains"]
    gate, up = (gains[part] / np.sqrt(hidden) for part in ("gate", "up"))
    if model["fused"] and model["arch"] == "phi3":
        t.stack(f"{blk}ffn_up{suffix}.weight", types["up"], [(width, gate), (width, up)], hidden)
    else:
        t.put(f"{blk}ffn_gate{suffix}.weight", types["gate"], width, hidden, gate, count)
        t.put(f"{blk}ffn_up{suffix}.weight", types["up"], width, hidden, up, count)
    t.put(f"{blk}ffn_down{suffix}.weight", types["down"], hidden, width, gains["down"] / np.sqrt(width), count)


def draw_experts(t, model, blk, types):
    hidden, experts = model["hidden"], model["experts"]
    t.put(blk + "ffn_gate_inp.weight", T.F32, experts["count"], hidden, ROUTER_SIGMA / np.sqrt(hidden))
    draw_network(t, model, blk, "_exps", types, experts["width"], experts["count"])
    if experts["biases"]:
        t.vector(blk + "ffn_gate_inp.bias", 0, BIAS_SIGMA, experts["count"])
        for part, length in (("gate", experts["width"]), ("up", experts["width"]), ("down", hidden)):
            t.put(f"{blk}ffn_{part}_exps.bias", T.F32, experts["count"], length, BIAS_SIGMA)
    if experts["choice_bias"]:
        t.vector(blk + "exp_probs_b.bias", 0, experts["choice_bias"], experts["count"])
    if experts["shared_gate"]:
        t.vector(blk + "ffn_gate_inp_shexp.weight", 0, 1 / np.sqrt(hidden), hidden)
    if experts["shared"]:
        draw_network(t, model, blk, "_shexp", dict.fromkeys(("gate", "up", "down"), types["shared"]), experts["shared"])


def draw_layer(t, model, i):
    blk, types = f"blk.{i}.", {part: in_layer(ty, i) for part, ty in model["types"].items()}
    draw_attention(t, model, blk)
    t.norm(f"{blk}{model['ffn_norm']}.weight", model["hidden"], 1.0)
    if has_experts(model, i):
        draw_experts(t, model, blk, types)
    else:
        draw_network(t, model, blk, "", types, model["ffn"])
    if model["post_norms"]:
        t.norm(blk + "post_ffw_norm.weight", model["hidden"], 1.0)


def draw_nextn(t, model, blk):
    """What a layer that guesses the token after the next has beside a layer's own tensors."""
    hidden = model["hidden"]
    t.put(blk + "nextn.eh_proj.weight", model["types"]["o"], hidden, 2 * hidden, 1 / np.sqrt(hidden))
    for name in ("enorm", "hnorm", "shared_head_norm"):
        t.norm(f"{blk}nextn.{name}.weight", hidden, 1.0)


def draw(model, vocab):
    """All tensors of a model."""
    t = Tensors(model["seed"])
    hidden, types = model["hidden"], model["types"]
    t.put("token_embd.weight", types["embd"], vocab, hidden, 1 / 120)
    if model["rope"] == "llama3":
        t.all.append(("rope_freqs.weight", T.F32, llama3_factors(model)))
    if model["rope"] == "context":
        t.all += [(f"rope_factors_{length}.weight", T.F32, factors) for length, factors in context_factors(model).items()]
    for i in range(model["layers"] + model["nextn_layers"]):
        draw_layer(t, model, i)
        if i >= model["layers"]:
            draw_nextn(t, model, f"blk.{i}.")
    logit_scale = model["scales"].get("logit", 1.0)
    t.norm("output_norm.weight", hidden, LOGIT_SIGMA * 120 / np.sqrt(hidden) * logit_scale)
    if "out" in types:
        t.put("output.weight", types["out"], vocab, hidden, 1 / 120)
    return t.all

"""A forward pass of the tiny models in numpy, in f64: what their routers are drawn with, and what llama.cpp is checked with."""
import gguf
import numpy as np
from gguf import quants

from tiny_catalog import has_experts, has_window, rope_divisors
from tiny_router import chosen, probabilities, softmax


def weights(path):
    """The tensors of a file by name, in f64; the last dimension is a row."""
    tensors = gguf.GGUFReader(path).tensors
    return {t.name: quants.dequantize(t.data, t.tensor_type).astype(np.float64) for t in tensors}


def rms(x, epsilon):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + epsilon)


def silu(x):
    return x / (1 + np.exp(-x))


def gelu(x):
    """The one with tanh."""
    return .5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * x * (1 + .044715 * x * x)))


def looked_up_gelu(x):
    """gelu as llama.cpp has it: looked up by halves, in halves."""
    halves = lambda y: y.astype(np.float16).astype(np.float64)
    return np.where(np.abs(x) < 10, halves(gelu(halves(x))), np.maximum(x, 0))


ACTIVATIONS = dict(silu=silu, gelu=gelu, looked_up_gelu=looked_up_gelu)


def activated(model, gate, up):
    if model["activation"] == "clamped":
        gate, up = np.minimum(gate, model["clamp"]), np.clip(up, -model["clamp"], model["clamp"])
        return gate / (1 + np.exp(-1.702 * gate)) * (up + 1)
    return ACTIVATIONS[model["activation"]](gate) * up


def rotated(x, positions, divisors, scale, by_halves):
    """x is [rows, heads, values], of which the first are turned; pairs are neighbours or lie half of those apart."""
    dim = 2 * len(divisors)
    turn = scale * np.exp(1j * positions[:, None, None] / divisors)
    first, second = (slice(dim // 2), slice(dim // 2, dim)) if by_halves else (slice(0, dim, 2), slice(1, dim, 2))
    turned = (x[..., first] + 1j * x[..., second]) * turn
    out = x.copy()
    out[..., first], out[..., second] = turned.real, turned.imag
    return out


class Batch:
    """Texts in one array of rows; a row sees those of its own text up to itself."""
    def __init__(self, texts):
        self.tokens = np.concatenate(texts)
        self.positions = np.concatenate([np.arange(len(text)) for text in texts])
        text = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
        self.unseen = (text[:, None] != text) | (self.positions[:, None] < self.positions)

    def mask(self, window):
        """A row sees `window` rows, itself among them."""
        far = window is not None and self.positions[:, None] - self.positions >= window
        return np.where(self.unseen | far, -np.inf, 0.0)


def projected(w, model, blk, x):
    """q, k and v, as rows."""
    if blk + "attn_qkv.weight" in w:
        q, kv = (model[heads] * model["head_dim"] for heads in ("heads", "kv_heads"))
        return np.split(x @ w[blk + "attn_qkv.weight"].T, [q, q + kv], axis=1)
    return [x @ w[f"{blk}attn_{part}.weight"].T + w.get(f"{blk}attn_{part}.bias", 0) for part in "qkv"]


def placed(w, model, i, part, y, batch):
    """q or k, normalised and turned by its position."""
    gain, epsilon, by_head = w.get(f"blk.{i}.attn_{part}_norm.weight"), model["epsilon"], (len(y), -1, model["head_dim"])
    turned = lambda y: rotated(y, batch.positions, *rope_divisors(model, i), model["by_halves"])
    if gain is None:
        return turned(y.reshape(by_head))
    if model["qk_norm"] == "row":
        return turned((rms(y, epsilon) * gain).reshape(by_head))
    y = y.reshape(by_head)
    return rms(turned(y), epsilon) * gain if model["norm_after_rope"] else turned(rms(y, epsilon) * gain)


def attention(w, model, i, x, batch):
    blk, dim = f"blk.{i}.", model["head_dim"]
    q, k, v = projected(w, model, blk, x)
    q, k = placed(w, model, i, "q", q, batch), placed(w, model, i, "k", k, batch)
    k, v = (np.repeat(y, q.shape[1] // k.shape[1], axis=1) for y in (k, v.reshape(k.shape)))
    mask = batch.mask(model["window"] if has_window(model, i) else None)
    scores = np.einsum("ihd,jhd->hij", q, k) * model["scales"].get("attention", dim ** -.5) + mask
    sinks = w.get(blk + "attn_sinks.weight")
    if sinks is not None:       # one more score, not scaled, whose value is zero
        scores = np.concatenate([scores, np.broadcast_to(sinks[:, None, None], (*scores.shape[:2], 1))], axis=2)
    shares = softmax(scores)[:, :, :len(x)]
    mixed = np.einsum("hij,jhd->ihd", shares, v).reshape(len(x), -1)
    return mixed @ w[blk + "attn_output.weight"].T + w.get(blk + "attn_output.bias", 0)


def network(w, model, blk, suffix, x, pick=slice(None)):
    """Gate, up and down; `pick` is the expert."""
    weight = lambda part: w[f"{blk}ffn_{part}{suffix}.weight"][pick].T
    bias = lambda part: w[f"{blk}ffn_{part}{suffix}.bias"][pick] if f"{blk}ffn_{part}{suffix}.bias" in w else 0
    if f"{blk}ffn_gate{suffix}.weight" in w:
        gate, up = x @ weight("gate") + bias("gate"), x @ weight("up") + bias("up")
    else:
        gate, up = np.split(x @ weight("up"), 2, axis=1)
    return activated(model, gate, up) @ weight("down") + bias("down")


def shares_of(experts, logits, bias, choice):
    """What the outputs of the chosen experts are multiplied with."""
    if experts["gating"] == "chosen":
        return softmax(np.take_along_axis(logits, choice, axis=1))
    shares = probabilities(experts, logits) + (bias if experts["biased_shares"] else 0)
    shares = np.take_along_axis(shares, choice, axis=1)
    if experts["normalised"]:
        shares /= shares.sum(1, keepdims=True)
    return shares * (experts["scale"] or 1)


def mixture(w, model, blk, x, logits):
    experts, bias = model["experts"], w.get(blk + "exp_probs_b.bias")
    choice = chosen(experts, logits, bias)
    share, out = shares_of(experts, logits, bias, choice), np.zeros_like(x)
    for i in range(experts["count"]):
        row, place = np.nonzero(choice == i)
        out[row] += share[row, place, None] * network(w, model, blk, "_exps", x[row], i)
    if experts["shared"]:
        out = out + shared_expert(w, model, blk, x)
    return out


def shared_expert(w, model, blk, x):
    out = network(w, model, blk, "_shexp", x)
    switch = w.get(blk + "ffn_gate_inp_shexp.weight")
    return out if switch is None else out / (1 + np.exp(-x @ switch))[:, None]


def feed_forward(w, model, i, x, router):
    blk = f"blk.{i}."
    if not has_experts(model, i):
        return network(w, model, blk, "", x)
    logits = x @ router(blk + "ffn_gate_inp.weight", x).T + w.get(blk + "ffn_gate_inp.bias", 0)
    return mixture(w, model, blk, x, logits)


def forward(w, model, batch, router):
    """Logits of every row. `router(name, x)` gives the router's matrix when its rows are known."""
    scales = {"embedding": 1, "residual": 1, "logit": 1} | model["scales"]
    normed = lambda x, name: rms(x, model["epsilon"]) * w[name + ".weight"]
    after = lambda x, name: normed(x, name) if model["post_norms"] else x
    x = w["token_embd.weight"][batch.tokens] * (np.sqrt(model["hidden"]) if model["embedding_root"] else scales["embedding"])
    for i in range(model["layers"]):
        blk = f"blk.{i}."
        mixed = attention(w, model, i, normed(x, blk + "attn_norm"), batch)
        x = x + scales["residual"] * after(mixed, blk + "post_attention_norm")
        out = feed_forward(w, model, i, normed(x, blk + model["ffn_norm"]), router)
        x = x + scales["residual"] * after(out, blk + "post_ffw_norm")
    head = w.get("output.weight", w["token_embd.weight"])
    logits = normed(x, "output_norm") @ head.T / scales["logit"]
    return model["softcap"] * np.tanh(logits / model["softcap"]) if model["softcap"] else logits

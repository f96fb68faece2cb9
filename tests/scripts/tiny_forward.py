"""A forward pass of the tiny mixtures of experts in numpy, in f64: what their routers are drawn with."""
import gguf
import numpy as np
from gguf import quants

EPSILON = 1e-6
ROPE_THETA = 10000.0


def weights(path):
    """The tensors of a file by name, in f64; the last dimension is a row."""
    tensors = gguf.GGUFReader(path).tensors
    return {t.name: quants.dequantize(t.data, t.tensor_type).astype(np.float64) for t in tensors}


def rms(x):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPSILON)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def silu(x):
    return x / (1 + np.exp(-x))


def rotated(x, positions, by_halves):
    """x is [rows, heads, values]; pairs are neighbours or lie half a head apart."""
    dim = x.shape[-1]
    turn = np.exp(1j * positions[:, None, None] / ROPE_THETA ** (np.arange(0, dim, 2) / dim))
    first, second = (slice(dim // 2), slice(dim // 2, None)) if by_halves else (slice(0, None, 2), slice(1, None, 2))
    turned = (x[..., first] + 1j * x[..., second]) * turn
    out = np.empty_like(x)
    out[..., first], out[..., second] = turned.real, turned.imag
    return out


class Batch:
    """Texts in one array of rows; a row sees those of its own text up to itself."""
    def __init__(self, texts):
        self.tokens = np.concatenate(texts)
        self.positions = np.concatenate([np.arange(len(text)) for text in texts])
        text = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
        unseen = (text[:, None] != text) | (self.positions[:, None] < self.positions)
        self.mask = np.where(unseen, -np.inf, 0.0)


def attention(w, model, blk, x, batch):
    dim, by_halves = model["head_dim"], model["arch"].startswith("qwen")

    def heads(part):
        y = x @ w[f"{blk}attn_{part}.weight"].T + w.get(f"{blk}attn_{part}.bias", 0)
        y = y.reshape(len(x), -1, dim)
        norm = w.get(f"{blk}attn_{part}_norm.weight")
        y = y if norm is None else rms(y) * norm
        return y if part == "v" else rotated(y, batch.positions, by_halves)

    q, k, v = heads("q"), heads("k"), heads("v")
    k, v = (np.repeat(y, q.shape[1] // k.shape[1], axis=1) for y in (k, v))
    scores = np.einsum("ihd,jhd->hij", q, k) * model.get("scales", {}).get("attention", dim ** -.5) + batch.mask
    return np.einsum("hij,jhd->ihd", softmax(scores), v).reshape(len(x), -1) @ w[blk + "attn_output.weight"].T


def chosen(logits, used):
    """Indices of the greatest `used` of each row, greatest first."""
    return np.argsort(-logits, axis=1, kind="stable")[:, :used]


def experts(w, model, blk, x, logits):
    choice = chosen(logits, model["experts"]["used"])
    share = np.take_along_axis(softmax(logits), choice, axis=1)
    if model["arch"] != "qwen2moe":
        share /= share.sum(1, keepdims=True)
    gate, up, down = (w[f"{blk}ffn_{part}_exps.weight"] for part in ("gate", "up", "down"))
    out = np.zeros_like(x)
    for i in range(len(gate)):
        row, place = np.nonzero(choice == i)
        out[row] += share[row, place, None] * (silu(x[row] @ gate[i].T) * (x[row] @ up[i].T) @ down[i].T)
    return out


def shared_expert(w, blk, x):
    gate, up, down = (w[f"{blk}ffn_{part}_shexp.weight"] for part in ("gate", "up", "down"))
    out = silu(x @ gate.T) * (x @ up.T) @ down.T
    switch = w.get(blk + "ffn_gate_inp_shexp.weight")
    return out if switch is None else out / (1 + np.exp(-x @ switch))[:, None]


def forward(w, model, batch, router):
    """Logits of every row. `router(name, x)` gives the router's matrix when its rows are known."""
    scales = {"embedding": 1, "residual": 1, "logit": 1} | model.get("scales", {})
    x = w["token_embd.weight"][batch.tokens] * scales["embedding"]
    for i in range(model.get("layers", 3)):
        blk = f"blk.{i}."
        x = x + scales["residual"] * attention(w, model, blk, rms(x) * w[blk + "attn_norm.weight"], batch)
        y = rms(x) * w[blk + "ffn_norm.weight"]
        out = experts(w, model, blk, y, y @ router(blk + "ffn_gate_inp.weight", y).T)
        if blk + "ffn_up_shexp.weight" in w:
            out = out + shared_expert(w, blk, y)
        x = x + scales["residual"] * out
    head = w.get("output.weight", w["token_embd.weight"])
    return rms(x) * w["output_norm.weight"] @ head.T / scales["logit"]


def parted(router, x, used, gap, steps=4000):
    """The router, turned until the last chosen and the first refused expert are `gap` apart on the rows x.

    A perceptron: where they are closer, the last is moved towards the row and the first away from it. The rows of
    the matrix keep their length, so that the logits keep their spread.
    """
    length = np.linalg.norm(router, axis=1, keepdims=True)
    for step in range(steps):
        logits = x @ router.T
        order = chosen(logits, used + 1)
        last, first = order[:, used - 1], order[:, used]
        close = distances(logits, used) < gap
        if not close.any():
            break
        pull = .3 * (1 - step / steps) / len(x)
        router = router.copy()
        np.add.at(router, last[close], pull * x[close])
        np.subtract.at(router, first[close], pull * x[close])
        router *= length / np.linalg.norm(router, axis=1, keepdims=True)
    return router


def distances(logits, used):
    """How far the first refused expert lies below the last chosen one, in logits: the log of their probabilities' ratio."""
    ordered = -np.sort(-logits, axis=1)
    return ordered[:, used - 1] - ordered[:, used]

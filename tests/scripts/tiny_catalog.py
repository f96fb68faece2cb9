"""The tiny models: what each of them is."""
import numpy as np
from gguf import GGMLQuantizationType as T

# Which format each matrix has. K-quants need rows of a multiple of 256: with hidden 128 only `down` (and,
# where heads x head_dim is 256, `output`) has them.
SMALL = dict(embd=T.Q8_0, q=T.Q4_0, k=T.Q5_0, v=T.Q5_1, o=T.Q8_0, gate=T.Q4_1, up=T.Q8_0, down=T.Q5_K)
WIDE = dict(embd=T.Q6_K, q=T.Q4_K, k=T.Q4_K, v=T.Q6_K, o=T.Q5_0, gate=T.Q3_K, up=T.Q4_K, down=T.Q2_K)
# Expert tensors have another format in each layer: a mixture of experts has three.
MIXED = dict(embd=T.Q8_0, q=T.Q8_0, k=T.Q8_0, v=T.Q8_0, o=T.Q8_0, shared=T.Q8_0,
             gate=(T.Q4_0, T.Q8_0, T.Q5_1), up=(T.Q5_0, T.Q4_1, T.Q8_0), down=(T.Q8_0, T.Q5_1, T.Q4_0))
UNTIED = MIXED | dict(out=T.Q8_0)

# What a model is where nothing else is said.
# `score_sigma` is the spread of q and of k: attention scores spread by its square. It is 1 in mixtures of experts, since a choice
# of experts adds to the differences, and less where more than that makes them spread.
DEFAULTS = dict(
    layers=3, score_sigma=2.0, heads=4, kv_heads=2, head_dim=32, hidden=64, ffn=256, epsilon=1e-6, scales={}, gains={}, ffn_norm="ffn_norm",
    theta=10000.0, by_halves=True, rope=None, rope_key=True,
    biases=(), qk_norm=None, norm_after_rope=False, fused=False, sinks=False, post_norms=False, activation="silu", clamp=7.0,
    window=None, window_pattern=1, window_theta=None, dense_layers=0, nextn_layers=0, softcap=None, embedding_root=False,
    experts=None,
)
# What a mixture of experts is where nothing else is said. `gating` is what the shares are: "softmax" and "sigmoid" of all logits,
# or "chosen", a softmax of the chosen ones. `choice_bias` is the spread of what is added to them for the choice only.
# `balanced`: no expert is favoured by what all rows have in common, which biases make large. `gap` is asked for between the last
# chosen and the first refused expert, in `steps`.
EXPERTS = dict(gating="softmax", gating_key=False, normalised=True, normalised_key=False, scale=None, groups=None,
               choice_bias=0.0, biases=False, length_key=False, dense_width=False, shared=None, shared_gate=False,
               shared_keys=("length",), biased_shares=False, balanced=True, gap=.18, steps=12000)
# What all models of an architecture have in common, `experts` apart.
ARCHITECTURES = {
    "llama": dict(by_halves=False),
    "granitemoe": dict(by_halves=False, hidden=64, pre="refact", types=MIXED,
                       scales=dict(embedding=12.0, residual=0.6, attention=0.25, logit=4.0)),
    "qwen2": dict(biases=("q", "k", "v")),
    "qwen2moe": dict(biases=("q", "k", "v")),
    "qwen3": dict(qk_norm="head"),
    "qwen3moe": dict(qk_norm="head"),
    "gpt-oss": dict(biases=("q", "k", "v", "output"), sinks=True, ffn_norm="post_attention_norm", activation="clamped", pre="gpt-4o",
                    theta=150000.0, epsilon=1e-5, rope="yarn", rope_key=False, score_sigma=.7),
    "glm4moe": dict(biases=("q", "k", "v"), qk_norm="head", ffn_norm="post_attention_norm", pre="glm4", theta=1000000.0, epsilon=1e-5,
                    rope_dim=16),
    "minimax-m2": dict(score_sigma=.8, qk_norm="row", pre="minimax-m2", theta=5000000.0, rope_dim=16),
    "gemma3": dict(score_sigma=.9, qk_norm="head", post_norms=True, activation="looked_up_gelu", embedding_root=True, theta=1000000.0,
                   rope="linear"),
    "phi3": dict(score_sigma=.8, fused=True, epsilon=1e-5),
    "bailingmoe2": dict(score_sigma=.8, qk_norm="head", fused=True, pre="bailingmoe2", theta=600000.0, rope_dim=16),
    "dots1": dict(score_sigma=.8, qk_norm="head", pre="qwen2", theta=10000000.0),
    "ernie4_5-moe": dict(score_sigma=.8, by_halves=False, theta=500000.0, epsilon=1e-5),
    "hunyuan-moe": dict(score_sigma=.8, qk_norm="head", norm_after_rope=True, pre="hunyuan", epsilon=1e-5),
}
# The routers that add a bias for the choice only.
SIGMOID = dict(gating="sigmoid", gating_key=True, choice_bias=.1, length_key=True)
UNBALANCED = dict(balanced=False, gap=.5, steps=4000)
ARCHITECTURE_EXPERTS = {
    "llama": UNBALANCED,
    "granitemoe": UNBALANCED,
    "qwen2moe": UNBALANCED | dict(normalised=False, length_key=True, dense_width=True, shared_gate=True),
    "qwen3moe": UNBALANCED | dict(length_key=True, dense_width=True),
    "gpt-oss": dict(gating="chosen", normalised=False, biases=True, length_key=True),
    "glm4moe": SIGMOID | dict(normalised_key=True, shared_keys=("count",)),
    "minimax-m2": SIGMOID,
    "bailingmoe2": SIGMOID | dict(normalised_key=True, shared_keys=("count", "length")),
    "dots1": SIGMOID | dict(normalised_key=True, shared_keys=("count",)),
    "ernie4_5-moe": dict(choice_bias=.05, length_key=True, shared_keys=("count", "length")),
    "hunyuan-moe": dict(length_key=True, shared_keys=("count", "length")),
}
SPECS = {
    "tiny-qwen3": dict(arch="qwen3", hidden=128, head_dim=64, pre="qwen2", types=SMALL | dict(o=T.Q3_K, down=T.Q2_K), seed=1),
    "tiny-qwen3-untied": dict(arch="qwen3", hidden=128, pre="qwen2", layers=2, seed=2,
                              types=SMALL | dict(embd=T.F16, out=T.Q5_1, q=T.F16, k=T.BF16, v=T.F32, down=T.Q4_K)),
    "tiny-qwen2": dict(arch="qwen2", hidden=128, pre="qwen2", types=SMALL | dict(up=T.Q5_0), seed=3),
    "tiny-llama3": dict(arch="llama", hidden=256, layers=2, pre="llama-bpe", types=WIDE, seed=4, rope="llama3"),
    "tiny-yarn": dict(arch="llama", hidden=128, pre="smollm", types=SMALL | dict(q=T.BF16, k=T.F16), seed=5, layers=2, rope="yarn"),
    "tiny-linear": dict(arch="llama", hidden=128, pre="refact", types=SMALL | dict(v=T.F16, k=T.F32), seed=6,
                        rope="linear", layers=2),
    "tiny-spm": dict(arch="llama", hidden=256, layers=2, types=WIDE | dict(gate=T.Q5_K, down=T.Q3_K), seed=7),
    "tiny-qwen3moe": dict(arch="qwen3moe", pre="qwen2", types=MIXED, seed=11, experts=dict(count=16, used=4, width=32)),
    "tiny-qwen2moe": dict(arch="qwen2moe", heads=2, kv_heads=1, pre="qwen2", seed=12, types=UNTIED,
                          experts=dict(count=8, used=2, width=32, shared=96)),
    "tiny-granitemoe": dict(arch="granitemoe", experts=dict(count=8, used=3, width=32), seed=13),
    "tiny-granitemoe-shared": dict(arch="granitemoe", experts=dict(count=8, used=3, width=32, shared=96), seed=14),
    "tiny-mixtral": dict(arch="llama", types=UNTIED, seed=15, experts=dict(count=8, used=2, width=32)),
    # K-quants want rows of 256, which makes F32 files of 4 MB: those are not kept.
    "tiny-qwen3moe-k": dict(arch="qwen3moe", hidden=256, pre="qwen2", seed=16, experts=dict(count=8, used=2, width=32),
                            types=WIDE | dict(gate=(T.Q4_K, T.Q5_K, T.Q3_K), up=(T.Q6_K, T.Q4_K, T.Q2_K), down=T.Q8_0)),
    "tiny-mixtral-k": dict(arch="llama", seed=17, experts=dict(count=8, used=2, width=256),
                           types=MIXED | dict(gate=T.Q4_0, up=T.Q5_0, down=(T.Q6_K, T.Q4_K, T.Q5_K))),
    "tiny-mixtral-t": dict(arch="llama", seed=18, experts=dict(count=8, used=2, width=256),
                           types=MIXED | dict(gate=(T.MXFP4, T.IQ4_NL, T.MXFP4), up=(T.IQ4_NL, T.MXFP4, T.MXFP4),
                                              down=(T.IQ4_XS, T.IQ4_XS, T.MXFP4))),
    # Gate and up are drawn large, so that some of their values are clamped.
    "tiny-gpt-oss": dict(arch="gpt-oss", layers=4, window=32, window_pattern=2, gains=dict(gate=3.5, up=3.5, down=.4), seed=21,
                         types=UNTIED | dict.fromkeys(("gate", "up", "down"), T.MXFP4), experts=dict(count=8, used=3, width=32)),
    "tiny-glm4moe": dict(arch="glm4moe", types=UNTIED, dense_layers=1, nextn_layers=1, ffn=96, seed=52,
                         experts=dict(count=8, used=3, width=32, shared=32, shared_count=1, scale=1.5)),
    "tiny-minimax-m2": dict(arch="minimax-m2", types=UNTIED, seed=23, experts=dict(count=8, used=3, width=32)),
    "tiny-gemma3": dict(arch="gemma3", layers=7, heads=2, kv_heads=1, ffn=96, window=32, window_pattern=6, window_theta=20000.0,
                        softcap=12.0, types=MIXED, seed=24),
    # By the name "phi3" llama.cpp strips what follows special tokens.
    "tiny-phi3": dict(arch="phi3", name="tiny-phi", heads=2, kv_heads=1, ffn=96, types=UNTIED, seed=45),
    # Its texts are longer than the context that it was "trained on at first": the factors of the long context hold.
    "tiny-phi3-long": dict(arch="phi3", name="tiny-phi", heads=2, kv_heads=1, rope_dim=24, ffn=96, types=UNTIED, seed=46, rope="context"),
    "tiny-bailingmoe2": dict(arch="bailingmoe2", heads=2, kv_heads=1, types=UNTIED, dense_layers=1, ffn=96, seed=26,
                             experts=dict(count=16, used=4, width=32, shared=64, shared_count=1, scale=2.5, groups=(4, 2))),
    "tiny-dots1": dict(arch="dots1", heads=2, kv_heads=2, types=UNTIED, dense_layers=1, ffn=96, seed=37,
                       experts=dict(count=8, used=3, width=32, shared=64, shared_count=2, scale=2.5)),
    "tiny-ernie4_5-moe": dict(arch="ernie4_5-moe", types=MIXED, dense_layers=1, ffn=96, seed=28,
                              experts=dict(count=8, used=3, width=32, shared=64, shared_count=2)),
    "tiny-hunyuan-moe": dict(arch="hunyuan-moe", types=MIXED, seed=89,
                             experts=dict(count=8, used=3, width=32, shared=96, shared_count=1)),
}
CONTEXT = 1024
ORIGINAL_CONTEXT = 64       # what yarn and llama3 scaling start from: short, so that the texts are far beyond it
SCALING_FACTOR = 4.0
ATTENTION_FACTOR = 1.19      # of rotated values, where there are factors by context


def whole(spec):
    """A model with all that is said of it elsewhere."""
    arch = spec["arch"]
    model = DEFAULTS | (dict(score_sigma=1.0) if "experts" in spec else {}) | ARCHITECTURES[arch] | spec
    if model["experts"]:
        model["experts"] = EXPERTS | ARCHITECTURE_EXPERTS.get(arch, {}) | model["experts"]
    model.setdefault("rope_dim", model["head_dim"])
    return model


MODELS = {name: whole(spec) for name, spec in SPECS.items()}


def keeps_f32(name):
    """Whether the copy in F32 of a model is committed."""
    model = MODELS[name]
    fits = model["hidden"] < 256 and (not model["experts"] or model["experts"]["width"] < 256)
    return fits and (model["experts"] is not None or model["arch"] in ("gemma3", "phi3"))


def has_window(model, i):
    """Whether layer `i` sees only a window: all but the last of each `window_pattern` layers."""
    return model["window"] is not None and i % model["window_pattern"] < model["window_pattern"] - 1


def has_experts(model, i):
    return model["experts"] is not None and i >= model["dense_layers"]


def rope_divisors(model, i):
    """By what positions are divided, pair by pair, in layer `i`; and what the rotated values are multiplied with."""
    dim, windowed = model["rope_dim"], has_window(model, i)
    theta = model["window_theta"] if windowed and model["window_theta"] else model["theta"]
    divisors = theta ** (np.arange(0, dim, 2) / dim)
    if model["rope"] == "linear" and not windowed:
        return divisors * SCALING_FACTOR, 1.0
    if model["rope"] == "context":
        return divisors * context_factors(model)["long"], ATTENTION_FACTOR
    if model["rope"] != "yarn":
        return divisors, 1.0
    edge = lambda turns: dim * np.log(ORIGINAL_CONTEXT / (turns * 2 * np.pi)) / (2 * np.log(theta))
    low, high = max(0, np.floor(edge(32.0))), min(dim - 1, np.ceil(edge(1.0)))
    slow = np.clip((np.arange(dim // 2) - low) / max(.001, high - low), 0, 1)
    return 1 / ((1 - slow) / divisors + slow / (divisors * SCALING_FACTOR)), 1 + .1 * np.log(SCALING_FACTOR)


def context_factors(model):
    """Divisors of the rope frequencies, pair by pair, for contexts up to the original one and for longer ones."""
    pairs = np.arange(model["rope_dim"] // 2)
    return dict(short=(1 + .02 * pairs).astype(np.float32), long=(1 + .25 * pairs).astype(np.float32))


def llama3_factors(model):
    """llama3's divisors of the rope frequencies: 1 for the fast ones, the factor for the slow ones, smooth between."""
    freqs = 1 / model["theta"] ** (np.arange(0, model["head_dim"], 2) / model["head_dim"])
    waves = 2 * np.pi / freqs
    low, high = 1.0, 4.0
    smooth = (ORIGINAL_CONTEXT / waves - low) / (high - low)
    between = 1 / ((1 - smooth) / SCALING_FACTOR + smooth)
    factors = np.where(waves < ORIGINAL_CONTEXT / high, 1.0, np.where(waves > ORIGINAL_CONTEXT / low, SCALING_FACTOR, between))
    return factors.astype(np.float32)

#!/usr/bin/env python3
"""Write the tiny random models of the tests: what the golden files on real models do not cover.

    python3 -m pip install numpy gguf==0.19.0 llama-cpp-python==0.3.36
    tests/scripts/make_tiny_models.py tests/fixtures/models [NAME...]

The weights are random, so the models say nothing; but their logits have about the spread of a trained
model's, attention looks at few positions, and every weight format stands somewhere.

The routers of the mixtures of experts are then turned until the last chosen and the first refused expert are
apart on the texts of the golden files, which llama.cpp tokenises: an engine that computes another way must not
choose other experts for that alone. NAME-f32.gguf has the weights of NAME.gguf in F32.
"""
import sys
from pathlib import Path

import numpy as np
import gguf
from gguf import GGMLQuantizationType as T
from gguf import quants

import tiny_f32
import tiny_forward
import tiny_texts
import tiny_vocab

CHATML = ("{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
INST = ("{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
        "{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}")
LOGIT_SIGMA = 3.0           # spread of the logits
SCORE_SIGMA = 2.0           # spread of q and of k: attention scores spread by its square
MIXTURE_SCORE_SIGMA = 1.0   # the same in mixtures of experts: less of it, since a choice of experts adds to the differences
ROUTER_SIGMA = 1.5          # spread of a router's logits
ROUTER_GAP = 0.5            # between the last chosen and the first refused expert, asked for
CLEAR_RATIO = 1.15          # of their probabilities, for the share that is printed

# Which format each matrix has. K-quants need rows of a multiple of 256: with hidden 128 only `down` (and,
# where heads x head_dim is 256, `output`) has them.
SMALL = dict(embd=T.Q8_0, q=T.Q4_0, k=T.Q5_0, v=T.Q5_1, o=T.Q8_0, gate=T.Q4_1, up=T.Q8_0, down=T.Q5_K)
WIDE = dict(embd=T.Q6_K, q=T.Q4_K, k=T.Q4_K, v=T.Q6_K, o=T.Q5_0, gate=T.Q3_K, up=T.Q4_K, down=T.Q2_K)
# Expert tensors have another format in each layer: a mixture of experts has three.
MIXED = dict(embd=T.Q8_0, q=T.Q8_0, k=T.Q8_0, v=T.Q8_0, o=T.Q8_0, shared=T.Q8_0,
             gate=(T.Q4_0, T.Q8_0, T.Q5_1), up=(T.Q5_0, T.Q4_1, T.Q8_0), down=(T.Q8_0, T.Q5_1, T.Q4_0))
GRANITE = dict(arch="granitemoe", hidden=64, head_dim=32, pre="refact", types=MIXED,
               scales=dict(embedding=12.0, residual=0.6, attention=0.25, logit=4.0))
MODELS = {
    "tiny-qwen3": dict(arch="qwen3", hidden=128, head_dim=64, pre="qwen2", types=SMALL | dict(o=T.Q3_K, down=T.Q2_K), seed=1),
    "tiny-qwen3-untied": dict(arch="qwen3", hidden=128, head_dim=32, pre="qwen2", layers=2, seed=2,
                              types=SMALL | dict(embd=T.F16, out=T.Q5_1, q=T.F16, k=T.BF16, v=T.F32, down=T.Q4_K)),
    "tiny-qwen2": dict(arch="qwen2", hidden=128, head_dim=32, pre="qwen2", types=SMALL | dict(up=T.Q5_0), seed=3),
    "tiny-llama3": dict(arch="llama", hidden=256, head_dim=32, layers=2, pre="llama-bpe", types=WIDE, seed=4, rope="llama3"),
    "tiny-yarn": dict(arch="llama", hidden=128, head_dim=32, pre="smollm", types=SMALL | dict(q=T.BF16, k=T.F16), seed=5, layers=2, rope="yarn"),
    "tiny-linear": dict(arch="llama", hidden=128, head_dim=32, pre="refact", types=SMALL | dict(v=T.F16, k=T.F32), seed=6,
                        rope="linear", layers=2),
    "tiny-spm": dict(arch="llama", hidden=256, head_dim=32, layers=2, types=WIDE | dict(gate=T.Q5_K, down=T.Q3_K), seed=7),
    "tiny-qwen3moe": dict(arch="qwen3moe", hidden=64, head_dim=32, pre="qwen2", types=MIXED, seed=11,
                          experts=dict(count=16, used=4, width=32)),
    "tiny-qwen2moe": dict(arch="qwen2moe", hidden=64, head_dim=32, heads=2, kv_heads=1, pre="qwen2", seed=12,
                          types=MIXED | dict(out=T.Q8_0), experts=dict(count=8, used=2, width=32, shared=96)),
    "tiny-granitemoe": GRANITE | dict(experts=dict(count=8, used=3, width=32), seed=13),
    "tiny-granitemoe-shared": GRANITE | dict(experts=dict(count=8, used=3, width=32, shared=96), seed=14),
    "tiny-mixtral": dict(arch="llama", hidden=64, head_dim=32, types=MIXED | dict(out=T.Q8_0), seed=15,
                         experts=dict(count=8, used=2, width=32)),
    # K-quants want rows of 256, which makes F32 files of 4 MB: those are not kept.
    "tiny-qwen3moe-k": dict(arch="qwen3moe", hidden=256, head_dim=32, pre="qwen2", seed=16, experts=dict(count=8, used=2, width=32),
                            types=WIDE | dict(gate=(T.Q4_K, T.Q5_K, T.Q3_K), up=(T.Q6_K, T.Q4_K, T.Q2_K), down=T.Q8_0)),
    "tiny-mixtral-k": dict(arch="llama", hidden=64, head_dim=32, seed=17, experts=dict(count=8, used=2, width=256),
                           types=MIXED | dict(gate=T.Q4_0, up=T.Q5_0, down=(T.Q6_K, T.Q4_K, T.Q5_K))),
    "tiny-mixtral-t": dict(arch="llama", hidden=64, head_dim=32, seed=18, experts=dict(count=8, used=2, width=256),
                           types=MIXED | dict(gate=(T.MXFP4, T.IQ4_NL, T.MXFP4), up=(T.IQ4_NL, T.MXFP4, T.MXFP4),
                                              down=(T.IQ4_XS, T.IQ4_XS, T.MXFP4))),
}
HEADS, KV_HEADS, FFN, CONTEXT = 4, 2, 256, 1024
ROPE_THETA = 10000.0
ORIGINAL_CONTEXT = 64       # what yarn and llama3 scaling start from: short, so that the texts are far beyond it
SCALING_FACTOR = 4.0


def k_quant(rng, ty, rows, cols, sigma):
    """Random superblocks of 256 whose weights have mean about 0 and spread `sigma`."""
    size = gguf.GGML_QUANT_SIZES[ty][1]
    count = rows * cols // 256
    out = rng.integers(0, 256, (count, size), dtype=np.uint8)

    def put(at, value):
        out[:, at:at + 2] = np.full(count, value, np.float16).view(np.uint8).reshape(count, 2)

    if ty == T.Q2_K:            # d sc q - dmin m with q in 0..3: equal scales and mins, so that 1.5 is the middle
        scales = rng.integers(4, 16, (count, 16), dtype=np.uint8)
        out[:, :16] = scales | (scales << 4)
        put(80, sigma / (10.1 * 1.118))
        put(82, 1.5 * sigma / (10.1 * 1.118))
    elif ty == T.Q3_K:          # d (sc - 32) q with q in -4..3, sc any of 64
        put(108, sigma / (18.5 * 2.35))
    elif ty in (T.Q4_K, T.Q5_K):
        scales = rng.integers(16, 64, (count, 8), dtype=np.uint8)
        low, high = scales[:, :4], scales[:, 4:]
        out[:, 4:8] = low | ((high >> 4) << 6)
        out[:, 8:12] = low | ((high >> 4) << 6)
        out[:, 12:16] = (high & 15) | ((high & 15) << 4)
        middle, spread = (7.5, 4.61) if ty == T.Q4_K else (15.5, 9.23)
        put(0, sigma / (42 * spread))
        put(2, middle * sigma / (42 * spread))
    else:                       # Q6_K: d sc q with q in -32..31, sc any sign
        scales = rng.integers(24, 112, (count, 16)) * np.where(rng.random((count, 16)) < .5, -1, 1)
        out[:, 192:208] = scales.astype(np.int8).view(np.uint8)
        put(208, sigma / (73 * 18.5))
    return out.reshape(rows, -1)


def table_quant(rng, ty, rows, cols, sigma):
    """Random blocks of a format that looks its values up, with spread `sigma`."""
    length, size = gguf.GGML_QUANT_SIZES[ty]
    count = rows * cols // length
    out = rng.integers(0, 256, (count, size), dtype=np.uint8)
    if ty == T.MXFP4:           # 2^(e - 128) times twice the values of E2M1, whose spread is 5.85
        out[:, 0] = 128 + np.rint(np.log2(sigma / 5.85)).astype(int) + rng.integers(-1, 2, count)
    else:                       # d times values with spread 67.4; IQ4_XS: and times sc - 32, sc any of 64
        spread = 67.4 if ty == T.IQ4_NL else 67.4 * 18.5
        out[:, :2] = np.full(count, sigma / spread, np.float16).view(np.uint8).reshape(count, 2)
    return out.reshape(rows, -1)


def matrix(rng, ty, rows, cols, sigma):
    """Bytes of a random matrix in format `ty`, one row per row; `cols` is the row length."""
    if ty in (T.IQ4_NL, T.IQ4_XS, T.MXFP4):
        return table_quant(rng, ty, rows, cols, sigma)
    if ty.name.endswith("_K"):
        return k_quant(rng, ty, rows, cols, sigma)
    values = rng.normal(0, sigma, (rows, cols)).astype(np.float32)
    if ty == T.F32:
        return values
    if ty == T.F16:
        return values.astype(np.float16)
    return quants.quantize(values, ty)


def add_vocabulary(w, model):
    """Writes the tokenizer's keys; returns the vocabulary's size."""
    if "pre" not in model:
        tokens, scores, types = tiny_vocab.spm(220, ["[INST]", "[/INST]"])
        w.add_tokenizer_model("llama")
        w.add_token_list(tokens); w.add_token_scores(scores); w.add_token_types(types)
        w.add_bos_token_id(1); w.add_eos_token_id(2); w.add_unk_token_id(0)
        w.add_add_bos_token(True); w.add_chat_template(INST)
        return len(tokens)
    tokens, merges = tiny_vocab.byte_bpe(200)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    end = len(tokens) + 2
    w.add_tokenizer_model("gpt2"); w.add_tokenizer_pre(model["pre"])
    w.add_token_list(tokens + special); w.add_token_types([1] * len(tokens) + [3] * len(special))
    w.add_token_merges(merges)
    w.add_bos_token_id(end - 2); w.add_eos_token_id(end); w.add_pad_token_id(end - 2)
    w.add_add_bos_token(False); w.add_chat_template(CHATML)
    return len(tokens) + len(special)


def rope_factors(head_dim):
    """llama3's divisors of the rope frequencies: 1 for the fast ones, the factor for the slow ones, smooth between."""
    freqs = 1 / ROPE_THETA ** (np.arange(0, head_dim, 2) / head_dim)
    waves = 2 * np.pi / freqs
    low, high = 1.0, 4.0
    smooth = (ORIGINAL_CONTEXT / waves - low) / (high - low)
    between = 1 / ((1 - smooth) / SCALING_FACTOR + smooth)
    factors = np.where(waves < ORIGINAL_CONTEXT / high, 1.0, np.where(waves > ORIGINAL_CONTEXT / low, SCALING_FACTOR, between))
    return factors.astype(np.float32)


class Tensors:
    """Random tensors, in the order of the file: name, format, bytes."""
    def __init__(self, seed):
        self.rng, self.all = np.random.default_rng(seed), []

    def put(self, name, ty, rows, cols, sigma, count=None):
        data = matrix(self.rng, ty, rows * (count or 1), cols, sigma)
        self.all.append((name, ty, data if count is None else data.reshape(count, rows, -1)))

    def vector(self, name, mean, sigma, length):
        self.all.append((name, T.F32, self.rng.normal(mean, sigma, length).astype(np.float32)))

    def norm(self, name, length, gain):
        self.vector(name, gain, .1 * gain, length)


def head_counts(model):
    return model.get("heads", HEADS), model.get("kv_heads", KV_HEADS)


def in_layer(ty, i):
    """The format in layer `i`, where it changes from layer to layer."""
    return ty[i % len(ty)] if isinstance(ty, tuple) else ty


def draw_attention(t, model, blk):
    arch, hidden, head_dim, types = model["arch"], model["hidden"], model["head_dim"], model["types"]
    q, kv = (heads * head_dim for heads in head_counts(model))
    score_sigma = MIXTURE_SCORE_SIGMA if "experts" in model else SCORE_SIGMA
    qk_sigma = (1.0 if arch.startswith("qwen3") else score_sigma) / np.sqrt(hidden)
    t.norm(blk + "attn_norm.weight", hidden, 1.0)
    t.put(blk + "attn_q.weight", types["q"], q, hidden, qk_sigma)
    t.put(blk + "attn_k.weight", types["k"], kv, hidden, qk_sigma)
    t.put(blk + "attn_v.weight", types["v"], kv, hidden, 1.5 / np.sqrt(hidden))
    t.put(blk + "attn_output.weight", types["o"], hidden, q, 1.5 / np.sqrt(q))
    if arch.startswith("qwen2"):
        for part, rows in (("q", q), ("k", kv), ("v", kv)):
            t.vector(f"{blk}attn_{part}.bias", 0, .5, rows)
    if arch.startswith("qwen3"):
        t.norm(blk + "attn_q_norm.weight", head_dim, score_sigma)
        t.norm(blk + "attn_k_norm.weight", head_dim, score_sigma)


def draw_network(t, blk, suffix, types, hidden, width, count=None):
    """Gate, up and down, each of `count` experts."""
    t.put(f"{blk}ffn_gate{suffix}.weight", types["gate"], width, hidden, 1.5 / np.sqrt(hidden), count)
    t.put(f"{blk}ffn_up{suffix}.weight", types["up"], width, hidden, 1.5 / np.sqrt(hidden), count)
    t.put(f"{blk}ffn_down{suffix}.weight", types["down"], hidden, width, 1.5 / np.sqrt(width), count)


def draw_experts(t, model, blk, types):
    hidden, experts = model["hidden"], model["experts"]
    t.put(blk + "ffn_gate_inp.weight", T.F32, experts["count"], hidden, ROUTER_SIGMA / np.sqrt(hidden))
    draw_network(t, blk, "_exps", types, hidden, experts["width"], experts["count"])
    if "shared" not in experts:
        return
    if model["arch"] == "qwen2moe":
        t.vector(blk + "ffn_gate_inp_shexp.weight", 0, 1 / np.sqrt(hidden), hidden)
    draw_network(t, blk, "_shexp", dict.fromkeys(("gate", "up", "down"), types["shared"]), hidden, experts["shared"])


def draw(model, vocab):
    """All tensors of a model."""
    t = Tensors(model["seed"])
    hidden, types = model["hidden"], model["types"]
    t.put("token_embd.weight", types["embd"], vocab, hidden, 1 / 120)
    if model.get("rope") == "llama3":
        t.all.append(("rope_freqs.weight", T.F32, rope_factors(model["head_dim"])))
    for i in range(model.get("layers", 3)):
        blk = f"blk.{i}."
        draw_attention(t, model, blk)
        t.norm(blk + "ffn_norm.weight", hidden, 1.0)
        in_this = {part: in_layer(ty, i) for part, ty in types.items()}
        if "experts" in model:
            draw_experts(t, model, blk, in_this)
        else:
            draw_network(t, blk, "", in_this, hidden, FFN)
    logit_scale = model.get("scales", {}).get("logit", 1.0)
    t.norm("output_norm.weight", hidden, LOGIT_SIGMA * 120 / np.sqrt(hidden) * logit_scale)
    if "out" in types:
        t.put("output.weight", types["out"], vocab, hidden, 1 / 120)
    return t.all


def add_parameters(w, model):
    heads, kv_heads = head_counts(model)
    experts, head_dim = model.get("experts", {}), model["head_dim"]
    # qwen's mixtures keep the width of a dense network beside the experts' own.
    has_own_width = "moe" in model["arch"] and model["arch"].startswith("qwen")
    w.add_block_count(model.get("layers", 3)); w.add_context_length(CONTEXT); w.add_embedding_length(model["hidden"])
    w.add_feed_forward_length(experts["width"] if experts and not has_own_width else FFN)
    w.add_head_count(heads); w.add_head_count_kv(kv_heads)
    w.add_key_length(head_dim); w.add_value_length(head_dim); w.add_rope_dimension_count(head_dim)
    w.add_rope_freq_base(ROPE_THETA); w.add_layer_norm_rms_eps(1e-6)
    if experts:
        w.add_expert_count(experts["count"]); w.add_expert_used_count(experts["used"])
    if has_own_width:
        w.add_expert_feed_forward_length(experts["width"])
    if "shared" in experts:
        w.add_expert_shared_feed_forward_length(experts["shared"])
    if "scales" in model:
        scales = model["scales"]
        w.add_embedding_scale(scales["embedding"]); w.add_residual_scale(scales["residual"])
        w.add_attention_scale(scales["attention"]); w.add_logit_scale(scales["logit"])
    if model.get("rope") in ("yarn", "linear"):
        w.add_rope_scaling_type(gguf.RopeScalingType(model["rope"]))
        w.add_rope_scaling_factor(SCALING_FACTOR)
        w.add_rope_scaling_orig_ctx_len(ORIGINAL_CONTEXT)


def write(path, model, routers={}):
    """Draws and writes a model, with `routers` in the place of its own."""
    w = gguf.GGUFWriter(str(path), model["arch"])
    w.add_name(path.stem)
    add_parameters(w, model)
    vocab = add_vocabulary(w, model)
    w.add_vocab_size(vocab)
    for name, ty, data in draw(model, vocab):
        w.add_tensor(name, routers.get(name, data), raw_dtype=ty)
    w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file()
    w.close()


def part_routers(path, model):
    """Writes a mixture of experts again, with routers that choose clearly."""
    from llama_cpp import Llama
    vocabulary = Llama(str(path), vocab_only=True, verbose=False)
    texts = [tiny_texts.tokens_of(vocabulary, text, special) for _, text, special in tiny_texts.texts_of(vocabulary)]
    used, w, routers, clear = model["experts"]["used"], tiny_forward.weights(path), {}, []

    def router(name, x):
        routers[name] = tiny_forward.parted(w[name], x, used, ROUTER_GAP).astype(np.float32)
        clear.append(tiny_forward.distances(x @ routers[name].T, used) > np.log(CLEAR_RATIO))
        return routers[name]

    tiny_forward.forward(w, model, tiny_forward.Batch(texts), router)
    write(path, model, routers)
    print(f"{path.name:28} last chosen > {CLEAR_RATIO} x first refused: {np.mean(clear):.1%} of all choices, "
          f"all layers of {np.mean(np.all(clear, axis=0)):.1%} of {len(clear[0])} positions")


def main():
    out, names = Path(sys.argv[1]), sys.argv[2:] or MODELS
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        path, model = out / f"{name}.gguf", MODELS[name]
        write(path, model)
        files = [path]
        if "experts" in model:
            part_routers(path, model)
            if not name.endswith("-k"):
                files.append(tiny_f32.write(path, out / f"{name}-f32.gguf"))
        for file in files:
            print(f"{file.name:28} {file.stat().st_size // 1024:4} KiB")


if __name__ == "__main__":
    main()

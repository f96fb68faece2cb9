#!/usr/bin/env python3
"""Write the tiny random models of the tests: what the golden files on real models do not cover.

    python3 -m pip install numpy gguf==0.19.0
    tests/scripts/make_tiny_models.py tests/fixtures/models

The weights are random, so the models say nothing; but their logits have about the spread of a trained
model's, attention looks at few positions, and every weight format stands somewhere.
"""
import sys
from pathlib import Path

import numpy as np
import gguf
from gguf import GGMLQuantizationType as T
from gguf import quants

import tiny_vocab

CHATML = ("{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
INST = ("{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
        "{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}")
LOGIT_SIGMA = 3.0           # spread of the logits
SCORE_SIGMA = 2.0           # spread of q and of k: attention scores spread by its square

# Which format each matrix has. K-quants need rows of a multiple of 256: with hidden 128 only `down` (and,
# where heads x head_dim is 256, `output`) has them.
SMALL = dict(embd=T.Q8_0, q=T.Q4_0, k=T.Q5_0, v=T.Q5_1, o=T.Q8_0, gate=T.Q4_1, up=T.Q8_0, down=T.Q5_K)
WIDE = dict(embd=T.Q6_K, q=T.Q4_K, k=T.Q4_K, v=T.Q6_K, o=T.Q5_0, gate=T.Q3_K, up=T.Q4_K, down=T.Q2_K)
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


def matrix(rng, ty, rows, cols, sigma):
    """Bytes of a random matrix in format `ty`, one row per row; `cols` is the row length."""
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


def write(path, model):
    rng = np.random.default_rng(model["seed"])
    arch, hidden, head_dim, types = model["arch"], model["hidden"], model["head_dim"], model["types"]
    layers, q, kv = model.get("layers", 3), HEADS * model["head_dim"], KV_HEADS * model["head_dim"]
    w = gguf.GGUFWriter(str(path), arch)
    w.add_name(path.stem)
    w.add_block_count(layers); w.add_context_length(CONTEXT); w.add_embedding_length(hidden)
    w.add_feed_forward_length(FFN); w.add_head_count(HEADS); w.add_head_count_kv(KV_HEADS)
    w.add_key_length(head_dim); w.add_value_length(head_dim); w.add_rope_dimension_count(head_dim)
    w.add_rope_freq_base(ROPE_THETA); w.add_layer_norm_rms_eps(1e-6)
    if model.get("rope") in ("yarn", "linear"):
        w.add_rope_scaling_type(gguf.RopeScalingType(model["rope"]))
        w.add_rope_scaling_factor(SCALING_FACTOR)
        w.add_rope_scaling_orig_ctx_len(ORIGINAL_CONTEXT)
    vocab = add_vocabulary(w, model)
    w.add_vocab_size(vocab)

    def put(name, ty, rows, cols, sigma):
        data = matrix(rng, ty, rows, cols, sigma)
        w.add_tensor(name, data, raw_dtype=ty)

    def put_norm(name, length, gain):
        w.add_tensor(name, rng.normal(gain, .1 * gain, length).astype(np.float32))

    tied = "out" not in types
    put("token_embd.weight", types["embd"], vocab, hidden, 1 / 120)
    if model.get("rope") == "llama3":
        w.add_tensor("rope_freqs.weight", rope_factors(head_dim))
    qk_sigma = (1.0 if arch == "qwen3" else SCORE_SIGMA) / np.sqrt(hidden)
    for i in range(layers):
        blk = f"blk.{i}."
        put_norm(blk + "attn_norm.weight", hidden, 1.0)
        put(blk + "attn_q.weight", types["q"], q, hidden, qk_sigma)
        put(blk + "attn_k.weight", types["k"], kv, hidden, qk_sigma)
        put(blk + "attn_v.weight", types["v"], kv, hidden, 1.5 / np.sqrt(hidden))
        put(blk + "attn_output.weight", types["o"], hidden, q, 1.5 / np.sqrt(q))
        if arch == "qwen2":
            for part, rows in (("q", q), ("k", kv), ("v", kv)):
                w.add_tensor(f"{blk}attn_{part}.bias", rng.normal(0, .5, rows).astype(np.float32))
        if arch == "qwen3":
            put_norm(blk + "attn_q_norm.weight", head_dim, SCORE_SIGMA)
            put_norm(blk + "attn_k_norm.weight", head_dim, SCORE_SIGMA)
        put_norm(blk + "ffn_norm.weight", hidden, 1.0)
        put(blk + "ffn_gate.weight", types["gate"], FFN, hidden, 1.5 / np.sqrt(hidden))
        put(blk + "ffn_up.weight", types["up"], FFN, hidden, 1.5 / np.sqrt(hidden))
        put(blk + "ffn_down.weight", types["down"], hidden, FFN, 1.5 / np.sqrt(FFN))
    put_norm("output_norm.weight", hidden, LOGIT_SIGMA * 120 / np.sqrt(hidden))
    if not tied:
        put("output.weight", types["out"], vocab, hidden, 1 / 120)
    w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file()
    w.close()
    print(f"{path.name:24} {path.stat().st_size // 1024:4} KiB, {layers} layers, {vocab} tokens")


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for name, model in MODELS.items():
        write(out / f"{name}.gguf", model)


if __name__ == "__main__":
    main()

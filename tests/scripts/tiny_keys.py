"""The keys of the tiny models' files."""
import gguf

import tiny_vocab
from tiny_catalog import ATTENTION_FACTOR, CONTEXT, ORIGINAL_CONTEXT, SCALING_FACTOR

CHATML = ("{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
INST = ("{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
        "{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}")
GATING = dict(softmax=gguf.ExpertGatingFuncType.SOFTMAX, sigmoid=gguf.ExpertGatingFuncType.SIGMOID)


def add_vocabulary(w, model):
    """Writes the tokenizer's keys; returns the vocabulary's size."""
    if "pre" not in model:
        tokens, scores, types = tiny_vocab.spm(220, ["[INST]", "[/INST]"])
        w.add_tokenizer_model("llama")
        w.add_token_list(tokens); w.add_token_scores(scores); w.add_token_types(types)
        w.add_bos_token_id(1); w.add_eos_token_id(2); w.add_unk_token_id(0)
        w.add_add_bos_token(True); w.add_chat_template(INST)
        if model["arch"] == "gemma3":
            w.add_add_space_prefix(False)
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


def add_expert_parameters(w, experts):
    w.add_expert_count(experts["count"]); w.add_expert_used_count(experts["used"])
    if experts["length_key"]:
        w.add_expert_feed_forward_length(experts["width"])
    if experts["shared"] and "length" in experts["shared_keys"]:
        w.add_expert_shared_feed_forward_length(experts["shared"])
    if experts["shared"] and "count" in experts["shared_keys"]:
        w.add_expert_shared_count(experts["shared_count"])
    if experts["gating_key"]:
        w.add_expert_gating_func(GATING[experts["gating"]])
    if experts["normalised_key"]:
        w.add_expert_weights_norm(experts["normalised"])
    if experts["scale"]:
        w.add_expert_weights_scale(experts["scale"])
    if experts["groups"]:
        count, used = experts["groups"]
        w.add_expert_group_count(count); w.add_expert_group_used_count(used)


def add_rope_parameters(w, model):
    if model["rope_key"]:
        w.add_rope_dimension_count(model["rope_dim"])
    w.add_rope_freq_base(model["theta"])
    if model["window_theta"]:
        w.add_rope_freq_base_swa(model["window_theta"])


def add_rope_scaling(w, model):
    if model["rope"] in ("yarn", "linear"):
        w.add_rope_scaling_type(gguf.RopeScalingType(model["rope"]))
        w.add_rope_scaling_factor(SCALING_FACTOR)
    if model["rope"] == "context":
        w.add_rope_scaling_attn_factors(ATTENTION_FACTOR)
    if model["rope"] in ("yarn", "linear", "context"):
        w.add_rope_scaling_orig_ctx_len(ORIGINAL_CONTEXT)


def add_parameters(w, model):
    head_dim, experts = model["head_dim"], model["experts"]
    has_dense = not experts or experts["dense_width"] or model["dense_layers"]
    w.add_block_count(model["layers"] + model["nextn_layers"]); w.add_context_length(CONTEXT)
    w.add_embedding_length(model["hidden"])
    w.add_feed_forward_length(model["ffn"] if has_dense else experts["width"])
    w.add_head_count(model["heads"]); w.add_head_count_kv(model["kv_heads"])
    w.add_key_length(head_dim); w.add_value_length(head_dim)
    add_rope_parameters(w, model)
    w.add_layer_norm_rms_eps(model["epsilon"])
    if experts:
        add_expert_parameters(w, experts)
    if model["dense_layers"]:
        w.add_leading_dense_block_count(model["dense_layers"])
    if model["nextn_layers"]:
        w.add_nextn_predict_layers(model["nextn_layers"])
    if model["window"]:
        w.add_sliding_window(model["window"])
    if model["softcap"]:
        w.add_final_logit_softcapping(model["softcap"])
    if model["scales"]:
        scales = model["scales"]
        w.add_embedding_scale(scales["embedding"]); w.add_residual_scale(scales["residual"])
        w.add_attention_scale(scales["attention"]); w.add_logit_scale(scales["logit"])
    add_rope_scaling(w, model)
    if model["arch"] == "ernie4_5-moe":
        w.add_interleave_moe_layer_step(1)

//! The fields of `/v1/chat/completions` and `/v1/completions`: OpenAI's, llama-server's and vLLM's.

use super::{Endpoint, Row, harmless, honoured, refused};

const FUNCTION: &str = r#"[{"type": "function", "function": {"name": "f"}}]"#;
const GRAMMAR: &str = r#""root ::= \"a\"""#;
const SCHEMA: &str = r#"{"type": "object"}"#;

/// `POST /v1/chat/completions`.
pub const CHAT: Endpoint = Endpoint {
    path: "/v1/chat/completions",
    inside: "",
    title: "OpenAI: chat completions",
    minimal: r#"{"messages": [{"role": "user", "content": "hi"}]}"#,
    rows: &[CHAT_OWN, SAMPLING, ENDS, REPORTS, TEMPLATE, CONSTRAINTS, LABELS, SAMPLERS, SERVERS],
};

/// `POST /v1/completions`.
pub const COMPLETIONS: Endpoint = Endpoint {
    path: "/v1/completions",
    inside: "",
    title: "OpenAI: completions",
    minimal: r#"{"prompt": "hi"}"#,
    rows: &[COMPLETIONS_OWN, SAMPLING, ENDS],
};

const CHAT_OWN: &[Row] = &[
    honoured(
        "model",
        r#""tiny""#,
        "7",
        "a name or alias of a served model, in any case, with or without `:latest`; others are a 404",
    ),
    honoured(
        "messages",
        r#"[{"role": "user", "content": "hi"}]"#,
        "[]",
        "roles system, developer, user, assistant, tool; content as text or parts of text; 4,096 messages",
    ),
    honoured("stream", "true", "1", "server-sent events"),
    honoured(
        "stream_options",
        r#"{"include_usage": true, "continuous_usage_stats": true}"#,
        r#"{"include_obfuscation": true}"#,
        "nothing is obfuscated",
    ),
    honoured("logprobs", "true", "2", "natural logarithms of the unmodified distribution"),
    honoured("top_logprobs", "0", "21", "0 to 20, with `logprobs`"),
    honoured("n", "2", "9", "1 to 8 choices of each prompt (docs/choices.md)"),
    honoured(
        "tools",
        FUNCTION,
        r#"[{"type": "web_search"}]"#,
        "up to 128 functions (docs/tools.md)",
    ),
    honoured(
        "tool_choice",
        r#""auto""#,
        r#""required""#,
        "none, auto, required, or a function by its name; the last two need `tools`",
    ),
    honoured("parallel_tool_calls", "false", "1", "false: the answer ends with its first call"),
    refused("functions", "[]", r#"[{"name": "f"}]"#, "the older form of `tools`"),
    refused("function_call", r#""none""#, r#"{"name": "f"}"#, "the older form of `tool_choice`"),
    refused("web_search_options", "", "{}", "Woolly runs no tools of its own"),
    refused("modalities", r#"["text"]"#, r#"["audio"]"#, "text only"),
    refused("audio", "", r#"{"voice": "alloy", "format": "mp3"}"#, "text only"),
    refused("prediction", "", r#"{"type": "content", "content": "a"}"#, "no predicted outputs"),
    refused("moderation", "", r#"{"model": "m"}"#, "Woolly moderates nothing"),
];

const COMPLETIONS_OWN: &[Row] = &[
    honoured("model", r#""tiny""#, "7", "as in chat completions"),
    honoured("prompt", r#"["a", "b"]"#, "{}", "a text, token ids, or up to 2,048 of either"),
    honoured("stream", "true", "1", "server-sent events"),
    honoured(
        "stream_options",
        r#"{"include_usage": true}"#,
        r#"{"include_obfuscation": true}"#,
        "nothing is obfuscated",
    ),
    honoured("logprobs", "1", "21", "0 to 20 alternatives"),
    honoured("echo", "true", "1", "with `logprobs` the prompt's tokens are scored too"),
    honoured("n", "2", "9", "1 to 8 choices of each prompt (docs/choices.md)"),
    honoured("best_of", "1", "2", "as many as `n`: all that are made are given"),
    honoured(
        "suffix",
        r#""""#,
        r#""b""#,
        "for models whose vocabulary has tokens for filling in; others are a 400",
    ),
    harmless("user", r#""u""#, "up to 512 characters"),
];

/// How tokens are chosen.
const SAMPLING: &[Row] = &[
    honoured("temperature", "0.5", "2.5", "0 to 2; 1 if it is not given"),
    honoured("top_p", "0.5", "2", "0 to 1"),
    honoured("top_k", "40", "-2", "0 and −1 keep all"),
    honoured("min_p", "0.1", "2", "0 to 1"),
    honoured(
        "seed",
        "7",
        r#""x""#,
        "64 bits; −1 draws one; the header `x-woolly-seed` says which was used",
    ),
    honoured("frequency_penalty", "0.5", "3", "−2 to 2"),
    honoured("presence_penalty", "0.5", "3", "−2 to 2"),
    honoured("repetition_penalty", "1.1", "0", "0.01 to 10; vLLM's name"),
    honoured("repeat_penalty", "1.1", "0", "the same; llama-server's name"),
    honoured("logit_bias", r#"{"5": -100}"#, r#"{"x": 1}"#, "up to 1,024 token ids"),
];

/// When an answer ends.
const ENDS: &[Row] = &[
    honoured("max_tokens", "5", "1.5", "−1 is to the end of the context, where every answer ends"),
    honoured("max_completion_tokens", "5", "1.5", "wins over `max_tokens`"),
    honoured("n_predict", "5", "1.5", "llama-server's name"),
    honoured("stop", r#"["END"]"#, "7", "a string or up to 16 of up to 256 characters"),
    honoured("ignore_eos", "true", "1", ""),
    honoured("min_tokens", "2", "-1", "at most `max_tokens`"),
    honoured("stop_token_ids", "[1]", "[999999]", "up to 256 tokens"),
    honoured("include_stop_str_in_output", "true", "1", ""),
];

/// What is reported.
const REPORTS: &[Row] = &[
    refused("n_probs", "0", "2", "`logprobs` and `top_logprobs` report probabilities"),
    refused(
        "post_sampling_probs",
        "false",
        "true",
        "log-probabilities are of the unmodified distribution",
    ),
    refused("return_tokens", "false", "true", ""),
    honoured("return_token_ids", "true", "1", "of the prompt and of each choice"),
    refused("return_tokens_as_token_ids", "false", "true", ""),
    refused("return_progress", "false", "true", ""),
    honoured("timings_per_token", "true", "1", "`timings` in each chunk and in whole answers"),
    honoured("prompt_logprobs", "2", "21", "0 to 20, not with `stream`"),
    refused("skip_special_tokens", "true", "false", "control tokens are left out"),
    refused("spaces_between_special_tokens", "true", "false", "control tokens are left out"),
    refused("response_fields", "[]", r#"["a"]"#, ""),
    refused("verbose", "false", "true", ""),
];

/// What the model's template is told.
const TEMPLATE: &[Row] = &[
    honoured(
        "reasoning_effort",
        r#""none""#,
        r#""high""#,
        "levels if the model's template knows them",
    ),
    honoured(
        "chat_template_kwargs",
        r#"{"enable_thinking": false}"#,
        r#"{"colour": 1}"#,
        "variables that the template reads",
    ),
    honoured("add_generation_prompt", "true", "1", ""),
    honoured("continue_final_message", "false", "true", "with a last message of the assistant's"),
    harmless("verbosity", r#""low""#, "told to templates that read it"),
    refused("echo", "false", "true", "for /v1/completions"),
    refused("add_special_tokens", "false", "true", "the template writes them"),
    refused("chat_template", "", r#""{{ x }}""#, "the model's own is used"),
    refused("documents", "[]", r#"[{"text": "a"}]"#, ""),
    honoured("include_reasoning", "false", "1", "whether thinking is sent"),
    honoured(
        "reasoning_format",
        r#""none""#,
        r#""magic""#,
        "none and raw leave thinking in the text, hidden leaves it out",
    ),
    refused("truncate_prompt_tokens", "-1", "5", "prompts are never cut"),
];

/// What an answer has to be.
const CONSTRAINTS: &[Row] = &[
    honoured(
        "response_format",
        r#"{"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}"#,
        r#"{"type": "xml"}"#,
        "text, json_object, json_schema; a schema is always enforced",
    ),
    honoured("grammar", GRAMMAR, r#""root ::= (""#, "llama.cpp's notation"),
    honoured("json_schema", SCHEMA, "7", ""),
    honoured(
        "structured_outputs",
        r#"{"regex": "a"}"#,
        r#"{"structural_tag": "x"}"#,
        "json, json_object, regex, choice, grammar",
    ),
    honoured("guided_json", SCHEMA, "7", ""),
    honoured("guided_regex", r#""a""#, "7", ""),
    honoured("guided_choice", r#"["a"]"#, "7", ""),
    honoured("guided_grammar", GRAMMAR, r#""root ::= (""#, ""),
    harmless("guided_decoding_backend", r#""xgrammar""#, "there is one"),
    refused("guided_whitespace_pattern", "", r#""x""#, ""),
    refused("structural_tag", "", r#""x""#, ""),
    honoured("allowed_token_ids", "[1]", "[999999]", ""),
    honoured("bad_words", r#"["a"]"#, "[1]", ""),
    refused("grammar_lazy", "false", "true", "llama-server's own word to itself"),
    refused("grammar_triggers", "[]", r#"[{"type": 0}]"#, "llama-server's own word to itself"),
    refused("preserved_tokens", "[]", r#"["a"]"#, "llama-server's own word to itself"),
    refused("chat_format", "", "1", "llama-server's own word to itself"),
    refused("chat_parser", r#""""#, r#""x""#, "llama-server's own word to itself"),
    refused("generation_prompt", r#""""#, r#""x""#, "llama-server's own word to itself"),
    harmless("parse_tool_calls", "true", ""),
    refused("logits_processors", "[]", r#"["a"]"#, "no code of clients is run"),
];

/// Labels and hints.
const LABELS: &[Row] = &[
    harmless("user", r#""u""#, "up to 512 characters"),
    harmless("safety_identifier", r#""u""#, "up to 512 characters"),
    harmless("metadata", r#"{"a": "b"}"#, "up to 16 pairs of up to 512 characters"),
    harmless("store", "true", "nothing is stored"),
    harmless("service_tier", r#""auto""#, "there is one"),
    harmless("prompt_cache_key", r#""k""#, "prefixes are found by themselves, for each API key"),
    harmless("prompt_cache_retention", r#""24h""#, ""),
    harmless("prompt_cache_options", r#"{"mode": "implicit"}"#, ""),
    harmless("cache_prompt", "true", ""),
    harmless("request_id", r#""r""#, "the header `x-request-id` names a request"),
    harmless("sse_ping_interval", "30", "a comment comes after 10 s of silence"),
];

/// Samplers that Woolly does not have: their companions are harmless while they are off.
const SAMPLERS: &[Row] = &[
    honoured(
        "samplers",
        r#"["top_k", "temperature"]"#,
        r#"["magic"]"#,
        "what is left out is off; an order that would choose other tokens is refused",
    ),
    honoured(
        "repeat_last_n",
        "-1",
        r#""x""#,
        "penalties look at the whole text, or (0) at nothing",
    ),
    refused("typical_p", "1", "0.5", ""),
    refused("top_n_sigma", "-1", "1", ""),
    refused("mirostat", "0", "2", ""),
    harmless("mirostat_tau", "5", ""),
    harmless("mirostat_eta", "0.1", ""),
    honoured("xtc_probability", "0.5", "2", "0 to 1"),
    honoured("xtc_threshold", "0.1", "2", "0 to 1"),
    honoured("dry_multiplier", "0.8", "-1", "docs/choices.md"),
    honoured("dry_base", "1.75", r#""x""#, ""),
    honoured("dry_allowed_length", "2", r#""x""#, ""),
    honoured("dry_penalty_last_n", "-1", r#""x""#, ""),
    honoured("dry_sequence_breakers", r#"["\n"]"#, "7", ""),
    refused("dynatemp_range", "0", "0.5", ""),
    harmless("dynatemp_exponent", "1", ""),
    refused("adaptive_target", "-1", "0.5", ""),
    harmless("adaptive_decay", "0.9", ""),
    refused("min_keep", "0", "2", ""),
    refused("backend_sampling", "false", "true", ""),
    refused("use_beam_search", "false", "true", ""),
    refused("length_penalty", "1", "2", "of beam search"),
    honoured("best_of", "1", "2", "as many as `n`"),
    honoured("n_cmpl", "2", "9", "the same as `n`; llama-server's name"),
];

/// What only servers of one machine can mean.
const SERVERS: &[Row] = &[
    refused("n_keep", "0", "5", "a prompt is kept whole"),
    refused("n_discard", "0", "5", "nothing is discarded"),
    refused("n_indent", "0", "2", ""),
    refused("n_cache_reuse", "0", "5", ""),
    refused("t_max_predict_ms", "-1", "50", "the operator limits the time of requests"),
    refused("lora", "[]", r#"[{"id": 0, "scale": 1}]"#, "no adapters"),
    refused("priority", "0", "5", "requests are served in turn"),
    refused("cache_salt", r#""""#, r#""x""#, "every API key finds its own prefixes only"),
    refused("kv_transfer_params", "{}", r#"{"a": 1}"#, ""),
    refused("mm_processor_kwargs", "{}", r#"{"a": 1}"#, "text only"),
    refused("vllm_xargs", "{}", r#"{"a": 1}"#, ""),
    refused("reasoning_budget_tokens", "-1", "100", "thinking is bounded by `max_tokens`"),
    refused("thinking_budget_tokens", "-1", "100", "thinking is bounded by `max_tokens`"),
    harmless("reasoning_budget_message", r#""x""#, "without a budget"),
    harmless("reasoning_budget_start_tag", r#""x""#, "without a budget"),
    harmless("reasoning_budget_end_tag", r#""x""#, "without a budget"),
    harmless("reasoning_budget_end_tags", r#"["x"]"#, "without a budget"),
    refused("reasoning_control", "false", "true", ""),
    harmless("speculative.n_max", "16", "how tokens are computed changes none of them"),
    harmless("speculative.n_min", "0", ""),
    harmless("speculative.p_min", "0.75", ""),
    harmless("speculative.type", r#""none""#, ""),
    harmless("speculative.ngram_size_n", "12", ""),
    harmless("speculative.ngram_size_m", "48", ""),
    harmless("speculative.ngram_min_hits", "1", ""),
];

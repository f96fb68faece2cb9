//! The fields of the Responses API, of Anthropic's and of Ollama's.

use super::{Endpoint, Row, harmless, honoured, refused};

/// `POST /v1/responses`.
pub const RESPONSES: Endpoint = Endpoint {
    path: "/v1/responses",
    inside: "",
    title: "OpenAI: responses",
    minimal: r#"{"input": "hi"}"#,
    rows: &[RESPONSES_ROWS],
};

const RESPONSES_ROWS: &[Row] = &[
    honoured("model", r#""tiny""#, "7", "as in chat completions"),
    honoured(
        "input",
        r#"[{"role": "user", "content": "hi"}]"#,
        "7",
        "a text, or items: message, function_call, function_call_output, reasoning",
    ),
    honoured("instructions", r#""be brief""#, "7", "a system message before the input"),
    honoured("max_output_tokens", "5", "0", ""),
    honoured("temperature", "0.5", "2.5", "0 to 2; 1 if it is not given"),
    honoured("top_p", "0.5", "2", ""),
    honoured("top_logprobs", "2", "21", "0 to 20"),
    honoured(
        "include",
        r#"["message.output_text.logprobs"]"#,
        r#"["everything"]"#,
        "the other names of OpenAI's are of what no answer here has",
    ),
    honoured("stream", "true", "1", "named, numbered events"),
    harmless("stream_options", r#"{"include_obfuscation": false}"#, "nothing is obfuscated"),
    honoured(
        "reasoning",
        r#"{"effort": "none", "summary": "auto"}"#,
        r#"{"summary": "concise"}"#,
        "`effort` if the model's template knows it; with a summary all of the thinking is given as one",
    ),
    honoured(
        "text",
        r#"{"format": {"type": "json_schema", "name": "a", "schema": {"type": "object"}}, "verbosity": "low"}"#,
        r#"{"format": {"type": "xml"}}"#,
        "`format` as `response_format` of chat completions",
    ),
    honoured(
        "tools",
        r#"[{"type": "function", "name": "f", "parameters": {"type": "object"}}]"#,
        r#"[{"type": "web_search"}]"#,
        "functions as in chat completions; Woolly runs no tools of its own",
    ),
    honoured("tool_choice", r#""auto""#, r#"{"type": "allowed_tools"}"#, "as in chat completions"),
    honoured("parallel_tool_calls", "false", "1", ""),
    harmless("max_tool_calls", "3", "of tools that the server runs: none"),
    harmless("truncation", r#""auto""#, "an input that is too long is a 400 either way"),
    harmless("store", "true", "nothing is stored; the answer says so"),
    refused("previous_response_id", "", r#""resp_1""#, "nothing is stored"),
    refused("conversation", "", r#""conv_1""#, "nothing is stored"),
    refused("prompt", "", r#"{"id": "p"}"#, "nothing is stored"),
    refused("background", "false", "true", ""),
    refused("background_options", "", r#"{"completion_window": "2h"}"#, ""),
    refused("context_management", "[]", r#"[{"type": "compaction"}]"#, ""),
    refused("moderation", "", r#"{"model": "m"}"#, ""),
    harmless("metadata", r#"{"a": "b"}"#, "said again in the answer"),
    harmless("user", r#""u""#, ""),
    harmless("safety_identifier", r#""u""#, ""),
    harmless("service_tier", r#""auto""#, "there is one"),
    harmless("prompt_cache_key", r#""k""#, ""),
    harmless("prompt_cache_retention", r#""24h""#, ""),
    harmless("prompt_cache_options", r#"{"mode": "implicit"}"#, ""),
    harmless("image", r#"{"context_compression": "auto"}"#, "there are none"),
    harmless("access_programs", r#"{"cyber": "standard"}"#, ""),
];

/// `POST /v1/messages`.
pub const MESSAGES: Endpoint = Endpoint {
    path: "/v1/messages",
    inside: "",
    title: "Anthropic: messages",
    minimal: r#"{"max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}"#,
    rows: &[MESSAGES_OWN, MESSAGES_SHARED],
};

/// `POST /v1/messages/count_tokens`.
pub const COUNT_TOKENS: Endpoint = Endpoint {
    path: "/v1/messages/count_tokens",
    inside: "",
    title: "Anthropic: count tokens",
    minimal: r#"{"messages": [{"role": "user", "content": "hi"}]}"#,
    rows: &[MESSAGES_SHARED],
};

const MESSAGES_OWN: &[Row] = &[
    honoured("max_tokens", "5", "0", "it must be given"),
    honoured("temperature", "0.5", "1.5", "0 to 1; 1 if it is not given"),
    honoured("top_k", "40", "-2", ""),
    honoured("top_p", "0.5", "2", ""),
    honoured("stop_sequences", r#"["END"]"#, "[7]", "up to 16 of up to 256 characters"),
    honoured("stream", "true", "1", "named events"),
    harmless("metadata", r#"{"user_id": "u"}"#, ""),
    harmless("service_tier", r#""auto""#, "there is one"),
    refused("container", "", r#""c""#, "Woolly runs no code"),
    refused("diagnostics", "", "{}", "nothing of earlier requests is kept"),
    refused(
        "inference_geo",
        r#""global""#,
        r#""us""#,
        "Woolly does not know where its machines are",
    ),
    refused("mcp_servers", "[]", r#"[{"type": "url"}]"#, "beta"),
    refused(
        "context_management",
        r#"{"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}"#,
        r#"{"edits": [{}]}"#,
        "beta",
    ),
    refused("compaction", "", r#"{"a": 1}"#, "beta"),
    refused("fallbacks", "[]", r#"[{"model": "m"}]"#, "beta"),
    refused("fallback_credit_token", "", r#""x""#, "beta"),
    refused("billing_policy", "", r#""x""#, "beta"),
    refused("thread", "", r#"{"id": "t"}"#, "beta; nothing of earlier requests is kept"),
];

const MESSAGES_SHARED: &[Row] = &[
    honoured("model", r#""tiny""#, "7", "as in chat completions"),
    honoured(
        "messages",
        r#"[{"role": "user", "content": [{"type": "text", "text": "hi"}]}]"#,
        "[]",
        "blocks of text, tool_use, tool_result, thinking; a last turn of the assistant is continued",
    ),
    honoured("system", r#"[{"type": "text", "text": "be brief"}]"#, "7", ""),
    honoured(
        "thinking",
        r#"{"type": "disabled"}"#,
        r#"{"type": "always"}"#,
        "enabled if the model's template has a switch; a budget is checked, and is not kept to; adaptive leaves it to the model",
    ),
    honoured(
        "output_config",
        r#"{"effort": "high", "format": {"type": "json_schema", "schema": {"type": "object"}}}"#,
        r#"{"format": {"type": "text"}}"#,
        "`effort` if the model's template knows it; `format` as `response_format` of chat completions",
    ),
    honoured(
        "tools",
        r#"[{"name": "f", "input_schema": {"type": "object"}}]"#,
        r#"[{"type": "bash_20250124", "name": "bash"}]"#,
        "as in chat completions; Woolly runs no tools of its own",
    ),
    honoured(
        "tool_choice",
        r#"{"type": "auto"}"#,
        r#"{"type": "tool"}"#,
        "auto, any, none, or a tool by its name",
    ),
    harmless("cache_control", r#"{"type": "ephemeral"}"#, "prefixes are found by themselves"),
    refused("speed", r#""standard""#, r#""fast""#, "there is one"),
];

/// `POST /api/chat`.
pub const OLLAMA_CHAT: Endpoint = Endpoint {
    path: "/api/chat",
    inside: "",
    title: "Ollama: chat",
    minimal: r#"{"messages": [{"role": "user", "content": "hi"}]}"#,
    rows: &[
        &[
            honoured(
                "messages",
                r#"[{"role": "user", "content": "hi"}]"#,
                "7",
                "none asks for the model to be loaded: it is",
            ),
            honoured(
                "tools",
                r#"[{"type": "function", "function": {"name": "f"}}]"#,
                "7",
                "as in chat completions",
            ),
        ],
        OLLAMA_SHARED,
    ],
};

/// `POST /api/generate`.
pub const OLLAMA_GENERATE: Endpoint = Endpoint {
    path: "/api/generate",
    inside: "",
    title: "Ollama: generate",
    minimal: r#"{"prompt": "hi"}"#,
    rows: &[
        &[
            honoured(
                "prompt",
                r#""hi""#,
                "7",
                "a message of the user's; none asks for the model to be loaded: it is",
            ),
            honoured("system", r#""be brief""#, "7", ""),
            honoured("raw", "true", "1", "the prompt is continued as it stands"),
            refused("suffix", r#""""#, r#""b""#, "/v1/completions and /infill fill text in"),
            refused("template", r#""""#, r#""{{ .Prompt }}""#, "the model's own is used"),
            refused("context", "[]", "[1]", "send the conversation to /api/chat"),
            refused("images", "[]", r#"["aGk="]"#, "text only"),
            harmless("width", "512", "of images"),
            harmless("height", "512", "of images"),
            harmless("steps", "4", "of images"),
        ],
        OLLAMA_SHARED,
    ],
};

const OLLAMA_SHARED: &[Row] = &[
    honoured("model", r#""tiny:latest""#, "7", "as in chat completions"),
    honoured("stream", "false", "1", "true if it is not given: lines of JSON"),
    honoured("options", r#"{"temperature": 0.5}"#, r#"{"colour": 1}"#, "see below"),
    honoured(
        "format",
        r#""json""#,
        r#""xml""#,
        "`json` or a schema, as `response_format` of chat completions",
    ),
    honoured("think", "false", "7", "true or a level if the model's template has a switch"),
    honoured("logprobs", "true", "2", ""),
    honoured("top_logprobs", "0", "21", "0 to 20, with `logprobs`"),
    harmless("keep_alive", r#""5m""#, "models stay loaded"),
];

/// `options` of both.
pub const OLLAMA_OPTIONS: Endpoint = Endpoint {
    path: "/api/chat",
    inside: "options",
    title: "Ollama: options",
    minimal: r#"{"messages": [{"role": "user", "content": "hi"}]}"#,
    rows: &[&[
        harmless("num_ctx", "64", "up to the context; more is a 400 that names `--ctx-size`"),
        honoured("num_predict", "5", "0", "−1 and −2 are to the end of the context"),
        honoured("seed", "7", r#""x""#, ""),
        honoured("temperature", "0.5", "2.5", "0 to 2; 1 if it is not given"),
        honoured("top_k", "40", "-2", ""),
        honoured("top_p", "0.5", "2", ""),
        honoured("min_p", "0.1", "2", ""),
        honoured("repeat_penalty", "1.1", "0", ""),
        honoured(
            "repeat_last_n",
            "-1",
            r#""x""#,
            "penalties look at the whole text, or (0) at nothing",
        ),
        honoured("presence_penalty", "0.5", "3", ""),
        honoured("frequency_penalty", "0.5", "3", ""),
        honoured("stop", r#"["END"]"#, "7", ""),
        refused("typical_p", "1", "0.5", ""),
        refused("tfs_z", "1", "0.5", ""),
        refused("mirostat", "0", "2", ""),
        harmless("mirostat_tau", "5", ""),
        harmless("mirostat_eta", "0.1", ""),
        refused("penalize_newline", "true", "false", "penalties count every token"),
        refused("f16_kv", "true", "false", "the operator chooses"),
        refused("logits_all", "false", "true", ""),
        refused("vocab_only", "false", "true", ""),
        refused("embedding_only", "false", "true", ""),
        harmless("num_keep", "4", "nothing of a prompt is dropped"),
        harmless("numa", "false", "how machines compute changes no answer"),
        harmless("num_batch", "512", ""),
        harmless("num_gpu", "1", ""),
        harmless("main_gpu", "0", ""),
        harmless("low_vram", "false", ""),
        harmless("use_mmap", "true", ""),
        harmless("use_mlock", "true", ""),
        harmless("num_thread", "8", ""),
    ]],
};

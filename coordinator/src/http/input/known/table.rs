//! The fields that this server knows and does not act on, wherever they stand in a request.

use super::Accept::{self, Either, Hint, Label, List, No, Number, Pairs, Same};
use super::Place::{
    self, Anthropic, Block, Body, Chat, Completions, Item, Message, Ollama, OllamaOptions, Part,
    Responses, Tool,
};

/// Where a field stands, its name, which values are accepted, and what to say of the others.
pub(super) type Row = (Place, &'static str, Accept, &'static str);

const CONVERSATIONS: &str = "only conversations (/v1/chat/completions) have tools";
const FUNCTIONS: &str = "Woolly has 'tools' and 'tool_choice' instead";
const NO_THINKING: &str = "only conversations have a template that can think";
const CHOICES: &str = "Woolly draws each choice by itself";
const SAMPLER: &str = "Woolly does not have this sampler";
const MEDIA: &str = "Woolly reads and writes text only";
const REPORT: &str = "Woolly does not report this";
const SCHEDULE: &str = "Woolly schedules and caches by itself";
const FIRST_COME: &str = "Woolly serves requests in turn, whatever they are for";
const TEMPLATE: &str = "the model's own template is used";
/// What asks for nothing to be cleared.
const KEEPS_THINKING: &str = r#"{"edits":[{"type":"clear_thinking_20251015","keep":"all"}]}"#;
const BUDGET: &str = "thinking is bounded by 'max_tokens' only";
const ONE: &str = "an answer of this API is one";
const STATELESS: &str = "nothing of earlier requests is kept";
const NEVER: &str = "";

/// The table.
pub(super) const KNOWN: &[Row] = &[
    // Labels for somebody's records, and hints: no answer depends on them.
    (Body, "user", Label, NEVER),
    (Body, "safety_identifier", Label, NEVER),
    (Body, "prompt_cache_key", Label, NEVER),
    (Body, "prompt_cache_retention", Label, NEVER),
    (Body, "metadata", Pairs, NEVER),
    // Nothing is stored here, so there is nothing to ask for later.
    (Body, "store", Either, NEVER),
    // There is one tier.
    (Body, "service_tier", Label, NEVER),
    (Body, "cache_prompt", Either, NEVER),
    (Body, "cache_control", Hint, NEVER),
    (Body, "prompt_cache_options", Hint, NEVER),
    (Body, "request_id", Label, NEVER),
    // How often a silent stream says that it lives.
    (Body, "sse_ping_interval", Number, NEVER),
    // How tokens are computed changes none of them.
    (Body, "speculative.n_max", Number, NEVER),
    (Body, "speculative.n_min", Number, NEVER),
    (Body, "speculative.p_min", Number, NEVER),
    (Body, "speculative.type", Label, NEVER),
    (Body, "speculative.ngram_size_n", Number, NEVER),
    (Body, "speculative.ngram_size_m", Number, NEVER),
    (Body, "speculative.ngram_min_hits", Number, NEVER),
    // Choices.
    (Body, "use_beam_search", Same(&["false"]), CHOICES),
    (Body, "num_beams", Same(&["1"]), CHOICES),
    (Body, "length_penalty", Same(&["1"]), CHOICES),
    (Body, "early_stopping", Same(&["false"]), CHOICES),
    // Tools are for conversations. A choice goes with its list: see `take_lists`.
    (Completions, "tools", Same(&["[]"]), CONVERSATIONS),
    (Completions, "tool_choice", Same(&["\"none\"", "\"auto\""]), CONVERSATIONS),
    (Completions, "parallel_tool_calls", Either, NEVER),
    (Completions, "parse_tool_calls", Either, NEVER),
    (Chat, "parse_tool_calls", Same(&["true"]), "calls of tools are always told apart from text"),
    (Body, "functions", Same(&["[]"]), FUNCTIONS),
    (Body, "function_call", Same(&["\"none\"", "\"auto\""]), FUNCTIONS),
    (Body, "web_search_options", No, "Woolly does not search the web"),
    // One library does it.
    (Body, "guided_decoding_backend", Label, NEVER),
    // Grammars that begin in the middle of an answer.
    (Body, "grammar_lazy", Same(&["false"]), "a grammar is for the whole answer"),
    (Body, "grammar_triggers", Same(&["[]"]), "a grammar is for the whole answer"),
    (Body, "preserved_tokens", Same(&["[]"]), "a grammar is for the whole answer"),
    (Body, "chat_format", No, TEMPLATE),
    (Body, "chat_parser", Same(&["\"\""]), TEMPLATE),
    (Body, "generation_prompt", Same(&["\"\""]), TEMPLATE),
    (Body, "logits_processors", Same(&["[]"]), "Woolly runs no code of clients"),
    (Body, "vllm_xargs", Same(&["{}"]), "Woolly has no such arguments"),
    (Body, "kv_transfer_params", Same(&["{}"]), SCHEDULE),
    // Other media, other modes.
    (Body, "mm_processor_kwargs", Same(&["{}"]), MEDIA),
    (Body, "moderation", No, "Woolly moderates nothing"),
    // A budget of thinking, and what only means something with one.
    (Body, "reasoning_budget_tokens", Same(&["-1"]), BUDGET),
    (Body, "thinking_budget_tokens", Same(&["-1"]), BUDGET),
    (Body, "reasoning_budget_message", Label, NEVER),
    (Body, "reasoning_budget_start_tag", Label, NEVER),
    (Body, "reasoning_budget_end_tag", Label, NEVER),
    (Body, "reasoning_budget_end_tags", List, NEVER),
    (Body, "reasoning_control", Same(&["false"]), BUDGET),
    (Body, "modalities", Same(&["[\"text\"]"]), MEDIA),
    (Body, "audio", No, MEDIA),
    (Body, "prediction", No, "Woolly does not use predicted outputs"),
    // Templates.
    (Body, "chat_template", No, TEMPLATE),
    (Body, "documents", Same(&["[]"]), "Woolly hands no documents to the template"),
    (Body, "truncate_prompt_tokens", Same(&["-1"]), "prompts are never cut"),
    // Ends.
    (Body, "n_keep", Same(&["0", "-1"]), "a prompt is kept whole"),
    (Body, "n_discard", Same(&["0"]), "nothing of a prompt is discarded"),
    (Body, "t_max_predict_ms", Same(&["0", "-1"]), "the operator limits the time of requests"),
    (Body, "n_indent", Same(&["0"]), "Woolly does not look at indentation"),
    // Samplers that do not exist here, at the values that turn them off. What only means something
    // while its sampler is on is accepted: the sampler itself is refused.
    (Body, "typical_p", Same(&["1", "0", "-1"]), SAMPLER),
    (Body, "typ_p", Same(&["1", "0", "-1"]), SAMPLER),
    (Body, "tfs_z", Same(&["1"]), SAMPLER),
    (Body, "tfs", Same(&["1"]), SAMPLER),
    (Body, "top_a", Same(&["0"]), SAMPLER),
    (Body, "top_n_sigma", Same(&["-1", "0"]), SAMPLER),
    (Body, "epsilon_cutoff", Same(&["0"]), SAMPLER),
    (Body, "eta_cutoff", Same(&["0"]), SAMPLER),
    (Body, "smoothing_factor", Same(&["0"]), SAMPLER),
    (Body, "smoothing_curve", Number, NEVER),
    (Body, "mirostat", Same(&["0"]), SAMPLER),
    (Body, "mirostat_mode", Same(&["0"]), SAMPLER),
    (Body, "mirostat_tau", Number, NEVER),
    (Body, "mirostat_eta", Number, NEVER),
    (Body, "dynatemp_range", Same(&["0"]), SAMPLER),
    (Body, "dynatemp_exponent", Number, NEVER),
    (Body, "adaptive_target", Same(&["-1"]), SAMPLER),
    (Body, "adaptive_decay", Number, NEVER),
    (Body, "no_repeat_ngram_size", Same(&["0"]), SAMPLER),
    (Body, "min_keep", Same(&["0", "1"]), SAMPLER),
    (Body, "backend_sampling", Same(&["false"]), SAMPLER),
    // What is reported.
    (Body, "n_probs", Same(&["0"]), REPORT),
    (Body, "post_sampling_probs", Same(&["false"]), REPORT),
    (Body, "return_tokens", Same(&["false"]), REPORT),
    (Body, "return_tokens_as_token_ids", Same(&["false"]), REPORT),
    (Body, "verbose", Same(&["false"]), REPORT),
    (Body, "return_progress", Same(&["false"]), REPORT),
    (Body, "skip_special_tokens", Same(&["true"]), "control tokens are left out of answers"),
    (
        Body,
        "spaces_between_special_tokens",
        Same(&["true"]),
        "control tokens are left out of answers",
    ),
    (Body, "response_fields", Same(&["[]"]), REPORT),
    // Scheduling and caches.
    (Body, "priority", Same(&["0"]), FIRST_COME),
    (Body, "cache_salt", Same(&["\"\""]), SCHEDULE),
    (Body, "id_slot", Same(&["-1"]), SCHEDULE),
    (Body, "n_cache_reuse", Same(&["0"]), SCHEDULE),
    (Body, "lora", Same(&["[]"]), "Woolly has no adapters"),
    (Body, "keep_alive", Same(&["-1"]), "the model stays loaded"),
    (Body, "options", Same(&["{}"]), "fields stand in the request itself"),
    // Means something on the other endpoint only.
    (Chat, "suffix", Same(&["\"\""]), "'suffix' is for /v1/completions"),
    (Chat, "echo", Same(&["false"]), "'echo' is for /v1/completions"),
    (Chat, "add_special_tokens", Same(&["false"]), "the template writes the special tokens"),
    (Chat, "prompt", No, "'prompt' is for /v1/completions"),
    (
        Completions,
        "add_special_tokens",
        Same(&["true"]),
        "give token ids to leave special tokens out",
    ),
    (Completions, "top_logprobs", Same(&["0"]), "'logprobs' is the number of alternatives here"),
    (Completions, "messages", No, "'messages' is for /v1/chat/completions"),
    (Completions, "think", Same(&["false"]), NO_THINKING),
    (Completions, "enable_thinking", Same(&["false"]), NO_THINKING),
    (Completions, "reasoning_effort", Same(&["\"none\""]), NO_THINKING),
    (Completions, "reasoning_format", Same(&["\"none\"", "\"auto\""]), NO_THINKING),
    (Completions, "include_reasoning", Either, NEVER),
    (Completions, "reasoning", Same(&["{}"]), NO_THINKING),
    (Completions, "verbosity", Label, NEVER),
    (Completions, "chat_template_kwargs", Same(&["{}"]), "only conversations have a template"),
    (Completions, "add_generation_prompt", Same(&["true", "false"]), NEVER),
    (Completions, "continue_final_message", Same(&["false", "true"]), NEVER),
    // These APIs have one answer.
    (Responses, "n", Same(&["1"]), ONE),
    (Anthropic, "n", Same(&["1"]), ONE),
    (Ollama, "n", Same(&["1"]), ONE),
    // Those of the Responses API.
    (Responses, "previous_response_id", No, STATELESS),
    (Responses, "conversation", No, STATELESS),
    (Responses, "background", Same(&["false"]), "an answer is given while its client waits"),
    (Responses, "background_options", No, "an answer is given while its client waits"),
    (Responses, "prompt", No, STATELESS),
    (Responses, "context_management", Same(&["[]"]), "Woolly changes nothing in a conversation"),
    (Responses, "max_tool_calls", Number, NEVER),
    (Responses, "image", Hint, NEVER),
    (Responses, "access_programs", Hint, NEVER),
    (Item, "id", Label, NEVER),
    (Item, "status", Label, NEVER),
    (Item, "phase", Label, NEVER),
    (Item, "caller", Hint, NEVER),
    (Item, "namespace", Label, NEVER),
    (Item, "name", Label, NEVER),
    (Item, "metadata", Hint, NEVER),
    (Tool, "output_schema", Hint, NEVER),
    // Those of Ollama. `shift` goes on past the end of the context.
    (Ollama, "suffix", Same(&["\"\""]), "/v1/completions and /infill fill text in"),
    (Ollama, "template", Same(&["\"\""]), TEMPLATE),
    (Ollama, "context", Same(&["[]"]), "send the conversation itself"),
    (Ollama, "raw", Same(&["false"]), "'raw' is for /api/generate with a prompt"),
    (Ollama, "images", Same(&["[]"]), MEDIA),
    (Ollama, "width", Number, NEVER),
    (Ollama, "height", Number, NEVER),
    (Ollama, "steps", Number, NEVER),
    (Ollama, "truncate", Either, NEVER),
    (Ollama, "shift", Same(&["false"]), "an answer ends with the context"),
    // How a machine computes is the cluster's to say; no answer depends on it.
    (OllamaOptions, "numa", Either, NEVER),
    (OllamaOptions, "num_batch", Number, NEVER),
    (OllamaOptions, "num_gpu", Number, NEVER),
    (OllamaOptions, "main_gpu", Number, NEVER),
    (OllamaOptions, "low_vram", Either, NEVER),
    (OllamaOptions, "use_mmap", Either, NEVER),
    (OllamaOptions, "use_mlock", Either, NEVER),
    (OllamaOptions, "num_thread", Number, NEVER),
    (OllamaOptions, "f16_kv", Same(&["true"]), "the operator chooses the KV cache's type"),
    (OllamaOptions, "logits_all", Same(&["false"]), REPORT),
    (OllamaOptions, "vocab_only", Same(&["false"]), "models are loaded whole"),
    (OllamaOptions, "embedding_only", Same(&["false"]), "models are loaded whole"),
    // Nothing of a prompt is ever dropped.
    (OllamaOptions, "num_keep", Number, NEVER),
    (OllamaOptions, "penalize_newline", Same(&["true"]), "penalties count every token"),
    // Anthropic's.
    (Anthropic, "container", No, "Woolly runs no code"),
    (Anthropic, "mcp_servers", Same(&["[]"]), "Woolly runs no tools of its own"),
    (
        Anthropic,
        "context_management",
        Same(&["{}", "{\"edits\":[]}", KEEPS_THINKING]),
        "Woolly changes nothing in a conversation",
    ),
    (Anthropic, "diagnostics", No, STATELESS),
    (Anthropic, "thread", No, STATELESS),
    (Anthropic, "compaction", No, "Woolly changes nothing in a conversation"),
    (Anthropic, "fallbacks", Same(&["[]"]), "the model that is named answers"),
    (Anthropic, "fallback_credit_token", No, "Woolly bills nothing"),
    (Anthropic, "billing_policy", No, "Woolly bills nothing"),
    (
        Anthropic,
        "inference_geo",
        Same(&["\"global\""]),
        "Woolly does not know where its machines are",
    ),
    (Anthropic, "speed", Same(&["\"standard\""]), "there is one speed"),
    (Anthropic, "user_profile_id", Label, NEVER),
    (Block, "cache_control", Hint, NEVER),
    // Citations of an earlier answer, which no template shows.
    (Block, "citations", List, NEVER),
    // Who made a call of an earlier answer.
    (Block, "caller", Hint, NEVER),
    (Block, "toolset_name", Label, NEVER),
    (Tool, "cache_control", Hint, NEVER),
    (Tool, "eager_input_streaming", Either, NEVER),
    (Tool, "defer_loading", Same(&["false"]), "every tool is told to the model from the start"),
    (Tool, "allowed_callers", Same(&["[]", "[\"direct\"]"]), "Woolly runs no code"),
    (
        Tool,
        "input_examples",
        Same(&["[]"]),
        "no template shows examples; write them into the description",
    ),
    // What histories carry.
    (Message, "type", Label, NEVER),
    (Message, "id", Label, NEVER),
    (Message, "status", Label, NEVER),
    (Message, "cache_control", Hint, NEVER),
    (Message, "metadata", Hint, NEVER),
    // Citations of an earlier answer, which no template shows.
    (Message, "annotations", List, NEVER),
    (Message, "audio", No, MEDIA),
    (Message, "images", Same(&["[]"]), MEDIA),
    (Message, "function_call", Same(&["\"\"", "{}"]), "Woolly has 'tool_calls' instead"),
    (Message, "reasoning_details", Same(&["[]"]), "the template knows reasoning as text only"),
    (Part, "cache_control", Hint, NEVER),
    (Part, "name", Label, NEVER),
    (Part, "id", Label, NEVER),
    (Part, "annotations", List, NEVER),
    (Part, "logprobs", List, NEVER),
];

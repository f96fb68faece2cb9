//! The fields that this server knows and does not act on, wherever they stand in a request.

use super::Accept::{self, Either, Hint, Label, List, No, Number, Pairs, Same};
use super::Place::{self, Body, Chat, Completions, Message, Part};

/// Where a field stands, its name, which values are accepted, and what to say of the others.
pub(super) type Row = (Place, &'static str, Accept, &'static str);

const TOOLS: &str = "Woolly has no tools (function calling) yet";
const CHOICES: &str = "Woolly makes one choice of each prompt yet";
const SAMPLER: &str = "Woolly does not have this sampler";
const MEDIA: &str = "Woolly reads and writes text only";
const REPORT: &str = "Woolly does not report this";
const SCHEDULE: &str = "Woolly schedules and caches by itself";
const FIRST_COME: &str = "Woolly serves requests in turn, whatever they are for";
const TEMPLATE: &str = "the model's own template is used";
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
    // Choices.
    (Body, "n", Same(&["1"]), CHOICES),
    (Body, "n_cmpl", Same(&["1"]), CHOICES),
    (Body, "best_of", Same(&["1"]), CHOICES),
    (Body, "use_beam_search", Same(&["false"]), CHOICES),
    (Body, "num_beams", Same(&["1"]), CHOICES),
    (Body, "length_penalty", Same(&["1"]), CHOICES),
    (Body, "early_stopping", Same(&["false"]), CHOICES),
    // Tools. `tool_choice` goes with them: see `take_tools`.
    (Body, "tools", Same(&["[]"]), TOOLS),
    (Body, "tool_choice", Same(&["\"none\"", "\"auto\""]), TOOLS),
    (Body, "parallel_tool_calls", Either, NEVER),
    (Body, "parse_tool_calls", Either, NEVER),
    (Body, "functions", Same(&["[]"]), TOOLS),
    (Body, "function_call", Same(&["\"none\"", "\"auto\""]), TOOLS),
    (Body, "web_search_options", No, TOOLS),
    // One library does it.
    (Body, "guided_decoding_backend", Label, NEVER),
    // Grammars that begin in the middle of an answer.
    (Body, "grammar_lazy", Same(&["false"]), "a grammar is for the whole answer"),
    (Body, "grammar_triggers", Same(&["[]"]), "a grammar is for the whole answer"),
    // Other media, other modes.
    (Body, "modalities", Same(&["[\"text\"]"]), MEDIA),
    (Body, "audio", No, MEDIA),
    (Body, "prediction", No, "Woolly does not use predicted outputs"),
    (Body, "suffix", Same(&["\"\""]), "Woolly does not fill text in before a suffix yet"),
    (Body, "reasoning_format", Same(&["\"none\""]), "reasoning stays in the answer's text"),
    (Body, "include_reasoning", Same(&["false"]), "reasoning stays in the answer's text"),
    (Body, "reasoning", Same(&["{}"]), "reasoning stays in the answer's text"),
    // Templates.
    (Body, "chat_template", No, TEMPLATE),
    (Body, "documents", Same(&["[]"]), "Woolly hands no documents to the template"),
    (Body, "truncate_prompt_tokens", Same(&["-1"]), "prompts are never cut"),
    // Ends.
    (Body, "min_tokens", Same(&["0"]), "Woolly has no least number of tokens"),
    (
        Body,
        "stop_token_ids",
        Same(&["[]"]),
        "Woolly stops at strings ('stop') and at the end of text",
    ),
    (
        Body,
        "include_stop_str_in_output",
        Same(&["false"]),
        "stop strings are never part of an answer",
    ),
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
    (Body, "xtc_probability", Same(&["0"]), SAMPLER),
    (Body, "xtc_threshold", Number, NEVER),
    (Body, "dry_multiplier", Same(&["0"]), SAMPLER),
    (Body, "dry_base", Number, NEVER),
    (Body, "dry_allowed_length", Number, NEVER),
    (Body, "dry_penalty_last_n", Number, NEVER),
    (Body, "dry_sequence_breakers", List, NEVER),
    (Body, "dynatemp_range", Same(&["0"]), SAMPLER),
    (Body, "dynatemp_exponent", Number, NEVER),
    (Body, "no_repeat_ngram_size", Same(&["0"]), SAMPLER),
    (Body, "min_keep", Same(&["0", "1"]), SAMPLER),
    (Body, "bad_words", Same(&["[]"]), SAMPLER),
    (Body, "allowed_token_ids", No, SAMPLER),
    (Body, "backend_sampling", Same(&["false"]), SAMPLER),
    // What is reported.
    (Body, "prompt_logprobs", Same(&["0"]), REPORT),
    (Body, "n_probs", Same(&["0"]), REPORT),
    (Body, "post_sampling_probs", Same(&["false"]), REPORT),
    (Body, "return_tokens", Same(&["false"]), REPORT),
    (Body, "return_token_ids", Same(&["false"]), REPORT),
    (Body, "return_progress", Same(&["false"]), REPORT),
    (Body, "timings_per_token", Same(&["false"]), REPORT),
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
    (Completions, "think", Same(&["false"]), "only conversations have a template that can think"),
    (
        Completions,
        "reasoning_effort",
        Same(&["\"none\""]),
        "only conversations have a template that can think",
    ),
    (Completions, "verbosity", Label, NEVER),
    (Completions, "chat_template_kwargs", Same(&["{}"]), "only conversations have a template"),
    (Completions, "add_generation_prompt", Same(&["true", "false"]), NEVER),
    (Completions, "continue_final_message", Same(&["false", "true"]), NEVER),
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
    (Message, "tool_calls", Same(&["[]"]), TOOLS),
    (Message, "function_call", Same(&["\"\"", "{}"]), TOOLS),
    (Message, "reasoning_details", Same(&["[]"]), "the template knows reasoning as text only"),
    (Part, "cache_control", Hint, NEVER),
    (Part, "name", Label, NEVER),
    (Part, "id", Label, NEVER),
    (Part, "annotations", List, NEVER),
    (Part, "logprobs", List, NEVER),
];

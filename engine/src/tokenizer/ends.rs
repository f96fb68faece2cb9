//! Which tokens end a generation. Many files name only one of them, so llama.cpp's list of texts
//! counts too.

use rustc_hash::FxHashMap;

use super::error::TokenizerError;
use super::kinds::{TokenKind, special_id};
use crate::gguf::Metadata;

/// Texts that always end a generation, as in llama.cpp.
const END_TEXTS: [&str; 22] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// Tokens for filling in the middle: the key, the texts looked for when the file does not have the
/// key, and whether the token ends a generation.
const FILL_IN: [(&str, &[&str], bool); 6] = [
    (
        "tokenizer.ggml.fim_pre_token_id",
        &[
            "<|fim_prefix|>",
            "<fim-prefix>",
            "<fim_prefix>",
            "<｜fim▁begin｜>",
            "<PRE>",
            "▁<PRE>",
            "<|code_prefix|>",
            "<|prefix|>",
        ],
        false,
    ),
    (
        "tokenizer.ggml.fim_suf_token_id",
        &[
            "<|fim_suffix|>",
            "<fim-suffix>",
            "<fim_suffix>",
            "<｜fim▁hole｜>",
            "<SUF>",
            "▁<SUF>",
            "<|code_suffix|>",
            "<|suffix|>",
        ],
        false,
    ),
    (
        "tokenizer.ggml.fim_mid_token_id",
        &[
            "<|fim_middle|>",
            "<fim-middle>",
            "<fim_middle>",
            "<｜fim▁end｜>",
            "<MID>",
            "▁<MID>",
            "<|code_middle|>",
            "<|middle|>",
        ],
        false,
    ),
    (
        "tokenizer.ggml.fim_pad_token_id",
        &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"],
        true,
    ),
    (
        "tokenizer.ggml.fim_rep_token_id",
        &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"],
        true,
    ),
    ("tokenizer.ggml.fim_sep_token_id", &["<|file_sep|>"], true),
];

/// Keys of ids that end a generation, besides the end of sequence.
const END_KEYS: [&str; 2] = ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];

/// Texts of GPT-OSS's message frame, which are shown to whoever parses the answer.
const FRAME_TEXTS: [&str; 4] = ["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

/// The tokens that end a generation, ascending. Those found by their text become control tokens in
/// `kinds` whatever the file says, as in llama.cpp.
pub(super) fn end_tokens(
    metadata: &Metadata,
    tokens: usize,
    ids: &FxHashMap<&str, u32>,
    eos: Option<u32>,
    kinds: &mut [TokenKind],
) -> Result<Vec<u32>, TokenizerError> {
    let mut ends: Vec<u32> = eos.into_iter().collect();
    for key in END_KEYS {
        ends.extend(special_id(metadata, key, tokens)?);
    }
    for (key, texts, is_end) in FILL_IN {
        let named = special_id(metadata, key, tokens)?;
        let found = named.or_else(|| {
            let &id = texts.iter().find_map(|text| ids.get(text))?;
            kinds[id as usize] = TokenKind::Control;
            Some(id)
        });
        ends.extend(found.filter(|_| is_end));
    }
    for text in END_TEXTS {
        if let Some(&id) = ids.get(text) {
            kinds[id as usize] = TokenKind::Control;
            ends.push(id);
        }
    }
    for text in FRAME_TEXTS {
        if let Some(&id) = ids.get(text) {
            kinds[id as usize] = TokenKind::UserDefined;
        }
    }
    take_back(ids, &mut ends, kinds);
    ends.sort_unstable();
    ends.dedup();
    Ok(ends)
}

/// In vocabularies with messages inside an answer `<|end|>` ends only a message; in some `</s>` is
/// an ordinary tag.
fn take_back(ids: &FxHashMap<&str, u32>, ends: &mut Vec<u32>, kinds: &mut [TokenKind]) {
    let has = |text: &str| ids.get(text).is_some_and(|id| ends.contains(id));
    let calls = has("<|call|>") || has("<|calls|>");
    let framed = calls && (has("<|return|>") || has("<|flush|>"));
    let tagged = has("<|tool_response>");
    let mut take = |text: &str, kind: TokenKind| {
        if let Some(&id) = ids.get(text) {
            kinds[id as usize] = kind;
            ends.retain(|&end| end != id);
        }
    };
    if framed {
        take("<|end|>", TokenKind::UserDefined);
    }
    if tagged {
        take("</s>", TokenKind::Normal);
    }
}

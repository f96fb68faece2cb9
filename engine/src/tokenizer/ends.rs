//! Which tokens end a generation. Many files name only one of them, so llama.cpp's list of texts
//! counts too.

use rustc_hash::FxHashMap;

use super::error::TokenizerError;
use super::fill_in::FillIn;
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
    (eos, fill_in): (Option<u32>, &FillIn),
    kinds: &mut [TokenKind],
) -> Result<Vec<u32>, TokenizerError> {
    let mut ends: Vec<u32> = eos.into_iter().collect();
    for key in END_KEYS {
        ends.extend(special_id(metadata, key, tokens)?);
    }
    ends.extend(fill_in.ends());
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

//! Kinds of tokens, and the ids that a file gives to special ones.

use super::error::TokenizerError;
use crate::gguf::Metadata;

/// How a token takes part in encoding and decoding (`tokenizer.ggml.token_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenKind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
    Undefined,
}

impl TokenKind {
    pub(super) fn from_gguf(value: i32) -> TokenKind {
        match value {
            1 => TokenKind::Normal,
            2 => TokenKind::Unknown,
            3 => TokenKind::Control,
            4 => TokenKind::UserDefined,
            5 => TokenKind::Unused,
            6 => TokenKind::Byte,
            _ => TokenKind::Undefined,
        }
    }
}

/// A special token's id. One that is outside the vocabulary, such as −1 for "none", is as if it were
/// not there, with a warning in the log.
pub(super) fn special_id(
    metadata: &Metadata,
    key: &'static str,
    tokens: usize,
) -> Result<Option<u32>, TokenizerError> {
    let Some(found) = metadata.opt_integer(key)? else { return Ok(None) };
    let inside = u32::try_from(found).ok().filter(|id| (*id as usize) < tokens);
    if inside.is_none() {
        tracing::warn!("{key} is {found}, but the vocabulary has {tokens} tokens: it is left out");
    }
    Ok(inside)
}

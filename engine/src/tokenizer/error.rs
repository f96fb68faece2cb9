//! What can be wrong with a tokenizer in a model file, or with a text.

use crate::gguf::GgufError;

/// Why a tokenizer could not be made, or a text not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A key is missing or of another type.
    #[error(transparent)]
    Metadata(#[from] GgufError),
    /// `tokenizer.ggml.model` names an algorithm that is not here.
    #[error(
        "tokenizer.ggml.model is '{0}'; supported are 'gpt2' (byte-level BPE) and 'llama' (SPM)"
    )]
    UnknownModel(String),
    /// `tokenizer.ggml.pre` names a pre-tokenizer that is not here.
    #[error("tokenizer.ggml.pre is '{found}', which is not supported; supported are {known}")]
    UnknownPre {
        /// The value in the file.
        found: String,
        /// All names that are understood, separated by commas.
        known: String,
    },
    /// A key that this tokenizer cannot do without is not in the file.
    #[error("the model file has no {0}, which its tokenizer needs")]
    Missing(&'static str),
    /// An array has another length than the vocabulary.
    #[error("{key} has {found} entries, but tokenizer.ggml.tokens has {expected}")]
    Length {
        /// The array's key.
        key: &'static str,
        /// Entries in the array.
        found: usize,
        /// Tokens in the vocabulary.
        expected: usize,
    },
    /// The vocabulary has no tokens, or more than [`super::TOKENS_MAX`].
    #[error("tokenizer.ggml.tokens has {found} entries; expected 1 to {max}")]
    VocabularySize {
        /// Tokens in the file.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// A token is longer than [`super::TOKEN_BYTES_MAX`].
    #[error("token {id} is {found} bytes long; at most {max} are supported")]
    TokenLength {
        /// The token.
        id: u32,
        /// Its length in bytes.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// Two tokens have the same text.
    #[error("tokens {first} and {second} have the same text '{text}'")]
    DuplicateToken {
        /// The lower id.
        first: u32,
        /// The higher id.
        second: u32,
        /// Their text.
        text: String,
    },
    /// A token of type byte is not spelled `<0xNN>`.
    #[error("token {id} is of type byte, but its text is '{text}' and not like '<0x0A>'")]
    ByteToken {
        /// The token.
        id: u32,
        /// Its text.
        text: String,
    },
    /// A score is not a finite number.
    #[error("the score of token {id} is {found}, which is not a finite number")]
    Score {
        /// The token.
        id: usize,
        /// Its score.
        found: f32,
    },
    /// A merge is not two parts with a space between them.
    #[error("merge {index} is '{text}'; expected two parts with a space between them")]
    Merge {
        /// Position in `tokenizer.ggml.merges`.
        index: usize,
        /// The merge as it stands in the file.
        text: String,
    },
    /// More merges than [`super::MERGES_MAX`].
    #[error("tokenizer.ggml.merges has {found} entries; at most {max} are supported")]
    TooManyMerges {
        /// Merges in the file.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// The embedding table has another number of rows than the vocabulary has tokens.
    #[error("token_embd.weight has {rows} rows, but tokenizer.ggml.tokens has {tokens} entries")]
    EmbeddingRows {
        /// Rows of the table.
        rows: u64,
        /// Tokens in the vocabulary.
        tokens: u32,
    },
    /// The text is longer than [`super::TEXT_BYTES_MAX`].
    #[error("the text is {found} bytes long; at most {max} can be tokenized at once")]
    TextTooLong {
        /// Bytes of the text.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// The vocabulary has no token for a byte of the text.
    #[error("the vocabulary has no token for byte 0x{0:02x} of the text")]
    NoToken(u8),
    /// A pattern or automaton could not be built, or gave up on a text.
    #[error("the tokenizer's {part} failed: {reason}")]
    Automaton {
        /// Which part.
        part: &'static str,
        /// What it reported.
        reason: String,
    },
}

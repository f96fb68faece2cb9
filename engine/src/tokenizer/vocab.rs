//! The vocabulary of a model file: what each token spells, and what kind of token it is.

use rustc_hash::FxHashMap;

use super::bytes::decode_into;
use super::ends;
use super::error::TokenizerError;
use super::fill_in::FillIn;
use super::kinds::{TokenKind, special_id};
use super::limits::{TOKEN_BYTES_MAX, TOKENS_MAX};
use crate::gguf::Metadata;

/// How the texts of normal tokens are spelled in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    /// GPT-2's characters for bytes.
    Bytes,
    /// UTF-8 with U+2581 for a space.
    LowLine,
}

/// Ids of special tokens, each inside the vocabulary.
#[derive(Debug, Default)]
pub(super) struct SpecialIds {
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub unknown: Option<u32>,
}

/// Tokens as bytes, with their kinds and the special ones among them.
#[derive(Debug)]
pub(super) struct Vocab {
    /// The bytes of all tokens one after another; token `i` ends at `ends[i]`.
    bytes: Vec<u8>,
    ends: Vec<u32>,
    kinds: Vec<TokenKind>,
    longest: usize,
    pub special: SpecialIds,
    /// Tokens that end a generation, ascending.
    pub end_tokens: Vec<u32>,
    /// Tokens for filling in the middle.
    pub fill_in: FillIn,
}

impl Vocab {
    /// Reads tokens, kinds and special ids. `defaults` are the ids of files that name none.
    pub fn load(
        metadata: &Metadata,
        spelling: Spelling,
        defaults: SpecialIds,
    ) -> Result<Vocab, TokenizerError> {
        let texts = texts(metadata)?;
        let mut kinds = kinds(metadata, texts.len())?;
        let ids = unique(texts)?;
        let special = SpecialIds {
            bos: special_id(metadata, "tokenizer.ggml.bos_token_id", texts.len())?.or(defaults.bos),
            eos: special_id(metadata, "tokenizer.ggml.eos_token_id", texts.len())?.or(defaults.eos),
            unknown: special_id(metadata, "tokenizer.ggml.unknown_token_id", texts.len())?
                .or(defaults.unknown),
        };
        special_id(metadata, "tokenizer.ggml.padding_token_id", texts.len())?;
        let fill_in = FillIn::load(metadata, texts.len(), &ids, &mut kinds)?;
        let ends = (special.eos, &fill_in);
        let end_tokens = ends::end_tokens(metadata, texts.len(), &ids, ends, &mut kinds)?;
        let mut vocab = Vocab {
            bytes: Vec::new(),
            ends: Vec::with_capacity(texts.len()),
            kinds,
            longest: 0,
            special,
            end_tokens,
            fill_in,
        };
        vocab.fill(texts, spelling)?;
        Ok(vocab)
    }

    fn fill(&mut self, texts: &[String], spelling: Spelling) -> Result<(), TokenizerError> {
        for (id, text) in texts.iter().enumerate() {
            let start = self.bytes.len();
            match self.kinds[id] {
                TokenKind::Normal if spelling == Spelling::Bytes => {
                    decode_into(text, &mut self.bytes);
                }
                TokenKind::Normal => {
                    self.bytes.extend_from_slice(text.replace('\u{2581}', " ").as_bytes());
                }
                TokenKind::Byte => self.bytes.push(byte_value(id, text)?),
                TokenKind::Unknown | TokenKind::Control | TokenKind::UserDefined => {
                    self.bytes.extend_from_slice(text.as_bytes());
                }
                TokenKind::Unused | TokenKind::Undefined => {}
            }
            self.longest = self.longest.max(self.bytes.len() - start);
            self.ends.push(id_of(self.bytes.len()));
        }
        Ok(())
    }

    /// Number of tokens.
    pub fn len(&self) -> u32 {
        id_of(self.kinds.len())
    }

    /// All ids, ascending.
    pub fn ids(&self) -> std::ops::Range<u32> {
        0..self.len()
    }

    /// Bytes of the longest token.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// What a token spells; nothing for an id outside the vocabulary.
    pub fn bytes(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let Some(&end) = self.ends.get(id) else { return &[] };
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        &self.bytes[start as usize..end as usize]
    }

    /// The kind of a token; undefined for an id outside the vocabulary.
    pub fn kind(&self, id: u32) -> TokenKind {
        self.kinds.get(id as usize).copied().unwrap_or(TokenKind::Undefined)
    }

    /// Whether a piece of plain text may become this token. Control tokens never come from plain
    /// text, whatever a vocabulary's merges say: that would let a user's words take a role.
    pub fn is_plain(&self, id: u32) -> bool {
        !matches!(self.kind(id), TokenKind::Control | TokenKind::Unknown | TokenKind::Byte)
    }
}

/// The texts of all tokens, their number and lengths checked.
pub(super) fn texts(metadata: &Metadata) -> Result<&[String], TokenizerError> {
    const KEY: &str = "tokenizer.ggml.tokens";
    let texts = metadata.opt_strings(KEY)?.ok_or(TokenizerError::Missing(KEY))?;
    if texts.is_empty() || texts.len() > TOKENS_MAX {
        return Err(TokenizerError::VocabularySize { found: texts.len(), max: TOKENS_MAX });
    }
    match texts.iter().enumerate().find(|(_, text)| text.len() > TOKEN_BYTES_MAX) {
        Some((id, text)) => Err(TokenizerError::TokenLength {
            id: id_of(id),
            found: text.len(),
            max: TOKEN_BYTES_MAX,
        }),
        None => Ok(texts),
    }
}

fn kinds(metadata: &Metadata, tokens: usize) -> Result<Vec<TokenKind>, TokenizerError> {
    const KEY: &str = "tokenizer.ggml.token_type";
    let Some(types) = metadata.opt_i32s(KEY)? else { return Ok(vec![TokenKind::Normal; tokens]) };
    if types.len() != tokens {
        return Err(TokenizerError::Length { key: KEY, found: types.len(), expected: tokens });
    }
    Ok(types.iter().map(|&value| TokenKind::from_gguf(value)).collect())
}

/// Token of each text. Empty texts have no token: no text becomes them.
pub(super) fn unique(texts: &[String]) -> Result<FxHashMap<&str, u32>, TokenizerError> {
    let mut ids = FxHashMap::with_capacity_and_hasher(texts.len(), Default::default());
    for (id, text) in texts.iter().enumerate().filter(|(_, text)| !text.is_empty()) {
        if let Some(first) = ids.insert(text.as_str(), id_of(id)) {
            let second = id_of(id);
            return Err(TokenizerError::DuplicateToken { first, second, text: text.clone() });
        }
    }
    Ok(ids)
}

fn byte_value(id: usize, text: &str) -> Result<u8, TokenizerError> {
    text.strip_prefix("<0x")
        .and_then(|rest| rest.strip_suffix('>'))
        .filter(|hex| hex.len() == 2)
        .and_then(|hex| u8::from_str_radix(hex, 16).ok())
        .ok_or_else(|| TokenizerError::ByteToken { id: id_of(id), text: text.to_owned() })
}

/// A count or position as `u32`. The limits keep all of them below 2^32.
pub(super) fn id_of(index: usize) -> u32 {
    u32::try_from(index).expect("TOKENS_MAX × TOKEN_BYTES_MAX is below 2^32")
}

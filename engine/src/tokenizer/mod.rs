//! Text to tokens and back, from the vocabulary in a model file's metadata.
//!
//! `tokenizer.ggml.model` = `gpt2` is byte-level BPE (`bpe` with the splitting rules of
//! `pretokenize`), `llama` is SentencePiece's BPE (`spm`). Both give exactly llama.cpp's tokens;
//! `tests/tokenizer_vectors.rs` holds them against its test vectors. A text is first split at special
//! tokens (`special`), and only what is between them is encoded.
//!
//! Encoding takes time O(n log n) and about 40 bytes of memory per byte of text at the worst (one
//! run of letters of [`TEXT_BYTES_MAX`] bytes).

mod bpe;
mod bytes;
mod detokenize;
mod ends;
mod error;
mod families;
mod fill_in;
mod kinds;
mod limits;
mod marked;
mod pretokenize;
mod special;
mod spm;
#[cfg(test)]
mod tests;
mod vocab;

pub use detokenize::Detokenizer;
pub use error::TokenizerError;
pub use fill_in::FillIn;
pub use limits::{MERGES_MAX, TEXT_BYTES_MAX, TOKEN_BYTES_MAX, TOKENS_MAX};
pub use marked::{ChatPrompt, Marker};

use crate::gguf::Metadata;
use bpe::Bpe;
use kinds::TokenKind;
use pretokenize::Pretokenizer;
use special::{Fragment, Specials};
use spm::Spm;
use vocab::{SpecialIds, Spelling, Vocab};

/// How a text is to be encoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Put BOS before and EOS after the text if the model's metadata says so.
    pub add_special: bool,
    /// Take the texts of control tokens for those tokens. Without it they are ordinary text;
    /// tokens that the vocabulary calls user-defined are always found.
    pub parse_special: bool,
}

/// The vocabulary of one model with its rules. Immutable: share it between threads.
#[derive(Debug)]
pub struct Tokenizer {
    vocab: Vocab,
    specials: Specials,
    algorithm: Algorithm,
    add_bos: bool,
    add_eos: bool,
    /// SPM only: texts begin with a space that the user did not write.
    space_prefix: bool,
}

#[derive(Debug)]
enum Algorithm {
    Bpe(Box<Bpe>),
    Spm(Box<Spm>),
}

impl Tokenizer {
    /// Reads the tokenizer of a model.
    ///
    /// # Errors
    /// Names the key that is missing, of the wrong type or length, or out of range, and an
    /// algorithm or pre-tokenizer that is not supported. A `gpt2` model without
    /// `tokenizer.ggml.pre` gets the pre-tokenizer `default` and a warning in the log.
    pub fn from_metadata(metadata: &Metadata) -> Result<Tokenizer, TokenizerError> {
        match metadata.str("tokenizer.ggml.model")? {
            "gpt2" => Tokenizer::load_bpe(metadata),
            "llama" => Tokenizer::load_spm(metadata),
            other => Err(TokenizerError::UnknownModel(other.to_owned())),
        }
    }

    fn load_bpe(metadata: &Metadata) -> Result<Tokenizer, TokenizerError> {
        let name = metadata.opt_str("tokenizer.ggml.pre")?.unwrap_or_else(|| {
            tracing::warn!(
                "the model file has no tokenizer.ggml.pre: using 'default'; its answers may be \
                 worse than they should be. A newer conversion of the model would name it"
            );
            "default"
        });
        let pretokenizer = Pretokenizer::named(name)?;
        let add_bos = pretokenizer.add_bos;
        let vocab = Vocab::load(metadata, Spelling::Bytes, SpecialIds::default())?;
        let bpe = Bpe::load(metadata, &vocab, pretokenizer)?;
        Tokenizer::finish(metadata, vocab, Algorithm::Bpe(Box::new(bpe)), add_bos)
    }

    fn load_spm(metadata: &Metadata) -> Result<Tokenizer, TokenizerError> {
        let tokens = vocab::texts(metadata)?.len();
        let inside = |id: u32| Some(id).filter(|&id| (id as usize) < tokens);
        let defaults = SpecialIds { bos: inside(1), eos: inside(2), unknown: inside(0) };
        let vocab = Vocab::load(metadata, Spelling::LowLine, defaults)?;
        let spm = Spm::load(metadata, &vocab)?;
        Tokenizer::finish(metadata, vocab, Algorithm::Spm(Box::new(spm)), true)
    }

    fn finish(
        metadata: &Metadata,
        vocab: Vocab,
        algorithm: Algorithm,
        default_add_bos: bool,
    ) -> Result<Tokenizer, TokenizerError> {
        let asked = metadata.opt_bool("tokenizer.ggml.add_bos_token")?;
        let named = |key| metadata.opt_integer(key).map(|id| id.is_some());
        // An id that is there and outside the vocabulary was warned of.
        const BOS: &str = "tokenizer.ggml.bos_token_id";
        if asked == Some(true) && vocab.special.bos.is_none() && !named(BOS)? {
            return Err(TokenizerError::Missing(BOS));
        }
        const EOS: &str = "tokenizer.ggml.eos_token_id";
        let add_eos = metadata.opt_bool("tokenizer.ggml.add_eos_token")?.unwrap_or(false);
        if add_eos && vocab.special.eos.is_none() && !named(EOS)? {
            return Err(TokenizerError::Missing(EOS));
        }
        let add_eos = add_eos && vocab.special.eos.is_some();
        let is_spm = matches!(algorithm, Algorithm::Spm(_));
        let space_prefix = metadata.opt_bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(is_spm);
        let strip = stripping_tokens(metadata, &vocab)?;
        let specials = Specials::new(&vocab, &strip)?;
        Ok(Tokenizer {
            specials,
            algorithm,
            add_bos: asked.unwrap_or(default_add_bos) && vocab.special.bos.is_some(),
            add_eos,
            space_prefix: space_prefix && is_spm,
            vocab,
        })
    }

    /// The tokens of `text`.
    ///
    /// # Errors
    /// A text of more than [`TEXT_BYTES_MAX`] bytes; a byte that the vocabulary has no token for.
    pub fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>, TokenizerError> {
        let mut out = Vec::new();
        if options.add_special && self.add_bos {
            out.extend(self.bos());
        }
        self.encode_into(text, options.parse_special, (None, true), &mut out)?;
        if options.add_special && self.add_eos {
            out.extend(self.eos());
        }
        Ok(out)
    }

    /// The tokens of a text that goes on where another ends: nothing is put before or after it, and the
    /// texts of control tokens are ordinary text.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_continuation(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let mut out = Vec::new();
        self.encode_into(text, false, (None, false), &mut out)?;
        Ok(out)
    }

    /// The tokens of a rendered conversation: control tokens of the template are parsed, those that
    /// stand in message contents are text. BOS comes first if the model wants it and the template
    /// has not written it; EOS is never added, as the answer follows.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_chat(&self, prompt: &ChatPrompt) -> Result<Vec<u32>, TokenizerError> {
        let mut out = Vec::new();
        if self.add_bos {
            out.extend(self.bos());
        }
        self.encode_into(prompt.marked_text(), true, (prompt.mark(), true), &mut out)?;
        if self.add_bos && out.len() > 1 && Some(out[1]) == self.bos() {
            out.remove(0);
        }
        Ok(out)
    }

    /// Appends the tokens of `text`. The character `mark` keeps special tokens from being found
    /// across it and is itself no text; `begins` if no other text stands before it.
    fn encode_into(
        &self,
        text: &str,
        parse_special: bool,
        (mark, begins): (Option<char>, bool),
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(TokenizerError::TextTooLong { found: text.len(), max: TEXT_BYTES_MAX });
        }
        let mut bpe_scratch = bpe::Scratch::default();
        let mut spm_scratch = spm::Scratch::default();
        let mut after_special = begins;
        self.specials.split(text, parse_special, |fragment| {
            let text = match fragment {
                Fragment::Special(token) => {
                    out.push(token);
                    after_special = true;
                    return Ok(());
                }
                Fragment::Text(text) => marked::without(text, mark),
            };
            let prefix = self.space_prefix && after_special;
            after_special = false;
            match &self.algorithm {
                Algorithm::Bpe(bpe) => bpe.encode(&self.vocab, &text, &mut bpe_scratch, out),
                Algorithm::Spm(spm) => {
                    spm.encode(&self.vocab, &text, prefix, &mut spm_scratch, out)
                }
            }
        })
    }

    /// The text of `tokens`, control tokens left out, bytes that are not UTF-8 replaced by U+FFFD.
    /// The space that SPM put before the text is taken away again.
    pub fn decode(&self, tokens: &[u32]) -> String {
        let mut detokenizer = Detokenizer::new(self);
        let mut text: String = tokens.iter().map(|&token| detokenizer.push(self, token)).collect();
        text.push_str(&detokenizer.finish());
        text
    }

    /// What a token spells, perhaps only a part of a character. Control tokens: their text.
    /// Unused tokens and ids outside the vocabulary spell nothing.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.vocab.bytes(id)
    }

    /// What a token spells, bytes that are not UTF-8 replaced by U+FFFD.
    pub fn token_text(&self, id: u32) -> String {
        String::from_utf8_lossy(self.token_bytes(id)).into_owned()
    }

    /// The token whose text is exactly `text`, if it is a special one.
    pub fn special_token(&self, text: &str) -> Option<u32> {
        self.vocab.ids().find(|&id| {
            matches!(self.vocab.kind(id), TokenKind::Control | TokenKind::UserDefined)
                && self.vocab.bytes(id) == text.as_bytes()
        })
    }

    /// Number of tokens: ids are below it.
    pub fn vocab_size(&self) -> u32 {
        self.vocab.len()
    }

    /// Checks that the embedding table has a row for each token.
    ///
    /// # Errors
    /// Another number of rows.
    pub fn check_rows(&self, rows: u64) -> Result<(), TokenizerError> {
        let tokens = self.vocab_size();
        if rows == u64::from(tokens) {
            Ok(())
        } else {
            Err(TokenizerError::EmbeddingRows { rows, tokens })
        }
    }

    /// Bytes of the longest token. A text of more than this times the context length cannot fit
    /// the context and need not be tokenized to know it.
    pub fn longest_token(&self) -> usize {
        self.vocab.longest()
    }

    /// Beginning of sequence.
    pub fn bos(&self) -> Option<u32> {
        self.vocab.special.bos
    }

    /// End of sequence.
    pub fn eos(&self) -> Option<u32> {
        self.vocab.special.eos
    }

    /// Whether a generation ends with this token.
    pub fn is_end(&self, id: u32) -> bool {
        self.vocab.end_tokens.binary_search(&id).is_ok()
    }

    /// The tokens that end a generation, ascending: those that the file names, and those whose text
    /// is on llama.cpp's list, because many files name only one of them.
    pub fn end_tokens(&self) -> &[u32] {
        &self.vocab.end_tokens
    }

    /// The tokens for filling text in, as far as the vocabulary has them.
    pub fn fill_in(&self) -> &FillIn {
        &self.vocab.fill_in
    }

    /// Whether a token is control or unknown: part of the prompt's frame, not of its text.
    pub fn is_control(&self, id: u32) -> bool {
        matches!(self.vocab.kind(id), TokenKind::Control | TokenKind::Unknown)
    }

    /// Whether texts begin with BOS.
    pub fn add_bos(&self) -> bool {
        self.add_bos
    }

    /// Whether texts end with EOS.
    pub fn add_eos(&self) -> bool {
        self.add_eos
    }
}

/// Phi-3's special tokens swallow the white space after them; no key says so, only the name.
fn stripping_tokens(
    metadata: &Metadata,
    vocab: &Vocab,
) -> Result<impl Fn(u32) -> bool + use<>, TokenizerError> {
    let name = metadata.opt_str("general.name")?.unwrap_or("").to_lowercase();
    let strips = name.contains("phi-3") || name.contains("phi3");
    let kept: Vec<u32> = vocab
        .ids()
        .filter(|&id| matches!(vocab.bytes(id), b"<unk>" | b"<s>" | b"<|endoftext|>"))
        .collect();
    Ok(move |id| strips && !kept.contains(&id))
}

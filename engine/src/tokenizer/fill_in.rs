//! Tokens for filling in the middle: by the file's keys, or by their texts, as in llama.cpp.

use rustc_hash::FxHashMap;

use super::error::TokenizerError;
use super::kinds::{TokenKind, special_id};
use crate::gguf::Metadata;

/// The tokens that tell a model what stands around a text that it is to fill in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FillIn {
    /// What stands before follows.
    pub prefix: Option<u32>,
    /// What stands after follows.
    pub suffix: Option<u32>,
    /// The text itself follows.
    pub middle: Option<u32>,
    /// Nothing: it fills up batches in training.
    pub pad: Option<u32>,
    /// The name of a repository follows.
    pub repository: Option<u32>,
    /// The name of a file follows, and then the file.
    pub file: Option<u32>,
}

impl FillIn {
    /// Those of a vocabulary. Those found by their text become control tokens in `kinds` whatever the file
    /// says.
    pub(super) fn load(
        metadata: &Metadata,
        tokens: usize,
        ids: &FxHashMap<&str, u32>,
        kinds: &mut [TokenKind],
    ) -> Result<FillIn, TokenizerError> {
        let mut find =
            |keys: &[&'static str], texts: &[&str]| -> Result<Option<u32>, TokenizerError> {
                for &key in keys {
                    if let Some(id) = special_id(metadata, key, tokens)? {
                        return Ok(Some(id));
                    }
                }
                let found = texts.iter().find_map(|text| ids.get(text)).copied();
                if let Some(id) = found {
                    kinds[id as usize] = TokenKind::Control;
                }
                Ok(found)
            };
        Ok(FillIn {
            prefix: find(
                &["tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id"],
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
            )?,
            suffix: find(
                &["tokenizer.ggml.fim_suf_token_id", "tokenizer.ggml.suffix_token_id"],
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
            )?,
            middle: find(
                &["tokenizer.ggml.fim_mid_token_id", "tokenizer.ggml.middle_token_id"],
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
            )?,
            pad: find(
                &["tokenizer.ggml.fim_pad_token_id"],
                &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"],
            )?,
            repository: find(
                &["tokenizer.ggml.fim_rep_token_id"],
                &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"],
            )?,
            file: find(&["tokenizer.ggml.fim_sep_token_id"], &["<|file_sep|>"])?,
        })
    }

    /// Those that end a generation: nothing that was asked for comes after them.
    pub(super) fn ends(&self) -> impl Iterator<Item = u32> {
        [self.pad, self.repository, self.file].into_iter().flatten()
    }
}

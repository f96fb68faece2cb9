//! Filling text in between two others, in tokens: each model that can has tokens of its own for it.
//!
//! A client's texts are texts: what looks like such a token in them is none.

use super::prompts::Prompt;
use super::tokens::{Encoded, refused_text};
use crate::http::error::ApiError;
use crate::models::ServedModel;
use woolly_engine::tokenizer::{Detokenizer, EncodeOptions};

/// Characters of a text: more than a body can hold.
pub const TEXT_CHARS_MAX: usize = usize::MAX;
/// What llama.cpp calls the repository, and the file that is filled in.
const REPOSITORY: &str = "myproject\n";
const FILE: &str = "filename\n";
/// What llama.cpp puts between files for models that have no token for that.
const SNIPPET: &str = "\n\n--- snippet ---\n\n";

/// What stands around a text that is to be filled in.
#[derive(Debug)]
pub struct Around<'a> {
    /// Before it.
    pub before: Vec<u32>,
    /// After it.
    pub after: &'a str,
    /// Other files, each with its name.
    pub files: &'a [(String, String)],
    /// The field that names `after`.
    pub field: &'static str,
}

/// A prompt that is to be continued up to a suffix; its text is given back if `echo`.
///
/// # Errors
///
/// 400 if the model has no tokens for it, or the texts do not fit `ctx`.
pub fn of_suffix(
    model: &ServedModel,
    prompt: Prompt,
    suffix: &str,
    echo: bool,
    ctx: u32,
) -> Result<Encoded, ApiError> {
    let (before, text) = match prompt {
        Prompt::Tokens(tokens) => {
            let text = echo.then(|| model.tokenizer.decode(&tokens));
            (tokens, text)
        }
        Prompt::Text(text) => (plain(model, &text, "prompt", ctx)?, echo.then_some(text)),
    };
    let around = Around { before, after: suffix, files: &[], field: "suffix" };
    Ok(Encoded { echo: text, ..of_around(model, around, ctx)? })
}

/// What fits between two texts, in the order in which llama.cpp and the models of Qwen have it: repository,
/// files, what stands before, what stands after.
///
/// # Errors
///
/// 400 if the model has no tokens for it, or the texts do not fit `ctx`.
pub fn of_around(model: &ServedModel, around: Around<'_>, ctx: u32) -> Result<Encoded, ApiError> {
    let Around { before, after, files, field } = around;
    let tokenizer = &model.tokenizer;
    let marks = tokenizer.fill_in();
    let (Some(prefix), Some(suffix), Some(middle)) = (marks.prefix, marks.suffix, marks.middle)
    else {
        let text = format!(
            "This model cannot fill text in: its vocabulary has no tokens for prefix, suffix and middle. Leave \
             '{field}' out, or use a model for code."
        );
        return Err(ApiError::unsupported(field, text));
    };
    let mut tokens = Vec::new();
    if tokenizer.add_bos() {
        tokens.extend(tokenizer.bos());
    }
    if !files.is_empty() {
        if let Some(repository) = marks.repository {
            tokens.push(repository);
            tokens.extend(plain(model, REPOSITORY, field, ctx)?);
        }
        for (name, text) in files {
            match marks.file {
                Some(file) => {
                    tokens.push(file);
                    tokens.extend(plain(model, &format!("{name}\n"), "input_extra", ctx)?);
                }
                None => tokens.extend(plain(model, SNIPPET, "input_extra", ctx)?),
            }
            tokens.extend(plain(model, text, "input_extra", ctx)?);
        }
        if let Some(file) = marks.file {
            tokens.push(file);
            tokens.extend(plain(model, FILE, field, ctx)?);
        }
    }
    tokens.push(prefix);
    tokens.extend(before);
    tokens.push(suffix);
    tokens.extend(plain(model, after, field, ctx)?);
    tokens.push(middle);
    Ok(Encoded { tokens, echo: None, detokenizer: Detokenizer::continuing(), reading: None })
}

/// The tokens of a text in which nothing is special. One that is longer than a whole context of the longest
/// token is not tokenised at all.
///
/// # Errors
///
/// 400 naming the field.
pub fn plain(model: &ServedModel, text: &str, field: &str, ctx: u32) -> Result<Vec<u32>, ApiError> {
    super::tokens::check_bytes(model, text.len(), ctx)?;
    let options = EncodeOptions { add_special: false, parse_special: false };
    model.tokenizer.encode(text, options).map_err(|error| refused_text(field, &error))
}

//! Prompts in tokens: conversations as the model's template writes them, and texts.
//!
//! This is work for a blocking thread: rendering and tokenising of up to 8 MiB.

use super::messages::Messages;
use super::prompts::Prompt;
use super::template_options::TemplateOptions;
use crate::chat_formats::{Reading, Tools};
use crate::http::error::{ApiError, Problem};
use crate::models::{ServedModel, Template};
use std::sync::Arc;
use woolly_engine::chat_template::{ChatTemplateError, NO_TEMPLATE, RenderOptions};
use woolly_engine::tokenizer::{ChatPrompt, Detokenizer, EncodeOptions, TokenizerError};

/// A prompt in tokens, with what has to be given back of it.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// At least one.
    pub tokens: Vec<u32>,
    /// Its text, if it is given back before the completion.
    pub echo: Option<String>,
    /// Goes on with the completion.
    pub detokenizer: Detokenizer,
    /// How the completion is read; `None` if all of it is text.
    pub reading: Option<Reading>,
}

/// A conversation in tokens, to be answered.
///
/// # Errors
///
/// As [`of_messages`]; 400 if there is nothing to answer.
pub fn of_conversation(
    model: &ServedModel,
    messages: &Messages,
    options: TemplateOptions,
    tools: Option<Arc<Tools>>,
    ctx: u32,
) -> Result<Encoded, ApiError> {
    let reasoning = options.reasoning;
    let Rendered { tokens, thinks } = of_messages(model, messages, options, tools.as_deref(), ctx)?;
    if tokens.is_empty() {
        let text = "The model's chat template makes no tokens of these messages: there is nothing to \
                    answer. Send a message whose content is not empty.";
        return Err(ApiError::invalid("messages", text));
    }
    let detokenizer = Detokenizer::new(&model.tokenizer);
    let reading = Reading { tools, reasoning, thinks_at_start: thinks };
    Ok(Encoded { tokens, echo: None, detokenizer, reading: Some(reading) })
}

/// A conversation as the model's template writes it.
#[derive(Debug)]
pub struct Rendered {
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// What is written after it is what the model thinks.
    pub thinks: bool,
}

/// A conversation as the model's template writes it. Tools stand where the template has them, or else in a
/// system message; not if none may be called.
///
/// # Errors
///
/// 400 if there is no template, it refuses the messages, or they do not fit `ctx`.
pub fn of_messages(
    model: &ServedModel,
    messages: &Messages,
    options: TemplateOptions,
    tools: Option<&Tools>,
    ctx: u32,
) -> Result<Rendered, ApiError> {
    let continues = options.continue_final;
    let begins = options.add_generation_prompt;
    let prompt = rendered(model, messages, &options, tools)?;
    let text = prompt.text();
    check_bytes(model, text.len(), ctx)?;
    let list = messages.list.as_array().map_or(&[][..], Vec::as_slice);
    let last = list.last().and_then(|last| last["content"].as_str()).unwrap_or_default();
    let thinks = if continues {
        model.format.is_open_in(last)
    } else {
        begins && model.format.is_open_at(&text)
    };
    let tokens = model.tokenizer.encode_chat(&prompt);
    let tokens = tokens.map_err(|error| refused_text("messages", &error))?;
    Ok(Rendered { tokens, thinks })
}

/// A conversation as the model's template writes it, in text.
///
/// # Errors
///
/// 400 if there is no template, or it refuses the messages.
pub fn rendered(
    model: &ServedModel,
    messages: &Messages,
    options: &TemplateOptions,
    tools: Option<&Tools>,
) -> Result<ChatPrompt, ApiError> {
    let template = match &model.template {
        Template::Ready(template) => template,
        Template::Missing => return Err(ApiError::unsupported("messages", NO_TEMPLATE)),
        Template::Broken { cause } => {
            let text = format!(
                "This model's chat template cannot be used: {cause}. Use /v1/completions, or start the \
                 coordinator with --chat-template-file."
            );
            return Err(ApiError::unsupported("messages", text));
        }
    };
    let list = messages.list.as_array().map_or(&[][..], Vec::as_slice);
    let prepared = model.format.prepare(list, tools);
    let written = RenderOptions {
        tools: prepared.tools.as_ref(),
        add_generation_prompt: options.add_generation_prompt,
        continue_final: options.continue_final,
        variables: Some(&options.variables),
        unix_seconds: i64::try_from(options.unix_seconds).unwrap_or(i64::MAX),
        ..RenderOptions::default()
    };
    template.prompt(&prepared.messages, &written).map_err(|error| match error {
        ChatTemplateError::Thread(_) => ApiError::new(Problem::Internal, error.to_string()),
        _ => ApiError::invalid("messages", format!("{error}.")),
    })
}

/// The tokens of a prompt as it was given, and its text if it is to be given back (`echo`).
///
/// # Errors
///
/// 400 if it cannot be tokenised, has no tokens, or does not fit `ctx`.
pub fn of_prompt(
    model: &ServedModel,
    prompt: Prompt,
    echo: bool,
    ctx: u32,
) -> Result<Encoded, ApiError> {
    let tokenizer = &model.tokenizer;
    let encoded = match prompt {
        Prompt::Tokens(tokens) if echo => {
            // One text with the completion: a character may begin here and end there.
            let mut detokenizer = Detokenizer::new(tokenizer);
            let echo = tokens.iter().map(|token| detokenizer.push(tokenizer, *token)).collect();
            Encoded { tokens, echo: Some(echo), detokenizer, reading: None }
        }
        Prompt::Tokens(tokens) => {
            Encoded { tokens, echo: None, detokenizer: Detokenizer::continuing(), reading: None }
        }
        Prompt::Text(text) => {
            check_bytes(model, text.len(), ctx)?;
            let options = EncodeOptions { add_special: true, parse_special: true };
            let tokens = tokenizer.encode(&text, options);
            let tokens = tokens.map_err(|error| refused_text("prompt", &error))?;
            let echo = echo.then_some(text);
            Encoded { tokens, echo, detokenizer: Detokenizer::continuing(), reading: None }
        }
    };
    if encoded.tokens.is_empty() {
        let text = "'prompt' is empty, and this model has no token that begins a text.";
        return Err(ApiError::invalid("prompt", text));
    }
    Ok(encoded)
}

/// A text that is longer than a whole context of the longest token is not tokenised at all.
///
/// # Errors
///
/// 400 naming the context length.
pub fn check_bytes(model: &ServedModel, bytes: usize, ctx: u32) -> Result<(), ApiError> {
    let at_least = bytes.div_ceil(model.tokenizer.longest_token().max(1));
    if at_least > ctx as usize {
        Err(ApiError::context_length(at_least, 1, ctx as usize))
    } else {
        Ok(())
    }
}

/// The error for a text that the tokenizer refuses.
pub fn refused_text(param: &str, error: &TokenizerError) -> ApiError {
    ApiError::invalid(param, format!("The text cannot be tokenised: {error}."))
}

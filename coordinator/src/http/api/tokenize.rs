//! `POST /tokenize` and `POST /detokenize`, in vLLM's and llama-server's words.

use super::answer::{look, read};
use super::logprobs::token_string;
use crate::http::error::ApiError;
use crate::http::gateway::Gateway;
use crate::http::input::fields::{Fields, array_of};
use crate::http::input::job::take_model;
use crate::http::input::json::VALUES_MAX;
use crate::http::input::messages;
use crate::http::input::prompts::token_ids;
use crate::http::input::template_options;
use crate::http::input::{tokens, tools};
use crate::models::ServedModel;
use axum::Json;
use axum::extract::{Request, State};
use serde_json::{Value, json};
use std::sync::Arc;
use woolly_engine::tokenizer::{Detokenizer, EncodeOptions};

/// Characters of a text: more than a body can hold.
const TEXT_CHARS_MAX: usize = usize::MAX;

/// The tokens of a text (`prompt` or `content`) or of a conversation (`messages`).
///
/// # Errors
///
/// 400 naming the field.
pub async fn tokenize(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let body = read(&gateway, request).await?;
    look(&gateway, body, tokens_of).await.map(Json)
}

/// The text of tokens.
///
/// # Errors
///
/// 400 naming the field.
pub async fn detokenize(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let body = read(&gateway, request).await?;
    look(&gateway, body, text_of).await.map(Json)
}

fn tokens_of(gateway: &Gateway, mut fields: Fields) -> Result<Value, ApiError> {
    let (_, model) = take_model(&mut fields, gateway, None)?;
    let with_pieces = fields.bool("with_pieces")?.unwrap_or(false);
    let tokens = match given(&fields)? {
        "messages" => {
            if fields.bool("add_special_tokens")?.unwrap_or(false) {
                let text = "The template writes the special tokens of 'messages'.";
                return Err(ApiError::unsupported("add_special_tokens", text));
            }
            let messages = messages::take(&mut fields)?;
            let template = model.template.get();
            let options = template_options::take(&mut fields, &messages, template)?;
            let tools = tools::take(&mut fields)?;
            tokens::of_messages(&model, &messages, options, tools.as_ref(), u32::MAX)?.tokens
        }
        name => text_tokens(&model, &mut fields, name)?,
    };
    fields.finish()?;
    let count = tokens.len();
    let tokens: Value = if with_pieces {
        tokens
            .into_iter()
            .map(|id| json!({ "id": id, "piece": token_string(&model.tokenizer, id) }))
            .collect()
    } else {
        tokens.into()
    };
    let ctx = Some(gateway.engine.status(model.id).ctx_size).filter(|ctx| *ctx > 0);
    Ok(json!({ "tokens": tokens, "count": count, "max_model_len": ctx }))
}

/// Which of the three is given.
fn given(fields: &Fields) -> Result<&'static str, ApiError> {
    let mut given = ["prompt", "content", "messages"].into_iter().filter(|name| fields.has(name));
    match (given.next(), given.next()) {
        (Some(name), None) => Ok(name),
        (Some(_), Some(second)) => {
            let text = "Give one of 'prompt', 'content' and 'messages'.";
            Err(ApiError::invalid(second, text))
        }
        (None, _) => Err(ApiError::invalid("prompt", "'prompt' (or 'content') is missing.")),
    }
}

/// vLLM and lm-eval say `prompt` and want BOS, llama-server says `content` and wants none.
fn text_tokens(model: &ServedModel, fields: &mut Fields, name: &str) -> Result<Vec<u32>, ApiError> {
    let text = fields.string(name, TEXT_CHARS_MAX)?.unwrap_or_default();
    let special = fields.bool("add_special_tokens")?;
    let special = fields.bool("add_special")?.or(special).unwrap_or(name == "prompt");
    let parse_special = fields.bool("parse_special")?.unwrap_or(true);
    let options = EncodeOptions { add_special: special, parse_special };
    model.tokenizer.encode(&text, options).map_err(|error| tokens::refused_text(name, &error))
}

fn text_of(gateway: &Gateway, mut fields: Fields) -> Result<Value, ApiError> {
    let (_, model) = take_model(&mut fields, gateway, None)?;
    let Some(tokens) = fields.take("tokens") else {
        return Err(ApiError::invalid("tokens", "'tokens' is missing."));
    };
    fields.finish()?;
    let tokens = array_of(tokens, "tokens", VALUES_MAX)?;
    let tokens = token_ids(&tokens, "tokens", model.tokenizer.vocab_size())?;
    // Special tokens too: whoever looks at tokens wants to see all of them.
    let mut detokenizer = Detokenizer::new(&model.tokenizer).showing_control();
    let pushed = tokens.iter().map(|token| detokenizer.push(&model.tokenizer, *token));
    let mut text: String = pushed.collect();
    text.push_str(&detokenizer.finish());
    Ok(json!({ "prompt": text, "content": text }))
}

//! `instructions` and `input` of a request, in the form of OpenAI's messages, which
//! [`messages`](crate::http::input::messages) checks further.
//!
//! What the assistant thought, said and called, item by item, is one message; what a call gave is a message
//! of the role `tool`.

use crate::http::api::turns::Turns;
use crate::http::error::{ApiError, quote};
use crate::http::input::fields::{Fields, array_of, expected, string_of};
use crate::http::input::known::{self, Place};
use crate::http::input::messages::{MESSAGES_MAX, PARTS_MAX};
use serde_json::Value;

/// Characters of a role, a type, a function's name or a call's id.
const NAME_CHARS_MAX: usize = 256;
/// Characters of a text: more than a body can hold.
const TEXT_CHARS_MAX: usize = usize::MAX;

/// Takes `instructions` and `input`, and gives back OpenAI's `messages`.
///
/// # Errors
///
/// 400 naming the item and its field.
pub fn take(fields: &mut Fields) -> Result<Value, ApiError> {
    let mut turns = Turns::default();
    if let Some(text) = fields.string("instructions", TEXT_CHARS_MAX)? {
        turns.begin("system");
        turns.add_text("system", text);
    }
    match fields.take("input") {
        Some(Value::String(text)) => {
            turns.begin("user");
            turns.add_text("user", text);
        }
        Some(Value::Array(items)) => {
            let items = array_of(Value::Array(items), "input", MESSAGES_MAX)?;
            for (index, item) in items.into_iter().enumerate() {
                add_item(&mut turns, item, &format!("input[{index}]"))?;
            }
        }
        Some(other) => return Err(expected("input", "a string or an array of items", &other)),
        None => {}
    }
    if turns.is_empty() {
        return Err(ApiError::invalid("input", "'input' is missing or empty."));
    }
    Ok(turns.into_messages())
}

fn add_item(turns: &mut Turns, value: Value, at: &str) -> Result<(), ApiError> {
    let mut item = Fields::of_value(value, at)?;
    let type_path = item.path("type");
    let kind = item.string("type", NAME_CHARS_MAX)?;
    match kind.as_deref() {
        None | Some("message") => message(turns, &mut item)?,
        Some("function_call") => {
            let id = item.required("call_id", NAME_CHARS_MAX)?;
            let name = item.required("name", NAME_CHARS_MAX)?;
            let arguments = item.required("arguments", TEXT_CHARS_MAX)?;
            turns.add_call(&id, &name, &arguments);
        }
        Some("function_call_output") => {
            let id = item.required("call_id", NAME_CHARS_MAX)?;
            let path = item.path("output");
            let output = item.take("output").unwrap_or(Value::Null);
            turns.add_result(&id, &texts(output, &path)?.join("\n"));
        }
        Some("reasoning") => reasoning(turns, &mut item)?,
        Some("item_reference") => {
            // Vercel's ai sends references unless it is told otherwise.
            let text = "Items are not stored here: send the item itself. A client that refers to \
                        items by itself sends them whole when it is told 'store: false'.";
            return Err(ApiError::unsupported(&type_path, text));
        }
        Some(kind) => {
            let text = format!(
                "An item of type '{}' is not supported: Woolly reads message, function_call, \
                 function_call_output and reasoning.",
                quote(kind)
            );
            return Err(ApiError::unsupported(&type_path, text));
        }
    }
    known::take(&mut item, &[Place::Item])?;
    item.finish()
}

fn message(turns: &mut Turns, item: &mut Fields) -> Result<(), ApiError> {
    let role_path = item.path("role");
    let role = item.required("role", NAME_CHARS_MAX)?;
    if !["user", "system", "developer", "assistant"].contains(&role.as_str()) {
        let text = format!("'{role_path}' must be user, system, developer or assistant.");
        return Err(ApiError::invalid(&role_path, text));
    }
    let path = item.path("content");
    let content = item.take("content").unwrap_or(Value::Null);
    let texts = texts(content, &path)?;
    if role == "assistant" {
        turns.go_on(&role);
    } else {
        turns.begin(&role);
    }
    texts.into_iter().for_each(|text| turns.add_text(&role, text));
    Ok(())
}

/// What the assistant thought, as far as it can be read: its text, or else its summary. What was encrypted
/// says nothing here.
fn reasoning(turns: &mut Turns, item: &mut Fields) -> Result<(), ApiError> {
    let mut texts = Vec::new();
    for name in ["content", "summary"] {
        let path = item.path(name);
        let parts =
            item.take(name).map_or(Ok(Vec::new()), |parts| array_of(parts, &path, PARTS_MAX))?;
        let parts = parts.into_iter().enumerate();
        let read: Vec<String> = parts
            .map(|(index, part)| {
                text_part(part, &format!("{path}[{index}]"), &["reasoning_text", "summary_text"])
            })
            .collect::<Result<_, _>>()?;
        if texts.is_empty() {
            texts = read;
        }
    }
    item.take("encrypted_content");
    if !texts.is_empty() {
        turns.add_thinking(&texts.join("\n"));
    }
    Ok(())
}

/// A text, or the texts of an array of parts.
fn texts(value: Value, at: &str) -> Result<Vec<String>, ApiError> {
    match value {
        Value::String(text) => Ok(vec![text]),
        Value::Array(parts) => {
            let parts = array_of(Value::Array(parts), at, PARTS_MAX)?.into_iter().enumerate();
            let kinds = ["input_text", "output_text", "text", "refusal"];
            parts.map(|(index, part)| text_part(part, &format!("{at}[{index}]"), &kinds)).collect()
        }
        other => Err(expected(at, "a string or an array of text parts", &other)),
    }
}

/// The text of a part of one of these types.
fn text_part(value: Value, at: &str, kinds: &[&str]) -> Result<String, ApiError> {
    let mut part = Fields::of_value(value, at)?;
    let type_path = part.path("type");
    let kind = part.required("type", NAME_CHARS_MAX)?;
    if !kinds.contains(&kind.as_str()) {
        let text = format!(
            "Content of type '{}' is not supported: Woolly reads and writes text only.",
            quote(&kind)
        );
        return Err(ApiError::unsupported(&type_path, text));
    }
    let name = if kind == "refusal" { "refusal" } else { "text" };
    let path = part.path(name);
    let text = string_of(part.take(name).unwrap_or(Value::Null), &path, TEXT_CHARS_MAX)?;
    known::take(&mut part, &[Place::Part])?;
    part.finish()?;
    Ok(text)
}

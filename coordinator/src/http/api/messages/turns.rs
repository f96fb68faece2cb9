//! `system` and `messages` of an Anthropic request, in the form of OpenAI's messages, which
//! [`messages`](crate::http::input::messages) checks further.
//!
//! Turns of one role that follow each other are one turn, as Anthropic has it; a last turn of the assistant
//! is continued. Results of tools become messages of the role `tool`, in their place. Of an earlier answer's
//! thinking the text is kept, for the template to show or to cut out; its signature and what was encrypted
//! say nothing here.

use crate::http::api::turns::Turns;
use crate::http::error::{ApiError, quote};
use crate::http::input::fields::{Fields, array_of, expected};
use crate::http::input::known::{self, Place};
use crate::http::input::messages::{MESSAGES_MAX, PARTS_MAX};
use serde_json::Value;

/// Characters of a role, a type, a tool's name or a call's id.
const NAME_CHARS_MAX: usize = 256;
/// Characters of a text: more than a body can hold.
const TEXT_CHARS_MAX: usize = usize::MAX;

/// Takes `system` and `messages`, and gives back OpenAI's `messages`.
///
/// # Errors
///
/// 400 naming the message, the block and its field.
pub fn take(fields: &mut Fields) -> Result<Value, ApiError> {
    let mut turns = Turns::default();
    if let Some(system) = fields.take("system") {
        for text in texts(system, "system")? {
            turns.add_text("system", text);
        }
    }
    let Some(list) = fields.take("messages") else {
        return Err(ApiError::invalid("messages", "'messages' is missing."));
    };
    let list = array_of(list, "messages", MESSAGES_MAX)?;
    if list.is_empty() {
        return Err(ApiError::invalid("messages", "'messages' must hold at least one message."));
    }
    for (index, message) in list.into_iter().enumerate() {
        add_message(&mut turns, message, &format!("messages[{index}]"))?;
    }
    turns.continue_last();
    Ok(turns.into_messages())
}

fn add_message(turns: &mut Turns, value: Value, at: &str) -> Result<(), ApiError> {
    let mut message = Fields::of_value(value, at)?;
    let role_path = message.path("role");
    let role = message.string("role", NAME_CHARS_MAX)?.unwrap_or_default();
    let content = message.take("content").unwrap_or(Value::Null);
    let content_path = message.path("content");
    message.finish()?;
    if !["user", "assistant", "system"].contains(&role.as_str()) {
        let text = format!("'{role_path}' must be user, assistant or system.");
        return Err(ApiError::invalid(&role_path, text));
    }
    match content {
        Value::String(text) => {
            turns.add_text(&role, text);
            Ok(())
        }
        Value::Array(blocks) => {
            turns.go_on(&role);
            for (index, block) in blocks_of(blocks, &content_path)?.into_iter().enumerate() {
                add_block(turns, &role, block, &format!("{content_path}[{index}]"))?;
            }
            Ok(())
        }
        other => Err(expected(&content_path, "a string or an array of blocks", &other)),
    }
}

fn add_block(turns: &mut Turns, role: &str, value: Value, at: &str) -> Result<(), ApiError> {
    let mut block = Fields::of_value(value, at)?;
    let type_path = block.path("type");
    let kind = block.string("type", NAME_CHARS_MAX)?.unwrap_or_default();
    match (kind.as_str(), role) {
        ("text", _) => turns.add_text(role, block.required("text", TEXT_CHARS_MAX)?),
        ("thinking", "assistant") => {
            let text = block.required("thinking", TEXT_CHARS_MAX)?;
            block.take("signature");
            turns.add_thinking(&text);
        }
        ("redacted_thinking", "assistant") => {
            block.take("data");
        }
        ("tool_use", "assistant") => call(turns, &mut block)?,
        ("tool_result", "user") => result(turns, &mut block)?,
        ("thinking" | "redacted_thinking" | "tool_use" | "tool_result", _) => {
            let text = format!("A block of type '{kind}' is not for the role {role}.");
            return Err(ApiError::invalid(&type_path, text));
        }
        _ => {
            let kind = quote(&kind);
            let text = format!(
                "A block of type '{kind}' is not supported: Woolly reads text, tool_use, \
                     tool_result and thinking."
            );
            return Err(ApiError::unsupported(&type_path, text));
        }
    }
    known::take(&mut block, &[Place::Block])?;
    block.finish()
}

fn call(turns: &mut Turns, block: &mut Fields) -> Result<(), ApiError> {
    let id = block.required("id", NAME_CHARS_MAX)?;
    let name = block.required("name", NAME_CHARS_MAX)?;
    let path = block.path("input");
    let input = match block.take("input") {
        Some(input @ Value::Object(_)) => input.to_string(),
        other => return Err(expected(&path, "an object", &other.unwrap_or(Value::Null))),
    };
    turns.add_call(&id, &name, &input);
    Ok(())
}

/// What a tool gave. Templates have no place for a failure but the text itself.
fn result(turns: &mut Turns, block: &mut Fields) -> Result<(), ApiError> {
    let id = block.required("tool_use_id", NAME_CHARS_MAX)?;
    let path = block.path("content");
    let mut texts = match block.take("content") {
        None => Vec::new(),
        Some(content) => texts(content, &path)?,
    };
    if block.bool("is_error")?.unwrap_or(false) {
        texts.insert(0, "Error:".to_owned());
    }
    turns.add_result(&id, &texts.join("\n"));
    Ok(())
}

/// A text, or the texts of an array of text blocks.
fn texts(value: Value, at: &str) -> Result<Vec<String>, ApiError> {
    let blocks = match value {
        Value::String(text) => return Ok(vec![text]),
        Value::Array(blocks) => blocks_of(blocks, at)?,
        other => return Err(expected(at, "a string or an array of text blocks", &other)),
    };
    let text = |(index, block)| {
        let mut block = Fields::of_value(block, &format!("{at}[{index}]"))?;
        let type_path = block.path("type");
        let kind = block.string("type", NAME_CHARS_MAX)?.unwrap_or_default();
        if kind != "text" {
            let text = format!(
                "A block of type '{}' is not supported here: Woolly reads text.",
                quote(&kind)
            );
            return Err(ApiError::unsupported(&type_path, text));
        }
        let text = block.required("text", TEXT_CHARS_MAX)?;
        known::take(&mut block, &[Place::Block])?;
        block.finish()?;
        Ok(text)
    };
    blocks.into_iter().enumerate().map(text).collect()
}

fn blocks_of(blocks: Vec<Value>, at: &str) -> Result<Vec<Value>, ApiError> {
    array_of(Value::Array(blocks), at, PARTS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn turns(body: Value) -> Result<Value, ApiError> {
        let mut fields = Fields::of_body(body)?;
        let list = take(&mut fields)?;
        fields.finish()?;
        Ok(list)
    }

    fn text(text: &str) -> Value {
        json!({ "type": "text", "text": text })
    }

    #[test]
    fn turns_of_one_role_are_one_and_a_last_one_of_the_assistant_is_continued() {
        let said = turns(json!({
            "system": [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}],
            "messages": [
                {"role": "user", "content": "a"},
                {"role": "user", "content": [text("b"), text("c")]},
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "x"},
                    {"type": "redacted_thinking", "data": "y"}, text("d"),
                ]},
            ],
        }));
        let expected = json!([
            {"role": "system", "content": [text("be brief")]},
            {"role": "user", "content": [text("a"), text("b"), text("c")]},
            {"role": "assistant", "content": [text("d")], "reasoning_content": "hm", "prefix": true},
        ]);
        assert_eq!(said.unwrap(), expected);
    }

    #[test]
    fn calls_and_results_take_openais_form_in_their_order() {
        let said = turns(json!({ "messages": [
            {"role": "user", "content": "weather?"},
            {"role": "assistant", "content": [
                text("looking"),
                {"type": "tool_use", "id": "t1", "name": "get", "input": {"b": 1, "a": "x"}, "caller": {"type": "direct"}},
                {"type": "tool_use", "id": "t2", "name": "get", "input": {}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "sun"},
                {"type": "tool_result", "tool_use_id": "t2", "content": [text("no"), text("net")], "is_error": true},
                text("and?"),
            ]},
        ]}));
        let call = |id: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": "get", "arguments": arguments}});
        let expected = json!([
            {"role": "user", "content": [text("weather?")]},
            {"role": "assistant", "content": [text("looking")], "tool_calls": [call("t1", "{\"b\":1,\"a\":\"x\"}"), call("t2", "{}")]},
            {"role": "tool", "tool_call_id": "t1", "content": "sun"},
            {"role": "tool", "tool_call_id": "t2", "content": "Error:\nno\nnet"},
            {"role": "user", "content": [text("and?")]},
        ]);
        assert_eq!(said.unwrap(), expected);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (message, param) in [
            (json!({"role": "tool", "content": "x"}), "messages[0].role"),
            (json!({"role": "user"}), "messages[0].content"),
            (json!({"role": "user", "content": "x", "name": "n"}), "messages[0].name"),
            (
                json!({"role": "user", "content": [{"type": "image"}]}),
                "messages[0].content[0].type",
            ),
            (json!({"role": "user", "content": [{"type": "text"}]}), "messages[0].content[0].text"),
            (
                json!({"role": "user", "content": [{"type": "thinking"}]}),
                "messages[0].content[0].type",
            ),
            (
                json!({"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": "{}"}]}),
                "messages[0].content[0].input",
            ),
            (
                json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": [{"type": "image"}]}]}),
                "messages[0].content[0].content[0].type",
            ),
        ] {
            let error = turns(json!({ "messages": [message] })).unwrap_err();
            assert_eq!(error.body()["error"]["param"], param);
        }
        assert_eq!(turns(json!({})).unwrap_err().body()["error"]["param"], "messages");
    }
}

//! The `messages` of a chat request, checked and brought to the form that chat templates expect.
//!
//! A template sees `role` (`developer` becomes `system`), `content` (text parts joined by line
//! ends, as vLLM and llama.cpp join them), and `name` and `tool_call_id` as the client gave them.
//! What the template makes of a role, or of a system message in the middle, is the template's.

use super::error::ApiError;
use super::fields::{Fields, array_of, expected, string_of};
use serde_json::{Map, Value};

/// Messages of a request.
pub const MESSAGES_MAX: usize = 4096;
/// Parts of one message's content.
pub const PARTS_MAX: usize = 4096;
/// Characters of a name or of a tool call's id.
const NAME_CHARS_MAX: usize = 256;
/// Characters of a text: more than a body can hold.
const TEXT_CHARS_MAX: usize = usize::MAX;

/// Checks the messages and returns them as a template expects them.
///
/// # Errors
///
/// 400 naming the message and its field.
pub fn take(fields: &mut Fields) -> Result<Value, ApiError> {
    let Some(value) = fields.take("messages") else {
        return Err(ApiError::invalid("messages", "'messages' is missing."));
    };
    let items = array_of(value, "messages", MESSAGES_MAX)?;
    if items.is_empty() {
        return Err(ApiError::invalid("messages", "'messages' must hold at least one message."));
    }
    let mut messages = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        messages.push(message(item, &format!("messages[{index}]"))?);
    }
    if messages.len() >= 2 && messages[messages.len() - 2..].iter().all(is_assistant) {
        let text = "The last two messages are both the assistant's: there is nothing to answer.";
        return Err(ApiError::invalid("messages", text));
    }
    Ok(Value::Array(messages))
}

fn is_assistant(message: &Value) -> bool {
    message["role"] == "assistant"
}

fn message(value: Value, at: &str) -> Result<Value, ApiError> {
    let mut fields = Fields::of_value(value, at)?;
    let role_path = fields.path("role");
    let role = match fields.string("role", NAME_CHARS_MAX)?.as_deref() {
        None => return Err(ApiError::invalid(&role_path, format!("'{role_path}' is missing."))),
        Some("developer" | "system") => "system",
        Some("user") => "user",
        Some("assistant") => "assistant",
        Some("tool") => "tool",
        Some(other) => {
            let wanted = "one of system, developer, user, assistant and tool";
            return Err(expected(&role_path, wanted, &Value::from(other)));
        }
    };
    for name in ["tool_calls", "function_call", "refusal", "audio", "reasoning_content", "prefix"] {
        let value = fields.take(name);
        let absent = value.is_none_or(|value| value == Value::Array(Vec::new()) || value == "");
        if !absent {
            let path = fields.path(name);
            return Err(ApiError::unsupported(&path, format!("'{path}' is not supported.")));
        }
    }
    let content = content(&mut fields)?;
    let mut message = Map::new();
    message.insert("role".into(), role.into());
    message.insert("content".into(), content.into());
    for name in ["name", "tool_call_id"] {
        if let Some(text) = fields.string(name, NAME_CHARS_MAX)? {
            message.insert(name.into(), text.into());
        }
    }
    fields.finish()?;
    Ok(Value::Object(message))
}

fn content(fields: &mut Fields) -> Result<String, ApiError> {
    let path = fields.path("content");
    match fields.take("content") {
        Some(Value::String(text)) => Ok(text),
        Some(Value::Array(parts)) => {
            let parts = array_of(Value::Array(parts), &path, PARTS_MAX)?;
            if parts.is_empty() {
                let text = format!("'{path}' must hold at least one part.");
                return Err(ApiError::invalid(&path, text));
            }
            let part = |(index, part)| text_part(part, &format!("{path}[{index}]"));
            let texts: Vec<String> =
                parts.into_iter().enumerate().map(part).collect::<Result<_, _>>()?;
            Ok(texts.join("\n"))
        }
        other => {
            let wanted = "a string or an array of text parts";
            Err(expected(&path, wanted, &other.unwrap_or(Value::Null)))
        }
    }
}

fn text_part(value: Value, at: &str) -> Result<String, ApiError> {
    let mut fields = Fields::of_value(value, at)?;
    let type_path = fields.path("type");
    match fields.string("type", NAME_CHARS_MAX)? {
        Some(kind) if kind == "text" => {}
        Some(kind) => {
            let kind = super::error::quote(&kind);
            let text = format!("Content of type '{kind}' is not supported: only 'text' is.");
            return Err(ApiError::unsupported(&type_path, text));
        }
        None => return Err(ApiError::invalid(&type_path, format!("'{type_path}' is missing."))),
    }
    let text_path = fields.path("text");
    let text = fields.take("text").unwrap_or(Value::Null);
    let text = string_of(text, &text_path, TEXT_CHARS_MAX)?;
    fields.finish()?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn messages(value: Value) -> Result<Value, ApiError> {
        take(&mut Fields::of_body(json!({ "messages": value }))?)
    }

    fn param(value: Value) -> String {
        let error = messages(value).unwrap_err();
        error.body()["error"]["param"].as_str().unwrap().to_owned()
    }

    #[test]
    fn roles_and_parts_become_what_templates_expect() {
        let given = json!([
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": "ann"},
            {"role": "assistant", "content": "c", "tool_calls": null, "refusal": null},
            {"role": "tool", "content": "d", "tool_call_id": "call_1"},
        ]);
        let expected = json!([
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "a\nb", "name": "ann"},
            {"role": "assistant", "content": "c"},
            {"role": "tool", "content": "d", "tool_call_id": "call_1"},
        ]);
        assert_eq!(messages(given).unwrap(), expected);
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(param(Value::Null), "messages");
        assert_eq!(param(json!("hello")), "messages");
        assert_eq!(param(json!([])), "messages");
        assert_eq!(param(json!([123])), "messages[0]");
        assert_eq!(param(json!([{}])), "messages[0].role");
        assert_eq!(param(json!([{"role": 123, "content": ""}])), "messages[0].role");
        assert_eq!(param(json!([{"role": "robot", "content": ""}])), "messages[0].role");
        assert_eq!(param(json!([{"role": "system", "content": 123}])), "messages[0].content");
        assert_eq!(param(json!([{"role": "user", "content": null}])), "messages[0].content");
        assert_eq!(param(json!([{"role": "user", "content": []}])), "messages[0].content");
        let part = |part: Value| param(json!([{"role": "user", "content": [part]}]));
        assert_eq!(part(json!("text")), "messages[0].content[0]");
        assert_eq!(part(json!({"type": "image_url"})), "messages[0].content[0].type");
        assert_eq!(part(json!({"type": "input_audio"})), "messages[0].content[0].type");
        assert_eq!(part(json!({"text": "a"})), "messages[0].content[0].type");
        assert_eq!(part(json!({"type": "text"})), "messages[0].content[0].text");
        assert_eq!(part(json!({"type": "text", "text": "a", "b": 1})), "messages[0].content[0].b");
        let user = json!({"role": "user", "content": "a"});
        assert_eq!(param(json!([user, {"role": "user", "content": "a", "x": 1}])), "messages[1].x");
        let calls = json!({"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]});
        assert_eq!(param(json!([user, calls])), "messages[1].tool_calls");
        let assistant = json!({"role": "assistant", "content": "a"});
        assert_eq!(param(json!([user, assistant, assistant])), "messages");
        assert_eq!(param(json!(vec![user; MESSAGES_MAX + 1])), "messages");
        let text = json!({"type": "text", "text": ""});
        let parts = json!([{"role": "user", "content": vec![text; PARTS_MAX + 1]}]);
        assert_eq!(param(parts), "messages[0].content");
    }
}

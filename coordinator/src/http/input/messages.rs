//! The `messages` of a chat request, checked and brought to the form that chat templates expect.
//!
//! A template sees `role` (`developer` becomes `system`; a role that OpenAI does not have stays as it
//! is, for the template to know or refuse), `content` (text parts joined by line ends, as vLLM and
//! llama.cpp join them), `tool_calls` in OpenAI's form, and `name`, `tool_call_id` and `reasoning_content` as
//! the client gave them.
//! What the template makes of a role, or of a system message in the middle, is the template's.

use super::fields::{Fields, array_of, expected, string_of};
use super::known::{self, Place};
use crate::http::error::ApiError;
use serde_json::{Map, Value};

/// Messages of a request.
pub const MESSAGES_MAX: usize = 4096;
/// Parts of one message's content.
pub const PARTS_MAX: usize = 4096;
/// Calls of one message.
pub const CALLS_MAX: usize = 128;
/// Characters of a role, a name, or a tool call's id.
const NAME_CHARS_MAX: usize = 256;
/// Characters of a text: more than a body can hold.
const TEXT_CHARS_MAX: usize = usize::MAX;

/// A checked conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct Messages {
    /// As a template expects them: a list of objects, at least one.
    pub list: Value,
    /// The last message asks to be continued (`"prefix": true`, as DeepSeek and Mistral have it).
    pub prefix: bool,
}

impl Messages {
    /// Whether the last message is the assistant's, with some text.
    pub fn end_with_assistant(&self) -> bool {
        let last = self.list.as_array().and_then(|list| list.last());
        last.is_some_and(|last| is_assistant(last) && last["content"] != "")
    }
}

/// Checks the messages and returns them as a template expects them.
///
/// # Errors
///
/// 400 naming the message and its field.
pub fn take(fields: &mut Fields) -> Result<Messages, ApiError> {
    let Some(value) = fields.take("messages") else {
        return Err(ApiError::invalid("messages", "'messages' is missing."));
    };
    let items = array_of(value, "messages", MESSAGES_MAX)?;
    if items.is_empty() {
        return Err(ApiError::invalid("messages", "'messages' must hold at least one message."));
    }
    let mut messages = Vec::with_capacity(items.len());
    let mut prefix = false;
    for (index, item) in items.into_iter().enumerate() {
        if prefix {
            let path = format!("messages[{}].prefix", index - 1);
            let text = format!("'{path}' is for the last message only.");
            return Err(ApiError::invalid(&path, text));
        }
        let (message, asks) = message(item, &format!("messages[{index}]"))?;
        messages.push(message);
        prefix = asks;
    }
    if messages.len() >= 2 && messages[messages.len() - 2..].iter().all(is_assistant) {
        let text = "The last two messages are both the assistant's: there is nothing to answer.";
        return Err(ApiError::invalid("messages", text));
    }
    Ok(Messages { list: Value::Array(messages), prefix })
}

fn is_assistant(message: &Value) -> bool {
    message["role"] == "assistant"
}

/// A message, and whether it asks to be continued.
fn message(value: Value, at: &str) -> Result<(Value, bool), ApiError> {
    let mut fields = Fields::of_value(value, at)?;
    let role_path = fields.path("role");
    let role = match fields.string("role", NAME_CHARS_MAX)? {
        None => return Err(ApiError::invalid(&role_path, format!("'{role_path}' is missing."))),
        Some(role) if role == "developer" => "system".to_owned(),
        Some(role) => role,
    };
    let tool_calls = tool_calls(&mut fields, role == "assistant")?;
    known::take(&mut fields, &[Place::Message])?;
    let content = content(&mut fields, role == "assistant")?;
    let mut message = Map::new();
    message.insert("role".into(), role.into());
    message.insert("content".into(), content.into());
    if !tool_calls.is_empty() {
        message.insert("tool_calls".into(), tool_calls.into());
    }
    for name in ["name", "tool_call_id"] {
        if let Some(text) = fields.string(name, NAME_CHARS_MAX)? {
            message.insert(name.into(), text.into());
        }
    }
    if let Some(reasoning) = reasoning(&mut fields)? {
        message.insert("reasoning_content".into(), reasoning.into());
    }
    let prefix = fields.bool("prefix")?.unwrap_or(false);
    fields.finish()?;
    Ok((Value::Object(message), prefix))
}

/// The tools that an earlier answer called: arguments are JSON text, as OpenAI has them.
fn tool_calls(fields: &mut Fields, assistant: bool) -> Result<Vec<Value>, ApiError> {
    let path = fields.path("tool_calls");
    let Some(value) = fields.take("tool_calls") else { return Ok(Vec::new()) };
    let calls = array_of(value, &path, CALLS_MAX)?;
    if !calls.is_empty() && !assistant {
        let text = format!("'{path}' is for messages of the role assistant.");
        return Err(ApiError::invalid(&path, text));
    }
    let call = |(index, call)| tool_call(call, &format!("{path}[{index}]"));
    calls.into_iter().enumerate().map(call).collect()
}

fn tool_call(value: Value, at: &str) -> Result<Value, ApiError> {
    let mut fields = Fields::of_value(value, at)?;
    let id = fields.string("id", NAME_CHARS_MAX)?;
    let type_path = fields.path("type");
    if let Some(kind) = fields.string("type", NAME_CHARS_MAX)?.filter(|kind| kind != "function") {
        let kind = crate::http::error::quote(&kind);
        let text = format!("Calls of type '{kind}' are not supported: only functions.");
        return Err(ApiError::unsupported(&type_path, text));
    }
    // Its place in a streamed answer, which is its place here.
    fields.integer("index", 0..=u64::MAX)?;
    let path = fields.path("function");
    let function = fields.take("function").unwrap_or(Value::Null);
    fields.finish()?;
    let mut function = Fields::of_value(function, &path)?;
    let name_path = function.path("name");
    let Some(name) = function.string("name", NAME_CHARS_MAX)? else {
        return Err(ApiError::invalid(&name_path, format!("'{name_path}' is missing.")));
    };
    let arguments_path = function.path("arguments");
    let arguments = match function.take("arguments") {
        None => "{}".to_owned(),
        Some(Value::String(text)) if text.trim().is_empty() => "{}".to_owned(),
        Some(Value::String(text)) => text,
        Some(object @ Value::Object(_)) => object.to_string(),
        Some(other) => return Err(expected(&arguments_path, "JSON text or an object", &other)),
    };
    function.finish()?;
    let mut call = Map::new();
    if let Some(id) = id {
        call.insert("id".into(), id.into());
    }
    call.insert("type".into(), "function".into());
    call.insert("function".into(), serde_json::json!({"name": name, "arguments": arguments}));
    Ok(Value::Object(call))
}

/// What the assistant thought before an earlier answer, under either of its names. The template
/// shows it, or cuts it out, as it was written to.
fn reasoning(fields: &mut Fields) -> Result<Option<String>, ApiError> {
    let content = fields.string("reasoning_content", TEXT_CHARS_MAX)?;
    let short = fields.string("reasoning", TEXT_CHARS_MAX)?;
    Ok(content.or(short).filter(|text| !text.is_empty()))
}

/// The text of a message. An assistant may have said nothing: that is the empty text, or its
/// `refusal`, if it said that instead.
fn content(fields: &mut Fields, assistant: bool) -> Result<String, ApiError> {
    let path = fields.path("content");
    let refusal = fields.string("refusal", TEXT_CHARS_MAX)?.unwrap_or_default();
    let text = match fields.take("content") {
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => {
            let parts = array_of(Value::Array(parts), &path, PARTS_MAX)?;
            if parts.is_empty() && !assistant {
                let text = format!("'{path}' must hold at least one part.");
                return Err(ApiError::invalid(&path, text));
            }
            let part = |(index, part)| text_part(part, &format!("{path}[{index}]"));
            let texts: Vec<String> =
                parts.into_iter().enumerate().map(part).collect::<Result<_, _>>()?;
            texts.join("\n")
        }
        None if assistant => String::new(),
        other => {
            let wanted = "a string or an array of text parts";
            return Err(expected(&path, wanted, &other.unwrap_or(Value::Null)));
        }
    };
    Ok(if text.is_empty() { refusal } else { text })
}

/// The text of a part; the names are those of OpenAI's three APIs.
fn text_part(value: Value, at: &str) -> Result<String, ApiError> {
    let mut fields = Fields::of_value(value, at)?;
    let type_path = fields.path("type");
    let name = match fields.string("type", NAME_CHARS_MAX)?.as_deref() {
        Some("text" | "input_text" | "output_text") => "text",
        Some("refusal") => "refusal",
        Some(kind) => {
            let kind = crate::http::error::quote(kind);
            let text = format!(
                "Content of type '{kind}' is not supported: Woolly reads and writes text only."
            );
            return Err(ApiError::unsupported(&type_path, text));
        }
        None => return Err(ApiError::invalid(&type_path, format!("'{type_path}' is missing."))),
    };
    known::take(&mut fields, &[Place::Part])?;
    let text_path = fields.path(name);
    let text = fields.take(name).unwrap_or(Value::Null);
    let text = string_of(text, &text_path, TEXT_CHARS_MAX)?;
    fields.finish()?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn messages(value: Value) -> Result<Value, ApiError> {
        take(&mut Fields::of_body(json!({ "messages": value }))?).map(|messages| messages.list)
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
            {"role": "function", "content": "e", "name": "f"},
            {"role": "ipython", "content": "g"},
        ]);
        let expected = json!([
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "a\nb", "name": "ann"},
            {"role": "assistant", "content": "c"},
            {"role": "tool", "content": "d", "tool_call_id": "call_1"},
            {"role": "function", "content": "e", "name": "f"},
            {"role": "ipython", "content": "g"},
        ]);
        assert_eq!(messages(given).unwrap(), expected);
    }

    #[test]
    fn what_histories_carry_is_harmless() {
        let user = json!({"role": "user", "content": "Hi"});
        let says = |message: Value| {
            let mut message = message;
            message["role"] = "assistant".into();
            messages(json!([user, message])).unwrap()[1].clone()
        };
        let plain = |text: &str| json!({"role": "assistant", "content": text});
        assert_eq!(says(json!({"content": null})), plain(""));
        assert_eq!(says(json!({})), plain(""));
        assert_eq!(says(json!({"content": []})), plain(""));
        assert_eq!(says(json!({"content": "x", "type": "message", "id": "msg_1"})), plain("x"));
        assert_eq!(says(json!({"content": "x", "annotations": []})), plain("x"));
        assert_eq!(says(json!({"content": "x", "annotations": [{"type": "url"}]})), plain("x"));
        assert_eq!(says(json!({"content": "x", "audio": null, "tool_calls": []})), plain("x"));
        assert_eq!(says(json!({"content": null, "refusal": "no"})), plain("no"));
        assert_eq!(
            says(json!({"content": "x", "cache_control": {"type": "ephemeral"}})),
            plain("x")
        );
        let thought = json!({"role": "assistant", "content": "x", "reasoning_content": "t"});
        assert_eq!(says(json!({"content": "x", "reasoning_content": "t"})), thought);
        assert_eq!(says(json!({"content": "x", "reasoning": "t"})), thought);
        assert_eq!(says(json!({"content": "x", "reasoning_content": null})), plain("x"));
        let part = json!({"type": "text", "text": "Hi", "name": "n", "cache_control": {"type": "ephemeral"}});
        assert_eq!(messages(json!([{"role": "user", "content": [part]}])).unwrap()[0], user);
    }

    #[test]
    fn calls_are_brought_to_one_form() {
        let user = json!({"role": "user", "content": "Hi"});
        let said = json!({"role": "assistant", "content": null, "tool_calls": [
            {"id": "call_1", "type": "function", "index": 0,
             "function": {"name": "f", "arguments": "{\"a\": 1}"}},
            {"function": {"name": "g", "arguments": {"b": [2]}}},
            {"function": {"name": "h", "arguments": ""}},
        ]});
        let result = json!({"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "x"}]});
        let call = |name: &str, arguments: &str| json!({"type": "function", "function": {"name": name, "arguments": arguments}});
        let mut first = call("f", "{\"a\": 1}");
        first["id"] = "call_1".into();
        let calls = json!([first, call("g", "{\"b\":[2]}"), call("h", "{}")]);
        let expected = json!([
            user,
            {"role": "assistant", "content": "", "tool_calls": calls},
            {"role": "tool", "content": "x", "tool_call_id": "call_1"},
        ]);
        assert_eq!(messages(json!([user, said, result])).unwrap(), expected);
    }

    #[test]
    fn a_prefix_is_the_last_messages() {
        let prefix = json!({"role": "assistant", "content": "a", "prefix": true});
        let user = json!({"role": "user", "content": "b", "prefix": false});
        let taken = |list: Value| take(&mut Fields::of_body(json!({ "messages": list })).unwrap());
        assert!(taken(json!([user, prefix])).unwrap().prefix);
        assert!(!taken(json!([user])).unwrap().prefix);
        let error = taken(json!([prefix, user])).unwrap_err();
        assert_eq!(error.body()["error"]["param"], "messages[0].prefix");
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(param(Value::Null), "messages");
        assert_eq!(param(json!("hello")), "messages");
        assert_eq!(param(json!([])), "messages");
        assert_eq!(param(json!([123])), "messages[0]");
        assert_eq!(param(json!([{}])), "messages[0].role");
        assert_eq!(param(json!([{"role": 123, "content": ""}])), "messages[0].role");
        assert_eq!(param(json!([{"role": "r".repeat(257), "content": ""}])), "messages[0].role");
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
        let called = |call: Value| {
            let message = json!({"role": "assistant", "content": "", "tool_calls": [call]});
            param(json!([user, message]))
        };
        assert_eq!(called(json!({"id": "1"})), "messages[1].tool_calls[0].function");
        assert_eq!(called(json!({"id": 1})), "messages[1].tool_calls[0].id");
        assert_eq!(called(json!({"type": "custom"})), "messages[1].tool_calls[0].type");
        let function = |function: Value| called(json!({ "function": function }));
        assert_eq!(function(json!({})), "messages[1].tool_calls[0].function.name");
        let arguments = json!({"name": "f", "arguments": 7});
        assert_eq!(function(arguments), "messages[1].tool_calls[0].function.arguments");
        let users = json!({"role": "user", "content": "", "tool_calls": [{"id": "1"}]});
        assert_eq!(param(json!([users])), "messages[0].tool_calls");
        let assistant = json!({"role": "assistant", "content": "a"});
        assert_eq!(param(json!([user, assistant, assistant])), "messages");
        assert_eq!(param(json!(vec![user; MESSAGES_MAX + 1])), "messages");
        let text = json!({"type": "text", "text": ""});
        let parts = json!([{"role": "user", "content": vec![text; PARTS_MAX + 1]}]);
        assert_eq!(param(parts), "messages[0].content");
    }
}

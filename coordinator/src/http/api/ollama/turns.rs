//! `messages` of an Ollama request, in the form of OpenAI's.
//!
//! Ollama's calls may have no ids: they are numbered, and a result belongs to the first call without one that
//! has its name, or to the first of all if it names none.

use crate::http::error::ApiError;
use crate::http::input::fields::{Fields, array_of, expected};
use crate::http::input::known::{self, Place};
use crate::http::input::messages::MESSAGES_MAX;
use serde_json::{Map, Value, json};

/// Characters of a role, a function's name or a call's id.
const NAME_CHARS_MAX: usize = 256;
/// Characters of a text: more than a body can hold.
const TEXT_CHARS_MAX: usize = usize::MAX;
/// Calls of one message.
const CALLS_MAX: usize = 1024;

/// Gives back OpenAI's `messages`.
///
/// # Errors
///
/// 400 naming the message and its field.
pub fn translate(messages: Value) -> Result<Value, ApiError> {
    let list = array_of(messages, "messages", MESSAGES_MAX)?.into_iter().enumerate();
    let mut calls = Calls::default();
    list.map(|(index, value)| message(value, &format!("messages[{index}]"), &mut calls)).collect()
}

/// Calls whose results are still to come: ids and names.
#[derive(Debug, Default)]
struct Calls {
    open: Vec<(String, String)>,
    count: usize,
}

impl Calls {
    fn begin(&mut self, id: Option<String>, name: &str) -> String {
        // 9 letters and digits, as the strictest templates want it.
        let id = id.unwrap_or_else(|| format!("call{:05}", self.count));
        self.count += 1;
        self.open.push((id.clone(), name.to_owned()));
        id
    }

    fn answer(&mut self, name: Option<&str>) -> Option<String> {
        let is_it = |call: &(String, String)| name.is_none_or(|name| call.1 == name);
        let place = self.open.iter().position(is_it)?;
        Some(self.open.remove(place).0)
    }
}

fn message(value: Value, at: &str, calls: &mut Calls) -> Result<Value, ApiError> {
    let mut message = Fields::of_value(value, at)?;
    let role = message.required("role", NAME_CHARS_MAX)?;
    let content = message.string("content", TEXT_CHARS_MAX)?.unwrap_or_default();
    let mut written = Map::new();
    written.insert("role".into(), role.clone().into());
    written.insert("content".into(), content.into());
    if let Some(thinking) = message.string("thinking", TEXT_CHARS_MAX)? {
        written.insert("reasoning_content".into(), thinking.into());
    }
    let path = message.path("tool_calls");
    if let Some(list) = message.take("tool_calls") {
        let list = array_of(list, &path, CALLS_MAX)?.into_iter().enumerate();
        let list: Vec<Value> = list
            .map(|(index, value)| call(value, &format!("{path}[{index}]"), calls))
            .collect::<Result<_, _>>()?;
        written.insert("tool_calls".into(), list.into());
    }
    let name = message.string("tool_name", NAME_CHARS_MAX)?;
    let name = name.or(message.string("name", NAME_CHARS_MAX)?);
    let id = message.string("tool_call_id", NAME_CHARS_MAX)?;
    if role == "tool" {
        let found = calls.answer(name.as_deref());
        if let Some(id) = id.or(found) {
            written.insert("tool_call_id".into(), id.into());
        }
    }
    if let Some(name) = name {
        written.insert("name".into(), name.into());
    }
    known::take(&mut message, &[Place::Message])?;
    message.finish()?;
    Ok(Value::Object(written))
}

fn call(value: Value, at: &str, calls: &mut Calls) -> Result<Value, ApiError> {
    let mut call = Fields::of_value(value, at)?;
    let path = call.path("function");
    let mut function = Fields::of_value(call.take("function").unwrap_or(Value::Null), &path)?;
    let name = function.required("name", NAME_CHARS_MAX)?;
    let path = function.path("arguments");
    let arguments = match function.take("arguments") {
        Some(arguments @ Value::Object(_)) => arguments.to_string(),
        None => "{}".to_owned(),
        Some(other) => return Err(expected(&path, "an object", &other)),
    };
    function.take("index");
    function.finish()?;
    let id = call.string("id", NAME_CHARS_MAX)?;
    let id = calls.begin(id, &name);
    call.string("type", NAME_CHARS_MAX)?;
    call.finish()?;
    Ok(
        json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments } }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_get_ids_and_results_find_their_calls() {
        let function = |name: &str| json!({"function": {"name": name, "arguments": {"a": 1}}});
        let said = translate(json!([
            {"role": "user", "content": "x", "images": []},
            {"role": "assistant", "thinking": "hm", "tool_calls": [function("f"), function("g"), function("f")]},
            {"role": "tool", "content": "1", "tool_name": "g"},
            {"role": "tool", "content": "2", "tool_name": "f"},
            {"role": "tool", "content": "3"},
        ]))
        .unwrap();
        let ids: Vec<&str> =
            [2, 3, 4].map(|index: usize| said[index]["tool_call_id"].as_str().unwrap()).to_vec();
        assert_eq!(ids, ["call00001", "call00000", "call00002"]);
        assert_eq!(said[1]["tool_calls"][0]["function"]["arguments"], "{\"a\":1}");
        assert_eq!(said[1]["tool_calls"][1]["id"], "call00001");
        assert_eq!(
            (&said[1]["reasoning_content"], &said[1]["content"]),
            (&json!("hm"), &json!(""))
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (message, param) in [
            (json!({"content": "x"}), "messages[0].role"),
            (json!({"role": "user", "content": 7}), "messages[0].content"),
            (json!({"role": "user", "content": "x", "images": ["aGk="]}), "messages[0].images"),
            (json!({"role": "user", "content": "x", "colour": 1}), "messages[0].colour"),
            (
                json!({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}),
                "messages[0].tool_calls[0].function.arguments",
            ),
        ] {
            let error = translate(json!([message])).unwrap_err();
            assert_eq!(error.body()["error"]["param"], param);
        }
    }
}

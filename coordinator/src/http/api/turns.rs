//! What was said, put together as OpenAI's `messages` from APIs that write it otherwise: blocks or items of
//! one turn become one message, results of tools messages of their own.
//! [`messages`](crate::http::input::messages) checks the outcome.

use serde_json::{Map, Value, json};

/// What was said so far. Parts of a message stand in a list, as texts of their own.
#[derive(Debug, Default)]
pub struct Turns {
    list: Vec<Map<String, Value>>,
}

impl Turns {
    /// A new turn, whoever had the last one.
    pub fn begin(&mut self, role: &str) {
        let turn = [("role".to_owned(), role.into()), ("content".to_owned(), json!([]))];
        self.list.push(turn.into_iter().collect());
    }

    /// The turn that goes on with `role`: the last one if it is this role's, else a new one.
    pub fn go_on(&mut self, role: &str) -> &mut Map<String, Value> {
        if self.list.last().is_none_or(|last| last["role"] != role) {
            self.begin(role);
        }
        self.list.last_mut().expect("there is one now")
    }

    /// A text of `role`, in its last turn or a new one.
    pub fn add_text(&mut self, role: &str, text: String) {
        if let Some(Value::Array(parts)) = self.go_on(role).get_mut("content") {
            parts.push(json!({ "type": "text", "text": text }));
        }
    }

    /// What the assistant thought before it said what follows.
    pub fn add_thinking(&mut self, text: &str) {
        let turn = self.go_on("assistant");
        let before = turn.get("reasoning_content").and_then(Value::as_str).unwrap_or_default();
        let all = if before.is_empty() { text.to_owned() } else { format!("{before}\n{text}") };
        turn.insert("reasoning_content".to_owned(), all.into());
    }

    /// A call of the assistant's; `arguments` is JSON text.
    pub fn add_call(&mut self, id: &str, name: &str, arguments: &str) {
        let function = json!({ "name": name, "arguments": arguments });
        let call = json!({ "id": id, "type": "function", "function": function });
        let calls = self.go_on("assistant").entry("tool_calls").or_insert_with(|| json!([]));
        if let Value::Array(calls) = calls {
            calls.push(call);
        }
    }

    /// What a call gave. It stands before what is said in a turn that has just begun.
    pub fn add_result(&mut self, id: &str, text: &str) {
        let is_empty = |last: &mut Map<String, Value>| {
            last["role"] == "user" && last["content"].as_array().is_some_and(Vec::is_empty)
        };
        self.list.pop_if(is_empty);
        let result = json!({ "role": "tool", "tool_call_id": id, "content": text });
        if let Value::Object(result) = result {
            self.list.push(result);
        }
    }

    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Asks that a last turn of the assistant is continued.
    pub fn continue_last(&mut self) {
        if let Some(last) = self.list.last_mut().filter(|last| last["role"] == "assistant") {
            last.insert("prefix".to_owned(), true.into());
        }
    }

    /// OpenAI's `messages`.
    pub fn into_messages(self) -> Value {
        self.list.into_iter().map(Value::Object).collect()
    }
}

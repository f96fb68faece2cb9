//! The items that a response is made of: a message, what the model thought, a call of a function.

use serde_json::{Value, json};

/// How the model's thinking is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// As it is: the content of an item.
    Content,
    /// As it is too, in the place of a summary, for clients that asked for one.
    Summary,
}

/// How far an item has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It grows.
    InProgress,
    /// It is whole.
    Completed,
    /// The answer was cut off in it.
    Incomplete,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            State::InProgress => "in_progress",
            State::Completed => "completed",
            State::Incomplete => "incomplete",
        }
    }
}

/// What an item holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// Text for whoever asked.
    Message {
        /// So far.
        text: String,
        /// An entry for each token, if they were asked for.
        logprobs: Vec<Value>,
    },
    /// What the model thought.
    Reasoning {
        /// So far.
        text: String,
        /// Where it is written.
        shown: Shown,
    },
    /// A call.
    Call {
        /// Names it in the input that follows.
        call_id: String,
        /// The function.
        name: String,
        /// JSON text, so far.
        arguments: String,
    },
}

impl Item {
    /// How ids of these items begin.
    fn prefix(&self) -> &'static str {
        match self {
            Item::Message { .. } => "msg",
            Item::Reasoning { .. } => "rs",
            Item::Call { .. } => "fc",
        }
    }

    /// Its id as item `index` of the response with this number.
    pub fn id(&self, response: u128, index: usize) -> String {
        format!("{}_{response:032x}{index:04x}", self.prefix())
    }

    /// The one part that a message or a thought has; `None` for calls.
    pub fn part(&self) -> Option<Value> {
        match self {
            Item::Message { text, logprobs } => Some(json!({
                "type": "output_text", "text": text, "annotations": [], "logprobs": logprobs,
            })),
            Item::Reasoning { text, shown: Shown::Content } => {
                Some(json!({ "type": "reasoning_text", "text": text }))
            }
            Item::Reasoning { text, shown: Shown::Summary } => {
                Some(json!({ "type": "summary_text", "text": text }))
            }
            Item::Call { .. } => None,
        }
    }

    /// The item as it stands in a response; one that has just begun has no part yet.
    pub fn written(&self, id: &str, state: State) -> Value {
        let parts: Vec<Value> =
            self.part().filter(|_| state != State::InProgress).into_iter().collect();
        let status = state.word();
        match self {
            Item::Message { .. } => json!({
                "id": id, "type": "message", "status": status, "role": "assistant", "content": parts,
            }),
            Item::Reasoning { shown: Shown::Content, .. } => json!({
                "id": id, "type": "reasoning", "status": status, "summary": [], "content": parts,
            }),
            Item::Reasoning { shown: Shown::Summary, .. } => json!({
                "id": id, "type": "reasoning", "status": status, "summary": parts,
            }),
            Item::Call { call_id, name, arguments } => json!({
                "id": id, "type": "function_call", "status": status, "call_id": call_id, "name": name,
                "arguments": arguments,
            }),
        }
    }
}

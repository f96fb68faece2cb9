//! Calls of Llama 3: JSON, after a mark of its own or at the beginning of an answer.
//!
//! ```text
//! <|python_tag|>{"name": "get_weather", "parameters": {"city": "Paris"}}
//! ```

use super::form::Form;
use super::history::History;
use super::json_calls::JsonCalls;
use super::lark::{Lark, literal};
use super::tools::Tool;

const OPEN: &str = "<|python_tag|>";

pub(super) static LLAMA: Form = Form {
    name: "llama",
    open: &[OPEN],
    bare: true,
    inner: &[],
    after: &[],
    between: ";",
    history: History::PLAIN,
    reader: |tools| Box::new(JsonCalls::new(tools, Some(OPEN), None)),
    grammar,
};

fn grammar(lark: &mut Lark<'_>, tools: &[&Tool], many: bool) {
    for (index, tool) in tools.iter().enumerate() {
        let arguments = lark.arguments(index, tool);
        let head = literal(&format!("{{\"name\": \"{}\", \"parameters\": ", tool.name));
        lark.rule(&format!("call_{index}"), &format!("{head} {arguments} \"}}\""));
    }
    lark.calls(tools.len(), many, &literal("; "));
}

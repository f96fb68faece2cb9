//! Calls of Granite 3: a list of JSON objects after a mark.
//!
//! ```text
//! <|tool_call|>[{"name": "get_weather", "arguments": {"city": "Paris"}}]
//! ```

use super::form::Form;
use super::history::History;
use super::json_calls::JsonCalls;
use super::lark::{Lark, literal};
use super::tools::Tool;

const OPEN: &str = "<|tool_call|>";

pub(super) static GRANITE: Form = Form {
    name: "granite",
    open: &[OPEN],
    bare: false,
    inner: &[],
    after: &[],
    between: "",
    history: History::PLAIN,
    reader: |tools| Box::new(JsonCalls::new(tools, Some(OPEN), None)),
    grammar: |lark, tools, many| list(lark, OPEN, tools, many),
};

/// The grammar of a list of objects after a mark.
pub(super) fn list(lark: &mut Lark<'_>, open: &str, tools: &[&Tool], many: bool) {
    for (index, tool) in tools.iter().enumerate() {
        let arguments = lark.arguments(index, tool);
        let head = literal(&format!("{{\"name\": \"{}\", \"arguments\": ", tool.name));
        lark.rule(&format!("call_{index}"), &format!("{head} {arguments} \"}}\""));
    }
    lark.items(tools.len(), many, &literal(", "));
    let open = lark.mark(open);
    lark.rule("calls", &format!("{open} \"[\" items \"]\""));
}

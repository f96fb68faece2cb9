//! Calls of Hermes, Qwen 2.5, Qwen 3 and Granite 4: JSON between tags.
//!
//! ```text
//! <tool_call>
//! {"name": "get_weather", "arguments": {"city": "Paris"}}
//! </tool_call>
//! ```

use super::form::Form;
use super::history::History;
use super::json_calls::JsonCalls;
use super::lark::{Lark, literal};
use super::tools::Tool;

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";

pub(super) static HERMES: Form = Form {
    name: "hermes",
    open: &[OPEN],
    bare: false,
    inner: &[CLOSE],
    after: &[],
    between: "",
    history: History::PLAIN,
    reader: |tools| Box::new(JsonCalls::new(tools, Some(OPEN), Some(CLOSE))),
    grammar,
};

fn grammar(lark: &mut Lark<'_>, tools: &[&Tool], many: bool) {
    for (index, tool) in tools.iter().enumerate() {
        let arguments = lark.arguments(index, tool);
        let (open, close) = (lark.mark(OPEN), lark.mark(CLOSE));
        let head = literal(&format!("\n{{\"name\": \"{}\", \"arguments\": ", tool.name));
        let tail = literal("}\n");
        lark.rule(&format!("call_{index}"), &format!("{open} {head} {arguments} {tail} {close}"));
    }
    lark.calls(tools.len(), many, &literal("\n"));
}

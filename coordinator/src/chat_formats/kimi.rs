//! Calls of Kimi K2: a name with its number, and the arguments.
//!
//! ```text
//! <|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{"city": "Paris"}<|tool_call_end|><|tool_calls_section_end|>
//! ```

use super::form::Form;
use super::history::History;
use super::lark::{Lark, literal};
use super::named_calls::{NamedCalls, NamedForm};
use super::tools::Tool;

const SECTION: &str = "<|tool_calls_section_begin|>";
const SECTION_END: &str = "<|tool_calls_section_end|>";
const BEGIN: &str = "<|tool_call_begin|>";
const END: &str = "<|tool_call_end|>";
const SEPARATOR: &str = "<|tool_call_argument_begin|>";

static NAMED: NamedForm = NamedForm {
    section: Some(SECTION),
    begin: BEGIN,
    number: None,
    separator: SEPARATOR,
    bare: false,
    end: Some(END),
    kind: None,
    name: name_of,
};

pub(super) static KIMI: Form = Form {
    name: "kimi",
    open: &[SECTION, BEGIN],
    bare: false,
    inner: &[SEPARATOR, END],
    after: &[SECTION_END],
    between: "",
    history: History::PLAIN,
    reader: |tools| Box::new(NamedCalls::new(&NAMED, tools)),
    grammar,
};

/// The name in `functions.name:0`.
fn name_of(written: &str) -> &str {
    let name = written.strip_prefix("functions.").unwrap_or(written);
    name.rsplit_once(':').map_or(name, |(name, _)| name)
}

fn grammar(lark: &mut Lark<'_>, tools: &[&Tool], many: bool) {
    for (index, tool) in tools.iter().enumerate() {
        let arguments = lark.arguments(index, tool);
        let (begin, separator, end) = (lark.mark(BEGIN), lark.mark(SEPARATOR), lark.mark(END));
        let name = literal(&format!("functions.{}:", tool.name));
        let call = format!("{begin} {name} /[0-9]{{1,3}}/ {separator} {arguments} {end}");
        lark.rule(&format!("call_{index}"), &call);
    }
    lark.items(tools.len(), many, "");
    let (section, end) = (lark.mark(SECTION), lark.mark(SECTION_END));
    lark.rule("calls", &format!("{section} items {end}"));
}

//! Calls of DeepSeek: V3.1's, and those of V3 and R1 with the arguments in a fence.
//!
//! ```text
//! <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Paris"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>
//! <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather
//! ```json
//! {"city": "Paris"}
//! ```<｜tool▁call▁end｜><｜tool▁calls▁end｜>
//! ```

use super::form::Form;
use super::history::History;
use super::lark::{Lark, literal};
use super::named_calls::{NamedCalls, NamedForm};
use super::tools::Tool;

const SECTION: &str = "<｜tool▁calls▁begin｜>";
const SECTION_END: &str = "<｜tool▁calls▁end｜>";
const BEGIN: &str = "<｜tool▁call▁begin｜>";
const END: &str = "<｜tool▁call▁end｜>";
const SEPARATOR: &str = "<｜tool▁sep｜>";
/// What stands where V3.1 has the name.
const KIND: &str = "function";

static NAMED: NamedForm = NamedForm {
    section: Some(SECTION),
    begin: BEGIN,
    number: None,
    separator: SEPARATOR,
    bare: false,
    end: Some(END),
    kind: Some(KIND),
    name: |written| written,
};

/// V3.1's.
pub(super) const DEEPSEEK: Form = Form {
    name: "deepseek",
    open: &[SECTION, BEGIN],
    bare: false,
    inner: &[SEPARATOR, END],
    after: &[SECTION_END],
    between: "",
    history: History { null_content: true, ..History::PLAIN },
    reader: |tools| Box::new(NamedCalls::new(&NAMED, tools)),
    grammar: |lark, tools, many| grammar(lark, tools, many, false),
};

/// V3's and R1's.
pub(super) const DEEPSEEK_FENCED: Form = Form {
    name: "deepseek-fenced",
    grammar: |lark, tools, many| grammar(lark, tools, many, true),
    ..DEEPSEEK
};

fn grammar(lark: &mut Lark<'_>, tools: &[&Tool], many: bool, fenced: bool) {
    for (index, tool) in tools.iter().enumerate() {
        let arguments = lark.arguments(index, tool);
        let (begin, separator, end) = (lark.mark(BEGIN), lark.mark(SEPARATOR), lark.mark(END));
        let call = if fenced {
            let (kind, name) = (literal(KIND), literal(&format!("{}\n```json\n", tool.name)));
            let fence = literal("\n```");
            format!("{begin} {kind} {separator} {name} {arguments} {fence} {end}")
        } else {
            let name = literal(&tool.name);
            format!("{begin} {name} {separator} {arguments} {end}")
        };
        lark.rule(&format!("call_{index}"), &call);
    }
    let between = if fenced { literal("\n") } else { String::new() };
    lark.items(tools.len(), many, &between);
    let (section, end) = (lark.mark(SECTION), lark.mark(SECTION_END));
    lark.rule("calls", &format!("{section} items {end}"));
}

//! Calls of Mistral: a list of JSON objects, or since 2025 names with their arguments.
//!
//! ```text
//! [TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Paris"}}]
//! [TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}
//! [TOOL_CALLS]get_weather[CALL_ID]abc123def[ARGS]{"city": "Paris"}
//! ```
//!
//! Both forms are read, whichever the template has; a grammar forces the template's.

use super::form::Form;
use super::granite;
use super::history::History;
use super::json_calls::JsonCalls;
use super::lark::{Lark, literal};
use super::named_calls::{NamedCalls, NamedForm};
use super::reader::{CallReader, Input, Parts, Verdict, is_space};
use super::tools::{Tool, Tools};
use std::sync::Arc;

const OPEN: &str = "[TOOL_CALLS]";
const ARGUMENTS: &str = "[ARGS]";
const NUMBER: &str = "[CALL_ID]";

/// The list.
pub(super) const MISTRAL: Form = Form {
    name: "mistral",
    open: &[OPEN],
    bare: false,
    inner: &[ARGUMENTS, NUMBER],
    after: &[],
    between: "",
    history: History { short_ids: true, ..History::PLAIN },
    reader: |tools| Box::new(MistralCalls::Open(Arc::clone(tools))),
    grammar: |lark, tools, many| granite::list(lark, OPEN, tools, many),
};

/// Names with their arguments.
pub(super) const MISTRAL_NAMED: Form =
    Form { name: "mistral-named", grammar: named_grammar, ..MISTRAL };

static NAMED: NamedForm = NamedForm {
    section: None,
    begin: OPEN,
    number: Some(NUMBER),
    separator: ARGUMENTS,
    bare: true,
    end: None,
    kind: None,
    name: |written| written,
};

/// Either form: the first character says which.
#[derive(Debug)]
enum MistralCalls {
    Open(Arc<Tools>),
    List(JsonCalls),
    Named(NamedCalls),
}

impl CallReader for MistralCalls {
    fn take(&mut self, input: Input, parts: &mut Parts) -> Verdict {
        match self {
            MistralCalls::List(reader) => reader.take(input, parts),
            MistralCalls::Named(reader) => reader.take(input, parts),
            MistralCalls::Open(tools) => match input {
                Input::Mark(OPEN) => Verdict::Goes,
                Input::Char(c) if is_space(c) => Verdict::Goes,
                Input::Char('[' | '{') => {
                    *self = MistralCalls::List(JsonCalls::new(tools, None, None));
                    self.take(input, parts)
                }
                Input::Char(_) => {
                    let mut reader = NamedCalls::new(&NAMED, tools);
                    reader.take(Input::Mark(OPEN), parts);
                    *self = MistralCalls::Named(reader);
                    self.take(input, parts)
                }
                Input::Mark(_) => Verdict::Fails,
            },
        }
    }

    fn is_in_doubt(&self) -> bool {
        match self {
            MistralCalls::Open(_) => true,
            MistralCalls::List(reader) => reader.is_in_doubt(),
            MistralCalls::Named(reader) => reader.is_in_doubt(),
        }
    }
}

fn named_grammar(lark: &mut Lark<'_>, tools: &[&Tool], many: bool) {
    for (index, tool) in tools.iter().enumerate() {
        let arguments = lark.arguments(index, tool);
        let (open, separator) = (lark.mark(OPEN), lark.mark(ARGUMENTS));
        let name = literal(&tool.name);
        lark.rule(&format!("call_{index}"), &format!("{open} {name} {separator} {arguments}"));
    }
    lark.calls(tools.len(), many, "");
}

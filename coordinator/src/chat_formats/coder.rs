//! Calls of Qwen3-Coder, Qwen 3.5 and others: parameters between tags, strings as they are, other values as JSON.
//!
//! ```text
//! <tool_call>
//! <function=get_weather>
//! <parameter=city>
//! Paris
//! </parameter>
//! </function>
//! </tool_call>
//! ```
//!
//! These models leave the outer tag away at times; it is not needed.

use super::form::Form;
use super::history::History;
use super::lark::{Lark, literal};
use super::reader::{CallReader, Input, Parts, Verdict, is_space};
use super::tools::{Tool, Tools};
use super::values::Arguments;
use std::sync::Arc;

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";
const FUNCTION: &str = "<function=";
const FUNCTION_END: &str = "</function>";
const PARAMETER: &str = "<parameter=";
const PARAMETER_END: &str = "</parameter>";

/// Characters of a name.
const NAME_CHARS_MAX: usize = 128;

pub(super) static CODER: Form = Form {
    name: "qwen-coder",
    open: &[OPEN, FUNCTION],
    bare: false,
    inner: &[FUNCTION_END, PARAMETER, PARAMETER_END],
    after: &[CLOSE],
    between: "",
    history: History::PLAIN,
    reader: |tools| Box::new(CoderCalls::new(tools)),
    grammar,
};

/// Reads one call.
#[derive(Debug)]
struct CoderCalls {
    tools: Arc<Tools>,
    place: Place,
    /// The name, then the key.
    word: String,
    value: String,
    tool: Option<usize>,
    arguments: Arguments,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Before,
    Name,
    /// Where the next parameter may come.
    Between,
    Key,
    Value,
    /// After the function's end.
    After,
}

impl CoderCalls {
    fn new(tools: &Arc<Tools>) -> CoderCalls {
        CoderCalls {
            tools: Arc::clone(tools),
            place: Place::Before,
            word: String::new(),
            value: String::new(),
            tool: None,
            arguments: Arguments::default(),
        }
    }

    fn wrong(&mut self, parts: &mut Parts) -> Verdict {
        if self.tool.is_none() {
            return Verdict::Fails;
        }
        if self.place != Place::After {
            self.arguments.end(parts);
        }
        Verdict::EndsBefore
    }

    /// A word ends with `>`.
    fn word_ends(&mut self, parts: &mut Parts) -> Verdict {
        if self.place == Place::Key {
            self.place = Place::Value;
            return Verdict::Goes;
        }
        let name = self.word.trim();
        self.tool = self.tools.list.iter().position(|tool| tool.name == name);
        if self.tool.is_none() {
            return Verdict::Fails;
        }
        parts.call(name);
        self.place = Place::Between;
        Verdict::Goes
    }

    /// The value without the line ends that frame it.
    fn value_ends(&mut self, parts: &mut Parts) {
        let value = self.value.strip_prefix('\n').unwrap_or(&self.value);
        let value = value.strip_suffix('\n').unwrap_or(value);
        if let Some(tool) = self.tool.and_then(|tool| self.tools.list.get(tool)) {
            self.arguments.add(tool, self.word.trim(), value, parts);
        }
        self.value.clear();
        self.place = Place::Between;
    }
}

impl CallReader for CoderCalls {
    fn take(&mut self, input: Input, parts: &mut Parts) -> Verdict {
        match (self.place, input) {
            (Place::Before | Place::Between | Place::After, Input::Char(c)) if is_space(c) => {}
            (Place::Before, Input::Mark(OPEN)) => {}
            (Place::Before, Input::Mark(FUNCTION)) => self.place = Place::Name,
            (Place::Name | Place::Key, Input::Char('>')) => return self.word_ends(parts),
            (Place::Name | Place::Key, Input::Char(c)) if self.word.len() < NAME_CHARS_MAX => {
                self.word.push(c);
            }
            (Place::Between, Input::Mark(PARAMETER)) => {
                self.word.clear();
                self.place = Place::Key;
            }
            (Place::Value, Input::Mark(PARAMETER_END)) => self.value_ends(parts),
            (Place::Value, Input::Char(c)) => self.value.push(c),
            (Place::Value, Input::Mark(mark)) => self.value.push_str(mark),
            (Place::Between, Input::Mark(mark @ (FUNCTION_END | CLOSE))) => {
                self.arguments.end(parts);
                self.place = Place::After;
                if mark == CLOSE {
                    return Verdict::Ends;
                }
            }
            (Place::After, Input::Mark(CLOSE)) => return Verdict::Ends,
            _ => return self.wrong(parts),
        }
        Verdict::Goes
    }

    fn is_in_doubt(&self) -> bool {
        self.tool.is_none()
    }
}

fn grammar(lark: &mut Lark<'_>, tools: &[&Tool], many: bool) {
    for (index, tool) in tools.iter().enumerate() {
        let parameter = lark.mark(PARAMETER);
        let pair = |name: &str, rule: &str| {
            let name = literal(&format!("{name}>\n"));
            format!("{parameter} {name} {rule} \"\\n\"")
        };
        let pairs = lark.pairs(index, tool, ("\n", PARAMETER_END), &pair);
        let (open, close) = (lark.mark(OPEN), lark.mark(CLOSE));
        let (function, end) = (lark.mark(FUNCTION), lark.mark(FUNCTION_END));
        let name = literal(&format!("{}>\n", tool.name));
        let call = format!("{open} \"\\n\" {function} {name} {pairs} {end} \"\\n\" {close}");
        lark.rule(&format!("call_{index}"), &call);
    }
    lark.calls(tools.len(), many, &literal("\n"));
}

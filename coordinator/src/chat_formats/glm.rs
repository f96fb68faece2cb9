//! Calls of GLM 4.5 to 4.7: keys and values between tags, strings as they are, other values as JSON.
//!
//! ```text
//! <tool_call>get_weather
//! <arg_key>city</arg_key>
//! <arg_value>Paris</arg_value>
//! </tool_call>
//! ```

use super::form::Form;
use super::history::History;
use super::lark::{Lark, literal};
use super::reader::{CallReader, Input, Parts, Verdict, is_space};
use super::tools::{Tool, Tools};
use super::values::Arguments;
use std::sync::Arc;

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";
const KEY: &str = "<arg_key>";
const KEY_END: &str = "</arg_key>";
const VALUE: &str = "<arg_value>";
const VALUE_END: &str = "</arg_value>";

/// Characters before the first key that may be a name.
const NAME_CHARS_MAX: usize = 128;

pub(super) static GLM: Form = Form {
    name: "glm",
    open: &[OPEN],
    bare: false,
    inner: &[CLOSE, KEY, KEY_END, VALUE, VALUE_END],
    after: &[],
    between: "",
    history: History::PLAIN,
    reader: |tools| Box::new(GlmCalls::new(tools)),
    grammar,
};

/// Reads one call.
#[derive(Debug)]
struct GlmCalls {
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
    Key,
    /// Between a key and its value.
    Keyed,
    Value,
    /// Where the next key may come.
    Between,
}

impl GlmCalls {
    fn new(tools: &Arc<Tools>) -> GlmCalls {
        GlmCalls {
            tools: Arc::clone(tools),
            place: Place::Before,
            word: String::new(),
            value: String::new(),
            tool: None,
            arguments: Arguments::default(),
        }
    }

    /// The name is complete: whether it is a tool's.
    fn begins(&mut self, parts: &mut Parts) -> bool {
        let name = self.word.trim();
        self.tool = self.tools.list.iter().position(|tool| tool.name == name);
        if self.tool.is_some() {
            parts.call(name);
        }
        self.word.clear();
        self.tool.is_some()
    }

    fn wrong(&mut self, parts: &mut Parts) -> Verdict {
        if self.tool.is_none() {
            return Verdict::Fails;
        }
        self.arguments.end(parts);
        Verdict::EndsBefore
    }
}

impl CallReader for GlmCalls {
    fn take(&mut self, input: Input, parts: &mut Parts) -> Verdict {
        match (self.place, input) {
            (Place::Before, Input::Mark(OPEN)) => self.place = Place::Name,
            (Place::Name, Input::Char(c)) if self.word.len() < NAME_CHARS_MAX => self.word.push(c),
            (Place::Name, Input::Mark(mark @ (KEY | CLOSE))) => {
                if !self.begins(parts) {
                    return Verdict::Fails;
                }
                self.place = Place::Key;
                if mark == CLOSE {
                    self.arguments.end(parts);
                    return Verdict::Ends;
                }
            }
            (Place::Key, Input::Char(c)) => self.word.push(c),
            (Place::Key, Input::Mark(KEY_END)) => self.place = Place::Keyed,
            (Place::Keyed | Place::Between, Input::Char(c)) if is_space(c) => {}
            (Place::Keyed, Input::Mark(VALUE)) => self.place = Place::Value,
            (Place::Value, Input::Mark(VALUE_END)) => {
                if let Some(tool) = self.tool.and_then(|tool| self.tools.list.get(tool)) {
                    self.arguments.add(tool, self.word.trim(), &self.value, parts);
                }
                self.word.clear();
                self.value.clear();
                self.place = Place::Between;
            }
            (Place::Value, Input::Char(c)) => self.value.push(c),
            (Place::Value, Input::Mark(mark)) => self.value.push_str(mark),
            (Place::Between, Input::Mark(KEY)) => self.place = Place::Key,
            (Place::Between, Input::Mark(CLOSE)) => {
                self.arguments.end(parts);
                return Verdict::Ends;
            }
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
        let (key, key_end) = (lark.mark(KEY), lark.mark(KEY_END));
        let value = lark.mark(VALUE);
        let pair = |name: &str, rule: &str| {
            let name = literal(name);
            format!("{key} {name} {key_end} \"\\n\" {value} {rule} \"\\n\"")
        };
        let pairs = lark.pairs(index, tool, ("", VALUE_END), &pair);
        let (open, close) = (lark.mark(OPEN), lark.mark(CLOSE));
        let name = literal(&format!("{}\n", tool.name));
        lark.rule(&format!("call_{index}"), &format!("{open} {name} {pairs} {close}"));
    }
    lark.calls(tools.len(), many, &literal("\n"));
}

//! Reads calls that are JSON objects: `{"name": …, "arguments": {…}}`, one or a list of them.
//!
//! `parameters` is another word for `arguments`; `id` and `type` may stand beside them, nothing else. No
//! arguments, or `null`, are `{}`; arguments that are a string with an object in it are that object.
//! A call begins where its name is known and its arguments begin, so that an object of another kind is
//! given back as the text that it is. From there on what the model writes are the arguments, right or
//! wrong.

use super::json::{JsonScan, Scan};
use super::reader::{CallReader, Input, Parts, Verdict, is_space};
use super::tools::Tools;
use serde_json::Value;
use std::sync::Arc;

/// Characters of a key: the longest that is known has ten.
const KEY_CHARS_MAX: usize = 16;

/// Reads one object, or a list of them.
#[derive(Debug)]
pub(super) struct JsonCalls {
    tools: Arc<Tools>,
    /// The mark before the object; it may come once.
    open: Option<&'static str>,
    /// The mark after it; without one the block ends with the object or the list.
    close: Option<&'static str>,
    in_list: bool,
    place: Place,
    /// The key that is read, or whose value is.
    key: String,
    /// The value that is read, unless it is told as it comes.
    value: String,
    scan: JsonScan,
    name: Option<String>,
    /// Arguments that came before the name.
    early: Option<String>,
    /// The present object is a call, and was told.
    begun: bool,
    /// The value under way is told as it comes.
    is_told: bool,
    /// Some object was.
    any: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Before an object, or the list.
    Before,
    /// In an object, where a key, a comma or its end may come.
    Object,
    Key,
    Colon,
    Value,
    /// In the list, after an object.
    Item,
    /// After everything but the mark.
    After,
}

impl JsonCalls {
    /// Before the mark `open`, if there is one.
    pub fn new(
        tools: &Arc<Tools>,
        open: Option<&'static str>,
        close: Option<&'static str>,
    ) -> JsonCalls {
        JsonCalls {
            tools: Arc::clone(tools),
            open,
            close,
            in_list: false,
            place: Place::Before,
            key: String::new(),
            value: String::new(),
            scan: JsonScan::default(),
            name: None,
            early: None,
            begun: false,
            is_told: false,
            any: false,
        }
    }

    /// What is no call: text, unless one was told already.
    fn wrong(&self) -> Verdict {
        if self.is_in_doubt() { Verdict::Fails } else { Verdict::EndsBefore }
    }

    fn char(&mut self, c: char, parts: &mut Parts) -> Verdict {
        match (self.place, c) {
            (Place::Value, c) => return self.value_char(c, parts),
            (Place::Key, '"') => self.place = Place::Colon,
            (Place::Key, '\\') => return self.wrong(),
            (Place::Key, c) if self.key.len() < KEY_CHARS_MAX => self.key.push(c),
            (Place::Key, _) => return self.wrong(),
            (_, c) if is_space(c) => {}
            (Place::Before, '[') if !self.in_list => self.in_list = true,
            (Place::Before, ']') if self.any => return self.list_ends(),
            (Place::Before, '{') => self.place = Place::Object,
            (Place::Object, '"') => {
                self.key.clear();
                self.place = Place::Key;
            }
            (Place::Object, ',') => {}
            (Place::Object, '}') => return self.object_ends(parts),
            (Place::Colon, ':') => {
                if !self.knows_key() {
                    return self.wrong();
                }
                self.value.clear();
                self.scan = JsonScan::default();
                self.place = Place::Value;
            }
            (Place::Item, ',') => self.place = Place::Before,
            (Place::Item, ']') => return self.list_ends(),
            _ => return self.wrong(),
        }
        Verdict::Goes
    }

    fn knows_key(&self) -> bool {
        self.begun
            || matches!(self.key.as_str(), "name" | "arguments" | "parameters" | "id" | "type")
    }

    fn is_arguments(&self) -> bool {
        matches!(self.key.as_str(), "arguments" | "parameters")
    }

    fn value_char(&mut self, c: char, parts: &mut Parts) -> Verdict {
        if let Some(name) = self.name.as_ref().filter(|_| self.arguments_begin_with(c)) {
            parts.call(name);
            (self.begun, self.any, self.is_told) = (true, true, true);
        }
        let scan = self.scan.push(c);
        match scan {
            Scan::EndsBefore => {}
            _ if self.is_told => parts.arguments(c.encode_utf8(&mut [0; 4])),
            _ => self.value.push(c),
        }
        if scan == Scan::Goes {
            return Verdict::Goes;
        }
        self.place = Place::Object;
        if !std::mem::take(&mut self.is_told) && !self.value_ends(parts) {
            return self.wrong();
        }
        if scan == Scan::EndsBefore { self.char(c, parts) } else { Verdict::Goes }
    }

    /// Whether arguments begin here that can be told as they come.
    fn arguments_begin_with(&self, c: char) -> bool {
        c == '{' && !self.begun && self.is_arguments() && self.value.trim().is_empty()
    }

    /// A value that was not told is complete: whether a call can have it.
    fn value_ends(&mut self, parts: &mut Parts) -> bool {
        if self.begun {
            return true;
        }
        let value: Option<Value> = serde_json::from_str(&self.value).ok();
        if self.key == "name" {
            let Some(Value::String(name)) = value else { return false };
            if self.name.is_some() || self.tools.find(&name).is_none() {
                return false;
            }
            self.name = Some(name);
        } else if self.is_arguments() {
            let Some(arguments) = value.and_then(|value| object_text(value, &self.value)) else {
                return false;
            };
            if self.early.is_some() {
                return false;
            }
            self.early = Some(arguments);
        } else {
            return true;
        }
        if let (Some(name), Some(arguments)) = (&self.name, &self.early) {
            parts.call(name);
            parts.arguments(arguments);
            (self.begun, self.any, self.early) = (true, true, None);
        }
        true
    }

    fn object_ends(&mut self, parts: &mut Parts) -> Verdict {
        if !self.begun {
            let Some(name) = &self.name else { return self.wrong() };
            parts.call(name);
            parts.arguments("{}");
            self.any = true;
        }
        parts.complete();
        (self.name, self.early, self.begun) = (None, None, false);
        self.place = if self.in_list { Place::Item } else { Place::After };
        if self.in_list || self.close.is_some() { Verdict::Goes } else { Verdict::Ends }
    }

    fn list_ends(&mut self) -> Verdict {
        self.place = Place::After;
        if self.close.is_some() { Verdict::Goes } else { Verdict::Ends }
    }
}

/// The text of an object: the value as it was written, or what the string holds.
fn object_text(value: Value, written: &str) -> Option<String> {
    match value {
        Value::Object(_) => Some(written.trim().to_owned()),
        Value::Null => Some("{}".to_owned()),
        Value::String(text) => {
            let holds_object = matches!(serde_json::from_str(&text), Ok(Value::Object(_)));
            holds_object.then_some(text)
        }
        _ => None,
    }
}

impl CallReader for JsonCalls {
    fn take(&mut self, input: Input, parts: &mut Parts) -> Verdict {
        match input {
            Input::Char(c) => self.char(c, parts),
            Input::Mark(mark) if self.place == Place::Value && self.scan.in_string() => {
                // A string may hold any letters, those of a mark as well.
                for c in mark.chars() {
                    self.value_char(c, parts);
                }
                Verdict::Goes
            }
            Input::Mark(mark) if self.open == Some(mark) => {
                self.open = None;
                Verdict::Goes
            }
            Input::Mark(mark) if self.close == Some(mark) && !self.is_in_doubt() => {
                if self.begun {
                    parts.complete();
                }
                Verdict::Ends
            }
            Input::Mark(_) => self.wrong(),
        }
    }

    fn is_in_doubt(&self) -> bool {
        match self.place {
            Place::After | Place::Item => false,
            _ => !self.begun,
        }
    }
}

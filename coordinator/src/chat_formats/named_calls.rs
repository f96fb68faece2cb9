//! Reads calls that are a name, a mark, and the arguments as JSON, as Mistral, DeepSeek and Kimi write them.
//!
//! A call begins where its name is a tool's and its arguments begin; before that it may still be text.

use super::json::{JsonScan, Scan};
use super::reader::{CallReader, Input, Parts, Verdict, is_space};
use super::tools::Tools;
use std::sync::Arc;

/// Characters before the arguments that may be a name, with what a family writes around it.
const NAME_CHARS_MAX: usize = 128;

/// How a family writes such calls.
#[derive(Debug)]
pub(super) struct NamedForm {
    /// Opens the calls of an answer, before the first one.
    pub section: Option<&'static str>,
    /// Opens a call.
    pub begin: &'static str,
    /// Stands between the name and a number of the call, which nobody needs.
    pub number: Option<&'static str>,
    /// Stands before the arguments.
    pub separator: &'static str,
    /// The arguments may also follow the name at once.
    pub bare: bool,
    /// Closes a call; without one it ends with its arguments.
    pub end: Option<&'static str>,
    /// A word that may stand where the name does, if the name is then in a line of its own.
    pub kind: Option<&'static str>,
    /// The name in what stands before the mark.
    pub name: fn(&str) -> &str,
}

/// Reads one call.
#[derive(Debug)]
pub(super) struct NamedCalls {
    form: &'static NamedForm,
    tools: Arc<Tools>,
    place: Place,
    name: String,
    scan: JsonScan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Before the mark that opens the call.
    Before,
    Name,
    Number,
    /// After the mark that ends the name, or the kind.
    Separated,
    /// The line that has the name, after a kind.
    Line,
    /// Before the arguments.
    Fence,
    Arguments,
    After,
}

impl NamedCalls {
    /// Before the first mark.
    pub fn new(form: &'static NamedForm, tools: &Arc<Tools>) -> NamedCalls {
        NamedCalls {
            form,
            tools: Arc::clone(tools),
            place: Place::Before,
            name: String::new(),
            scan: JsonScan::default(),
        }
    }

    fn char(&mut self, c: char, parts: &mut Parts) -> Verdict {
        match (self.place, c) {
            (Place::Arguments, c) => return self.argument(c, parts),
            (Place::Name, '{') if self.form.bare => return self.begin(parts),
            (Place::Line, '\n') if !self.name.is_empty() => self.place = Place::Fence,
            (Place::Name | Place::Line, c) if self.name.len() < NAME_CHARS_MAX => {
                self.name.push(c);
            }
            (Place::Number, c) if c.is_ascii_alphanumeric() => {}
            (Place::Separated | Place::Fence, '{') => return self.begin(parts),
            (Place::Fence, '`' | 'j' | 's' | 'o' | 'n') | (Place::After, '`') => {}
            (Place::Before | Place::Separated | Place::Fence | Place::After, c) if is_space(c) => {}
            (Place::Separated, c) if self.form.kind == Some(self.name.trim()) => {
                self.name = c.to_string();
                self.place = Place::Line;
            }
            (Place::After, _) => return Verdict::EndsBefore,
            _ => return Verdict::Fails,
        }
        Verdict::Goes
    }

    /// The first character of the arguments.
    fn begin(&mut self, parts: &mut Parts) -> Verdict {
        let name = (self.form.name)(self.name.trim());
        if self.tools.find(name).is_none() {
            return Verdict::Fails;
        }
        parts.call(name);
        self.place = Place::Arguments;
        self.argument('{', parts)
    }

    fn argument(&mut self, c: char, parts: &mut Parts) -> Verdict {
        parts.arguments(c.encode_utf8(&mut [0; 4]));
        if self.scan.push(c) != Scan::Ends {
            return Verdict::Goes;
        }
        parts.complete();
        self.place = Place::After;
        if self.form.end.is_some() { Verdict::Goes } else { Verdict::Ends }
    }
}

impl CallReader for NamedCalls {
    fn take(&mut self, input: Input, parts: &mut Parts) -> Verdict {
        let mark = match input {
            Input::Char(c) => return self.char(c, parts),
            Input::Mark(mark) => mark,
        };
        match self.place {
            Place::Arguments if self.scan.in_string() => {
                // A string may hold any letters, those of a mark as well.
                for c in mark.chars() {
                    self.argument(c, parts);
                }
            }
            Place::Before if self.form.section == Some(mark) => {}
            Place::Before if mark == self.form.begin => self.place = Place::Name,
            Place::Name if self.form.number == Some(mark) => self.place = Place::Number,
            Place::Name | Place::Number if mark == self.form.separator => {
                self.place = Place::Separated;
            }
            Place::Arguments | Place::After => {
                if self.place == Place::Arguments {
                    parts.complete();
                }
                let ends = self.form.end == Some(mark);
                return if ends { Verdict::Ends } else { Verdict::EndsBefore };
            }
            _ => return Verdict::Fails,
        }
        Verdict::Goes
    }

    fn is_in_doubt(&self) -> bool {
        !matches!(self.place, Place::Arguments | Place::After)
    }
}

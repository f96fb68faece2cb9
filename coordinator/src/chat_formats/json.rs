//! Where a JSON value ends, character by character.
//!
//! It counts brackets and knows strings, and does not judge: what a model wrote wrong goes on to the end
//! that its brackets say.

use super::reader::is_space;

/// What a character is for a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scan {
    /// It belongs to the value, or stands before it.
    Goes,
    /// It ends the value, and belongs to it.
    Ends,
    /// The value ended before it.
    EndsBefore,
}

/// A value that is being read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct JsonScan {
    depth: u32,
    in_string: bool,
    escaped: bool,
    /// A number or a word without quotes has begun.
    bare: bool,
}

impl JsonScan {
    /// Whether the next character is one of a string.
    pub fn in_string(&self) -> bool {
        self.in_string
    }

    /// Takes the next character.
    pub fn push(&mut self, c: char) -> Scan {
        if self.in_string {
            match c {
                _ if self.escaped => self.escaped = false,
                '\\' => self.escaped = true,
                '"' => self.in_string = false,
                _ => {}
            }
            let ends = !self.in_string && self.depth == 0;
            return if ends { Scan::Ends } else { Scan::Goes };
        }
        match c {
            '"' => self.in_string = true,
            '{' | '[' => self.depth += 1,
            '}' | ']' | ',' if self.depth == 0 => return Scan::EndsBefore,
            '}' | ']' => {
                self.depth -= 1;
                if self.depth == 0 {
                    return Scan::Ends;
                }
            }
            c if self.depth == 0 && is_space(c) && self.bare => return Scan::EndsBefore,
            c => self.bare |= !is_space(c),
        }
        Scan::Goes
    }
}

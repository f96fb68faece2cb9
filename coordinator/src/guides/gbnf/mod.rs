//! llama.cpp's notation of grammars (GBNF) in llguidance's words (a kind of Lark).
//!
//! ```text
//! root ::= "[" ws (item ("," ws item)*)? "]"      rules; `root` is the whole answer
//! item ::= "x" | [a-z0-9] | [^\n] | . | <[42]>    texts, characters, any character, a token by its number
//! ws   ::= [ \t\n]{0,8}                           * + ? {m} {m,} {m,n}; # begins a comment
//! ```
//!
//! Rules that reach no rule that refers to itself become terminals, which is what the library calls regular
//! expressions: exact, and fast. The others become rules of its context-free grammar, where a terminal takes
//! the longest text that it can: of an ambiguous grammar the answers may be fewer than with llama.cpp, and are
//! never others. Source: llama.cpp's `grammars/README.md`.

mod parse;
#[cfg(test)]
mod tests;
mod write;

use std::fmt;

/// Rules of a grammar.
pub const RULES_MAX: usize = 4096;
/// Depth of parentheses.
pub const DEPTH_MAX: usize = 64;
/// The largest number in `{m,n}`.
pub const REPEATS_MAX: u32 = 10_000;

/// What is wrong with a grammar, and in which line; a sentence without its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GbnfError {
    line: usize,
    text: String,
}

impl fmt::Display for GbnfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}", self.text),
            line => write!(f, "line {line} of the grammar: {}", self.text),
        }
    }
}

/// A part of a rule.
#[derive(Clone, Debug, PartialEq)]
enum Part {
    /// This text.
    Text(String),
    /// One character of these ranges, or of no one of them.
    Class { negated: bool, ranges: Vec<(char, char)> },
    /// Any character.
    Any,
    /// What another rule says, by its place among the names.
    Rule(usize),
    /// A token: what stands between the angle brackets.
    Token(String),
    /// One of these.
    Either(Vec<Part>),
    /// One after the other.
    Sequence(Vec<Part>),
    /// So often at least and at most; `None` is without end.
    Repeat(Box<Part>, u32, Option<u32>),
}

/// The grammar in Lark's notation.
///
/// # Errors
///
/// The line and what was expected there; a rule that is used and not written; no rule `root`.
pub fn to_lark(text: &str) -> Result<String, GbnfError> {
    let rules = parse::rules(text)?;
    Ok(write::lark(&rules))
}

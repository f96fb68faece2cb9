//! How a model marks what it thinks before it answers.

use super::marks::Marks;

/// The marks around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Thinking {
    pub open: &'static str,
    pub close: &'static str,
    /// The answer after it stands between these, which say nothing.
    pub response: Option<(&'static str, &'static str)>,
}

/// Most models' marks.
const THINK: Thinking = Thinking { open: "<think>", close: "</think>", response: None };
/// Mistral's.
const MISTRAL: Thinking = Thinking { open: "[THINK]", close: "[/THINK]", response: None };
/// Granite 3's.
const GRANITE: Thinking = Thinking { response: Some(("<response>", "</response>")), ..THINK };

impl Thinking {
    /// The marks that a template with this source speaks of.
    pub fn of(source: &str) -> Option<Thinking> {
        if source.contains(MISTRAL.open) {
            return Some(MISTRAL);
        }
        if !source.contains(THINK.open) && !source.contains(THINK.close) {
            return None;
        }
        Some(if source.contains("<response></response>") { GRANITE } else { THINK })
    }

    /// All of its marks.
    pub fn marks(&self) -> impl Iterator<Item = &'static str> {
        let response = self.response.into_iter().flat_map(|(open, close)| [open, close]);
        [self.open, self.close].into_iter().chain(response)
    }

    /// Where it ends, for an answer that begins inside it or not.
    pub fn end(&self, marks: &Marks, open_at_start: bool) -> ThinkingEnd {
        ThinkingEnd {
            begin: (marks.token(self.open), self.open.to_owned()),
            end: (marks.token(self.close), self.close.to_owned()),
            open_at_start,
        }
    }
}

/// Whether models of a template with this source show what they think.
pub fn shows_thinking(source: &str) -> bool {
    let is_harmony = source.contains("<|channel|>") && source.contains("<|start|>");
    is_harmony || Thinking::of(source).is_some()
}

/// Where the thinking of an answer begins and ends, so that what an answer has to be can begin after it.
///
/// Unless it is open at the start, the model may think, and then begins with `begin` (after white space, if
/// at all), or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThinkingEnd {
    /// What it begins with: the token, if it is one, and its letters.
    pub begin: (Option<u32>, String),
    /// What it ends with. A mark that is a token is never other tokens.
    pub end: (Option<u32>, String),
    /// The prompt has begun it.
    pub open_at_start: bool,
}

/// Where what a model thinks goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reasoning {
    /// Beside the text.
    #[default]
    Split,
    /// Into the text, with its marks, as the model wrote it.
    InText,
    /// Nowhere; it is counted.
    Hidden,
}

//! Which fields each endpoint has, and what becomes of them: the table behind `docs/api.md` and
//! `/openapi.json`.
//!
//! Requests are taken apart field by field ([`Fields`](crate::http::input::fields::Fields)), not by types, so
//! a document cannot be derived from types; it is made of this table, and tests hold the table against the
//! gateway: every row is sent, what it accepts is answered, what it refuses is a 400 that names it.
//!
//! | file | holds |
//! | --- | --- |
//! | `openai.rs` | chat and completions, with the fields of llama-server and vLLM |
//! | `others.rs` | responses, Anthropic's messages, Ollama's chat, generate and options |
//! | `document.rs` | the table as an OpenAPI document |

pub mod document;
mod openai;
mod others;

/// What becomes of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is obeyed.
    Honoured,
    /// It is accepted, and changes no answer.
    Harmless,
    /// It is refused, but for values that ask for what happens anyway.
    Refused,
}

/// A field of a request.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// What becomes of it.
    pub verdict: Verdict,
    /// A value that is accepted, as JSON; empty if there is none.
    pub accepts: &'static str,
    /// A value that is a 400, as JSON; empty if there is none worth showing.
    pub refuses: &'static str,
    /// What to know about it.
    pub note: &'static str,
}

/// An endpoint that generates.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint {
    /// Its path; `POST` is the method.
    pub path: &'static str,
    /// Where in its body the rows stand: empty, or the name of an object.
    pub inside: &'static str,
    /// What it does, for a heading.
    pub title: &'static str,
    /// The smallest body that is answered, as JSON.
    pub minimal: &'static str,
    /// Its fields.
    pub rows: &'static [&'static [Row]],
}

impl Endpoint {
    /// All rows, in order.
    pub fn rows(&self) -> impl Iterator<Item = &'static Row> {
        self.rows.iter().copied().flatten()
    }
}

/// All endpoints that generate.
pub const ENDPOINTS: &[Endpoint] = &[
    openai::CHAT,
    openai::COMPLETIONS,
    others::RESPONSES,
    others::MESSAGES,
    others::COUNT_TOKENS,
    others::OLLAMA_CHAT,
    others::OLLAMA_GENERATE,
    others::OLLAMA_OPTIONS,
];

/// A field that is obeyed.
const fn honoured(
    name: &'static str,
    accepts: &'static str,
    refuses: &'static str,
    note: &'static str,
) -> Row {
    Row { name, verdict: Verdict::Honoured, accepts, refuses, note }
}

/// A field that changes no answer.
const fn harmless(name: &'static str, accepts: &'static str, note: &'static str) -> Row {
    Row { name, verdict: Verdict::Harmless, accepts, refuses: "", note }
}

/// A field that is refused, but for `accepts`.
const fn refused(
    name: &'static str,
    accepts: &'static str,
    refuses: &'static str,
    note: &'static str,
) -> Row {
    Row { name, verdict: Verdict::Refused, accepts, refuses, note }
}

//! What a request wants its answer to be, in no API's words.

use serde_json::Value;

/// What an answer has to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Grammar {
    /// Any JSON object.
    JsonObject,
    /// JSON that a JSON Schema (draft 2020-12) accepts.
    JsonSchema(Value),
    /// A text that this regular expression matches whole.
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
    /// A text of this grammar in llama.cpp's notation.
    Gbnf(String),
    /// A text of this grammar in llguidance's notation, such as the calls of a family of models: `%json {…}`
    /// is JSON of a schema, `<[id]>` the token with this number.
    Lark(String),
}

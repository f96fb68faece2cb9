//! How families of models write what they think and which tools they call, and how it is read.
//!
//! A [`Format`] is found once for a model, from the source of its template and its vocabulary. It makes a
//! [`Parser`] for each answer, which turns tokens into [`Part`]s as they come, and the grammar that forces
//! calls. It knows nothing of HTTP, of an API's words, or of who computes the tokens.
//!
//! | file | holds |
//! | --- | --- |
//! | `format.rs` | which format a model has |
//! | `hermes.rs`, `llama.rs`, `granite.rs`, `mistral.rs`, `glm.rs`, `coder.rs`, `deepseek.rs`, `kimi.rs` | the families: how their calls look, and the grammar that forces them |
//! | `harmony.rs` | gpt-oss, whose answers are messages themselves |
//! | `thinking.rs` | how thinking is marked |
//! | `parser.rs`, `tagged.rs` | tokens → parts |
//! | `marks.rs` | tokens → text and marks |
//! | `reader.rs`, `json_calls.rs`, `named_calls.rs` | what reads a block of calls |
//! | `json.rs`, `values.rs` | where a JSON value ends; values that are not written as JSON |
//! | `form.rs`, `lark.rs` | what a family says of itself; its grammar |
//! | `tools.rs` | the tools of a request |
//! | `describe.rs`, `history.rs` | tools in the messages of a model whose template knows none; what a family wants of a history |

mod coder;
mod deepseek;
pub mod describe;
mod form;
pub mod format;
mod glm;
mod granite;
mod harmony;
mod hermes;
mod history;
mod json;
mod json_calls;
mod kimi;
mod lark;
mod llama;
mod marks;
mod mistral;
mod named_calls;
pub mod parser;
pub mod reader;
mod tagged;
#[cfg(test)]
mod tests;
pub mod thinking;
pub mod tools;
mod values;

pub use format::{Format, Reading};
pub use parser::{Parser, Read};
pub use reader::{Part, Place};
pub use thinking::{Reasoning, ThinkingEnd, shows_thinking};
pub use tools::{Tool, ToolChoice, Tools};

//! Which tokens may come next: grammars, beside the pipeline and never in it (design D19).
//!
//! A grammar is compiled before its request is queued, on a thread of the gateway. The generation's guide then
//! belongs to the driver, which sends it to the pool with each token that is chosen; the scheduler hears what
//! may come next and sends no row of the sequence that is to be sampled before. Nothing here knows a
//! sequence's blocks or plans: what a guide says follows from the completion's tokens alone, so preemption and
//! failover change nothing of it.
//!
//! | file | holds |
//! | --- | --- |
//! | `grammar.rs` | what a request wants its answer to be |
//! | `gbnf/` | llama.cpp's notation of grammars |
//! | `vocabulary.rs`, `mask.rs` | tokens as grammars see them; a set of tokens as the wire has it |
//! | `compile.rs` | grammars for one vocabulary, and the limits |
//! | `guide.rs`, `next.rs` | one generation's place in its grammar; what may come next |
//! | `guided.rs` | the beginning of such a generation, as its request carries it |
//! | `pool.rs` | the threads that compute it |
//! | `subschemas.rs`, `formats.rs`, `closed.rs`, `digits.rs` | the schemas in a schema; dates that everyone takes; objects and numbers that come to an end |
//! | `limits.rs` | a least length, lists of tokens, words that must not come |
//! | `dry.rs` | tokens that would make a repetition longer |
//! | `library.rs` | which library compiles them |

mod closed;
pub mod compile;
mod digits;
pub mod dry;
mod error;
mod formats;
pub mod gbnf;
pub mod grammar;
pub mod guide;
mod guided;
mod library;
pub mod limits;
mod mask;
pub mod next;
pub mod pool;
mod subschemas;
#[cfg(test)]
mod tests;
mod vocabulary;

pub use compile::Guides;
pub use dry::{Breakers, Dry};
pub use error::GrammarError;
pub use grammar::Grammar;
pub use guide::{Guide, Thinking};
pub use guided::Guided;
pub use library::LIBRARY;
pub use limits::Limits;
pub use next::Next;
pub use pool::{Answered, Pool};

//! Which tokens may come next: grammars, beside the pipeline and never in it (design D19).
//!
//! | file | holds |
//! | --- | --- |
//! | `grammar.rs` | what a request wants its answer to be |

pub mod grammar;

pub use grammar::Grammar;

//! `plan`: what `serve` would do with machines that one has or imagines, and how fast that would be.
//!
//! ```text
//! machines_file.rs   TOML → Machines, or every mistake with its place
//! machines.rs        machines, and the links between them
//! answer.rs          Machines → Report: plans by the cluster core, times by the engine's model
//!   └─► spares.rs    why a machine has no stage
//! report.rs          the Report, which is the JSON object
//! text.rs            Report → lines for people
//! ```
//!
//! It starts nothing and asks nobody. What the prediction counts and what it leaves out stands in `docs/planning.md`.

mod answer;
pub mod machines;
mod machines_file;
pub mod report;
mod spares;
mod text;

pub use answer::answer;
pub use machines_file::{read, read_text};
pub use text::lines;

#[cfg(test)]
mod tests;

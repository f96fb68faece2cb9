//! Layouts of small models, cuts over invented workers, fingerprints of small files.

mod caches;
mod cut;
mod disk;
mod fingerprint;
mod layout;
mod mixture;
mod objective;
mod predict;

use super::ModelLayout;
use crate::gguf::tests::{read, small_model};

/// The layout of a small llama with so many layers.
fn layout(layers: u32) -> ModelLayout {
    ModelLayout::new(&read(small_model("llama", layers).to_bytes(32)).unwrap()).unwrap()
}

//! A model's layers as one description filled from metadata: no architecture has code of its own.

pub mod attention;
pub(crate) mod embedding;
pub mod error;
pub mod experts;
pub mod ffn;
mod gated;
pub(crate) mod head;
pub mod layer;
mod projection;
pub mod rope;
pub mod run;
pub mod tensor;

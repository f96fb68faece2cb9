//! A model's layers as one description filled from metadata: no architecture has code of its own.

pub mod ends;
pub mod error;
pub mod layer;
pub mod rope;
pub mod tensor;

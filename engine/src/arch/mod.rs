//! What a model's architecture says: its hyper-parameters, its layers and its tensors. Knows no
//! worker, no plan and no arithmetic.

pub mod error;
pub mod families;
pub mod hyper;
pub(crate) mod tensors;

#[cfg(test)]
mod tests;

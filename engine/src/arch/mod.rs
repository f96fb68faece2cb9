//! What a model's architecture says: its hyper-parameters, its layers and its tensors. Knows no
//! worker, no plan and no arithmetic.
//!
//! ```text
//! families.rs   the table: one row per architecture
//!   ├─► hyper.rs    the metadata keys that are read, and what is refused
//!   │     ├─► mixture.rs  those of experts
//!   │     └─► rope_scaling.rs  those of positions beyond the trained context
//!   ├─► layer.rs    the shape of each layer; what it remembers; what is not computed
//!   │     └─► cost.rs   multiplications and bytes read
//!   └─► tensors.rs  the tensors that each layer must and may have, with their shapes
//! ```

mod cost;
pub mod error;
pub mod families;
pub mod hyper;
mod keys;
mod kind;
pub mod layer;
mod mixture;
mod rope_scaling;
pub(crate) mod tensors;

pub use cost::Cost;
pub use kind::LayerKind;

use crate::gguf::Gguf;
use error::ArchError;
use families::{FAMILIES, Family};
use hyper::HyperParameters;
use layer::{CacheGroup, LayerShape, cache_groups};

/// A model's architecture: its row of the table, its numbers, and the shape of each layer.
#[derive(Clone, Debug)]
pub struct Arch {
    /// The row.
    pub family: Family,
    /// What the metadata say.
    pub hyper: HyperParameters,
    /// Every layer's shape, in order; one or more.
    pub layers: Vec<LayerShape>,
}

impl Arch {
    /// Reads and checks the architecture of `gguf`, all of which can be computed.
    ///
    /// # Errors
    /// An architecture, a key or a feature that is refused; a layer that is declared and not
    /// computed.
    pub fn new(gguf: &Gguf) -> Result<Self, ArchError> {
        let arch = Self::declared(gguf, &FAMILIES)?;
        arch.check_computed()?;
        Ok(arch)
    }

    /// The same for any table, whether it can be computed or not.
    ///
    /// # Errors
    /// An architecture that is not in the table, or metadata that contradict it.
    pub(crate) fn declared(gguf: &Gguf, families: &[Family]) -> Result<Self, ArchError> {
        let (family, hyper) = HyperParameters::new(gguf, families)?;
        let layers = (0..hyper.layers).map(|index| LayerShape::new(&family, &hyper, index));
        Ok(Self { layers: layers.collect(), family, hyper })
    }

    /// Refuses what this version does not compute.
    ///
    /// # Errors
    /// The first layer with such a feature.
    pub(crate) fn check_computed(&self) -> Result<(), ArchError> {
        let said = |(layer, shape): (u32, &LayerShape)| Some((layer, shape.not_computed()?));
        match (0..).zip(&self.layers).find_map(said) {
            Some((layer, what)) => Err(ArchError::NotComputed { layer, what }),
            None => Ok(()),
        }
    }

    /// Layers that remember alike, in the order of their first layers.
    pub fn cache_groups(&self) -> Vec<CacheGroup> {
        cache_groups(&self.layers)
    }
}

#[cfg(test)]
mod tests;

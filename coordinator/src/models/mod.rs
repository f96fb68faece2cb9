//! The models that are loaded, and those that could be: their files, their texts and their slices. Who computes them is not known
//! here.

pub mod last_plan;
pub mod model;
pub mod registry;
pub mod shelf;
pub mod slices;
pub mod template;
pub mod watch;

pub use model::{Model, NUMERICS};
pub use registry::{ModelFacts, Registry, ServedModel};
pub use template::Template;

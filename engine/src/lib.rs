//! GGUF, tokenizer, kernels and one stage of a model on the CPU.

pub mod arch;
pub mod batch;
pub mod chat_template;
pub mod gguf;
#[allow(
    unsafe_code,
    reason = "functions compiled for an instruction set are called after detection"
)]
pub mod kernels;
pub mod kv;
pub mod limits;
pub mod math;
pub mod memory;
pub mod model;
pub mod plan;
#[allow(unsafe_code, reason = "threads write disjoint parts of one output")]
pub mod pool;
pub mod probe;
pub mod quant;
pub mod sampler;
pub mod stage;
pub mod tokenizer;
pub mod weights;

#[cfg(test)]
mod invariance;

/// Version of the order of operations (see [`kernels`]). Workers with different ones share no plan.
pub const NUMERICS: u32 = 2;

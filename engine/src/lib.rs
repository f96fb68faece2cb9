//! GGUF, tokenizer, kernels and one stage of a model on the CPU.

pub mod gguf;
pub mod quant;

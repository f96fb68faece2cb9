//! What a model file calls itself, and how it says that its weights are quantised.

use std::collections::BTreeMap;

use super::error::PlanError;
use crate::gguf::Gguf;

/// The model's name by its metadata, else its first file's.
///
/// # Errors
/// A name that is no text.
pub(super) fn model_name(gguf: &Gguf) -> Result<String, PlanError> {
    let own = gguf.metadata().opt_str("general.name")?.map(str::trim).filter(|n| !n.is_empty());
    let file = &gguf.parts()[0].file_name;
    let name = own.unwrap_or_else(|| file.strip_suffix(".gguf").unwrap_or(file));
    Ok(crate::gguf::Shown(name.as_bytes()).to_string())
}

/// The word for `general.file_type`, else the tensor type that holds most bytes.
///
/// # Errors
/// A `general.file_type` that is no number.
pub(super) fn file_type(gguf: &Gguf) -> Result<String, PlanError> {
    let word = match gguf.metadata().opt_u32("general.file_type")? {
        Some(0) => "F32",
        Some(1) => "F16",
        Some(2) => "Q4_0",
        Some(3) => "Q4_1",
        Some(7) => "Q8_0",
        Some(8) => "Q5_0",
        Some(9) => "Q5_1",
        Some(10) => "Q2_K",
        Some(11) => "Q3_K_S",
        Some(12) => "Q3_K_M",
        Some(13) => "Q3_K_L",
        Some(14) => "Q4_K_S",
        Some(15) => "Q4_K_M",
        Some(16) => "Q5_K_S",
        Some(17) => "Q5_K_M",
        Some(18) => "Q6_K",
        Some(21) => "Q2_K_S",
        Some(25) => "IQ4_NL",
        Some(30) => "IQ4_XS",
        Some(32) => "BF16",
        Some(38) => "MXFP4_MOE",
        _ => {
            let mut bytes = BTreeMap::new();
            for tensor in gguf.tensors() {
                *bytes.entry(tensor.ty).or_insert(0) += tensor.len;
            }
            let most = bytes.into_iter().max_by_key(|(_, bytes)| *bytes);
            most.map_or("none", |(ty, _)| ty.name())
        }
    };
    Ok(word.to_owned())
}

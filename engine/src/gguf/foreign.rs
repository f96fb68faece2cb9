//! Tensor types that GGUF has and Woolly does not compute with: their names and sizes, for what is said
//! of a file.

/// GGUF's number, ggml's name, elements and bytes of a block.
const FOREIGN: [(u32, &str, usize, usize); 18] = [
    (9, "Q8_1", 32, 40),
    (15, "Q8_K", 256, 292),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (34, "TQ1_0", 256, 54),
    (35, "TQ2_0", 256, 66),
    (40, "NVFP4", 64, 36),
    (41, "Q1_0", 128, 18),
];

/// ggml's name of a tensor type that Woolly does not compute with.
pub(super) fn type_name(id: u32) -> String {
    match (FOREIGN.iter().find(|foreign| foreign.0 == id), id) {
        (Some((_, name, ..)), _) => (*name).to_owned(),
        (None, 4 | 5 | 31..=33 | 36..=38) => format!("{id} (removed from the format)"),
        (None, _) => format!("{id} (unknown)"),
    }
}

/// Elements and bytes of a block of the type, if they are known.
pub(super) fn block(id: u32) -> Option<(usize, usize)> {
    FOREIGN.iter().find(|foreign| foreign.0 == id).map(|foreign| (foreign.2, foreign.3))
}

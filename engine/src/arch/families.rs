//! The table of architectures: one row each, and all that its name stands for.
//!
//! A new architecture is a row here and a test. What a row declares and the kernels do not compute
//! yet is refused when a model is read ([`LayerShape::not_computed`](super::layer::LayerShape)).

use crate::kernels::elementwise::Pairing;

/// The choices that an architecture's name stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Family {
    /// GGUF's name of the architecture, and the prefix of its keys.
    pub architecture: &'static str,
    /// How rotated pairs lie in a head.
    pub pairing: Pairing,
    /// Where the norms of a layer stand.
    pub norms: Norms,
    /// Queries and keys have an RMS norm per head, before they are rotated.
    pub has_head_norm: bool,
    /// The feed-forward network may have biases. Attention always may: they are taken where a file
    /// has them.
    pub may_have_mlp_biases: bool,
    /// Between the feed-forward network's matrices.
    pub activation: Activation,
    /// Which layers attend to a window only.
    pub windows: Windows,
    /// Which layers have experts.
    pub experts: Experts,
    /// Embedding, residuals, attention and logits have factors of their own in the metadata.
    pub has_scales: bool,
    /// A key may switch rotary positions off.
    pub may_be_unrotated: bool,
}

/// The norms of attention and of the feed-forward network, each RMS with a weight per value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norms {
    /// One before each of the two.
    pub before: bool,
    /// One after each, before it is added to the hidden states.
    pub after: bool,
    /// Added to the weights as the file has them.
    pub added: f32,
}

/// What is applied to the gate before it multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x · sigmoid(x)`.
    Silu,
    /// The Gaussian one, by its tanh formula.
    Gelu,
}

/// Which layers attend to a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Windows {
    /// None: all layers attend to all positions.
    None,
    /// All but the last of each `period` layers, with `attention.sliding_window` positions.
    AllButLastOf {
        /// 2 or more.
        period: u32,
        /// Base of their rotary frequencies, if they have another.
        rope_base: Option<f32>,
    },
}

/// Which layers have experts in place of one feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Experts {
    /// None.
    None,
    /// Those from `leading_dense_block_count` on; its absence is 0.
    AfterDense,
}

/// Norms before both halves of a layer, as LLaMA has them.
const NORMS_BEFORE: Norms = Norms { before: true, after: false, added: 0.0 };

/// What most architectures have in common.
const LLAMA: Family = Family {
    architecture: "llama",
    pairing: Pairing::Neighbours,
    norms: NORMS_BEFORE,
    has_head_norm: false,
    // Granite-Code and Bielik have them.
    may_have_mlp_biases: true,
    activation: Activation::Silu,
    windows: Windows::None,
    experts: Experts::None,
    has_scales: false,
    may_be_unrotated: false,
};

/// What Qwen's architectures have in common.
const QWEN2: Family =
    Family { architecture: "qwen2", pairing: Pairing::Halves, may_have_mlp_biases: false, ..LLAMA };

/// The supported architectures. Mistral files say `llama`.
pub const FAMILIES: [Family; 4] = [
    LLAMA,
    QWEN2,
    Family { architecture: "qwen3", has_head_norm: true, ..QWEN2 },
    Family { architecture: "granite", has_scales: true, may_be_unrotated: true, ..LLAMA },
];

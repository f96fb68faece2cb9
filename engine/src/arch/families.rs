//! The table of architectures: one row each, and all that its name stands for.
//!
//! A new architecture is a row here and a test. What a row declares and the kernels do not compute
//! yet is refused when a model is read ([`LayerShape::not_computed`](super::layer::LayerShape)).

pub use crate::kernels::elementwise::Activation;
use crate::kernels::elementwise::Pairing;
use crate::kernels::routing::Gating;

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
    /// Each head has a score of its own that takes part in the softmax: a sink.
    pub has_sinks: bool,
    /// The feed-forward network may have biases. Attention always may: they are taken where a file
    /// has them.
    pub may_have_mlp_biases: bool,
    /// Between the feed-forward network's matrices.
    pub activation: Activation,
    /// Which layers attend to a window only.
    pub windows: Windows,
    /// Its experts, if it has some.
    pub experts: Option<Mixture>,
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
    /// The one before the feed-forward network is named for what it comes after: `post_attention_norm`.
    pub is_ffn_named_after_attention: bool,
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

/// What a family's name says of its experts. Layers from `leading_dense_block_count` on have them; its
/// absence is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mixture {
    /// Models without experts have the same name: `expert_count` is absent or 0.
    pub is_optional: bool,
    /// How the router's scores become weights.
    pub gating: Gating,
    /// Whether the metadata may say otherwise, in `expert_gating_func`.
    pub may_say_gating: bool,
    /// Whether the weights of the chosen are divided by their sum.
    pub is_normalised: bool,
    /// Whether the metadata may say otherwise, in `expert_weights_norm`.
    pub may_say_normalised: bool,
    /// Whether a factor of the weights may be in the metadata, as `expert_weights_scale`.
    pub may_scale: bool,
    /// Which key has the values between the matrices of an expert.
    pub width: ExpertWidth,
    /// What all rows go to beside their experts.
    pub shared: SharedExpert,
    /// Whether a bias may be added to the scores for the choice.
    pub may_have_choice_bias: bool,
    /// Whether router and experts have biases.
    pub has_biases: bool,
}

/// Where the width of an expert stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpertWidth {
    /// In `expert_feed_forward_length`; without it, `feed_forward_length` is of all chosen together.
    Own,
    /// In `feed_forward_length`.
    FeedForward,
}

/// A network that all rows go to beside their experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedExpert {
    /// None.
    None,
    /// One of `expert_shared_feed_forward_length` values, if that is not 0 or absent.
    Plain,
    /// One as wide as `expert_shared_count` experts.
    Counted,
    /// One of `expert_shared_feed_forward_length` values (else `feed_forward_length`), whose outputs are
    /// multiplied by a gate of their own for each row.
    Gated,
}

/// Norms before both halves of a layer, as LLaMA has them.
const NORMS_BEFORE: Norms =
    Norms { before: true, after: false, added: 0.0, is_ffn_named_after_attention: false };

/// Experts as Qwen3's and Granite's mixtures have them.
const MIXTURE: Mixture = Mixture {
    is_optional: false,
    gating: Gating::Softmax,
    may_say_gating: false,
    is_normalised: true,
    may_say_normalised: false,
    may_scale: true,
    width: ExpertWidth::Own,
    shared: SharedExpert::None,
    may_have_choice_bias: false,
    has_biases: false,
};

/// What most architectures have in common.
const LLAMA: Family = Family {
    architecture: "llama",
    pairing: Pairing::Neighbours,
    norms: NORMS_BEFORE,
    has_head_norm: false,
    has_sinks: false,
    // Granite-Code and Bielik have them.
    may_have_mlp_biases: true,
    activation: Activation::Silu,
    windows: Windows::None,
    // Mixtral says `llama` too.
    experts: Some(Mixture { is_optional: true, width: ExpertWidth::FeedForward, ..MIXTURE }),
    has_scales: false,
    may_be_unrotated: false,
};

/// What Qwen's architectures have in common.
const QWEN2: Family = Family {
    architecture: "qwen2",
    pairing: Pairing::Halves,
    may_have_mlp_biases: false,
    experts: None,
    ..LLAMA
};

/// What Qwen3's architectures have in common.
const QWEN3: Family = Family { architecture: "qwen3", has_head_norm: true, ..QWEN2 };

/// What Granite's architectures have in common.
const GRANITE: Family = Family {
    architecture: "granite",
    has_scales: true,
    may_be_unrotated: true,
    experts: None,
    ..LLAMA
};

/// The supported architectures. Mistral files say `llama`.
pub const FAMILIES: [Family; 10] = [
    LLAMA,
    QWEN2,
    Family {
        architecture: "qwen2moe",
        experts: Some(Mixture { is_normalised: false, shared: SharedExpert::Gated, ..MIXTURE }),
        ..QWEN2
    },
    QWEN3,
    Family { architecture: "qwen3moe", experts: Some(MIXTURE), ..QWEN3 },
    GRANITE,
    Family {
        architecture: "granitemoe",
        experts: Some(Mixture {
            width: ExpertWidth::FeedForward,
            shared: SharedExpert::Plain,
            ..MIXTURE
        }),
        ..GRANITE
    },
    Family {
        architecture: "dots1",
        experts: Some(Mixture {
            gating: Gating::Sigmoid,
            may_say_gating: true,
            is_normalised: false,
            may_say_normalised: true,
            shared: SharedExpert::Counted,
            may_have_choice_bias: true,
            ..MIXTURE
        }),
        ..QWEN3
    },
    Family {
        architecture: "ernie4_5-moe",
        may_have_mlp_biases: false,
        experts: Some(Mixture {
            may_scale: false,
            shared: SharedExpert::Plain,
            may_have_choice_bias: true,
            ..MIXTURE
        }),
        ..LLAMA
    },
    Family {
        architecture: "gpt-oss",
        pairing: Pairing::Halves,
        norms: Norms { is_ffn_named_after_attention: true, ..NORMS_BEFORE },
        has_sinks: true,
        may_have_mlp_biases: false,
        activation: Activation::ClampedSilu,
        windows: Windows::AllButLastOf { period: 2, rope_base: None },
        experts: Some(Mixture {
            gating: Gating::SoftmaxOfChosen,
            is_normalised: false,
            may_scale: false,
            has_biases: true,
            ..MIXTURE
        }),
        ..LLAMA
    },
];

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
    /// The RMS norms of queries and keys.
    pub qk_norm: QkNorm,
    /// Queries, keys and values are rows of one matrix, in this order.
    pub is_qkv_fused: bool,
    /// Gate and up are rows of one matrix, in this order.
    pub is_gate_fused: bool,
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
    /// The factors of embedding, residuals, attention and logits.
    pub scales: Scales,
    /// A key may switch rotary positions off.
    pub may_be_unrotated: bool,
    /// A key may say that the first values of a head only are rotated.
    pub may_rotate_part: bool,
    /// Each rotated pair may have a divisor of its frequency for contexts up to the one trained on at first,
    /// and another for longer ones.
    pub may_have_context_factors: bool,
    /// The last layers of a file may predict tokens further ahead. They are not computed.
    pub may_predict_further: bool,
}

/// The RMS norms of queries and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// None.
    None,
    /// Of each head, before it is rotated.
    Head {
        /// Files without its weights do without the norm.
        is_optional: bool,
    },
    /// Of each head, after it is rotated.
    RotatedHead,
    /// Of all heads together, before they are rotated.
    Row,
}

/// Factors that are not 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scales {
    /// None but that of attention, 1 / √(values of a head).
    None,
    /// Granite: embedding, residuals, attention and logits have keys of their own.
    Keys,
    /// Gemma: the embedding is multiplied by the root of its width, and logits may be capped.
    Gemma {
        /// A model of so many layers, its largest, has 1 / √(width of the hidden states / heads) for attention.
        layers_of_largest: u32,
    },
}

/// The norms of attention and of the feed-forward network, each RMS with a weight per value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norms {
    /// One before each of the two.
    pub before: bool,
    /// One after each, before it is added to the hidden states.
    pub after: bool,
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
        /// Files without that key, or with 0, have no windows.
        is_optional: bool,
        /// Base of their rotary frequencies, if `rope.freq_base_swa` says no other; `None` is that of the
        /// other layers.
        rope_base: Option<f32>,
        /// Whether those frequencies are stretched like the others.
        is_stretched: bool,
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
    /// What is added to the scores for the choice.
    pub choice_bias: ChoiceBias,
    /// Whether router and experts have biases.
    pub has_biases: bool,
}

/// What is added to the scores of experts for the choice only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChoiceBias {
    /// Nothing.
    None,
    /// A bias, where a file has it.
    Optional,
    /// A bias.
    Required,
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
    /// One of `expert_shared_feed_forward_length` values, else of `feed_forward_length`.
    Always,
    /// One as wide as `expert_shared_count` experts.
    Counted,
    /// One of `expert_shared_count` times `expert_shared_feed_forward_length` values, else as
    /// [`Counted`](Self::Counted).
    CountedOfOwn,
    /// One of `expert_shared_feed_forward_length` values (else `feed_forward_length`), whose outputs are
    /// multiplied by a gate of their own for each row.
    Gated,
}

/// Norms before both halves of a layer, as LLaMA has them.
const NORMS_BEFORE: Norms =
    Norms { before: true, after: false, is_ffn_named_after_attention: false };

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
    choice_bias: ChoiceBias::None,
    has_biases: false,
};

/// Experts as GLM-4.5's and Ling's mixtures have them: weighted each by itself.
const SIGMOID_MIXTURE: Mixture = Mixture {
    gating: Gating::Sigmoid,
    may_say_gating: true,
    is_normalised: false,
    may_say_normalised: true,
    shared: SharedExpert::Counted,
    choice_bias: ChoiceBias::Optional,
    ..MIXTURE
};

/// What most architectures have in common.
const LLAMA: Family = Family {
    architecture: "llama",
    pairing: Pairing::Neighbours,
    norms: NORMS_BEFORE,
    qk_norm: QkNorm::None,
    is_qkv_fused: false,
    is_gate_fused: false,
    has_sinks: false,
    // Granite-Code and Bielik have them.
    may_have_mlp_biases: true,
    activation: Activation::Silu,
    windows: Windows::None,
    // Mixtral says `llama` too.
    experts: Some(Mixture { is_optional: true, width: ExpertWidth::FeedForward, ..MIXTURE }),
    scales: Scales::None,
    may_be_unrotated: false,
    may_rotate_part: false,
    may_have_context_factors: false,
    may_predict_further: false,
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
const QWEN3: Family =
    Family { architecture: "qwen3", qk_norm: QkNorm::Head { is_optional: false }, ..QWEN2 };

/// What Granite's architectures have in common.
const GRANITE: Family = Family {
    architecture: "granite",
    scales: Scales::Keys,
    may_be_unrotated: true,
    experts: None,
    ..LLAMA
};

/// The supported architectures. Mistral files say `llama`.
pub const FAMILIES: [Family; 16] = [
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
    Family { architecture: "dots1", experts: Some(SIGMOID_MIXTURE), ..QWEN3 },
    Family {
        architecture: "ernie4_5-moe",
        may_have_mlp_biases: false,
        experts: Some(Mixture {
            may_scale: false,
            shared: SharedExpert::Plain,
            choice_bias: ChoiceBias::Optional,
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
        windows: Windows::AllButLastOf {
            period: 2,
            is_optional: false,
            rope_base: None,
            is_stretched: true,
        },
        experts: Some(Mixture {
            gating: Gating::SoftmaxOfChosen,
            is_normalised: false,
            may_scale: false,
            has_biases: true,
            ..MIXTURE
        }),
        ..LLAMA
    },
    Family {
        architecture: "gemma3",
        norms: Norms { after: true, ..NORMS_BEFORE },
        activation: Activation::Gelu,
        windows: Windows::AllButLastOf {
            period: 6,
            is_optional: true,
            rope_base: Some(10_000.0),
            is_stretched: false,
        },
        scales: Scales::Gemma { layers_of_largest: 62 },
        ..QWEN3
    },
    Family {
        architecture: "phi3",
        is_qkv_fused: true,
        is_gate_fused: true,
        may_rotate_part: true,
        may_have_context_factors: true,
        ..QWEN2
    },
    Family {
        architecture: "glm4moe",
        norms: Norms { is_ffn_named_after_attention: true, ..NORMS_BEFORE },
        qk_norm: QkNorm::Head { is_optional: true },
        experts: Some(Mixture { choice_bias: ChoiceBias::Required, ..SIGMOID_MIXTURE }),
        may_rotate_part: true,
        may_predict_further: true,
        ..QWEN2
    },
    Family {
        architecture: "minimax-m2",
        qk_norm: QkNorm::Row,
        experts: Some(Mixture {
            is_normalised: true,
            may_say_normalised: false,
            width: ExpertWidth::FeedForward,
            shared: SharedExpert::None,
            choice_bias: ChoiceBias::Required,
            ..SIGMOID_MIXTURE
        }),
        may_rotate_part: true,
        ..QWEN2
    },
    Family {
        architecture: "bailingmoe2",
        is_qkv_fused: true,
        experts: Some(Mixture { shared: SharedExpert::CountedOfOwn, ..SIGMOID_MIXTURE }),
        may_rotate_part: true,
        may_predict_further: true,
        ..QWEN3
    },
    Family {
        architecture: "hunyuan-moe",
        qk_norm: QkNorm::RotatedHead,
        experts: Some(Mixture {
            width: ExpertWidth::FeedForward,
            shared: SharedExpert::Always,
            ..MIXTURE
        }),
        ..QWEN2
    },
];

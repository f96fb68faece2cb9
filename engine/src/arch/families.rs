//! What distinguishes the architectures, as data.

use super::hyper::HyperParameters;
use crate::kernels::heads::AttentionShape;
use crate::kernels::rows::Pairing;

/// The choices that an architecture's name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// GGUF's name of the architecture.
    pub architecture: &'static str,
    /// How rotated pairs lie in a head.
    pub pairing: Pairing,
    /// Queries and keys have an RMS norm per head, before they are rotated.
    pub head_norm: bool,
}

/// The supported architectures. Biases are taken where a file has them.
pub const FAMILIES: [Family; 4] = [
    Family { architecture: "llama", pairing: Pairing::Neighbours, head_norm: false },
    Family { architecture: "granite", pairing: Pairing::Neighbours, head_norm: false },
    Family { architecture: "qwen2", pairing: Pairing::Halves, head_norm: false },
    Family { architecture: "qwen3", pairing: Pairing::Halves, head_norm: true },
];

/// All that the layers of one model share.
#[derive(Clone, Debug)]
pub struct LayerShape {
    /// The architecture's choices.
    pub family: Family,
    /// Width of the hidden states.
    pub hidden: usize,
    /// Heads and their width.
    pub attention: AttentionShape,
    /// Width of the feed-forward network.
    pub ffn: usize,
    /// Added to a norm's mean of squares.
    pub eps: f32,
    /// Factor of what a block adds to the hidden states.
    pub residual_scale: f32,
}

impl LayerShape {
    /// The shape that `hyper` describes; `None` if no family has its architecture.
    pub fn new(hyper: &HyperParameters) -> Option<Self> {
        let family = FAMILIES.into_iter().find(|f| f.architecture == hyper.architecture)?;
        let head_dim = hyper.head_dim_k as usize;
        let scale = hyper.attention_scale.unwrap_or(1.0 / (head_dim as f32).sqrt());
        Some(Self {
            family,
            hidden: hyper.hidden as usize,
            attention: AttentionShape {
                heads: hyper.heads as usize,
                kv_heads: hyper.kv_heads as usize,
                head_dim,
                scale,
            },
            ffn: hyper.ffn as usize,
            eps: hyper.rms_eps,
            residual_scale: hyper.residual_scale.unwrap_or(1.0),
        })
    }

    /// Values of one row of queries.
    pub fn q_width(&self) -> usize {
        self.attention.heads * self.attention.head_dim
    }

    /// Values of one row of keys, and of values.
    pub fn kv_width(&self) -> usize {
        self.attention.kv_heads * self.attention.head_dim
    }
}

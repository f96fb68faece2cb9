//! The shape of one layer, as the table and a model's metadata say it; what it remembers of a
//! sequence, and whether it can be computed.

use super::families::{Activation, ChoiceBias, Family, Norms, QkNorm, Scales, SharedExpert};
use super::hyper::HyperParameters;
use crate::kernels::attention::heads::AttentionShape;
use crate::kernels::elementwise::Pairing;
use crate::kernels::routing::Router;
use crate::kv::KvType;

/// All that a layer's computation depends on, its weights apart. Widths are in values.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerShape {
    /// Width of the hidden states.
    pub hidden: usize,
    /// Where norms stand.
    pub norms: Norms,
    /// Added to a norm's mean of squares.
    pub eps: f32,
    /// Which positions are attended to.
    pub attention: AttentionKind,
    /// Query heads; a multiple of `kv_heads`.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a query or key head.
    pub key_dim: usize,
    /// Width of a value head.
    pub value_dim: usize,
    /// Values of a head that are rotated.
    pub rope_dim: usize,
    /// The rotation's frequencies.
    pub rope: RopeKind,
    /// How rotated pairs lie in a head.
    pub pairing: Pairing,
    /// The norms of queries and keys.
    pub qk_norm: QkNorm,
    /// Queries, keys and values are rows of one matrix.
    pub is_qkv_fused: bool,
    /// Gate and up are rows of one matrix.
    pub is_gate_fused: bool,
    /// Each head has a score of its own that takes part in the softmax.
    pub has_sinks: bool,
    /// Factor of the scores.
    pub attention_scale: f32,
    /// What follows attention.
    pub feed_forward: FeedForwardKind,
    /// Whether the feed-forward network may have biases.
    pub may_have_mlp_biases: bool,
    /// Between the feed-forward network's matrices.
    pub activation: Activation,
    /// Factor of what a block adds to the hidden states.
    pub residual_scale: f32,
}

/// The frequencies of a layer's rotation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeKind {
    /// Their base.
    pub base: f32,
    /// Whether they are stretched as the metadata say.
    pub is_stretched: bool,
}

/// Which positions a layer attends to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionKind {
    /// All before and the present one.
    Full,
    /// The last so many, the present one included.
    Window(u32),
}

/// What a layer has after attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FeedForwardKind {
    /// One network.
    Dense {
        /// Values between its matrices.
        width: usize,
    },
    /// Several, of which a router chooses some for each row.
    Experts {
        /// All of them.
        count: usize,
        /// Chosen for a row.
        used: usize,
        /// Values between the matrices of one.
        width: usize,
        /// How it chooses.
        router: Router,
        /// What is added to its scores for the choice.
        choice_bias: ChoiceBias,
        /// Whether it and the experts have biases.
        has_biases: bool,
        /// Values between the matrices of the one that all rows go to; 0 if there is none.
        shared_width: usize,
        /// Whether that one's outputs have a gate.
        is_shared_gated: bool,
    },
}

/// When a layer may forget a position. Layers with the same rule share block tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgetting {
    /// Never.
    Never,
    /// When so many have come after it.
    After(u32),
}

impl Forgetting {
    /// Positions that are remembered, the present one included; `None` remembers all.
    pub fn window(self) -> Option<u32> {
        match self {
            Self::Never => None,
            Self::After(window) => Some(window),
        }
    }
}

/// Layers that remember alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheGroup {
    /// Their rule.
    pub forgetting: Forgetting,
    /// Ascending.
    pub layers: Vec<u32>,
}

impl LayerShape {
    /// The shape of layer `index` of a model.
    pub(super) fn new(family: &Family, hyper: &HyperParameters, index: u32) -> Self {
        let usual = RopeKind { base: hyper.rope_base, is_stretched: true };
        let (attention, rope) = match hyper.window {
            Some(window) if index % window.period != window.period - 1 => {
                let base = window.rope_base.unwrap_or(usual.base);
                let rope = RopeKind { base, is_stretched: window.is_stretched };
                (AttentionKind::Window(window.positions), rope)
            }
            _ => (AttentionKind::Full, usual),
        };
        let feed_forward = match (family.experts, hyper.experts) {
            (Some(mixture), Some(experts)) if index >= experts.dense_layers => {
                FeedForwardKind::Experts {
                    count: experts.count as usize,
                    used: experts.used as usize,
                    width: experts.width as usize,
                    router: experts.router,
                    choice_bias: mixture.choice_bias,
                    has_biases: mixture.has_biases,
                    shared_width: experts.shared_width as usize,
                    is_shared_gated: mixture.shared == SharedExpert::Gated,
                }
            }
            _ => FeedForwardKind::Dense { width: hyper.ffn as usize },
        };
        let key_dim = hyper.head_dim_k as usize;
        Self {
            hidden: hyper.hidden as usize,
            norms: family.norms,
            eps: hyper.rms_eps,
            attention,
            heads: hyper.heads as usize,
            kv_heads: hyper.kv_heads as usize,
            key_dim,
            value_dim: hyper.head_dim_v as usize,
            rope_dim: hyper.rope_dim as usize,
            rope,
            pairing: family.pairing,
            qk_norm: family.qk_norm,
            is_qkv_fused: family.is_qkv_fused,
            is_gate_fused: family.is_gate_fused,
            has_sinks: family.has_sinks,
            attention_scale: attention_scale(family, hyper),
            feed_forward,
            may_have_mlp_biases: family.may_have_mlp_biases,
            activation: family.activation,
            residual_scale: hyper.residual_scale.unwrap_or(1.0),
        }
    }

    /// The name of the norm before the feed-forward network of layer `index`.
    pub fn ffn_norm(&self, index: u32) -> String {
        let is_renamed = self.norms.is_ffn_named_after_attention;
        let name = if is_renamed { "post_attention_norm" } else { "ffn_norm" };
        format!("blk.{index}.{name}.weight")
    }

    /// Values of one row of queries.
    pub fn q_width(&self) -> usize {
        self.heads * self.key_dim
    }

    /// Values of one row of keys, and of values.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.key_dim
    }

    /// Values of one row between the matrices of the feed-forward network, of all chosen experts
    /// together.
    pub fn ffn_width(&self) -> usize {
        match self.feed_forward {
            FeedForwardKind::Dense { width } => width,
            FeedForwardKind::Experts { used, width, shared_width, .. } => {
                shared_width.max(used * width)
            }
        }
    }

    /// Experts, and how many of them a row goes to; none of either if it is dense.
    pub fn experts(&self) -> (usize, usize) {
        match self.feed_forward {
            FeedForwardKind::Dense { .. } => (0, 0),
            FeedForwardKind::Experts { count, used, .. } => (count, used),
        }
    }

    /// Values of the rows that are sorted by expert, for one row before that: the wider of what experts are
    /// given and of what is between their matrices.
    pub fn sorted_width(&self) -> usize {
        match self.feed_forward {
            FeedForwardKind::Dense { .. } => 0,
            FeedForwardKind::Experts { width, .. } => self.hidden.max(width),
        }
    }

    /// Values of a row that are not added to the hidden states as they come: what the shared expert gives,
    /// and what a norm stands after. 0 if there are none.
    pub fn apart_width(&self) -> usize {
        match self.feed_forward {
            FeedForwardKind::Experts { shared_width, .. } if shared_width > 0 => self.hidden,
            _ if self.norms.after => self.hidden,
            _ => 0,
        }
    }

    /// What the kernel of attention is told.
    pub fn attention_shape(&self) -> AttentionShape {
        AttentionShape {
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.key_dim,
            scale: self.attention_scale,
            window: match self.attention {
                AttentionKind::Full => None,
                AttentionKind::Window(window) => Some(window as usize),
            },
        }
    }

    /// When it may forget a position.
    pub fn forgetting(&self) -> Forgetting {
        match self.attention {
            AttentionKind::Full => Forgetting::Never,
            AttentionKind::Window(window) => Forgetting::After(window),
        }
    }

    /// Bytes of its keys and values of one block of positions.
    pub fn kv_block_bytes(&self, ty: KvType) -> u64 {
        (self.kv_heads * (ty.tile_bytes(self.key_dim) + ty.tile_bytes(self.value_dim))) as u64
    }

    /// What of it this version does not compute, said of the layer: "has no norms"; `None` if it
    /// computes all.
    pub fn not_computed(&self) -> Option<String> {
        match (self.norms.before, self.norms.after) {
            (false, false) => Some("has no norms".to_owned()),
            (false, true) => Some("has norms only after attention and feed-forward".to_owned()),
            (true, true) if self.experts().0 > 0 => Some("has a norm after its experts".to_owned()),
            (true, _) => None,
        }
    }
}

/// The factor of a model's attention scores.
fn attention_scale(family: &Family, hyper: &HyperParameters) -> f32 {
    let width = match family.scales {
        Scales::Gemma { layers_of_largest } if hyper.layers == layers_of_largest => {
            hyper.hidden / hyper.heads
        }
        _ => hyper.head_dim_k,
    };
    hyper.attention_scale.unwrap_or(1.0 / (width as f32).sqrt())
}

/// The groups of `layers`, in the order of their first layers.
pub(super) fn cache_groups(layers: &[LayerShape]) -> Vec<CacheGroup> {
    let mut groups: Vec<CacheGroup> = Vec::new();
    for (index, layer) in (0..).zip(layers) {
        let forgetting = layer.forgetting();
        match groups.iter_mut().find(|group| group.forgetting == forgetting) {
            Some(group) => group.layers.push(index),
            None => groups.push(CacheGroup { forgetting, layers: vec![index] }),
        }
    }
    groups
}

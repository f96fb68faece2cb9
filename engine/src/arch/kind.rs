//! What layers are alike in, for people: which positions they attend to and what follows attention.

use super::layer::{FeedForwardKind, LayerShape};

/// What a layer is, in few numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LayerKind {
    /// Positions that it attends to; `None` if it attends to all.
    pub window: Option<u32>,
    /// Experts; 0 if its feed-forward network is one.
    pub experts: usize,
    /// Experts that a row goes to.
    pub experts_used: usize,
    /// Values between the matrices of the network, or of one expert.
    pub width: usize,
    /// The same of the expert that all rows go to; 0 if there is none.
    pub shared_width: usize,
}

impl LayerShape {
    /// What it is, in few numbers.
    pub fn kind(&self) -> LayerKind {
        let (experts, experts_used) = self.experts();
        let (width, shared_width) = match self.feed_forward {
            FeedForwardKind::Dense { width } => (width, 0),
            FeedForwardKind::Experts { width, shared_width, .. } => (width, shared_width),
        };
        let window = self.attention_shape().window.and_then(|window| u32::try_from(window).ok());
        LayerKind { window, experts, experts_used, width, shared_width }
    }
}

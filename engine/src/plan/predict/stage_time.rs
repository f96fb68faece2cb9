//! How long one stage takes for a forward.
//!
//! ```text
//! time = bytes read ÷ (READ_PART × read bandwidth) + multiplications ÷ (MULTIPLY_PART × multiplications per second)
//! ```
//!
//! Both are added: a forward of few rows waits for memory, one of many multiplies, and between them neither hides
//! the other. `docs/planning.md` has forwards of 1 to 128 rows beside such a sum.

use std::ops::Range;

use crate::arch::layer::LayerShape;
use crate::kv::KvType;
use crate::plan::layout::{BLOCK_LEN, ModelLayout};

/// What a forward gets of the bandwidth that is measured when a worker joins: that reads one long run of bytes, a
/// forward many matrices.
pub(super) const READ_PART: f64 = 0.9;
/// What a forward gets of the multiplications that are measured when a worker joins: a product without norms,
/// activations and what stands between the matrices.
pub(super) const MULTIPLY_PART: f64 = 0.9;
/// A multiplication of attention takes as long as so many of the matrices: they are of floats, four bytes each, and
/// the matrices' of single bytes.
pub(super) const ATTENTION_WEIGHT: f64 = 4.0;

/// What a stage's worker does in a second, as it measures it when it joins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StageSpeed {
    /// Bytes that its threads read from memory.
    pub read_bytes_per_s: f64,
    /// Multiply-adds of its threads.
    pub macs_per_s: f64,
}

/// What a stage is to compute at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Forward {
    /// Rows of all sequences.
    pub(super) rows: u32,
    /// Rows after which a token is chosen: the head is computed for them.
    pub(super) sampled: u32,
    /// Sequences that the rows are of, each with a cache of its own to read.
    pub(super) sequences: u32,
    /// Positions that a row attends to.
    pub(super) positions: f64,
}

/// A stage, and the speed of its worker.
#[derive(Debug)]
pub(super) struct StageTime<'a> {
    layout: &'a ModelLayout,
    layers: Range<u32>,
    speed: StageSpeed,
    /// Multiplications of a row, attention and head excepted.
    macs_per_row: f64,
    /// Of the head, 0 where it is not.
    head_macs: f64,
    head_bytes: f64,
    /// By window.
    attention: Vec<Attention>,
}

/// What the layers of a stage with the same window take for each position that is attended to.
#[derive(Debug)]
struct Attention {
    window: Option<u32>,
    /// Bytes of keys and values.
    bytes: f64,
    /// Multiplications of a row.
    macs: f64,
}

impl<'a> StageTime<'a> {
    pub(super) fn new(
        layout: &'a ModelLayout,
        kv_type: KvType,
        layers: Range<u32>,
        speed: StageSpeed,
    ) -> Self {
        let macs = layout.stage_prefill_macs_per_token(layers.clone());
        let head_macs = layout.stage_macs_per_token(layers.clone()) - macs;
        let head_bytes = layout.stage_bytes_read(layers.clone(), 1)
            - layout.stage_prefill_bytes_read(layers.clone(), 1);
        let mut attention: Vec<Attention> = Vec::new();
        for shape in &layout.layer_shapes()[layers.start as usize..layers.end as usize] {
            let (window, bytes, macs) = of_position(shape, kv_type);
            match attention.iter_mut().find(|known| known.window == window) {
                Some(known) => {
                    known.bytes += bytes;
                    known.macs += macs;
                }
                None => attention.push(Attention { window, bytes, macs }),
            }
        }
        Self {
            layout,
            layers,
            speed,
            macs_per_row: macs as f64,
            head_macs: head_macs as f64,
            head_bytes: head_bytes as f64,
            attention,
        }
    }

    /// Seconds for a forward.
    pub(super) fn seconds(&self, forward: &Forward) -> f64 {
        let rows = f64::from(forward.rows);
        let weights = self.layout.stage_prefill_bytes_read(self.layers.clone(), forward.rows);
        let head = if forward.sampled > 0 { self.head_bytes } else { 0.0 };
        let (mut cache, mut attention) = (0.0, 0.0);
        for of in &self.attention {
            let positions = of
                .window
                .map_or(forward.positions, |window| forward.positions.min(f64::from(window)));
            cache += of.bytes * positions * f64::from(forward.sequences);
            attention += of.macs * positions * rows;
        }
        let bytes = weights as f64 + head + cache;
        let macs = self.macs_per_row * rows
            + self.head_macs * f64::from(forward.sampled)
            + ATTENTION_WEIGHT * attention;
        bytes / (READ_PART * self.speed.read_bytes_per_s.max(1.0))
            + macs / (MULTIPLY_PART * self.speed.macs_per_s.max(1.0))
    }
}

/// Window of a layer, bytes of its cache and multiplications of a row for each position.
fn of_position(shape: &LayerShape, kv_type: KvType) -> (Option<u32>, f64, f64) {
    let bytes = shape.kv_block_bytes(kv_type) as f64 / f64::from(BLOCK_LEN);
    let macs = shape.heads * (shape.key_dim + shape.value_dim);
    (shape.forgetting().window(), bytes, macs as f64)
}

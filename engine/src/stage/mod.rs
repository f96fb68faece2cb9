//! A stage: consecutive layers of a model on one machine. The front door of the engine.
//!
//! The first stage turns token ids into hidden states, the last one hidden states into logits and
//! tokens; the only stage of a plan does both. A stage is owned by one compute thread.

mod load;
mod testing;

use crate::batch::{Batch, BatchLimits};
use crate::kernels::elementwise;
use crate::kv::{Cache, GroupBlocks, KvType};
use crate::limits::{BLOCK_LEN, LOGIT_ROWS};
use crate::memory::{Buffer, LockError};
use crate::model::embedding::Embedding;
use crate::model::error::ForwardError;
use crate::model::head::{Head, HeadRun};
use crate::model::layer::Layer;
use crate::model::rope::Ropes;
use crate::model::run::{Run, Scratch};
use crate::pool::Pool;
use crate::sampler::{RowRequest, RowResult, Sampler};
use crate::weights::{MapError, Weights};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Which part of the model a stage is, and how much it can take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageConfig {
    /// Its layers. The first stage starts at 0, the last one ends at the model's last layer.
    pub layers: Range<u32>,
    /// Positions of a sequence.
    pub ctx_size: u32,
    /// Blocks of each cache group of the model, in its order, whether a layer of the stage is in it or not.
    pub caches: Vec<GroupBlocks>,
    /// Rows of a batch.
    pub rows_max: usize,
    /// Chunks of a batch.
    pub chunks_max: usize,
    /// How the cache holds keys and values.
    pub kv_type: KvType,
}

/// What a stage computes from.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// Token ids, one per row: the first stage.
    Tokens(&'a [u32]),
    /// Hidden states, `[rows, hidden]`: the others.
    Hidden(&'a [f32]),
}

/// Layers with their weights, cache and buffers.
#[derive(Debug)]
pub struct Stage {
    pool: Arc<Pool>,
    weights: Weights,
    hidden: usize,
    eps: f32,
    limits: BatchLimits,
    ropes: Ropes,
    embedding: Option<Embedding>,
    layers: Vec<Layer>,
    head: Option<Head>,
    cache: Cache,
    scratch: Scratch,
    /// `[rows, hidden]`.
    x: Buffer<f32>,
    /// For each rotation, `[rows, pairs]` of `[cos, sin]`.
    angles: Vec<[f32; 2]>,
}

impl Stage {
    /// Computes the stage's layers for all rows of `batch`; `progress` grows with every layer.
    ///
    /// Returns the hidden states `[rows, hidden]`, at the last stage those before the final norm.
    ///
    /// # Errors
    ///
    /// The input does not fit the batch or the stage.
    pub fn forward(
        &mut self,
        batch: &Batch<'_>,
        input: Input<'_>,
        progress: &AtomicU64,
    ) -> Result<&[f32], ForwardError> {
        let rows = batch.rows();
        let len = rows * self.hidden;
        match (&self.embedding, input) {
            (Some(embedding), Input::Tokens(tokens)) => {
                if tokens.len() != rows {
                    return Err(ForwardError::InputLen { expected: rows, found: tokens.len() });
                }
                let x = &mut self.x[..len];
                embedding.rows(&self.weights, tokens, x)?;
                elementwise::scale(self.pool.level(), x, embedding.scale);
            }
            (None, Input::Hidden(hidden)) => {
                if hidden.len() != len {
                    return Err(ForwardError::InputLen { expected: len, found: hidden.len() });
                }
                self.x[..len].copy_from_slice(hidden);
            }
            _ => return Err(ForwardError::Input),
        }
        self.fill_angles(batch);
        let pool = Arc::clone(&self.pool);
        pool.enter(|| self.run_layers(batch, progress));
        Ok(&self.x[..len])
    }

    fn fill_angles(&mut self, batch: &Batch<'_>) {
        let mut rows = self.angles.chunks_exact_mut(self.ropes.pairs());
        for rope in self.ropes.iter() {
            for chunk in batch.chunks() {
                let first = chunk.position as usize;
                for position in first..first + chunk.token_count as usize {
                    rope.angles(position, rows.next().expect("the batch fits"));
                }
            }
        }
    }

    fn run_layers(&mut self, batch: &Batch<'_>, progress: &AtomicU64) {
        let rows = batch.rows();
        let run = Run {
            pool: &self.pool,
            weights: &self.weights,
            batch,
            ropes: &self.ropes,
            angles: &self.angles[..self.ropes.iter().len() * rows * self.ropes.pairs()],
        };
        let x = &mut self.x[..rows * self.hidden];
        for (index, layer) in self.layers.iter().enumerate() {
            layer.forward(&run, index, &mut self.cache, x, &mut self.scratch);
            progress.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Samples or scores the rows that `batch` asks for, after its [`forward`](Self::forward).
    ///
    /// `requests` has one entry per such row, in order; one result for each is added to `out`.
    ///
    /// # Errors
    ///
    /// This is not the last stage, or a request does not fit.
    pub fn sample(
        &mut self,
        batch: &Batch<'_>,
        requests: &[RowRequest<'_>],
        out: &mut Vec<RowResult>,
    ) -> Result<(), ForwardError> {
        let head = self.head.as_ref().ok_or(ForwardError::NotLast)?;
        let expected = batch.sample_rows().count();
        if expected != requests.len() {
            return Err(ForwardError::Rows { expected, found: requests.len() });
        }
        requests.iter().try_for_each(|request| head.check(request))?;
        let mut requests = requests.iter();
        self.each_row(batch, &mut |logits, sampler| {
            out.extend(requests.next().map(|request| sampler.row(logits, request)));
        })
    }

    /// Calls `work` with the logits of each row that `batch` asks for, after its
    /// [`forward`](Self::forward).
    ///
    /// # Errors
    ///
    /// This is not the last stage.
    pub fn logits(
        &mut self,
        batch: &Batch<'_>,
        work: &mut dyn FnMut(&[f32]),
    ) -> Result<(), ForwardError> {
        self.each_row(batch, &mut |logits, _| work(logits))
    }

    /// Logits exist for [`LOGIT_ROWS`] rows at a time.
    fn each_row(
        &mut self,
        batch: &Batch<'_>,
        work: &mut dyn FnMut(&mut [f32], &mut Sampler),
    ) -> Result<(), ForwardError> {
        let head = self.head.as_mut().ok_or(ForwardError::NotLast)?;
        let hidden = self.hidden;
        let (mut left, mut sampled) = (batch.sample_rows().count(), batch.sample_rows());
        while left > 0 {
            let count = left.min(LOGIT_ROWS);
            let mut places = [0; LOGIT_ROWS];
            for (place, row) in places.iter_mut().zip(sampled.by_ref().take(count)) {
                *place = row * hidden;
            }
            let x = |row: usize| &self.x[places[row]..places[row] + hidden];
            let run = HeadRun { pool: &self.pool, weights: &self.weights, eps: self.eps };
            let (logits, vocab, sampler) = head.logits(&run, count, &x);
            for logits in logits.chunks_exact_mut(vocab) {
                work(logits, sampler);
            }
            left -= count;
        }
        Ok(())
    }

    /// Checks that the model's files are still those that were mapped: a few calls of the system.
    ///
    /// # Errors
    ///
    /// A file was written to or replaced in place; what the stage computes may be wrong.
    pub fn check_unchanged(&self) -> Result<(), MapError> {
        self.weights.check_unchanged()
    }

    /// What a batch for this stage must keep to.
    pub fn limits(&self) -> &BatchLimits {
        &self.limits
    }

    /// Whether it takes token ids.
    pub fn is_first(&self) -> bool {
        self.embedding.is_some()
    }

    /// Whether it samples.
    pub fn is_last(&self) -> bool {
        self.head.is_some()
    }

    /// Width of the hidden states.
    pub fn hidden_len(&self) -> usize {
        self.hidden
    }

    /// Tokens of the vocabulary; 0 unless it is the last stage.
    pub fn vocab(&self) -> usize {
        self.head.as_ref().map_or(0, Head::vocab)
    }

    /// Bytes of the KV cache.
    pub fn kv_bytes(&self) -> u64 {
        self.cache.bytes()
    }

    /// Bytes of all other buffers.
    pub fn scratch_bytes(&self) -> u64 {
        let head = self.head.as_ref().map_or(0, Head::bytes);
        self.scratch.bytes() + head + self.x.bytes() as u64 + 8 * self.angles.len() as u64
    }

    /// Bytes of the model that are mapped.
    pub fn mapped_bytes(&self) -> u64 {
        self.weights.mapped_bytes()
    }

    /// The mapped weights.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Keeps the cache in memory, and the weights from the moment that they are read in.
    ///
    /// # Errors
    ///
    /// The process may not lock that much; says what it needs and what the limit is.
    pub fn lock(&self) -> Result<(), LockError> {
        let needed = self.weights.page_bytes() + self.cache.bytes();
        let locked = self.weights.lock().and_then(|()| self.cache.lock());
        locked.map_err(|source| LockError::new(needed, source))
    }

    /// The cache's positions per block.
    pub const BLOCK_LEN: usize = BLOCK_LEN;
}

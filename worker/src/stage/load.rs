//! Makes a stage from mapped weights: reads its pages in, allocates its cache and its buffers. Knows no
//! plan and no peer.

use crate::counters::Counters;
use crate::machine::simd::Simd;
use crate::stage::resident::Reserved;
use crate::weights::pages::Pages;
use crate::weights::source::Model;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use woolly_engine::plan::scratch_bytes;
use woolly_engine::pool::Pool;
use woolly_engine::probe;
use woolly_engine::stage::{Stage, StageConfig};
use woolly_engine::weights::Weights;

/// What a machine can do, measured once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Bytes per second read from memory by all threads.
    pub read_bytes_per_s: u64,
    /// Multiply-adds per second of all threads.
    pub macs_per_s: u64,
}

/// What a loaded stage is and takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageFacts {
    /// Whether it takes token ids.
    pub is_first: bool,
    /// Whether it samples.
    pub is_last: bool,
    /// Width of the hidden states in values.
    pub hidden: usize,
    /// Bytes of the model that are mapped.
    pub mapped_bytes: u64,
    /// How many of them were in huge pages when it was loaded; `None` if the system does not say.
    pub huge_bytes: Option<u64>,
    /// Bytes of the KV cache.
    pub kv_bytes: u64,
    /// Bytes of all other buffers.
    pub scratch_bytes: u64,
}

impl StageFacts {
    /// Bytes that are this stage's alone: its slices may be others' too.
    pub fn own_bytes(&self) -> u64 {
        self.kv_bytes + self.scratch_bytes
    }
}

/// A stage that is ready to compute.
#[derive(Debug)]
pub struct LoadedStage {
    stage: Stage,
    facts: StageFacts,
    _memory: Reserved,
}

impl LoadedStage {
    /// What it is.
    pub fn facts(&self) -> StageFacts {
        self.facts
    }

    /// What it is; `None` if its model files are not those that were mapped any more.
    pub fn unchanged_facts(&self) -> Option<StageFacts> {
        self.stage.check_unchanged().is_ok().then_some(self.facts)
    }

    /// The weights that it is made of.
    pub fn weights(&self) -> &Weights {
        self.stage.weights()
    }

    /// To compute with, on the compute thread only.
    pub fn stage(&mut self) -> &mut Stage {
        &mut self.stage
    }
}

/// Makes stages for the threads of one pool. Clones share the pool.
#[derive(Clone, Debug)]
pub struct Loader {
    pool: Arc<Pool>,
    pages: Pages,
    counters: Arc<Counters>,
}

impl Loader {
    /// Makes the pool: the calling thread is the one that computes.
    pub fn on_this_thread(
        threads: u32,
        simd: Simd,
        pages: Pages,
        counters: Arc<Counters>,
    ) -> Loader {
        let threads = usize::try_from(threads).unwrap_or(usize::MAX);
        Loader { pool: Pool::with_level(threads, simd.level()), pages, counters }
    }

    /// Measures this machine; on the compute thread only.
    pub fn measure(&self) -> Measured {
        Measured {
            read_bytes_per_s: probe::read_bytes_per_s(&self.pool).max(1),
            macs_per_s: probe::macs_per_s(&self.pool).max(1),
        }
    }

    /// Whether what is loaded is locked in memory.
    pub fn locks(&self) -> bool {
        self.pages.mlock
    }

    /// Loads a stage: on any thread but the compute thread, which goes on computing. What was mapped
    /// and read in before is left as it is. `reserve` takes note of what it has of its own.
    ///
    /// # Errors
    ///
    /// The sentence to print: what is missing, damaged or not supported, or the limit of locked memory.
    pub fn load(
        &self,
        model: Model,
        config: &StageConfig,
        reserve: impl FnOnce(u64) -> Reserved,
    ) -> Result<LoadedStage, String> {
        let Model { gguf, weights, fetched_bytes, .. } = model;
        self.pages.prepare(&weights, fetched_bytes > 0);
        // First, and not while the stage is made, which would read a little here and there.
        let populated = weights.populate(&self.counters.loaded);
        self.counters.populated.fetch_add(populated, Relaxed);
        let stage = Stage::load(&gguf, weights, config, Arc::clone(&self.pool));
        let stage = locked(stage.map_err(|error| error.to_string())?, self.pages)?;
        let facts = StageFacts {
            is_first: stage.is_first(),
            is_last: stage.is_last(),
            hidden: stage.hidden_len(),
            mapped_bytes: stage.mapped_bytes(),
            huge_bytes: stage.weights().huge_bytes(),
            kv_bytes: stage.kv_bytes(),
            scratch_bytes: stage.scratch_bytes(),
        };
        Ok(LoadedStage { stage, facts, _memory: reserve(facts.own_bytes()) })
    }
}

/// Bytes that a stage will take beside what is in memory already.
pub fn memory_needed(model: &Model, config: &StageConfig) -> u64 {
    let kv = model.layout.kv_bytes(&config.layers, config.kv_type, &config.caches);
    let rows = u32::try_from(config.rows_max).unwrap_or(u32::MAX);
    model.weights.bytes_to_populate() + kv + scratch_bytes(&model.layout, &config.layers, rows)
}

/// The stage, kept in memory if the flags say so.
///
/// # Errors
///
/// The sentence to print: the limit of locked memory.
pub fn locked(stage: Stage, pages: Pages) -> Result<Stage, String> {
    if pages.mlock {
        stage.lock().map_err(|error| format!("--mlock: {error}"))?;
    }
    Ok(stage)
}

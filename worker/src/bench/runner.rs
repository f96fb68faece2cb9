//! Runs a test on a stage that is the whole model.

use super::figures::{CHUNK_ROWS, Case};
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};
use woolly_engine::batch::{Batch, ChunkRef};
use woolly_engine::kv::BlockTable;
use woolly_engine::sampler::{RowRequest, RowResult, SampleParams};
use woolly_engine::stage::{Input, Stage};

/// Steps of a decode that warms up.
const WARM_UP_STEPS: u32 = 4;

/// Always the most likely token.
const GREEDY: SampleParams<'static> = SampleParams {
    temperature: 0.0,
    top_k: 0,
    top_p: 1.0,
    min_p: 0.0,
    xtc_probability: 0.0,
    xtc_threshold: 0.1,
    repetition_penalty: 1.0,
    frequency_penalty: 0.0,
    presence_penalty: 0.0,
    seed: 0,
    choice: 0,
    position: 0,
    logit_bias: &[],
    prompt_counts: &[],
    output_counts: &[],
    mask: None,
};

/// A stage with all layers and a full cache, and room for a batch.
#[derive(Debug)]
pub struct Runner {
    stage: Stage,
    vocab: u32,
    progress: AtomicU64,
    results: Vec<RowResult>,
}

impl Runner {
    /// Takes a stage that is the first and the last; fills its cache, so that a test may begin at any
    /// depth.
    pub fn new(mut stage: Stage) -> Self {
        stage.fill_cache();
        let vocab = u32::try_from(stage.vocab()).unwrap_or(u32::MAX);
        Self { stage, vocab, progress: AtomicU64::new(0), results: Vec::new() }
    }

    /// Runs the beginning of a test, so that the next run finds everything in place.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn warm_up(&mut self, case: &Case) -> Result<(), String> {
        let most = if case.prefill { CHUNK_ROWS } else { WARM_UP_STEPS };
        self.run(&Case { n: case.n.min(most), ..*case }).map(|_| ())
    }

    /// Runs a test once; how long it took.
    ///
    /// # Errors
    ///
    /// The stage cannot take it, or the logits are not finite.
    pub fn run(&mut self, case: &Case) -> Result<Duration, String> {
        let blocks: Vec<Vec<u32>> = (0..case.batch)
            .map(|i| (i * case.blocks_each()..(i + 1) * case.blocks_each()).collect())
            .collect();
        // Layers with a window keep all positions, too: a test begins at any depth.
        let groups = self.stage.limits().caches.len();
        let tables: Vec<Vec<BlockTable<'_>>> =
            blocks.iter().map(|blocks| vec![BlockTable::whole(blocks); groups]).collect();
        let tokens: Vec<u32> = self.random_tokens().take(case.tokens() as usize).collect();
        let begin = Instant::now();
        if case.prefill {
            self.prefill(case, &tables[0], &tokens)?
        } else {
            self.decode(case, &tables, &tokens[..case.batch as usize])?
        }
        Ok(begin.elapsed())
    }

    /// Chunk by chunk; of the last one the last row is sampled, as for a request.
    fn prefill(
        &mut self,
        case: &Case,
        tables: &[BlockTable<'_>],
        tokens: &[u32],
    ) -> Result<(), String> {
        let mut rest = tokens;
        for (position, token_count) in case.chunks() {
            let (now, later) = rest.split_at(token_count as usize);
            let sample_rows = u32::from(later.is_empty());
            let chunk = ChunkRef { position, token_count, sample_rows, tables };
            self.step(&[chunk], now)?;
            rest = later;
        }
        Ok(())
    }

    /// One token of each sequence after another, each the one that was sampled before.
    fn decode(
        &mut self,
        case: &Case,
        tables: &[Vec<BlockTable<'_>>],
        first: &[u32],
    ) -> Result<(), String> {
        let mut tokens = first.to_vec();
        for position in case.depth..case.positions() {
            let chunk = |tables| ChunkRef { position, token_count: 1, sample_rows: 1, tables };
            let chunks: Vec<ChunkRef<'_>> = tables.iter().map(|tables| chunk(tables)).collect();
            self.step(&chunks, &tokens)?;
            for (token, result) in tokens.iter_mut().zip(&self.results) {
                *token = result.token().map_or(0, |chosen| chosen.token);
            }
        }
        Ok(())
    }

    /// A forward, then the most likely token of each row that is sampled.
    fn step(&mut self, chunks: &[ChunkRef<'_>], tokens: &[u32]) -> Result<(), String> {
        let batch = Batch::new(chunks, self.stage.limits()).map_err(|error| error.to_string())?;
        self.stage
            .forward(&batch, Input::Tokens(tokens), &self.progress)
            .map_err(|error| error.to_string())?;
        let requests =
            vec![RowRequest::Sample { params: &GREEDY, top: 0 }; batch.sample_rows().count()];
        self.results.clear();
        self.stage
            .sample(&batch, &requests, &mut self.results)
            .map_err(|error| error.to_string())?;
        if self.results.iter().any(|result| result.token().is_none()) {
            Err("the model's logits are not finite".to_owned())
        } else {
            Ok(())
        }
    }

    /// The same ids in every run, below the vocabulary.
    fn random_tokens(&self) -> impl Iterator<Item = u32> + use<> {
        let vocab = u64::from(self.vocab);
        let mut state = 0u64;
        std::iter::repeat_with(move || {
            // SplitMix64, of which the high half is scaled.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (((mixed >> 32) * vocab) >> 32) as u32
        })
    }
}

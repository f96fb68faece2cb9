//! A toy model whose tokens are a hash of everything that a sequence has computed so far.
//!
//! A layer writes one hash per position into the slot of a block, and its output is a fold over all
//! slots of the sequence, read through the block table: a slot that is misplaced, lost, stale or
//! shared changes every token after it. As with real ones, a cut changes nothing. [`expected`] computes
//! the same without blocks, alone.

use super::rng::mix;
use super::toy_guide::{ToyGuide, choose};
use crate::generation::{Failure, FinishReason, GenerationEvent, GenerationRequest, TokenEvent};
use crate::guides::Next;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use woolly_protocol::forward::{BlockLimits, Forward, TableSpan};
use woolly_protocol::ids::BlockId;
use woolly_protocol::sampling::{
    RowMode, SampleBy, Sampled, SampledRow, SampledToken, Sampling, SamplingParams, SamplingRow,
    TokenMask,
};

/// Layers of the model, as many as the tiny one has whose layout is cut in tests.
pub(crate) const LAYERS: usize = 8;
/// Token ids are below this.
pub(crate) const VOCAB: u64 = 40;
/// Seeds divisible by this meet values that are not finite now and then.
pub(crate) const FRAGILE_SEED: u64 = 7;
const FRAGILE_ROW: u64 = 61;
const POISON: u64 = 0x0bad_0bad_0bad_0bad;

/// One stage: its layers with their KV slots.
pub(crate) struct ToyStage {
    layers: Vec<Layer>,
}

struct Layer {
    index: u64,
    /// Its cache group.
    group: usize,
    window: Option<u32>,
    slots: Vec<[u64; 32]>,
}

/// The cache group of a layer: they take turns.
fn group_of(layer: usize, groups: usize) -> usize {
    layer % groups
}

/// The layers of each of so many stages.
pub(crate) fn cut(stages: usize) -> Vec<Range<usize>> {
    (0..stages).map(|stage| stage * LAYERS / stages..(stage + 1) * LAYERS / stages).collect()
}

impl ToyStage {
    /// A stage whose slots were never written, with one cache group that remembers all positions.
    pub(crate) fn new(layers: Range<usize>, blocks: u32) -> Self {
        Self::of_groups(layers, &[BlockLimits { count: blocks, window: None }])
    }

    /// One whose layers are in these groups by turns.
    pub(crate) fn of_groups(layers: Range<usize>, groups: &[BlockLimits]) -> Self {
        let layer = |index: usize| {
            let group = group_of(index, groups.len());
            let BlockLimits { count, window } = groups[group];
            Layer { index: index as u64, group, window, slots: vec![[POISON; 32]; count as usize] }
        };
        Self { layers: layers.map(layer).collect() }
    }

    /// Computes a microbatch: one value per row in, one per row out. A layer writes the slots of all rows
    /// before it reads any, as real ones do.
    pub(crate) fn forward(&mut self, forward: &Forward, rows: &[u64]) -> Vec<u64> {
        let mut values = rows.to_vec();
        for layer in &mut self.layers {
            let tables = super::tables(forward, layer.group);
            let chunks = || forward.chunks.iter().zip(tables.spans.iter().zip(tables.tables()));
            let place = |(span, table): (&TableSpan, &[BlockId]), position: u32| {
                let block = table[position as usize / 32 - span.first as usize];
                (block.0 as usize, position as usize % 32)
            };
            let positions = || {
                chunks().flat_map(|(chunk, table)| {
                    let end = chunk.position + chunk.token_count;
                    (chunk.position..end).map(move |position| (table, position))
                })
            };
            assert_eq!(positions().count(), rows.len(), "rows of the payload");
            for ((table, position), value) in positions().zip(&values) {
                let (block, offset) = place(table, position);
                layer.slots[block][offset] = slot_value(layer.index, position, *value);
            }
            for ((table, position), value) in positions().zip(&mut values) {
                let begin = layer.window.map_or(0, |window| (position + 1).saturating_sub(window));
                let slot = |position| {
                    let (block, offset) = place(table, position);
                    layer.slots[block][offset]
                };
                *value = (begin..=position).map(slot).fold(0, fold);
            }
        }
        values
    }
}

fn slot_value(layer: u64, position: u32, input: u64) -> u64 {
    mix(mix(layer << 32 | u64::from(position)) ^ input)
}

fn fold(sum: u64, slot: u64) -> u64 {
    mix(sum.rotate_left(17) ^ slot)
}

/// What the last stage answers for one row with this output at this position.
fn answer(
    row: &SamplingRow,
    (params, masks): (&[SamplingParams], &[TokenMask]),
    position: u32,
    hidden: u64,
) -> SampledRow {
    let (token, hash, seed) = match &row.mode {
        RowMode::Score(target) => (*target, mix(hidden ^ u64::from(*target)), 1),
        RowMode::Sample(by) => {
            assert_eq!(by.position, position + 1, "the position that is sampled");
            let params = &params[by.params as usize];
            let hash = mix(hidden ^ hash_params(params) ^ mix(by.position.into()));
            let mask = by.mask.map(|mask| &masks[mask as usize]);
            (choose(hash, mask), hash, params.options.seed)
        }
    };
    if seed.is_multiple_of(FRAGILE_SEED) && hash.is_multiple_of(FRAGILE_ROW) {
        return SampledRow::NonFinite;
    }
    let top = (0..u32::from(row.top_logprobs)).map(|rank| (rank, logprob(hash))).collect();
    SampledRow::Token(SampledToken { token, logprob: logprob(hash), top })
}

/// What the last stage answers for a microbatch whose rows came out as `hidden`.
pub(crate) fn sampled(forward: &Forward, sampling: Option<&Sampling>, hidden: &[u64]) -> Sampled {
    let mut asked = sampling.iter().flat_map(|sampling| &sampling.rows);
    let (mut rows, mut end) = (Vec::new(), 0);
    for chunk in &forward.chunks {
        end += chunk.token_count as usize;
        for back in (0..u32::from(chunk.sample_rows)).rev() {
            let position = chunk.position + chunk.token_count - 1 - back;
            let row = asked.next().expect("as many rows as the chunks ask for");
            let lists = sampling.map_or((&[][..], &[][..]), |s| (&s.params, &s.masks));
            rows.push(answer(row, lists, position, hidden[end - 1 - back as usize]));
        }
    }
    Sampled { epoch: forward.epoch, microbatch: forward.microbatch, rows }
}

fn logprob(hash: u64) -> f32 {
    -f32::from(u16::try_from(hash >> 48).unwrap()) / 4096.0
}

fn hash_params(params: &SamplingParams) -> u64 {
    let mut text = format!("{params:?}").into_bytes();
    text.resize(text.len().next_multiple_of(8), 0);
    let words = text.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap()));
    words.fold(0, fold)
}

/// All events of a request that runs alone and undisturbed, computed without blocks or chunks, of a model
/// whose layers remember all positions.
pub(crate) fn expected(request: &GenerationRequest, positions_max: usize) -> Vec<GenerationEvent> {
    expected_with(&[None], request, positions_max)
}

/// The same of one with these windows.
pub(crate) fn expected_with(
    windows: &[Option<u32>],
    request: &GenerationRequest,
    positions_max: usize,
) -> Vec<GenerationEvent> {
    let layers = (0..LAYERS).map(|layer| (windows[group_of(layer, windows.len())], Vec::new()));
    let layers = layers.collect();
    let mut run = Alone { request, layers, sums: vec![0; LAYERS], position: 0, events: Vec::new() };
    run.all(positions_max);
    run.events
}

struct Alone<'a> {
    request: &'a GenerationRequest,
    /// The window of each layer, and its slots if there is one.
    layers: Vec<(Option<u32>, Vec<u64>)>,
    /// The fold of each layer's slots so far.
    sums: Vec<u64>,
    position: u32,
    events: Vec<GenerationEvent>,
}

impl Alone<'_> {
    fn all(&mut self, positions_max: usize) {
        let mut tokens = self.request.prompt.clone();
        let mut scored = Vec::new();
        let mut hidden = 0;
        for index in 0..tokens.len() {
            hidden = self.compute(tokens[index]);
            if self.request.score_prompt && index + 1 < tokens.len() {
                let mode = RowMode::Score(tokens[index + 1]);
                let Some(event) = self.ask(mode, (&[], &[]), hidden) else { return };
                scored.push(event);
            }
        }
        if self.request.score_prompt {
            self.events.push(GenerationEvent::Scored(scored));
        }
        let guided = self.request.guided.is_some() && self.request.max_tokens > 0;
        let (mut guide, mut next) = guided.then(|| ToyGuide::of(self.request)).unzip();
        let most = positions_max.min(tokens.len() + self.request.max_tokens as usize);
        while tokens.len() < most {
            let mask = match next.take() {
                None => None,
                Some(Next::Fails(_)) => return self.events.push(failed("grammar_limit")),
                Some(Next::Ends { forced }) => {
                    let ends = self.append(&forced, &mut tokens, &mut hidden, most);
                    return self.finish(ends.unwrap_or(FinishReason::Stop));
                }
                Some(Next::Goes { forced, mask }) => {
                    if let Some(reason) = self.append(&forced, &mut tokens, &mut hidden, most) {
                        return self.finish(reason);
                    }
                    mask.map(|mask| (*mask).clone())
                }
            };
            let output = &tokens[self.request.prompt.len()..];
            let limits = self.request.limits.as_ref();
            let limit = |mask: Option<TokenMask>| match limits {
                Some(limits) => limits
                    .of(output, mask.map(Arc::new))
                    .map(|mask| mask.map(|mask| (*mask).clone())),
                None => Ok(mask),
            };
            let Ok(mask) = limit(mask) else {
                return self.events.push(failed("no_token_allowed"));
            };
            let position = u32::try_from(tokens.len()).unwrap();
            let index = mask.is_some().then_some(0);
            let mode = RowMode::Sample(SampleBy { params: 0, position, mask: index });
            let (params, masks) = ([self.params(&tokens)], Vec::from_iter(mask));
            let Some(event) = self.ask(mode, (&params, &masks), hidden) else { return };
            let token = event.token;
            self.events.push(GenerationEvent::Token(event));
            tokens.push(token);
            if self.request.stop_tokens.contains(&token) {
                return self.finish(FinishReason::Stop);
            }
            next = guide.as_mut().map(|guide| guide.next(token));
            hidden = self.compute(token);
        }
        self.finish(FinishReason::Length);
    }

    /// Tokens that the grammar forces. Why they end the completion, if they do.
    fn append(
        &mut self,
        forced: &[u32],
        tokens: &mut Vec<u32>,
        hidden: &mut u64,
        most: usize,
    ) -> Option<FinishReason> {
        let scores = self.request.top_logprobs.is_some() || self.request.score_prompt;
        for token in forced {
            let event = if scores {
                self.ask(RowMode::Score(*token), (&[], &[]), *hidden)?
            } else {
                TokenEvent { token: *token, logprob: 0.0, top: Vec::new() }
            };
            self.events.push(GenerationEvent::Token(event));
            tokens.push(*token);
            if self.request.stop_tokens.contains(token) {
                return Some(FinishReason::Stop);
            }
            if tokens.len() == most {
                return Some(FinishReason::Length);
            }
            *hidden = self.compute(*token);
        }
        None
    }

    fn finish(&mut self, reason: FinishReason) {
        self.events.push(GenerationEvent::Finished { reason, cached_tokens: 0 });
    }

    fn compute(&mut self, token: u32) -> u64 {
        let mut value = u64::from(token);
        for (index, ((window, slots), sum)) in
            self.layers.iter_mut().zip(&mut self.sums).enumerate()
        {
            let slot = slot_value(index as u64, self.position, value);
            value = match *window {
                None => fold(*sum, slot),
                Some(window) => {
                    slots.push(slot);
                    let begin = slots.len().saturating_sub(window as usize);
                    slots[begin..].iter().copied().fold(0, fold)
                }
            };
            *sum = value;
        }
        self.position += 1;
        value
    }

    fn ask(
        &mut self,
        mode: RowMode,
        lists: (&[SamplingParams], &[TokenMask]),
        hidden: u64,
    ) -> Option<TokenEvent> {
        let top_logprobs = self.request.top_logprobs.unwrap_or(0);
        let row = SamplingRow { top_logprobs, mode };
        let SampledRow::Token(row) = answer(&row, lists, self.position - 1, hidden) else {
            self.events.push(failed("model_numerics"));
            return None;
        };
        Some(TokenEvent { token: row.token, logprob: row.logprob, top: row.top })
    }

    fn params(&self, tokens: &[u32]) -> SamplingParams {
        let mut options = self.request.sampling.clone();
        if let Some(dry) = &self.request.dry {
            let mut bias: BTreeMap<u32, f32> = options.logit_bias.iter().copied().collect();
            for (token, penalty) in dry.penalties(tokens) {
                *bias.entry(token).or_insert(0.0) -= penalty;
            }
            options.logit_bias = bias.into_iter().collect();
        }
        let counts = |tokens: &[u32]| {
            let mut counts = BTreeMap::new();
            tokens.iter().for_each(|token| *counts.entry(*token).or_insert(0) += 1);
            counts.into_iter().collect::<Vec<(u32, u32)>>()
        };
        let (repetition, others) = (options.counts_prompt(), options.counts_output());
        let completion = &tokens[self.request.prompt.len()..];
        SamplingParams {
            options,
            prompt_counts: if repetition { counts(tokens) } else { Vec::new() },
            output_counts: if others { counts(completion) } else { Vec::new() },
        }
    }
}

/// A failure with this code, whatever its message.
pub(crate) fn failed(code: &'static str) -> GenerationEvent {
    GenerationEvent::Failed(Failure { code, message: String::new() })
}

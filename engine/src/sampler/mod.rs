//! Logits to a token, and log-probabilities.
//!
//! Log-probabilities are of the raw logits. A sampled token is chosen in this order: repetition
//! penalty, frequency and presence penalties, bias, mask; greedy if the temperature is 0; otherwise
//! temperature, top-k, top-p, min-p, XTC, and one draw over what is left in ascending order of token id.
//! The random numbers are functions of (seed, choice, position) alone. Ties go to the lowest id.

mod draw;

use crate::kernels::{Level, elementwise};
use crate::math;

/// What to do with one row of logits.
#[derive(Clone, Copy, Debug)]
pub enum RowRequest<'a> {
    /// Report the log-probability of a given token.
    Score {
        /// The token; below the vocabulary's size.
        target: u32,
        /// The most likely tokens to report.
        top: usize,
    },
    /// Choose a token.
    Sample {
        /// How.
        params: &'a SampleParams<'a>,
        /// The most likely tokens to report.
        top: usize,
    },
}

/// How a token is chosen; the caller has checked the ranges.
#[derive(Clone, Copy, Debug)]
pub struct SampleParams<'a> {
    /// 0 is greedy.
    pub temperature: f32,
    /// 0 keeps all.
    pub top_k: u32,
    /// 1 keeps all.
    pub top_p: f32,
    /// 0 keeps all.
    pub min_p: f32,
    /// How likely it is that the most likely tokens are left out; 0 is off.
    pub xtc_probability: f32,
    /// Of the tokens at least this likely only the least likely stays then; above 0.5 is off.
    pub xtc_threshold: f32,
    /// 1 is off.
    pub repetition_penalty: f32,
    /// 0 is off.
    pub frequency_penalty: f32,
    /// 0 is off.
    pub presence_penalty: f32,
    /// The request's seed.
    pub seed: u64,
    /// The index of the choice in its request.
    pub choice: u32,
    /// The position that is sampled.
    pub position: u32,
    /// Added to logits; ascending ids.
    pub logit_bias: &'a [(u32, f32)],
    /// Tokens of prompt and completion with their counts (repetition); ascending ids.
    pub prompt_counts: &'a [(u32, u32)],
    /// Tokens of the completion with their counts (frequency, presence); ascending ids.
    pub output_counts: &'a [(u32, u32)],
    /// Which tokens may be chosen; `None` allows all.
    pub mask: Option<TokenMask<'a>>,
}

/// The tokens that may be chosen. Ids are below the vocabulary's size.
#[derive(Clone, Copy, Debug)]
pub enum TokenMask<'a> {
    /// Only these; ascending ids.
    Only(&'a [u32]),
    /// All but these.
    AllBut(&'a [u32]),
    /// One bit per id, lowest first.
    Bits(&'a [u64]),
}

impl SampleParams<'_> {
    /// Whether the most likely token is the choice, whatever it is.
    fn is_greedy(&self) -> bool {
        self.temperature == 0.0
            && self.repetition_penalty == 1.0
            && self.frequency_penalty == 0.0
            && self.presence_penalty == 0.0
            && self.logit_bias.is_empty()
            && self.mask.is_none()
    }
}

/// What came of one row.
#[derive(Clone, Debug, PartialEq)]
pub enum RowResult {
    /// A token was chosen or scored.
    Token(RowToken),
    /// The logits were not finite: the request fails.
    NonFinite,
    /// The mask allowed no token that has a chance: the request fails.
    NothingAllowed,
}

/// A token with its log-probabilities.
#[derive(Clone, Debug, PartialEq)]
pub struct RowToken {
    /// The chosen token, or the target.
    pub token: u32,
    /// Its log-probability.
    pub logprob: f32,
    /// The most likely tokens, best first.
    pub top: Vec<(u32, f32)>,
}

impl RowResult {
    /// The token, if there is one.
    pub fn token(&self) -> Option<&RowToken> {
        match self {
            Self::Token(token) => Some(token),
            Self::NonFinite | Self::NothingAllowed => None,
        }
    }
}

/// Room for choosing tokens, allocated once.
#[derive(Debug)]
pub struct Sampler {
    level: Level,
    candidates: Vec<(f32, u32)>,
    /// The row as it came: log-probabilities are of these.
    raw: Vec<f32>,
}

impl Sampler {
    /// A sampler for a vocabulary of `vocab` tokens.
    pub fn new(level: Level, vocab: usize) -> Self {
        Self { level, candidates: Vec::with_capacity(vocab), raw: Vec::with_capacity(vocab) }
    }

    /// Bytes of its buffers.
    pub fn bytes(&self) -> u64 {
        (self.candidates.capacity() * size_of::<(f32, u32)>() + self.raw.capacity() * 4) as u64
    }

    /// Does what `request` asks with one row of logits, which it may change.
    ///
    /// # Panics
    ///
    /// If a token id is not below `logits.len()`.
    pub fn row(&mut self, logits: &mut [f32], request: &RowRequest<'_>) -> RowResult {
        let mut max = None;
        elementwise::finite_max(self.level, logits, &mut max);
        let Some(max) = max else { return RowResult::NonFinite };
        let mut total = 0.0;
        elementwise::sum_exp(self.level, logits, max, &mut total);
        let log_total = f64::from(max) + math::ln64(total);
        let logprob = |logit: f32| (f64::from(logit) - log_total) as f32;
        let (RowRequest::Score { top, .. } | RowRequest::Sample { top, .. }) = *request;
        let top = most_likely(logits, top).into_iter().map(|(t, l)| (t, logprob(l))).collect();
        let token = match request {
            RowRequest::Score { target, .. } => Some((*target, logits[*target as usize])),
            RowRequest::Sample { params, .. } if params.is_greedy() => {
                let token = logits.iter().position(|logit| *logit == max);
                token.map(|token| (token as u32, max))
            }
            RowRequest::Sample { params, .. } => self.sample(logits, params),
        };
        match token {
            Some((token, logit)) => {
                RowResult::Token(RowToken { token, logprob: logprob(logit), top })
            }
            // The logits are finite and a bias is, too: only a mask leaves nothing.
            None => RowResult::NothingAllowed,
        }
    }

    /// The chosen token with its raw logit.
    fn sample(&mut self, logits: &mut [f32], params: &SampleParams<'_>) -> Option<(u32, f32)> {
        self.raw.clear();
        self.raw.extend_from_slice(logits);
        adjust(logits, params);
        let token = if params.temperature == 0.0 {
            best(logits)?.0
        } else {
            draw::draw(logits, params, &mut self.candidates)?
        };
        Some((token, self.raw[token as usize]))
    }
}

/// Penalties, bias and mask, in this order.
fn adjust(logits: &mut [f32], params: &SampleParams<'_>) {
    if params.repetition_penalty != 1.0 {
        for (token, _) in params.prompt_counts {
            let logit = &mut logits[*token as usize];
            let r = params.repetition_penalty;
            *logit = if *logit > 0.0 { *logit / r } else { *logit * r };
        }
    }
    if params.frequency_penalty != 0.0 || params.presence_penalty != 0.0 {
        for (token, count) in params.output_counts {
            let less = params.frequency_penalty * *count as f32 + params.presence_penalty;
            logits[*token as usize] -= less;
        }
    }
    for (token, bias) in params.logit_bias {
        logits[*token as usize] += bias;
    }
    if let Some(mask) = params.mask {
        mask.apply(logits);
    }
}

impl TokenMask<'_> {
    /// Takes every chance from the tokens that may not be chosen.
    fn apply(self, logits: &mut [f32]) {
        match self {
            Self::Only(ids) => {
                let mut next = 0;
                for id in ids {
                    logits[next..*id as usize].fill(f32::NEG_INFINITY);
                    next = *id as usize + 1;
                }
                logits[next..].fill(f32::NEG_INFINITY);
            }
            Self::AllBut(ids) => {
                ids.iter().for_each(|id| logits[*id as usize] = f32::NEG_INFINITY);
            }
            Self::Bits(words) => {
                for (token, logit) in logits.iter_mut().enumerate() {
                    let word = words.get(token / 64).copied().unwrap_or(0);
                    if (word >> (token % 64)) & 1 == 0 {
                        *logit = f32::NEG_INFINITY;
                    }
                }
            }
        }
    }
}

/// The largest logit above −∞; the lowest id among equals.
fn best(logits: &[f32]) -> Option<(u32, f32)> {
    let mut best: Option<(u32, f32)> = None;
    for (token, logit) in (0u32..).zip(logits) {
        if *logit > best.map_or(f32::NEG_INFINITY, |b| b.1) {
            best = Some((token, *logit));
        }
    }
    best
}

/// The `count` largest logits, best first, lower ids first among equals.
fn most_likely(logits: &[f32], count: usize) -> Vec<(u32, f32)> {
    let count = count.min(logits.len());
    let mut top: Vec<(u32, f32)> = Vec::with_capacity(count);
    if count == 0 {
        return top;
    }
    for (token, logit) in (0u32..).zip(logits) {
        if top.len() == count && *logit <= top[count - 1].1 {
            continue;
        }
        top.truncate(count - 1);
        let at = top.partition_point(|(_, other)| *other >= *logit);
        top.insert(at, (token, *logit));
    }
    top
}

#[cfg(test)]
mod tests;

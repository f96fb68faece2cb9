//! `Sampling` (coordinator → last stage) and `Sampled` (last stage → coordinator).

use crate::ids::{MicrobatchId, PlanEpoch};
use rkyv::{Archive, Deserialize, Serialize};

/// What the last stage does with the rows of a microbatch that are sampled or scored.
///
/// Sent beside a `Forward` whose chunks ask for at least one row; rows in the order of the chunks.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Sampling {
    /// The plan of the microbatch.
    pub epoch: PlanEpoch,
    /// The microbatch that it belongs to.
    pub microbatch: MicrobatchId,
    /// One entry per sampled or scored row.
    pub rows: Vec<SamplingRow>,
}

/// One row: what to do and how many log-probabilities to report.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct SamplingRow {
    /// The most likely tokens to report beside the chosen one, 0 to `TOP_LOGPROBS_MAX`.
    pub top_logprobs: u8,
    /// Sample a token, or score a given one.
    pub mode: RowMode,
}

/// Sample a token, or score a given one.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub enum RowMode {
    /// Report the log-probability of this token.
    ///
    /// It is the one that really follows.
    Score(u32),
    /// Choose a token.
    Sample(SamplingParams),
}

/// How a token is chosen. The random number is a function of (seed, choice, position) alone.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct SamplingParams {
    /// 0 is greedy; otherwise logits are divided by it. Finite, 0 to 100.
    pub temperature: f32,
    /// Keep the k most likely tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep the smallest set of tokens whose probability reaches it; 1 keeps all. In (0, 1].
    pub top_p: f32,
    /// Keep tokens at least this fraction as likely as the best; 0 keeps all. In [0, 1].
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of counted tokens; 1 is off. Above 0.
    pub repetition_penalty: f32,
    /// Subtracted from a counted token's logit, times its count; 0 is off.
    pub frequency_penalty: f32,
    /// Subtracted from a counted token's logit once; 0 is off.
    pub presence_penalty: f32,
    /// The request's seed.
    pub seed: u64,
    /// The index of the choice in its request.
    pub choice: u32,
    /// The position that is sampled: that of the row plus one.
    pub position: u32,
    /// Added to the logits of single tokens; ascending token ids.
    pub logit_bias: Vec<(u32, f32)>,
    /// Tokens that repetition counts (prompt and completion) with their number; ascending ids.
    pub prompt_counts: Vec<(u32, u32)>,
    /// Tokens of the completion with their number (frequency and presence); ascending ids.
    pub output_counts: Vec<(u32, u32)>,
    /// Tokens that may be chosen, one bit per id; empty allows all.
    pub mask: Vec<u64>,
}

/// The answer to every `Forward`: exactly one, with no rows if none was asked for.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Sampled {
    /// The plan of the microbatch.
    pub epoch: PlanEpoch,
    /// The microbatch that it answers.
    pub microbatch: MicrobatchId,
    /// One entry per row of the `Sampling`, in its order.
    pub rows: Vec<SampledRow>,
}

/// What came of one row.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct SampledRow {
    /// The chosen token, or the target that was scored.
    pub token: u32,
    /// Its log-probability (natural) from the raw logits.
    pub logprob: f32,
    /// The most likely tokens with their log-probabilities, best first, ties by lower id.
    pub top: Vec<(u32, f32)>,
    /// The logits were not finite: the request fails, `token` and `logprob` mean nothing.
    pub non_finite: bool,
}

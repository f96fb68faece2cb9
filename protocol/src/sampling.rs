//! `Sampling` (coordinator → last stage) and `Sampled` (last stage → coordinator).

use crate::check::{Check, MessageError};
use crate::frame::Message;
use crate::ids::{MicrobatchId, PlanEpoch};
use crate::kind::Kind;
use crate::limits::{
    CTX_MAX, LOGIT_BIAS_MAX, MASK_WORDS_MAX, PENALTY_TOKENS_MAX, ROWS_PER_MICROBATCH_MAX,
    TOP_LOGPROBS_MAX,
};
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

impl Sampling {
    /// Whether the message fits its `Forward` (`rows` of [`Forward::sample_rows`]) and the model's
    /// vocabulary: the number of rows, every token id, and the length of the masks.
    ///
    /// [`Forward::sample_rows`]: crate::forward::Forward::sample_rows
    ///
    /// # Errors
    ///
    /// Names the field, what was expected and what came.
    pub fn check_against(&self, rows: usize, vocab: u32) -> Result<(), MessageError> {
        let check = Check(Self::KIND);
        check.range("rows", self.rows.len(), rows..=rows)?;
        let highest = vocab.saturating_sub(1);
        for row in &self.rows {
            match &row.mode {
                RowMode::Score(target) => check.range("Score", *target, 0..=highest)?,
                RowMode::Sample(params) => params.check_against(check, highest)?,
            }
        }
        Ok(())
    }
}

impl SamplingParams {
    fn check(&self, check: Check) -> Result<(), MessageError> {
        check.range("temperature", self.temperature, 0.0..=100.0)?;
        check.range("top_p", self.top_p, f32::MIN_POSITIVE..=1.0)?;
        check.range("min_p", self.min_p, 0.0..=1.0)?;
        check.range("repetition_penalty", self.repetition_penalty, f32::MIN_POSITIVE..=f32::MAX)?;
        check.range("frequency_penalty", self.frequency_penalty, f32::MIN..=f32::MAX)?;
        check.range("presence_penalty", self.presence_penalty, f32::MIN..=f32::MAX)?;
        check.range("position", self.position, 1..=CTX_MAX)?;
        check.count("logit_bias", self.logit_bias.len(), 0..=LOGIT_BIAS_MAX)?;
        ascending(check, "logit_bias", &self.logit_bias)?;
        for (_, bias) in &self.logit_bias {
            check.range("logit_bias", *bias, f32::MIN..=f32::MAX)?;
        }
        counts(check, "prompt_counts", &self.prompt_counts)?;
        counts(check, "output_counts", &self.output_counts)?;
        check.count("mask", self.mask.len(), 0..=MASK_WORDS_MAX)?;
        let some = self.mask.is_empty() || self.mask.iter().any(|word| *word != 0);
        check.that(some, "mask", "at least one token, or no mask", "none")
    }

    fn check_against(&self, check: Check, highest: u32) -> Result<(), MessageError> {
        let last = |list: &[(u32, u32)]| list.last().map_or(0, |(token, _)| *token);
        let bias = self.logit_bias.last().map_or(0, |(token, _)| *token);
        check.range("logit_bias", bias, 0..=highest)?;
        check.range("prompt_counts", last(&self.prompt_counts), 0..=highest)?;
        check.range("output_counts", last(&self.output_counts), 0..=highest)?;
        let Some(end) = self.mask.last() else { return Ok(()) };
        let words = highest as usize / 64 + 1;
        check.count("mask", self.mask.len(), words..=words)?;
        // Bits of the last word past the vocabulary.
        let past = u64::MAX.checked_shl(highest % 64 + 1).unwrap_or(0);
        check.that(end & past == 0, "mask", "no bit past the vocabulary", "some")
    }
}

fn counts(check: Check, field: &'static str, list: &[(u32, u32)]) -> Result<(), MessageError> {
    check.count(field, list.len(), 0..=PENALTY_TOKENS_MAX)?;
    ascending(check, field, list)?;
    let none = list.iter().find(|(_, count)| *count == 0);
    check.that(none.is_none(), field, "counts above 0", "0")
}

fn ascending<T>(check: Check, field: &'static str, list: &[(u32, T)]) -> Result<(), MessageError> {
    let broken = list.windows(2).find(|pair| pair[0].0 >= pair[1].0);
    let found = broken.map_or(0, |pair| pair[1].0);
    check.that(broken.is_none(), field, "ascending token ids", found)
}

impl Message for Sampling {
    const KIND: Kind = Kind::Sampling;

    /// The part that holds for every model; see [`check_against`](Sampling::check_against).
    fn check(&self) -> Result<(), MessageError> {
        let check = Check(Self::KIND);
        check.not_zero("epoch", self.epoch.0.into())?;
        check.not_zero("microbatch", self.microbatch.0)?;
        check.count("rows", self.rows.len(), 1..=ROWS_PER_MICROBATCH_MAX)?;
        for row in &self.rows {
            check.range("top_logprobs", row.top_logprobs, 0..=TOP_LOGPROBS_MAX)?;
            if let RowMode::Sample(params) = &row.mode {
                params.check(check)?;
            }
        }
        Ok(())
    }
}

impl Message for Sampled {
    const KIND: Kind = Kind::Sampled;

    /// Log-probabilities must be numbers and not +inf; the lists must be in their order.
    fn check(&self) -> Result<(), MessageError> {
        let check = Check(Self::KIND);
        check.not_zero("epoch", self.epoch.0.into())?;
        check.not_zero("microbatch", self.microbatch.0)?;
        check.count("rows", self.rows.len(), 0..=ROWS_PER_MICROBATCH_MAX)?;
        for row in &self.rows {
            check.count("top", row.top.len(), 0..=usize::from(TOP_LOGPROBS_MAX))?;
            if row.non_finite {
                continue;
            }
            let limits = f32::NEG_INFINITY..=f32::MAX;
            check.range("logprob", row.logprob, limits.clone())?;
            for (_, logprob) in &row.top {
                check.range("top", *logprob, limits.clone())?;
            }
            let sorted = row.top.is_sorted_by(|a, b| a.1 > b.1 || (a.1 == b.1 && a.0 < b.0));
            check.that(sorted, "top", "best first, ties by lower id", "another order")?;
        }
        Ok(())
    }
}

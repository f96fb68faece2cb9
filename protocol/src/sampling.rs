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
/// What several rows share stands once: rows name it by its index.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Sampling {
    /// The plan of the microbatch.
    pub epoch: PlanEpoch,
    /// The microbatch that it belongs to.
    pub microbatch: MicrobatchId,
    /// How tokens are chosen.
    pub params: Vec<SamplingParams>,
    /// Which tokens may be chosen.
    pub masks: Vec<TokenMask>,
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
    /// Report the log-probability of this token, the one that follows in the text.
    Score(u32),
    /// Choose a token.
    Sample(SampleBy),
}

/// How the token of one row is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct SampleBy {
    /// An index of [`Sampling::params`].
    pub params: u32,
    /// The position that is sampled: that of the row plus one.
    pub position: u32,
    /// Which tokens may be chosen: an index of [`Sampling::masks`]; `None` allows all.
    pub mask: Option<u32>,
}

/// How a token is chosen, as a request asks for it. Random numbers are functions of (seed, choice,
/// position sampled) alone.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct SamplingOptions {
    /// 0 is greedy; otherwise logits are divided by it. Finite, 0 to 100.
    pub temperature: f32,
    /// Keep the k most likely tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep the smallest set of tokens whose probability reaches it; 1 keeps all. In (0, 1].
    pub top_p: f32,
    /// Keep tokens at least this fraction as likely as the best; 0 keeps all. In [0, 1].
    pub min_p: f32,
    /// How likely it is that the most likely tokens are left out for once; 0 is off. In [0, 1].
    pub xtc_probability: f32,
    /// Of the tokens at least this likely only the least likely stays then; above 0.5 is off. In [0, 1].
    pub xtc_threshold: f32,
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
    /// Added to the logits of single tokens; ascending token ids.
    pub logit_bias: Vec<(u32, f32)>,
}

/// The options of a request and what its penalties count.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct SamplingParams {
    /// What the request asks for.
    pub options: SamplingOptions,
    /// Tokens that repetition counts (prompt and completion) with their number; ascending ids.
    pub prompt_counts: Vec<(u32, u32)>,
    /// Tokens of the completion with their number (frequency and presence); ascending ids.
    pub output_counts: Vec<(u32, u32)>,
}

/// The tokens that may be chosen, in the shortest of three forms.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub enum TokenMask {
    /// Only these; ascending ids, at least one.
    Only(Vec<u32>),
    /// All but these; ascending ids.
    AllBut(Vec<u32>),
    /// One bit per id of the vocabulary, lowest first; at least one is set.
    Bits(Vec<u64>),
}

impl SamplingOptions {
    /// The most likely token, nothing changed.
    pub fn greedy() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            seed: 1,
            choice: 0,
            logit_bias: Vec::new(),
        }
    }

    /// Whether a penalty reads the tokens of prompt and completion.
    pub fn counts_prompt(&self) -> bool {
        self.repetition_penalty != 1.0
    }

    /// Whether a penalty reads the tokens of the completion.
    pub fn counts_output(&self) -> bool {
        self.frequency_penalty != 0.0 || self.presence_penalty != 0.0
    }
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
pub enum SampledRow {
    /// A token was chosen or scored.
    Token(SampledToken),
    /// The logits were not finite: the request fails.
    NonFinite,
    /// The mask allowed no token that has a chance: the request fails.
    NothingAllowed,
}

/// A token with its log-probabilities (natural, from the raw logits).
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct SampledToken {
    /// The chosen token, or the target that was scored.
    pub token: u32,
    /// Its log-probability.
    pub logprob: f32,
    /// The most likely tokens with their log-probabilities, best first, ties by lower id.
    pub top: Vec<(u32, f32)>,
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
        self.params.iter().try_for_each(|params| params.check_against(check, highest))?;
        self.masks.iter().try_for_each(|mask| mask.check_against(check, highest))?;
        for row in &self.rows {
            if let RowMode::Score(target) = row.mode {
                check.range("Score", target, 0..=highest)?;
            }
        }
        Ok(())
    }
}

impl SamplingRow {
    /// Bytes of an entry in an archive.
    pub const ARCHIVED_BYTES: usize = size_of::<rkyv::Archived<SamplingRow>>();

    fn check(&self, check: Check, params: usize, masks: usize) -> Result<(), MessageError> {
        check.range("top_logprobs", self.top_logprobs, 0..=TOP_LOGPROBS_MAX)?;
        let RowMode::Sample(SampleBy { params: index, position, mask }) = self.mode else {
            return Ok(());
        };
        check.range("position", position, 1..=CTX_MAX)?;
        let known = (index as usize) < params;
        check.that(known, "rows.params", format_args!("an index below {params}"), index)?;
        let index = mask.unwrap_or_default();
        let known = mask.is_none() || (index as usize) < masks;
        check.that(known, "rows.mask", format_args!("an index below {masks}"), index)
    }
}

impl SamplingOptions {
    fn check(&self, check: Check) -> Result<(), MessageError> {
        check.range("temperature", self.temperature, 0.0..=100.0)?;
        check.range("top_p", self.top_p, f32::MIN_POSITIVE..=1.0)?;
        check.range("min_p", self.min_p, 0.0..=1.0)?;
        check.range("xtc_probability", self.xtc_probability, 0.0..=1.0)?;
        check.range("xtc_threshold", self.xtc_threshold, 0.0..=1.0)?;
        check.range("repetition_penalty", self.repetition_penalty, f32::MIN_POSITIVE..=f32::MAX)?;
        check.range("frequency_penalty", self.frequency_penalty, f32::MIN..=f32::MAX)?;
        check.range("presence_penalty", self.presence_penalty, f32::MIN..=f32::MAX)?;
        check.count("logit_bias", self.logit_bias.len(), 0..=LOGIT_BIAS_MAX)?;
        ascending(check, "logit_bias", &self.logit_bias)?;
        let broken = self.logit_bias.iter().find(|(_, bias)| !bias.is_finite());
        let found = broken.map_or(0.0, |(_, bias)| *bias);
        check.that(broken.is_none(), "logit_bias", "finite numbers", found)
    }
}

impl SamplingParams {
    /// Bytes of an entry in an archive, its lists apart.
    pub const ARCHIVED_BYTES: usize = size_of::<rkyv::Archived<SamplingParams>>();

    fn check(&self, check: Check) -> Result<(), MessageError> {
        self.options.check(check)?;
        counts(check, "prompt_counts", &self.prompt_counts)?;
        counts(check, "output_counts", &self.output_counts)
    }

    fn check_against(&self, check: Check, highest: u32) -> Result<(), MessageError> {
        let last = |list: &[(u32, u32)]| list.last().map_or(0, |(token, _)| *token);
        let bias = self.options.logit_bias.last().map_or(0, |(token, _)| *token);
        check.range("logit_bias", bias, 0..=highest)?;
        check.range("prompt_counts", last(&self.prompt_counts), 0..=highest)?;
        check.range("output_counts", last(&self.output_counts), 0..=highest)
    }
}

impl TokenMask {
    /// Bytes of an entry in an archive, its list apart.
    pub const ARCHIVED_BYTES: usize = size_of::<rkyv::Archived<TokenMask>>();

    fn check(&self, check: Check) -> Result<(), MessageError> {
        let ids = match self {
            Self::Bits(words) => {
                check.count("masks", words.len(), 1..=MASK_WORDS_MAX)?;
                let some = words.iter().any(|word| *word != 0);
                return check.that(some, "masks", "at least one token", "none");
            }
            Self::Only(ids) => {
                check.that(!ids.is_empty(), "masks", "at least one token", "none")?;
                ids
            }
            Self::AllBut(ids) => ids,
        };
        check.count("masks", ids.len(), 0..=MASK_WORDS_MAX * 64)?;
        let broken = ids.windows(2).find(|pair| pair[0] >= pair[1]);
        let found = broken.map_or(0, |pair| pair[1]);
        check.that(broken.is_none(), "masks", "ascending token ids", found)
    }

    fn check_against(&self, check: Check, highest: u32) -> Result<(), MessageError> {
        let words = match self {
            Self::Only(ids) | Self::AllBut(ids) => {
                return check.range("masks", ids.last().copied().unwrap_or(0), 0..=highest);
            }
            Self::Bits(words) => words,
        };
        let expected = highest as usize / 64 + 1;
        check.count("masks", words.len(), expected..=expected)?;
        // Bits of the last word past the vocabulary.
        let past = u64::MAX.checked_shl(highest % 64 + 1).unwrap_or(0);
        let end = words.last().copied().unwrap_or(0);
        check.that(end & past == 0, "masks", "no bit past the vocabulary", "some")
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
        let (params, masks) = (self.params.len(), self.masks.len());
        check.count("params", params, 0..=self.rows.len())?;
        check.count("masks", masks, 0..=self.rows.len())?;
        self.params.iter().try_for_each(|params| params.check(check))?;
        self.masks.iter().try_for_each(|mask| mask.check(check))?;
        self.rows.iter().try_for_each(|row| row.check(check, params, masks))
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
            let SampledRow::Token(row) = row else { continue };
            check.count("top", row.top.len(), 0..=usize::from(TOP_LOGPROBS_MAX))?;
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

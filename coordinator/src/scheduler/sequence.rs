//! One prompt with its completion: the token log, what of it was sent, and what it asks to sample.

use super::caches::Table;
use super::limits::{PlanLimits, blocks_for, to_u32, to_usize};
use super::prefix_key::Name;
use crate::generation::{FinishReason, GenerationRequest, TokenEvent};
use crate::guides::limits::NothingLeft;
use std::sync::Arc;
use std::time::Duration;
use woolly_protocol::failpoint::planted;
use woolly_protocol::limits::LOGIT_BIAS_MAX;
use woolly_protocol::sampling::{SampledToken, SamplingParams, TokenMask};

/// A sequence's place among all that have started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank(pub(super) u64);

/// Where a sequence is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Holds no blocks and has nothing in flight.
    Waiting,
    /// Computes.
    Running,
    /// Has to give its blocks back and wait, as soon as nothing of it is in flight.
    Preempting,
    /// Finished, failed or cancelled; known only until nothing of it is in flight.
    Ended,
}

/// Which tokens may be chosen next.
#[derive(Clone, Debug)]
pub(super) enum Allowed {
    /// The guide has not said it yet: nothing can be sampled.
    Awaited,
    /// These; `None` is all.
    Known(Option<Arc<TokenMask>>),
}

/// A sequence. Its token log is the truth: everything else can be computed again from it.
#[derive(Debug)]
pub(super) struct Sequence {
    /// The request; its prompt has moved to `tokens`.
    pub(super) request: GenerationRequest,
    /// Prompt and completion.
    pub(super) tokens: Vec<u32>,
    pub(super) prompt_len: usize,
    /// Positions sent into the pipeline since the sequence last (re)started.
    pub(super) sent: usize,
    /// What it holds in each cache group; all end with the same position. Empty unless it has started.
    pub(super) tables: Vec<Table>,
    /// Microbatches in flight that hold a chunk of this sequence.
    pub(super) in_flight: u32,
    pub(super) phase: Phase,
    /// Its place among all that have started; `None` before it first starts.
    pub(super) rank: Option<Rank>,
    /// Extents that it still needs for what it had to compute when it (re)started.
    pub(super) reserved: usize,
    /// The content of its full extents, as far as it was needed.
    pub(super) names: Vec<Name>,
    /// Extents that were found in the cache or offered to it since it last (re)started.
    pub(super) offered: usize,
    /// Prompt tokens that the cache held when it first started.
    pub(super) cached_tokens: usize,
    /// How often it was preempted.
    pub(super) preemptions: u32,
    /// Since when it has to go on again after a plan ended: when its newest token came, or that it computed
    /// nothing yet to show. `None` if it need not.
    pub(super) replays_since: Option<Duration>,
    /// Whether it lost what it had computed with a plan.
    pub(super) was_set_back: bool,
    /// Plans that were lost while they computed it, since it last got on.
    pub(super) losses: u32,
    /// When it arrived.
    pub(super) arrived: Duration,
    /// When its newest token came.
    pub(super) token_at: Option<Duration>,
    /// When it fails if it has not ended.
    pub(super) deadline: Option<Duration>,
    /// The first row that has to be scored and was not.
    pub(super) scored_count: usize,
    /// Where the rows end that have to be scored: those of the prompt, and later those whose following token
    /// was not sampled.
    pub(super) score_end: usize,
    /// Their scores until they are reported, all at once.
    pub(super) scored: Vec<TokenEvent>,
    /// What its guide has said of the next token.
    pub(super) allowed: Allowed,
    /// Nothing is sampled any more: it ends so, when what has to be scored has come back.
    pub(super) ends: Option<FinishReason>,
    /// Tokens of prompt and completion with their number, ascending; empty unless a repetition
    /// penalty reads it.
    prompt_counts: Vec<(u32, u32)>,
    /// Tokens of the completion with their number, ascending; empty unless a frequency or presence
    /// penalty reads it.
    output_counts: Vec<(u32, u32)>,
}

impl Sequence {
    pub(super) fn new(mut request: GenerationRequest, arrived: Duration) -> Self {
        let tokens = std::mem::take(&mut request.prompt);
        let score_end = if request.score_prompt { tokens.len() - 1 } else { 0 };
        let mut sequence = Self {
            prompt_len: tokens.len(),
            tokens,
            sent: 0,
            tables: Vec::new(),
            in_flight: 0,
            phase: Phase::Waiting,
            rank: None,
            reserved: 0,
            names: Vec::new(),
            offered: 0,
            cached_tokens: 0,
            preemptions: 0,
            replays_since: None,
            was_set_back: false,
            losses: 0,
            arrived,
            token_at: None,
            deadline: request.time_limit.map(|limit| arrived + limit),
            scored_count: 0,
            score_end,
            scored: Vec::new(),
            allowed: Allowed::Known(None),
            ends: None,
            prompt_counts: Vec::new(),
            output_counts: Vec::new(),
            request,
        };
        if sequence.request.sampling.counts_prompt() {
            sequence.prompt_counts = counts_of(&sequence.tokens);
        }
        sequence
    }

    /// Positions that have to be computed for the next result. The last token of what is only scored is not
    /// among them: nobody asks what follows it.
    pub(super) fn compute_end(&self) -> usize {
        self.tokens.len() - usize::from(!self.samples())
    }

    /// Rows that can be sent now: the one that is sampled after only when it is known what may be.
    pub(super) fn pending(&self) -> usize {
        self.unsent() - usize::from(self.awaits_guide()).min(self.unsent())
    }

    /// Rows that are to be computed for the next result.
    pub(super) fn unsent(&self) -> usize {
        self.compute_end() - self.sent
    }

    /// Whether its guide is asked what may come next.
    pub(super) fn awaits_guide(&self) -> bool {
        matches!(self.allowed, Allowed::Awaited)
    }

    /// Whether another token is wanted.
    fn samples(&self) -> bool {
        self.request.max_tokens > 0 && self.ends.is_none()
    }

    /// Blocks that are missing before so many more rows can be sent.
    pub(super) fn blocks_missing(&self, rows: usize) -> usize {
        let end = self.tables.first().map_or(0, Table::end);
        blocks_for(self.sent + rows).saturating_sub(end)
    }

    /// Blocks that it holds in all groups.
    pub(super) fn blocks_held(&self) -> usize {
        self.tables.iter().map(|table| table.blocks.len()).sum()
    }

    /// Positions that it has at most when it ends, of `positions_max` that the plan allows.
    pub(super) fn longest(&self, positions_max: usize) -> usize {
        (self.prompt_len + to_usize(self.request.max_tokens)).min(positions_max)
    }

    /// Rows among the next `rows` that have to be scored: those that were not before a preemption.
    pub(super) fn rows_to_score(&self, rows: usize) -> std::ops::Range<usize> {
        let first = self.sent.max(self.scored_count);
        first..(self.sent + rows).min(self.score_end).max(first)
    }

    /// Whether rows are to be computed that a cache cannot give: their logits are wanted.
    pub(super) fn wants_scores(&self) -> bool {
        self.request.score_prompt || self.scored_count < self.score_end
    }

    /// Whether a new token is sampled after the next `rows` rows.
    pub(super) fn samples_after(&self, rows: usize) -> bool {
        self.samples() && self.sent + rows == self.tokens.len()
    }

    /// Which tokens may be chosen after its last one; `None` is all.
    pub(super) fn mask(&self) -> Option<&TokenMask> {
        match &self.allowed {
            Allowed::Awaited => None,
            Allowed::Known(mask) => mask.as_deref(),
        }
    }

    /// The token that follows a row, which is scored.
    pub(super) fn score_target(&self, index: usize) -> u32 {
        self.tokens[index + 1]
    }

    /// Remembers which tokens may come next: of those that its guide allows, `None` being all, those that its
    /// limits allow.
    ///
    /// # Errors
    ///
    /// None may.
    pub(super) fn allow(&mut self, guide: Option<Arc<TokenMask>>) -> Result<(), NothingLeft> {
        let mask = match &self.request.limits {
            Some(limits) => limits.of(&self.tokens[self.prompt_len..], guide)?,
            None => guide,
        };
        self.allowed = Allowed::Known(mask);
        Ok(())
    }

    /// How the next token is chosen: a function of the log.
    pub(super) fn sampling_params(&self) -> SamplingParams {
        let mut options = self.request.sampling.clone();
        if let Some(dry) = &self.request.dry {
            subtract(&mut options.logit_bias, dry.penalties(&self.tokens));
        }
        SamplingParams {
            options,
            prompt_counts: self.prompt_counts.clone(),
            output_counts: self.output_counts.clone(),
        }
    }

    /// Entries of all lists in its parameters, to know their size before they are made.
    pub(super) fn sampling_entries(&self) -> usize {
        let own = self.request.sampling.logit_bias.len();
        let bias = if self.request.dry.is_some() { LOGIT_BIAS_MAX } else { own };
        bias + self.prompt_counts.len() + self.output_counts.len()
    }

    /// Tokens to report per row.
    pub(super) fn top(&self) -> u8 {
        self.request.top_logprobs.unwrap_or(0)
    }

    /// Writes a new token into the log.
    pub(super) fn commit(&mut self, now: Duration, token: u32) {
        self.tokens.push(token);
        self.losses = 0;
        self.token_at = Some(now);
        if self.request.sampling.counts_prompt() {
            count(&mut self.prompt_counts, token);
        }
        if self.request.sampling.counts_output() {
            count(&mut self.output_counts, token);
        }
    }

    /// Why it ends with this token, its newest, if it does.
    pub(super) fn ends_with(&self, token: u32, plan: &PlanLimits) -> Option<FinishReason> {
        let positions_max = plan.positions_max_with(has_penalties(&self.request));
        let is_full = self.tokens.len() >= positions_max
            || self.output_len() >= to_usize(self.request.max_tokens);
        if self.request.stop_tokens.contains(&token) {
            Some(FinishReason::Stop)
        } else {
            is_full.then_some(FinishReason::Length)
        }
    }

    /// Forgets what was computed: the plan has ended. Returns how many positions that were.
    pub(super) fn set_back(&mut self) -> usize {
        if self.rank.is_some() {
            self.was_set_back = true;
            self.losses += u32::from(self.in_flight > 0);
            // A stream's pause began with its last token; who has none yet only waits longer for the first.
            let since = self.replays_since.or(self.token_at);
            self.replays_since = since.filter(|_| self.output_len() > 0);
        }
        self.phase = Phase::Waiting;
        (self.in_flight, self.reserved, self.offered) = (0, 0, 0);
        self.token_at = None;
        if planted("send-before-commit") && self.output_len() > 0 {
            self.tokens.pop();
        }
        self.tables.clear();
        std::mem::take(&mut self.sent)
    }

    /// Tokens of the completion so far.
    pub(super) fn output_len(&self) -> usize {
        self.tokens.len() - self.prompt_len
    }
}

/// Whether any penalty is on.
pub(super) fn has_penalties(request: &GenerationRequest) -> bool {
    request.sampling.counts_prompt() || request.sampling.counts_output()
}

/// Subtracts penalties from biases, both in the order of ids. A row has so many biases at most: what the
/// request itself says stays, then the largest penalties.
fn subtract(bias: &mut Vec<(u32, f32)>, mut penalties: Vec<(u32, f32)>) {
    let mut room = LOGIT_BIAS_MAX - bias.len();
    let is_new = |token: u32, bias: &[(u32, f32)]| {
        bias.binary_search_by_key(&token, |entry| entry.0).is_err()
    };
    let own = bias.clone();
    penalties.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    for (token, penalty) in penalties {
        if !is_new(token, &own) {
            let at = bias.iter().position(|entry| entry.0 == token).expect("it is not new");
            bias[at].1 -= penalty;
        } else if room > 0 {
            bias.push((token, -penalty));
            room -= 1;
        }
    }
    bias.sort_unstable_by_key(|entry| entry.0);
}

fn counts_of(tokens: &[u32]) -> Vec<(u32, u32)> {
    let mut sorted = tokens.to_vec();
    sorted.sort_unstable();
    sorted.chunk_by(|a, b| a == b).map(|run| (run[0], to_u32(run.len()))).collect()
}

fn count(counts: &mut Vec<(u32, u32)>, token: u32) {
    match counts.binary_search_by_key(&token, |entry| entry.0) {
        Ok(index) => counts[index].1 += 1,
        Err(index) => counts.insert(index, (token, 1)),
    }
}

/// A row as the client is told.
pub(super) fn token_event(row: SampledToken) -> TokenEvent {
    let SampledToken { token, logprob, top } = row;
    TokenEvent { token, logprob, top }
}

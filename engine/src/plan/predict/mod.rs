//! How fast a plan would be, by a model of time that is written down in `docs/planning.md`.
//!
//! Pure arithmetic: what a plan's stages read and multiply, over what their workers and the links between them do
//! in a second. It decides nothing; what layers are cut by is [`cut`](super::cut()).
//!
//! ```text
//! link      = round trip ÷ 2 + bytes ÷ bandwidth
//! through   = all stages and all links, one after the other
//! decode    = max(through, what the busiest stage computes for all groups, what the busiest link carries)   one token each
//! prompt    = (chunks − 1) × max(the slowest stage, the busiest link, through ÷ in flight) + through of the last chunk
//! ```

mod stage_time;

pub use stage_time::StageSpeed;

use std::ops::Range;

use super::layout::ModelLayout;
use crate::kv::KvType;
use stage_time::{Forward, StageTime};

/// Numbers of groups whose periods differ by less than this part count as equal: the fewer ones are taken, as the
/// scheduler does.
const TIE: f64 = 0.01;
/// Sizes of chunks that are compared for a prompt, as the scheduler does, beside the most that a forward may have.
const CHUNKS: [u32; 17] =
    [8, 16, 24, 32, 48, 64, 96, 128, 160, 192, 256, 320, 384, 512, 768, 1024, 1536];
/// What is busy for this part of the time holds all up.
const BUSY: f64 = 0.9;
/// Bytes of a row that is no hidden states: a token, where it stands, how it is chosen.
const ROW_BYTES: f64 = 32.0;
/// Bytes of a value of the hidden states.
const VALUE_BYTES: f64 = 4.0;

/// A way from one process to the next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// Seconds there and back; a forward takes half of them.
    pub round_trip_s: f64,
    /// Bytes that it carries in a second.
    pub bytes_per_s: f64,
}

impl Link {
    /// Seconds for which so many bytes keep it busy.
    fn busy_s(&self, bytes: f64) -> f64 {
        bytes / self.bytes_per_s.max(1.0)
    }

    /// Seconds until so many bytes are there.
    fn seconds(&self, bytes: f64) -> f64 {
        self.round_trip_s / 2.0 + self.busy_s(bytes)
    }
}

/// What holds the speed down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The way through all stages and links: there is too little on its way to keep one of them busy.
    Round,
    /// The slowest stage, which computes nearly all the time.
    Stage,
    /// The busiest link, which carries nearly all the time.
    Link,
}

impl Limit {
    /// Of so many seconds, in which the busiest stage computes and the busiest link carries for so many.
    fn of(seconds: f64, computing: f64, carrying: f64) -> Limit {
        if computing.max(carrying) < BUSY * seconds {
            Limit::Round
        } else if computing >= carrying {
            Limit::Stage
        } else {
            Limit::Link
        }
    }
}

/// Decoding as it is predicted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decode {
    /// Sequences.
    pub streams: u32,
    /// Groups in which they travel.
    pub groups: u32,
    /// Seconds in which each of them gets one token.
    pub period_s: f64,
    /// Of the time through, the part on links.
    pub links_s: f64,
    /// What holds it up.
    pub limit: Limit,
    /// The stage that takes longest for a group.
    pub stage: usize,
    /// The link that takes longest for a group: 0 leads from the coordinator to the first stage, the last one back.
    pub link: usize,
}

impl Decode {
    /// Tokens per second of all sequences together.
    pub fn tokens_per_s(&self) -> f64 {
        f64::from(self.streams) / self.period_s
    }
}

/// A prompt that is computed alone, as it is predicted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prompt {
    /// Its tokens.
    pub tokens: u32,
    /// Rows that travel together.
    pub chunk: u32,
    /// Seconds from its arrival to the first token of the answer.
    pub seconds: f64,
    /// What holds it up; [`Limit::Round`] is the time in which the pipeline fills and empties.
    pub limit: Limit,
    /// The stage that takes longest for a chunk.
    pub stage: usize,
    /// The link that takes longest for a chunk, as in [`Decode`].
    pub link: usize,
}

/// A plan's stages and the links between them.
#[derive(Debug)]
pub struct Pipeline<'a> {
    stages: Vec<StageTime<'a>>,
    links: Vec<Link>,
    /// Bytes of a row of hidden states.
    hidden_bytes: f64,
    rows_max: u32,
    in_flight_max: u32,
}

/// What a forward of so many rows takes.
struct Way {
    /// Of each stage.
    stages: Vec<f64>,
    /// Until it has come over each link.
    links: Vec<f64>,
    /// For which each link is busy.
    busy: Vec<f64>,
}

impl Way {
    fn links_s(&self) -> f64 {
        self.links.iter().sum()
    }

    /// On the last stage, and back.
    fn end_s(&self) -> f64 {
        let of = |all: &[f64]| all.last().copied().unwrap_or(0.0);
        of(&self.stages) + of(&self.links)
    }

    fn through_s(&self) -> f64 {
        self.stages.iter().sum::<f64>() + self.links_s()
    }
}

/// Place and value of the largest; the first of equals.
fn largest(values: &[f64]) -> (usize, f64) {
    let first = (0, values.first().copied().unwrap_or(0.0));
    let all = values.iter().copied().enumerate();
    all.fold(first, |best, (at, value)| if value > best.1 { (at, value) } else { best })
}

impl<'a> Pipeline<'a> {
    /// Stages with these layers on workers of these speeds. `links` lead from the coordinator to the first stage,
    /// from each to the next, and back: one more than there are stages. A forward has up to `rows_max` rows, and up
    /// to `in_flight_max` of them are on their way.
    ///
    /// # Panics
    /// If there is no stage, or another number of links.
    pub fn new(
        layout: &'a ModelLayout,
        kv_type: KvType,
        stages: impl IntoIterator<Item = (Range<u32>, StageSpeed)>,
        links: Vec<Link>,
        (rows_max, in_flight_max): (u32, u32),
    ) -> Self {
        let stages: Vec<StageTime<'a>> = stages
            .into_iter()
            .map(|(layers, speed)| StageTime::new(layout, kv_type, layers, speed))
            .collect();
        assert!(!stages.is_empty(), "a pipeline has a stage");
        assert_eq!(links.len(), stages.len() + 1, "a link to each stage, and one back");
        let hidden_bytes = VALUE_BYTES * f64::from(layout.hidden);
        let (rows_max, in_flight_max) = (rows_max.max(1), in_flight_max.max(1));
        Self { stages, links, hidden_bytes, rows_max, in_flight_max }
    }

    fn way(&self, forward: &Forward) -> Way {
        let hidden = f64::from(forward.rows) * self.hidden_bytes;
        let plain = f64::from(forward.rows) * ROW_BYTES;
        let last = self.stages.len();
        let bytes = |at: usize| if at == 0 || at == last { plain } else { hidden };
        let links = self.links.iter().enumerate();
        Way {
            stages: self.stages.iter().map(|stage| stage.seconds(forward)).collect(),
            links: links.clone().map(|(at, link)| link.seconds(bytes(at))).collect(),
            busy: links.map(|(at, link)| link.busy_s(bytes(at))).collect(),
        }
    }

    /// Decoding of so many sequences, each of which has so many positions behind it: in the number of groups
    /// that is fastest.
    pub fn decode(&self, streams: u32, positions: u32) -> Decode {
        let streams = streams.max(1);
        let least = streams.div_ceil(self.rows_max);
        let most = streams.min(self.in_flight_max).max(least);
        let mut best: Option<Decode> = None;
        for groups in least..=most {
            let found = self.in_groups(streams, groups, positions);
            if best.is_none_or(|best| found.period_s < best.period_s * (1.0 - TIE)) {
                best = Some(found);
            }
        }
        best.expect("there is a number of groups")
    }

    fn in_groups(&self, streams: u32, groups: u32, positions: u32) -> Decode {
        let rows = |rows: u32| Forward {
            rows,
            sampled: rows,
            sequences: rows,
            positions: f64::from(positions),
        };
        let (whole, larger) = (streams / groups, streams % groups);
        let most = self.way(&rows(whole + u32::from(larger > 0)));
        let least = if larger > 0 { Some(self.way(&rows(whole))) } else { None };
        let of_all = |most: &[f64], least: Option<&[f64]>| -> Vec<f64> {
            let count = if larger > 0 { larger } else { groups };
            let sum = |at: usize| {
                let others = least.map_or(0.0, |least| least[at] * f64::from(groups - larger));
                most[at] * f64::from(count) + others
            };
            (0..most.len()).map(sum).collect()
        };
        let computing = of_all(&most.stages, least.as_ref().map(|way| &way.stages[..]));
        let carrying = of_all(&most.busy, least.as_ref().map(|way| &way.busy[..]));
        let ((stage, computing), (busiest, carrying)) = (largest(&computing), largest(&carrying));
        let through = most.through_s();
        let period_s = through.max(computing).max(carrying);
        let limit = Limit::of(period_s, computing, carrying);
        let link = if limit == Limit::Link { busiest } else { largest(&most.links).0 };
        Decode { streams, groups, period_s, links_s: most.links_s(), limit, stage, link }
    }

    /// A prompt of so many tokens that is computed while nothing else is: in chunks of the size that is fastest.
    pub fn prompt(&self, tokens: u32) -> Prompt {
        let tokens = tokens.max(1);
        let sizes = CHUNKS.into_iter().filter(|size| *size < self.rows_max).chain([self.rows_max]);
        let prompts = sizes.map(|size| self.in_chunks(tokens, size.min(tokens)));
        let best = prompts.min_by(|a, b| a.seconds.total_cmp(&b.seconds));
        best.expect("there is a size")
    }

    fn in_chunks(&self, tokens: u32, chunk: u32) -> Prompt {
        // A row attends to half of the prompt on average.
        let positions = f64::from(tokens) / 2.0;
        let chunks = tokens.div_ceil(chunk);
        let forward = |rows, sampled| Forward { rows, sampled, sequences: 1, positions };
        let last = self.way(&forward(tokens - (chunks - 1) * chunk, 1));
        let whole = self.way(&forward(chunk, 0));
        let ((stage, computing), (link, _)) = (largest(&whole.stages), largest(&whole.links));
        let (busiest, carrying) = largest(&whole.busy);
        let apart = whole.through_s() / f64::from(self.in_flight_max);
        let (before, every) = (f64::from(chunks - 1), computing.max(carrying).max(apart));
        let seconds = before * every + last.through_s();
        // A last one that is small catches up with the one before it.
        let behind = whole.through_s() + last.end_s() - every;
        let seconds = if chunks > 1 { seconds.max(before * every + behind) } else { seconds };
        let (computing, carrying) =
            (before * computing + last.stages[stage], before * carrying + last.busy[busiest]);
        let limit = Limit::of(seconds, computing, carrying);
        let link = if limit == Limit::Link { busiest } else { link };
        Prompt { tokens, chunk, seconds, limit, stage, link }
    }
}

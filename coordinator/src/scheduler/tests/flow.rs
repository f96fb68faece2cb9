//! A cluster in virtual time for questions of speed: stages whose times are given as a function of
//! rows and of how many stages are at work, links with a delay, reports with the heartbeats.
//!
//! Stages that share a bus slow down the moment another begins, and speed up when it ends. It knows no
//! load: who asks for what, and when, is told to it.

use super::rng::Rng;
use super::{Step, answer_of, greedy, plan};
use crate::generation::GenerationEvent;
use crate::scheduler::CacheBlocks;
use crate::scheduler::{PlanLimits, Scheduler, SchedulerConfig, StageTiming};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use woolly_protocol::forward::Chunk;
use woolly_protocol::ids::{MicrobatchId, PlanEpoch, SequenceId};

/// Seconds that a stage takes for so many rows while so many stages are at work, itself included.
pub(super) type Cost = fn(rows: f64, at_work: f64) -> f64;

/// Time between two heartbeats of a worker.
const HEARTBEAT: f64 = 0.5;

enum Event {
    Reaches(usize, MicrobatchId),
    Answer(MicrobatchId),
    Heartbeat(usize),
}

/// What a stage computes.
struct Work {
    microbatch: MicrobatchId,
    rows: f64,
    /// The part that is still to do; more than 1 for one that takes longer than its rows cost.
    left: f64,
    began: f64,
    waited: f64,
}

struct Stage {
    cost: Cost,
    /// What its cost is multiplied by: its part of the model.
    part: f64,
    queue: VecDeque<MicrobatchId>,
    work: Option<Work>,
    idle_since: f64,
    busy: f64,
    reports: Vec<StageTiming>,
}

/// The cluster. Times are in seconds.
pub(super) struct Flow {
    pub(super) scheduler: Scheduler,
    pub(super) now: f64,
    link: f64,
    /// How much longer than its cost a forward may take, as a part of it; few take nearly all of it.
    pub(super) jitter: f64,
    /// Seconds that all stages together take for one position that one row attends to.
    pub(super) attention: f64,
    rng: Rng,
    stages: Vec<Stage>,
    agenda: BTreeMap<(u64, u64), Event>,
    order: u64,
    steps: BTreeMap<MicrobatchId, Step>,
    /// When each sequence was submitted, and how long its prompt is.
    pub(super) submitted: BTreeMap<SequenceId, (f64, u32)>,
    /// Sequences that have all their tokens.
    pub(super) finished: usize,
    /// When each sequence got its tokens.
    pub(super) tokens: BTreeMap<SequenceId, Vec<f64>>,
    /// Decode rows and prefill rows of the microbatches sent, with their time.
    pub(super) sent: Vec<(f64, usize, usize)>,
}

impl Flow {
    /// Stages with these costs; a message takes `link` seconds.
    pub(super) fn new(config: SchedulerConfig, costs: &[Cost], link: f64) -> Self {
        let parts: Vec<_> = costs.iter().map(|cost| (*cost, 1.0)).collect();
        Self::with_parts(config, &parts, link)
    }

    /// Stages that take a part of the time that each cost says.
    pub(super) fn with_parts(config: SchedulerConfig, stages: &[(Cost, f64)], link: f64) -> Self {
        let count = u32::try_from(stages.len()).unwrap();
        let limits = PlanLimits {
            stages: count,
            in_flight_max: PlanLimits::in_flight_max(count),
            ctx_size: 65_536,
            caches: CacheBlocks::all_positions(100_000),
            ..plan()
        };
        let mut scheduler = Scheduler::new(config);
        scheduler.handle_plan(Duration::ZERO, limits);
        let stage = |(cost, part): &(Cost, f64)| Stage {
            cost: *cost,
            part: *part,
            queue: VecDeque::new(),
            work: None,
            idle_since: 0.0,
            busy: 0.0,
            reports: Vec::new(),
        };
        let mut flow = Self {
            scheduler,
            now: 0.0,
            link,
            jitter: 0.0,
            attention: 0.0,
            rng: Rng(7),
            stages: stages.iter().map(stage).collect(),
            agenda: BTreeMap::new(),
            order: 0,
            steps: BTreeMap::new(),
            submitted: BTreeMap::new(),
            finished: 0,
            tokens: BTreeMap::new(),
            sent: Vec::new(),
        };
        (0..stages.len()).for_each(|stage| flow.at(HEARTBEAT, Event::Heartbeat(stage)));
        flow
    }

    /// A greedy request of so many tokens arrives now.
    pub(super) fn submit(&mut self, prompt: u32, max_tokens: u32) -> SequenceId {
        let request = greedy((0..prompt).collect(), max_tokens);
        let id = self.scheduler.handle_request(self.clock(), request).unwrap();
        self.submitted.insert(id, (self.now, prompt));
        self.drain();
        id
    }

    fn at(&mut self, after: f64, event: Event) {
        self.order += 1;
        self.agenda.insert((((self.now + after) * 1e9) as u64, self.order), event);
    }

    fn clock(&self) -> Duration {
        Duration::from_secs_f64(self.now)
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, seconds: f64) {
        let end = self.now + seconds;
        while self.turn(end) {}
    }

    /// Lets time pass until a sequence has so many tokens.
    pub(super) fn run_to_token(&mut self, id: SequenceId, count: usize) {
        let end = self.now + 10_000.0;
        while self.tokens.get(&id).map_or(0, Vec::len) < count {
            assert!(self.turn(end), "{id} got no token: {:?}", self.scheduler.counts());
        }
    }

    /// Lets time pass until so many sequences have all their tokens.
    pub(super) fn run_to_finish(&mut self, count: usize) {
        let end = self.now + 100_000.0;
        while self.finished < count {
            assert!(self.turn(end), "nothing goes on: {:?}", self.scheduler.counts());
        }
    }

    /// The next thing that happens, if it happens before `end`.
    fn turn(&mut self, end: f64) -> bool {
        let at_work = self.stages.iter().filter(|stage| stage.work.is_some()).count() as f64;
        let done = |stage: &Stage| {
            let work = stage.work.as_ref()?;
            Some(self.now + work.left * stage.part * (stage.cost)(work.rows, at_work))
        };
        let dones = self.stages.iter().enumerate().filter_map(|(i, s)| Some((done(s)?, i)));
        let first_done = dones.min_by(|a, b| a.0.total_cmp(&b.0));
        let event_at = self.agenda.first_key_value().map(|((at, _), _)| *at as f64 / 1e9);
        let event_at = event_at.unwrap_or(f64::INFINITY).max(self.now);
        let next = first_done.map_or(event_at, |(at, _)| at.min(event_at));
        self.advance(next.min(end), at_work);
        if next > end {
            return false;
        }
        match first_done {
            Some((at, stage)) if at <= event_at => self.done(stage),
            _ => {
                let (_, event) = self.agenda.pop_first().unwrap();
                self.happen(event);
            }
        }
        self.drain();
        true
    }

    fn advance(&mut self, to: f64, at_work: f64) {
        let passed = to - self.now;
        for stage in &mut self.stages {
            if let Some(work) = &mut stage.work {
                work.left -= passed / (stage.part * (stage.cost)(work.rows, at_work));
                stage.busy += passed;
            }
        }
        self.now = to;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Reaches(stage, microbatch) => {
                self.stages[stage].queue.push_back(microbatch);
                self.start(stage);
            }
            Event::Answer(microbatch) => {
                let step = self.steps.remove(&microbatch).unwrap();
                self.scheduler.handle_sampled(self.clock(), answer_of(&step)).unwrap();
            }
            Event::Heartbeat(stage) => {
                for timing in std::mem::take(&mut self.stages[stage].reports) {
                    self.scheduler.handle_timing(self.clock(), PlanEpoch(1), stage, &timing);
                }
                self.at(HEARTBEAT, Event::Heartbeat(stage));
            }
        }
    }

    fn start(&mut self, index: usize) {
        let stage = &mut self.stages[index];
        if stage.work.is_some() {
            return;
        }
        let Some(microbatch) = stage.queue.pop_front() else { return };
        let step = &self.steps[&microbatch];
        let rows = step.tokens.len() as f64;
        let attends = |chunk: &Chunk| {
            let (rows, from) = (f64::from(chunk.token_count), f64::from(chunk.position));
            rows * (from + (rows + 1.0) / 2.0)
        };
        let positions: f64 = step.forward.chunks.iter().map(attends).sum();
        let attention = self.attention * positions / (stage.cost)(rows, 1.0);
        let waited = self.now - stage.idle_since;
        let late = (self.rng.range(0, 1_000) as f64 / 1e3).powi(4);
        let left = (1.0 + attention) * (1.0 + self.jitter * late);
        stage.work = Some(Work { microbatch, rows, left, began: self.now, waited });
    }

    fn done(&mut self, index: usize) {
        let (now, last) = (self.now, index + 1 == self.stages.len());
        let stage = &mut self.stages[index];
        let work = stage.work.take().unwrap();
        stage.idle_since = now;
        stage.reports.push(StageTiming {
            microbatch: work.microbatch,
            compute: Duration::from_secs_f64(now - work.began),
            wait: Duration::from_secs_f64(work.waited),
        });
        let microbatch = work.microbatch;
        let event =
            if last { Event::Answer(microbatch) } else { Event::Reaches(index + 1, microbatch) };
        self.at(self.link, event);
        self.start(index);
    }

    fn drain(&mut self) {
        while let Some(step) = self.scheduler.poll_step(self.clock()) {
            let decodes = step.forward.chunks.iter().filter(|c| c.token_count == 1).count();
            self.sent.push((self.now, decodes, step.tokens.len() - decodes));
            let microbatch = step.forward.microbatch;
            self.steps.insert(microbatch, step);
            self.at(self.link, Event::Reaches(0, microbatch));
        }
        while let Some((id, event)) = self.scheduler.poll_event() {
            match event {
                GenerationEvent::Token(_) => self.tokens.entry(id).or_default().push(self.now),
                GenerationEvent::Finished { .. } => self.finished += 1,
                _ => {}
            }
        }
    }

    /// Tokens per second of all sequences, and the part of the time that each stage worked, over the
    /// next so many seconds.
    pub(super) fn measure(&mut self, seconds: f64) -> (f64, Vec<f64>) {
        let count = |flow: &Self| flow.tokens.values().map(Vec::len).sum::<usize>();
        let before = (count(self), self.stages.iter().map(|s| s.busy).collect::<Vec<_>>());
        self.run(seconds);
        let tokens = (count(self) - before.0) as f64 / seconds;
        let busy = self.stages.iter().zip(before.1).map(|(s, before)| (s.busy - before) / seconds);
        (tokens, busy.collect())
    }

    /// Gaps between the tokens of a sequence from a moment to another, ascending.
    pub(super) fn gaps(&self, id: SequenceId, from: f64, to: f64) -> Vec<f64> {
        let tokens = self.tokens[&id].windows(2);
        let inside = tokens.filter(|pair| pair[1] > from && pair[1] <= to);
        let mut gaps: Vec<_> = inside.map(|pair| pair[1] - pair[0]).collect();
        gaps.sort_by(f64::total_cmp);
        gaps
    }
}

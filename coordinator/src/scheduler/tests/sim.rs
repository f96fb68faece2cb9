//! A simulated cluster: stages with times, links with delays, a toy model, one virtual clock.
//!
//! Each seed is one history of arrivals, cancels, losses of the pipeline, hand-overs and tight memory.
//! Every request must end with what it would have got alone, and after every event the scheduler's books
//! must balance. A seed that ever fails becomes a test of its own below.

use super::rng::{Rng, mix};
use super::sim_clients::{Client, Met};
use super::sim_happenings::{Happening, StageSim};
use super::toy::{self, ToyStage, VOCAB};
use super::toy_guide::ToyGuide;
use super::{arrivals, assert_books_balance};
use crate::guides::Guided;
use crate::scheduler::{CacheBlocks, PlanLimits, Scheduler, StageTiming, Step};
use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU64;
use std::ops::Range;
use std::time::Duration;
use woolly_protocol::forward::{BlockLimits, CacheLimits, Forward, ForwardLimits};
use woolly_protocol::frame::Message;
use woolly_protocol::ids::{BlockId, MicrobatchId, PlanEpoch, SequenceId};
use woolly_protocol::sampling::{Sampled, Sampling};

/// Histories per run of the tests, unless `WOOLLY_SIM_SEEDS` says which at compile time.
const SEEDS: Range<u64> = 0..2_000;
/// A history that takes longer is stuck.
const EVENTS_MAX: usize = 200_000;

/// A block that a microbatch names: its cache group, itself, whose it is.
type Use = (usize, BlockId, SequenceId);

struct Sim {
    rng: Rng,
    /// Draws what is about reports.
    reports: Rng,
    /// Long completions in few blocks.
    tight: bool,
    now: u64,
    order: u64,
    agenda: BTreeMap<(u64, u64), (u32, Happening)>,
    epoch: u32,
    limits: PlanLimits,
    /// Of the model's cache groups.
    windows: Vec<Option<u32>>,
    /// Draws how many blocks there are for those with a window.
    blocks: Rng,
    rows_per_step: usize,
    scheduler: Scheduler,
    /// The next plan is waiting for the present one to be drained.
    handing_over: bool,
    stages: Vec<StageSim>,
    samplings: BTreeMap<MicrobatchId, Sampling>,
    /// When the scheduler is called again at the latest.
    timer: Option<u64>,
    /// Blocks of the microbatches in flight with their cache group, and whose they are.
    in_flight: VecDeque<(MicrobatchId, Vec<Use>)>,
    clients: Vec<Client>,
    by_id: BTreeMap<SequenceId, usize>,
    guides: BTreeMap<SequenceId, ToyGuide>,
}

impl Sim {
    fn new(seed: u64, windows: Vec<Option<u32>>) -> Self {
        let mut rng = Rng(seed);
        let mut more = Rng(mix(seed));
        let config = arrivals::config(&mut rng, &mut more);
        let mut sim = Self {
            tight: seed.is_multiple_of(5),
            limits: arrivals::limits(&mut rng, 1, None),
            windows,
            blocks: Rng(mix(seed + 2)),
            rows_per_step: config.rows_per_step,
            handing_over: false,
            now: 0,
            order: 0,
            agenda: BTreeMap::new(),
            epoch: 0,
            scheduler: Scheduler::new(config),
            stages: Vec::new(),
            samplings: BTreeMap::new(),
            timer: None,
            in_flight: VecDeque::new(),
            clients: Vec::new(),
            by_id: BTreeMap::new(),
            guides: BTreeMap::new(),
            reports: Rng(mix(seed + 1)),
            rng,
        };
        sim.at(0, Happening::Plan);
        let mut guided = Rng(mix(seed + 4));
        let arrivals_end = sim.rng.pick(&[1, 20_000, 200_000]);
        for index in 0..sim.rng.range(1, 28) {
            let index = usize::try_from(index).unwrap();
            let mut request = arrivals::request(&mut sim.rng, &mut more);
            if sim.tight {
                request.stop_tokens = std::sync::Arc::default();
                request.max_tokens = u32::try_from(sim.rng.range(40, 150)).unwrap();
            }
            if guided.one_in(3) {
                request.guided = Some(Guided::scripted(ToyGuide::of(&request).1));
            }
            sim.clients.push(Client::new(request));
            let arrival = sim.rng.range(0, arrivals_end);
            sim.at(arrival, Happening::Arrival(index));
            if sim.rng.one_in(6) {
                let after = sim.rng.range(0, 60_000);
                sim.at(arrival + after, Happening::Cancel(index));
            }
        }
        sim.plan_losses(arrivals_end);
        if seed % 6 == 1 {
            sim.make_choices(&mut Rng(mix(seed + 5)));
        }
        sim
    }

    /// Some requests have more choices than one, which arrive together, and some are limited in what may come.
    fn make_choices(&mut self, rng: &mut Rng) {
        for client in &mut self.clients {
            arrivals::limit(&mut client.request, rng);
        }
        let arrivals = self.agenda.iter().filter_map(|((at, _), (_, happening))| match happening {
            Happening::Arrival(index) => Some((*at, *index)),
            _ => None,
        });
        for (at, first) in arrivals.collect::<Vec<_>>() {
            if rng.one_in(2) {
                continue;
            }
            self.clients[first].request.siblings = NonZeroU64::new(1 + first as u64);
            for choice in 1..=u32::try_from(rng.range(1, 4)).unwrap() {
                let mut request = self.clients[first].request.clone();
                request.sampling.choice = choice;
                let index = self.clients.len();
                self.clients.push(Client::new(request));
                self.at(at, Happening::Arrival(index));
                if rng.one_in(6) {
                    self.at(at + rng.range(0, 60_000), Happening::Cancel(index));
                }
            }
        }
    }

    /// Some histories lose their pipeline, some more than once, and some hand it over.
    fn plan_losses(&mut self, arrivals_end: u64) {
        if !self.rng.one_in(3) {
            return;
        }
        for _ in 0..self.rng.pick(&[1, 1, 2, 5]) {
            let at = self.rng.range(1, arrivals_end + 20_000);
            if self.rng.one_in(4) {
                self.at(at, Happening::HandOver);
                continue;
            }
            self.at(at, Happening::Loss);
            let after = self.rng.range(1, 6_000);
            self.at(at + after, Happening::Plan);
        }
    }

    fn at(&mut self, time: u64, happening: Happening) {
        self.order += 1;
        self.agenda.insert((time, self.order), (self.epoch, happening));
    }

    fn run(&mut self) {
        for _ in 0..EVENTS_MAX {
            let Some(((time, _), (epoch, happening))) = self.agenda.pop_first() else { return };
            self.now = time;
            self.happen(epoch, happening);
            self.drain();
            self.set_timer();
            assert_books_balance(&self.scheduler);
        }
        panic!("still busy after {EVENTS_MAX} events: {:?}", self.scheduler.counts());
    }

    fn clock(&self) -> Duration {
        Duration::from_micros(self.now)
    }

    fn happen(&mut self, epoch: u32, happening: Happening) {
        match happening {
            Happening::Arrival(index) => self.arrive(index),
            Happening::Cancel(index) => self.cancel(index),
            Happening::Loss => {
                self.handing_over = false;
                self.scheduler.handle_pipeline_lost(self.clock());
            }
            Happening::HandOver => {
                self.handing_over = !self.stages.is_empty();
                self.scheduler.handle_hand_over();
            }
            Happening::Plan => self.plan(),
            Happening::Time => self.scheduler.handle_timeout(self.clock()),
            Happening::Answer(sampled) => {
                if sampled.epoch.0 == self.epoch {
                    let answered = self.in_flight.pop_front().map(|(microbatch, _)| microbatch);
                    assert_eq!(answered, Some(sampled.microbatch));
                }
                self.scheduler.handle_sampled(self.clock(), sampled).unwrap();
            }
            Happening::Report(epoch, stage, timing) => {
                self.scheduler.handle_timing(self.clock(), epoch, stage, &timing);
            }
            Happening::Next(id, next) => self.scheduler.handle_next(self.clock(), id, next),
            // Workers drop what belongs to another plan; answers on their way still arrive.
            _ if epoch != self.epoch => {}
            Happening::Reaches(stage, forward, rows) => {
                self.stages[stage].queue.push_back((forward, rows));
                self.start(stage);
            }
            Happening::Samples(sampling) => {
                self.samplings.insert(sampling.microbatch, sampling);
                self.start(self.stages.len() - 1);
            }
            Happening::Done(stage) => self.done(stage),
        }
    }

    fn arrive(&mut self, index: usize) {
        let request = self.clients[index].request.clone();
        let result = self.scheduler.handle_request(self.clock(), request);
        let client = &mut self.clients[index];
        client.positions_max = self.limits.positions_max();
        match result {
            Ok(id) => {
                client.id = Some(id);
                if client.request.guided.is_some() {
                    self.guides.insert(id, ToyGuide::of(&client.request).0);
                }
                self.by_id.insert(id, index);
            }
            Err(refusal) => client.refusal = Some(refusal),
        }
    }

    fn cancel(&mut self, index: usize) {
        if let Some(id) = self.clients[index].id {
            self.scheduler.handle_cancel(self.clock(), id);
            self.clients[index].cancelled = true;
        }
    }

    fn plan(&mut self) {
        let first = (self.epoch > 0).then_some(self.limits);
        self.epoch += 1;
        self.handing_over = false;
        self.limits = arrivals::limits(&mut self.rng, self.epoch, first.as_ref());
        if self.tight {
            let caches = CacheBlocks::all_positions(8);
            self.limits = PlanLimits { ctx_size: 256, caches, extent_len: 32, ..self.limits };
        }
        self.limits = arrivals::with_windows(
            self.limits,
            &self.windows,
            self.rows_per_step,
            &mut self.blocks,
        );
        self.in_flight.clear();
        self.samplings.clear();
        let groups = self.limits.caches;
        self.stages = toy::cut(self.limits.stages as usize)
            .into_iter()
            .map(|layers| StageSim {
                model: ToyStage::of_groups(layers, groups.groups()),
                queue: VecDeque::new(),
                busy: false,
                base_us: self.rng.range(1, 400),
                row_us: self.rng.range(0, 30),
                link_free_at: 0,
            })
            .collect();
        self.scheduler.handle_plan(self.clock(), self.limits);
    }

    /// Does all that the scheduler wants.
    fn drain(&mut self) {
        if self.handing_over && self.scheduler.is_drained() {
            self.plan();
        }
        while let Some(step) = self.scheduler.poll_step(self.clock()) {
            self.check_step(&step);
            let rows = step.tokens.iter().map(|token| u64::from(*token)).collect();
            let delay = self.rng.range(1, 50);
            let forward_at = self.stages[0].link_free_at.max(self.now + delay);
            self.stages[0].link_free_at = forward_at;
            self.at(forward_at, Happening::Reaches(0, step.forward, rows));
            if let Some(sampling) = step.sampling {
                let sampling_at = self.now + self.rng.range(1, 2_000);
                self.at(sampling_at, Happening::Samples(sampling));
            }
        }
        while let Some((id, token)) = self.scheduler.poll_question() {
            let next = self.guides.get_mut(&id).unwrap().next(token);
            let at = self.now + self.reports.pick(&[1, 20, 100, 5_000]);
            self.at(at, Happening::Next(id, next));
        }
        while let Some((id, event)) = self.scheduler.poll_event() {
            let client = &mut self.clients[self.by_id[&id]];
            assert!(!client.cancelled, "an event after the cancel of {id}");
            client.events.push(event);
        }
    }

    /// Has the scheduler called when it wants to be.
    fn set_timer(&mut self) {
        let wanted = self.scheduler.poll_timeout();
        let wanted = wanted.map(|at| u64::try_from(at.as_micros()).unwrap().max(self.now));
        if let Some(at) =
            wanted.filter(|at| self.timer.is_none_or(|set| set <= self.now || at < &set))
        {
            self.timer = Some(at);
            self.at(at, Happening::Time);
        }
    }

    fn check_step(&mut self, step: &Step) {
        let forward = &step.forward;
        let groups = self.limits.caches;
        let caches: Vec<_> = groups.groups().iter().copied().map(CacheLimits::Blocks).collect();
        let limits = ForwardLimits {
            rows_max: self.limits.rows_max,
            ctx_size: self.limits.ctx_size,
            caches: &caches,
            hidden: 1,
            first_stage: true,
        };
        forward.check_against(&limits, step.tokens.len() * 4).unwrap();
        assert!(forward.chunks.len() <= self.limits.chunks_max as usize, "chunks");
        if let Some(sampling) = &step.sampling {
            sampling.check().unwrap();
            sampling.check_against(forward.sample_rows(), VOCAB as u32).unwrap();
        }
        assert_eq!(forward.sample_rows() > 0, step.sampling.is_some(), "a sampling if asked for");
        let chunks = |group| {
            let tables = super::tables(forward, group);
            forward.chunks.iter().zip(tables.spans.iter().zip(tables.tables()))
        };
        let held = (0..caches.len()).flat_map(|group| {
            chunks(group).flat_map(move |(chunk, (_, table))| {
                table.iter().map(move |block| (group, *block, chunk.sequence))
            })
        });
        self.in_flight.push_back((forward.microbatch, held.collect()));
        assert!(self.in_flight.len() <= self.limits.in_flight_max as usize, "in flight");
        // What is written now may be read by others later, and by nobody yet. What a window has left
        // behind may still be on its way to be read: before it is written, as stages keep the order.
        for (group, BlockLimits { window, .. }) in groups.groups().iter().enumerate() {
            let since = window.map_or(0, |_| self.in_flight.len() - 1);
            let in_flight = || self.in_flight.iter().skip(since).flat_map(|(_, held)| held);
            for (chunk, (span, table)) in chunks(group) {
                let written = &table[(chunk.position / 32 - span.first) as usize..];
                for (of, block, sequence) in in_flight() {
                    let shared =
                        *of == group && *sequence != chunk.sequence && written.contains(block);
                    assert!(!shared, "{block} is written while another sequence uses it");
                }
            }
        }
    }

    /// Lets a stage take the next microbatch, if it can.
    fn start(&mut self, index: usize) {
        let last = index + 1 == self.stages.len();
        let stage = &mut self.stages[index];
        let Some((forward, rows)) = stage.queue.front() else { return };
        let asks = forward.chunks.iter().any(|chunk| chunk.sample_rows > 0);
        let waits = last && asks && !self.samplings.contains_key(&forward.microbatch);
        if stage.busy || waits {
            return;
        }
        stage.busy = true;
        let done_at = self.now + stage.base_us + stage.row_us * rows.len() as u64;
        self.at(done_at, Happening::Done(index));
    }

    fn done(&mut self, index: usize) {
        let stage = &mut self.stages[index];
        stage.busy = false;
        let (forward, rows) = stage.queue.pop_front().unwrap();
        let hidden = stage.model.forward(&forward, &rows);
        let took = stage.base_us + stage.row_us * rows.len() as u64;
        self.report(index, forward.microbatch, took);
        let delay = self.rng.range(1, 300);
        let arrives = self.now + delay;
        if index + 1 < self.stages.len() {
            let next = &mut self.stages[index + 1];
            next.link_free_at = next.link_free_at.max(arrives);
            let at = next.link_free_at;
            self.at(at, Happening::Reaches(index + 1, forward, hidden));
        } else {
            // The way back keeps the order too: it is one stream.
            let at = self.now + 7;
            let sampled = self.sample(&forward, &hidden);
            self.at(at, Happening::Answer(sampled));
        }
        self.start(index);
    }

    /// A report comes some time later, and is wrong now and then.
    fn report(&mut self, index: usize, microbatch: MicrobatchId, took: u64) {
        let took = if self.reports.one_in(50) { 10 * took } else { took };
        let compute = Duration::from_micros(took);
        let wait = Duration::from_micros(self.reports.range(0, 100));
        let timing = StageTiming { microbatch, compute, wait };
        let at = self.now + self.reports.range(1, 5_000);
        self.at(at, Happening::Report(PlanEpoch(self.epoch), index, timing));
    }

    fn sample(&mut self, forward: &Forward, hidden: &[u64]) -> Sampled {
        let sampling = self.samplings.remove(&forward.microbatch);
        toy::sampled(forward, sampling.as_ref(), hidden)
    }

    /// Compares what every client was told with what it would have been told alone.
    fn judge(&self, met: &mut Met) {
        let counts = self.scheduler.counts();
        assert_eq!((counts.waiting, counts.running, counts.in_flight), (0, 0, 0), "{counts:?}");
        assert_eq!(counts.kv_blocks_free, counts.kv_blocks, "blocks leaked");
        met.preemptions += counts.preemptions;
        met.cached += counts.prefix_hit_tokens;
        met.evictions += counts.evictions;
        met.stale += counts.stale_answers;
        met.recomputed += counts.recomputed_tokens;
        for client in &self.clients {
            client.judge(&self.windows, met);
        }
    }
}

/// `FROM..TO` of the build's `WOOLLY_SIM_SEEDS`.
fn seeds() -> Range<u64> {
    let Some(given) = option_env!("WOOLLY_SIM_SEEDS") else { return SEEDS };
    let (from, to) = given.split_once("..").expect("FROM..TO such as 0..1000000");
    from.parse().unwrap()..to.parse().unwrap()
}

fn history(seed: u64, met: &mut Met) {
    history_with(seed, vec![None], met);
}

fn history_with(seed: u64, windows: Vec<Option<u32>>, met: &mut Met) {
    let mut sim = Sim::new(seed, windows);
    sim.run();
    sim.judge(met);
}

#[test]
fn seeded_histories_end_as_if_each_request_were_alone() {
    let mut met = Met::default();
    for seed in seeds() {
        let run = std::panic::AssertUnwindSafe(|| history(seed, &mut met));
        assert!(std::panic::catch_unwind(run).is_ok(), "seed {seed} fails, see above");
    }
    // Histories that meet none of these would prove little.
    assert!(met.preemptions > 300, "{} preemptions", met.preemptions);
    assert!(met.stale > 5, "{} stale answers", met.stale);
    assert!(met.recomputed > 20_000, "{} positions computed again", met.recomputed);
    assert!(met.lost > 50, "{} were lost for want of a plan", met.lost);
    assert!(met.failed > 50, "{} failures", met.failed);
    assert!(met.cancelled > 300, "{} cancels", met.cancelled);
    assert!(met.refused > 100, "{} refusals", met.refused);
    assert!(met.scored > 300, "{} scored prompts", met.scored);
    assert!(met.tokens > 20_000, "{} tokens", met.tokens);
    assert!(met.cached > 20_000, "{} cached tokens", met.cached);
    assert!(met.evictions > 300, "{} evictions", met.evictions);
    assert!(met.expired > 100, "{} without time", met.expired);
    assert!(met.guided > 10_000, "{} tokens under a grammar", met.guided);
    assert!(met.broken_grammars > 10, "{} grammars that failed", met.broken_grammars);
}

#[test]
fn seed_1655_a_sequence_without_blocks_stayed_when_an_older_one_was_preempted() {
    history(1655, &mut Met::default());
}

#[test]
fn seed_1410_a_window_left_blocks_behind_of_a_sequence_that_the_same_microbatch_preempted() {
    let windows = arrivals::windows(&mut Rng(mix(1410 + 3)));
    history_with(1410, windows, &mut Met::default());
}

#[test]
fn histories_of_models_with_windows_end_as_if_each_request_were_alone() {
    let mut met = Met::default();
    for seed in seeds() {
        let run = std::panic::AssertUnwindSafe(|| {
            let windows = arrivals::windows(&mut Rng(mix(seed + 3)));
            history_with(seed, windows, &mut met);
        });
        assert!(std::panic::catch_unwind(run).is_ok(), "seed {seed} fails, see above");
    }
    assert!(met.preemptions > 100, "{} preemptions", met.preemptions);
    assert!(met.recomputed > 20_000, "{} positions computed again", met.recomputed);
    assert!(met.cancelled > 300, "{} cancels", met.cancelled);
    assert!(met.tokens > 20_000, "{} tokens", met.tokens);
    assert!(met.cached > 10_000, "{} cached tokens", met.cached);
    assert!(met.evictions > 1_000, "{} evictions", met.evictions);
}

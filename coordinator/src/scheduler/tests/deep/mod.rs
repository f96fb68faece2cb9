//! Deep pipelines in virtual time: 2 to 32 stages of one model, under loads as people make them.
//!
//! * Here: the model's times, the clusters, and what the best of all schedulers would reach.
//! * `loads`: who asks for what and when. `figures`: what came of it, a line for each scenario.
//! * `mistakes`: each mistake that was found once is a test by its name.
//! * `bounds`: what each load must reach. `scenarios`: all clusters under all loads.
//!
//! Times are seconds. They are those of granite-3.3-8b (Q4_K_M, 40 layers) on workers of two threads:
//! measured at 1, 4, 8 and 512 rows, with the shape that another model has between.

mod bounds;
mod figures;
mod loads;
mod mistakes;
mod scenarios;

use super::flow::{Cost, Flow};
use crate::scheduler::{ItlTarget, PrefixCache, SchedulerConfig};

/// (rows, seconds) of the whole model on one worker.
const FORWARD: [(f64, f64); 13] = [
    (1.0, 0.210),
    (4.0, 0.215),
    (8.0, 0.333),
    (12.0, 0.44),
    (16.0, 0.56),
    (24.0, 0.78),
    (32.0, 0.98),
    (39.0, 1.15),
    (64.0, 1.75),
    (128.0, 3.28),
    (256.0, 6.4),
    (512.0, 12.8),
    (1024.0, 25.6),
];
/// Rows of a microbatch with which a stage is as fast as it can be.
const ROWS: f64 = 256.0;
/// Seconds to read the whole model once over the bus that eight workers share: 4.94 GB at 110 GB/s.
const READ: f64 = 4.94 / 110.0;
/// How much longer each of eight workers of one machine computes than one alone.
const BESIDE: f64 = 0.35;
/// Seconds for one position that one row attends to, of 0.025 for the row itself.
const ATTENTION: f64 = 2e-6;
/// How much longer a forward may take: 1.3 times the median at the 99th percentile, as measured.
const JITTER: f64 = 0.34;
/// A gigabit link in a rack, and links between rooms, towns and countries.
const LINKS: [f64; 4] = [0.0001, 0.001, 0.005, 0.02];

/// The time of the whole model on a worker that has its memory alone.
fn own(rows: f64, _: f64) -> f64 {
    let after = FORWARD.iter().position(|point| point.0 >= rows).unwrap_or(FORWARD.len() - 1);
    let (low, high) = (FORWARD[after.max(1) - 1], FORWARD[after.max(1)]);
    low.1 + (high.1 - low.1) * (rows - low.0) / (high.0 - low.0)
}

/// The same where all workers are on one machine.
fn bus(rows: f64, at_work: f64) -> f64 {
    (own(rows, 1.0) * (1.0 + BESIDE * (at_work - 1.0) / 7.0)).max(READ * at_work)
}

/// A pipeline, as a scenario wants it.
#[derive(Clone)]
struct Cluster {
    cost: Cost,
    /// The part of the model that each stage has.
    parts: Vec<f64>,
    /// Seconds of a message.
    link: f64,
    jitter: f64,
    attention: f64,
}

impl Cluster {
    /// Equal stages on machines of their own.
    fn own(stages: usize) -> Self {
        let parts = vec![1.0 / stages as f64; stages];
        Self { cost: own, parts, link: LINKS[0], jitter: 0.0, attention: 0.0 }
    }

    /// Eight equal stages on one machine.
    fn bus() -> Self {
        Self { cost: bus, ..Self::own(8) }
    }

    fn with_link(self, link: f64) -> Self {
        Self { link, ..self }
    }

    /// One stage in the middle takes a fifth more time.
    fn with_a_slow_stage(mut self) -> Self {
        let middle = self.parts.len() / 2;
        self.parts[middle] *= 1.2;
        self
    }

    fn stages(&self) -> usize {
        self.parts.len()
    }

    /// The cluster with nothing to do.
    fn flow(&self, config: SchedulerConfig) -> Flow {
        let stages: Vec<_> = self.parts.iter().map(|part| (self.cost, *part)).collect();
        let mut flow = Flow::with_parts(config, &stages, self.link);
        flow.jitter = self.jitter;
        flow.attention = self.attention;
        flow
    }

    /// Seconds of the slowest stage and of all of them, for so many rows with so many at work.
    fn through(&self, rows: f64, at_work: usize) -> (f64, f64) {
        // The mean of what `Flow` adds.
        let one = (self.cost)(rows, at_work as f64) * (1.0 + self.jitter / 5.0);
        let slowest = self.parts.iter().copied().fold(0.0, f64::max);
        (slowest * one, self.parts.iter().sum::<f64>() * one)
    }

    /// Seconds that a microbatch spends on links.
    fn links(&self) -> f64 {
        self.link * (self.stages() + 1) as f64
    }

    /// Rows per second when all stages compute large microbatches.
    fn capacity(&self) -> f64 {
        ROWS / self.through(ROWS, self.stages()).0
    }

    /// Tokens per second of so many streams in the best number of groups.
    fn decode_ideal(&self, streams: usize) -> f64 {
        let speed = |groups: usize| {
            let (whole, larger) = (streams / groups, streams % groups);
            let at_work = groups.min(self.stages());
            let most = self.through((whole + usize::from(larger > 0)) as f64, at_work);
            let least = self.through(whole as f64, at_work).0;
            let slowest = most.0 * larger as f64 + least * (groups - larger) as f64;
            let slowest = if larger == 0 { most.0 * groups as f64 } else { slowest };
            streams as f64 / (most.1 + self.links()).max(slowest)
        };
        (1..=streams.min(65)).map(speed).fold(0.0, f64::max)
    }

    /// Seconds that a prompt of so many tokens takes in the best fixed chunk, when nobody decodes.
    fn prefill_ideal(&self, prompt: usize) -> f64 {
        let time = |chunk: usize| {
            let (full, rest) = (prompt / chunk, prompt % chunk);
            let (slowest, all) = self.through(chunk as f64, self.stages());
            let rest = if rest == 0 { 0.0 } else { self.through(rest as f64, self.stages()).0 };
            slowest * full.max(1) as f64 + rest + all - slowest + self.links()
        };
        (1..=prompt.min(ROWS as usize)).map(time).fold(f64::INFINITY, f64::min)
    }
}

/// The default policy, with places for all: over long links many streams are on their way at a time. All
/// prompts are alike, so nothing may be found in a prefix cache.
fn config() -> SchedulerConfig {
    let (waiting_max, running_max, prefix_cache) = (10_000, 1_024, PrefixCache::Off);
    SchedulerConfig { waiting_max, running_max, prefix_cache, ..SchedulerConfig::default() }
}

/// The same with another target, in percent.
fn with_target(percent: u32) -> SchedulerConfig {
    SchedulerConfig { itl_target: ItlTarget::Percent(percent), ..config() }
}

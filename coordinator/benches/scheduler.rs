//! What the scheduler costs per token: `cargo bench -p woolly-coordinator --bench scheduler`.
//!
//! 10,000 sequences over 64 stages, every stage reporting every microbatch. Sequences end after 256
//! tokens and others take their places, so starts, prefill, growth, ends and events are in the figure;
//! the answers of the last stage are made outside of it.

use criterion::{Criterion, Throughput};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use woolly_coordinator::generation::{GenerationEvent, GenerationRequest, KeyId, ModelId};
use woolly_coordinator::scheduler::{
    CacheBlocks, PlanLimits, Reads, Scheduler, SchedulerConfig, StageTiming, Step,
};
use woolly_protocol::ids::PlanEpoch;
use woolly_protocol::sampling::{Sampled, SampledRow, SampledToken, SamplingOptions};

/// Sequences that run at a time.
const SEQUENCES: usize = 10_000;
const STAGES: u32 = 64;
const PROMPT: u32 = 64;
const COMPLETION: u32 = 256;

struct Load {
    scheduler: Scheduler,
    in_flight: VecDeque<Step>,
    now: Duration,
    asked: u32,
    /// Sequences that ended and were not replaced yet.
    ended: usize,
    /// Time inside the scheduler.
    spent: Duration,
    stop_tokens: Arc<[u32]>,
}

impl Load {
    fn new() -> Self {
        let config = SchedulerConfig {
            waiting_max: SEQUENCES,
            running_max: SEQUENCES,
            ..SchedulerConfig::default()
        };
        let mut scheduler = Scheduler::new(config);
        let plan = PlanLimits {
            epoch: PlanEpoch(1),
            stages: STAGES,
            in_flight_max: STAGES + 1,
            ctx_size: 8192,
            caches: CacheBlocks::all_positions(1 << 20),
            extent_len: 32,
            rows_max: 256,
            chunks_max: 256,
            vocab: 1 << 17,
            reads: Reads::default(),
        };
        scheduler.handle_plan(Duration::ZERO, plan);
        let (in_flight, now, spent) = (VecDeque::new(), Duration::ZERO, Duration::ZERO);
        let (ended, stop_tokens) = (SEQUENCES, Arc::from([2]));
        let mut load = Self { scheduler, in_flight, now, asked: 0, ended, spent, stop_tokens };
        // A few decode alone first, so that it is known what that takes.
        load.ended = STAGES as usize;
        for _ in 0..4 * STAGES {
            load.turn();
        }
        load.ended += SEQUENCES - STAGES as usize;
        // Until the first have ended, so that all ages are there.
        while load.asked < SEQUENCES as u32 * 3 / 2 {
            load.turn();
        }
        load
    }

    /// One answer with what follows from it; returns the tokens.
    fn turn(&mut self) -> u64 {
        let requests: Vec<_> =
            (0..std::mem::take(&mut self.ended)).map(|_| self.request()).collect();
        let answered = self.in_flight.pop_front();
        let sampled = answered.as_ref().map(answer);
        self.now += Duration::from_millis(2);

        let began = Instant::now();
        for request in requests {
            self.scheduler.handle_request(self.now, request).expect("there is room");
        }
        if let (Some(step), Some(sampled)) = (answered, sampled) {
            self.scheduler.handle_sampled(self.now, sampled).expect("it fits");
            let timing = StageTiming {
                microbatch: step.forward.microbatch,
                compute: Duration::from_micros(1000 + 5 * step.tokens.len() as u64),
                wait: Duration::from_micros(60),
            };
            for stage in 0..STAGES as usize {
                self.scheduler.handle_timing(self.now, PlanEpoch(1), stage, &timing);
            }
            self.scheduler.take_back(step);
        }
        while let Some(step) = self.scheduler.poll_step(self.now) {
            self.in_flight.push_back(step);
        }
        let mut tokens = 0;
        while let Some((_, event)) = self.scheduler.poll_event() {
            tokens += u64::from(matches!(event, GenerationEvent::Token(_)));
            self.ended += usize::from(matches!(event, GenerationEvent::Finished { .. }));
        }
        self.spent += began.elapsed();
        tokens
    }

    fn request(&mut self) -> GenerationRequest {
        self.asked += 1;
        GenerationRequest {
            model: ModelId(0),
            // Prompts differ, and lengths do, so that not all end together.
            prompt: (0..PROMPT).map(|i| i * 31 + self.asked).collect(),
            score_prompt: false,
            max_tokens: COMPLETION / 2 + self.asked % COMPLETION,
            top_logprobs: None,
            sampling: SamplingOptions {
                temperature: 0.7,
                top_k: 40,
                top_p: 0.9,
                ..SamplingOptions::greedy()
            },
            guided: None,
            stop_tokens: Arc::clone(&self.stop_tokens),
            key: KeyId(self.asked % 4),
            time_limit: None,
            siblings: None,
            limits: None,
            dry: None,
        }
    }
}

fn answer(step: &Step) -> Sampled {
    let rows = step.sampling.iter().flat_map(|sampling| &sampling.rows);
    let row = SampledRow::Token(SampledToken { token: 7, logprob: -0.5, top: Vec::new() });
    Sampled {
        epoch: step.forward.epoch,
        microbatch: step.forward.microbatch,
        rows: rows.map(|_| row.clone()).collect(),
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut load = Load::new();
    let mut group = criterion.benchmark_group("scheduler");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    group.bench_function("token, 10,000 sequences, 64 stages", |bencher| {
        bencher.iter_custom(|tokens| {
            let (mut done, before) = (0, load.spent);
            while done < tokens {
                done += load.turn();
            }
            // The last turn gives more tokens than were asked for.
            (load.spent - before).mul_f64(tokens as f64 / done as f64)
        });
    });
    group.finish();
    criterion.final_summary();
}

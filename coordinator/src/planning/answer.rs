//! The answer: the plan that the cluster core makes for these machines, how fast it would be, and what follows when
//! a machine goes.

use super::machines::{COORDINATOR, Machine, Machines, Wire};
use super::report::{
    DecodeSaid, FORMAT, Fewer, LinkSaid, Loss, MachineSaid, Model, PlanSaid, Prediction,
    PromptSaid, Refused, Report, StageSaid,
};
use super::spares::spares;
use crate::cluster::{Draft, Drafts, Imagined, PlacementConfig, STAGES_MAX};
use woolly_engine::plan::{Limit, Link, Member, ModelLayout, Pipeline, PlanError, StageSpeed};

/// Numbers of streams that are predicted.
const STREAMS: [u32; 3] = [1, 8, 64];
/// Prompts that are predicted, in tokens.
const PROMPTS: [u32; 2] = [512, 4096];
/// Positions that a decoding sequence has behind it, unless that is more than half of the context.
const POSITIONS: u32 = 512;
/// Stages up to which the loss of each is reckoned; of more, one machine stands for all that are like it.
const LOSSES_MAX: usize = 16;
/// What fewer machines are better at is said from so many percent on.
const BETTER_PERCENT: f64 = 5.0;

/// What `serve` would do with the machines: `config` says what is asked of the plan.
///
/// # Errors
/// A sentence: there are more machines than may join.
pub fn answer(machines: &Machines, config: &PlacementConfig) -> Result<Report, String> {
    let question = Question { machines, config };
    let drafts = Drafts::new(&question.workers(), config.clone())?;
    let layout = &config.layout;
    let mut report = Report {
        format: FORMAT,
        model: Model {
            name: config.name.clone(),
            layers: layout.layers,
            weights_bytes: layout.stage_bytes(0..layout.layers),
            read_for_a_token_bytes: layout.stage_bytes_per_token(0..layout.layers),
        },
        ctx_size: config.ctx_size,
        cache_type: config.kv_type.name(),
        objective: config.objective.name(),
        machines: machines.list.iter().map(MachineSaid::of).collect(),
        plan: None,
        refused: None,
        spares: Vec::new(),
        losses: Vec::new(),
        fewer: Vec::new(),
    };
    match drafts.plan() {
        None => report.refused = Some(Refused::waiting(machines.list.len())),
        Some(Err(error)) => report.refused = Some(Refused::of(&error)),
        Some(Ok(draft)) => {
            let plan = question.said(&draft);
            report.spares = spares(&machines.list, &draft, config);
            report.losses = question.losses(&drafts, &draft);
            report.fewer = question.fewer(&plan)?;
            report.plan = Some(plan);
        }
    }
    Ok(report)
}

/// What is asked.
#[derive(Clone, Copy)]
struct Question<'a> {
    machines: &'a Machines,
    config: &'a PlacementConfig,
}

impl Question<'_> {
    fn layout(&self) -> &ModelLayout {
        &self.config.layout
    }

    fn workers(&self) -> Vec<Imagined> {
        let worker = |machine: &Machine| Imagined {
            name: machine.name.clone(),
            member: Member {
                memory_bytes: machine.allowance_bytes(),
                memory_is_own: machine.may_use_bytes.is_some(),
                machine: [0; 16],
                kv_memory_bytes: machine.kv_memory_bytes,
                read_bytes_per_s: machine.worker_read_bytes_per_s(),
                macs_per_s: machine.macs_per_s,
                threads: machine.threads,
                weights_from_disk: false,
            },
        };
        self.machines.list.iter().map(worker).collect()
    }

    /// The machine at a place of the plan's way: the coordinator before the first stage and behind the last.
    fn at(&self, draft: &Draft, place: usize) -> Option<usize> {
        place.checked_sub(1).and_then(|stage| draft.workers.get(stage).copied())
    }

    fn name(&self, machine: Option<usize>) -> String {
        machine.map_or(COORDINATOR.to_owned(), |place| self.machines.list[place].name.clone())
    }

    fn link(&self, draft: &Draft, link: usize) -> LinkSaid {
        let [from, to] = [link, link + 1].map(|place| self.name(self.at(draft, place)));
        LinkSaid { from, to }
    }

    fn pipeline(&self, draft: &Draft) -> Pipeline<'_> {
        let stages = draft.workers.iter().zip(&draft.cut.layers).map(|(worker, layers)| {
            let machine = &self.machines.list[*worker];
            let speed = StageSpeed {
                read_bytes_per_s: machine.worker_read_bytes_per_s() as f64,
                macs_per_s: machine.macs_per_s as f64,
            };
            (layers.clone(), speed)
        });
        let link = |place: usize| {
            let Wire { round_trip, bytes_per_s } =
                self.machines.wire(self.at(draft, place), self.at(draft, place + 1));
            Link { round_trip_s: round_trip.as_secs_f64(), bytes_per_s: bytes_per_s as f64 }
        };
        let links = (0..=draft.workers.len()).map(link).collect();
        let limits = (draft.rows_max, draft.in_flight_max);
        Pipeline::new(self.layout(), self.config.kv_type, stages, links, limits)
    }

    fn said(&self, draft: &Draft) -> PlanSaid {
        let machine = |stage: usize| &self.machines.list[draft.workers[stage]];
        let stages = draft.cut.layers.iter().zip(&draft.cut.stages).enumerate();
        let stages = stages.map(|(stage, (layers, budget))| {
            let taken = budget.own_bytes + budget.kv_bytes + budget.scratch_bytes;
            StageSaid {
                machine: machine(stage).name.clone(),
                layer_first: layers.start,
                layer_last: layers.end - 1,
                weights_bytes: budget.own_bytes,
                kv_bytes: budget.kv_bytes,
                buffer_bytes: budget.scratch_bytes,
                left_bytes: machine(stage).allowance_bytes().saturating_sub(taken),
            }
        });
        PlanSaid {
            stages: stages.collect(),
            kv_tokens: draft.cut.kv_positions(),
            is_kv_limited_by_memory: draft.cut.kv_is_limited_by_memory,
            kv_limit_machine: machine(draft.cut.limiting_stage).name.clone(),
            prediction: self.prediction(draft),
        }
    }

    fn prediction(&self, draft: &Draft) -> Prediction {
        let pipeline = self.pipeline(draft);
        let positions = POSITIONS.min(self.config.ctx_size / 2).max(1);
        let fit = draft.cut.kv_positions() / u64::from(positions);
        let decode = STREAMS.map(|streams| {
            let running = u64::from(streams).min(fit.max(1)) as u32;
            let found = pipeline.decode(running, positions);
            DecodeSaid {
                streams,
                running,
                tokens_per_s: found.tokens_per_s(),
                gap_s: found.period_s,
                groups: found.groups,
                limit: limit(found.limit),
                part_on_links: (found.links_s / found.period_s).min(1.0),
                slowest_stage: self.name(Some(draft.workers[found.stage])),
                slowest_link: self.link(draft, found.link),
            }
        });
        let prompts = PROMPTS.into_iter().filter(|tokens| *tokens <= self.config.ctx_size);
        let prompts = prompts.map(|tokens| {
            let found = pipeline.prompt(tokens);
            PromptSaid {
                tokens,
                seconds: found.seconds,
                chunk: found.chunk,
                limit: limit(found.limit),
                slowest_stage: self.name(Some(draft.workers[found.stage])),
                slowest_link: self.link(draft, found.link),
            }
        });
        Prediction { positions, decode: decode.into(), prompts: prompts.collect() }
    }

    /// What follows when each machine of the plan goes. Each is a plan of its own, so all threads make some.
    fn losses(&self, drafts: &Drafts, draft: &Draft) -> Vec<Loss> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let lost = self.lost(draft);
        let part = lost.len().div_ceil(threads).max(1);
        std::thread::scope(|scope| {
            let parts = lost.chunks(part).map(|workers| {
                scope.spawn(move || {
                    let said = workers.iter().map(|(worker, of)| self.loss(drafts, *worker, *of));
                    said.collect::<Vec<Loss>>()
                })
            });
            let parts: Vec<_> = parts.collect();
            let done = parts.into_iter().map(|part| match part.join() {
                Ok(losses) => losses,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            done.flatten().collect()
        })
    }

    /// The machines whose loss is reckoned, and how many each stands for.
    fn lost(&self, draft: &Draft) -> Vec<(usize, usize)> {
        if draft.workers.len() <= LOSSES_MAX {
            return draft.workers.iter().map(|worker| (*worker, 1)).collect();
        }
        let like = |a: usize, b: usize| {
            let (a, b) = (&self.machines.list[a], &self.machines.list[b]);
            Machine { name: String::new(), ..a.clone() }
                == Machine { name: String::new(), ..b.clone() }
        };
        let mut lost: Vec<(usize, usize)> = Vec::new();
        for &worker in &draft.workers {
            match lost.iter_mut().find(|(known, _)| like(*known, worker)) {
                Some((_, count)) => *count += 1,
                None => lost.push((worker, 1)),
            }
        }
        lost
    }

    fn loss(&self, drafts: &Drafts, worker: usize, stands_for: usize) -> Loss {
        let machine = self.name(Some(worker));
        let (plan, refused) = match drafts.plan_without(worker) {
            Some(Ok(draft)) => (Some(self.said(&draft)), None),
            Some(Err(error)) => (None, Some(Refused::of(&error))),
            None => (None, Some(Refused::alone(self.config))),
        };
        Loss { machine, stands_for, plan, refused }
    }

    /// What the first few machines would be better at.
    fn fewer(&self, plan: &PlanSaid) -> Result<Vec<Fewer>, String> {
        if self.config.cut.is_some() {
            return Ok(Vec::new());
        }
        let mut best = figures(plan).map(|figure| figure.map(|figure| (0, figure))).to_vec();
        for count in some_below(plan.stages.len()) {
            let config = PlacementConfig { workers_wanted: count, ..self.config.clone() };
            let workers = self.workers();
            let first = workers.get(..count as usize).unwrap_or_default();
            let Some(Ok(draft)) = Drafts::new(first, config)?.plan() else { continue };
            for (best, figure) in best.iter_mut().zip(figures(&self.said(&draft))) {
                if let (Some((machines, value)), Some(figure)) = (best, figure)
                    && figure > *value
                {
                    (*machines, *value) = (count, figure);
                }
            }
        }
        let words =
            STREAMS.map(|of| ("decode", of)).into_iter().chain(PROMPTS.map(|of| ("prompt", of)));
        let found = words.zip(best).zip(figures(plan)).filter_map(|(((what, of), best), own)| {
            let ((machines, value), own) = best.zip(own)?;
            let is_better = machines > 0 && value > own * (1.0 + BETTER_PERCENT / 100.0);
            let shown = |figure: f64| if what == "prompt" { 1.0 / figure } else { figure };
            let (value, instead_of) = (shown(value), shown(own));
            is_better.then_some(Fewer { machines, what, of, value, instead_of })
        });
        Ok(found.collect())
    }
}

/// All figures of a plan so that more is better: tokens per second, and one over seconds.
fn figures(plan: &PlanSaid) -> [Option<f64>; STREAMS.len() + PROMPTS.len()] {
    let prediction = &plan.prediction;
    let of = |at: usize| match at.checked_sub(STREAMS.len()) {
        None => prediction.decode.get(at).map(|decode| decode.tokens_per_s),
        Some(at) => prediction.prompts.get(at).map(|prompt| 1.0 / prompt.seconds),
    };
    std::array::from_fn(of)
}

/// Some numbers below `most`, from 1: two to an octave.
fn some_below(most: usize) -> impl Iterator<Item = u32> {
    let octaves = (0..u32::BITS).map(|bit| 1_u32 << bit);
    let some =
        octaves.flat_map(|power| if power > 1 { vec![power, power + power / 2] } else { vec![1] });
    some.take_while(move |count| (*count as usize) < most.min(STAGES_MAX + 1))
}

fn limit(limit: Limit) -> &'static str {
    match limit {
        Limit::Round => "round",
        Limit::Stage => "stage",
        Limit::Link => "link",
    }
}

impl MachineSaid {
    fn of(machine: &Machine) -> Self {
        Self {
            name: machine.name.clone(),
            memory_bytes: machine.memory_bytes,
            allowance_bytes: machine.allowance_bytes(),
            threads: machine.threads,
            read_bytes_per_s: machine.worker_read_bytes_per_s(),
            macs_per_s: machine.macs_per_s,
        }
    }
}

impl Refused {
    fn of(error: &PlanError) -> Self {
        let text = error.to_string();
        match error {
            PlanError::Memory { missing, total_needed, total_allowance, .. } => Self {
                text,
                missing_bytes: Some(*missing),
                needed_bytes: Some(*total_needed),
                usable_bytes: Some(*total_allowance),
            },
            _ => Self { text, missing_bytes: None, needed_bytes: None, usable_bytes: None },
        }
    }

    /// More machines are waited for than there are.
    fn waiting(machines: usize) -> Self {
        let text = format!("more machines are waited for than the {machines} that there are");
        Self { text, missing_bytes: None, needed_bytes: None, usable_bytes: None }
    }

    /// No machine is left: the model misses all that it needs.
    fn alone(config: &PlacementConfig) -> Self {
        let weights = config.layout.stage_bytes(0..config.layout.layers);
        Self {
            text: "no machine is left".to_owned(),
            missing_bytes: Some(weights),
            needed_bytes: Some(weights),
            usable_bytes: Some(0),
        }
    }
}

//! The cluster for people: status, and the lines that announce a plan.

use super::Cluster;
use super::membership::Membership;
use super::placement::Placement;
use super::plan::{Plan, Stage, StageInfo};
use super::worker::StageState;
use crate::announce::{kv_line, window_line};
use crate::ids::LaneId;
use crate::status::{StageStatus, Status};
use crate::units::show_size;
use std::ops::Range;
use woolly_engine::plan::{BLOCK_LEN, window_blocks};

impl Cluster {
    /// The present state of a lane. What its scheduler knows (sequences and free blocks) is left at 0.
    pub fn status(&self, lane: LaneId) -> Status {
        match self.placements.get(&lane) {
            Some(placement) => placement.status(&self.members),
            None => Status {
                detail: format!(
                    "reading the model for its fingerprint; {} workers have joined",
                    self.members.len()
                ),
                ..Status::default()
            },
        }
    }
}

impl Placement {
    fn status(&self, members: &Membership) -> Status {
        let Some(plan) = &self.plan else {
            return Status { detail: self.waiting_for(members.len()), ..Status::default() };
        };
        let stages: Vec<_> = plan
            .stages
            .iter()
            .map(|stage| StageStatus {
                worker: members.of_plan(stage.worker).name.clone(),
                worker_id: stage.worker.hex(),
                layer_first: stage.layers.start,
                layer_end: stage.layers.end,
                mapped_bytes: stage.ready.as_ref().map_or(0, |ready| ready.mapped_bytes),
                kv_blocks: plan.cut.blocks(),
                ready: stage.ready.is_some(),
            })
            .collect();
        let ready = plan.serving_since.is_some();
        let detail = if ready {
            format!("serving {} layers in {}", self.config.layout.layers, count(&stages, "stage"))
        } else {
            loading(plan, members)
        };
        Status {
            ready,
            detail,
            stages,
            kv_tokens: plan.cut.kv_positions(),
            ctx_size: self.config.ctx_size,
            kv_blocks: plan.cut.blocks(),
            kv_type: self.config.kv_type.name(),
            loaded_percent: loaded_percent(plan, members),
            ..Status::default()
        }
    }

    fn waiting_for(&self, joined: usize) -> String {
        let wanted = self.workers_wanted();
        let waiting = format!("waiting for workers: {joined} of {wanted} have joined");
        match &self.last_error {
            Some(error) if joined < wanted => format!("{waiting}; {error}"),
            Some(error) => error.clone(),
            None => waiting,
        }
    }

    /// What a plan is called; with its model where there are several.
    fn name_of(&self, plan: &Plan) -> String {
        if self.is_one_of_several {
            format!("Plan {} of '{}'", plan.epoch, self.config.name)
        } else {
            format!("Plan {}", plan.epoch)
        }
    }

    /// What stands before a line that is about this lane and names no plan.
    pub(super) fn prefix(&self) -> String {
        if self.is_one_of_several { format!("'{}': ", self.config.name) } else { String::new() }
    }

    /// What a new plan is announced with.
    pub(super) fn plan_lines(&self, plan: &Plan, members: &Membership) -> Vec<String> {
        let mut lines = vec![format!(
            "{}: {} layers in {}",
            self.name_of(plan),
            self.config.layout.layers,
            count(&plan.stages, "stage")
        )];
        for (index, (stage, budget)) in plan.stages.iter().zip(&plan.cut.stages).enumerate() {
            let worker = members.of_plan(stage.worker);
            let from_disk = match budget.disk_bytes {
                0 => String::new(),
                bytes => format!(", of which {} stay on its disk", show_size(bytes)),
            };
            lines.push(format!(
                "  stage {index}: {} on {} ({}), {} of weights{from_disk}, {} of KV, {} to compute",
                layers(&stage.layers),
                worker.name,
                worker.address,
                show_size(budget.own_bytes),
                show_size(budget.kv_bytes),
                show_size(budget.scratch_bytes),
            ));
        }
        let limiting = plan.cut.limiting_stage;
        let limited_by = if plan.cut.kv_is_limited_by_memory {
            let name = &members.of_plan(plan.stages[limiting].worker).name;
            format!("the memory of stage {limiting} ({name})")
        } else {
            let workers = plan.stages.iter().map(|stage| &members.of_plan(stage.worker).member);
            let most = self.contexts_max(workers);
            format!("the default of {most} sequences of full length")
        };
        let (ty, len) = (self.config.kv_type.name(), self.config.extent_len);
        lines.push(kv_line(ty, plan.cut.kv_positions(), len, self.config.ctx_size, &limited_by));
        lines.extend(self.window_lines(plan));
        lines
    }

    /// What there is for layers with a window.
    fn window_lines(&self, plan: &Plan) -> impl Iterator<Item = String> {
        let (ctx_size, rows, len) = (self.config.ctx_size, self.rows_max(), self.config.extent_len);
        plan.cut.caches.iter().filter_map(move |group| {
            let window = group.window?;
            let of_ctx = u64::from(ctx_size.next_multiple_of(len) / BLOCK_LEN);
            let of_sequence = window_blocks(window, rows, len).min(of_ctx);
            Some(window_line(window, group.count, u64::from(group.count) / of_sequence))
        })
    }

    /// What a plan is announced with when it is served.
    pub(super) fn serving_lines(&self, plan: &Plan, stages: &[StageInfo]) -> Vec<String> {
        let ready = format!("{} is ready: {}", self.name_of(plan), count(stages, "stage"));
        let mut lines = vec![ready];
        for (index, stage) in stages.iter().enumerate() {
            let fetched = match stage.ready.fetched_bytes {
                0 => "nothing to fetch".to_owned(),
                bytes => format!("{} fetched", show_size(bytes)),
            };
            lines.push(format!(
                "  stage {index}: {}, {}, {} mapped, {} KV blocks, {fetched}, loaded in {}.{} s",
                stage.name,
                layers(&stage.layers),
                show_size(stage.ready.mapped_bytes),
                plan.cut.blocks(),
                stage.ready.load_ms / 1000,
                stage.ready.load_ms % 1000 / 100,
            ));
        }
        lines
    }
}

fn loading(plan: &Plan, members: &Membership) -> String {
    let ready = plan.stages.iter().filter(|stage| stage.ready.is_some()).count();
    let mut text = format!("loading: {ready} of {} ready", count(&plan.stages, "stage"));
    for stage in plan.stages.iter().filter(|stage| stage.ready.is_none()) {
        let percent = percent_of(plan, stage, members);
        text.push_str(&format!(", {} {percent} %", members.of_plan(stage.worker).name));
    }
    text
}

/// How far a stage is, by its worker's last heartbeat.
pub(super) fn percent_of(plan: &Plan, stage: &Stage, members: &Membership) -> u8 {
    if stage.ready.is_some() {
        return 100;
    }
    let worker = members.of_plan(stage.worker);
    let beat = &worker.heartbeat;
    let told = worker.state(plan.epoch) == Some(StageState::Loading) && beat.load_total > 0;
    let far = if told { beat.load_done.min(beat.load_total) } else { 0 };
    let percent = u128::from(far) * 100 / u128::from(beat.load_total.max(1));
    u8::try_from(percent).unwrap_or(100)
}

/// How far all stages are, each for as much as another.
fn loaded_percent(plan: &Plan, members: &Membership) -> u8 {
    let each = plan.stages.iter().map(|stage| usize::from(percent_of(plan, stage, members)));
    u8::try_from(each.sum::<usize>() / plan.stages.len().max(1)).unwrap_or(100)
}

/// `1 stage`, `2 stages`.
fn count<T>(items: &[T], word: &str) -> String {
    let plural = if items.len() == 1 { "" } else { "s" };
    format!("{} {word}{plural}", items.len())
}

/// Layers with both ends, as people count them.
fn layers(layers: &Range<u32>) -> String {
    match layers.len() {
        1 => format!("layer {}", layers.start),
        _ => format!("layers {} to {}", layers.start, layers.end.saturating_sub(1)),
    }
}

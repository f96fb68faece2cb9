//! A plan as its workers are told of it, and as the scheduler is.

use super::membership::Membership;
use super::placement::Placement;
use super::plan::Plan;
use crate::scheduler::{CacheBlocks, PlanLimits, Reads};
use std::ops::Range;
use std::time::Duration;
use woolly_engine::plan::KvType;
use woolly_protocol::control::{
    Assign, KvType as WireKvType, ModelSource, Neighbour, PlanLinks, StageSpec,
};
use woolly_protocol::forward::{BlockLimits, CacheLimits};
use woolly_protocol::limits::{
    CHUNKS_PER_MICROBATCH_MAX, FORWARD_PAYLOAD_MAX, ROWS_PER_MICROBATCH_MAX,
};
use woolly_protocol::windows::forwards_in_window;

/// How long a stage should compute one microbatch.
const FORWARD_TARGET: Duration = Duration::from_secs(1);
/// Rows of a microbatch however slow a stage is: with fewer, weights are unpacked for too few tokens.
const ROWS_MIN: u32 = 16;

impl Placement {
    /// What the worker of a stage is given.
    pub(super) fn assign(
        &self,
        plan: &Plan,
        stage: usize,
        machine: [u8; 16],
        members: &Membership,
    ) -> Assign {
        let number = |value: usize| u32::try_from(value).expect("stages are few");
        let limits = self.limits(plan, members);
        let Range { start, end } = plan.stages[stage].layers;
        let next = plan.stages.get(stage + 1).map(|next| {
            let worker = members.of_plan(next.worker);
            let (address, name) = (worker.address.clone(), worker.name.clone());
            Neighbour { worker: next.worker, address, name }
        });
        let kv_type = match self.config.kv_type {
            KvType::F16 => WireKvType::F16,
            KvType::Q8_0 => WireKvType::Q8_0,
        };
        Assign {
            source: ModelSource { machine, parts: self.config.parts.clone() },
            stage: StageSpec {
                fingerprint: self.fingerprint,
                layer_first: start,
                layer_end: end,
                ctx_size: limits.ctx_size,
                caches: limits.caches.groups().iter().copied().map(CacheLimits::Blocks).collect(),
                rows_max: limits.rows_max,
                kv_type,
                hidden: self.config.layout.hidden,
                from_disk: plan.cut.stages[stage].disk_bytes > 0,
            },
            links: PlanLinks {
                epoch: plan.epoch,
                stage: number(stage),
                stage_count: limits.stages,
                in_flight_max: limits.in_flight_max,
                next,
                previous: stage.checked_sub(1).map(|previous| plan.stages[previous].worker),
                replaces: self.plan.as_ref().map(|served| served.epoch),
            },
        }
    }

    /// What the scheduler may do with a plan.
    pub(super) fn limits(&self, plan: &Plan, members: &Membership) -> PlanLimits {
        let number = |value: usize| u32::try_from(value).expect("stages and chunks are few");
        let (stages, rows_max) = (number(plan.stages.len()), self.rows_of(plan, members));
        // All that are in flight fit the window of each link.
        let most = forwards_in_window(rows_max, self.config.layout.hidden).max(stages + 1);
        let groups = plan.cut.caches.iter();
        let groups = groups.map(|group| BlockLimits { count: group.count, window: group.window });
        PlanLimits {
            epoch: plan.epoch,
            stages,
            in_flight_max: PlanLimits::in_flight_max(stages).min(most),
            ctx_size: self.config.ctx_size,
            caches: CacheBlocks::new(groups),
            extent_len: self.config.extent_len,
            rows_max,
            chunks_max: number(CHUNKS_PER_MICROBATCH_MAX),
            vocab: self.config.layout.vocab,
            reads: self.reads(),
        }
    }

    /// What forwards read of the layers and the head.
    fn reads(&self) -> Reads {
        let (layout, layers) = (&self.config.layout, self.config.layout.layers);
        let head = layout.stage_bytes_read(layers..layers, 1);
        let of_layers = |rows| (0..layers).map(move |at| layout.layer_cost(at).bytes_read(rows));
        Reads::of(|rows| of_layers(rows).sum::<u64>() + head)
    }

    /// Rows of a microbatch: as configured, but no more than fit a frame as hidden states.
    pub(super) fn rows_max(&self) -> u32 {
        let width = usize::try_from(self.config.layout.hidden).expect("usize has 32 bits") * 4;
        let most = (FORWARD_PAYLOAD_MAX / width.max(1)).clamp(1, ROWS_PER_MICROBATCH_MAX);
        self.config.rows_max.clamp(1, u32::try_from(most).expect("at most 2,048"))
    }

    /// Rows that no stage of `plan` computes for much longer than [`FORWARD_TARGET`], by what its
    /// worker measured; a decode step of one request waits at most for that many of another's prompt.
    fn rows_of(&self, plan: &Plan, members: &Membership) -> u32 {
        let rows = |stage: usize| {
            let worker = members.get(plan.stages[stage].worker)?;
            let layers = plan.cut.layers[stage].clone();
            let macs = self.config.layout.stage_macs_per_token(layers).max(1);
            Some(worker.member.macs_per_s.saturating_mul(FORWARD_TARGET.as_secs()) / macs)
        };
        let slowest = (0..plan.stages.len()).filter_map(rows).min().unwrap_or(u64::MAX);
        let most = self.rows_max();
        u32::try_from(slowest).unwrap_or(most).clamp(ROWS_MIN.min(most), most)
    }
}

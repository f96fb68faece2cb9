//! Plans for workers that one has or imagines: what this core would do with them, and when one of them goes.
//!
//! Nobody is told of a draft and nothing is loaded for it. It is made by the same [`Placement`] over the same
//! [`Membership`](super::membership) that plans in force are made by, so that the answer is that of `serve`.

use super::placement::Placement;
use super::plan::Plan;
use super::{Cluster, ClusterConfig, PlacementConfig, Timeouts};
use crate::ids::LaneId;
use std::collections::BTreeMap;
use std::time::Duration;
use woolly_engine::plan::{Cut, Member, PlanError};
use woolly_protocol::control::Hello;
use woolly_protocol::ids::{PlanEpoch, WorkerId};

/// The lane of the model that is asked about.
const LANE: LaneId = LaneId(0);
/// All that happens to imagined workers happens at once.
const NOW: Duration = Duration::ZERO;
/// The order of operations of all of them.
const NUMERICS: u32 = 0;

/// A worker that may not exist.
#[derive(Clone, Debug)]
pub struct Imagined {
    /// Its name.
    pub name: String,
    /// What the planner sees of it. Each has a machine of its own: `machine` is not read.
    pub member: Member,
}

/// A plan that nobody was told of.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Layers and memory. Its members are places among the workers that were tried: `workers` says who they are.
    pub cut: Cut,
    /// The worker of each stage, as its place among the workers that were given.
    pub workers: Vec<usize>,
    /// Rows of a microbatch at most.
    pub rows_max: u32,
    /// Microbatches on their way at most.
    pub in_flight_max: u32,
}

/// What becomes of a model on some workers.
#[derive(Debug)]
pub struct Drafts {
    cluster: Cluster,
    ids: Vec<WorkerId>,
}

impl Drafts {
    /// The workers have joined in this order, and the model is placed on them.
    ///
    /// # Errors
    /// Why a worker would be refused: there are more than may join.
    pub fn new(workers: &[Imagined], config: PlacementConfig) -> Result<Drafts, String> {
        let timeouts = Timeouts::default();
        let mut cluster = Cluster::new(ClusterConfig {
            machine: [0; 16],
            numerics: NUMERICS,
            timeouts,
            epochs: 1..u32::MAX,
        });
        let mut ids = Vec::with_capacity(workers.len());
        for (number, worker) in (1_u64..).zip(workers) {
            let id = WorkerId(number);
            cluster.handle_hello(NOW, id, &hello(number, worker))?;
            ids.push(id);
        }
        cluster.handle_lane(NOW, LANE, config, [0; 32], Vec::new());
        // Nobody is told.
        while cluster.poll_action().is_some() {}
        Ok(Drafts { cluster, ids })
    }

    /// The plan that would be made; `None` while more workers are waited for.
    ///
    /// # Errors
    /// Why none is possible, with what is missing.
    pub fn plan(&self) -> Option<Result<Draft, PlanError>> {
        let placement = self.placement()?;
        match &placement.plan {
            Some(plan) => Some(Ok(self.draft(placement, plan.clone()))),
            None => self.choose(placement, |_| true),
        }
    }

    /// The plan that would follow if this one of the workers were gone after that was served; `None` if there
    /// was none to be served, or nobody would be left.
    ///
    /// # Errors
    /// Why none is possible, with what is missing.
    pub fn plan_without(&self, worker: usize) -> Option<Result<Draft, PlanError>> {
        let placement = self.placement().filter(|placement| placement.plan.is_some())?;
        let gone = *self.ids.get(worker)?;
        let mut served = placement.clone();
        served.has_served = true;
        self.choose(&served, |id| id != gone)
    }

    fn placement(&self) -> Option<&Placement> {
        self.cluster.placements.get(&LANE)
    }

    fn choose(
        &self,
        placement: &Placement,
        is_here: impl Fn(WorkerId) -> bool,
    ) -> Option<Result<Draft, PlanError>> {
        let members = &self.cluster.members;
        let mut available = members.available(NOW);
        available.retain(|id| is_here(*id));
        let chosen = placement.choose_among(&available, NOW, members)?;
        let nobody_told = (String::new(), String::new());
        Some(
            chosen
                .map(|choice| self.draft(placement, Plan::new(PlanEpoch(0), choice, nobody_told))),
        )
    }

    fn draft(&self, placement: &Placement, plan: Plan) -> Draft {
        let places: BTreeMap<WorkerId, usize> = self.ids.iter().copied().zip(0..).collect();
        let limits = placement.limits(&plan, &self.cluster.members);
        Draft {
            workers: plan.workers().iter().map(|id| places[id]).collect(),
            cut: plan.cut,
            rows_max: limits.rows_max,
            in_flight_max: limits.in_flight_max,
        }
    }
}

/// What an imagined worker would say of itself.
fn hello(number: u64, worker: &Imagined) -> Hello {
    let member = &worker.member;
    let [.., a, b, c] = number.to_be_bytes();
    Hello {
        name: worker.name.clone(),
        machine: u128::from(number).to_be_bytes(),
        advertise: format!("10.{a}.{b}.{c}:7500"),
        numerics: NUMERICS,
        threads: member.threads,
        memory_bytes: member.memory_bytes,
        memory_is_own: member.memory_is_own,
        kv_memory_bytes: member.kv_memory_bytes,
        read_bytes_per_s: member.read_bytes_per_s,
        macs_per_s: member.macs_per_s,
        isa: String::new(),
        version: String::new(),
        local: false,
        weights_from_disk: member.weights_from_disk,
        host: [0; 16],
        time_ms: 0,
    }
}

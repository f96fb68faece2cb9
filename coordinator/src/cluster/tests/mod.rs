//! Tests of the cluster core: joining, placing, serving, and every way to lose a worker.

mod blame;
mod drafts;
mod faults;
mod hand_over;
mod joining;
mod lanes;
mod lanes_sim;
mod loss;
mod sim;
mod snapshot;
mod time;

use super::{Action, Cluster, ClusterConfig, PlacementConfig, PlanMade, StageInfo, Timeouts};
use crate::ids::LaneId;
use crate::scheduler::{Awaited, PlanLimits, Reads};
use crate::status::Status;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use woolly_engine::gguf::Gguf;
use woolly_engine::plan::{KvType, ModelLayout, Objective};
use woolly_protocol::control::{Assign, Heartbeat, Hello, ModelPart, PlanReport, Ready, Release};
use woolly_protocol::fault::{FaultCode, FaultMessage};
use woolly_protocol::frame::Message;
use woolly_protocol::ids::{MicrobatchId, PlanEpoch, WorkerId};

const GIB: u64 = 1 << 30;
const A: WorkerId = WorkerId(0xa);
const B: WorkerId = WorkerId(0xb);
const C: WorkerId = WorkerId(0xc);

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Eight layers.
fn layout() -> Arc<ModelLayout> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/models"));
    let gguf = Gguf::open(&path.join("granite-tiny.gguf")).unwrap();
    Arc::new(ModelLayout::new(&gguf).unwrap())
}

/// The lane of most tests.
const LANE: LaneId = LaneId(0);

/// A cluster and its one lane.
#[derive(Clone)]
struct Setup {
    timeouts: Timeouts,
    placement: PlacementConfig,
    seats: Vec<(WorkerId, u32)>,
}

pub(crate) fn placement(workers_wanted: u32) -> PlacementConfig {
    PlacementConfig {
        name: "granite".to_owned(),
        layout: layout(),
        parts: vec![ModelPart {
            file_name: "granite-tiny.gguf".to_owned(),
            path: "/models/granite-tiny.gguf".to_owned(),
            size: 4_000_000,
            stat: [1, 2, 3, 4],
        }],
        workers_wanted,
        objective: Objective::Balanced,
        cut: None,
        ctx_size: 8192,
        rows_max: 256,
        kv_type: KvType::F16,
        extent_len: 32,
        contexts_max: 16,
        kv_memory: None,
        must_fit: false,
    }
}

fn config(workers_wanted: u32) -> Setup {
    let timeouts = Timeouts { heartbeat: s(1000), unheard: s(1000), ..Timeouts::default() };
    Setup { timeouts, placement: placement(workers_wanted), seats: Vec::new() }
}

impl Setup {
    fn cut(mut self, cut: Option<Vec<u32>>) -> Self {
        self.placement.cut = cut;
        self
    }

    fn timeouts(self, timeouts: Timeouts) -> Self {
        Self { timeouts, ..self }
    }
}

/// A cluster without lanes.
fn empty(timeouts: Timeouts) -> Cluster {
    Cluster::new(ClusterConfig { machine: [9; 16], numerics: 3, timeouts, epochs: 1..u32::MAX })
}

/// A cluster whose lane's model is known.
fn cluster_of(setup: Setup) -> Cluster {
    let mut cluster = empty(setup.timeouts);
    cluster.handle_lane(s(0), LANE, setup.placement, [7; 32], setup.seats);
    cluster
}

impl Cluster {
    /// The number of the latest plan of any lane.
    fn latest(&self) -> PlanEpoch {
        self.epochs.latest()
    }

    /// The state of the lane of most tests.
    fn state(&self) -> Status {
        self.status(LANE)
    }
}

/// What a worker on a machine of its own says.
pub(crate) fn hello(id: WorkerId) -> Hello {
    let number = u8::try_from(id.0 % 200).unwrap();
    Hello {
        name: format!("worker-{:x}", id.0),
        machine: [number; 16],
        advertise: format!("10.0.0.{number}:7500"),
        numerics: 3,
        threads: 4,
        memory_bytes: 4 * GIB,
        memory_is_own: false,
        kv_memory_bytes: 0,
        read_bytes_per_s: 10 * GIB,
        macs_per_s: 10 * GIB,
        isa: "scalar".to_owned(),
        version: "0.1.0".to_owned(),
        local: false,
        weights_from_disk: false,
        host: [0; 16],
        time_ms: 0,
    }
}

fn join(cluster: &mut Cluster, now: Duration, ids: &[WorkerId]) {
    for id in ids {
        cluster.handle_hello(now, *id, &hello(*id)).unwrap();
    }
}

fn ready(epoch: PlanEpoch) -> Ready {
    Ready {
        epoch,
        mapped_bytes: 3 << 20,
        kv_bytes: 1 << 20,
        scratch_bytes: 1 << 20,
        fetched_bytes: 0,
        load_ms: 1234,
    }
}

fn fault(epoch: PlanEpoch, code: FaultCode, text: &str) -> FaultMessage {
    FaultMessage::new(code, epoch, MicrobatchId(0), text)
}

/// All that is to be done, without what is only told.
fn actions(cluster: &mut Cluster) -> Vec<Action> {
    let all = std::iter::from_fn(|| cluster.poll_action());
    all.filter(|action| !matches!(action, Action::Announce(_) | Action::Made { .. })).collect()
}

/// The plans that were made, with the lanes that they are of.
fn made(cluster: &mut Cluster) -> Vec<(LaneId, PlanMade)> {
    let all = std::iter::from_fn(|| cluster.poll_action());
    let plans = all.filter_map(|action| match action {
        Action::Made { lane, made } => Some((lane, made)),
        _ => None,
    });
    plans.collect()
}

fn announcements(cluster: &mut Cluster) -> String {
    let all = std::iter::from_fn(|| cluster.poll_action());
    let lines = all.filter_map(|action| match action {
        Action::Announce(line) => Some(line),
        _ => None,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Everything must be an assignment; in order of stage.
fn assigned(actions: &[Action]) -> Vec<(WorkerId, &Assign)> {
    let mut stages = Vec::new();
    for action in actions {
        let Action::Assign { worker, assign } = action else {
            panic!("expected assignments, not {action:?}");
        };
        assign.check().unwrap();
        stages.push((*worker, &**assign));
    }
    stages
}

/// (worker, layers) of assignments.
fn places(actions: &[Action]) -> Vec<(WorkerId, u32, u32)> {
    assigned(actions).iter().map(|(id, a)| (*id, a.stage.layer_first, a.stage.layer_end)).collect()
}

/// A cluster that serves a plan over these workers, with nothing left to do.
fn serving(setup: Setup, ids: &[WorkerId]) -> Cluster {
    let mut cluster = cluster_of(setup);
    join(&mut cluster, s(0), ids);
    let epoch = cluster.latest();
    for id in ids {
        cluster.handle_ready(s(0), *id, &ready(epoch));
    }
    assert!(cluster.state().ready, "{}", cluster.state().detail);
    actions(&mut cluster);
    cluster
}

/// The plan that is served, which must be the only thing to do.
fn served(actions: &[Action]) -> (PlanLimits, &[StageInfo]) {
    match actions {
        [Action::Serving { lane: LANE, limits, stages }] => (*limits, stages),
        other => panic!("expected a plan to serve, not {other:?}"),
    }
}

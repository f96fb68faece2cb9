//! Seeded histories of workers that join, load, fail, hang and leave: what must always hold.

use super::*;
use crate::scheduler::tests::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};

/// Histories per run of the tests.
const SEEDS: u64 = 500;
/// Things that happen in one history.
const TURNS: usize = 300;

/// What the world knows of a connected worker.
#[derive(Default)]
struct Known {
    /// The plan it was given, until it is taken back.
    assigned: Option<PlanEpoch>,
    ready: bool,
    progress: u64,
}

/// The world around a cluster core: it obeys, and checks what it is told.
struct World {
    rng: Rng,
    now: Duration,
    cluster: Cluster,
    workers: BTreeMap<WorkerId, Known>,
    wanted: usize,
    /// The plan that is served.
    served: Option<PlanEpoch>,
    /// The plan whose assignments came last, with its stages.
    epoch: PlanEpoch,
    stages: Vec<WorkerId>,
    layers: u32,
    served_plans: usize,
}

impl World {
    fn new(seed: u64, config: Setup) -> Self {
        let mut rng = Rng(seed);
        let wanted = u32::try_from(rng.range(1, 4)).unwrap();
        let timeouts = Timeouts { heartbeat: s(10), ..Timeouts::default() };
        let mut config = config.timeouts(timeouts);
        config.placement.workers_wanted = wanted;
        let cluster = cluster_of(config);
        Self {
            rng,
            now: s(0),
            cluster,
            workers: BTreeMap::new(),
            wanted: wanted as usize,
            served: None,
            epoch: PlanEpoch(0),
            stages: Vec::new(),
            layers: 0,
            served_plans: 0,
        }
    }

    /// Does what the core wants, and checks that it may want it.
    fn obey(&mut self) {
        while let Some(action) = self.cluster.poll_action() {
            match action {
                Action::Assign { worker, assign } => self.obey_assign(worker, &assign),
                Action::Release { worker, release } => {
                    let known = self.workers.get_mut(&worker).expect("a live worker is released");
                    assert_eq!(known.assigned.take(), Some(release.epoch));
                    known.ready = false;
                }
                Action::Serving { limits, stages, .. } => {
                    assert_eq!((limits.epoch, self.served), (self.epoch, None));
                    assert_eq!(self.layers, 8, "all layers are placed");
                    let workers: Vec<_> = stages.iter().map(|stage| stage.worker).collect();
                    assert_eq!(workers, self.stages);
                    assert!(workers.iter().all(|id| self.workers[id].ready), "all are ready");
                    self.served = Some(limits.epoch);
                    self.served_plans += 1;
                }
                Action::Stopped { epoch, .. } => assert_eq!(self.served.take(), Some(epoch)),
                Action::Evict { worker, .. } => {
                    self.workers.remove(&worker).expect("a live worker is evicted");
                }
                Action::ReserveEpochs => panic!("there are numbers enough"),
                Action::LookAtModel(lane) => {
                    let parts = self.cluster.placements[&LANE].config.parts.clone();
                    self.cluster.handle_model_verified(self.now, lane, parts);
                }
                Action::Announce(text) => assert!(!text.contains('\n'), "{text:?}"),
            }
        }
        assert_eq!(self.cluster.state().ready, self.served.is_some());
        assert_eq!(self.cluster.latest(), self.epoch);
        let timeout = self.cluster.poll_timeout();
        assert_eq!(timeout.is_none(), self.workers.is_empty(), "someone has to be watched");
    }

    fn obey_assign(&mut self, worker: WorkerId, assign: &Assign) {
        assign.check().unwrap();
        if assign.links.stage == 0 {
            assert_eq!(assign.links.epoch.0, self.epoch.0 + 1, "every plan has the next number");
            (self.epoch, self.layers) = (assign.links.epoch, 0);
            self.stages.clear();
        }
        assert_eq!(assign.links.epoch, self.epoch);
        assert_eq!(assign.links.stage as usize, self.stages.len());
        assert_eq!(assign.stage.layer_first, self.layers, "layers follow each other");
        assert_eq!(assign.links.previous, self.stages.last().copied());
        self.layers = assign.stage.layer_end;
        self.stages.push(worker);
        let distinct: BTreeSet<_> = self.stages.iter().collect();
        assert_eq!(distinct.len(), self.stages.len(), "a worker has one stage");
        let known = self.workers.get_mut(&worker).expect("a live worker is assigned");
        assert_eq!(
            known.assigned.replace(assign.links.epoch),
            None,
            "its stage was taken back before"
        );
    }

    /// One thing happens.
    fn turn(&mut self) {
        let id = WorkerId(self.rng.range(1, 6));
        match self.rng.range(0, 13) {
            0 | 1 => self.hello(id),
            2 if self.rng.one_in(3) => {
                // Sometimes of a worker that is not there.
                self.workers.remove(&id);
                self.cluster.handle_lost(self.now, id, "gone");
            }
            3 | 4 | 9 | 10 => self.ready(id),
            5 => self.fault(id),
            6 => self.cluster.handle_in_flight(self.now, LANE, self.served.is_some()),
            7 | 8 => {
                let time = Duration::from_millis(self.rng.range(1, 9_000));
                self.pass(time);
            }
            _ => self.beat(),
        }
    }

    fn hello(&mut self, id: WorkerId) {
        let result = self.cluster.handle_hello(self.now, id, &hello(id));
        assert_eq!(result.is_err(), self.workers.contains_key(&id));
        self.workers.entry(id).or_default();
    }

    fn ready(&mut self, id: WorkerId) {
        let Some(known) = self.workers.get_mut(&id) else { return };
        let Some(epoch) = known.assigned else { return };
        known.ready = true;
        self.cluster.handle_ready(self.now, id, &ready(epoch));
    }

    fn fault(&mut self, id: WorkerId) {
        let late = PlanEpoch(self.rng.range(0, 3) as u32);
        let epoch = self.workers.get(&id).and_then(|known| known.assigned).unwrap_or(late);
        let code = self.rng.pick(&[FaultCode::LoadFailed, FaultCode::LinkFailed]);
        self.cluster.handle_fault(self.now, id, &fault(epoch, code, "broken"));
    }

    /// Everyone says that it lives; most have moved.
    fn beat(&mut self) {
        let report = |epoch| PlanReport { epoch, timings: Vec::new() };
        for (id, known) in &mut self.workers {
            known.progress += u64::from(!self.rng.one_in(4));
            let heartbeat = Heartbeat {
                plans: known.assigned.into_iter().map(report).collect(),
                microbatch: MicrobatchId(self.rng.range(0, 1)),
                progress: known.progress,
                ..Heartbeat::default()
            };
            self.cluster.handle_heartbeat(self.now, *id, &heartbeat);
        }
    }

    /// Time passes, as in the shell: the core is called when it asked to be.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..1000 {
            let due = self.cluster.poll_timeout().filter(|due| *due <= end);
            let Some(due) = due else {
                self.now = end;
                return;
            };
            self.now = self.now.max(due);
            self.cluster.handle_timeout(self.now);
            self.obey();
        }
        panic!("a hot loop: always due at {:?}", self.now);
    }

    /// From now on all goes well, so the cluster has to serve before long.
    fn heal(&mut self) {
        for id in 1..=self.wanted as u64 {
            if !self.workers.contains_key(&WorkerId(id)) {
                self.hello(WorkerId(id));
            }
        }
        for _ in 0..80 {
            self.obey();
            for id in self.workers.keys().copied().collect::<Vec<_>>() {
                self.ready(id);
                self.obey();
            }
            self.beat();
            if self.served.is_some() {
                return;
            }
            self.pass(s(1));
        }
        panic!("not served: {}", self.cluster.state().detail);
    }
}

fn history(seed: u64, config: Setup) -> usize {
    let mut world = World::new(seed, config);
    for _ in 0..TURNS {
        world.turn();
        world.obey();
    }
    world.heal();
    world.served_plans
}

#[test]
fn seeded_histories_keep_their_books_and_end_in_service() {
    let config = config(1);
    let mut served = 0;
    for seed in 0..SEEDS {
        let run = std::panic::AssertUnwindSafe(|| served += history(seed, config.clone()));
        assert!(std::panic::catch_unwind(run).is_ok(), "seed {seed} fails, see above");
    }
    assert!(served > 2 * SEEDS as usize, "{served} plans were served");
}

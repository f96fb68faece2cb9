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
    /// Plans that it was given, until they are taken back, and whether it said that it is ready.
    plans: BTreeMap<PlanEpoch, bool>,
    progress: u64,
    leaving: bool,
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
    /// The plan that may take over from it.
    offered: Option<PlanEpoch>,
    /// Whether a plan was made.
    made: bool,
    /// The stages of all plans.
    stages: BTreeMap<PlanEpoch, Vec<WorkerId>>,
    /// The layers of the latest plan so far.
    layers: u32,
    met: Met,
}

/// What histories have met.
#[derive(Clone, Copy, Default)]
struct Met {
    served: usize,
    taken_over: usize,
    shrunk: usize,
    withdrawn: usize,
}

impl World {
    fn new(seed: u64, config: Setup) -> Self {
        let mut rng = Rng(seed);
        let wanted = u32::try_from(rng.range(1, 4)).unwrap();
        let timeouts = Timeouts { heartbeat: s(10), unheard: s(1000), ..Timeouts::default() };
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
            offered: None,
            made: false,
            stages: BTreeMap::new(),
            layers: 0,
            met: Met::default(),
        }
    }

    /// Does what the core wants, and checks that it may want it.
    fn obey(&mut self) {
        loop {
            while let Some(action) = self.cluster.poll_action() {
                self.act(action);
            }
            // Who wants to leave and has nothing left goes.
            let gone =
                self.workers.iter().find(|(_, known)| known.leaving && known.plans.is_empty());
            let Some(id) = gone.map(|(id, _)| *id) else { break };
            self.workers.remove(&id);
            self.cluster.handle_lost(self.now, id, "the worker has left");
        }
        assert_eq!(self.cluster.state().ready, self.served.is_some());
        assert_eq!(self.cluster.latest(), self.latest());
        let timeout = self.cluster.poll_timeout();
        assert!(timeout.is_some() || self.workers.is_empty(), "someone has to be watched");
    }

    fn latest(&self) -> PlanEpoch {
        self.stages.last_key_value().map_or(PlanEpoch(0), |(epoch, _)| *epoch)
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Assign { worker, assign } => self.obey_assign(worker, &assign),
            Action::Release { worker, release } => {
                let known = self.workers.get_mut(&worker).expect("a live worker is released");
                known.plans.remove(&release.epoch).expect("what it was given is taken back");
            }
            Action::Serving { limits, stages, .. } => {
                assert_eq!(self.served, None);
                self.assert_ready(limits.epoch, &stages);
                self.met.shrunk += usize::from(stages.len() < self.wanted);
                self.served = Some(limits.epoch);
                self.met.served += 1;
            }
            Action::TakeOver { limits, stages, .. } => {
                assert!(self.served.is_some() && self.offered.is_none());
                self.assert_ready(limits.epoch, &stages);
                self.offered = Some(limits.epoch);
            }
            Action::Withdrawn { .. } => {
                self.offered.take().expect("it was offered");
                self.met.withdrawn += 1;
            }
            Action::Stopped { epoch, .. } => {
                assert_eq!(self.served.take(), Some(epoch));
                self.offered = None;
            }
            Action::Evict { worker, .. } => {
                self.workers.remove(&worker).expect("a live worker is evicted");
            }
            Action::NoRoom { .. } => panic!("no lane has to fit"),
            Action::ReserveEpochs => panic!("there are numbers enough"),
            Action::LookAtModel(lane) => {
                let parts = self.cluster.placements[&LANE].config.parts.clone();
                self.cluster.handle_model_verified(self.now, lane, parts);
            }
            Action::Announce(text) => assert!(!text.contains('\n'), "{text:?}"),
            Action::Made { made, .. } => self.told(&made),
        }
    }

    /// Each plan is told with the one before it.
    fn told(&mut self, made: &PlanMade) {
        assert!(!made.cut.is_empty() && !made.reason.is_empty(), "{made:?}");
        assert_eq!(made.old.is_some(), self.made, "{made:?}");
        self.made = true;
    }

    fn assert_ready(&self, epoch: PlanEpoch, stages: &[StageInfo]) {
        let workers: Vec<_> = stages.iter().map(|stage| stage.worker).collect();
        assert_eq!(workers, self.stages[&epoch]);
        assert!(workers.iter().all(|id| self.workers[id].plans[&epoch]), "all are ready");
        assert_eq!(stages.last().unwrap().layers.end, 8, "all layers are placed");
    }

    fn obey_assign(&mut self, worker: WorkerId, assign: &Assign) {
        assign.check().unwrap();
        let epoch = assign.links.epoch;
        if assign.links.stage == 0 {
            assert_eq!(epoch.0, self.latest().0 + 1, "every plan has the next number");
            self.layers = 0;
            self.stages.insert(epoch, Vec::new());
        }
        let stages = self.stages.get_mut(&epoch).expect("stages come in order");
        assert_eq!(assign.links.stage as usize, stages.len());
        assert_eq!(assign.stage.layer_first, self.layers, "layers follow each other");
        assert_eq!(assign.links.previous, stages.last().copied());
        self.layers = assign.stage.layer_end;
        stages.push(worker);
        let distinct: BTreeSet<_> = stages.iter().collect();
        assert_eq!(distinct.len(), stages.len(), "a worker has one stage");
        let known = self.workers.get_mut(&worker).expect("a live worker is assigned");
        assert!(!known.leaving, "nothing more is placed on one that leaves");
        assert_eq!(known.plans.insert(epoch, false), None);
        assert!(known.plans.len() <= 2, "the one that is served, and the next");
    }

    /// One thing happens.
    fn turn(&mut self) {
        let id = WorkerId(self.rng.range(1, 6));
        match self.rng.range(0, 15) {
            0 | 1 => self.hello(id),
            2 if self.rng.one_in(3) => {
                // Sometimes of a worker that is not there.
                self.workers.remove(&id);
                self.cluster.handle_lost(self.now, id, "gone");
            }
            3 | 4 | 9 | 10 => self.ready(id),
            5 => self.fault(id),
            6 => self.await_answer(),
            7 | 8 => {
                let time = Duration::from_millis(self.rng.range(1, 9_000));
                self.pass(time);
            }
            11 if self.rng.one_in(2) => self.drain(id),
            12 => self.take_over(),
            _ => self.beat(),
        }
    }

    fn hello(&mut self, id: WorkerId) {
        let result = self.cluster.handle_hello(self.now, id, &hello(id));
        assert_eq!(result.is_err(), self.workers.contains_key(&id));
        self.workers.entry(id).or_default();
    }

    /// It is ready for what it was given last.
    fn ready(&mut self, id: WorkerId) {
        let Some(known) = self.workers.get_mut(&id) else { return };
        let Some((epoch, is_ready)) = known.plans.iter_mut().next_back() else { return };
        *is_ready = true;
        self.cluster.handle_ready(self.now, id, &ready(*epoch));
    }

    fn drain(&mut self, id: WorkerId) {
        let Some(known) = self.workers.get_mut(&id) else { return };
        known.leaving = true;
        let drain = woolly_protocol::control::Drain { reason: "asked to".to_owned() };
        self.cluster.handle_drain(self.now, id, &drain);
        self.obey();
        if self.rng.one_in(2) {
            self.workers
                .keys()
                .copied()
                .collect::<Vec<_>>()
                .into_iter()
                .for_each(|id| self.ready(id));
            self.obey();
        }
    }

    fn take_over(&mut self) {
        let Some(epoch) = self.offered.take() else { return };
        self.served = Some(epoch);
        self.met.taken_over += 1;
        self.cluster.handle_taken_over(self.now, LANE, epoch);
    }

    fn await_answer(&mut self) {
        let microbatch = MicrobatchId(self.rng.range(1, 9));
        let since = self.now;
        let awaited = Awaited { microbatch, rows: 1, since, usual: None };
        self.cluster.handle_awaited(LANE, self.served.map(|_| awaited));
    }

    fn fault(&mut self, id: WorkerId) {
        let late = PlanEpoch(self.rng.range(0, 3) as u32);
        let last = self.workers.get(&id).and_then(|known| known.plans.last_key_value());
        let epoch = last.map_or(late, |(epoch, _)| *epoch);
        let code = self.rng.pick(&[FaultCode::LoadFailed, FaultCode::LinkFailed]);
        let about = Some(WorkerId(self.rng.range(1, 6))).filter(|other| *other != id);
        let fault = FaultMessage { about, ..fault(epoch, code, "broken") };
        self.cluster.handle_fault(self.now, id, &fault);
    }

    /// Everyone says that it lives; most have moved.
    fn beat(&mut self) {
        let report = |epoch: &PlanEpoch| PlanReport { epoch: *epoch, timings: Vec::new() };
        for (id, known) in &mut self.workers {
            known.progress += u64::from(!self.rng.one_in(4));
            let heartbeat = Heartbeat {
                plans: known.plans.keys().map(report).collect(),
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
        for _ in 0..80 {
            for id in 1..=self.wanted as u64 {
                if !self.workers.contains_key(&WorkerId(id)) {
                    self.hello(WorkerId(id));
                }
            }
            self.obey();
            for id in self.workers.keys().copied().collect::<Vec<_>>() {
                self.ready(id);
                self.obey();
            }
            self.take_over();
            self.obey();
            self.beat();
            if self.served.is_some() && self.workers.values().all(|known| !known.leaving) {
                return;
            }
            self.pass(s(1));
        }
        panic!("not served: {}", self.cluster.state().detail);
    }
}

fn history(seed: u64, config: Setup) -> Met {
    let mut world = World::new(seed, config);
    for _ in 0..TURNS {
        world.turn();
        world.obey();
    }
    world.cluster.handle_awaited(LANE, None);
    world.heal();
    world.met
}

#[test]
fn seeded_histories_keep_their_books_and_end_in_service() {
    let config = config(1);
    let mut all = Met::default();
    for seed in 0..SEEDS {
        let run = std::panic::AssertUnwindSafe(|| history(seed, config.clone()));
        let Ok(met) = std::panic::catch_unwind(run) else { panic!("seed {seed} fails, see above") };
        all.served += met.served;
        all.taken_over += met.taken_over;
        all.shrunk += met.shrunk;
        all.withdrawn += met.withdrawn;
    }
    assert!(all.served > 2 * SEEDS as usize, "{} plans were served", all.served);
    assert!(all.taken_over > 50, "{} plans took over", all.taken_over);
    assert!(all.shrunk > 100, "{} plans had fewer workers than were waited for", all.shrunk);
    assert!(all.withdrawn > 20, "{} plans were withdrawn", all.withdrawn);
}

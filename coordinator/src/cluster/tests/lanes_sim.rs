//! Seeded histories in which lanes come and go while workers join, load, fail and leave: nothing of a lane stays
//! when it is gone, no worker is given more than it has, and each lane is served in the end.

use super::*;
use crate::scheduler::tests::rng::Rng;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Histories per run of the tests.
const SEEDS: u64 = 300;
/// Things that happen in one history.
const TURNS: usize = 200;
/// Lanes at a time.
const LANES: u64 = 3;
/// Memory of a worker: for one lane with all that it may have and a part of another.
const MEMORY: u64 = 64 << 20;

/// The world around a cluster core, and its books.
struct World {
    rng: Rng,
    now: Duration,
    cluster: Cluster,
    /// The plans that each worker was given and that were not taken back.
    workers: BTreeMap<WorkerId, Vec<PlanEpoch>>,
    /// The lanes that are there, with the plan that is served.
    lanes: BTreeMap<LaneId, Option<PlanEpoch>>,
    /// Whose plan each is: its model's name for workers.
    owners: BTreeMap<PlanEpoch, [u8; 32]>,
    next_lane: u32,
    served: usize,
    closed_while_served: usize,
}

fn fingerprint(lane: LaneId) -> [u8; 32] {
    [u8::try_from(lane.0 % 251).unwrap(); 32]
}

impl World {
    fn new(seed: u64) -> World {
        let timeouts = Timeouts { heartbeat: s(1000), unheard: s(1000), ..Timeouts::default() };
        World {
            rng: Rng(seed),
            now: s(0),
            cluster: empty(timeouts),
            workers: BTreeMap::new(),
            lanes: BTreeMap::new(),
            owners: BTreeMap::new(),
            next_lane: 0,
            served: 0,
            closed_while_served: 0,
        }
    }

    fn obey(&mut self) {
        while let Some(action) = self.cluster.poll_action() {
            match action {
                Action::Assign { worker, assign } => {
                    assign.check().unwrap();
                    let owner = assign.stage.fingerprint;
                    assert!(self.lanes.keys().any(|lane| fingerprint(*lane) == owner));
                    assert_eq!(*self.owners.entry(assign.links.epoch).or_insert(owner), owner);
                    self.workers.get_mut(&worker).expect("it is here").push(assign.links.epoch);
                }
                Action::Release { worker, release } => {
                    let plans = self.workers.get_mut(&worker).expect("it is here");
                    let place = plans.iter().position(|epoch| *epoch == release.epoch);
                    plans.remove(place.expect("what it was given is taken back"));
                }
                Action::Serving { lane, limits, .. } => {
                    let served = self.lanes.get_mut(&lane).expect("nothing is said of who is gone");
                    assert_eq!(served.replace(limits.epoch), None);
                    self.served += 1;
                }
                Action::Stopped { lane, epoch, .. } => {
                    let served = self.lanes.get_mut(&lane).expect("nothing is said of who is gone");
                    assert_eq!(served.take(), Some(epoch));
                }
                Action::Evict { worker, .. } => drop(self.workers.remove(&worker)),
                Action::Announce(_) | Action::LookAtModel(_) | Action::Made { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        for memory in self.cluster.holdings() {
            let held: u64 = memory.models.iter().map(|m| m.weights + m.kv + m.scratch).sum();
            assert_eq!(held + memory.free, memory.allowance, "{memory:?}");
        }
        for (lane, served) in &self.lanes {
            assert_eq!(self.cluster.status(*lane).ready, served.is_some());
        }
    }

    fn turn(&mut self) {
        let id = WorkerId(self.rng.range(1, 4));
        match self.rng.range(0, 9) {
            0 | 1 => self.hello(id),
            2 if self.workers.remove(&id).is_some() => {
                self.cluster.handle_lost(self.now, id, "gone");
            }
            3 => self.load(),
            4 => self.unload(),
            5 => self.fault(id),
            6 => {
                self.now += s(self.rng.range(1, 20));
                self.cluster.handle_timeout(self.now);
            }
            _ => self.all_ready(id),
        }
    }

    fn hello(&mut self, id: WorkerId) {
        if let Entry::Vacant(place) = self.workers.entry(id) {
            place.insert(Vec::new());
            let hello = Hello { memory_bytes: MEMORY, memory_is_own: true, ..hello(id) };
            self.cluster.handle_hello(self.now, id, &hello).unwrap();
        }
    }

    fn load(&mut self) {
        if self.lanes.len() as u64 == LANES {
            return;
        }
        let lane = LaneId(self.next_lane);
        self.next_lane += 1;
        self.lanes.insert(lane, None);
        let wanted = u32::try_from(self.rng.range(1, 2)).unwrap();
        let placement = PlacementConfig { contexts_max: 2, ..placement(wanted) };
        self.cluster.handle_lane(self.now, lane, placement, fingerprint(lane), Vec::new());
    }

    fn unload(&mut self) {
        let lanes: Vec<LaneId> = self.lanes.keys().copied().collect();
        if lanes.is_empty() {
            return;
        }
        let lane = self.rng.pick(&lanes);
        let others: Vec<_> = self.lanes.iter().filter(|(other, _)| **other != lane).collect();
        let before: Vec<_> = others.into_iter().map(|(lane, served)| (*lane, *served)).collect();
        self.closed_while_served += usize::from(self.lanes[&lane].is_some());
        self.lanes.remove(&lane);
        self.cluster.handle_lane_gone(self.now, lane);
        self.obey();
        let held = |epoch: &PlanEpoch| self.owners[epoch] == fingerprint(lane);
        assert!(!self.workers.values().flatten().any(held), "its plans are taken back");
        for (other, served) in before {
            assert!(served.is_none() || self.lanes[&other] == served, "another lane noticed");
        }
    }

    fn fault(&mut self, id: WorkerId) {
        let last = self.workers.get(&id).and_then(|plans| plans.last().copied());
        // Sometimes of a plan that was taken back.
        let epoch = last.unwrap_or(PlanEpoch(1));
        let fault = fault(epoch, FaultCode::ComputeFailed, "broken");
        self.cluster.handle_fault(self.now, id, &fault);
    }

    fn all_ready(&mut self, id: WorkerId) {
        for epoch in self.workers.get(&id).cloned().unwrap_or_default() {
            self.cluster.handle_ready(self.now, id, &ready(epoch));
        }
    }
}

fn history(seed: u64) -> World {
    let mut world = World::new(seed);
    for _ in 0..TURNS {
        world.turn();
        world.obey();
    }
    // From now on all goes well.
    for _ in 0..40 {
        (1..=4).for_each(|id| world.hello(WorkerId(id)));
        world.now += s(5);
        world.cluster.handle_timeout(world.now);
        world.obey();
        (1..=4).for_each(|id| world.all_ready(WorkerId(id)));
        world.obey();
    }
    assert!(world.lanes.values().all(Option::is_some), "{:?}", world.lanes);
    while !world.lanes.is_empty() {
        world.unload();
    }
    assert!(world.workers.values().all(Vec::is_empty), "nothing is held");
    for memory in world.cluster.holdings() {
        assert!(memory.free == memory.allowance && memory.models.is_empty(), "{memory:?}");
    }
    world
}

#[test]
fn lanes_that_come_and_go_leave_nothing_behind_and_the_others_alone() {
    let (mut served, mut closed) = (0, 0);
    for seed in 0..SEEDS {
        let run = std::panic::AssertUnwindSafe(|| history(seed));
        let Ok(world) = std::panic::catch_unwind(run) else {
            panic!("seed {seed} fails, see above")
        };
        served += world.served;
        closed += world.closed_while_served;
    }
    assert!(served > 3 * SEEDS as usize, "{served} plans were served");
    assert!(closed > SEEDS as usize, "{closed} lanes went while they were served");
}

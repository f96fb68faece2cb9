//! What goes wrong in a history: drawn from its seed, aimed at those who serve when it happens.

use super::network::{IDLE, Node};
use super::worker::Worker;
use super::{COORDINATOR, Event, MS, SECOND, Scale, Time, World};
use crate::scheduler::tests::rng::Rng;
use woolly_protocol::ids::WorkerId;

/// By when a plan must have ended whose worker is gone, silent, or cut off: the silence, an echo that stands
/// still, and the time until both are looked at.
const SEEN: Time = IDLE + 800 * MS;
const UNHEARD: Time = 4_500 * MS;

/// Something that goes wrong, or ends.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// A process is killed; another one comes later.
    Kill(Who),
    /// A process stands still for so long.
    Freeze(Who, Time),
    Thaw(WorkerId, u64),
    /// A worker and the coordinator, or a stage and the one after it, hear nothing of each other.
    Cut(Who, Way, Time),
    Heal(Vec<(Node, Node)>),
    /// A link that comes and goes.
    Flap(Who, u64),
    /// Several links are stopped one by one and released in another order.
    Swizzle(u64),
    /// It beats and computes nothing.
    Lock(Who, Time),
    Unlock(WorkerId, u64),
    Slow(Who, u64, Time),
    Swift(WorkerId, u64),
    /// It is told to end.
    Terminate(Who),
    /// It says what is not so.
    Lie(Who),
}

/// Whom a fault meets.
#[derive(Clone, Copy, Debug)]
pub(super) enum Who {
    /// The worker of a stage, counted modulo their number.
    Stage(u64),
    /// Any worker, spares included.
    Any(u64),
}

/// What is cut.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    ToCoordinator,
    FromCoordinator,
    BothWays,
    ToNext,
    FromNext,
    WithNext,
}

impl Fault {
    /// The faults of a history with their times.
    pub(super) fn draw(rng: &mut Rng, scale: Scale) -> Vec<(Time, Fault)> {
        if scale.is_large {
            let each = |n: u64| (2 * SECOND + n * scale.faulty, Fault::Kill(Who::Stage(n)));
            return (1..=scale.faults).map(each).collect();
        }
        let fault = |rng: &mut Rng| {
            let at = rng.range(2 * SECOND, 2 * SECOND + scale.faulty);
            (at, Fault::one(rng))
        };
        (0..scale.faults).map(|_| fault(rng)).collect()
    }

    fn one(rng: &mut Rng) -> Fault {
        let number = rng.range(0, 63);
        let who = if rng.one_in(5) { Who::Any(number) } else { Who::Stage(number) };
        let long = rng.pick(&[300 * MS, SECOND, 3 * SECOND, 6 * SECOND, 10 * SECOND]);
        match rng.range(0, 15) {
            0..=4 => Fault::Kill(who),
            5 | 6 => Fault::Freeze(who, long),
            7..=9 => {
                let way = rng.pick(&[
                    Way::ToCoordinator,
                    Way::FromCoordinator,
                    Way::BothWays,
                    Way::ToNext,
                    Way::FromNext,
                    Way::WithNext,
                ]);
                Fault::Cut(who, way, long)
            }
            10 => Fault::Flap(who, rng.range(2, 6)),
            11 => Fault::Swizzle(rng.range(2, 6)),
            12 => Fault::Lock(who, rng.range(SECOND, 10 * SECOND)),
            13 => Fault::Slow(who, rng.range(2, 12), long),
            14 => Fault::Terminate(who),
            _ => Fault::Lie(who),
        }
    }
}

impl World {
    fn pick(&self, who: Who) -> Option<WorkerId> {
        let of = |number: u64, all: &[WorkerId]| {
            let index = number as usize % all.len().max(1);
            all.get(index).copied()
        };
        match who {
            Who::Stage(number) => of(number, self.shell.stages()),
            Who::Any(number) => {
                let all: Vec<_> = self.workers.keys().copied().collect();
                of(number, &all)
            }
        }
    }

    /// The worker of the stage after that of another.
    fn next_of(&self, id: WorkerId) -> Option<WorkerId> {
        let stages = self.shell.stages();
        let stage = stages.iter().position(|worker| *worker == id)?;
        stages.get(stage + 1).copied()
    }

    fn must_be_over(&mut self, id: WorkerId, after: Time, why: &'static str) {
        if let Some(epoch) = self.shell.served().filter(|_| self.shell.stages().contains(&id)) {
            self.at(self.now + after, Event::MustBeOver(epoch, why));
        }
    }

    pub(super) fn fault(&mut self, fault: Fault) {
        match fault {
            Fault::Kill(who) => self.on(who, |world, id| {
                world.must_be_over(id, SEEN, "killed");
                let pause = world.rng.range(200 * MS, 8 * SECOND);
                world.end_process(id, pause);
            }),
            Fault::Freeze(who, time) => self.on(who, |world, id| {
                if time > SEEN {
                    world.must_be_over(id, SEEN, "frozen");
                }
                world.worker(id).is_frozen = true;
                world.silence(id.0, false);
                let life = world.worker(id).life;
                world.at(world.now + time, Event::Fault(Fault::Thaw(id, life)));
            }),
            Fault::Thaw(id, life) => {
                if self.worker(id).life == life && self.worker(id).is_frozen {
                    self.worker(id).is_frozen = false;
                    self.speak(id.0);
                    self.catch_up(id);
                }
            }
            Fault::Cut(who, way, time) => self.on(who, |world, id| world.cut_way(id, way, time)),
            Fault::Heal(ways) => ways.into_iter().for_each(|(from, to)| self.heal(from, to)),
            Fault::Flap(who, times) => self.on(who, |world, id| {
                for turn in 0..times {
                    let at = world.now + 2 * turn * SECOND + 1;
                    let who = Who::Any(id.0 - 1);
                    let cut = Fault::Cut(who, Way::BothWays, SECOND);
                    world.at(at, Event::Fault(cut));
                }
            }),
            Fault::Swizzle(count) => self.swizzle(count),
            Fault::Lock(who, time) => self.on(who, |world, id| {
                world.worker(id).is_locked = true;
                let life = world.worker(id).life;
                world.at(world.now + time, Event::Fault(Fault::Unlock(id, life)));
            }),
            Fault::Unlock(id, life) => {
                if self.worker(id).life == life {
                    self.worker(id).is_locked = false;
                    self.start(id);
                }
            }
            Fault::Slow(who, times, time) => self.on(who, |world, id| {
                world.worker(id).slow = times;
                let life = world.worker(id).life;
                world.at(world.now + time, Event::Fault(Fault::Swift(id, life)));
            }),
            Fault::Swift(id, life) => {
                if self.worker(id).life == life {
                    self.worker(id).slow = 1;
                }
            }
            Fault::Terminate(who) => self.on(who, |world, id| world.terminate(id)),
            Fault::Lie(who) => self.on(who, World::lie),
        }
    }

    /// Does something to a worker that is well so far.
    fn on(&mut self, who: Who, does: impl FnOnce(&mut World, WorkerId)) {
        let well = self.pick(who).filter(|id| self.workers[id].is_good());
        if let Some(id) = well {
            self.met.faults += 1;
            does(self, id);
        }
    }

    fn cut_way(&mut self, id: WorkerId, way: Way, time: Time) {
        let next = self.next_of(id).map_or(COORDINATOR, |next| next.0);
        let ways = match way {
            Way::ToCoordinator => vec![(id.0, COORDINATOR)],
            Way::FromCoordinator => vec![(COORDINATOR, id.0)],
            Way::BothWays => vec![(id.0, COORDINATOR), (COORDINATOR, id.0)],
            Way::ToNext => vec![(id.0, next)],
            Way::FromNext => vec![(next, id.0)],
            Way::WithNext => vec![(id.0, next), (next, id.0)],
        };
        if ways.iter().any(|(from, to)| self.network.is_cut(*from, *to)) {
            return;
        }
        if time > UNHEARD {
            self.must_be_over(id, UNHEARD, "cut off");
        }
        ways.iter().for_each(|(from, to)| self.cut(*from, *to));
        self.at(self.now + time, Event::Fault(Fault::Heal(ways)));
    }

    fn swizzle(&mut self, count: u64) {
        self.met.faults += 1;
        let ids: Vec<_> = self.workers.keys().copied().collect();
        for _ in 0..count {
            let id = self.rng.pick(&ids);
            let after = self.rng.range(0, 2 * SECOND);
            let time = self.rng.range(100 * MS, 4 * SECOND);
            let way = self.rng.pick(&[Way::BothWays, Way::ToCoordinator, Way::WithNext]);
            let cut = Fault::Cut(Who::Any(id.0 - 1), way, time);
            self.at(self.now + after, Event::Fault(cut));
        }
    }

    /// A spare or a stage says what is not so: of a plan that is not, or answers what was not asked.
    fn lie(&mut self, id: WorkerId) {
        use super::Message;
        use woolly_protocol::fault::{FaultCode, FaultMessage};
        use woolly_protocol::ids::{MicrobatchId, PlanEpoch};
        use woolly_protocol::sampling::Sampled;
        let epoch = self.shell.served().unwrap_or(PlanEpoch(1));
        let message = match self.rng.range(0, 3) {
            0 => Message::Sampled(Sampled { epoch, microbatch: MicrobatchId(7), rows: Vec::new() }),
            1 => {
                let late = PlanEpoch(epoch.0.saturating_sub(1));
                Message::Sampled(Sampled {
                    epoch: late,
                    microbatch: MicrobatchId(7),
                    rows: Vec::new(),
                })
            }
            2 => Message::Fault(FaultMessage::new(
                FaultCode::ComputeFailed,
                PlanEpoch(epoch.0 + 9),
                MicrobatchId(0),
                "of no plan",
            )),
            _ => {
                let other = self.workers.keys().find(|other| **other != id).copied();
                let fault =
                    FaultMessage::new(FaultCode::LinkFailed, epoch, MicrobatchId(0), "it is them");
                Message::Fault(FaultMessage { about: other, ..fault })
            }
        };
        self.say(id, message);
    }

    /// A process ends at once; the next one of this worker starts after a pause.
    pub(super) fn end_process(&mut self, id: WorkerId, pause: Time) {
        self.drop_ends(id.0);
        self.silence(id.0, true);
        let worker = self.worker(id);
        let life = worker.life + 1;
        *worker = Worker::of_life(life, false);
        self.at(self.now + pause, Event::Restart(id));
    }

    pub(super) fn restart(&mut self, id: WorkerId) {
        let worker = self.worker(id);
        if worker.is_alive {
            return;
        }
        let life = worker.life;
        *worker = Worker::of_life(life, true);
        self.speak(id.0);
        self.at(self.now, Event::Connect(id, life));
    }
}

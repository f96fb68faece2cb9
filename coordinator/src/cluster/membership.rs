//! Who is here: the workers that have joined, what they said of themselves, and which plans they hold
//! stages of. It knows no model.

use super::broken_links::BrokenLinks;
use super::lost::LostWorkers;
use super::worker::{Worker, check_address};
use std::collections::BTreeMap;
use std::time::Duration;
use woolly_engine::plan::Member;
use woolly_protocol::control::{Heartbeat, Hello};
use woolly_protocol::ids::{PlanEpoch, WorkerId};

/// Workers that may be joined at a time, spares included.
pub const WORKERS_MAX: usize = 1024;

/// The workers.
#[derive(Debug, Default)]
pub(super) struct Membership {
    workers: BTreeMap<WorkerId, Worker>,
    /// Workers that ever joined: the order of joining.
    joins: u64,
    /// Which of them could not talk to each other.
    pub(super) links: BrokenLinks,
    /// Who was here.
    pub(super) lost: LostWorkers,
    /// The worker that is the next to count as lost, and when; `None` if that has to be looked up. Asked for
    /// after every event, while only the heartbeats of that one worker change it.
    first_due: Option<(Duration, WorkerId)>,
}

impl Membership {
    /// A worker has said what it is.
    ///
    /// # Errors
    ///
    /// What to refuse it with.
    pub(super) fn join(
        &mut self,
        now: Duration,
        id: WorkerId,
        hello: &Hello,
        numerics: u32,
    ) -> Result<&Worker, String> {
        self.check(id, hello, numerics)?;
        let worker = Worker::new(hello, self.joins, now);
        self.links.forget(id);
        self.lost.forget(id);
        self.joins += 1;
        self.first_due = None;
        Ok(self.workers.entry(id).or_insert(worker))
    }

    fn check(&self, id: WorkerId, hello: &Hello, numerics: u32) -> Result<(), String> {
        if hello.numerics != numerics {
            return Err(format!(
                "this worker computes in order of operations {}, the cluster in {numerics}: their \
                 results would differ; install the same version of Woolly on all machines",
                hello.numerics
            ));
        }
        if let Some(known) = self.workers.get(&id) {
            return Err(format!(
                "a worker with the id {} is connected already (as {known}): give each worker a \
                 --state-dir of its own; if this one was restarted, it can join again when the old \
                 connection has timed out",
                id.hex()
            ));
        }
        if self.workers.len() >= WORKERS_MAX {
            return Err(format!("{WORKERS_MAX} workers have joined; more are not possible"));
        }
        check_address(&hello.advertise)
    }

    /// A worker is gone.
    pub(super) fn leave(&mut self, id: WorkerId) -> Option<Worker> {
        self.links.forget(id);
        self.first_due = None;
        self.workers.remove(&id)
    }

    /// A worker lives, and says how far it is; whether it loads a stage.
    pub(super) fn hear(&mut self, now: Duration, id: WorkerId, heartbeat: &Heartbeat) -> bool {
        let Some(worker) = self.workers.get_mut(&id) else { return false };
        let loaded = worker.loads();
        worker.hear(now, heartbeat);
        let loads = worker.loads();
        // Every limit has moved away, but for one that was not there before.
        if loaded != loads || self.first_due.is_some_and(|(_, first)| first == id) {
            self.first_due = None;
        }
        loads
    }

    /// When the first worker counts as lost, `deadline` being when one does.
    pub(super) fn first_due(&mut self, deadline: impl Fn(&Worker) -> Duration) -> Option<Duration> {
        if self.first_due.is_none() {
            self.first_due = self.iter().map(|(id, worker)| (deadline(worker), id)).min();
        }
        Some(self.first_due?.0)
    }

    /// Nobody backs off any more.
    pub(super) fn forgive_all(&mut self, now: Duration) {
        self.workers.values_mut().for_each(|worker| worker.backoff_until = now);
    }

    /// Workers that have joined.
    pub(super) fn len(&self) -> usize {
        self.workers.len()
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (WorkerId, &Worker)> {
        self.workers.iter().map(|(id, worker)| (*id, worker))
    }

    /// This process was asleep for so long: nobody was silent meanwhile.
    pub(super) fn pardon(&mut self, asleep: Duration) {
        self.first_due = None;
        self.workers.values_mut().for_each(|worker| worker.pardon(asleep));
    }

    /// Those that do not back off and are not about to leave, in order of joining.
    pub(super) fn available(&self, now: Duration) -> Vec<WorkerId> {
        let mut rested: Vec<_> =
            self.workers.iter().filter(|(_, worker)| worker.may_be_placed(now)).collect();
        rested.sort_by_key(|(_, worker)| worker.joined);
        rested.into_iter().map(|(id, _)| *id).collect()
    }

    /// A worker with the memory that its plans leave: its own, or its machine's. The plan `but` does not
    /// count: it ends when what is planned begins.
    pub(super) fn with_free_memory(&self, id: WorkerId, but: Option<PlanEpoch>) -> Member {
        let worker = self.of_plan(id);
        let mut member = worker.member.clone();
        let held: u64 = if member.memory_is_own {
            worker.held_bytes(but)
        } else {
            let shares = |other: &&Worker| {
                !other.member.memory_is_own && other.member.machine == member.machine
            };
            self.workers.values().filter(shares).map(|other| other.held_bytes(but)).sum()
        };
        member.memory_bytes = member.memory_bytes.saturating_sub(held);
        member
    }

    /// A worker, if it is here.
    pub(super) fn get(&self, id: WorkerId) -> Option<&Worker> {
        self.workers.get(&id)
    }

    /// As [`get`](Self::get).
    pub(super) fn get_mut(&mut self, id: WorkerId) -> Option<&mut Worker> {
        self.first_due = None;
        self.workers.get_mut(&id)
    }

    /// A worker of a plan, which is here: a plan ends with the first that leaves.
    pub(super) fn of_plan(&self, id: WorkerId) -> &Worker {
        self.workers.get(&id).expect("plans hold live workers only")
    }

    /// As [`of_plan`](Self::of_plan).
    pub(super) fn of_plan_mut(&mut self, id: WorkerId) -> &mut Worker {
        self.first_due = None;
        self.workers.get_mut(&id).expect("plans hold live workers only")
    }
}

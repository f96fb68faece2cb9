//! How a worker of the simulation comes by a plan: it dials the next stage, loads, and says that it is ready.

use super::worker::Plan;
use super::{Event, MS, Message, SECOND, Time, World};
use std::collections::{BTreeMap, VecDeque};
use woolly_protocol::control::{Assign, Ready};
use woolly_protocol::fault::FaultCode;
use woolly_protocol::ids::{PlanEpoch, WorkerId};

/// How long the next stage is dialled.
const DIAL_TIME: Time = 2 * SECOND;

impl World {
    pub(super) fn assigned(&mut self, id: WorkerId, life: u64, assign: Assign) {
        let (epoch, dials) = (assign.links.epoch, assign.links.next.is_some());
        let plan = Plan {
            assign,
            stage: None,
            next: None,
            previous: None,
            arrived: VecDeque::new(),
            samplings: BTreeMap::new(),
            is_live: true,
        };
        self.worker(id).plans.insert(epoch, plan);
        if dials {
            let at = self.now + self.rng.range(MS, 5 * MS);
            self.at(at, Event::Dial(id, life, epoch, self.now + DIAL_TIME));
        }
        let at = self.now + self.rng.range(MS, 400 * MS);
        self.at(at, Event::Loaded(id, life, epoch));
    }

    pub(super) fn dial(&mut self, id: WorkerId, life: u64, epoch: PlanEpoch, until: Time) {
        if !self.takes(id, life, || Event::Dial(id, life, epoch, until)) {
            return;
        }
        let Some(plan) = self.worker(id).plans.get(&epoch) else { return };
        let next = plan.assign.links.next.as_ref().map(|next| next.worker);
        let Some(next) = next else { return };
        if self.network.reaches(id.0, next.0) {
            let connection = self.network.open(id.0, next.0);
            if let Some(plan) = self.worker(id).plans.get_mut(&epoch) {
                plan.next = Some(connection);
            }
            self.say_if_ready(id, epoch);
        } else if self.now >= until {
            self.fail(id, epoch, FaultCode::LinkFailed, Some(next));
        } else {
            self.at(self.now + 300 * MS, Event::Dial(id, life, epoch, until));
        }
    }

    pub(super) fn loaded(&mut self, id: WorkerId, life: u64, epoch: PlanEpoch) {
        if !self.takes(id, life, || Event::Loaded(id, life, epoch)) {
            return;
        }
        let worker = self.worker(id);
        if worker.plans.contains_key(&epoch) {
            let stage = worker.stage_for(epoch);
            worker.plans.get_mut(&epoch).expect("it is there").stage = Some(stage);
            worker.progress += 1;
            self.say_if_ready(id, epoch);
        }
    }

    fn say_if_ready(&mut self, id: WorkerId, epoch: PlanEpoch) {
        let plan = &self.worker(id).plans[&epoch];
        if plan.stage.is_none() || plan.assign.links.next.is_some() != plan.next.is_some() {
            return;
        }
        let ready = Ready {
            epoch,
            mapped_bytes: 1,
            kv_bytes: 1,
            scratch_bytes: 1,
            fetched_bytes: 0,
            load_ms: 1,
        };
        self.say(id, Message::Ready(ready));
    }

    pub(super) fn end_plan(&mut self, id: WorkerId, epoch: PlanEpoch) {
        let Some(plan) = self.worker(id).plans.remove(&epoch) else { return };
        if let Some(next) = plan.next {
            self.close(next, id.0);
        }
        if self.worker(id).is_leaving && self.worker(id).plans.is_empty() {
            self.leave(id);
        }
    }
}

//! Models that come and go: lanes are made and closed while others serve.
//!
//! An unload takes no new generations at once. Those that run may finish for as long as was asked for; then
//! the lane is closed: they are told that the model was unloaded, its plans are released on the workers, and
//! its queue and caches are gone. Nothing of that touches another lane.

use super::lane::{Lane, LaneConfig, Unloaded};
use super::wiring::LaneCommand;
use super::{Driver, Phase};
use crate::exit::Fatal;
use crate::generation::{Failure, LaneId, ModelId};
use crate::models::watch::ModelNews;
use std::time::Duration;
use tokio::sync::oneshot;

impl Driver {
    pub(super) fn lane_command(&mut self, command: LaneCommand) {
        match command {
            LaneCommand::Load { lane, reply } => {
                self.load(*lane);
                // Who asked may have ended; the lane is closed with the server then.
                let _ = reply.send(());
            }
            LaneCommand::Unload { model, patience, reply } => self.unload(model, patience, reply),
            LaneCommand::Holdings(reply) => _ = reply.send(self.members.cluster.holdings()),
            LaneCommand::Snapshot(reply) => _ = reply.send(self.snapshot()),
            LaneCommand::ExclusionsChanged(reply) => {
                let now = self.now();
                self.members.handle_exclusions(now);
                let _ = reply.send(());
            }
        }
    }

    /// One more lane, which begins when its model is known.
    pub(super) fn load(&mut self, config: LaneConfig) {
        let id = self.next_lane;
        self.next_lane.0 += 1;
        self.outputs.metrics.loaded(id, &config.model.name);
        self.router.add(config.model.id, id);
        self.lanes.insert(id, Lane::new(config));
    }

    /// A model takes no more generations, and is closed when those that it has are over or have had their
    /// time.
    fn unload(&mut self, model: ModelId, patience: Duration, reply: oneshot::Sender<Unloaded>) {
        let until = self.now() + patience;
        self.router.remove(model);
        let lane = self.lanes.values_mut().find(|lane| lane.config.model.id == model);
        // Dropped, the reply says that there is no such model.
        if let Some(lane) = lane {
            lane.leave(until, reply);
        }
    }

    /// Closes one lane that is to be closed by now; whether there was one.
    pub(super) fn close_one_that_leaves(&mut self) -> bool {
        let now = self.now();
        let Some(id) = self.lanes.iter().find_map(|(id, lane)| lane.is_over(now).then_some(*id))
        else {
            return false;
        };
        self.close(id, "the model was unloaded");
        true
    }

    /// Closes a lane. Its generations end; nobody else notices.
    fn close(&mut self, id: LaneId, why: &str) -> Option<oneshot::Sender<String>> {
        let now = self.now();
        let mut lane = self.lanes.remove(&id)?;
        self.router.remove(lane.config.model.id);
        let failure = Failure { code: "model_unloaded", message: why.to_owned() };
        let unfinished = lane.fail_all(now, &failure);
        let unloaded = Unloaded { unfinished: unfinished.len() };
        unfinished.into_iter().for_each(|key| self.router.end(key));
        self.gone = self.gone.plus(lane.counts().since_the_start());
        self.outputs.metrics.unloaded(id);
        self.members.cluster.handle_lane_gone(now, id);
        // Who asked may not want to know any more.
        lane.take_leavers().into_iter().for_each(|reply| _ = reply.send(unloaded));
        Some(lane.config.ended)
    }

    /// There is no room for a lane that must fit.
    pub(super) fn no_room(&mut self, id: LaneId, reason: &str) {
        let held = self.members.cluster.holdings_text();
        let rest = if held.is_empty() { String::new() } else { format!(". Now {held}") };
        self.end_lane(id, &format!("{reason}{rest}"));
    }

    /// A lane ends by itself: who keeps its model is told why.
    fn end_lane(&mut self, id: LaneId, why: &str) {
        if let Some(ended) = self.close(id, why) {
            let _ = ended.send(why.to_owned());
        }
    }

    /// What became of a model's files.
    ///
    /// # Errors
    ///
    /// When the model of the command line cannot be used and there is no other: nothing is left to serve.
    pub(super) fn model_news(&mut self, model: ModelId, news: ModelNews) -> Result<(), Fatal> {
        let now = self.now();
        let of_model =
            |(id, lane): (&LaneId, &Lane)| (lane.config.model.id == model).then_some(*id);
        let lanes: Vec<LaneId> = self.lanes.iter().filter_map(of_model).collect();
        for id in lanes {
            match &news {
                ModelNews::Fingerprint(fingerprint) => self.begin(id, *fingerprint),
                ModelNews::Unsure => self.members.cluster.handle_model_unsure(id),
                ModelNews::Verified(parts) => {
                    self.members.cluster.handle_model_verified(now, id, parts.clone());
                }
                ModelNews::Unusable(_) if self.is_all_there_is(id) => {}
                ModelNews::Unusable(fatal) => {
                    self.end_lane(id, &fatal.line());
                    return Ok(());
                }
            }
        }
        match news {
            ModelNews::Unusable(fatal) if !self.router.lanes(model).is_empty() => Err(fatal),
            _ => Ok(()),
        }
    }

    fn is_all_there_is(&self, id: LaneId) -> bool {
        let of_command_line = self.lanes.get(&id).is_some_and(|lane| lane.config.of_command_line);
        of_command_line && self.lanes.len() == 1
    }

    /// A lane's model is known: plans can be made, and the last one is kept where it can be.
    fn begin(&mut self, id: LaneId, fingerprint: [u8; 32]) {
        let now = self.now();
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        // Another lane of the same model may have said so before.
        let _ = lane.config.model.fingerprint.set(fingerprint);
        // A few lines, read once.
        let seats = lane.config.last_plan.load(&fingerprint);
        let config = lane.config.placement.clone();
        self.members.cluster.handle_lane(now, id, config, fingerprint, seats);
    }

    /// The generations that are left end now.
    pub(super) fn end_generations(&mut self) {
        self.phase = Phase::Ending;
        let message = "the server is shutting down".to_owned();
        let (now, failure) = (self.now(), Failure { code: "shutting_down", message });
        for lane in self.lanes.values_mut() {
            let keys = lane.fail_all(now, &failure);
            keys.into_iter().for_each(|key| self.router.end(key));
        }
    }
}

//! Generations: who may begin one, on which lane, and who wants one no more.

use super::{Driver, Phase};
use crate::generation::{Command, GenerationEvent, GenerationId, GenerationRequest, Refusal};
use crate::trace::Trace;
use tokio::sync::mpsc;

impl Driver {
    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Submit { request, events, trace, reply } => {
                let accepted = self.submit(*request, events);
                if let (Ok(id), Some(trace)) = (&accepted, trace) {
                    self.follow(*id, trace);
                }
                if let Err(Ok(id)) = reply.send(accepted) {
                    // The client went away before it could be told.
                    self.cancel(id);
                }
            }
            Command::Cancel { id } => self.cancel(id),
        }
    }

    /// What becomes of it is told in the log.
    fn follow(&mut self, id: GenerationId, trace: Trace) {
        let now = self.now();
        if let Some(lane) = self.lanes.get_mut(&id.lane) {
            lane.traces.begin(now, id.sequence, trace);
        }
    }

    fn submit(
        &mut self,
        request: GenerationRequest,
        events: mpsc::Sender<GenerationEvent>,
    ) -> Result<GenerationId, Refusal> {
        if self.phase != Phase::Serving {
            return Err(Refusal::ShuttingDown);
        }
        let (now, key) = (self.now(), request.key);
        // Of several replicas the one with least to do.
        let lanes = self
            .router
            .lanes(request.model)
            .iter()
            .filter_map(|id| Some((*id, self.lanes.get(id)?)));
        let idlest = lanes.min_by_key(|(_, lane)| {
            let counts = lane.counts();
            counts.waiting + counts.running
        });
        let Some((id, _)) = idlest else { return Err(Refusal::Unloaded) };
        let lane = self.lanes.get_mut(&id).expect("it was found above");
        lane.check(now, &request).map_err(|refusal| match refusal {
            Refusal::NotReady { .. } => {
                Refusal::NotReady { detail: self.members.cluster.status(id).detail }
            }
            other => other,
        })?;
        self.router.check_key(key).map_err(|full| Refusal::KeyBusy {
            limit: full.limit,
            retry_after: lane.retry_after(now, full.limit),
        })?;
        let sequence = lane.submit(now, request, events)?;
        self.router.begin(key);
        Ok(GenerationId { lane: id, sequence })
    }

    fn cancel(&mut self, id: GenerationId) {
        let now = self.now();
        let lane = self.lanes.get_mut(&id.lane);
        if let Some(key) = lane.and_then(|lane| lane.cancel(now, id.sequence)) {
            self.router.end(key);
        }
    }
}

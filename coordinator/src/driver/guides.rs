//! What guides are asked, and where their answers go.

use super::Driver;
use crate::generation::GenerationId;
use crate::guides::Answered;

impl Driver {
    /// Sends what is to be asked to the pool.
    pub(super) fn ask_guides(&mut self) {
        for (id, lane) in &mut self.lanes {
            while let Some((sequence, guide, token)) = lane.poll_question() {
                self.outputs.guides.ask(GenerationId { lane: *id, sequence }, guide, token);
            }
        }
    }

    /// A guide has said what may come next.
    pub(super) fn guided(&mut self, answered: Answered) {
        let now = self.now();
        let Answered { of, guide, next } = answered;
        if let Some(lane) = self.lanes.get_mut(&of.lane) {
            lane.handle_next(now, of.sequence, guide, next);
        }
    }
}

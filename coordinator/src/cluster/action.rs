//! What the cluster core asks of the shell.

use super::plan::{PlanMade, StageInfo};
use crate::ids::LaneId;
use crate::scheduler::PlanLimits;
use std::collections::VecDeque;
use std::time::Duration;
use woolly_protocol::control::{Assign, Release};
use woolly_protocol::ids::{PlanEpoch, WorkerId};

/// What the shell has to do, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send a worker its stage.
    Assign {
        /// To whom.
        worker: WorkerId,
        /// What.
        assign: Box<Assign>,
    },
    /// Take a worker's stage back.
    Release {
        /// From whom.
        worker: WorkerId,
        /// What.
        release: Release,
    },
    /// A plan is made, and is being loaded: tell those who watch.
    Made {
        /// Whose.
        lane: LaneId,
        /// What.
        made: PlanMade,
    },
    /// All stages of a lane are ready: open the streams and tell its scheduler.
    Serving {
        /// Whose.
        lane: LaneId,
        /// For the scheduler.
        limits: PlanLimits,
        /// The stages in order; the first takes the forwards, the last the samplings.
        stages: Vec<StageInfo>,
    },
    /// All stages of the next plan are ready: let what is in flight come in, open the next one's streams,
    /// tell the scheduler, and say so ([`Cluster::handle_taken_over`](super::Cluster::handle_taken_over)).
    TakeOver {
        /// Whose.
        lane: LaneId,
        /// For the scheduler.
        limits: PlanLimits,
        /// As in `Serving`.
        stages: Vec<StageInfo>,
    },
    /// The next plan is of no use after all: if it has not taken over yet, the one that is served goes on.
    Withdrawn {
        /// Whose.
        lane: LaneId,
    },
    /// A plan that was served has ended: close its streams and tell the scheduler.
    Stopped {
        /// Whose.
        lane: LaneId,
        /// The plan.
        epoch: PlanEpoch,
        /// Why, for people.
        reason: String,
        /// How long the cause had shown no life.
        silent: Duration,
    },
    /// There is no room for a lane that has to fit and was never served.
    NoRoom {
        /// Whose.
        lane: LaneId,
        /// Why, for people.
        reason: String,
    },
    /// Close the connection of a worker; it is known no more.
    Evict {
        /// Whose.
        worker: WorkerId,
        /// What to tell it.
        text: String,
    },
    /// Have a lane's model looked at, and say what its files hold
    /// ([`Cluster::handle_model_verified`](super::Cluster::handle_model_verified)): a worker saw that they were written to.
    LookAtModel(LaneId),
    /// Reserve more numbers for plans ([`Cluster::handle_epochs`](super::Cluster::handle_epochs)).
    ReserveEpochs,
    /// Tell people.
    Announce(String),
}

/// What is to be done, in order.
pub(super) type Actions = VecDeque<Action>;

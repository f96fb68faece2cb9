//! The stages on the compute thread: those that live plans are served with, and those that plans have
//! left behind. Knows what a stage holds only by its [`StageSpec`]; knows no queue and no peer.
//!
//! A stage outlives its plan: the next plan that wants the same takes it over as it is. Nothing has to
//! be cleared for it, as every block of the cache is written before it is read.

use crate::convert::Finished;
use crate::stage::load::{LoadedStage, StageFacts};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use woolly_protocol::control::StageSpec;
use woolly_protocol::ids::PlanEpoch;

/// A stage with what names it.
#[derive(Debug)]
pub struct Kept {
    /// What was asked for.
    pub spec: StageSpec,
    /// What was loaded.
    pub stage: Box<LoadedStage>,
    /// Since when no plan is served with it.
    pub since: Instant,
}

/// A plan and the stage that it is served with.
#[derive(Debug)]
pub struct Served {
    spec: StageSpec,
    /// Computes its forwards.
    pub stage: Box<LoadedStage>,
    /// Where what came of them goes: room for all that may be in flight.
    pub results: mpsc::Sender<Finished>,
    /// False once the plan has ended: nothing more is computed for it.
    pub is_live: Arc<AtomicBool>,
}

/// What a plan wants to be served with.
#[derive(Debug)]
pub struct Wish {
    /// The plan.
    pub epoch: PlanEpoch,
    /// The stage that it wants.
    pub spec: StageSpec,
    /// See [`Served::results`].
    pub results: mpsc::Sender<Finished>,
    /// See [`Served::is_live`].
    pub is_live: Arc<AtomicBool>,
}

/// All stages of the compute thread.
#[derive(Debug, Default)]
pub struct Stages {
    served: BTreeMap<PlanEpoch, Served>,
    /// The longest unused first.
    kept: VecDeque<Kept>,
}

impl Stages {
    /// Keeps a stage for the plan that wants it.
    pub fn keep(&mut self, spec: StageSpec, stage: Box<LoadedStage>) {
        self.kept.push_back(Kept { spec, stage, since: Instant::now() });
    }

    /// Serves a plan with a stage that is kept. `None` if there is none such, or only one whose model
    /// files were changed since: that one goes.
    pub fn take_over(&mut self, wish: Wish) -> Option<StageFacts> {
        let Wish { epoch, spec, results, is_live } = wish;
        let index = self.kept.iter().rposition(|kept| kept.spec == spec)?;
        let Kept { stage, .. } = self.kept.remove(index)?;
        let facts = stage.unchanged_facts()?;
        self.served.insert(epoch, Served { spec, stage, results, is_live });
        Some(facts)
    }

    /// The stage of a plan that is live.
    pub fn of(&mut self, epoch: PlanEpoch) -> Option<&mut Served> {
        self.served.get_mut(&epoch).filter(|served| served.is_live.load(SeqCst))
    }

    /// A plan is over; its stage is kept.
    pub fn end(&mut self, epoch: PlanEpoch) {
        if let Some(Served { spec, stage, .. }) = self.served.remove(&epoch) {
            self.keep(spec, stage);
        }
    }

    /// Gives away kept stages, the longest unused first, until they are `bytes` in all.
    pub fn give_away(&mut self, bytes: u64) -> Vec<Kept> {
        let (mut given, mut sum) = (Vec::new(), 0u64);
        while sum < bytes
            && let Some(kept) = self.kept.pop_front()
        {
            sum = sum.saturating_add(kept.stage.facts().own_bytes());
            given.push(kept);
        }
        given
    }

    /// Gives away the stages that were kept for longer than `time`.
    pub fn give_away_older(&mut self, time: Duration) -> Vec<Kept> {
        let young = self.kept.iter().position(|kept| kept.since.elapsed() < time);
        self.kept.drain(..young.unwrap_or(self.kept.len())).collect()
    }
}

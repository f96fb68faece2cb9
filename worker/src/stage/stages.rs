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
struct Served {
    /// Which of the stages in use.
    stage: u64,
    results: mpsc::Sender<Finished>,
    is_live: Arc<AtomicBool>,
    /// The plan that it shares the stage with, until its first forward.
    replaces: Option<PlanEpoch>,
}

/// What a forward of a live plan needs.
#[derive(Debug)]
pub struct Live<'a> {
    /// Computes it.
    pub stage: &'a mut LoadedStage,
    /// Where what came of it goes: room for all that may be in flight.
    pub results: &'a mpsc::Sender<Finished>,
}

/// What a plan wants to be served with.
#[derive(Debug)]
pub struct Wish {
    /// The plan.
    pub epoch: PlanEpoch,
    /// The stage that it wants.
    pub spec: StageSpec,
    /// The plan that it takes over from: if that has the same stage, both share it until the first forward
    /// of this one.
    pub replaces: Option<PlanEpoch>,
    /// See [`Live::results`].
    pub results: mpsc::Sender<Finished>,
    /// False once the plan has ended: nothing more is computed for it.
    pub is_live: Arc<AtomicBool>,
}

/// All stages of the compute thread.
#[derive(Debug, Default)]
pub struct Stages {
    served: BTreeMap<PlanEpoch, Served>,
    /// The stages of plans, numbered as they were taken into use. One for each plan, but for a plan and
    /// the one that it replaces.
    used: BTreeMap<u64, (StageSpec, Box<LoadedStage>)>,
    uses: u64,
    /// The longest unused first.
    kept: VecDeque<Kept>,
}

impl Stages {
    /// Keeps a stage for the plan that wants it.
    pub fn keep(&mut self, spec: StageSpec, stage: Box<LoadedStage>) {
        self.kept.push_back(Kept { spec, stage, since: Instant::now() });
    }

    /// Serves a plan with a stage that is here: that of the plan that it replaces, or one that is kept. `None`
    /// if there is none such, or only one whose model files were changed since: that one goes, if it was
    /// kept.
    pub fn take_over(&mut self, wish: Wish) -> Option<StageFacts> {
        let Wish { epoch, spec, replaces, results, is_live } = wish;
        let shared = replaces.and_then(|old| Some(self.served.get(&old)?.stage));
        let shared = shared.filter(|stage| {
            let used = self.used.get(stage);
            used.is_some_and(|used| used.0 == spec && used.1.unchanged_facts().is_some())
        });
        let (stage, facts) = match shared {
            Some(stage) => (stage, self.used.get(&stage)?.1.unchanged_facts()?),
            None => {
                let index = self.kept.iter().rposition(|kept| kept.spec == spec)?;
                let Kept { stage, .. } = self.kept.remove(index)?;
                let facts = stage.unchanged_facts()?;
                self.uses += 1;
                self.used.insert(self.uses, (spec, stage));
                (self.uses, facts)
            }
        };
        let replaces = replaces.filter(|_| shared.is_some());
        self.served.insert(epoch, Served { stage, results, is_live, replaces });
        Some(facts)
    }

    /// What a forward of this plan needs; `None` if the plan is not live. With its first forward the plan that
    /// it shares its stage with is over: what is left of that would write where this one's caches are.
    pub fn of(&mut self, epoch: PlanEpoch) -> Option<Live<'_>> {
        let served = self.served.get_mut(&epoch).filter(|served| served.is_live.load(SeqCst))?;
        if let Some(old) = served.replaces.take()
            && let Some(old) = self.served.get(&old)
        {
            old.is_live.store(false, SeqCst);
        }
        let Served { stage, results, .. } = self.served.get(&epoch)?;
        let (_, stage) = self.used.get_mut(stage)?;
        Some(Live { stage, results })
    }

    /// A plan is over; its stage is kept, unless the plan that replaces it has it.
    pub fn end(&mut self, epoch: PlanEpoch) {
        let Some(Served { stage, .. }) = self.served.remove(&epoch) else { return };
        if self.served.values().any(|served| served.stage == stage) {
            return;
        }
        if let Some((spec, stage)) = self.used.remove(&stage) {
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

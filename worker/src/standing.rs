//! How this worker stands: whether it has joined, and what it holds for which plan. Those who talk with the coordinator say it here;
//! probes are told. Decides nothing, and knows no socket.
//!
//! | state | ready | |
//! | --- | --- | --- |
//! | `joining` | no | the coordinator is not reached, or has not welcomed this worker |
//! | `loading` | no | it was given a stage, and holds none that is ready |
//! | `serving` | yes | a stage is ready, whatever else is loaded beside it |
//! | `spare` | yes | it has joined and was given nothing |
//! | `leaving` | no | it was told to end |

use crate::counters::Counters;
use crate::units::show_size;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use woolly_protocol::control::{PlanLinks, StageSpec};
use woolly_protocol::ids::PlanEpoch;

/// What is said of this worker at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Joined, and with its stage if it has one.
    pub ready: bool,
    /// One word.
    pub state: &'static str,
    /// One line for people.
    pub detail: String,
}

/// What is known.
#[derive(Debug, Default)]
pub struct Standing(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Whether the coordinator has welcomed this worker, in the conversation that goes on.
    joined: bool,
    /// Why the last attempt to join failed, or the last conversation ended.
    trouble: Option<String>,
    plans: BTreeMap<PlanEpoch, Stage>,
}

#[derive(Debug)]
struct Stage {
    text: String,
    ready: bool,
}

impl Standing {
    /// The coordinator has welcomed this worker.
    pub fn joined(&self) {
        *self.known() = Known { joined: true, ..Known::default() };
    }

    /// The coordinator was not reached, or is gone.
    pub fn parted(&self, why: impl ToString) {
        *self.known() = Known { trouble: Some(why.to_string()), ..Known::default() };
    }

    /// A stage is to be loaded for a plan.
    pub fn assigned(&self, spec: &StageSpec, links: &PlanLinks) {
        let StageSpec { layer_first, layer_end, .. } = spec;
        let (stage, count) = (links.stage + 1, links.stage_count);
        let text =
            format!("stage {stage} of {count}, layers {layer_first} to {}", layer_end.max(&1) - 1);
        self.known().plans.insert(links.epoch, Stage { text, ready: false });
    }

    /// The stage of a plan is loaded.
    pub fn loaded(&self, epoch: PlanEpoch) {
        if let Some(stage) = self.known().plans.get_mut(&epoch) {
            stage.ready = true;
        }
    }

    /// A plan is over.
    pub fn over(&self, epoch: PlanEpoch) {
        self.known().plans.remove(&epoch);
    }

    /// How this worker stands, which was told to end or not, and has counted so far in its load.
    pub fn report(&self, told_to_end: bool, counters: &Counters) -> Report {
        let known = self.known();
        let say = |ready, state, detail: String| Report { ready, state, detail };
        if told_to_end {
            return say(false, "leaving", "it was told to end".to_owned());
        }
        if !known.joined {
            let trouble = known.trouble.clone();
            return say(false, "joining", trouble.unwrap_or_else(|| "dialling".to_owned()));
        }
        let texts = |ready: bool| -> Vec<&str> {
            let such = known.plans.values().filter(|stage| stage.ready == ready);
            such.map(|stage| stage.text.as_str()).collect()
        };
        let (ready, loading) = (texts(true), texts(false));
        let so_far = match counters.load() {
            (_, 0) => String::new(),
            (done, total) => format!(", {} of {}", show_size(done), show_size(total)),
        };
        match (ready.is_empty(), loading.is_empty()) {
            (true, true) => say(true, "spare", "joined, without a stage".to_owned()),
            (true, false) => say(false, "loading", loading.join("; ") + &so_far),
            (false, true) => say(true, "serving", ready.join("; ")),
            (false, false) => {
                let (ready, loading) = (ready.join("; "), loading.join("; "));
                say(true, "serving", format!("{ready}; beside it {loading} is loaded{so_far}"))
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Nobody panics while holding it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

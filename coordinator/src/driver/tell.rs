//! What those who watch are told, beside what is told where it is done.

use super::{Driver, Phase};
use crate::cluster::PlanMade;
use crate::events::Happening;
use crate::ids::LaneId;
use crate::status::{Failover, Recovered};
use std::time::Duration;

impl Driver {
    /// Who came and went. At the end that is no news.
    pub(super) fn tell_news(&mut self) {
        let is_news = self.phase != Phase::Ending;
        let departures = self.members.take_departures().filter(|_| is_news);
        departures.for_each(|how| self.outputs.metrics.gone(how));
        self.members.take_news().filter(|_| is_news).for_each(|it| self.outputs.events.say(it));
    }

    /// A plan is made.
    pub(super) fn tell_made(&self, lane: LaneId, made: PlanMade) {
        let Some(lane) = self.lanes.get(&lane).filter(|_| self.phase != Phase::Ending) else {
            return;
        };
        let (old_plan, old_cut) = made.old.map(|(epoch, cut)| (epoch.0, cut)).unzip();
        let (model, plan) = (lane.config.model.name.clone(), made.epoch.0);
        let PlanMade { cut, reason, .. } = made;
        self.outputs.events.say(Happening::PlanMade {
            model,
            plan,
            cut,
            old_plan,
            old_cut,
            reason,
        });
    }
}

/// What of a failover is told beside the metrics.
pub(super) fn happening(model: &str, recovered: Recovered) -> Option<Happening> {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let model = model.to_owned();
    match recovered {
        Recovered::Failover(Failover { epoch, sequences, tokens, search, first_token }) => {
            Some(Happening::Failover {
                model,
                plan: epoch.0,
                sequences,
                tokens,
                search_ms: ms(search),
                first_token_ms: first_token.map(ms),
            })
        }
        Recovered::Replay { epoch, took, tokens } => {
            Some(Happening::Replayed { model, plan: epoch.0, tokens, took_ms: ms(took) })
        }
        Recovered::Plan(_) | Recovered::Stream(_) => None,
    }
}

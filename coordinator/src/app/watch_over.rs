//! Watches over a model from its load until it is gone, and tells how it fares.

use super::keeper::{Entry, Keeper};
use crate::admin::{Progress, Refused};
use crate::events::Happening;
use crate::generation::ModelId;
use crate::status::Status;
use std::sync::Arc;
use tokio::sync::{oneshot, watch};

impl Keeper {
    /// Tells how far a model is, until it is gone; and why, if nobody asked for that.
    pub(super) async fn watch_over(
        self: Arc<Keeper>,
        id: ModelId,
        mut status: watch::Receiver<Status>,
        mut ended: oneshot::Receiver<String>,
    ) {
        let mut told = Progress::Loading(0);
        loop {
            let now = progress(&status.borrow_and_update(), &told);
            if now != told {
                self.tell(id, now.clone());
                told = now;
            }
            tokio::select! {
                why = &mut ended => {
                    // Without a word it was unloaded, or the server ends.
                    if let Ok(why) = why {
                        self.failed(id, &why);
                    }
                    return;
                }
                Ok(()) = status.changed() => {}
            }
        }
    }

    fn tell(&self, id: ModelId, now: Progress) {
        let table = self.kept.table();
        let Some(entry) = table.get(&id) else { return };
        let model = entry.served.name.clone();
        match now {
            Progress::Loading(progress) => {
                self.events.say(Happening::ModelLoading { model, progress });
            }
            Progress::Ready => self.events.say(Happening::ModelReady { model }),
            Progress::Failed(_) | Progress::Unloading => {}
        }
        entry.progress.send_if_modified(|known| {
            let goes_on = *known != Progress::Unloading;
            if goes_on {
                *known = now;
            }
            goes_on
        });
    }

    /// A model is gone although nobody asked for it.
    fn failed(&self, id: ModelId, why: &str) {
        let Some(entry) = self.forget(id) else { return };
        let model = entry.served.name.clone();
        self.announcer.say(format_args!("The model '{model}' is not served: {why}"));
        let refused = Refused::Conflict(why.to_owned());
        for name in entry.source.iter().chain([&model]) {
            self.remember_failure(name, &refused);
        }
        self.events.say(Happening::ModelFailed { model, reason: why.to_owned() });
        entry.progress.send_replace(Progress::Failed(why.to_owned()));
    }

    pub(super) fn forget(&self, id: ModelId) -> Option<Entry> {
        self.registry.remove(id);
        self.statuses.remove(id);
        let entry = self.kept.table().remove(&id)?;
        entry.unloaded.cancel();
        Some(entry)
    }
}

/// How far a model is, once it was as far as `before`.
fn progress(status: &Status, before: &Progress) -> Progress {
    match before {
        Progress::Loading(_) if status.ready => Progress::Ready,
        Progress::Loading(_) => Progress::Loading(status.loaded_percent.min(99)),
        other => other.clone(),
    }
}

//! Who belongs to the cluster: workers are removed and banned, bans are lifted, join tokens are made.
//!
//! What is decided is on the disk before it counts, and counts before anybody is told of it: a worker that comes
//! back at the wrong moment meets the new list. Then the driver closes what is open.

use super::Keeper;
use crate::admin::members::{Excluded, Lifted, MadeToken, MemberAsk, Named, NotDone};
use crate::announce::join_line;
use crate::driver::LaneCommand;
use crate::events::{Happening, unix_ms};
use crate::snapshot::{
    BanSnapshot, LOST_MAX, RemovedSnapshot, Snapshot, WorkerSnapshot, WorkerState,
};
use crate::trust::exclusions::{Ban, ExclusionError, Exclusions, Known, NO_HOST};
use crate::trust::tokens::Tokens;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use woolly_protocol::hidden::Hidden;
use woolly_protocol::ids::WorkerId;
use woolly_protocol::token_store::TokenStoreError;

/// What a keeper needs to let workers in and to keep them out.
#[derive(Debug)]
pub struct Gate {
    /// Who may not be here.
    pub exclusions: Arc<Exclusions>,
    /// How they are invited.
    pub tokens: Tokens,
    /// `HOST:PORT` that they dial.
    pub join_address: String,
    /// This machine, which is never banned: the server's own workers run on it.
    pub own_host: [u8; 16],
}

/// A worker that is meant, as far as it is known.
struct Meant {
    known: Known,
    state: Option<WorkerState>,
    is_local: bool,
}

impl Keeper {
    /// Nobody may wait for an answer any more, which changes nothing of what is done.
    pub(super) async fn answer_of_members(&self, ask: MemberAsk) {
        match ask {
            MemberAsk::Remove { worker, reply } => drop(reply.send(self.remove(&worker).await)),
            MemberAsk::Ban { worker, reply } => drop(reply.send(self.ban(&worker).await)),
            MemberAsk::Allow { who, reply } => drop(reply.send(self.allow(who).await)),
            MemberAsk::Token { ttl, uses, reply } => {
                drop(reply.send(self.make_token(ttl, uses).await));
            }
        }
    }

    async fn remove(&self, text: &str) -> Result<Excluded, NotDone> {
        let Known { worker, name, .. } = match self.meant(text).await? {
            Some(meant) => not_local(meant)?,
            // The id is in its certificate: that is all that is needed.
            None => match WorkerId::from_hex(text) {
                Some(worker) => Known { worker, name: String::new(), host: NO_HOST },
                None => return Err(nobody(text)),
            },
        };
        let of_list = name.clone();
        let change = move |list: &Exclusions| list.remove(worker, &of_list, unix_ms());
        let is_new = self.change(change).await?;
        let id = worker.hex();
        if is_new {
            let (worker, worker_id) = (name.clone(), id.clone());
            self.events.say(Happening::WorkerRemoved { worker, worker_id });
        }
        self.tell_driver().await?;
        let called = if name.is_empty() { id.clone() } else { format!("{name} ({id})") };
        let message = if is_new {
            format!(
                "Worker {called} is removed: its certificate is taken back. It can come back with a new join token \
                 and a new --state-dir."
            )
        } else {
            format!("Worker {called} was removed before.")
        };
        let workers = vec![Named { worker: name, worker_id: id }];
        Ok(Excluded { workers, machine: None, message })
    }

    async fn ban(&self, text: &str) -> Result<Excluded, NotDone> {
        let meant = self.meant(text).await?.ok_or_else(|| nobody(text))?;
        let target = not_local(meant)?;
        if let Some(own) = self.local_called(&target.name).await? {
            return Err(NotDone::Conflict(format!(
                "worker {own}, one of this server's own, has the same name: remove {} instead, or give it another \
                 name with --name",
                target.worker.hex()
            )));
        }
        let own = self.gate.own_host;
        let meant = target.clone();
        let ban = self.change(move |list: &Exclusions| list.ban(&meant, own, unix_ms())).await?;
        let workers = self.named(&ban);
        let machine = ban.machine();
        self.events.say(Happening::WorkerBanned {
            worker: ban.name.clone(),
            worker_id: target.worker.hex(),
            machine: machine.clone(),
        });
        self.tell_driver().await?;
        let whom: Vec<String> =
            workers.iter().map(|it| format!("{} ({})", it.worker, it.worker_id)).collect();
        let what = match (&machine, target.host == NO_HOST) {
            (Some(machine), _) => format!("The name {} and machine {machine} are banned", ban.name),
            (None, true) => format!(
                "The name {} is banned, but no machine: its system has no machine id",
                ban.name
            ),
            (None, false) => format!(
                "The name {} is banned, but no machine: it runs on the server's own",
                ban.name
            ),
        };
        let message = format!(
            "{what}: {}. `woolly-coordinator allow {}` lifts that.",
            whom.join(", "),
            ban.name
        );
        Ok(Excluded { workers, machine, message })
    }

    async fn allow(&self, who: String) -> Result<Vec<Lifted>, NotDone> {
        let text = who.clone();
        let lifted = self.change(move |list: &Exclusions| list.allow(&text)).await?;
        if lifted.is_empty() {
            return Err(NotDone::Unknown(format!(
                "no ban is of the name or machine '{who}': `woolly-coordinator workers` lists them"
            )));
        }
        self.tell_driver().await?;
        let lifted = lifted.into_iter().map(|ban| {
            let machine = ban.machine();
            Lifted { name: ban.name, machine }
        });
        Ok(lifted.collect())
    }

    async fn make_token(&self, ttl: Duration, uses: Option<u32>) -> Result<MadeToken, NotDone> {
        let tokens = self.gate.tokens.clone();
        let made = tokio::task::spawn_blocking(move || tokens.create(ttl, uses)).await;
        let token = made.map_err(|error| NotDone::Failed(error.to_string()))?;
        let token = token.map_err(|error| match error {
            TokenStoreError::Full => NotDone::Conflict(error.to_string()),
            error => NotDone::Failed(format!("cannot make a join token: {error}")),
        })?;
        let (id, text) = (token.id.to_string(), token.to_string());
        let join = Hidden::from(join_line(&self.gate.join_address, &text));
        Ok(MadeToken { id, token: Hidden::from(text), join, ttl, uses })
    }

    /// What of the list is shown.
    pub(super) fn show_excluded(&self, snapshot: &mut Snapshot) {
        let (removed, bans) = self.gate.exclusions.all();
        let newest = removed.iter().rev().take(LOST_MAX).map(|removal| RemovedSnapshot {
            worker: removal.name.clone(),
            worker_id: removal.worker.hex(),
            at_ms: removal.at_ms,
        });
        snapshot.removed = newest.collect();
        let bans = bans.iter().map(|ban| BanSnapshot {
            name: ban.name.clone(),
            machine: ban.machine(),
            worker_ids: ban.workers.iter().map(|worker| worker.hex()).collect(),
            at_ms: ban.at_ms,
        });
        snapshot.bans = bans.collect();
    }

    /// The worker that a name or an id means, here or not; `None` if there is none.
    ///
    /// # Errors
    ///
    /// When a name means several.
    async fn meant(&self, text: &str) -> Result<Option<Meant>, NotDone> {
        let snapshot = self.snapshot().await.ok_or(NotDone::ShuttingDown)?;
        let exclusions = &self.gate.exclusions;
        let away = exclusions.find(text).into_iter();
        let away = away.map(|known| Meant { known, state: None, is_local: false });
        let mut meant: BTreeMap<WorkerId, Meant> =
            away.map(|meant| (meant.known.worker, meant)).collect();
        let is_meant = |it: &&WorkerSnapshot| it.worker == text || it.worker_id == text;
        for told in snapshot.workers.iter().filter(is_meant) {
            let Some(worker) = WorkerId::from_hex(&told.worker_id) else { continue };
            let host = exclusions.find(&told.worker_id).first().map_or(NO_HOST, |it| it.host);
            let known = Known { worker, name: told.worker.clone(), host };
            let (state, is_local) = (Some(told.state), told.local);
            meant.insert(worker, Meant { known, state, is_local });
        }
        if meant.len() > 1 {
            // Those that were removed are not meant, unless by their ids.
            let (removed, _) = exclusions.all();
            meant.retain(|worker, _| !removed.iter().any(|removal| removal.worker == *worker));
        }
        if meant.len() > 1 {
            let each = meant.values().map(|it| {
                let state = it.state.map_or("away".to_owned(), |state| state.to_string());
                format!("{} ({state})", it.known.worker.hex())
            });
            let each: Vec<String> = each.collect();
            return Err(NotDone::Conflict(format!(
                "{} workers are called '{text}': give the id of one of them: {}",
                each.len(),
                each.join(", ")
            )));
        }
        Ok(meant.into_values().next())
    }

    /// A worker of the server's own that is called so.
    async fn local_called(&self, name: &str) -> Result<Option<String>, NotDone> {
        let snapshot = self.snapshot().await.ok_or(NotDone::ShuttingDown)?;
        let local = snapshot.workers.into_iter().find(|it| it.local && it.worker == name);
        Ok(local.map(|worker| worker.worker_id))
    }

    /// The workers of a ban, by the names that are known.
    fn named(&self, ban: &Ban) -> Vec<Named> {
        let named = ban.workers.iter().map(|worker| {
            let worker_id = worker.hex();
            let known = self.gate.exclusions.find(&worker_id);
            let name = known.first().map_or_else(|| ban.name.clone(), |known| known.name.clone());
            Named { worker: name, worker_id }
        });
        named.collect()
    }

    /// Changes the list away from the network's threads.
    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Exclusions) -> Result<T, ExclusionError> + Send + 'static,
    ) -> Result<T, NotDone> {
        let exclusions = Arc::clone(&self.gate.exclusions);
        let changed = tokio::task::spawn_blocking(move || change(&exclusions)).await;
        let changed = changed.map_err(|error| NotDone::Failed(error.to_string()))?;
        changed.map_err(|error| match error {
            ExclusionError::Full => NotDone::Conflict(error.to_string()),
            ExclusionError::File { .. } => NotDone::Failed(error.to_string()),
        })
    }

    /// Has what is open closed, and workers told.
    async fn tell_driver(&self) -> Result<(), NotDone> {
        let (reply, done) = oneshot::channel();
        let sent = self.lanes.send(LaneCommand::ExclusionsChanged(reply)).await;
        sent.map_err(|_| NotDone::ShuttingDown)?;
        done.await.map_err(|_| NotDone::ShuttingDown)
    }
}

fn nobody(text: &str) -> NotDone {
    NotDone::Unknown(format!(
        "no worker is known by the name or id '{text}': `woolly-coordinator workers` lists those that are here or \
         were lost"
    ))
}

fn not_local(meant: Meant) -> Result<Known, NotDone> {
    if meant.is_local {
        return Err(NotDone::Conflict(format!(
            "worker {} is one of this server's own: --local-workers says how many there are",
            meant.known.name
        )));
    }
    Ok(meant.known)
}

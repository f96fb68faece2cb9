//! Who may not be here: workers whose certificates were taken back for ever, and names and machines that are
//! banned until the ban is lifted.
//!
//! It is kept in the state directory, for the server's user only, and written whole before it counts. It also
//! remembers who was here, so that a worker can be named while it is away. What is asked of it answers at once;
//! what changes it blocks for as long as a small file takes.
//!
//! Limits: [`REMOVED_MAX`] workers removed or banned (so many can be told to workers), [`BANS_MAX`] bans,
//! [`KNOWN_MAX`] workers remembered.

mod list;
#[cfg(test)]
mod tests;

pub use list::{BANS_MAX, Ban, KNOWN_MAX, Known, NO_HOST, Removal};

use list::{List, hex};
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};
use tokio::sync::watch;
use woolly_protocol::ids::WorkerId;
use woolly_protocol::join::Removed;
use woolly_protocol::limits::REMOVED_MAX;
use woolly_protocol::refusal::{Refusal, RefusalCode};

/// Why the list was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ExclusionError {
    /// Its file could not be written.
    #[error("cannot write the list of removed workers {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no more room.
    #[error(
        "{REMOVED_MAX} workers are removed or banned by {BANS_MAX} bans at most, and that many are: lift bans with \
         `woolly-coordinator allow`, or begin a new cluster with a --state-dir of its own"
    )]
    Full,
}

/// The list. See the [module](self).
#[derive(Debug)]
pub struct Exclusions {
    path: PathBuf,
    list: RwLock<List>,
    /// One change at a time.
    changing: Mutex<()>,
    /// Workers that are here and are still to be noted.
    pending: Mutex<Vec<Known>>,
    /// Counts the changes of who is excluded.
    changed: watch::Sender<u64>,
}

impl Exclusions {
    /// The list in a file, which need not be there.
    ///
    /// # Errors
    ///
    /// When it cannot be read or is damaged.
    pub fn open(path: PathBuf) -> anyhow::Result<Exclusions> {
        let list = RwLock::new(List::read(&path)?);
        let (changing, changed) = (Mutex::default(), watch::Sender::default());
        Ok(Exclusions { path, list, changing, pending: Mutex::default(), changed })
    }

    /// What a worker with this certificate is refused with; `None` if it may be here.
    pub fn refusal(&self, worker: WorkerId) -> Option<Refusal> {
        let list = self.list();
        if list.is_removed(worker) {
            let text = format!(
                "worker {} was removed from the cluster and its certificate is taken back: to let it in again, start \
                 it with a new join token and a new --state-dir",
                worker.hex()
            );
            return Some(Refusal::new(RefusalCode::Removed, &text));
        }
        list.bans.iter().find(|ban| ban.workers.contains(&worker)).map(banned)
    }

    /// What a worker of this name and machine is refused with; `None` if it may be here.
    pub fn refusal_of(&self, name: &str, host: [u8; 16]) -> Option<Refusal> {
        self.list().ban_of(name, host).map(banned)
    }

    /// What workers are told.
    pub fn told(&self) -> Removed {
        Removed { workers: self.list().told().into_iter().collect() }
    }

    /// Those that were removed, and the bans; in order of time.
    pub fn all(&self) -> (Vec<Removal>, Vec<Ban>) {
        let list = self.list();
        (list.removed.clone(), list.bans.clone())
    }

    /// The workers that a name or an id means, here or not.
    pub fn find(&self, text: &str) -> Vec<Known> {
        self.list().find(text)
    }

    /// A worker is here; whether [`write_noted`](Self::write_noted) is to be called for it. Many that come at the
    /// same time are written together.
    pub fn note(&self, known: Known) -> bool {
        if self.list().is_known(&known) {
            return false;
        }
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = pending.is_empty();
        pending.retain(|other| other.worker != known.worker);
        if pending.len() < KNOWN_MAX {
            pending.push(known);
        }
        is_first
    }

    /// Writes down who is here, so that they can be named later. Blocks.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn write_noted(&self) -> Result<(), ExclusionError> {
        self.change(|list| {
            let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            pending.drain(..).for_each(|known| list.note(known));
            Ok(())
        })
    }

    /// Takes a worker's certificate back; `false` if that was done before. Blocks.
    ///
    /// # Errors
    ///
    /// [`ExclusionError`]: nothing has changed then.
    pub fn remove(&self, worker: WorkerId, name: &str, at_ms: u64) -> Result<bool, ExclusionError> {
        let name = name.to_owned();
        self.change(|list| {
            let is_new = !list.is_removed(worker);
            if is_new {
                list.removed.push(Removal { worker, name, at_ms });
            }
            Ok(is_new)
        })
    }

    /// Bans the name and the machine of a worker, of which `own`, this server's machine, is spared: it is the
    /// name alone then. Blocks.
    ///
    /// # Errors
    ///
    /// [`ExclusionError`]: nothing has changed then.
    pub fn ban(&self, target: &Known, own: [u8; 16], at_ms: u64) -> Result<Ban, ExclusionError> {
        self.change(|list| {
            let ban = list.ban_for(target, own, at_ms);
            // The same once more: what it holds for may have grown.
            list.bans.retain(|other| (&other.name, other.host) != (&ban.name, ban.host));
            list.bans.push(ban.clone());
            Ok(ban)
        })
    }

    /// Lifts the bans of a name, or of a machine in 32 hexadecimal digits. Blocks.
    ///
    /// # Errors
    ///
    /// [`ExclusionError`]: nothing has changed then.
    pub fn allow(&self, text: &str) -> Result<Vec<Ban>, ExclusionError> {
        let host = hex::bytes(text).filter(|host| *host != NO_HOST);
        self.change(|list| {
            let meant = |ban: &Ban| ban.name == text || Some(ban.host) == host;
            let (lifted, left) = list.bans.drain(..).partition(meant);
            list.bans = left;
            Ok(lifted)
        })
    }

    /// Waits until a worker may not be here; what it is refused with.
    pub async fn until_refused(&self, worker: WorkerId) -> Refusal {
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(refusal) = self.refusal(worker) {
                return refusal;
            }
            // The sender is `self`: it is there for as long as anyone waits.
            let _ = changed.changed().await;
        }
    }

    /// Changes a copy, writes it, and only then lets it count.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut List) -> Result<T, ExclusionError>,
    ) -> Result<T, ExclusionError> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list = self.list().clone();
        let result = change(&mut list)?;
        if list.told().len() > REMOVED_MAX || list.bans.len() > BANS_MAX {
            return Err(ExclusionError::Full);
        }
        if list == *self.list() {
            return Ok(result);
        }
        let failed = |source| ExclusionError::File { path: self.path.clone(), source };
        list.write(&self.path).map_err(failed)?;
        *self.list.write().unwrap_or_else(PoisonError::into_inner) = list;
        self.changed.send_modify(|count| *count += 1);
        Ok(result)
    }

    fn list(&self) -> RwLockReadGuard<'_, List> {
        self.list.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn banned(ban: &Ban) -> Refusal {
    let text = match ban.machine() {
        Some(machine) => format!(
            "workers called {} and those of machine {machine} are banned from this cluster: \
             `woolly-coordinator allow {}` on the coordinator's machine lifts that",
            ban.name, ban.name
        ),
        None => format!(
            "workers called {} are banned from this cluster: `woolly-coordinator allow {}` on the coordinator's \
             machine lifts that",
            ban.name, ban.name
        ),
    };
    Refusal::new(RefusalCode::Banned, &text)
}

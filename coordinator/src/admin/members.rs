//! What is asked about who belongs to the cluster: removing, banning, allowing, and inviting with a join token.

use std::time::Duration;
use tokio::sync::oneshot;
use woolly_protocol::hidden::Hidden;

/// What is asked.
#[derive(Debug)]
pub enum MemberAsk {
    /// Take a worker's certificate back.
    Remove {
        /// Its name or id.
        worker: String,
        /// Told when it counts.
        reply: oneshot::Sender<Result<Excluded, NotDone>>,
    },
    /// Ban a worker's name and machine.
    Ban {
        /// Its name or id.
        worker: String,
        /// Told when it counts.
        reply: oneshot::Sender<Result<Excluded, NotDone>>,
    },
    /// Lift bans.
    Allow {
        /// A name or a machine.
        who: String,
        /// Told when it counts.
        reply: oneshot::Sender<Result<Vec<Lifted>, NotDone>>,
    },
    /// Make a join token.
    Token {
        /// How long it is good for.
        ttl: Duration,
        /// How many workers may join with it; any number with `None`.
        uses: Option<u32>,
        /// The token.
        reply: oneshot::Sender<Result<MadeToken, NotDone>>,
    },
}

/// A worker, for answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its name; empty if that is not known.
    pub worker: String,
    /// Its id in hex.
    pub worker_id: String,
}

/// What was removed or banned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excluded {
    /// The workers whose certificates do not count any more.
    pub workers: Vec<Named>,
    /// The machine that is banned, in hex; `None` for a removal, and where the name alone is banned.
    pub machine: Option<String>,
    /// What happened, as a sentence.
    pub message: String,
}

/// A ban that was lifted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifted {
    /// The name.
    pub name: String,
    /// The machine in hex, if it was banned, too.
    pub machine: Option<String>,
}

/// A join token and how it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MadeToken {
    /// Its public id, by which it is revoked.
    pub id: String,
    /// The token.
    pub token: Hidden,
    /// The command that joins a worker with it.
    pub join: Hidden,
    /// How long it is good for.
    pub ttl: Duration,
    /// How many workers may join with it.
    pub uses: Option<u32>,
}

/// Why nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotDone {
    /// Nobody is called so.
    #[error("{0}")]
    Unknown(String),
    /// Several are called so, it is one of the server's own workers, or there are too many.
    #[error("{0}")]
    Conflict(String),
    /// A file could not be written.
    #[error("{0}")]
    Failed(String),
    /// The server is going down.
    #[error("the server is shutting down")]
    ShuttingDown,
}

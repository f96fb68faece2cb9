//! What every plan works with: the parts of this process, and the coordinator of the conversation.

use crate::blocking::blocking;
use crate::config::Config;
use crate::counters::Counters;
use crate::peers::arrivals::Arrivals;
use crate::peers::dial::Dialer;
use crate::peers::outbox::Outbox;
use crate::peers::removed::RemovedWorkers;
use crate::peers::traffic::Traffic;
use crate::stage::compute::Compute;
use crate::stage::held::Held;
use crate::stage::load::Loader;
use crate::stage::resident::Residents;
use crate::stage::timings::Timings;
use crate::standing::Standing;
use crate::weights::source::Places;
use quinn::{Connection, Endpoint};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::Mutex;
use woolly_protocol::notify::Notifier;

/// What every plan of this process works with.
#[derive(Debug)]
pub struct Context {
    /// The flags.
    pub config: Config,
    /// This machine, as in the hello.
    pub machine: [u8; 16],
    /// The same after it was booted again, as in the hello.
    pub host: [u8; 16],
    /// What is counted.
    pub counters: Arc<Counters>,
    /// How this worker stands.
    pub standing: Arc<Standing>,
    /// What travels.
    pub traffic: Arc<Traffic>,
    /// What plans are served with.
    pub held: Arc<Held>,
    /// How long forwards take.
    pub timings: Timings,
    /// The compute thread.
    pub compute: Compute,
    /// Makes stages for it.
    pub loader: Loader,
    /// What is in memory. Who loads holds the lock, so that one loads at a time: what is read beside
    /// each other disturbs the system's read-ahead.
    pub residents: Arc<Mutex<Residents>>,
    /// Streams from other workers and the coordinator.
    pub arrivals: Arc<Arrivals>,
    /// Whose connections are refused.
    pub removed: Arc<RemovedWorkers>,
    /// Where others reach this worker.
    pub endpoint: Endpoint,
    /// Connections to others.
    pub dialer: Arc<Dialer>,
    /// Where weights may be.
    pub places: Places,
    /// Tells the service manager how this worker stands.
    pub notifier: Notifier,
}

/// The coordinator of the present conversation.
#[derive(Clone, Debug)]
pub struct Coordinator {
    /// The connection for control and forwards.
    pub connection: Connection,
    /// The address that was dialled.
    pub address: SocketAddr,
    /// What is written to the control stream.
    pub outbox: Outbox,
    /// What others dial to reach this worker.
    pub advertise: SocketAddr,
}

impl Context {
    /// Gives kept stages up while this worker holds more than it may: two plans have stood beside each other.
    pub async fn keep_within_allowance(&self) {
        let short = self.residents.lock().await.shortage(0);
        if short > 0 {
            let given = self.compute.give_away(short).await;
            blocking(move || drop(given)).await;
        }
    }

    /// A text that says which worker speaks.
    pub fn named(&self, text: &str) -> String {
        format!("{}: {text}", self.config.name)
    }
}

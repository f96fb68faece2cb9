//! How much travels on this worker's connections, and how fast they answer: by peer, for `--metrics`.
//!
//! Sums go on when a connection ends and another one to the same peer begins. Bounded: `PEERS_MAX` peers; one too many takes the
//! place of one without a connection.

use quinn::Connection;
use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Peers whose sums are kept.
const PEERS_MAX: usize = 256;

/// What has travelled on connections, as UDP carried it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Travelled {
    /// Bytes sent.
    pub sent: u64,
    /// Bytes received.
    pub received: u64,
    /// Packets of ours that did not arrive, and were sent again.
    pub lost: u64,
}

impl AddAssign for Travelled {
    fn add_assign(&mut self, other: Travelled) {
        self.sent += other.sent;
        self.received += other.received;
        self.lost += other.lost;
    }
}

/// What is known of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerTraffic {
    /// `coordinator`, or a worker's id in hex.
    pub peer: String,
    /// On all connections, also those that are over.
    pub travelled: Travelled,
    /// Connections that are open.
    pub connections: usize,
    /// The round trip of the one that was opened last; `None` without any.
    pub round_trip: Option<Duration>,
}

/// The traffic of all peers.
#[derive(Debug, Default)]
pub struct Traffic(Mutex<Peers>);

#[derive(Debug, Default)]
struct Peers {
    known: BTreeMap<String, Known>,
    next: u64,
}

#[derive(Debug, Default)]
struct Known {
    /// On connections that are over.
    over: Travelled,
    /// In the order of opening.
    open: Vec<(u64, Connection)>,
}

/// A connection is counted while this is held, and its sums stay.
#[derive(Debug)]
pub struct Counted {
    traffic: Arc<Traffic>,
    peer: String,
    number: u64,
}

impl Traffic {
    /// Counts what travels on a connection to this peer.
    pub fn count(self: &Arc<Self>, peer: String, connection: &Connection) -> Counted {
        let mut peers = self.lock();
        if !peers.known.contains_key(&peer) && peers.known.len() >= PEERS_MAX {
            let idle = peers.known.iter().find(|(_, known)| known.open.is_empty());
            if let Some(idle) = idle.map(|(name, _)| name.clone()) {
                peers.known.remove(&idle);
            }
        }
        let number = peers.next;
        peers.next += 1;
        let known = peers.known.entry(peer.clone()).or_default();
        known.open.push((number, connection.clone()));
        Counted { traffic: Arc::clone(self), peer, number }
    }

    /// What is known at this moment.
    pub fn peers(&self) -> Vec<PeerTraffic> {
        let peers = self.lock();
        let of_one = |(peer, known): (&String, &Known)| {
            let mut sum = known.over;
            known.open.iter().for_each(|(_, connection)| sum += travelled(connection));
            PeerTraffic {
                peer: peer.clone(),
                travelled: sum,
                connections: known.open.len(),
                round_trip: known.open.last().map(|(_, connection)| connection.rtt()),
            }
        };
        peers.known.iter().map(of_one).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Peers> {
        self.0.lock().expect("no one panics with the lock held")
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut peers = self.traffic.lock();
        let Some(known) = peers.known.get_mut(&self.peer) else { return };
        if let Some(at) = known.open.iter().position(|(number, _)| *number == self.number) {
            let (_, connection) = known.open.remove(at);
            known.over += travelled(&connection);
        }
    }
}

fn travelled(connection: &Connection) -> Travelled {
    let stats = connection.stats();
    Travelled {
        sent: stats.udp_tx.bytes,
        received: stats.udp_rx.bytes,
        lost: stats.path.lost_packets,
    }
}

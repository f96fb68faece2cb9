//! Links between nodes: ordered, reliable, with delays; cut in one direction or both, and silent then.

use super::{Event, MS, Message, SECOND, Time, World};
use crate::scheduler::tests::rng::Rng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A process.
pub(super) type Node = u64;

/// A connection of two nodes; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ConnectionId(u64);

/// A side that hears nothing for so long gives its end up.
pub(super) const IDLE: Time = 2 * SECOND;
/// After two refused probes.
const PROBED: Time = 500 * MS;

/// A connection and which of its ends are open.
#[derive(Debug)]
struct Connection {
    ends: [Node; 2],
    open: [bool; 2],
}

/// All links.
pub(super) struct Network {
    rng: Rng,
    connections: BTreeMap<ConnectionId, Connection>,
    made: u64,
    /// Directions in which nothing passes, and since when.
    cut: BTreeMap<(Node, Node), Time>,
    /// Nodes that say nothing (frozen or dead), and since when.
    silent: BTreeMap<Node, Time>,
    /// When the last message of a direction arrives.
    last: BTreeMap<(ConnectionId, Node), Time>,
    held: BTreeMap<(Node, Node), VecDeque<(ConnectionId, Message)>>,
    /// Whether refusals of ports are let through.
    pub(super) refuses: bool,
}

impl Network {
    pub(super) fn new(seed: u64) -> Network {
        Network {
            rng: Rng(seed),
            connections: BTreeMap::new(),
            made: 0,
            cut: BTreeMap::new(),
            silent: BTreeMap::new(),
            last: BTreeMap::new(),
            held: BTreeMap::new(),
            refuses: seed.is_multiple_of(2),
        }
    }

    /// Whether a node can be reached by another and answer it.
    pub(super) fn reaches(&self, from: Node, to: Node) -> bool {
        let passes = !self.is_cut(from, to) && !self.is_cut(to, from);
        passes && !self.silent.contains_key(&to)
    }

    pub(super) fn is_cut(&self, from: Node, to: Node) -> bool {
        self.cut.contains_key(&(from, to))
    }

    pub(super) fn open(&mut self, from: Node, to: Node) -> ConnectionId {
        self.made += 1;
        let id = ConnectionId(self.made);
        self.connections.insert(id, Connection { ends: [from, to], open: [true; 2] });
        id
    }

    /// The other end, if this one is open.
    pub(super) fn peer(&self, id: ConnectionId, node: Node) -> Option<Node> {
        let connection = self.connections.get(&id)?;
        let end = connection.ends.iter().position(|end| *end == node)?;
        connection.open[end].then(|| connection.ends[1 - end])
    }

    /// When what is sent now arrives, and where; `None` if this end is closed.
    pub(super) fn send(&mut self, now: Time, id: ConnectionId, from: Node) -> Option<(Time, Node)> {
        let to = self.peer(id, from)?;
        let delay = self.rng.range(50, 2 * MS);
        let last = self.last.entry((id, to)).or_default();
        *last = (*last).max(now + delay);
        Some((*last, to))
    }

    /// Keeps what could not pass until the way is free.
    pub(super) fn hold(&mut self, id: ConnectionId, from: Node, to: Node, message: Message) {
        self.held.entry((from, to)).or_default().push_back((id, message));
    }

    /// Closes an end. Whether it was open.
    fn shut(&mut self, id: ConnectionId, node: Node) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else { return false };
        let Some(end) = connection.ends.iter().position(|end| *end == node) else { return false };
        let was = std::mem::replace(&mut connection.open[end], false);
        if connection.open == [false; 2] {
            self.connections.remove(&id);
            self.last.retain(|(of, _), _| *of != id);
        }
        was
    }

    /// Open ends at other nodes of connections with this one; with `to` only those of that node.
    fn others(&self, node: Node, to: Option<Node>) -> Vec<(ConnectionId, Node)> {
        let mut found = Vec::new();
        for (id, connection) in &self.connections {
            let Some(end) = connection.ends.iter().position(|end| *end == node) else { continue };
            let other = connection.ends[1 - end];
            if connection.open[1 - end] && to.is_none_or(|to| to == other) {
                found.push((*id, other));
            }
        }
        found
    }

    /// Since when a node hears nothing of another, if it does not.
    fn deaf_since(&self, from: Node, to: Node) -> Option<Time> {
        let cut = self.cut.get(&(from, to)).copied();
        [cut, self.silent.get(&from).copied()].into_iter().flatten().min()
    }
}

impl World {
    /// Closes one end of a connection; the other side hears of it if it can.
    pub(super) fn close(&mut self, id: ConnectionId, node: Node) {
        if let Some((at, to)) = self.network.send(self.now, id, node) {
            self.at(at, Event::Deliver(id, to, Message::Closed));
        }
        self.network.shut(id, node);
    }

    pub(super) fn cut(&mut self, from: Node, to: Node) {
        self.network.cut.entry((from, to)).or_insert(self.now);
        for (id, end) in self.network.others(from, Some(to)) {
            self.at(self.now + IDLE, Event::Idle(id, end, self.now));
        }
    }

    pub(super) fn heal(&mut self, from: Node, to: Node) {
        self.network.cut.remove(&(from, to));
        for (id, message) in self.network.held.remove(&(from, to)).unwrap_or_default() {
            // What is still open takes it, in order.
            let at = self.now + 100;
            self.network.last.insert((id, to), at);
            self.at(at, Event::Deliver(id, to, message));
        }
    }

    /// A node says nothing any more: it is frozen, or gone.
    pub(super) fn silence(&mut self, node: Node, is_gone: bool) {
        self.network.silent.entry(node).or_insert(self.now);
        for (id, end) in self.network.others(node, None) {
            self.at(self.now + IDLE, Event::Idle(id, end, self.now));
            let refused = self.network.refuses && is_gone && end == super::COORDINATOR;
            if refused && self.network.reaches_port(node) {
                self.at(self.now + PROBED, Event::Gone(id));
            }
        }
    }

    pub(super) fn speak(&mut self, node: Node) {
        self.network.silent.remove(&node);
    }

    /// All ends of a process that is gone are closed without a word.
    pub(super) fn drop_ends(&mut self, node: Node) {
        let own: BTreeSet<ConnectionId> = self
            .network
            .connections
            .iter()
            .filter(|(_, connection)| connection.ends.contains(&node))
            .map(|(id, _)| *id)
            .collect();
        own.into_iter().for_each(|id| _ = self.network.shut(id, node));
    }

    pub(super) fn idle(&mut self, id: ConnectionId, end: Node, since: Time) {
        let Some(from) = self.network.peer(id, end) else { return };
        let deaf = self.network.deaf_since(from, end).is_some_and(|deaf| deaf <= since);
        // The process at the other end may be gone, and another one be there.
        if deaf || self.network.peer(id, from).is_none() {
            self.lost(id, end);
        }
    }

    pub(super) fn gone(&mut self, id: ConnectionId) {
        if self.network.peer(id, super::COORDINATOR).is_some() {
            self.lost(id, super::COORDINATOR);
        }
    }

    /// An end has given its connection up.
    fn lost(&mut self, id: ConnectionId, end: Node) {
        self.close(id, end);
        if end == super::COORDINATOR {
            self.coordinator_loses(id, "connection timed out");
        } else {
            self.worker_loses(woolly_protocol::ids::WorkerId(end), id);
        }
    }
}

impl Network {
    /// Whether probes pass and their refusals come back.
    fn reaches_port(&self, node: Node) -> bool {
        !self.is_cut(super::COORDINATOR, node) && !self.is_cut(node, super::COORDINATOR)
    }
}

//! A relay for UDP between two processes: what passes, when and how damaged is decided by a seed.
//!
//! Whoever dials the relay's address talks to its target; each dialling address has a socket of its own
//! towards the target, as behind a router that translates addresses.

pub mod fate;
mod ports;

use fate::{Conditions, Dice};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of a datagram at most.
const DATAGRAM_MAX: usize = 65_536;
/// How often a thread that waits for a datagram looks whether the relay has ended.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Dialling addresses of one relay at most; a test's processes have a handful.
const DIALLERS_MAX: usize = 256;

/// The two ways of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From those who dial to the target.
    Out,
    /// From the target to those who dialled.
    Back,
}

/// Both ways.
pub const BOTH: [Way; 2] = [Way::Out, Way::Back];

/// A running relay; nothing passes any more when it is dropped.
#[derive(Debug)]
pub struct Relay {
    shared: Arc<Shared>,
    address: SocketAddr,
}

#[derive(Debug)]
struct Shared {
    begun: Instant,
    front: UdpSocket,
    target: SocketAddr,
    ways: [Mutex<Direction>; 2],
    /// Sockets towards the target by the address that dialled; none for one that is refused.
    backs: Mutex<HashMap<SocketAddr, Option<Arc<UdpSocket>>>>,
    late: Mutex<Late>,
    more: Condvar,
    ended: AtomicBool,
    passed: [AtomicU64; 2],
    /// The process that gets nothing through, if there is one.
    refused: Mutex<Option<u32>>,
}

#[derive(Debug)]
struct Direction {
    dice: Dice,
    conditions: Conditions,
}

/// Datagrams that arrive later.
#[derive(Debug, Default)]
struct Late {
    /// When each arrives, and which it is: of two at the same time the older one first.
    due: BinaryHeap<Reverse<(Instant, u64)>>,
    datagrams: BTreeMap<u64, Datagram>,
    count: u64,
}

/// A datagram and where it goes.
#[derive(Debug)]
struct Datagram {
    bytes: Vec<u8>,
    socket: Option<Arc<UdpSocket>>,
    to: SocketAddr,
    way: Way,
}

impl Relay {
    /// A relay on a free port of loopback that everything passes.
    pub fn start(target: SocketAddr, seed: u64) -> Relay {
        let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
        Relay::on(free, target, seed)
    }

    /// The same on a socket that is bound already.
    pub fn on(front: UdpSocket, target: SocketAddr, seed: u64) -> Relay {
        front.set_read_timeout(Some(LOOK_EVERY)).expect("not zero");
        let address = front.local_addr().expect("it is bound");
        let direction = |way| {
            let dice = Dice::new(seed, way);
            Mutex::new(Direction { dice, conditions: Conditions::default() })
        };
        let shared = Arc::new(Shared {
            begun: Instant::now(),
            front,
            target,
            ways: [direction(0), direction(1)],
            backs: Mutex::default(),
            late: Mutex::default(),
            more: Condvar::new(),
            ended: AtomicBool::new(false),
            passed: Default::default(),
            refused: Mutex::default(),
        });
        let (front, clock) = (Arc::clone(&shared), Arc::clone(&shared));
        thread::spawn(move || front.relay_front());
        thread::spawn(move || clock.send_late());
        Relay { shared, address }
    }

    /// Where it is dialled.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the ways are like from now on; what is on its way already arrives as it was decided.
    pub fn set(&self, ways: &[Way], conditions: &Conditions) {
        for way in ways {
            self.shared.way(*way).conditions = conditions.clone();
        }
    }

    /// Lets nothing pass any more from and to the sockets of one process that dials; the others notice nothing.
    pub fn refuse(&self, process: u32) {
        *lock(&self.shared.refused) = Some(process);
        // Whoever has dialled before is looked at again.
        lock(&self.shared.backs).clear();
    }

    /// Datagrams that have arrived on a way.
    pub fn passed(&self, way: Way) -> u64 {
        self.shared.passed[way as usize].load(Ordering::Relaxed)
    }

    /// Changes the ports from which the target is talked to, as a router does that has forgotten its
    /// translations.
    pub fn rebind(&self) {
        let dialled: Vec<SocketAddr> =
            lock(&self.shared.backs).drain().map(|(from, _)| from).collect();
        for from in dialled {
            // The target must be able to reach the dialler before the dialler says something again.
            self.shared.back(from);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.shared.more.notify_all();
    }
}

impl Shared {
    fn ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    fn way(&self, way: Way) -> MutexGuard<'_, Direction> {
        lock(&self.ways[way as usize])
    }

    fn relay_front(self: &Arc<Self>) {
        let mut buffer = vec![0; DATAGRAM_MAX];
        while !self.ended() {
            let Some((bytes, from)) = received(&self.front, &mut buffer) else { continue };
            if let Some(socket) = self.back(from).flatten() {
                self.pass(Way::Out, &buffer[..bytes], Some(socket), self.target);
            }
        }
    }

    /// The socket of a dialling address, with the thread that relays what comes back: nothing if it is
    /// refused, and nothing at all if there are too many.
    fn back(self: &Arc<Self>, from: SocketAddr) -> Option<Option<Arc<UdpSocket>>> {
        let mut backs = lock(&self.backs);
        if let Some(socket) = backs.get(&from) {
            return Some(socket.clone());
        }
        if backs.len() >= DIALLERS_MAX {
            return None;
        }
        let refused = *lock(&self.refused);
        if refused.is_some_and(|process| ports::of_process(process).contains(&from.port())) {
            backs.insert(from, None);
            return Some(None);
        }
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
        socket.set_read_timeout(Some(LOOK_EVERY)).expect("not zero");
        let socket = Arc::new(socket);
        backs.insert(from, Some(Arc::clone(&socket)));
        let (shared, own) = (Arc::clone(self), Arc::clone(&socket));
        thread::spawn(move || shared.relay_back(&own, from));
        Some(Some(socket))
    }

    fn relay_back(self: &Arc<Self>, socket: &Arc<UdpSocket>, to: SocketAddr) {
        let mut buffer = vec![0; DATAGRAM_MAX];
        let is_current = || {
            let backs = lock(&self.backs);
            backs.get(&to).and_then(Option::as_ref).is_some_and(|now| Arc::ptr_eq(now, socket))
        };
        while !self.ended() {
            let datagram = received(socket, &mut buffer);
            // What comes to a port that was given up is lost.
            if !is_current() {
                return;
            }
            if let Some((bytes, _)) = datagram {
                self.pass(Way::Back, &buffer[..bytes], None, to);
            }
        }
    }

    fn pass(&self, way: Way, bytes: &[u8], socket: Option<Arc<UdpSocket>>, to: SocketAddr) {
        let now = self.begun.elapsed();
        let arrivals = {
            let mut direction = self.way(way);
            let Direction { dice, conditions } = &mut *direction;
            dice.cast(now, bytes.len(), conditions)
        };
        for arrival in arrivals.into_iter().flatten() {
            let mut bytes = bytes.to_vec();
            if let Some(bit) = arrival.flipped {
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            let datagram = Datagram { bytes, socket: socket.clone(), to, way };
            if arrival.after.is_zero() {
                self.send(&datagram);
            } else {
                lock(&self.late).add(self.begun + now + arrival.after, datagram);
                self.more.notify_one();
            }
        }
    }

    fn send(&self, datagram: &Datagram) {
        let socket = datagram.socket.as_deref().unwrap_or(&self.front);
        self.passed[datagram.way as usize].fetch_add(1, Ordering::Relaxed);
        // A process that is not there any more is told of by an error here: to the relay it is a loss.
        let _ = socket.send_to(&datagram.bytes, datagram.to);
    }

    fn send_late(&self) {
        let mut late = lock(&self.late);
        while !self.ended() {
            let now = Instant::now();
            let wait = late
                .due
                .peek()
                .map_or(LOOK_EVERY, |Reverse((due, _))| due.saturating_duration_since(now));
            if wait.is_zero() {
                let datagram = late.take().expect("one is due");
                drop(late);
                self.send(&datagram);
                late = lock(&self.late);
            } else {
                let waited = self.more.wait_timeout(late, wait.min(LOOK_EVERY));
                late = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}

impl Late {
    fn add(&mut self, due: Instant, datagram: Datagram) {
        self.due.push(Reverse((due, self.count)));
        self.datagrams.insert(self.count, datagram);
        self.count += 1;
    }

    fn take(&mut self) -> Option<Datagram> {
        let Reverse((_, number)) = self.due.pop()?;
        self.datagrams.remove(&number)
    }
}

/// A datagram, if one comes soon.
fn received(socket: &UdpSocket, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
    // An error tells that nothing came, or that the other process is gone: it may come again.
    socket.recv_from(buffer).ok()
}

/// A thread that panicked while it held the lock left whole values behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

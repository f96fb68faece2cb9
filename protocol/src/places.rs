//! Places that strangers may take: so many in all, and so many from one address.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard};

/// Handshakes under way from which on peers are refused.
pub const HALF_OPEN_MAX: usize = 256;
/// Handshakes under way from one address: as many as there are stages at most, which may all be
/// behind one address and start at once, and a quarter of all.
pub const HALF_OPEN_PER_ADDRESS: usize = 64;

/// A bounded number of places, counted per owner too: an address or a worker. Clones share them.
#[derive(Clone, Debug)]
pub struct Places<K: Owner = IpAddr> {
    max: usize,
    per_owner: usize,
    taken: Arc<Mutex<HashMap<K, usize>>>,
}

/// Who can take places.
pub trait Owner: Copy + Eq + Hash {}

impl<K: Copy + Eq + Hash> Owner for K {}

/// One place, free again when this is dropped.
#[derive(Debug)]
pub struct Place<K: Owner = IpAddr> {
    owner: K,
    places: Places<K>,
}

impl Places {
    /// Those of handshakes under way; their owner is a [`network`].
    pub fn of_handshakes() -> Places {
        Places::new(HALF_OPEN_MAX, HALF_OPEN_PER_ADDRESS)
    }
}

impl<K: Owner> Places<K> {
    /// `max` places, of which one owner may take `per_owner`.
    pub fn new(max: usize, per_owner: usize) -> Places<K> {
        Places { max, per_owner, taken: Arc::new(Mutex::new(HashMap::new())) }
    }

    /// Takes a place for an owner; `None` if all, or all of its own, are taken.
    pub fn take(&self, owner: K) -> Option<Place<K>> {
        let mut taken = self.lock();
        if taken.values().sum::<usize>() >= self.max {
            return None;
        }
        let own = taken.get(&owner).copied().unwrap_or(0);
        if own >= self.per_owner {
            return None;
        }
        taken.insert(owner, own + 1);
        Some(Place { owner, places: self.clone() })
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.lock().values().sum()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        self.taken.lock().expect("nobody panics while counting")
    }
}

impl<K: Owner> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        if let Some(count) = taken.get_mut(&self.owner) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.owner);
            }
        }
    }
}

/// What counts as one address: a host on IPv6 has at least 2^64 of them.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_cannot_take_all_places() {
        let places = Places::new(3, 2);
        let own = [places.take(ip("10.0.0.1")), places.take(ip("10.0.0.1"))];
        assert!(own.iter().all(Option::is_some));
        assert!(places.take(ip("10.0.0.1")).is_none());
        let other = places.take(ip("10.0.0.2"));
        assert!(other.is_some() && places.take(ip("10.0.0.3")).is_none());
        drop(own);
        assert_eq!(places.taken(), 1);
        assert!(places.take(ip("10.0.0.1")).is_some());
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        assert_eq!(network(ip("fd00::1")), network(ip("fd00::2")));
        assert_ne!(network(ip("fd00::1")), network(ip("fd00:0:0:1::1")));
        assert_eq!(network(ip("::ffff:10.0.0.1")), ip("10.0.0.1"));
    }
}

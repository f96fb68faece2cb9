//! Places of connections that join. When none is free the oldest one has to go, so that clients that
//! keep silent cannot shut out one that has something to say.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::Notify;
use woolly_protocol::places::network;

/// Connections that join at a time; they take no place of those with a certificate.
pub const JOINING_MAX: usize = 128;
/// Of one address: as many as there can be stages, which may all join from behind one address.
const JOINING_PER_ADDRESS: usize = 64;

/// The connections that join now.
#[derive(Debug, Default)]
pub struct Turns(Mutex<VecDeque<(IpAddr, Arc<Notify>)>>);

/// The place of one connection, free again when this is dropped.
#[derive(Debug)]
pub struct Turn<'a> {
    turns: &'a Turns,
    over: Arc<Notify>,
}

impl Turns {
    /// Takes a place. If its address has too many, the oldest of that address loses its own; if
    /// there are too many in all, the oldest of the address that has most.
    pub fn take(&self, address: IpAddr) -> Turn<'_> {
        let address = network(address);
        let mut turns = self.lock();
        let count = |turns: &VecDeque<(IpAddr, _)>, of: IpAddr| {
            turns.iter().filter(|(address, _)| *address == of).count()
        };
        let loser = if count(&turns, address) >= JOINING_PER_ADDRESS {
            Some(address)
        } else if turns.len() >= JOINING_MAX {
            turns.iter().map(|(address, _)| *address).max_by_key(|address| count(&turns, *address))
        } else {
            None
        };
        let index = turns.iter().position(|(address, _)| Some(*address) == loser);
        if let Some((_, over)) = index.and_then(|index| turns.remove(index)) {
            over.notify_one();
        }
        let over = Arc::new(Notify::new());
        turns.push_back((address, Arc::clone(&over)));
        drop(turns);
        Turn { turns: self, over }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(IpAddr, Arc<Notify>)>> {
        self.0.lock().expect("nobody panics while counting")
    }
}

impl Turn<'_> {
    /// Waits until this place is given to another.
    pub async fn lost(&self) {
        self.over.notified().await;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.lock().retain(|(_, over)| !Arc::ptr_eq(over, &self.over));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    async fn is_lost(turn: &Turn<'_>) -> bool {
        timeout(Duration::from_millis(1), turn.lost()).await.is_ok()
    }

    fn ip(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    #[tokio::test(start_paused = true)]
    async fn a14_silent_clients_of_one_address_take_places_of_their_own_only() {
        let turns = Turns::default();
        let other = turns.take(ip(2));
        let silent: Vec<Turn> = (0..700).map(|_| turns.take(ip(1))).collect();
        assert_eq!(turns.lock().len(), JOINING_PER_ADDRESS + 1);
        assert!(!is_lost(&other).await);
        assert!(is_lost(&silent[0]).await);
        // One that comes late finds a place, behind the same address too.
        assert!(!is_lost(&turns.take(ip(1))).await);
        drop(silent);
        assert_eq!(turns.lock().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn many_addresses_are_bounded_and_the_greediest_loses() {
        let turns = Turns::default();
        let greedy: Vec<Turn> = (0..JOINING_PER_ADDRESS).map(|_| turns.take(ip(1))).collect();
        let honest: Vec<Turn> =
            (2..).take(JOINING_MAX - JOINING_PER_ADDRESS + 1).map(|n| turns.take(ip(n))).collect();
        assert_eq!(turns.lock().len(), JOINING_MAX);
        assert!(is_lost(&greedy[0]).await && !is_lost(&greedy[1]).await);
        for turn in &honest {
            assert!(!is_lost(turn).await);
        }
    }
}

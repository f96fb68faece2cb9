//! How much an address is slowed down that fails to join: its failures are forgotten with time.
//!
//! A token has 160 random bits, so guessing is hopeless however fast it is answered: this only saves
//! work. It says how long the answer to a wrong token is held back; a right one is never asked about.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use woolly_protocol::joining::SLOW_MAX;
use woolly_protocol::places::network;

/// Failed attempts of an address that are answered at once.
const BURST: u32 = 10;
/// The time after which one failed attempt is forgotten.
const FORGIVEN_AFTER: Duration = Duration::from_secs(6);
/// Failed attempts of an address that are remembered: two minutes after the last one all is forgotten.
const DEBT_MAX: u32 = 20;
/// Addresses that are watched; the one that failed longest ago is forgotten for a new one.
const ADDRESSES_MAX: usize = 1024;

/// Failed attempts per address.
#[derive(Debug, Default)]
pub struct Attempts {
    /// When the last of the failures so far will be forgiven.
    forgiven_at: HashMap<IpAddr, Instant>,
}

impl Attempts {
    /// How long a refusal of this address is held back.
    pub fn slowed(&self, address: IpAddr, now: Instant) -> Duration {
        let Some(forgiven_at) = self.forgiven_at.get(&network(address)) else {
            return Duration::ZERO;
        };
        let debt = forgiven_at.saturating_duration_since(now);
        if debt > FORGIVEN_AFTER * (BURST - 1) { SLOW_MAX } else { Duration::ZERO }
    }

    /// Counts a failed attempt.
    pub fn failed(&mut self, address: IpAddr, now: Instant) {
        self.forgiven_at.retain(|_, at| *at > now);
        let address = network(address);
        if self.forgiven_at.len() >= ADDRESSES_MAX && !self.forgiven_at.contains_key(&address) {
            let oldest = self.forgiven_at.iter().min_by_key(|(_, at)| **at).map(|(ip, _)| *ip);
            oldest.map(|ip| self.forgiven_at.remove(&ip));
        }
        let at = self.forgiven_at.entry(address).or_insert(now);
        *at = (*at + FORGIVEN_AFTER).min(now + FORGIVEN_AFTER * DEBT_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn failures_slow_down_their_address_only() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        for _ in 0..BURST {
            assert!(attempts.slowed(ip("10.0.0.1"), now).is_zero());
            attempts.failed(ip("10.0.0.1"), now);
        }
        assert_eq!(attempts.slowed(ip("10.0.0.1"), now), SLOW_MAX);
        assert!(attempts.slowed(ip("10.0.0.2"), now).is_zero());
        assert!(attempts.slowed(ip("10.0.0.1"), now + FORGIVEN_AFTER).is_zero());
    }

    #[test]
    fn the_debt_of_an_address_has_a_cap() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        (0..700).for_each(|_| attempts.failed(ip("10.0.0.1"), now));
        let forgiven = now + FORGIVEN_AFTER * (DEBT_MAX - BURST + 1);
        assert!(attempts.slowed(ip("10.0.0.1"), forgiven).is_zero());
    }

    #[test]
    fn one_network_of_ipv6_is_one_address() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        for last in 1..=BURST {
            attempts.failed(ip(&format!("fd00::{last}")), now);
        }
        assert_eq!(attempts.slowed(ip("fd00::ffff"), now), SLOW_MAX);
        assert!(attempts.slowed(ip("fd00:0:0:1::1"), now).is_zero());
    }

    #[test]
    fn the_table_is_bounded() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        for n in 0..2 * ADDRESSES_MAX as u32 {
            attempts.failed(IpAddr::from(n.to_be_bytes()), now + Duration::from_millis(n.into()));
        }
        assert_eq!(attempts.forgiven_at.len(), ADDRESSES_MAX);
    }
}

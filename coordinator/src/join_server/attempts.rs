//! Slows down who fails to join: a bucket of attempts per address that fills up with time.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Failed attempts that an address may make at once.
const BURST: u32 = 10;
/// The time after which one failed attempt is forgotten.
const FORGIVEN_AFTER: Duration = Duration::from_secs(6);
/// Addresses that are watched; the one that failed longest ago is forgotten for a new one.
const ADDRESSES_MAX: usize = 1024;

/// Failed attempts per address.
#[derive(Debug, Default)]
pub struct Attempts {
    /// When the last of the failures so far will be forgiven.
    forgiven_at: HashMap<IpAddr, Instant>,
}

impl Attempts {
    /// Whether an address may try now; otherwise how long it has to wait.
    pub fn check(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let Some(forgiven_at) = self.forgiven_at.get(&watched(address)) else { return Ok(()) };
        let debt = forgiven_at.saturating_duration_since(now);
        match debt.checked_sub(FORGIVEN_AFTER * (BURST - 1)) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => Ok(()),
        }
    }

    /// Counts a failed attempt.
    pub fn failed(&mut self, address: IpAddr, now: Instant) {
        self.forgiven_at.retain(|_, at| *at > now);
        let address = watched(address);
        if self.forgiven_at.len() >= ADDRESSES_MAX && !self.forgiven_at.contains_key(&address) {
            let oldest = self.forgiven_at.iter().min_by_key(|(_, at)| **at).map(|(ip, _)| *ip);
            oldest.map(|ip| self.forgiven_at.remove(&ip));
        }
        let at = self.forgiven_at.entry(address).or_insert(now);
        *at += FORGIVEN_AFTER;
    }
}

/// A host on IPv6 has at least 2^64 addresses: they count as one.
fn watched(address: IpAddr) -> IpAddr {
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
    fn failures_slow_down_their_address_only() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        for _ in 0..BURST {
            assert!(attempts.check(ip("10.0.0.1"), now).is_ok());
            attempts.failed(ip("10.0.0.1"), now);
        }
        assert_eq!(attempts.check(ip("10.0.0.1"), now), Err(FORGIVEN_AFTER));
        assert!(attempts.check(ip("10.0.0.2"), now).is_ok());
        assert!(attempts.check(ip("10.0.0.1"), now + FORGIVEN_AFTER).is_ok());
    }

    #[test]
    fn one_network_of_ipv6_is_one_address() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        for last in 1..=BURST {
            attempts.failed(ip(&format!("fd00::{last}")), now);
        }
        assert!(attempts.check(ip("fd00::ffff"), now).is_err());
        assert!(attempts.check(ip("fd00:0:0:1::1"), now).is_ok());
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

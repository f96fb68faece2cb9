//! A process that is gone, noticed before its silence is: the port that it had refuses what is sent to it.
//!
//! The kernel answers a datagram to a port that nobody has with ICMP "port unreachable", and hands that to
//! a *connected* socket as `ECONNREFUSED`. QUIC's own socket is not connected and never hears of it, so a
//! second one sends a byte now and then, which QUIC at the other end throws away as no packet of its.
//!
//! A refusal alone proves nothing: a firewall may refuse these bytes and let QUIC's through. So it counts
//! only while QUIC is silent as well, and where both were there at once, refusals of this peer are never
//! believed again. Where nothing can be learnt, QUIC's idle time-out decides, as without all this.

use quinn::Connection;
use std::future::pending;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until};

/// What is said of a peer that [`gone`] has found out about.
pub const GONE: &str = "nothing listens at its port any more: its process is gone";
/// Time between two probes, and between the two refusals that are believed.
const EVERY: Duration = Duration::from_millis(250);
/// A datagram may still come so long after the process that sent it has ended.
const LATE: Duration = Duration::from_millis(100);
/// Probes in a row without a refusal after which the way to the peer is known to refuse nothing by itself.
const PROVEN: u32 = 4;
/// Time between the two refusals where that is not known: two keep-alives that went either way would
/// show a firewall.
const UNPROVEN_TIME: Duration = Duration::from_secs(1);

/// Comes to an end when the process at the other end of `connection` is gone: its port has refused two
/// probes at least 250 ms apart, and no datagram has come on the connection since before the first of them.
/// Within the first second of a connection it takes a second more.
///
/// Stays pending for ever if this cannot be found out: no socket can be had, nobody sends refusals, or the
/// port of a peer that is there refuses probes.
pub async fn gone(connection: &Connection) {
    let begun = Instant::now();
    let mut suspicion = Suspicion::default();
    loop {
        let peer = connection.remote_address();
        let Ok(socket) = connected(peer).await else { return pending().await };
        match probe(connection, peer, &socket, (begun, &mut suspicion)).await {
            Found::Gone => return,
            Found::Nothing => return pending().await,
            Found::Moved => suspicion.moved(),
        }
    }
}

/// A socket that speaks with `peer` alone and hears its refusals.
async fn connected(peer: SocketAddr) -> io::Result<UdpSocket> {
    let (peer, any) = match (peer, peer.ip().to_canonical()) {
        // A socket of both families names IPv4 peers in the words of IPv6.
        (_, IpAddr::V4(ip)) => ((ip, peer.port()).into(), (Ipv4Addr::UNSPECIFIED, 0).into()),
        (peer, IpAddr::V6(_)) => (peer, SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(peer).await?;
    Ok(socket)
}

/// What probing has come to.
enum Found {
    /// The process is gone.
    Gone,
    /// Refusals say nothing about this peer.
    Nothing,
    /// The peer has another address now.
    Moved,
}

async fn probe(
    connection: &Connection,
    peer: SocketAddr,
    socket: &UdpSocket,
    (begun, suspicion): (Instant, &mut Suspicion),
) -> Found {
    let heard = || connection.stats().udp_rx.datagrams;
    let (mut next, mut look, mut answer) = (Instant::now(), None, [0; 16]);
    loop {
        let is_refusal = tokio::select! {
            received = socket.recv(&mut answer) => is_refusal(&received),
            () = wait(look) => {
                look = None;
                suspicion.look(begun.elapsed(), heard());
                false
            }
            () = sleep_until(next) => {
                if connection.remote_address() != peer {
                    return Found::Moved;
                }
                suspicion.probe(begun.elapsed(), heard());
                next = Instant::now() + EVERY;
                // What went wrong with the byte before may be said here, instead of by `recv`.
                is_refusal(&socket.send(&[0]).await)
            }
        };
        if is_refusal {
            if suspicion.refuse(begun.elapsed(), heard()) {
                return Found::Gone;
            }
            let now = Instant::now();
            (next, look) = (now + EVERY, Some(now + LATE));
        }
        if suspicion.is_unfounded {
            return Found::Nothing;
        }
    }
}

fn is_refusal(result: &io::Result<usize>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

async fn wait(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => pending().await,
    }
}

/// What is thought of a peer, from the refusals of its port and the datagrams that come from it. Times are
/// since the beginning; `heard` is the number of datagrams that have come by then.
#[derive(Debug, Default)]
struct Suspicion {
    /// Probes in a row without a refusal.
    unrefused: u32,
    refused: Option<Refused>,
    /// A peer that is there was refused: no refusal of its port says anything.
    is_unfounded: bool,
}

/// The first refusal of those that count.
#[derive(Clone, Copy, Debug)]
struct Refused {
    at: Duration,
    /// When it was last looked at what has come since.
    looked: Duration,
    heard: u64,
    /// The way to the peer was known to refuse nothing by itself.
    is_proven: bool,
    /// A datagram came, perhaps from before the end: the next refusal is a first one again.
    is_void: bool,
}

impl Suspicion {
    /// A probe is sent.
    fn probe(&mut self, now: Duration, heard: u64) {
        self.look(now, heard);
        self.unrefused = self.unrefused.saturating_add(1);
    }

    /// Looks whether something has come since the first refusal.
    fn look(&mut self, now: Duration, heard: u64) {
        let Some(refused) = &mut self.refused else { return };
        if heard != refused.heard {
            // It came after the look before; that is all there is to know of its time.
            self.is_unfounded |= refused.looked >= refused.at + LATE;
            refused.is_void = true;
        }
        (refused.looked, refused.heard) = (now, heard);
    }

    /// A probe was refused; whether the process is gone.
    fn refuse(&mut self, now: Duration, heard: u64) -> bool {
        self.look(now, heard);
        // The one that is refused was counted as well.
        let is_proven = self.unrefused > PROVEN;
        self.unrefused = 0;
        match self.refused {
            Some(first) if !first.is_void => {
                let apart = if first.is_proven { EVERY } else { UNPROVEN_TIME };
                !self.is_unfounded && now >= first.at + apart
            }
            _ => {
                let (at, looked, is_void) = (now, now, false);
                self.refused = Some(Refused { at, looked, heard, is_void, is_proven });
                false
            }
        }
    }

    /// The peer has another address: what was refused was the one before.
    fn moved(&mut self) {
        *self = Suspicion { is_unfounded: self.is_unfounded, ..Suspicion::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(time: u64) -> Duration {
        Duration::from_millis(time)
    }

    /// A peer that sends a datagram with each probe and refuses none, for two seconds.
    fn proven() -> Suspicion {
        let mut suspicion = Suspicion::default();
        for number in 0..8 {
            suspicion.probe(ms(250 * number), number);
        }
        suspicion
    }

    #[test]
    fn two_refusals_in_silence_are_a_process_that_is_gone() {
        let mut peer = proven();
        peer.probe(ms(2000), 7);
        assert!(!peer.refuse(ms(2001), 7));
        peer.look(ms(2101), 7);
        assert!(!peer.refuse(ms(2200), 7), "one burst of refusals is no second one");
        peer.probe(ms(2251), 7);
        assert!(peer.refuse(ms(2252), 7));
    }

    #[test]
    fn a_peer_that_never_took_a_probe_has_a_second_to_be_heard() {
        let mut peer = Suspicion::default();
        for time in [0, 250, 500, 750] {
            peer.probe(ms(time), 9);
            assert!(!peer.refuse(ms(time + 1), 9), "{time}");
        }
        peer.probe(ms(1001), 9);
        assert!(peer.refuse(ms(1002), 9));
    }

    #[test]
    fn a_firewall_that_refuses_is_not_asked_again() {
        // Idle but for a keep-alive every 400 ms.
        let mut idle = Suspicion::default();
        idle.probe(ms(0), 5);
        assert!(!idle.refuse(ms(1), 5));
        idle.look(ms(101), 5);
        idle.probe(ms(251), 5);
        assert!(!idle.refuse(ms(252), 5), "silent for less than a keep-alive");
        idle.probe(ms(502), 6);
        assert!(idle.is_unfounded);
        assert!(!idle.refuse(ms(9000), 6), "and stays so");
        // Busy: something comes all the time, so each refusal has a datagram close by.
        let mut busy = proven();
        busy.probe(ms(2000), 100);
        assert!(!busy.refuse(ms(2001), 101));
        busy.look(ms(2101), 150);
        assert!(!busy.is_unfounded, "that may have been on its way");
        busy.probe(ms(2251), 200);
        assert!(busy.is_unfounded);
    }

    #[test]
    fn a_late_datagram_only_makes_the_next_refusal_the_first() {
        let mut peer = proven();
        peer.probe(ms(2000), 7);
        assert!(!peer.refuse(ms(2001), 7));
        peer.look(ms(2101), 8);
        peer.probe(ms(2251), 8);
        assert!(!peer.is_unfounded);
        assert!(!peer.refuse(ms(2252), 8));
        peer.probe(ms(3000), 8);
        assert!(!peer.is_unfounded);
    }

    #[test]
    fn late_looks_do_not_make_a_datagram_late() {
        // The look after 100 ms came after 300 ms: when the datagram came nobody knows.
        let mut peer = proven();
        peer.probe(ms(2000), 7);
        assert!(!peer.refuse(ms(2001), 7));
        peer.look(ms(2301), 8);
        assert!(!peer.is_unfounded);
    }

    #[test]
    fn a_new_address_is_another_port() {
        let mut peer = proven();
        peer.probe(ms(2000), 7);
        assert!(!peer.refuse(ms(2001), 7));
        peer.moved();
        // What comes from the new address says nothing of refusals by the old one.
        peer.probe(ms(2251), 20);
        assert!(!peer.is_unfounded);
        assert!(!peer.refuse(ms(2252), 20), "the first one of this address");
        let mut firewall = Suspicion { is_unfounded: true, ..Suspicion::default() };
        firewall.moved();
        assert!(firewall.is_unfounded);
    }

    #[test]
    fn without_refusals_nothing_is_found_out() {
        let mut peer = proven();
        for number in 8..1000 {
            peer.probe(ms(250 * number), 7);
            assert!(peer.refused.is_none() && !peer.is_unfounded);
        }
    }
}

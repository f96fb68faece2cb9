//! What becomes of a datagram on its way: decided by the seed and the datagram's number, without a clock
//! or a socket.

use crate::numbers::Numbers;
use std::time::Duration;

/// How much later than the others a datagram comes that is to be overtaken.
const OVERTAKEN_BY: Duration = Duration::from_millis(20);
/// How long a datagram waits at most where the rate is limited; what would wait longer is lost, as in a
/// router whose queue is full.
const QUEUE_MAX: Duration = Duration::from_millis(400);

/// How long a burst lasts at most: on a link with few datagrams it would be as long as a cut.
const BURST_MAX: Duration = Duration::from_secs(1);

/// What one direction of a link is like. The default passes everything at once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conditions {
    /// How long each datagram takes.
    pub delay: Duration,
    /// How much longer at most, each length as likely. More than the gap between two lets them change places.
    pub jitter: Duration,
    /// The part that is lost, each datagram for itself.
    pub loss: f64,
    /// Losses in bursts.
    pub burst: Option<Burst>,
    /// The part that comes twice.
    pub duplicate: f64,
    /// The part that comes late and is overtaken.
    pub reorder: f64,
    /// The part in which one bit is wrong.
    pub corrupt: f64,
    /// Bytes per second at most.
    pub rate: Option<f64>,
    /// Nothing passes.
    pub cut: bool,
}

/// Losses in bursts, as Gilbert described them: a good and a bad state, and in the bad one all is lost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Burst {
    /// How likely a datagram is the first of a burst.
    pub begin: f64,
    /// How likely a lost datagram is the last of its burst.
    pub end: f64,
}

impl Conditions {
    /// Nothing but a delay.
    pub fn delayed(delay: Duration) -> Conditions {
        Conditions { delay, ..Conditions::default() }
    }
}

/// A datagram as it arrives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arrival {
    /// How long after it was sent.
    pub after: Duration,
    /// The bit that is wrong.
    pub flipped: Option<usize>,
}

/// Decides over the datagrams of one direction, one after the other.
#[derive(Debug)]
pub struct Dice {
    seed: u64,
    direction: u64,
    count: u64,
    /// When the burst at hand began.
    burst_since: Option<Duration>,
    /// When the last datagram has gone out where the rate is limited, since the start.
    free_at: Duration,
}

impl Dice {
    /// The decisions of a direction of a link.
    pub fn new(seed: u64, direction: u64) -> Dice {
        Dice { seed, direction, count: 0, burst_since: None, free_at: Duration::ZERO }
    }

    /// Decides over the next datagram, of so many bytes and sent `now` (since the start): up to two arrivals.
    /// Its draws belong to its number, so that a change of the conditions changes nothing else of it.
    pub fn cast(
        &mut self,
        now: Duration,
        bytes: usize,
        conditions: &Conditions,
    ) -> [Option<Arrival>; 2] {
        let mut numbers = Numbers::of(&[self.seed, self.direction, self.count]);
        self.count += 1;
        let [lost, burst, twice, late, wrong] = [(); 5].map(|()| numbers.unit());
        let (jitter, again, bit) =
            (numbers.unit(), numbers.unit(), numbers.below(bytes.max(1) * 8));
        let in_burst = self.is_in_burst(now, burst, conditions.burst);
        if conditions.cut || in_burst || lost < conditions.loss {
            return [None, None];
        }
        let Some(queued) = self.queue(now, bytes, conditions.rate) else { return [None, None] };
        let overtaken = if late < conditions.reorder { OVERTAKEN_BY } else { Duration::ZERO };
        let after =
            |unit: f64| queued + overtaken + conditions.delay + conditions.jitter.mul_f64(unit);
        let flipped = (wrong < conditions.corrupt && bytes > 0).then_some(bit);
        let first = Arrival { after: after(jitter), flipped };
        let second = Arrival { after: after(again), flipped: None };
        [Some(first), (twice < conditions.duplicate).then_some(second)]
    }

    fn is_in_burst(&mut self, now: Duration, unit: f64, burst: Option<Burst>) -> bool {
        let Some(burst) = burst else {
            self.burst_since = None;
            return false;
        };
        let since = self.burst_since.filter(|since| now - *since < BURST_MAX);
        let lost = since.is_some() || unit < burst.begin;
        // The first of a burst may be its last too.
        let goes_on = lost && (since.is_none() || unit >= burst.end);
        self.burst_since = goes_on.then(|| since.unwrap_or(now));
        lost
    }

    /// How long it waits and takes to go out; `None` if the queue is full.
    fn queue(&mut self, now: Duration, bytes: usize, rate: Option<f64>) -> Option<Duration> {
        let Some(rate) = rate else { return Some(Duration::ZERO) };
        let begun = self.free_at.max(now);
        if begun - now > QUEUE_MAX {
            return None;
        }
        self.free_at = begun + Duration::from_secs_f64(bytes as f64 / rate);
        Some(self.free_at - now)
    }
}

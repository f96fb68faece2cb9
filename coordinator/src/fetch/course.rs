//! The core of a download: which bytes are asked for next, when one tries again, when one gives up.
//!
//! It has no clock, no socket and no file. Times are counted from the download's start. Several connections share
//! one course: each takes a span with [`Course::next`], says what came with [`Course::got`], and how it ended with
//! [`Course::ended`].

use super::spans::{Span, Spans};
use super::trouble::{FetchError, Trouble};
use std::time::Duration;

/// The longest time that a server can ask to be left alone; one that wants more is given up.
const ASKED_MAX: Duration = Duration::from_secs(600);
/// Parts that a file is cut into at least, so that connections end at about the same time.
const PIECES: u64 = 64;

/// How patient a download is, and how it is cut.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The wait after a first failure; each further one in a row doubles it.
    pub first: Duration,
    /// The longest such wait.
    pub most: Duration,
    /// Failures in a row, without a byte between them, after which it ends.
    pub tries: u32,
    /// Connections at a time.
    pub connections: usize,
    /// Bytes of a request at least.
    pub span_min: u64,
    /// Bytes of a request at most.
    pub span_max: u64,
    /// A server that is silent for this long has broken off.
    pub silence: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            first: Duration::from_millis(500),
            most: Duration::from_secs(30),
            tries: 8,
            connections: 8,
            span_min: 8 << 20,
            span_max: 64 << 20,
            silence: Duration::from_secs(30),
        }
    }
}

/// How often one failed in a row, and until when one waits.
#[derive(Clone, Debug)]
pub struct Patience {
    pace: Pace,
    in_a_row: u32,
    not_before: Duration,
}

impl Patience {
    /// Nothing has failed yet.
    pub fn new(pace: Pace) -> Patience {
        Patience { pace, in_a_row: 0, not_before: Duration::ZERO }
    }

    /// Something came.
    pub fn progress(&mut self) {
        self.in_a_row = 0;
    }

    /// A try failed. Those that fail while one waits already were made before the wait began, and count as one.
    ///
    /// # Errors
    ///
    /// It is enough: how often, and what happened last.
    pub fn failed(
        &mut self,
        now: Duration,
        what: &str,
        after: Option<Duration>,
    ) -> Result<(), FetchError> {
        if let Some(after) = after.filter(|after| *after > ASKED_MAX) {
            return Err(FetchError::Failed(format!(
                "{what}: the server wants to be asked again after {} s: pull it again then",
                after.as_secs()
            )));
        }
        let asked = now + after.unwrap_or_default();
        if now < self.not_before {
            self.not_before = self.not_before.max(asked);
            return Ok(());
        }
        self.in_a_row += 1;
        if self.in_a_row >= self.pace.tries {
            return Err(FetchError::Failed(format!(
                "{what}; it was tried {} times",
                self.in_a_row
            )));
        }
        let doubled = self.pace.first.saturating_mul(1 << (self.in_a_row - 1).min(16));
        self.not_before = asked.max(now + doubled.min(self.pace.most));
        Ok(())
    }

    /// How long one still has to wait.
    pub fn wait(&self, now: Duration) -> Option<Duration> {
        self.not_before.checked_sub(now).filter(|wait| !wait.is_zero())
    }
}

/// What a connection is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask for these bytes; for the whole file if it is not `ranged`.
    Fetch {
        /// Which bytes.
        span: Span,
        /// Whether to ask for them alone.
        ranged: bool,
    },
    /// Come back after this time.
    Wait(Duration),
    /// Others fetch what is left; come back when one of them has ended.
    Idle,
    /// Every byte is there.
    Done,
    /// It has ended with this.
    Failed(FetchError),
}

/// A download.
#[derive(Clone, Debug)]
pub struct Course {
    size: u64,
    span_len: u64,
    whole: Spans,
    taken: Vec<Span>,
    patience: Patience,
    ranged: bool,
    failed: Option<FetchError>,
}

impl Course {
    /// A download of `size` bytes, of which some are there.
    pub fn new(size: u64, whole: Spans, ranged: bool, pace: Pace) -> Course {
        Course {
            size,
            span_len: (size / PIECES).clamp(pace.span_min.max(1), pace.span_max.max(1)),
            whole: if ranged { whole } else { Spans::default() },
            taken: Vec::new(),
            patience: Patience::new(pace),
            ranged,
            failed: None,
        }
    }

    /// What a connection that has nothing to do is to do.
    pub fn next(&mut self, now: Duration) -> Next {
        if let Some(error) = &self.failed {
            return Next::Failed(error.clone());
        }
        if self.whole.total() >= self.size {
            return Next::Done;
        }
        if let Some(wait) = self.patience.wait(now) {
            return Next::Wait(wait);
        }
        if !self.ranged {
            if !self.taken.is_empty() {
                return Next::Idle;
            }
            self.whole = Spans::default();
            return self.hand_out(Span { start: 0, end: self.size });
        }
        match self.whole.missing(self.size, &self.taken).first() {
            None => Next::Idle,
            Some(gap) => {
                let end = gap.end.min(gap.start + self.span_len);
                self.hand_out(Span { start: gap.start, end })
            }
        }
    }

    fn hand_out(&mut self, span: Span) -> Next {
        self.taken.push(span);
        Next::Fetch { span, ranged: self.ranged }
    }

    /// Bytes are in the file. `false`: whoever brought them is to stop.
    pub fn got(&mut self, span: Span, ranged: bool) -> bool {
        if self.failed.is_some() || ranged != self.ranged {
            return false;
        }
        self.whole.add(span);
        // What comes of a file that is sent whole only is lost with the connection.
        if ranged {
            self.patience.progress();
        }
        true
    }

    /// A connection has nothing to do any more, and why if it did not bring all.
    pub fn ended(&mut self, span: Span, trouble: Option<Trouble>, now: Duration) {
        self.taken.retain(|taken| *taken != span);
        let end = match trouble {
            None => Ok(()),
            Some(Trouble::NoRanges) => {
                self.ranged = false;
                Ok(())
            }
            Some(Trouble::Again { what, after }) => self.failed(now, &what, after),
            Some(Trouble::Expired(what)) => self.failed(now, &what, None),
            Some(Trouble::Fatal(error)) => Err(error),
        };
        if let Err(error) = end {
            self.failed.get_or_insert(error);
        }
    }

    fn failed(
        &mut self,
        now: Duration,
        what: &str,
        after: Option<Duration>,
    ) -> Result<(), FetchError> {
        let kept = if self.ranged && !self.whole.is_empty() {
            ". What came is kept: the same command goes on from there"
        } else {
            ""
        };
        let failed = self.patience.failed(now, what, after);
        failed.map_err(|error| FetchError::Failed(format!("{error}{kept}")))
    }

    /// What is there.
    pub fn whole(&self) -> &Spans {
        &self.whole
    }

    /// Whether what is there can be gone on from by another process.
    pub fn is_ranged(&self) -> bool {
        self.ranged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pace() -> Pace {
        Pace {
            first: SECOND,
            most: 4 * SECOND,
            tries: 4,
            span_min: 10,
            span_max: 10,
            ..Pace::default()
        }
    }

    fn span(start: u64, end: u64) -> Span {
        Span { start, end }
    }

    fn fetch(start: u64, end: u64) -> Next {
        Next::Fetch { span: span(start, end), ranged: true }
    }

    #[test]
    fn connections_get_different_bytes_and_what_broke_off_is_asked_for_again() {
        let mut whole = Spans::default();
        whole.add(span(5, 12));
        let mut course = Course::new(25, whole, true, pace());
        let zero = Duration::ZERO;
        assert_eq!(course.next(zero), fetch(0, 5));
        assert_eq!(course.next(zero), fetch(12, 22));
        assert_eq!(course.next(zero), fetch(22, 25));
        assert_eq!(course.next(zero), Next::Idle);
        assert!(course.got(span(12, 15), true));
        course.ended(span(12, 22), Some(Trouble::again("broke")), zero);
        assert_eq!(course.next(zero), Next::Wait(SECOND));
        assert_eq!(course.next(SECOND), fetch(15, 22));
        for (start, end) in [(0, 5), (22, 25), (15, 22)] {
            assert!(course.got(span(start, end), true));
            course.ended(span(start, end), None, SECOND);
        }
        assert_eq!(course.next(SECOND), Next::Done);
    }

    #[test]
    fn failures_in_a_row_end_it_and_a_byte_between_them_does_not() {
        let mut course = Course::new(100, Spans::default(), true, pace());
        let mut now = Duration::ZERO;
        for round in 0..20_u64 {
            let Next::Fetch { span: taken, .. } = course.next(now) else { panic!("round {round}") };
            course.got(span(taken.start, taken.start + 1), true);
            course.ended(taken, Some(Trouble::again("broke")), now);
            now += 4 * SECOND;
        }
        let mut waits = Vec::new();
        loop {
            match course.next(now) {
                Next::Fetch { span: taken, .. } => {
                    course.ended(taken, Some(Trouble::again("the server is away")), now);
                }
                Next::Wait(wait) => {
                    waits.push(wait.as_secs());
                    now += wait;
                }
                Next::Failed(error) => {
                    assert!(error.to_string().contains("away; it was tried 4 times"), "{error}");
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        // The last of the twenty failed once, too.
        assert_eq!(waits, [2, 4]);
    }

    #[test]
    fn connections_that_fail_together_are_one_failure() {
        let mut course = Course::new(100, Spans::default(), true, pace());
        let zero = Duration::ZERO;
        let taken: Vec<Next> = (0..8).map(|_| course.next(zero)).collect();
        for next in taken {
            let Next::Fetch { span, .. } = next else { panic!("{next:?}") };
            course.ended(span, Some(Trouble::again("broke")), zero);
        }
        assert_eq!(course.next(zero), Next::Wait(SECOND));
    }

    #[test]
    fn a_server_is_left_alone_for_as_long_as_it_asks_within_reason() {
        let mut course = Course::new(10, Spans::default(), true, pace());
        let busy = |secs| Trouble::Again { what: "429".into(), after: Some(secs * SECOND) };
        course.next(Duration::ZERO);
        course.ended(span(0, 10), Some(busy(60)), Duration::ZERO);
        assert_eq!(course.next(SECOND), Next::Wait(59 * SECOND));
        assert_eq!(course.next(60 * SECOND), fetch(0, 10));
        course.ended(span(0, 10), Some(busy(3600)), 60 * SECOND);
        let Next::Failed(error) = course.next(60 * SECOND) else { panic!("it waits an hour") };
        assert!(error.to_string().contains("3600 s"), "{error}");
    }

    #[test]
    fn without_ranges_one_connection_brings_it_whole_or_not_at_all() {
        let mut course = Course::new(30, Spans::default(), true, pace());
        let zero = Duration::ZERO;
        assert_eq!(course.next(zero), fetch(0, 10));
        assert_eq!(course.next(zero), fetch(10, 20));
        course.ended(span(0, 10), Some(Trouble::NoRanges), zero);
        assert_eq!(course.next(zero), Next::Idle);
        assert!(!course.got(span(10, 12), true), "it is to stop");
        course.ended(span(10, 20), None, zero);
        let all = Next::Fetch { span: span(0, 30), ranged: false };
        let mut now = zero;
        for _ in 0..3 {
            assert_eq!(course.next(now), all);
            assert!(course.got(span(0, 29), false));
            course.ended(span(0, 30), Some(Trouble::again("broke")), now);
            now += 4 * SECOND;
        }
        assert_eq!(course.next(now), all, "and from the start each time");
        course.ended(span(0, 30), Some(Trouble::again("broke")), now);
        assert!(matches!(course.next(now), Next::Failed(_)), "bytes that are lost are no progress");
    }

    #[test]
    fn what_cannot_be_mended_ends_it_at_once() {
        let mut course = Course::new(30, Spans::default(), true, pace());
        course.next(Duration::ZERO);
        course.ended(span(0, 10), Some(Trouble::failed("no")), Duration::ZERO);
        assert_eq!(course.next(Duration::ZERO), Next::Failed(FetchError::Failed("no".into())));
        assert!(!course.got(span(10, 12), true));
    }
}

//! Places in a stream that can be continued: the ids of its events.
//!
//! The id of an event is the count of the answer's tokens that have been sent with it. Where several events are made
//! of one token the last of them has that count, and those before it the count before with a number behind a point;
//! so have events without a token, such as the usage at the end. No id comes twice in a stream, and they ascend:
//! `0`, `1`, `2`, `2.1`, `3`, `4`, `4.1`.

use std::fmt;

/// Bytes of a place as text.
const TEXT_MAX: usize = 32;

/// After which event a reader goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Tokens that were sent.
    pub tokens: u64,
    /// Events since then without one more whole token.
    pub more: u32,
}

impl Place {
    /// The place that a client names; `None` if it is none.
    pub fn parse(text: &str) -> Option<Place> {
        let text = text.trim();
        let (tokens, more) = text.split_once('.').unwrap_or((text, "0"));
        let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if text.len() > TEXT_MAX || !plain(tokens) || !plain(more) {
            return None;
        }
        Some(Place { tokens: tokens.parse().ok()?, more: more.parse().ok()? })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.more {
            0 => write!(f, "{}", self.tokens),
            more => write!(f, "{}.{more}", self.tokens),
        }
    }
}

/// Gives events their places.
#[derive(Clone, Copy, Debug, Default)]
pub struct Places {
    last: Option<Place>,
}

impl Places {
    /// The places of so many events that are made of what came last, when `tokens` have come in all.
    pub fn next(&mut self, events: usize, tokens: u64) -> Vec<Place> {
        let mut place = |is_last: bool| {
            let next = match self.last {
                Some(last) if is_last && tokens > last.tokens => Place { tokens, more: 0 },
                None if is_last => Place { tokens, more: 0 },
                Some(last) => Place { more: last.more + 1, ..last },
                None => Place::default(),
            };
            self.last = Some(next);
            next
        };
        (1..=events).map(|event| place(event == events)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_event_of_a_token_has_its_count_and_no_place_comes_twice() {
        let mut places = Places::default();
        let mut given = Vec::new();
        for (events, tokens) in [(2, 1), (1, 2), (0, 3), (3, 4), (0, 5), (1, 5), (1, 5), (2, 5)] {
            given.extend(places.next(events, tokens));
        }
        let texts: Vec<String> = given.iter().map(Place::to_string).collect();
        assert_eq!(texts, ["0", "1", "2", "2.1", "2.2", "4", "5", "5.1", "5.2", "5.3"]);
        assert!(given.is_sorted() && given.windows(2).all(|pair| pair[0] != pair[1]));
        for (text, place) in texts.iter().zip(&given) {
            assert_eq!(Place::parse(text), Some(*place));
        }
        let mut whole = Places::default();
        assert_eq!(whole.next(1, 7)[0].to_string(), "7");
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for text in ["", "x", "-1", "+1", "1.", ".1", "1.2.3", "1e3", "99999999999999999999", "1,2"]
        {
            assert_eq!(Place::parse(text), None, "{text}");
        }
        assert_eq!(Place::parse(" 12 "), Some(Place { tokens: 12, more: 0 }));
    }
}

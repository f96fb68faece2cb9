//! Checks of meaning: what a well-formed message may say.

use crate::kind::Kind;
use crate::limits::{NAME_MAX, PEER_NAME_MAX, TEXT_MAX};
use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

/// A message that is well formed but says something that no message of its kind may say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} message: {field}: expected {expected}, found {found}")]
pub struct MessageError {
    /// The kind of the message.
    pub kind: Kind,
    /// The field, by its name in the message type.
    pub field: &'static str,
    /// What a valid message would have there.
    pub expected: String,
    /// What it had.
    pub found: String,
}

/// Checks the fields of one message; the kind is for the errors.
#[derive(Clone, Copy)]
pub(crate) struct Check(pub(crate) Kind);

impl Check {
    /// `ok` must hold; texts are only made if it does not.
    pub(crate) fn that(
        self,
        ok: bool,
        field: &'static str,
        expected: impl Display,
        found: impl Display,
    ) -> Result<(), MessageError> {
        if ok {
            return Ok(());
        }
        let (expected, found) = (expected.to_string(), found.to_string());
        Err(MessageError { kind: self.0, field, expected, found })
    }

    /// A number inside limits.
    pub(crate) fn range<T: PartialOrd + Display + Copy>(
        self,
        field: &'static str,
        value: T,
        limits: RangeInclusive<T>,
    ) -> Result<(), MessageError> {
        let (low, high) = (limits.start(), limits.end());
        self.that(limits.contains(&value), field, format_args!("{low} to {high}"), value)
    }

    /// A list whose number of entries is inside limits.
    pub(crate) fn count(
        self,
        field: &'static str,
        count: usize,
        limits: RangeInclusive<usize>,
    ) -> Result<(), MessageError> {
        let (low, high) = (limits.start(), limits.end());
        let ok = limits.contains(&count);
        self.that(ok, field, format_args!("{low} to {high} entries"), count)
    }

    /// A number that names something; 0 stands for "none" and is refused.
    pub(crate) fn not_zero(self, field: &'static str, value: u64) -> Result<(), MessageError> {
        self.that(value != 0, field, "a number above 0", value)
    }

    /// The name of a peer.
    pub(crate) fn name(self, field: &'static str, name: &str) -> Result<(), MessageError> {
        let expected = format_args!("1 to {PEER_NAME_MAX} characters of A-Z a-z 0-9 . _ -");
        self.that(is_name(name), field, expected, excerpt(name))
    }

    /// A short text for people on one line, such as a version.
    pub(crate) fn label(self, field: &'static str, label: &str) -> Result<(), MessageError> {
        let ok = label.len() <= NAME_MAX && label.bytes().all(|b| matches!(b, b' '..=b'~'));
        let expected = format_args!("at most {NAME_MAX} printable ASCII characters");
        self.that(ok, field, expected, excerpt(label))
    }

    /// A sentence for people.
    pub(crate) fn text(self, field: &'static str, text: &str) -> Result<(), MessageError> {
        let expected = format_args!("at most {TEXT_MAX} bytes without control characters");
        self.that(is_text(text), field, expected, excerpt(text))
    }

    /// `IP:port` that can be dialled.
    pub(crate) fn address(self, field: &'static str, address: &str) -> Result<(), MessageError> {
        let ok = address.len() <= NAME_MAX
            && address
                .parse::<SocketAddr>()
                .is_ok_and(|address| address.port() != 0 && !address.ip().is_unspecified());
        self.that(ok, field, "IP:port that can be dialled", excerpt(address))
    }
}

/// Whether a text may be the name of a peer: `[A-Za-z0-9._-]`, 1 to [`PEER_NAME_MAX`] bytes.
pub fn is_name(name: &str) -> bool {
    (1..=PEER_NAME_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// A valid name made of any text, such as a host name: other characters become `-`, what is too
/// long is cut, and an empty text becomes `worker`.
pub fn name_from(text: &str) -> String {
    let name: String = text
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' })
        .take(PEER_NAME_MAX)
        .collect();
    if name.is_empty() { "worker".to_owned() } else { name }
}

/// Whether a text may stand in a fault or refusal.
pub(crate) fn is_text(text: &str) -> bool {
    text.len() <= TEXT_MAX && !text.chars().any(char::is_control)
}

/// A text that may stand in a fault or refusal: control characters become spaces, what is too
/// long is cut at a character.
pub fn text_from(text: &str) -> String {
    let mut clean = String::with_capacity(text.len().min(TEXT_MAX));
    for c in text.chars() {
        let c = if c.is_control() { ' ' } else { c };
        if clean.len() + c.len_utf8() > TEXT_MAX {
            break;
        }
        clean.push(c);
    }
    clean
}

/// The beginning of a peer's text, harmless in a log.
fn excerpt(text: &str) -> String {
    let start: String = text.chars().take(40).collect();
    format!("{start:?} ({} bytes)", text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_short() {
        assert!(is_name("rack-1.node_7"));
        for bad in ["", "a b", "a\n", "\u{1b}[31m", "ä", &"x".repeat(65)] {
            assert!(!is_name(bad), "{bad:?}");
            assert!(is_name(&name_from(bad)), "{bad:?}");
        }
    }

    #[test]
    fn texts_are_cut_at_a_character() {
        let long = "é".repeat(TEXT_MAX);
        let text = text_from(&long);
        assert_eq!(text.len(), TEXT_MAX);
        assert!(is_text(&text));
        assert_eq!(text_from("a\nb\u{1b}[0m"), "a b [0m");
    }

    #[test]
    fn addresses_can_be_dialled() {
        let check = Check(Kind::Hello);
        for good in ["10.0.0.7:7400", "[::1]:1"] {
            assert!(check.address("advertise", good).is_ok(), "{good}");
        }
        for bad in ["", "host:7400", "10.0.0.7", "10.0.0.7:0", "0.0.0.0:7400", "[::]:7400"] {
            assert!(check.address("advertise", bad).is_err(), "{bad}");
        }
    }
}

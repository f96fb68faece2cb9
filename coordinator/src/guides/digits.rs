//! How many digits a number of JSON may have.
//!
//! JSON lets a number have as many digits as it likes, and a schema can only bound its value: a small model that
//! has begun to write digits after the point may never find an end. After [`DIGITS_MAX`] digits in a row, more than
//! any number has that a program keeps (a double has 17, an integer of 128 bits 39), what goes on must be
//! something else, if the grammar has anything else to go on with. Digits in strings are text and are not counted.

use llguidance::toktrie::{SimpleVob, TokTrie};

/// Digits in a row, outside of strings.
pub const DIGITS_MAX: usize = 40;

/// Where in JSON an answer is, as far as digits are concerned. A function of the answer's tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Digits {
    in_string: bool,
    is_escaped: bool,
    run: usize,
}

impl Digits {
    /// Goes on with what a token spells. A mark, which spells no text, ends whatever was there.
    pub(super) fn take(&mut self, spelled: &[u8]) {
        if spelled.first() == Some(&TokTrie::SPECIAL_TOKEN_MARKER) {
            *self = Digits::default();
            return;
        }
        for byte in spelled {
            self.run = if !self.in_string && byte.is_ascii_digit() { self.run + 1 } else { 0 };
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' if self.in_string => self.is_escaped = true,
                b'"' => self.in_string = !self.in_string,
                _ => {}
            }
        }
    }

    /// Takes the tokens that begin with a digit from `set` if there have been enough, and others are left.
    pub(super) fn limit(&self, set: &mut SimpleVob, trie: &TokTrie) {
        if self.run < DIGITS_MAX {
            return;
        }
        let mut others = set.clone();
        for token in 0..u32::try_from(trie.vocab_size()).unwrap_or(u32::MAX) {
            if trie.token(token).first().is_some_and(u8::is_ascii_digit) {
                others.disallow_token(token);
            }
        }
        if !others.is_zero() {
            *set = others;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_counted_outside_of_strings_and_in_a_row() {
        let run = |texts: &[&str]| {
            let mut digits = Digits::default();
            texts.iter().for_each(|text| digits.take(text.as_bytes()));
            digits.run
        };
        assert_eq!(run(&["{\"a\":1", "23"]), 3);
        assert_eq!(run(&["{\"a\":1", "2.", "345"]), 3);
        assert_eq!(run(&["{\"123"]), 0);
        assert_eq!(run(&["{\"\\\"12", "\\", "\"34"]), 0);
        assert_eq!(run(&["[\"\\\\\",77"]), 2);
    }

    #[test]
    fn a_mark_begins_anew() {
        let mut digits = Digits::default();
        digits.take(b"He said \"12");
        digits.take(&[TokTrie::SPECIAL_TOKEN_MARKER, b'x']);
        digits.take(b"12");
        assert_eq!(digits.run, 2);
    }
}

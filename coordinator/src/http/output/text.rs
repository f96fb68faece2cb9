//! The text side of a generation: tokens become whole UTF-8, thinking and calls are told from text, stop
//! strings end it.
//!
//! Nothing here knows HTTP. Text is handed on as soon as no stop string can begin in it, so what a
//! client reads does not depend on where the token borders are: the stop string that is complete
//! first ends the completion, and if two are complete at once, the longer.

use crate::chat_formats::{Parser, Part, Place, Read};
use crate::few::Few;
use std::sync::Arc;
use woolly_engine::tokenizer::{Detokenizer, Tokenizer};

/// What one token adds to an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewText {
    /// What to hand on, in order: whole characters, none of them part of a stop string that is not to
    /// be shown.
    pub parts: Few<Part>,
    /// Characters of the completion before this token, those not yet handed on included.
    pub offset: usize,
    /// The stop string that is complete: the completion ends here.
    pub stopped: Option<String>,
    /// What the token is part of. What is neither text nor may be it is counted, and nothing is said of it.
    pub place: Place,
    /// The model thinks with it.
    pub is_thinking: bool,
    /// The answer ends here with the one call that it may have.
    pub has_its_call: bool,
}

/// The text of one completion, token by token.
///
/// Stop strings are looked for in the answer's text, not in what the model thinks or in calls; none begins
/// before one of those and ends after it.
#[derive(Debug)]
pub struct CompletionText {
    detokenizer: Detokenizer,
    stops: StopMatcher,
    chars: usize,
    /// Tells text from thinking and calls, if it may have those.
    parser: Option<Parser>,
    /// A stop token's text is part of the completion.
    shows_stops: bool,
    /// Tokens in whose text no stop string counts.
    free_tokens: u32,
    /// The present one is one of them.
    is_free: bool,
}

impl CompletionText {
    /// A completion that ends where one of `stops` (none empty) does; its first character has the
    /// offset `offset`.
    pub fn new(detokenizer: Detokenizer, stops: Arc<[String]>, offset: usize) -> CompletionText {
        CompletionText {
            detokenizer,
            stops: StopMatcher::new(stops),
            chars: offset,
            parser: None,
            shows_stops: false,
            free_tokens: 0,
            is_free: false,
        }
    }

    /// With thinking and calls in it.
    pub fn with_parser(self, parser: Option<Parser>) -> CompletionText {
        CompletionText { parser, ..self }
    }

    /// With what ends the completion as part of its text: the stop string, or what a stop token of the
    /// request spells.
    pub fn showing_stops(mut self, shows: bool) -> CompletionText {
        self.shows_stops = shows;
        self.stops.shows = shows;
        self
    }

    /// With stop strings that count only in what follows the first `tokens` tokens.
    pub fn stopping_after(self, tokens: u32) -> CompletionText {
        CompletionText { free_tokens: tokens, ..self }
    }

    /// Adds a token. After one that `stopped`, nothing more is added.
    pub fn push(&mut self, tokenizer: &Tokenizer, token: u32) -> NewText {
        self.is_free = self.free_tokens > 0;
        self.free_tokens = self.free_tokens.saturating_sub(1);
        match &mut self.parser {
            Some(parser) => {
                let read = parser.push(&mut self.detokenizer, tokenizer, token);
                self.read(read)
            }
            None => {
                let piece = self.detokenizer.push(tokenizer, token);
                self.plain(piece)
            }
        }
    }

    /// A token that is not text: the one that ended the completion.
    pub fn skip(&self) -> NewText {
        NewText {
            parts: Few::default(),
            offset: self.chars,
            stopped: None,
            place: Place::Text,
            is_thinking: false,
            has_its_call: false,
        }
    }

    /// A token that ends the completion because the request says so.
    pub fn stop_token(&mut self, tokenizer: &Tokenizer, token: u32) -> NewText {
        if self.shows_stops { self.push(tokenizer, token) } else { self.skip() }
    }

    /// The end: what was held back, and what is left of a character that never became whole.
    pub fn finish(&mut self) -> NewText {
        self.is_free = false;
        let mut new = match &mut self.parser {
            Some(parser) => {
                let read = parser.finish(&mut self.detokenizer);
                self.read(read)
            }
            None => {
                let piece = self.detokenizer.finish();
                self.plain(piece)
            }
        };
        if new.stopped.is_none() {
            self.release(&mut new);
        }
        new
    }

    /// A piece of text where there is nothing else.
    fn plain(&mut self, piece: String) -> NewText {
        let mut new = self.skip();
        self.text(piece, &mut new);
        new
    }

    /// What the parser has made of a token.
    fn read(&mut self, read: Read) -> NewText {
        let Read { parts, place, is_thinking, ends } = read;
        let mut new = NewText { place, is_thinking, has_its_call: ends, ..self.skip() };
        for part in parts {
            match part {
                Part::Text(text) => self.text(text, &mut new),
                part => {
                    self.release(&mut new);
                    new.parts.push(part);
                }
            }
            if new.stopped.is_some() {
                break;
            }
        }
        new
    }

    fn text(&mut self, piece: String, new: &mut NewText) {
        self.chars += piece.chars().count();
        if self.is_free {
            return add_text(&mut new.parts, piece);
        }
        let (text, stopped) = self.stops.push(piece);
        new.stopped = stopped;
        add_text(&mut new.parts, text);
    }

    /// A run of text is over: what was held back is no stop string.
    fn release(&mut self, new: &mut NewText) {
        add_text(&mut new.parts, self.stops.finish());
    }
}

fn add_text(parts: &mut Few<Part>, more: String) {
    match parts.last_mut() {
        _ if more.is_empty() => {}
        Some(Part::Text(text)) => text.push_str(&more),
        _ => parts.push(Part::Text(more)),
    }
}

/// Finds stop strings in a text that comes in pieces.
#[derive(Debug)]
pub struct StopMatcher {
    stops: Arc<[String]>,
    /// The end of the text so far that a stop string could begin with.
    held: String,
    /// The one that was complete.
    stopped: Option<String>,
    /// A stop string is handed on as the end of the text.
    shows: bool,
}

impl StopMatcher {
    /// A matcher for these strings, none of them empty.
    pub fn new(stops: Arc<[String]>) -> StopMatcher {
        StopMatcher { stops, held: String::new(), stopped: None, shows: false }
    }

    /// Adds a piece: the text that may be handed on, and the stop string that is complete. Text after a
    /// stop string is never handed on, the string itself only if it is to be shown.
    pub fn push(&mut self, piece: String) -> (String, Option<String>) {
        if self.stopped.is_some() {
            return (String::new(), self.stopped.clone());
        }
        if self.stops.is_empty() {
            return (piece, None);
        }
        self.held.push_str(&piece);
        if let Some((start, end)) = self.first_match() {
            self.stopped = Some(self.held[start..end].to_owned());
            self.held.truncate(if self.shows { end } else { start });
            return (std::mem::take(&mut self.held), self.stopped.clone());
        }
        let kept = self.held.split_off(self.hold_from());
        (std::mem::replace(&mut self.held, kept), None)
    }

    /// The end of the text: what was held back is no stop string.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Where the stop string begins and ends that is complete first; of two, the longer.
    fn first_match(&self) -> Option<(usize, usize)> {
        let found = |stop: &String| {
            let start = self.held.find(stop.as_str())?;
            Some((start + stop.len(), start))
        };
        self.stops.iter().filter_map(found).min().map(|(end, start)| (start, end))
    }

    /// Where the longest end of the text begins that a stop string begins with.
    fn hold_from(&self) -> usize {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let from = self.held.len().saturating_sub(longest);
        let could_begin = |at: &usize| {
            self.held.is_char_boundary(*at)
                && self.stops.iter().any(|stop| stop.starts_with(&self.held[*at..]))
        };
        (from..self.held.len()).find(could_begin).unwrap_or(self.held.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matcher(stops: &[&str]) -> StopMatcher {
        StopMatcher::new(stops.iter().map(|stop| (*stop).to_owned()).collect())
    }

    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let mut matcher = matcher(stops);
        let mut passed = Vec::new();
        for piece in pieces {
            let (text, stopped) = matcher.push((*piece).to_owned());
            passed.push(text);
            if stopped.is_some() {
                return (passed, true);
            }
        }
        passed.push(matcher.finish());
        (passed, false)
    }

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn text_without_stop_strings_passes_at_once() {
        assert_eq!(run(&[], &["ab", "c"]), (strings(&["ab", "c", ""]), false));
    }

    #[test]
    fn a_stop_string_over_many_pieces_is_held_back_and_never_handed_on() {
        let pieces = ["one ", "E", "N", "D", " two"];
        assert_eq!(run(&["END"], &pieces), (strings(&["one ", "", "", ""]), true));
    }

    #[test]
    fn what_only_began_like_a_stop_string_is_handed_on() {
        assert_eq!(
            run(&["END"], &["E", "N", "E", "NT"]),
            (strings(&["", "", "EN", "ENT", ""]), false)
        );
        assert_eq!(run(&["END"], &["aEN"]), (strings(&["a", "EN"]), false));
    }

    #[test]
    fn overlapping_stop_strings_end_where_the_first_is_complete() {
        assert_eq!(run(&["abcd", "bc"], &["abc"]), (strings(&["a"]), true));
        assert_eq!(run(&["abcd", "bc"], &["abcd"]), (strings(&["a"]), true));
        assert_eq!(run(&["abc", "bc"], &["xabc"]), (strings(&["x"]), true));
        assert_eq!(run(&["aab"], &["aa", "ab"]), (strings(&["", "a"]), true));
    }

    #[test]
    fn stop_strings_of_many_bytes_per_character() {
        assert_eq!(run(&["🤗媽"], &["a🤗", "媽b"]), (strings(&["a", ""]), true));
        assert_eq!(run(&["é"], &["e", "è", "é"]), (strings(&["e", "è", ""]), true));
    }

    proptest! {
        #[test]
        fn the_borders_of_the_pieces_do_not_matter(
            text in "[abé]{0,24}",
            stops in prop::collection::vec("[abé]{1,4}", 0..4),
            cuts in prop::collection::vec(0_usize..24, 0..6),
        ) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let chars: Vec<String> = text.chars().map(String::from).collect();
            let chars: Vec<&str> = chars.iter().map(String::as_str).collect();
            let (passed, stopped) = run(&stops, &chars);
            let mut borders: Vec<usize> =
                cuts.into_iter().filter(|at| *at <= text.len() && text.is_char_boundary(*at)).collect();
            borders.extend([0, text.len()]);
            borders.sort_unstable();
            let pieces: Vec<&str> = borders.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            let (other, other_stopped) = run(&stops, &pieces);
            prop_assert_eq!(passed.concat(), other.concat());
            prop_assert_eq!(stopped, other_stopped);
            prop_assert!(stops.iter().all(|stop| !other.concat().contains(stop)));
        }
    }
}

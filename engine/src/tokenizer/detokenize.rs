//! Tokens back to text, one at a time, whole characters only.

use super::{Algorithm, Tokenizer};

/// Turns the tokens of one sequence into text as they come. A character whose bytes are spread over
/// several tokens is held back (at most 3 bytes) until it is whole.
#[derive(Debug, Clone)]
pub struct Detokenizer {
    held: Vec<u8>,
    /// The next text is the first: a space that SPM put there is not part of it.
    strip_space: bool,
    show_control: bool,
}

impl Detokenizer {
    /// For a text that begins with the first token pushed, such as an answer in a conversation: the
    /// space that an SPM vocabulary puts before a text is taken away.
    pub fn new(tokenizer: &Tokenizer) -> Detokenizer {
        let is_spm = matches!(tokenizer.algorithm, Algorithm::Spm(_));
        Detokenizer {
            held: Vec::new(),
            strip_space: is_spm && tokenizer.space_prefix,
            show_control: false,
        }
    }

    /// For a text that continues another one, such as a completion: nothing is taken away.
    pub fn continuing() -> Detokenizer {
        Detokenizer { held: Vec::new(), strip_space: false, show_control: false }
    }

    /// Also gives the texts of control tokens, which are left out otherwise.
    pub fn showing_control(self) -> Detokenizer {
        Detokenizer { show_control: true, ..self }
    }

    /// The text that `token` makes whole; empty if it gives none yet. Bytes that cannot become
    /// UTF-8 give U+FFFD.
    pub fn push(&mut self, tokenizer: &Tokenizer, token: u32) -> String {
        if !self.show_control && tokenizer.is_control(token) {
            return String::new();
        }
        let mut bytes = tokenizer.token_bytes(token);
        if self.strip_space && !bytes.is_empty() {
            self.strip_space = false;
            bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
        }
        if let ([], Ok(whole)) = (&self.held[..], std::str::from_utf8(bytes)) {
            return whole.to_owned();
        }
        self.held.extend_from_slice(bytes);
        let mut text = String::with_capacity(self.held.len());
        let mut taken = 0;
        for chunk in self.held.utf8_chunks() {
            text.push_str(chunk.valid());
            taken += chunk.valid().len();
            let invalid = chunk.invalid();
            let at_end = taken + invalid.len() == self.held.len();
            if invalid.is_empty() || (at_end && may_continue(invalid)) {
                break;
            }
            text.push(char::REPLACEMENT_CHARACTER);
            taken += invalid.len();
        }
        self.held.drain(..taken);
        text
    }

    /// What is left when no more tokens come: U+FFFD for a character that was never completed.
    pub fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.held).into_owned();
        self.held.clear();
        text
    }
}

/// Whether `bytes`, which are not UTF-8, are the beginning of a character.
fn may_continue(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

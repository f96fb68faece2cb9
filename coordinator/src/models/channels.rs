//! The messages inside an answer of the harmony format (gpt-oss): which tokens are the answer's text.
//!
//! ```text
//! <|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…<|return|>
//! ```
//!
//! An answer begins where the prompt ends, in the head of its first message. Only the text of the channel
//! `final` is the answer; a head without a channel is of it too. Source: OpenAI's harmony response format.
//! Knows tokens and their texts only.

use woolly_engine::tokenizer::Tokenizer;

/// The channel whose text is the answer.
const FINAL: &str = "final";
/// Bytes of a head that are looked at; the rest says nothing about its channel.
const HEAD_MAX: usize = 256;

/// Where the tokens of an answer are.
#[derive(Clone, Debug)]
pub struct Channels {
    markers: Markers,
    place: Place,
}

/// The tokens that a message is made of.
#[derive(Clone, Copy, Debug)]
struct Markers {
    start: u32,
    channel: u32,
    message: u32,
    end: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// Before the text of a message: its channel so far, if it names one.
    Head(Option<String>),
    /// In the text of a message, which is the answer's or not.
    Text { is_answer: bool },
}

impl Channels {
    /// For a vocabulary that has this format's tokens; `None` for others.
    pub fn of(tokenizer: &Tokenizer) -> Option<Channels> {
        let token = |text| tokenizer.special_token(text);
        let markers = Markers {
            start: token("<|start|>")?,
            channel: token("<|channel|>")?,
            message: token("<|message|>")?,
            end: token("<|end|>")?,
        };
        Some(Channels { markers, place: Place::Head(None) })
    }

    /// Goes on with the next token: whether its text is the answer's.
    pub fn takes(&mut self, tokenizer: &Tokenizer, token: u32) -> bool {
        let Markers { start, channel, message, end } = self.markers;
        if token == start || token == end {
            self.place = Place::Head(None);
        } else if token == channel {
            self.place = Place::Head(Some(String::new()));
        } else if token == message {
            let is_answer = match &self.place {
                Place::Head(Some(head)) => head.split_whitespace().next() == Some(FINAL),
                Place::Head(None) => true,
                Place::Text { is_answer } => *is_answer,
            };
            self.place = Place::Text { is_answer };
        } else {
            match &mut self.place {
                Place::Head(Some(head)) if head.len() < HEAD_MAX => {
                    head.push_str(&String::from_utf8_lossy(tokenizer.token_bytes(token)));
                }
                Place::Head(_) => {}
                Place::Text { is_answer } => return *is_answer,
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::support::{metadata, metadata_pairs};
    use woolly_engine::gguf::{Array, Metadata, Value};

    const MARKERS: [&str; 4] = ["<|start|>", "<|channel|>", "<|message|>", "<|end|>"];

    /// A token for each byte, `<s>`, `</s>`, and the markers.
    fn tokenizer() -> Tokenizer {
        let mut pairs = metadata_pairs();
        for (key, value) in &mut pairs {
            match (key.as_str(), value) {
                ("tokenizer.ggml.tokens", Value::Array(Array::Strings(tokens))) => {
                    tokens.truncate(258);
                    tokens.extend(MARKERS.map(str::to_owned));
                }
                ("tokenizer.ggml.token_type", Value::Array(Array::I32(kinds))) => {
                    kinds.truncate(258);
                    kinds.extend([3; MARKERS.len()]);
                }
                ("tokenizer.ggml.merges", Value::Array(Array::Strings(merges))) => merges.clear(),
                _ => {}
            }
        }
        Tokenizer::from_metadata(&Metadata::from_pairs(pairs)).unwrap()
    }

    fn answer(text: &str) -> String {
        let tokenizer = tokenizer();
        let mut channels = Channels::of(&tokenizer).expect("it has the markers");
        let mut bytes = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let marker = MARKERS.iter().find(|marker| rest.starts_with(**marker));
            let token = match marker {
                Some(marker) => tokenizer.special_token(marker).unwrap(),
                None => u32::from(rest.as_bytes()[0]),
            };
            if channels.takes(&tokenizer, token) {
                bytes.extend(tokenizer.token_bytes(token));
            }
            rest = &rest[marker.map_or(1, |marker| marker.len())..];
        }
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_final_channel_is_the_answer() {
        let whole = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final\
                     <|message|>Hello!<|end|>";
        assert_eq!(answer(whole), "Hello!");
        let constrained = "<|channel|>final <|constrain|>json<|message|>{}";
        assert_eq!(answer(constrained), "{}", "what follows the channel's name says more of it");
        assert_eq!(answer("<|channel|>commentary to=functions.f<|message|>{\"a\":1}"), "");
        assert_eq!(answer("<|message|>At once."), "At once.", "no channel at all");
        assert_eq!(answer("<|channel|>finally<|message|>no"), "");
        let two =
            "<|channel|>final<|message|>A<|end|><|start|>assistant<|channel|>final<|message|>B";
        assert_eq!(answer(two), "AB");
    }

    #[test]
    fn other_vocabularies_have_no_channels() {
        let tokenizer = Tokenizer::from_metadata(&metadata()).unwrap();
        assert!(Channels::of(&tokenizer).is_none());
    }
}

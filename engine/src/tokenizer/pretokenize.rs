//! Splitting text into the pieces that merges may not cross, as each family does it.
//!
//! The patterns are llama.cpp's, in its order; each splits the pieces of the one before and keeps
//! what lies between its matches. They are run by an engine without backtracking, so a text costs
//! time linear in its length whatever it contains. The one construct such an engine lacks,
//! `\s+(?!\S)` (white space, but leave the last of it to the word that follows), is what
//! [`Pattern::Words`] stands for.

use regex_automata::Input;
use regex_automata::meta::Regex;

use super::error::TokenizerError;

use super::families::{FAMILIES, Pattern};

/// Splits text into pieces for one family.
#[derive(Debug)]
pub(super) struct Pretokenizer {
    splitters: Vec<Splitter>,
    /// A piece that is a token as a whole is taken as it is, even if no merges lead to it.
    pub ignore_merges: bool,
    /// Whether texts begin with BOS when the file does not say.
    pub add_bos: bool,
}

#[derive(Debug)]
struct Splitter {
    /// Pattern 0 is the source; pattern 1, if any, a run of white space. `None` cuts digits into
    /// threes.
    regex: Option<Regex>,
}

impl Pretokenizer {
    /// The pre-tokenizer that `tokenizer.ggml.pre` names.
    pub fn named(name: &str) -> Result<Pretokenizer, TokenizerError> {
        let family =
            FAMILIES.iter().find(|family| family.names.contains(&name)).ok_or_else(|| {
                let known: Vec<&str> = FAMILIES.iter().flat_map(|f| f.names).copied().collect();
                TokenizerError::UnknownPre { found: name.to_owned(), known: known.join(", ") }
            })?;
        let splitters: Result<Vec<Splitter>, _> =
            family.patterns.iter().map(Splitter::new).collect();
        Ok(Pretokenizer {
            splitters: splitters?,
            ignore_merges: family.ignore_merges,
            add_bos: family.add_bos,
        })
    }

    /// Calls `visit` with the pieces of `text` in order. Together they are the text.
    pub fn split(
        &self,
        text: &str,
        visit: &mut dyn FnMut(&str) -> Result<(), TokenizerError>,
    ) -> Result<(), TokenizerError> {
        split_with(&self.splitters, text, visit)
    }
}

fn split_with(
    splitters: &[Splitter],
    text: &str,
    visit: &mut dyn FnMut(&str) -> Result<(), TokenizerError>,
) -> Result<(), TokenizerError> {
    let Some((splitter, rest)) = splitters.split_first() else { return visit(text) };
    let Some(regex) = &splitter.regex else { return threes(rest, text, visit) };
    let mut at = 0;
    while at < text.len() {
        let Some((start, end)) = next(regex, text, at) else {
            return split_with(rest, &text[at..], visit);
        };
        if start > at {
            split_with(rest, &text[at..start], visit)?;
        }
        split_with(rest, &text[start..end], visit)?;
        at = end;
    }
    Ok(())
}

/// Cuts every run of ASCII digits where a multiple of three of them is left, in one pass.
fn threes(
    rest: &[Splitter],
    text: &str,
    visit: &mut dyn FnMut(&str) -> Result<(), TokenizerError>,
) -> Result<(), TokenizerError> {
    let bytes = text.as_bytes();
    let (mut begun, mut at) = (0, 0);
    while at < bytes.len() {
        let digits = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let run_end = at + digits;
        // A whole multiple of three is cut at its beginning as well.
        let mut cut = at + digits % 3;
        while cut < run_end {
            if cut > begun {
                split_with(rest, &text[begun..cut], visit)?;
                begun = cut;
            }
            cut += 3;
        }
        at = run_end.max(at + 1);
    }
    if begun < text.len() { split_with(rest, &text[begun..], visit) } else { Ok(()) }
}

impl Splitter {
    fn new(pattern: &Pattern) -> Result<Splitter, TokenizerError> {
        let regex = match pattern {
            Pattern::Plain(source) => Regex::new(source),
            Pattern::Words(source) => Regex::new_many(&[*source, r"\s+"]),
            Pattern::Threes => return Ok(Splitter { regex: None }),
        };
        let regex = regex.map_err(|e| TokenizerError::Automaton {
            part: "pre-tokenizer",
            reason: e.to_string(),
        })?;
        Ok(Splitter { regex: Some(regex) })
    }
}

/// The next match from `at` on. No pattern matches the empty text.
fn next(regex: &Regex, text: &str, at: usize) -> Option<(usize, usize)> {
    let found = regex.search(&Input::new(text).range(at..))?;
    let (start, mut end) = (found.start(), found.end());
    if found.pattern().as_usize() == 1 && end < text.len() {
        // The last white space goes to the word after it, unless it is the only one.
        let last = text[start..end].chars().next_back().map_or(0, char::len_utf8);
        if end - last > start {
            end -= last;
        }
    }
    Some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(name: &str, text: &str) -> Vec<String> {
        let mut out = Vec::new();
        let pretokenizer = Pretokenizer::named(name).unwrap();
        pretokenizer
            .split(text, &mut |piece| {
                out.push(piece.to_owned());
                Ok(())
            })
            .unwrap();
        out
    }

    #[test]
    fn every_family_keeps_every_byte() {
        let text =
            "Hi, it's  42 000\t\n\n  \u{3000}déjà-vu\r\n媽媽 🤗🤗 'LL 한국 \u{0301}x ../ a  ";
        for family in &FAMILIES {
            for name in family.names {
                assert_eq!(pieces(name, text).concat(), text, "{name}");
                assert_eq!(pieces(name, ""), Vec::<String>::new(), "{name}");
            }
        }
    }

    #[test]
    fn pieces_are_those_of_the_published_patterns() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/pieces.json");
        let text = std::fs::read_to_string(path).unwrap();
        let vectors: serde_json::Value = serde_json::from_str(&text).unwrap();
        for (name, vectors) in vectors.as_object().unwrap() {
            for vector in vectors.as_array().unwrap() {
                let text = vector["text"].as_str().unwrap();
                assert_eq!(serde_json::json!(pieces(name, text)), vector["pieces"], "{name}");
            }
        }
    }

    #[test]
    fn a_long_number_costs_linear_time() {
        let digits = "7".repeat(1_000_001);
        assert_eq!(pieces("superbpe", &digits)[..2], ["77", "777"]);
    }

    #[test]
    fn the_last_space_goes_to_the_word() {
        assert_eq!(pieces("gpt-2", "a   b"), ["a", "  ", " b"]);
        assert_eq!(pieces("gpt-2", "a   "), ["a", "   "]);
        assert_eq!(pieces("gpt-2", "a\t\tb"), ["a", "\t", "\t", "b"]);
        assert_eq!(pieces("qwen2", "a\n\n  b 12"), ["a", "\n\n", " ", " b", " ", "1", "2"]);
    }

    #[test]
    fn digits_are_grouped_as_the_family_does() {
        assert_eq!(pieces("llama-bpe", "1234567"), ["123", "456", "7"]);
        assert_eq!(pieces("smollm", "123"), ["1", "2", "3"]);
        assert_eq!(pieces("gpt-2", "1234567"), ["1234567"]);
        assert_eq!(pieces("default", "1234567"), ["123", "456", "7"]);
    }

    #[test]
    fn contractions_ignore_case_where_the_family_does() {
        assert_eq!(pieces("llama-bpe", "I'LL"), ["I", "'LL"]);
        assert_eq!(pieces("gpt-2", "I'LL"), ["I", "'", "LL"]);
        assert_eq!(pieces("gpt-4o", "don't"), ["don't"]);
    }

    #[test]
    fn camel_case_splits_in_tekken() {
        assert_eq!(pieces("tekken", "HelloWorldABC"), ["Hello", "World", "ABC"]);
    }
}

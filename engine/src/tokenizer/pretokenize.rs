//! Splitting text into the pieces that merges may not cross, as each family does it.
//!
//! The patterns are llama.cpp's, in its order; each splits the pieces of the one before and keeps
//! what lies between its matches. They are run by an engine without backtracking, so a text costs
//! time linear in its length whatever it contains. The one construct such an engine lacks,
//! `\s+(?!\S)` (white space, but leave the last of it to the word that follows), is what
//! [`Pattern::lazy_space`] stands for.

use regex_automata::Input;
use regex_automata::meta::Regex;

use super::error::TokenizerError;

/// One pattern of a pre-tokenizer.
#[derive(Debug, Clone, Copy)]
struct Pattern {
    source: &'static str,
    /// `\s+(?!\S)|\s+` as the last alternative.
    lazy_space: bool,
}

const fn plain(source: &'static str) -> Pattern {
    Pattern { source, lazy_space: false }
}

const fn words(source: &'static str) -> Pattern {
    Pattern { source, lazy_space: true }
}

/// What a value of `tokenizer.ggml.pre` means.
#[derive(Debug)]
struct Family {
    names: &'static [&'static str],
    patterns: &'static [Pattern],
    /// A piece that is a token as a whole is taken as it is, even if no merges lead to it.
    ignore_merges: bool,
    /// Whether texts begin with BOS when the file does not say.
    add_bos: bool,
}

const GPT2: Pattern = words(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+");

const LLAMA3: Pattern = words(concat!(
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|",
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+",
));

const QWEN2: Pattern = words(concat!(
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|",
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+",
));

const QWEN35: Pattern = words(concat!(
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|",
    r"\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+",
));

const TEKKEN: Pattern = words(concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{L}&&[^a-z]]*[\p{L}&&[^A-Z]]+|",
    r"[^\r\n\p{L}\p{N}]?[\p{L}&&[^a-z]]+[\p{L}&&[^A-Z]]*|",
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+",
));

const GPT4O: Pattern = words(concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{L}&&[^a-z]]*[\p{L}&&[^A-Z]]+",
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|",
    r"[^\r\n\p{L}\p{N}]?[\p{L}&&[^a-z]]+[\p{L}&&[^A-Z]]*",
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|",
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+",
));

const DEEPSEEK3_WORDS: Pattern = words(concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|"##,
    r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+",
));

/// Letters of Latin, Greek, Cyrillic, Georgian and the like, with the space before them.
const DEEPSEEK_LETTERS: &str = concat!(
    r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ",
    r"-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-",
    r"ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+",
);

/// The families, each with all the names that stand for it.
const FAMILIES: [Family; 14] = [
    Family {
        names: &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
        ],
        patterns: &[LLAMA3],
        ignore_merges: true,
        add_bos: true,
    },
    Family {
        names: &["dbrx", "smaug-bpe", "chatglm-bpe"],
        patterns: &[LLAMA3],
        ignore_merges: false,
        add_bos: false,
    },
    Family { names: &["glm4", "glm5"], patterns: &[LLAMA3], ignore_merges: true, add_bos: false },
    Family {
        names: &[
            "qwen2",
            "deepseek-r1-qwen",
            "kormo",
            "f2llmv2",
            "stablelm2",
            "hunyuan",
            "solar-open",
            "megrez",
            "grok-2",
        ],
        patterns: &[QWEN2],
        ignore_merges: false,
        add_bos: false,
    },
    Family { names: &["qwen35"], patterns: &[QWEN35], ignore_merges: false, add_bos: false },
    Family {
        names: &[
            "refact",
            "starcoder",
            "smollm",
            "command-r",
            "codeshell",
            "exaone",
            "minerva-7b",
            "mellum2",
        ],
        patterns: &[plain(r"\p{N}"), GPT2],
        ignore_merges: false,
        add_bos: false,
    },
    Family {
        names: &[
            "gpt-2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "granite-docling",
            "exaone4",
            "gigachat",
            "a.x-4.0",
            "mellum",
        ],
        patterns: &[GPT2],
        ignore_merges: false,
        add_bos: false,
    },
    Family { names: &["tekken"], patterns: &[TEKKEN], ignore_merges: true, add_bos: true },
    Family {
        names: &["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"],
        patterns: &[GPT4O],
        ignore_merges: false,
        add_bos: false,
    },
    Family {
        names: &["falcon"],
        patterns: &[plain(r"[\p{P}\$\+<=>\^~\|`]+"), GPT2, plain("[0-9][0-9][0-9]")],
        ignore_merges: false,
        add_bos: false,
    },
    Family {
        names: &["deepseek-llm"],
        patterns: &[
            plain(r"[\r\n]"),
            plain(DEEPSEEK_LETTERS),
            plain(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"),
            plain(r"\s+$"),
            plain(r"[一-龥ࠀ-一가-퟿]+"),
            plain(r"\p{N}+"),
        ],
        ignore_merges: false,
        add_bos: false,
    },
    Family {
        names: &["deepseek-coder"],
        patterns: &[
            plain(r"[\r\n]"),
            plain(r"\s?\p{L}+"),
            plain(r"\s?\p{P}+"),
            plain(r"[一-龥ࠀ-一가-퟿]+"),
            plain(r"\p{N}"),
        ],
        ignore_merges: false,
        add_bos: false,
    },
    Family {
        names: &["deepseek-v3", "hunyuan-dense", "joyai-llm"],
        patterns: &[plain(r"\p{N}{1,3}"), plain(r"[一-龥぀-ゟ゠-ヿ]+"), DEEPSEEK3_WORDS],
        ignore_merges: false,
        add_bos: false,
    },
    Family {
        names: &["default"],
        patterns: &[
            plain(r"[\p{P}\$\+<=>\^~\|]+"),
            GPT2,
            plain(r"\p{N}+"),
            plain("[0-9][0-9][0-9]"),
        ],
        ignore_merges: false,
        add_bos: false,
    },
];

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
    /// Pattern 0 is the source; pattern 1, if any, a run of white space.
    regex: Regex,
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
    let mut at = 0;
    while at < text.len() {
        let Some((start, end)) = splitter.next(text, at) else {
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

impl Splitter {
    fn new(pattern: &Pattern) -> Result<Splitter, TokenizerError> {
        let regex = if pattern.lazy_space {
            Regex::new_many(&[pattern.source, r"\s+"])
        } else {
            Regex::new(pattern.source)
        };
        let regex = regex.map_err(|e| TokenizerError::Automaton {
            part: "pre-tokenizer",
            reason: e.to_string(),
        })?;
        Ok(Splitter { regex })
    }

    /// The next match from `at` on. No pattern matches the empty text.
    fn next(&self, text: &str, at: usize) -> Option<(usize, usize)> {
        let found = self.regex.search(&Input::new(text).range(at..))?;
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

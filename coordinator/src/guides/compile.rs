//! Grammars for one vocabulary: checked and compiled, before a request is queued.
//!
//! Everything is bounded by counts, never by a clock, so that a request which is refused here, or ends
//! because of its grammar later, does so on a quiet machine as on a busy one. `docs/structured_output.md`
//! has the limits in a user's words.

use super::closed::close_objects;
use super::digits::Digits;
use super::error::{GrammarError, shortened};
use super::formats;
use super::gbnf;
use super::grammar::Grammar;
use super::guide::{Guide, Thinking};
use super::guided::Guided;
use super::vocabulary::Vocabulary;
use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{InferenceCapabilities, TokEnv};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};
use std::sync::Arc;
use woolly_engine::tokenizer::Tokenizer;

/// Bytes of a grammar's text, or of a schema as JSON.
pub const GRAMMAR_BYTES_MAX: usize = 256 << 10;
/// Symbols in the productions of a compiled grammar.
const SYMBOLS_MAX: usize = 100_000;
/// States of a grammar's lexer, over the whole answer: 1 to 2 KiB each.
const LEXER_STATES_MAX: usize = 20_000;
/// Steps of building the lexer.
const BUILD_STEPS_MAX: u64 = 1_000_000;
/// Steps of the lexer for one mask.
const MASK_STEPS_MAX: u64 = 200_000;
/// Items of the parser for one mask.
const MASK_ITEMS_MAX: usize = 50_000;
/// Ways to read an answer that are followed at the same time.
const WAYS_MAX: usize = 2_000;
/// What compiles grammars for one model.
pub struct Guides {
    factory: ParserFactory,
    vocab: usize,
}

impl std::fmt::Debug for Guides {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guides").field("vocab", &self.vocab).finish_non_exhaustive()
    }
}

impl Guides {
    /// For a model's vocabulary. Takes some tenths of a second for a large one.
    ///
    /// # Errors
    ///
    /// The vocabulary is too large for the library.
    pub fn new(tokenizer: Arc<Tokenizer>, marks: &[u32]) -> Result<Guides, GrammarError> {
        let vocab = tokenizer.vocab_size() as usize;
        let too_large =
            || GrammarError("the model's vocabulary is too large for grammars".to_owned());
        let vocabulary: TokEnv = Arc::new(Vocabulary::new(tokenizer, marks).ok_or_else(too_large)?);
        let can = InferenceCapabilities { ff_tokens: true, ..InferenceCapabilities::default() };
        let mut factory =
            ParserFactory::new(&vocabulary, can, &SlicedBiasComputer::general_slices())
                .map_err(|error| failed(&error))?;
        *factory.limits_mut() = ParserLimits {
            max_items_in_row: WAYS_MAX,
            initial_lexer_fuel: BUILD_STEPS_MAX,
            step_lexer_fuel: MASK_STEPS_MAX,
            step_max_items: MASK_ITEMS_MAX,
            max_lexer_states: LEXER_STATES_MAX,
            max_grammar_size: SYMBOLS_MAX,
            precompute_large_lexemes: true,
            verbose_errors: false,
        };
        factory.quiet();
        Ok(Guides { factory, vocab })
    }

    /// The beginning of an answer that has to be what `grammar` says, after `thinking` if the model thinks.
    /// Takes milliseconds; the first mask is computed too.
    ///
    /// # Errors
    ///
    /// What is wrong with the grammar, or that it is too large.
    pub fn guide(
        &self,
        grammar: &Grammar,
        thinking: Option<Thinking>,
    ) -> Result<Guided, GrammarError> {
        let parser =
            self.factory.create_parser(source(grammar)?).map_err(|error| failed(&error))?;
        let mut matcher = Matcher::new(Ok(parser));
        // What a tool that is not strict wants beyond the library's means is left to the model.
        let is_lenient = matches!(grammar, Grammar::Lark(_));
        let warnings = matcher.grammar_warnings();
        if let Some(warning) = warnings.into_iter().next().filter(|_| !is_lenient) {
            return Err(GrammarError(shortened(&warning)));
        }
        let has_json =
            matches!(grammar, Grammar::JsonObject | Grammar::JsonSchema(_) | Grammar::Lark(_));
        let digits = has_json.then(Digits::default);
        Guided::new(Guide::new(matcher, self.vocab, thinking, digits))
    }
}

/// A grammar in the library's words.
fn source(grammar: &Grammar) -> Result<TopLevelGrammar, GrammarError> {
    let lark = |text: String| Ok(TopLevelGrammar::from_lark(text));
    match grammar {
        Grammar::JsonObject => {
            Ok(TopLevelGrammar::from_json_schema(compact(&json!({"type": "object"}))?))
        }
        Grammar::JsonSchema(schema) => Ok(TopLevelGrammar::from_json_schema(compact(schema)?)),
        Grammar::Regex(regex) => {
            check_bytes(regex.len())?;
            Ok(TopLevelGrammar::from_regex(regex))
        }
        Grammar::Choice(texts) => {
            check_bytes(texts.iter().map(String::len).sum())?;
            let texts: Vec<String> = texts.iter().map(|text| json!(text).to_string()).collect();
            lark(format!("start: CHOICE\nCHOICE: {}\n", texts.join(" | ")))
        }
        Grammar::Gbnf(text) => {
            check_bytes(text.len())?;
            lark(gbnf::to_lark(text).map_err(|error| GrammarError(error.to_string()))?)
        }
        Grammar::Lark(text) => lark(text.clone()),
    }
}

/// A schema whose JSON has no white space between its parts and dates that everyone takes, to be given to the library.
///
/// # Errors
///
/// It is no object and no boolean, is too large, or holds the library's own options: a client could turn its checks
/// off with them.
pub fn compact(schema: &Value) -> Result<Value, GrammarError> {
    const OPTIONS: &str = "x-guidance";
    let mut schema = match schema {
        Value::Bool(true) => json!({}),
        Value::Object(fields) if fields.contains_key(OPTIONS) => {
            return Err(GrammarError(format!("a schema cannot have the key '{OPTIONS}' here")));
        }
        Value::Object(_) => schema.clone(),
        _ => return Err(GrammarError("a JSON schema must be an object".to_owned())),
    };
    check_bytes(schema.to_string().len())?;
    formats::with_patterns(&mut schema);
    close_objects(&mut schema);
    schema[OPTIONS] =
        json!({"item_separator": ",", "key_separator": ":", "whitespace_flexible": false});
    Ok(schema)
}

fn check_bytes(bytes: usize) -> Result<(), GrammarError> {
    if bytes <= GRAMMAR_BYTES_MAX {
        return Ok(());
    }
    Err(GrammarError(format!("it has {bytes} bytes; at most {GRAMMAR_BYTES_MAX} are allowed")))
}

fn failed(error: &anyhow::Error) -> GrammarError {
    GrammarError(shortened(&error.to_string()))
}

//! Answers as models write them, and as they break: what is read of each, however it is cut into tokens.

mod formats;
mod grammars;
mod json_outputs;
mod mixed_outputs;
mod other_outputs;

use super::*;
use crate::http::tests::support::metadata_pairs;
use serde_json::{Value, json};
use std::sync::Arc;
use woolly_engine::gguf::{Array, Metadata, Value as Kv};
use woolly_engine::tokenizer::{Detokenizer, Tokenizer};

/// Marks that a family's vocabulary may have as tokens.
pub(super) const MARKS: [&str; 31] = [
    "<tool_call>",
    "</tool_call>",
    "<think>",
    "</think>",
    "<|python_tag|>",
    "<|tool_call|>",
    "<response>",
    "</response>",
    "[TOOL_CALLS]",
    "[ARGS]",
    "[CALL_ID]",
    "[THINK]",
    "[/THINK]",
    "<arg_key>",
    "</arg_key>",
    "<arg_value>",
    "</arg_value>",
    "<function=",
    "</function>",
    "<parameter=",
    "</parameter>",
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁sep｜>",
    "<|tool_calls_section_begin|>",
    "<|tool_calls_section_end|>",
    "<|tool_call_begin|>",
    "<|tool_call_end|>",
    "<|tool_call_argument_begin|>",
];

/// The marks of harmony: a vocabulary that has them has no others.
const HARMONY_MARKS: [&str; 7] = [
    "<|start|>",
    "<|channel|>",
    "<|message|>",
    "<|end|>",
    "<|constrain|>",
    "<|call|>",
    "<|return|>",
];

/// The sources of templates, by what they say of calls and thinking.
pub(super) const HERMES: &str = "{{ tools }} <tool_call>";
pub(super) const QWEN3: &str = "{{ tools }} <tool_call> <think> </think>";
pub(super) const LLAMA: &str = "{{ tools }} <|start_header_id|> <|python_tag|>";
pub(super) const GRANITE: &str =
    "{{ tools }} <|start_of_role|> <|tool_call|> <think></think> <response></response>";
pub(super) const MISTRAL: &str = "{{ tools }} [TOOL_CALLS][";
pub(super) const MAGISTRAL: &str = "{{ tools }} [TOOL_CALLS] [ARGS] [THINK]";
pub(super) const GLM: &str = "{{ tools }} <tool_call> <arg_key> <think>";
pub(super) const CODER: &str = "{{ tools }} <tool_call> <function=";
pub(super) const DEEPSEEK: &str = "{{ tools }} <｜tool▁calls▁begin｜> <think>";
pub(super) const R1: &str = "{{ tools }} <｜tool▁calls▁begin｜> ```json <think>";
pub(super) const KIMI: &str = "{{ tools }} <|tool_calls_section_begin|>";
pub(super) const HARMONY: &str = "{{ tools }} <|channel|> <|start|>";

/// A vocabulary with a token for each byte, and these.
pub(super) fn vocabulary(marks: &[&str]) -> Tokenizer {
    let mut pairs = metadata_pairs();
    for (key, value) in &mut pairs {
        match (key.as_str(), value) {
            ("tokenizer.ggml.tokens", Kv::Array(Array::Strings(tokens))) => {
                tokens.truncate(258);
                tokens.extend(marks.iter().map(|mark| (*mark).to_owned()));
            }
            ("tokenizer.ggml.token_type", Kv::Array(Array::I32(kinds))) => {
                kinds.truncate(258);
                kinds.extend(vec![4; marks.len()]);
            }
            ("tokenizer.ggml.merges", Kv::Array(Array::Strings(merges))) => merges.clear(),
            _ => {}
        }
    }
    Tokenizer::from_metadata(&Metadata::from_pairs(pairs)).unwrap()
}

/// Bytes as tokens, marks as one each if the vocabulary has them.
pub(super) fn encode(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    let all = MARKS.into_iter().chain(HARMONY_MARKS);
    let marks: Vec<(u32, &str)> =
        all.filter_map(|mark| Some((tokenizer.special_token(mark)?, mark))).collect();
    let (mut tokens, mut rest) = (Vec::new(), text.as_bytes());
    while let Some(byte) = rest.first() {
        let mark = marks.iter().find(|(_, mark)| rest.starts_with(mark.as_bytes()));
        tokens.push(mark.map_or(u32::from(*byte), |(token, _)| *token));
        rest = &rest[mark.map_or(1, |(_, mark)| mark.len())..];
    }
    tokens
}

pub(super) fn tool(name: &str, parameters: Value) -> Tool {
    let template =
        json!({"type": "function", "function": {"name": name, "parameters": parameters}});
    Tool { name: name.to_owned(), parameters, strict: false, template }
}

/// Four tools.
pub(super) fn tools() -> Tools {
    let properties = |properties: Value| json!({"type": "object", "properties": properties});
    let mut weather = properties(json!({"city": {"type": "string"}, "days": {"type": "integer"}}));
    weather["required"] = json!(["city"]);
    let list = [
        tool("get_weather", weather),
        tool("add", properties(json!({"a": {"type": "number"}, "b": {"type": "number"}}))),
        tool("now", properties(json!({}))),
        tool("write", properties(json!({"path": {"type": "string"}, "text": {"type": "string"}}))),
    ];
    Tools { list: list.into(), choice: ToolChoice::Auto, parallel: true }
}

/// What is read of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Whole {
    pub text: String,
    pub reasoning: String,
    pub calls: Vec<(String, String)>,
    /// Tokens with which the model thinks.
    pub thinking: usize,
}

impl Whole {
    fn add(&mut self, read: Read) {
        self.thinking += usize::from(read.is_thinking);
        for part in read.parts {
            match part {
                Part::Text(text) => self.text.push_str(&text),
                Part::Reasoning(text) => self.reasoning.push_str(&text),
                Part::Call(name) => self.calls.push((name, String::new())),
                Part::Arguments(text) => self.calls.last_mut().unwrap().1.push_str(&text),
            }
        }
    }
}

/// Reads an answer token by token.
pub(super) fn read(tokenizer: &Tokenizer, source: &str, reading: &Reading, output: &str) -> Whole {
    read_tokens(tokenizer, source, reading, &encode(tokenizer, output))
}

fn read_tokens(tokenizer: &Tokenizer, source: &str, reading: &Reading, tokens: &[u32]) -> Whole {
    let format = Format::of(Some(source), true, tokenizer);
    let mut detokenizer = Detokenizer::new(tokenizer);
    let mut whole = Whole::default();
    let Some(mut parser) = format.parser(reading) else {
        whole.text = tokenizer.decode(tokens);
        return whole;
    };
    for token in tokens {
        whole.add(parser.push(&mut detokenizer, tokenizer, *token));
    }
    whole.add(parser.finish(&mut detokenizer));
    whole
}

pub(super) fn reading() -> Reading {
    Reading { tools: Some(Arc::new(tools())), ..Reading::default() }
}

/// An answer, and its text, thinking and calls.
pub(super) type Output<'a> = (&'a str, &'a str, &'a str, &'a [(&'a str, &'a str)]);

/// Checks outputs of a family with its marks as tokens and as text, at every place where it can be cut into
/// two pieces, and at every length to which it can be cut off.
pub(super) fn check(source: &str, outputs: &[Output<'_>]) {
    let vocabularies = match source {
        HARMONY => vec![vocabulary(&HARMONY_MARKS)],
        _ => vec![vocabulary(&MARKS), vocabulary(&[])],
    };
    for (output, text, reasoning, calls) in outputs {
        let calls = calls.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        let expected = Whole {
            text: (*text).to_owned(),
            reasoning: (*reasoning).to_owned(),
            calls: calls.collect(),
            thinking: 0,
        };
        for tokenizer in &vocabularies {
            let found = read(tokenizer, source, &reading(), output);
            assert_eq!(Whole { thinking: 0, ..found }, expected, "{source}: {output}");
        }
        check_pieces(source, output, &expected);
        check_cut_off(source, output, &vocabularies[0]);
    }
}

/// The pieces of the text do not matter: whole, character by character, and cut once anywhere.
fn check_pieces(source: &str, output: &str, expected: &Whole) {
    if source == HARMONY {
        return;
    }
    let tokenizer = vocabulary(&[]);
    let format = Format::of(Some(source), true, &tokenizer);
    let read = |pieces: &[&str]| {
        let mut whole = Whole::default();
        let Some(mut parser) = format.parser(&reading()) else { return expected.clone() };
        pieces.iter().for_each(|piece| whole.add(parser.push_piece(piece)));
        whole.add(parser.finish(&mut Detokenizer::new(&tokenizer)));
        Whole { thinking: 0, ..whole }
    };
    assert_eq!(read(&[output]), *expected, "whole: {output}");
    for (at, _) in output.char_indices() {
        assert_eq!(read(&[&output[..at], &output[at..]]), *expected, "cut at {at}: {output}");
    }
}

/// An answer that breaks off tells what came of it: each part of what the same answer tells later, or text that
/// was not known to be a call.
fn check_cut_off(source: &str, output: &str, tokenizer: &Tokenizer) {
    let tokens = encode(tokenizer, output);
    let whole = read_tokens(tokenizer, source, &reading(), &tokens);
    for at in 0..tokens.len() {
        let found = read_tokens(tokenizer, source, &reading(), &tokens[..at]);
        let told = found.reasoning.trim_end_matches('\u{fffd}');
        assert!(whole.reasoning.starts_with(told), "{at}: {output}");
        assert!(found.calls.len() <= whole.calls.len(), "{at}: {output}");
        for (call, later) in found.calls.iter().zip(&whole.calls) {
            assert_eq!(call.0, later.0, "{at}: {output}");
            let told = call.1.trim_end_matches('\u{fffd}');
            assert!(later.1.starts_with(told), "{at}: {call:?} and {later:?}");
        }
    }
}

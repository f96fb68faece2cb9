//! The format of a model's answers: found once, from its template and its vocabulary.

use super::coder::CODER;
use super::deepseek::{DEEPSEEK, DEEPSEEK_FENCED};
use super::describe;
use super::form::Form;
use super::glm::GLM;
use super::granite::GRANITE;
use super::harmony::{self, Harmony};
use super::hermes::HERMES;
use super::history::{self, History};
use super::kimi::KIMI;
use super::lark::Lark;
use super::llama::LLAMA;
use super::marks::{Marks, Scanner};
use super::mistral::{MISTRAL, MISTRAL_NAMED};
use super::parser::{Machine, Parser};
use super::tagged::{Calls, Tagged};
use super::thinking::{Reasoning, Thinking, ThinkingEnd};
use super::tools::{ToolChoice, Tools};
use crate::guides::Grammar;
use serde_json::Value;
use std::sync::Arc;
use woolly_engine::tokenizer::Tokenizer;

/// What a template's source says about the calls that it writes; the first row that fits is the form.
const FORMS: [(&[&str], &Form); 11] = [
    (&["<tool_call>", "<arg_key>"], &GLM),
    (&["<tool_call>", "<function="], &CODER),
    (&["<tool_call>"], &HERMES),
    (&["<|tool_call|>", "<|start_of_role|>"], &GRANITE),
    (&["[TOOL_CALLS]", "[ARGS]"], &MISTRAL_NAMED),
    (&["[TOOL_CALLS]"], &MISTRAL),
    (&["<｜tool▁calls▁begin｜>", "```json"], &DEEPSEEK_FENCED),
    (&["<｜tool▁calls▁begin｜>"], &DEEPSEEK),
    (&["<|tool_calls_section_begin|>"], &KIMI),
    (&["<|start_header_id|>", "<|python_tag|>"], &LLAMA),
    (&["<|start_header_id|>", "\"parameters\""], &LLAMA),
];

/// How a model's answers are written.
#[derive(Debug)]
pub struct Format {
    kind: Kind,
    marks: Marks,
    /// The template writes tools and calls in the form that is read here.
    writes_tools: bool,
}

#[derive(Debug)]
enum Kind {
    Harmony,
    Tagged { form: &'static Form, thinking: Option<Thinking> },
}

/// What a template is given.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    /// A list.
    pub messages: Value,
    /// A list, if the template writes them.
    pub tools: Option<Value>,
}

/// What a request wants of the reading of its answers.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// The tools that may be called; without them all text is text.
    pub tools: Option<Arc<Tools>>,
    /// Where what the model thinks goes.
    pub reasoning: Reasoning,
    /// The prompt has begun the thinking.
    pub thinks_at_start: bool,
}

impl Format {
    /// The format of a model with this vocabulary, and a template with this source, if it has one.
    pub fn of(source: Option<&str>, uses_tools: bool, tokenizer: &Tokenizer) -> Format {
        let is_harmony = [harmony::START, harmony::CHANNEL, harmony::MESSAGE, harmony::END]
            .into_iter()
            .all(|mark| tokenizer.special_token(mark).is_some());
        if is_harmony {
            let marks = Marks::new(harmony::MARKS, tokenizer);
            return Format { kind: Kind::Harmony, marks, writes_tools: uses_tools };
        }
        let source = source.unwrap_or_default();
        let fits = |signs: &[&str]| signs.iter().all(|sign| source.contains(sign));
        let known = FORMS.iter().find(|(signs, _)| fits(signs)).map(|(_, form)| *form);
        let form = known.unwrap_or(&HERMES);
        let thinking = Thinking::of(source);
        let all = form.marks().chain(thinking.iter().flat_map(Thinking::marks));
        Format {
            marks: Marks::new(all, tokenizer),
            kind: Kind::Tagged { form, thinking },
            writes_tools: known.is_some() && uses_tools,
        }
    }

    /// Messages and tools as the model's template wants them. One that writes no tools, or in a form that is
    /// not read here, gets them in the messages.
    pub fn prepare(&self, messages: &[Value], tools: Option<&Tools>) -> Prepared {
        let tools = tools.filter(|tools| tools.choice != ToolChoice::None);
        let mut messages = messages.to_vec();
        if self.writes_tools {
            let wants = match &self.kind {
                Kind::Harmony => History::PLAIN,
                Kind::Tagged { form, .. } => form.history,
            };
            history::fit(&mut messages, wants);
            return Prepared { messages: messages.into(), tools: tools.map(Tools::for_template) };
        }
        describe::history_into_text(&mut messages);
        if let Some(tools) = tools {
            describe::tools_into(&mut messages, tools);
        }
        Prepared { messages: messages.into(), tools: None }
    }

    /// The name of the form of its calls, for people.
    pub fn name(&self) -> &'static str {
        match &self.kind {
            Kind::Harmony => "harmony",
            Kind::Tagged { form, .. } => form.name,
        }
    }

    /// The tokens of its vocabulary that are marks, and never text.
    pub fn mark_tokens(&self) -> Vec<u32> {
        self.marks.tokens()
    }

    /// Whether its answers may show what the model thinks.
    pub fn can_think(&self) -> bool {
        !matches!(&self.kind, Kind::Tagged { thinking: None, .. })
    }

    /// Whether a prompt that ends so has begun the thinking.
    pub fn is_open_at(&self, prompt: &str) -> bool {
        match &self.kind {
            Kind::Tagged { thinking: Some(thinking), .. } => {
                prompt.trim_end().ends_with(thinking.open)
            }
            Kind::Harmony | Kind::Tagged { thinking: None, .. } => false,
        }
    }

    /// Whether the thinking in a text that an answer goes on from has no end yet.
    pub fn is_open_in(&self, text: &str) -> bool {
        match &self.kind {
            Kind::Tagged { thinking: Some(thinking), .. } => {
                text.rfind(thinking.open) > text.rfind(thinking.close)
            }
            Kind::Harmony | Kind::Tagged { thinking: None, .. } => false,
        }
    }

    /// What reads one answer; `None` if all of it is text.
    pub fn parser(&self, reading: &Reading) -> Option<Parser> {
        let allowed = |tools: &&Arc<Tools>| tools.choice != ToolChoice::None;
        let tools = reading.tools.as_ref().filter(allowed).cloned();
        let one_call = tools.as_ref().is_some_and(|tools| !tools.parallel);
        let (marks, machine) = match &self.kind {
            Kind::Harmony => {
                let machine = Machine::Harmony(Harmony::new(reading.reasoning, tools));
                (self.marks.clone(), machine)
            }
            Kind::Tagged { thinking: None, .. } if tools.is_none() => return None,
            Kind::Tagged { form, thinking } => {
                let thinks = |mark| thinking.iter().flat_map(Thinking::marks).any(|m| m == mark);
                let calls = tools.map(|tools| Calls { form, tools });
                let marks = match &calls {
                    Some(_) => self.marks.clone(),
                    None => self.marks.only(thinks),
                };
                let at_start = reading.thinks_at_start && thinking.is_some();
                let machine = Tagged::new(*thinking, reading.reasoning, calls, at_start);
                (marks, Machine::Tagged(Box::new(machine)))
            }
        };
        Some(Parser::new(Scanner::new(marks), machine, one_call))
    }

    /// Where the thinking of an answer ends; `None` if the model shows none.
    pub fn thinking_end(&self, thinks_at_start: bool) -> Option<ThinkingEnd> {
        match &self.kind {
            Kind::Harmony => Some(ThinkingEnd {
                begin: (self.marks.token(harmony::CHANNEL), harmony::CHANNEL.to_owned()),
                end: (None, format!("{}final{}", harmony::CHANNEL, harmony::MESSAGE)),
                open_at_start: true,
            }),
            Kind::Tagged { thinking, .. } => {
                thinking.map(|thinking| thinking.end(&self.marks, thinks_at_start))
            }
        }
    }

    /// The grammar, in llguidance's Lark, of an answer that calls the tools that the choice names. In
    /// harmony it holds the thinking before the call; elsewhere it is what follows the thinking.
    ///
    /// # Errors
    ///
    /// What a strict tool wants and the form of this model's calls cannot enforce.
    pub fn call_grammar(&self, tools: &Tools) -> Result<String, String> {
        let mut lark = Lark::new(&self.marks);
        let callable = tools.callable();
        match &self.kind {
            Kind::Harmony => harmony::grammar(&mut lark, &callable),
            Kind::Tagged { form, thinking } => {
                (form.grammar)(&mut lark, &callable, tools.parallel);
                let space = if thinking.is_some() { "/[ \\n]{0,4}/ " } else { "" };
                lark.rule("start", &format!("{space}calls"));
            }
        }
        lark.into_text()
    }

    /// The grammar of an answer in which the model decides whether it calls tools: a call is what its tool's schema
    /// says, and other text what `text` says. `None` if nothing is forced so: no tool is strict and the text is
    /// free; `text` cannot be put into another grammar; or what begins a call could be text as well.
    ///
    /// # Errors
    ///
    /// As [`Format::call_grammar`].
    pub fn free_grammar(
        &self,
        tools: &Tools,
        text: Option<&Grammar>,
    ) -> Result<Option<Grammar>, String> {
        let is_strict = tools.list.iter().any(|tool| tool.strict);
        if tools.choice != ToolChoice::Auto || (text.is_none() && !is_strict) {
            return Ok(None);
        }
        let mut lark = Lark::new(&self.marks);
        match text {
            Some(grammar) if lark.body(grammar).is_err() => return Ok(None),
            Some(_) => {}
            None => lark.rule("body", "/(?s:.*)/"),
        }
        let callable = tools.callable();
        match &self.kind {
            Kind::Harmony => harmony::free_grammar(&mut lark, &callable),
            Kind::Tagged { form, thinking } => {
                let mark = form.open.first().and_then(|mark| self.marks.token(mark));
                if form.bare || (text.is_none() && mark.is_none()) {
                    return Ok(None);
                }
                (form.grammar)(&mut lark, &callable, tools.parallel);
                let space = if thinking.is_some() { "/[ \\n]{0,4}/ " } else { "" };
                match text {
                    Some(_) => lark.rule("start", &format!("{space}(body | calls)")),
                    None => lark.rule("start", "body calls?"),
                }
            }
        }
        lark.into_text().map(|text| Some(Grammar::Lark(text)))
    }

    /// The grammar of an answer whose text has to be what another grammar says, for a format that has the thinking in
    /// it.
    ///
    /// # Errors
    ///
    /// The grammar is of a kind that cannot be put into another, as a sentence.
    pub fn answer_grammar(&self, grammar: &Grammar) -> Result<Grammar, String> {
        let mut lark = Lark::new(&self.marks);
        lark.body(grammar)?;
        harmony::answer_grammar(&mut lark);
        lark.into_text().map(Grammar::Lark)
    }

    /// Whether the grammar of an answer has the thinking, and what frames its messages, in it.
    pub fn grammar_has_thinking(&self) -> bool {
        matches!(self.kind, Kind::Harmony)
    }
}

//! Grammars of calls, in llguidance's notation of Lark.
//!
//! Arguments are `%json` of the tool's schema, with at most one space after commas and colons, as
//! templates write them. What the schema of a tool says beyond the library's means is left to the model
//! (`lenient`), unless the tool is strict: then it is an error of the grammar.

use super::marks::Marks;
use super::tools::Tool;
use super::values::types_of;
use crate::guides::Grammar;
use crate::guides::compile::compact;
use serde_json::{Map, Value, json};
use std::fmt::Write;

/// Calls in one answer that a grammar allows.
const CALLS_MAX: usize = 16;
/// What a grammar of text cannot say of a string.
const NOT_IN_TEXT: [&str; 2] = ["pattern", "format"];

/// A grammar that grows rule by rule.
#[derive(Debug)]
pub(super) struct Lark<'a> {
    marks: &'a Marks,
    text: String,
    /// The first thing that a strict tool wants and the form cannot enforce.
    error: Option<String>,
}

impl<'a> Lark<'a> {
    /// No rule yet.
    pub fn new(marks: &'a Marks) -> Lark<'a> {
        Lark { marks, text: String::new(), error: None }
    }

    /// The whole grammar.
    ///
    /// # Errors
    ///
    /// What a strict tool wants and this form of calls cannot enforce, as a sentence.
    pub fn into_text(self) -> Result<String, String> {
        self.error.map_or(Ok(self.text), Err)
    }

    /// Adds a rule.
    pub fn rule(&mut self, name: &str, body: &str) {
        writeln!(self.text, "{name}: {body}").expect("a String takes everything");
    }

    /// A mark: the token, or its letters.
    pub fn mark(&self, mark: &str) -> String {
        self.marks.token(mark).map_or_else(|| literal(mark), |token| format!("<[{token}]>"))
    }

    /// Adds `body`: what another grammar says.
    ///
    /// # Errors
    ///
    /// It is of a kind that cannot be put into another.
    pub fn body(&mut self, grammar: &Grammar) -> Result<(), String> {
        let json = |schema: &Value| compact(schema).map(|schema| format!("%json {schema}"));
        let body = match grammar {
            Grammar::JsonObject => json(&json!({"type": "object"})),
            Grammar::JsonSchema(schema) => json(schema),
            Grammar::Regex(regex) => Ok(format!("/{}/", without_bare_slashes(regex))),
            Grammar::Choice(texts) => {
                let texts: Vec<String> = texts.iter().map(|text| literal(text)).collect();
                Ok(texts.join(" | "))
            }
            Grammar::Gbnf(_) | Grammar::Lark(_) => {
                let text = "A grammar in GBNF cannot be used with this model, whose answers are messages: \
                            use a JSON schema or a regular expression.";
                return Err(text.to_owned());
            }
        };
        self.rule("body", &body.map_err(|error| format!("{error}."))?);
        Ok(())
    }

    /// Adds a rule for the arguments of a tool as JSON, and gives its name.
    pub fn arguments(&mut self, index: usize, tool: &Tool) -> String {
        let name = format!("arguments_{index}");
        self.rule(&name, &json_of(&tool.parameters, &Map::new(), tool.strict));
        name
    }

    /// Adds `calls`: one of the rules `call_0` to `call_{tools - 1}`, or several with `between` them.
    pub fn calls(&mut self, tools: usize, many: bool, between: &str) {
        self.items(tools, many, between);
        self.rule("calls", "items");
    }

    /// The same as `items`, for what stands inside marks.
    pub fn items(&mut self, tools: usize, many: bool, between: &str) {
        let one: Vec<String> = (0..tools).map(|index| format!("call_{index}")).collect();
        self.rule("call", &one.join(" | "));
        let more = format!("call ({between} call){{0,{}}}", CALLS_MAX - 1);
        self.rule("items", if many { &more } else { "call" });
    }

    /// Adds rules for arguments that are written one by one, and gives what stands for all of them: those
    /// that are required, and the others that may be left out, in the order of the schema. A value ends
    /// with `end`, after `before_end`; `pair` writes a key and the rule of its value with its end.
    pub fn pairs(
        &mut self,
        index: usize,
        tool: &Tool,
        (before_end, end): (&str, &str),
        pair: &dyn Fn(&str, &str) -> String,
    ) -> String {
        let required = tool.parameters["required"].as_array().cloned().unwrap_or_default();
        let properties = tool.parameters["properties"].as_object().cloned().unwrap_or_default();
        let mut pairs = Vec::with_capacity(properties.len());
        for (at, (key, schema)) in properties.iter().enumerate() {
            let name = format!("value_{index}_{at}");
            self.value(&name, tool, (key, schema), (before_end, end));
            let is_required = required.iter().any(|name| name == key);
            pairs.push(format!("({}){}", pair(key, &name), if is_required { "" } else { "?" }));
        }
        pairs.join(" ")
    }

    /// Adds the rule of one value with its end: a string as it is, anything else as JSON.
    fn value(
        &mut self,
        name: &str,
        tool: &Tool,
        (key, schema): (&str, &Value),
        (before_end, end): (&str, &str),
    ) {
        let tail = match before_end {
            "" => self.mark(end),
            before => format!("{} {}", literal(before), self.mark(end)),
        };
        if !types_of(schema).contains(&"string") {
            let json = format!("{name}_json");
            self.rule(&json, &json_of(schema, &definitions(&tool.parameters), tool.strict));
            return self.rule(name, &format!("{json} {tail}"));
        }
        let fixed = schema.get("const").map(|value| vec![value.clone()]);
        if let Some(values) = fixed.or_else(|| schema["enum"].as_array().cloned()) {
            let texts: Vec<String> = values.iter().map(written).collect();
            return self.rule(name, &format!("({}) {tail}", texts.join(" | ")));
        }
        if let Some(word) = NOT_IN_TEXT.iter().find(|word| schema.get(**word).is_some())
            && tool.strict
        {
            let text = format!(
                "'{word}' of '{key}' cannot be enforced for '{}': this model writes strings of \
                 arguments as plain text. Leave '{word}' or 'strict' out.",
                tool.name
            );
            self.error.get_or_insert(text);
        }
        let bound = |word: &str| schema[word].as_u64().map(|n| n.to_string()).unwrap_or_default();
        let (least, most) = (bound("minLength"), bound("maxLength"));
        let count = match (least.as_str(), most.as_str()) {
            ("", "") => "*".to_owned(),
            ("", most) => format!("{{0,{most}}}"),
            (least, most) => format!("{{{least},{most}}}"),
        };
        if self.marks.token(end).is_some() {
            // One expression takes all of the text: what stands before the mark is part of it.
            let before = before_end.replace('\n', "\\n");
            let end = self.mark(end);
            self.rule(name, &format!("/(?s:.{count}{before})/ {end}"));
        } else {
            let suffix = literal(&format!("{before_end}{end}"));
            self.rule(&format!("{name}[suffix={suffix}]"), &format!("/(?s:.{count})/"));
        }
    }
}

/// A text as it is.
pub(super) fn literal(text: &str) -> String {
    Value::from(text).to_string()
}

/// A value as a model writes it between tags.
fn written(value: &Value) -> String {
    value.as_str().map_or_else(|| literal(&value.to_string()), literal)
}

/// What other parts of a schema may refer to.
fn definitions(schema: &Value) -> Map<String, Value> {
    let named = ["$defs", "definitions"];
    named
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), schema.get(name)?.clone())))
        .collect()
}

/// JSON of a schema, with definitions from around it.
fn json_of(schema: &Value, definitions: &Map<String, Value>, strict: bool) -> String {
    let mut all = schema.as_object().cloned().unwrap_or_default();
    all.extend(definitions.clone());
    let options = json!({
        "item_separator": ", ?", "key_separator": ": ?", "whitespace_flexible": false,
        "lenient": !strict,
    });
    all.insert("x-guidance".to_owned(), options);
    format!("%json {}", Value::Object(all))
}

/// A regular expression that can stand between two slashes: its own are escaped, those that are stay so.
fn without_bare_slashes(regex: &str) -> String {
    let mut out = String::with_capacity(regex.len());
    let mut is_escaped = false;
    for c in regex.chars() {
        if c == '/' && !is_escaped {
            out.push('\\');
        }
        out.push(c);
        is_escaped = c == '\\' && !is_escaped;
    }
    out
}

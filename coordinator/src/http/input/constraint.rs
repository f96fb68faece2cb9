//! The fields that say what an answer has to be: OpenAI's `response_format`, vLLM's `structured_outputs` and
//! `guided_*`, llama-server's `grammar` and `json_schema`.
//!
//! They are one thing, so one of them may be given. A schema is always enforced, `strict` or not. The grammar
//! is compiled when the prompt is known to fit; see [`crate::guides`].

use super::fields::{Fields, array_of, expected, string_of};
use crate::chat_formats::{Format, Tools};
use crate::guides::compile::GRAMMAR_BYTES_MAX;
use crate::guides::{Grammar, Guided, Thinking};
use crate::http::error::ApiError;
use crate::models::ServedModel;
use serde_json::Value;

/// Texts of a choice.
const CHOICES_MAX: usize = 4096;
/// Characters of a schema's name and description, and of names of formats.
const NAME_CHARS_MAX: usize = 4096;

/// What an answer has to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Constraint {
    /// The grammar.
    pub grammar: Grammar,
    /// The field that says it, for errors.
    pub field: String,
}

impl Constraint {
    /// What an answer has to be whose model may call these tools, or has to: `given` is what a request says
    /// besides of its text, and says nothing where a call is wanted in any case. Also whether that is about calls.
    ///
    /// # Errors
    ///
    /// 400 if a strict tool wants what the model's form of calls cannot enforce.
    pub fn with_calls(
        given: Option<Constraint>,
        format: &Format,
        tools: Option<&Tools>,
    ) -> Result<(Option<Constraint>, bool), ApiError> {
        let Some(tools) = tools else { return Ok((given, false)) };
        let grammar = if tools.is_forced() {
            format.call_grammar(tools).map(|text| Some(Grammar::Lark(text)))
        } else {
            format.free_grammar(tools, given.as_ref().map(|given| &given.grammar))
        };
        match grammar.map_err(|text| ApiError::unsupported("tools", text))? {
            Some(grammar) => Ok((Some(Constraint { grammar, field: "tools".to_owned() }), true)),
            None => Ok((given, false)),
        }
    }

    /// The same for an answer before which the model may think: the constraint to be compiled, and what it
    /// stands behind.
    ///
    /// # Errors
    ///
    /// 400 naming the field if it cannot begin there.
    pub fn after_thinking(
        self,
        format: &Format,
        thinks_at_start: bool,
    ) -> Result<(Constraint, Option<Thinking>), ApiError> {
        let refused = |text: String| ApiError::unsupported(&self.field, text);
        if format.grammar_has_thinking() {
            let grammar = format.answer_grammar(&self.grammar).map_err(refused)?;
            return Ok((Constraint { grammar, ..self }, None));
        }
        let Some(end) = format.thinking_end(thinks_at_start) else { return Ok((self, None)) };
        match end.end.0 {
            Some(close) => {
                let thinking = Thinking { open: end.begin.0, close, is_open: end.open_at_start };
                Ok((self, Some(thinking)))
            }
            None if thinks_at_start => Err(refused(format!(
                "'{}' cannot begin after the thinking of this model: its vocabulary has no token {}. \
                 Turn the thinking off.",
                self.field, end.end.1
            ))),
            None => Ok((self, None)),
        }
    }

    /// The beginning of an answer. This is work for a blocking thread: the first one of a model takes some
    /// tenths of a second, others milliseconds.
    ///
    /// # Errors
    ///
    /// 400 naming the field: the grammar is wrong, too large, or wants what cannot be enforced.
    pub fn compile(
        &self,
        model: &ServedModel,
        thinking: Option<Thinking>,
    ) -> Result<Guided, ApiError> {
        let guided = model.guides().and_then(|guides| guides.guide(&self.grammar, thinking));
        guided.map_err(|error| {
            let text = format!("'{}' cannot be used: {error}.", self.field);
            ApiError::unsupported(&self.field, text)
        })
    }
}

/// Takes the fields.
///
/// # Errors
///
/// 400 naming the field; the second one if two are given.
pub fn take(fields: &mut Fields) -> Result<Option<Constraint>, ApiError> {
    let mut found = Found::default();
    response_format(fields, &mut found)?;
    schema(fields, "json_schema", &mut found)?;
    gbnf(fields, "grammar", &mut found)?;
    if let Some(value) = fields.take("structured_outputs") {
        let mut inner = Fields::of_value(value, "structured_outputs")?;
        schema(&mut inner, "json", &mut found)?;
        any_object(&mut inner, "json_object", &mut found)?;
        regex(&mut inner, "regex", &mut found)?;
        choice(&mut inner, "choice", &mut found)?;
        gbnf(&mut inner, "grammar", &mut found)?;
        // White space between the parts of JSON is never written here.
        inner.bool("disable_any_whitespace")?;
        refuse(&mut inner, "disable_additional_properties")?;
        refuse(&mut inner, "whitespace_pattern")?;
        refuse(&mut inner, "structural_tag")?;
        inner.finish()?;
    }
    schema(fields, "guided_json", &mut found)?;
    any_object(fields, "guided_json_object", &mut found)?;
    regex(fields, "guided_regex", &mut found)?;
    choice(fields, "guided_choice", &mut found)?;
    gbnf(fields, "guided_grammar", &mut found)?;
    refuse(fields, "guided_whitespace_pattern")?;
    Ok(found.0)
}

/// The first constraint.
#[derive(Default)]
struct Found(Option<Constraint>);

impl Found {
    fn add(&mut self, field: String, grammar: Grammar) -> Result<(), ApiError> {
        match &self.0 {
            None => {
                self.0 = Some(Constraint { grammar, field });
                Ok(())
            }
            Some(first) => {
                let text = format!(
                    "'{field}' and '{}' both say what the answer has to be: give one.",
                    first.field
                );
                Err(ApiError::invalid(&field, text))
            }
        }
    }
}

/// A field that asks for what JSON here has not; `false` and nothing ask for nothing.
fn refuse(fields: &mut Fields, name: &str) -> Result<(), ApiError> {
    let path = fields.path(name);
    match fields.take(name) {
        None | Some(Value::Bool(false)) => Ok(()),
        Some(_) => Err(ApiError::unsupported(
            &path,
            format!(
                "'{path}' is not supported: leave it out. JSON is written without white space."
            ),
        )),
    }
}

fn response_format(fields: &mut Fields, found: &mut Found) -> Result<(), ApiError> {
    const NAME: &str = "response_format";
    let Some(value) = fields.take(NAME) else { return Ok(()) };
    let mut format = Fields::of_value(value, NAME)?;
    let kind = format.string("type", NAME_CHARS_MAX)?;
    match kind.as_deref() {
        Some("text") => {}
        // llama-server lets a schema stand beside the type.
        Some("json_object") if format.has("schema") => schema(&mut format, "schema", found)?,
        Some("json_object") => found.add(NAME.to_owned(), Grammar::JsonObject)?,
        Some("json_schema") if format.has("schema") => schema(&mut format, "schema", found)?,
        Some("json_schema") => {
            let at = format.path("json_schema");
            let Some(value) = format.take("json_schema") else {
                return Err(ApiError::invalid(&at, format!("'{at}' is missing.")));
            };
            named_schema(Fields::of_value(value, &at)?, found)?;
        }
        other => {
            let path = format.path("type");
            let wanted = "\"text\", \"json_object\" or \"json_schema\"";
            return Err(expected(&path, wanted, &other.map_or(Value::Null, Value::from)));
        }
    }
    format.finish()
}

/// OpenAI's form: a schema with a name.
fn named_schema(mut named: Fields, found: &mut Found) -> Result<(), ApiError> {
    named.string("name", NAME_CHARS_MAX)?;
    named.string("description", NAME_CHARS_MAX)?;
    // It is enforced in any case.
    named.bool("strict")?;
    let at = named.path("schema");
    if !named.has("schema") {
        return Err(ApiError::invalid(&at, format!("'{at}' is missing.")));
    }
    schema(&mut named, "schema", found)?;
    named.finish()
}

/// A JSON schema, which vLLM also takes as text.
fn schema(fields: &mut Fields, name: &str, found: &mut Found) -> Result<(), ApiError> {
    let path = fields.path(name);
    let schema = match fields.take(name) {
        None => return Ok(()),
        Some(Value::String(text)) if text.is_empty() => return Ok(()),
        Some(Value::String(text)) => serde_json::from_str(&text).unwrap_or(Value::String(text)),
        Some(other) => other,
    };
    if !schema.is_object() && schema != Value::Bool(true) {
        return Err(expected(&path, "a JSON schema (an object)", &schema));
    }
    found.add(path, Grammar::JsonSchema(schema))
}

fn any_object(fields: &mut Fields, name: &str, found: &mut Found) -> Result<(), ApiError> {
    let path = fields.path(name);
    match fields.bool(name)? {
        Some(true) => found.add(path, Grammar::JsonObject),
        _ => Ok(()),
    }
}

fn gbnf(fields: &mut Fields, name: &str, found: &mut Found) -> Result<(), ApiError> {
    let path = fields.path(name);
    match fields.string(name, GRAMMAR_BYTES_MAX)?.filter(|text| !text.is_empty()) {
        Some(text) => found.add(path, Grammar::Gbnf(text)),
        None => Ok(()),
    }
}

fn regex(fields: &mut Fields, name: &str, found: &mut Found) -> Result<(), ApiError> {
    let path = fields.path(name);
    match fields.string(name, GRAMMAR_BYTES_MAX)? {
        Some(text) => found.add(path, Grammar::Regex(text)),
        None => Ok(()),
    }
}

fn choice(fields: &mut Fields, name: &str, found: &mut Found) -> Result<(), ApiError> {
    let path = fields.path(name);
    let Some(value) = fields.take(name) else { return Ok(()) };
    let items = array_of(value, &path, CHOICES_MAX)?;
    let text = |item| string_of(item, &path, NAME_CHARS_MAX);
    let texts: Vec<String> = items.into_iter().map(text).collect::<Result<_, _>>()?;
    if texts.iter().any(String::is_empty) || texts.is_empty() {
        let text = format!("'{path}' must hold at least one text, and none that is empty.");
        return Err(ApiError::invalid(&path, text));
    }
    found.add(path, Grammar::Choice(texts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn constraint(body: Value) -> Result<Option<Constraint>, ApiError> {
        let mut fields = Fields::of_body(body)?;
        let constraint = take(&mut fields)?;
        fields.finish()?;
        Ok(constraint)
    }

    #[test]
    fn every_api_says_it_in_its_own_words() {
        let schema = || json!({"type": "object"});
        let is_schema = Grammar::JsonSchema(schema());
        for (body, grammar, field) in [
            (
                json!({"response_format": {"type": "json_object"}}),
                Grammar::JsonObject,
                "response_format",
            ),
            (
                json!({"response_format": {"type": "json_schema", "json_schema":
                    {"name": "x", "strict": true, "schema": schema()}}}),
                is_schema.clone(),
                "response_format.json_schema.schema",
            ),
            (
                json!({"response_format": {"type": "json_object", "schema": schema()}}),
                is_schema.clone(),
                "response_format.schema",
            ),
            (json!({"json_schema": schema()}), is_schema.clone(), "json_schema"),
            (json!({"guided_json": schema().to_string()}), is_schema.clone(), "guided_json"),
            (
                json!({"structured_outputs": {"json": schema()}}),
                is_schema,
                "structured_outputs.json",
            ),
            (json!({"guided_regex": "a+"}), Grammar::Regex("a+".into()), "guided_regex"),
            (
                json!({"structured_outputs": {"choice": ["a", "b"]}}),
                Grammar::Choice(vec!["a".into(), "b".into()]),
                "structured_outputs.choice",
            ),
            (
                json!({"grammar": "root ::= \"a\""}),
                Grammar::Gbnf("root ::= \"a\"".into()),
                "grammar",
            ),
        ] {
            let expected = Constraint { grammar, field: field.to_owned() };
            assert_eq!(constraint(body), Ok(Some(expected)), "{field}");
        }
    }

    #[test]
    fn what_asks_for_nothing_is_nothing() {
        for body in [
            json!({"response_format": {"type": "text"}}),
            json!({"response_format": null, "grammar": "", "guided_json": null}),
            json!({"guided_json_object": false, "structured_outputs": {}}),
        ] {
            assert_eq!(constraint(body), Ok(None));
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, param) in [
            (json!({"response_format": "json"}), "response_format"),
            (json!({"response_format": {"type": "sound"}}), "response_format.type"),
            (json!({"response_format": {}}), "response_format.type"),
            (json!({"response_format": {"type": "json_schema"}}), "response_format.json_schema"),
            (
                json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}),
                "response_format.json_schema.schema",
            ),
            (json!({"response_format": {"type": "json_object", "x": 1}}), "response_format.x"),
            (json!({"json_schema": 123}), "json_schema"),
            (json!({"guided_json": "no json"}), "guided_json"),
            (json!({"guided_choice": []}), "guided_choice"),
            (json!({"guided_choice": ["a", 1]}), "guided_choice"),
            (json!({"grammar": 1}), "grammar"),
            (json!({"grammar": "root ::= \"a\"", "guided_regex": "a"}), "guided_regex"),
            (
                json!({"structured_outputs": {"structural_tag": "x"}}),
                "structured_outputs.structural_tag",
            ),
            (json!({"guided_whitespace_pattern": " "}), "guided_whitespace_pattern"),
        ] {
            let error = constraint(body.clone()).unwrap_err();
            assert_eq!(error.body()["error"]["param"], json!(param), "{body}");
        }
    }
}

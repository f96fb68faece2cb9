//! Fields that other servers know and this one does not act on: which values are accepted, and why.
//!
//! The rule is *honour or refuse*. A field in this table is accepted only with values that ask for
//! what happens anyway (off, default, empty, unlimited) or that cannot change an answer (labels,
//! hints, settings of a sampler that is off); every other value is a 400 that names the field and
//! says what Woolly does not have. `null` is always accepted. One table holds the fields of the body
//! and those of the objects inside it.

mod table;

use super::fields::{Fields, expected};
use crate::http::error::ApiError;
use serde_json::Value;
use table::KNOWN;

/// Characters of a label (`user`, `safety_identifier`, …): OpenAI's limit.
pub const METADATA_CHARS_MAX: usize = 512;
/// Pairs of `metadata`: OpenAI's limit.
const METADATA_PAIRS_MAX: usize = 16;

/// Where a field stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the body, on every endpoint that generates.
    Body,
    /// In the body of `/v1/chat/completions` only.
    Chat,
    /// In the body of `/v1/completions` only.
    Completions,
    /// In the body of `/v1/messages` only.
    Anthropic,
    /// In the body of `/v1/responses` only.
    Responses,
    /// In the body of Ollama's `/api/chat` and `/api/generate` only.
    Ollama,
    /// In the `options` of those.
    OllamaOptions,
    /// In one of the `messages`.
    Message,
    /// In a part of a message's content.
    Part,
    /// In a block of Anthropic's content.
    Block,
    /// In one of Anthropic's `tools`.
    Tool,
    /// In one of the `input` items of `/v1/responses`.
    Item,
}

/// The values of a field that are accepted without acting on them.
#[derive(Clone, Copy, Debug)]
enum Accept {
    /// None: the feature does not exist here, and there is no value that asks for its absence.
    No,
    /// These JSON values: they ask for what happens anyway.
    Same(&'static [&'static str]),
    /// Any short string: a label for somebody's records, or one of the names of what is one here.
    Label,
    /// OpenAI's metadata: at most 16 pairs of short strings, stored by nobody here.
    Pairs,
    /// `true` or `false`: both give the same answer.
    Either,
    /// Any number: a setting of a sampler that is off.
    Number,
    /// Any list: a setting of a sampler that is off, or what an earlier answer carried.
    List,
    /// Anything: it cannot change an answer.
    Hint,
}

/// Takes the fields of the table that stand at these places.
///
/// # Errors
///
/// 400 naming the first field whose value is not accepted.
pub fn take(fields: &mut Fields, places: &[Place]) -> Result<(), ApiError> {
    take_lists(fields, places)?;
    for name in fields.names() {
        let mut rows = KNOWN.iter().filter(|row| places.contains(&row.0));
        let Some((_, _, accept, why)) = rows.find(|row| row.1 == name) else { continue };
        if let Accept::Label = accept {
            fields.string(&name, METADATA_CHARS_MAX)?;
        } else if let Some(value) = fields.take(&name) {
            check(&fields.path(&name), *accept, &value, why)?;
        }
    }
    Ok(())
}

/// Lists come first: a client that sends tools sends a choice too, and is told of the tools. With an empty list
/// any choice is the same.
fn take_lists(fields: &mut Fields, places: &[Place]) -> Result<(), ApiError> {
    for (list, choice) in [("tools", "tool_choice"), ("functions", "function_call")] {
        let Some(row) = KNOWN.iter().find(|row| places.contains(&row.0) && row.1 == list) else {
            continue;
        };
        let Some(value) = fields.take(list) else { continue };
        check(list, row.2, &value, row.3)?;
        fields.take(choice);
    }
    Ok(())
}

fn check(at: &str, accept: Accept, value: &Value, why: &str) -> Result<(), ApiError> {
    let wrong = |wanted: &str| Err(expected(at, wanted, value));
    match accept {
        Accept::No => Err(ApiError::unsupported(at, format!("{}: leave '{at}' out.", upper(why)))),
        Accept::Same(values) if values.iter().any(|text| same(text, value)) => Ok(()),
        Accept::Same(_) => Err(ApiError::unsupported(at, refusal(at, accept, why))),
        Accept::Label | Accept::Hint => Ok(()),
        Accept::Either if value.is_boolean() => Ok(()),
        Accept::Either => wrong("true or false"),
        Accept::Number if value.is_number() => Ok(()),
        Accept::Number => wrong("a number"),
        Accept::List if value.is_array() => Ok(()),
        Accept::List => wrong("an array"),
        Accept::Pairs => check_pairs(at, value),
    }
}

/// The names of all fields of the table.
#[cfg(test)]
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    KNOWN.iter().map(|row| row.1)
}

/// What is missing, and what the client can do: values that mean nothing are not advised.
fn refusal(at: &str, accept: Accept, why: &str) -> String {
    let Accept::Same(values) = accept else { return String::new() };
    let empty = |text: &&&str| ["[]", "{}", "\"\"", "null"].contains(*text);
    let useful: Vec<&str> = values.iter().filter(|text| !empty(text)).copied().collect();
    if useful.is_empty() {
        format!("{}: leave '{at}' out.", upper(why))
    } else {
        format!("{}: leave '{at}' out or set it to {}.", upper(why), useful.join(" or "))
    }
}

/// A sentence begins with a capital letter.
fn upper(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// Whether a value is the one that the table writes as JSON: numbers by value, 1 as 1.0.
fn same(text: &str, value: &Value) -> bool {
    let listed: Value = serde_json::from_str(text).unwrap_or(Value::Null);
    match (listed.as_f64(), value.as_f64()) {
        (Some(listed), Some(value)) => listed == value,
        _ => listed == *value,
    }
}

fn check_pairs(name: &str, value: &Value) -> Result<(), ApiError> {
    let wanted = || {
        format!(
            "an object of at most {METADATA_PAIRS_MAX} strings of at most {METADATA_CHARS_MAX} \
             characters"
        )
    };
    let short = |value: &Value| {
        value.as_str().is_some_and(|text| text.chars().count() <= METADATA_CHARS_MAX)
    };
    match value.as_object() {
        Some(pairs) if pairs.len() <= METADATA_PAIRS_MAX && pairs.values().all(short) => Ok(()),
        _ => Err(expected(name, &wanted(), value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(places: &[Place], body: Value) -> Result<(), ApiError> {
        let mut fields = Fields::of_body(body)?;
        take(&mut fields, places)?;
        fields.finish()
    }

    fn chat(body: Value) -> Result<(), ApiError> {
        at(&[Place::Body, Place::Chat], body)
    }

    fn completion(body: Value) -> Result<(), ApiError> {
        at(&[Place::Body, Place::Completions], body)
    }

    fn text(error: &ApiError) -> String {
        error.body()["error"]["message"].as_str().unwrap().to_owned()
    }

    #[test]
    fn every_known_field_accepts_null_and_its_listed_values_and_refuses_the_rest() {
        for (place, name, accept, why) in KNOWN {
            at(&[*place], json!({ *name: null })).unwrap();
            if let Accept::Same(values) = accept {
                for value in *values {
                    let value: Value = serde_json::from_str(value).unwrap();
                    assert_eq!(at(&[*place], json!({ *name: value })), Ok(()), "{name}");
                }
            }
            if matches!(accept, Accept::Hint) || why.is_empty() && matches!(accept, Accept::Same(_))
            {
                continue;
            }
            let error = at(&[*place], json!({ *name: { "no": ["such", 7] } })).unwrap_err();
            assert_eq!(error.body()["error"]["param"], json!(name), "{}", error.body());
            assert!(!text(&error).contains("only supported as"), "{}", text(&error));
        }
    }

    #[test]
    fn a_name_stands_once_at_a_place() {
        let mut seen = std::collections::BTreeSet::new();
        for (place, name, _, _) in KNOWN {
            let body = matches!(place, Place::Body | Place::Chat | Place::Completions);
            assert!(seen.insert((body, format!("{place:?}"), *name)), "{name} stands twice");
        }
    }

    #[test]
    fn what_is_missing_is_said_in_words() {
        let function = json!([{"type": "function", "function": {"name": "f"}}]);
        let body = json!({"tool_choice": "required", "tools": function});
        let error = completion(body).unwrap_err();
        assert_eq!(error.body()["error"]["param"], "tools");
        assert!(text(&error).starts_with("Only conversations"), "{error:?}");
        let body = json!({"functions": function, "function_call": {"name": "f"}});
        let error = chat(body).unwrap_err();
        assert_eq!(error.body()["error"]["param"], "functions");
        assert!(text(&error).starts_with("Woolly has 'tools'"), "{error:?}");
        let error = chat(json!({"num_beams": 2})).unwrap_err();
        assert!(text(&error).ends_with("leave 'num_beams' out or set it to 1."), "{error:?}");
    }

    #[test]
    fn without_tools_any_choice_among_them_is_the_same() {
        let named = json!({"type": "function", "function": {"name": "f"}});
        for choice in [json!("auto"), json!("none"), json!("required"), named.clone(), json!(null)]
        {
            assert_eq!(completion(json!({"tools": [], "tool_choice": choice})), Ok(()));
        }
        assert_eq!(completion(json!({"tool_choice": "auto"})), Ok(()));
        assert!(completion(json!({ "tool_choice": named })).is_err());
        assert_eq!(chat(json!({"functions": [], "function_call": {"name": "f"}})), Ok(()));
    }

    #[test]
    fn settings_of_a_sampler_that_is_off_are_harmless() {
        let body = json!({"mirostat": 0, "mirostat_tau": 5.0, "mirostat_eta": 0.1,
            "dynatemp_range": 0, "dynatemp_exponent": 1, "typical_p": 1.0});
        assert_eq!(chat(body), Ok(()));
        let error = chat(json!({"mirostat": 2, "mirostat_tau": 5.0})).unwrap_err();
        assert_eq!(error.body()["error"]["param"], "mirostat");
        assert!(chat(json!({"mirostat_tau": "x"})).is_err());
    }

    #[test]
    fn labels_and_metadata_are_bounded() {
        assert!(chat(json!({"user": "ü".repeat(METADATA_CHARS_MAX)})).is_ok());
        assert!(chat(json!({"user": "x".repeat(METADATA_CHARS_MAX + 1)})).is_err());
        assert!(chat(json!({"metadata": {"a": "b"}})).is_ok());
        assert!(chat(json!({"metadata": {"a": 1}})).is_err());
        let many: serde_json::Map<String, Value> =
            (0..17).map(|key| (key.to_string(), json!(""))).collect();
        assert!(chat(json!({ "metadata": many })).is_err());
    }

    #[test]
    fn an_unknown_field_is_named() {
        let error = chat(json!({"user": "me", "n_discrad": -1})).unwrap_err();
        assert_eq!(error.body()["error"]["param"], json!("n_discrad"));
        assert_eq!(error.body()["error"]["code"], json!("unknown_field"));
    }
}

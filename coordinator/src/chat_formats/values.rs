//! Arguments that are not written as JSON, brought to it one by one.
//!
//! A family writes a string as it is and other values as JSON; the schema of the tool says which of both a
//! value is. Where it says nothing, what reads as JSON is JSON.

use super::reader::Parts;
use super::tools::Tool;
use serde_json::Value;

/// The arguments of one call, as an object that grows.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    count: usize,
}

impl Arguments {
    /// Adds a value under a key.
    pub fn add(&mut self, tool: &Tool, key: &str, written: &str, parts: &mut Parts) {
        let value = value_of(tool, key, written);
        let comma = if self.count == 0 { "{" } else { ", " };
        parts.arguments(&format!("{comma}{}: {value}", Value::from(key)));
        self.count += 1;
    }

    /// The end of the object.
    pub fn end(&mut self, parts: &mut Parts) {
        parts.arguments(if self.count == 0 { "{}" } else { "}" });
        parts.complete();
    }
}

/// What is written under a key, as a value that the tool's schema has there.
fn value_of(tool: &Tool, key: &str, written: &str) -> Value {
    let schema = &tool.parameters["properties"][key];
    let types = types_of(schema);
    let text = || Value::from(written);
    // Python's words, which some templates write into the history.
    let json = match written.trim() {
        "True" if !types.is_empty() => "true",
        "False" if !types.is_empty() => "false",
        "None" if !types.is_empty() => "null",
        other => other,
    };
    let Ok(value) = serde_json::from_str::<Value>(json) else { return text() };
    if types.is_empty() {
        return value;
    }
    let is_one_of = |names: &[&str]| names.iter().any(|name| types.iter().any(|t| t == name));
    let fits = match &value {
        Value::Null => is_one_of(&["null"]),
        Value::Bool(_) => is_one_of(&["boolean"]),
        Value::Number(_) => is_one_of(&["number", "integer"]),
        Value::Array(_) => is_one_of(&["array"]),
        Value::Object(_) => is_one_of(&["object"]),
        Value::String(_) => false,
    };
    if fits || !is_one_of(&["string"]) { value } else { text() }
}

/// The types that a schema names, as far as it does in plain words.
pub(super) fn types_of(schema: &Value) -> Vec<&str> {
    let of_values = |values: &Value| {
        let all_texts = values.as_array().is_some_and(|v| v.iter().all(Value::is_string));
        if all_texts { vec!["string"] } else { Vec::new() }
    };
    match &schema["type"] {
        Value::String(name) => return vec![name],
        Value::Array(names) => return names.iter().filter_map(Value::as_str).collect(),
        _ => {}
    }
    if schema["const"].is_string() {
        return vec!["string"];
    }
    let variants = ["anyOf", "oneOf"].into_iter().find_map(|name| schema[name].as_array());
    match variants {
        Some(variants) => {
            let types: Vec<Vec<&str>> = variants.iter().map(types_of).collect();
            // One that says nothing may be anything.
            if types.iter().any(Vec::is_empty) { Vec::new() } else { types.concat() }
        }
        None => of_values(&schema["enum"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_schema_says_what_a_value_is() {
        let tool = Tool {
            name: "f".into(),
            parameters: json!({"type": "object", "properties": {
                "text": {"type": "string"}, "count": {"type": "integer"}, "on": {"type": "boolean"},
                "maybe": {"type": ["string", "null"]}, "list": {"type": "array"},
                "either": {"anyOf": [{"type": "number"}, {"type": "string"}]},
                "word": {"enum": ["1", "2"]}, "any": {"description": "?"},
            }}),
            strict: false,
            template: Value::Null,
        };
        for (key, written, value) in [
            ("text", "5", json!("5")),
            ("text", "{\"a\": 1}", json!("{\"a\": 1}")),
            ("text", " a\n\"b\" ", json!(" a\n\"b\" ")),
            ("count", " 5 ", json!(5)),
            ("count", "five", json!("five")),
            ("on", "True", json!(true)),
            ("on", "false", json!(false)),
            ("maybe", "None", json!(null)),
            ("maybe", "5", json!("5")),
            ("list", "[1, \"x\"]", json!([1, "x"])),
            ("either", "2.5", json!(2.5)),
            ("either", "two", json!("two")),
            ("word", "1", json!("1")),
            ("any", "[1]", json!([1])),
            ("any", "True", json!("True")),
            ("unknown", "x y", json!("x y")),
        ] {
            assert_eq!(value_of(&tool, key, written), value, "{key}: {written}");
        }
    }
}

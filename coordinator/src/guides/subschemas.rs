//! The schemas inside of a JSON Schema.

use serde_json::{Map, Value};

/// Keys of a schema whose value is a schema.
const ONE: [&str; 12] = [
    "items",
    "additionalItems",
    "additionalProperties",
    "unevaluatedItems",
    "unevaluatedProperties",
    "propertyNames",
    "contains",
    "contentSchema",
    "not",
    "if",
    "then",
    "else",
];
/// Keys whose value is a list of schemas.
const LIST: [&str; 5] = ["prefixItems", "items", "allOf", "anyOf", "oneOf"];
/// Keys whose value has a schema for each of its own keys.
const NAMED: [&str; 5] =
    ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"];

/// Shows `look` the keys of a schema and of all schemas inside of it.
pub(super) fn for_each(schema: &mut Value, look: &mut impl FnMut(&mut Map<String, Value>)) {
    let Value::Object(fields) = schema else { return };
    look(fields);
    for (key, value) in fields.iter_mut() {
        let key = key.as_str();
        match value {
            Value::Object(inner) if NAMED.contains(&key) => {
                inner.values_mut().for_each(|schema| for_each(schema, look));
            }
            Value::Array(list) if LIST.contains(&key) => {
                list.iter_mut().for_each(|schema| for_each(schema, look));
            }
            Value::Object(_) if ONE.contains(&key) => for_each(value, look),
            _ => {}
        }
    }
}

//! Objects whose properties are named have no others.
//!
//! JSON Schema lets an object have any properties beside those that are named, and a small model that begins to invent
//! some may find no end. Who names properties wants those: the libraries that make schemas of types (pydantic, zod)
//! leave `additionalProperties` out, and other servers take that as `false`. Every answer is valid by the
//! schema as it was given.

use super::subschemas::for_each;
use serde_json::{Map, Value, json};

/// What says more of an object's properties from another place.
const JOINED: [&str; 8] =
    ["allOf", "anyOf", "oneOf", "$ref", "$dynamicRef", "if", "dependentSchemas", "not"];
/// What says of an object's other properties what they are.
const OTHERS: [&str; 4] =
    ["additionalProperties", "patternProperties", "unevaluatedProperties", "propertyNames"];

/// Closes the objects of a schema. Nothing is closed if any of them is put together from several places: what one
/// place names would be another property for the other.
pub(super) fn close_objects(schema: &mut Value) {
    let mut is_joined = false;
    for_each(schema, &mut |fields| {
        let joins = JOINED.iter().any(|key| fields.contains_key(*key));
        is_joined |= fields.contains_key("allOf") || (joins && fields.contains_key("properties"));
    });
    if is_joined {
        return;
    }
    for_each(schema, &mut |fields| {
        if names_all(fields) && !OTHERS.iter().any(|key| fields.contains_key(*key)) {
            fields.insert("additionalProperties".to_owned(), json!(false));
        }
    });
}

/// Whether there are properties, and all that are needed are among them.
fn names_all(fields: &Map<String, Value>) -> bool {
    let Some(properties) = fields.get("properties").and_then(Value::as_object) else {
        return false;
    };
    let required = fields.get("required").and_then(Value::as_array).into_iter().flatten();
    let is_named = |name: &Value| name.as_str().is_some_and(|name| properties.contains_key(name));
    !properties.is_empty() && required.into_iter().all(is_named)
}

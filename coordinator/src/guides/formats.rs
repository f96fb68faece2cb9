//! Formats of strings whose form in the library lets through what others refuse.
//!
//! The library's dates have a year 0000 and a 29th of February in every year, and a time's fraction may have any
//! number of digits. RFC 3339 allows the second; readers of JSON Schema, which check with their language's
//! own dates, refuse the rest. Here are expressions of what all of them take.

use super::subschemas::for_each;
use serde_json::{Value, json};

/// A day that there is, of the years 0001 to 9999: those with 31 days, 30, 28, and the 29th of February of leap years.
const DATE: &str = "(?:(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])-\
    (?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))|\
    (?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)-02-29)";
/// A time with its zone, to the nanosecond.
const TIME: &str = "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,9})?\
    (?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])";

/// Puts patterns in the place of such formats, where the schema has no pattern of its own.
pub(super) fn with_patterns(schema: &mut Value) {
    for_each(schema, &mut |fields| {
        if !fields.contains_key("pattern")
            && let Some(pattern) = fields.get("format").and_then(Value::as_str).and_then(pattern_of)
        {
            fields.remove("format");
            fields.insert("pattern".to_owned(), json!(pattern));
        }
    });
}

fn pattern_of(format: &str) -> Option<String> {
    match format {
        "date" => Some(format!("^{DATE}$")),
        "time" => Some(format!("^{TIME}$")),
        "date-time" => Some(format!("^{DATE}T{TIME}$")),
        _ => None,
    }
}

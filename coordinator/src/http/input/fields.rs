//! A request's JSON object, taken apart field by field: every field is used or refused by name.
//!
//! `null` means "not given" for every field, as OpenAI's clients send it.

use super::json;
use crate::http::error::{ApiError, Problem, quote};
use serde_json::{Map, Value};
use std::ops::RangeInclusive;

/// The fields that are left of a request, or of an object inside it.
#[derive(Debug)]
pub struct Fields {
    left: Map<String, Value>,
    /// Where the object stands, for error texts: empty, or `stream_options.` and the like.
    prefix: String,
}

impl Fields {
    /// The fields of a request's body as it came.
    ///
    /// # Errors
    ///
    /// 400 if it is not one JSON object within the limits of [`json`].
    pub fn of_bytes(body: &[u8]) -> Result<Fields, ApiError> {
        let value = json::parse(body).map_err(|reason| {
            ApiError::new(Problem::Invalid, format!("The body is not valid JSON: {reason}."))
        })?;
        Fields::of_body(value)
    }

    /// The fields of a request's body.
    ///
    /// # Errors
    ///
    /// 400 if the body is not an object.
    pub fn of_body(body: Value) -> Result<Fields, ApiError> {
        match body {
            Value::Object(left) => Ok(Fields { left, prefix: String::new() }),
            other => Err(ApiError::new(
                Problem::Invalid,
                format!("The body must be a JSON object, not {}.", kind_of(&other)),
            )),
        }
    }

    /// The fields of an object inside a request, for instance at `messages[0]`.
    ///
    /// # Errors
    ///
    /// 400 naming `at` if the value is not an object.
    pub fn of_value(value: Value, at: &str) -> Result<Fields, ApiError> {
        match value {
            Value::Object(left) => Ok(Fields { left, prefix: format!("{at}.") }),
            other => Err(expected(at, "an object", &other)),
        }
    }

    /// The full name of a field, as errors name it.
    pub fn path(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Whether a field is there and not `null`.
    pub fn has(&self, name: &str) -> bool {
        self.left.get(name).is_some_and(|value| !value.is_null())
    }

    /// Whether a field is there and `null`.
    pub fn is_null(&self, name: &str) -> bool {
        self.left.get(name).is_some_and(Value::is_null)
    }

    /// Looks at a field; `None` if it is absent or `null`.
    pub fn peek(&self, name: &str) -> Option<&Value> {
        self.left.get(name).filter(|value| !value.is_null())
    }

    /// Takes a field; `None` if it is absent or `null`.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.left.shift_remove(name).filter(|value| !value.is_null())
    }

    /// Puts a field there that was made of the client's own ones, for those who take it under this name.
    ///
    /// # Errors
    ///
    /// 400 naming the field if the client sent one of this name too.
    pub fn put(&mut self, name: &str, value: impl Into<Value>) -> Result<(), ApiError> {
        if self.has(name) {
            let path = self.path(name);
            let text = format!("'{path}' says again what another field says: give one of them.");
            return Err(ApiError::invalid(&path, text));
        }
        self.left.insert(name.to_owned(), value.into());
        Ok(())
    }

    /// Takes `true` or `false`.
    ///
    /// # Errors
    ///
    /// 400 naming the field if it is of another type.
    pub fn bool(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(other) => Err(expected(&self.path(name), "true or false", &other)),
        }
    }

    /// Takes an integer of a range; a number without a fraction is one, however it is written.
    ///
    /// # Errors
    ///
    /// 400 naming the field if it is of another type or outside.
    pub fn integer(
        &mut self,
        name: &str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, ApiError> {
        let (start, end) = (i128::from(*range.start()), i128::from(*range.end()));
        let number = self.signed(name, start..=end)?;
        Ok(number.map(|number| u64::try_from(number).expect("the range holds no other")))
    }

    /// Takes an integer of a range that may begin below zero.
    ///
    /// # Errors
    ///
    /// 400 naming the field if it is of another type or outside.
    pub fn signed(
        &mut self,
        name: &str,
        range: RangeInclusive<i128>,
    ) -> Result<Option<i128>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let path = self.path(name);
        let number = integer_of(&value).filter(|number| range.contains(number));
        let wanted = || format!("an integer from {} to {}", range.start(), range.end());
        number.map(Some).ok_or_else(|| expected(&path, &wanted(), &value))
    }

    /// Takes a number of a range.
    ///
    /// # Errors
    ///
    /// 400 naming the field if it is of another type or outside.
    pub fn number(
        &mut self,
        name: &str,
        range: RangeInclusive<f64>,
    ) -> Result<Option<f64>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let path = self.path(name);
        let number = value.as_f64().filter(|number| range.contains(number));
        let wanted = || format!("a number from {} to {}", range.start(), range.end());
        number.map(Some).ok_or_else(|| expected(&path, &wanted(), &value))
    }

    /// Takes a string of at most `chars_max` characters.
    ///
    /// # Errors
    ///
    /// 400 naming the field if it is of another type or longer.
    pub fn string(&mut self, name: &str, chars_max: usize) -> Result<Option<String>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        string_of(value, &self.path(name), chars_max).map(Some)
    }

    /// Takes a string that has to be there.
    ///
    /// # Errors
    ///
    /// As [`Fields::string`]; 400 naming the field if it is absent.
    pub fn required(&mut self, name: &str, chars_max: usize) -> Result<String, ApiError> {
        let path = self.path(name);
        let text = self.string(name, chars_max)?;
        text.ok_or_else(|| ApiError::invalid(&path, format!("'{path}' is missing.")))
    }

    /// The names of the fields that are left.
    pub fn names(&self) -> Vec<String> {
        self.left.keys().cloned().collect()
    }

    /// The end: nothing may be left.
    ///
    /// # Errors
    ///
    /// 400 naming the first field that is left, unless it is `null`.
    pub fn finish(self) -> Result<(), ApiError> {
        match self.left.iter().find(|(_, value)| !value.is_null()) {
            None => Ok(()),
            Some((name, _)) => {
                let path = format!("{}{name}", self.prefix);
                let text = format!(
                    "Unknown field '{}'. Fields are obeyed or refused here, never ignored: leave \
                     it out.",
                    quote(&path)
                );
                Err(ApiError::new(Problem::UnknownField, text).at(&path))
            }
        }
    }
}

/// The integer that a JSON number is: `4`, `4.0` and `4e0` are one. `None` for other values, and for
/// numbers with a fraction or beyond 64 bits.
pub fn integer_of(value: &Value) -> Option<i128> {
    // 2^64: all smaller floats without a fraction convert exactly.
    const BEYOND: f64 = 18_446_744_073_709_551_616.0;
    let number = value.as_number()?;
    let exact = number.as_u64().map(i128::from).or(number.as_i64().map(i128::from));
    let whole = || number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < BEYOND);
    exact.or_else(|| whole().map(|float| float as i128))
}

/// A string of at most `chars_max` characters.
///
/// # Errors
///
/// 400 naming `at`.
pub fn string_of(value: Value, at: &str, chars_max: usize) -> Result<String, ApiError> {
    match value {
        Value::String(text) if text.len() <= chars_max => Ok(text),
        Value::String(text) => match text.chars().count() {
            count if count > chars_max => Err(ApiError::invalid(
                at,
                format!("'{at}' has {count} characters; at most {chars_max} are allowed."),
            )),
            _ => Ok(text),
        },
        other => Err(expected(at, "a string", &other)),
    }
}

/// An array.
///
/// # Errors
///
/// 400 naming `at` if it is something else or has more than `len_max` items.
pub fn array_of(value: Value, at: &str, len_max: usize) -> Result<Vec<Value>, ApiError> {
    match value {
        Value::Array(items) if items.len() <= len_max => Ok(items),
        Value::Array(items) => Err(ApiError::invalid(
            at,
            format!("'{at}' has {} items; at most {len_max} are allowed.", items.len()),
        )),
        other => Err(expected(at, "an array", &other)),
    }
}

/// The error for a value of the wrong type or outside its range.
pub fn expected(at: &str, wanted: &str, got: &Value) -> ApiError {
    let got = match got {
        Value::Number(number) => quote(&number.to_string()),
        Value::String(text) => format!("the string {:?}", quote(text)),
        other => kind_of(other).to_owned(),
    };
    ApiError::invalid(at, format!("'{}' must be {wanted}; got {got}.", quote(at)))
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(true) => "true",
        Value::Bool(false) => "false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_number_without_a_fraction_is_an_integer() {
        for (value, integer) in [
            (json!(4), Some(4)),
            (json!(4.0), Some(4)),
            (json!(4e0), Some(4)),
            (json!(-0.0), Some(0)),
            (json!(-7.0), Some(-7)),
            (json!(u64::MAX), Some(i128::from(u64::MAX))),
            (json!(1e300), None),
            (json!(4.5), None),
            (json!("4"), None),
            (json!(true), None),
        ] {
            assert_eq!(integer_of(&value), integer, "{value}");
        }
    }
}
